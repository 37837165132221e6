//! Pages of lists: `page` and `per_page` in, `Link` and `X-Total-Count` out.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::service::error::AuthApiError;

const DEFAULT_PER_PAGE: i64 = 50;
const MOST_PER_PAGE: i64 = 1000;
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// Extractor: which page is asked for, with the rest of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Page {
    path: String,
    page: i64,
    per_page: i64,
    /// Other parameters, in their order.
    others: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthApiError> {
        Self::parse(parts.uri.path(), parts.uri.query().unwrap_or_default())
    }
}

impl Page {
    fn parse(path: &str, query: &str) -> Result<Self, AuthApiError> {
        let (mut page, mut per_page, mut others) = (1, DEFAULT_PER_PAGE, Vec::new());
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "page" if !value.is_empty() => page = number(&value)?,
                "per_page" if !value.is_empty() => per_page = number(&value)?.min(MOST_PER_PAGE),
                "page" | "per_page" => {}
                _ => others.push((name.into_owned(), value.into_owned())),
            }
        }
        // Zero is what clients without a wish send.
        let or = |number: i64, other| if number == 0 { other } else { number };
        Ok(Self {
            path: path.to_owned(),
            page: or(page, 1),
            per_page: or(per_page, DEFAULT_PER_PAGE),
            others,
        })
    }

    /// Another parameter of the query.
    pub(in super::super) fn parameter(&self, name: &str) -> &str {
        self.others.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub(in super::super) fn limit(&self) -> i64 {
        self.per_page
    }

    pub(in super::super) fn offset(&self) -> i64 {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// What tells clients about the other pages.
    pub(in super::super) fn headers(&self, total: i64) -> HeaderMap {
        let last = total.div_euclid(self.per_page) + i64::from(total.rem_euclid(self.per_page) > 0);
        let mut link = String::new();
        if last > self.page {
            link = format!("<{}>; rel=\"next\", ", self.address(self.page + 1));
        }
        link.push_str(&format!("<{}>; rel=\"last\"", self.address(last)));
        let mut headers = HeaderMap::new();
        headers.insert(TOTAL, HeaderValue::from(total));
        if let Ok(link) = HeaderValue::try_from(link) {
            headers.insert(http::header::LINK, link);
        }
        headers
    }

    /// `page` comes first: auth-js reads the number behind the first `=`.
    fn address(&self, page: i64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("page", &page.to_string()).append_pair("per_page", &self.per_page.to_string());
        query.extend_pairs(&self.others);
        format!("{}?{}", self.path, query.finish())
    }
}

fn number(text: &str) -> Result<i64, AuthApiError> {
    text.parse::<u32>().map(i64::from).map_err(|_| {
        AuthApiError::invalid(format!("Bad Pagination Parameters: {text:?} is not a whole number"))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", 50, 0)]
    #[case("page=&per_page=", 50, 0)]
    #[case("page=0&per_page=0", 50, 0)]
    #[case("page=3&per_page=20", 20, 40)]
    #[case("per_page=100000", 1000, 0)]
    fn wishes(#[case] query: &str, #[case] limit: i64, #[case] offset: i64) {
        let page = Page::parse("/admin/users", query).unwrap();
        assert_eq!((page.limit(), page.offset()), (limit, offset));
    }

    #[rstest]
    #[case("page=x")]
    #[case("page=-1")]
    #[case("per_page=1.5")]
    #[case("page=99999999999")]
    fn nonsense(#[case] query: &str) {
        assert_eq!(Page::parse("/", query).unwrap_err().code(), "validation_failed");
    }

    #[rstest]
    #[case(
        "page=1&per_page=2",
        5,
        "</admin/users?page=2&per_page=2>; rel=\"next\", </admin/users?page=3&per_page=2>; rel=\"last\""
    )]
    #[case("page=3&per_page=2", 5, "</admin/users?page=3&per_page=2>; rel=\"last\"")]
    #[case("", 0, "</admin/users?page=0&per_page=50>; rel=\"last\"")]
    #[case(
        "filter=a%3D&page=1&per_page=1",
        2,
        "</admin/users?page=2&per_page=1&filter=a%3D>; rel=\"next\", </admin/users?page=2&per_page=1&filter=a%3D>; rel=\"last\""
    )]
    fn links(#[case] query: &str, #[case] total: i64, #[case] link: &str) {
        let headers = Page::parse("/admin/users", query).unwrap().headers(total);
        assert_eq!(headers["link"], link);
        assert_eq!(headers["x-total-count"], total.to_string());
    }
}
