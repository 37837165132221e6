//! Requests to providers: bounded in time and size, without redirects, and not into private networks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Request};
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::addresses::is_public;

/// Longest time that one request may take, from name resolution to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer. Key sets and profiles are a few kilobytes.
const MOST_BYTES: usize = 512 * 1024;

/// Why a request to a provider failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    /// No client could be set up.
    #[error("cannot make requests to the outside: {0}; install the system's certificate authorities")]
    Client(String),
    /// The address must not be asked.
    #[error("{0} is not a public https address: correct the provider's `url`, or allow private addresses")]
    Forbidden(String),
    /// No answer.
    #[error("{url} does not answer: {reason}; check the network and the provider's `url`")]
    Unreachable { url: String, reason: String },
    /// A refusal.
    #[error("{url} answered {status}: check the provider's settings")]
    Refused { url: String, status: u16 },
    /// Not what it should be.
    #[error("{url} sent what cannot be used: {reason}; check the provider's `url`")]
    Unusable { url: String, reason: String },
}

/// The one way out.
pub(crate) struct Outbound {
    client: Result<Client, String>,
    allow_private: bool,
}

impl Outbound {
    pub(crate) fn new(allow_private: bool) -> Self {
        let client = Client::builder()
            .timeout(DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .redirect(Policy::none())
            // A proxy would resolve names itself, behind our back.
            .no_proxy()
            .user_agent(concat!("longhouse/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Guard { allow_private })
            .build()
            .map_err(|error| error.to_string());
        Self { client, allow_private }
    }

    /// A JSON document, with an access token if given.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        url: &Url,
        token: Option<&str>,
    ) -> Result<T, FetchError> {
        let mut request = Request::new(reqwest::Method::GET, url.clone());
        request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let mut value = http::HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| unusable(url, "a token that fits into no header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(FetchError::Refused { url: bare(url), status: response.status().as_u16() });
        }
        serde_json::from_slice(response.body()).map_err(|error| unusable(url, error))
    }

    /// Any request; statuses are the caller's to judge.
    pub(crate) async fn send(&self, request: Request) -> Result<http::Response<Vec<u8>>, FetchError> {
        let url = request.url().clone();
        let client = self.client.as_ref().map_err(|error| FetchError::Client(error.clone()))?;
        permit(&url, self.allow_private)?;
        let unreachable = |error: &reqwest::Error| FetchError::Unreachable {
            url: bare(&url),
            reason: innermost(error).unwrap_or_else(|| "no reason given".to_owned()),
        };
        let mut response = client.execute(request).await.map_err(|error| unreachable(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(unusable(&url, format!("more than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

/// Whether an address may be asked at all. Names are checked again when they are resolved.
fn permit(url: &Url, allow_private: bool) -> Result<(), FetchError> {
    let literal = match url.host() {
        Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(Host::Domain(_)) => None,
        None => return Err(FetchError::Forbidden(bare(url))),
    };
    let scheme = url.scheme() == "https" || (allow_private && url.scheme() == "http");
    let public = allow_private || literal.is_none_or(is_public);
    if scheme && public && url.username().is_empty() && url.password().is_none() {
        Ok(())
    } else {
        Err(FetchError::Forbidden(bare(url)))
    }
}

/// Resolves names and hides private addresses; the connection goes to exactly what this returned, so that a second
/// answer of the name server changes nothing.
struct Guard {
    allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("{} leads to no public address", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Without query: it may hold secrets.
fn bare(url: &Url) -> String {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let _ = bare.set_password(None);
    let _ = bare.set_username("");
    bare.into()
}

fn unusable(url: &Url, reason: impl std::fmt::Display) -> FetchError {
    FetchError::Unusable { url: bare(url), reason: reason.to_string() }
}

/// The cause that says something: reqwest's own message is only "error sending request".
fn innermost(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut last = None;
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    last
}

/// Requests by the `oauth2` crate.
pub(super) async fn for_oauth2(
    outbound: Arc<Outbound>,
    request: oauth2::HttpRequest,
) -> Result<oauth2::HttpResponse, FetchError> {
    let url = request.uri().to_string();
    let request = Request::try_from(request)
        .map_err(|error| FetchError::Unusable { url, reason: error.to_string() })?;
    outbound.send(request).await
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://accounts.example.com/x", false, true)]
    #[case("https://8.8.8.8/", false, true)]
    #[case("http://accounts.example.com/", false, false)]
    #[case("https://127.0.0.1/", false, false)]
    #[case("https://[::1]/", false, false)]
    #[case("https://2130706433/", false, false)]
    #[case("https://0x7f.1/", false, false)]
    #[case("https://user@example.com/", false, false)]
    #[case("ftp://example.com/", true, false)]
    #[case("file:///etc/passwd", true, false)]
    #[case("http://127.0.0.1:9/", true, true)]
    fn asks_public_https_addresses_only(#[case] url: Url, #[case] private: bool, #[case] allowed: bool) {
        assert_eq!(permit(&url, private).is_ok(), allowed);
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused() {
        let error = Outbound::new(false)
            .get_json::<serde_json::Value>(&"https://localhost/".parse().unwrap(), None)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no public address"), "{error}");
    }
}
