//! `limit`, `offset` and the `Range` header.

use http::{HeaderMap, Method, header};

use super::{EmbedPath, Range};
use crate::error::{Error, RangeError};

/// Rows from `lower` to `upper`, both included; `upper` below `lower` is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    lower: i64,
    upper: Option<i64>,
}

impl Bounds {
    const ALL: Self = Self { lower: 0, upper: None };
    /// What `limit=0` alone asks for: the one empty range that is served.
    const NONE: Self = Self { lower: 0, upper: Some(-1) };

    fn is_empty(self) -> bool {
        self.upper.is_some_and(|upper| upper < self.lower)
    }

    fn intersect(self, other: Self) -> Self {
        let upper = match (self.upper, other.upper) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { lower: self.lower.max(other.lower), upper }
    }

    fn range(self) -> Range {
        let limit = self.upper.map(|upper| u64::try_from(upper - self.lower + 1).unwrap_or_default());
        Range { offset: u64::try_from(self.lower).unwrap_or_default(), limit }
    }
}

#[derive(Debug, Clone, Default)]
struct Request {
    path: EmbedPath,
    /// Outer: whether it was said; inner: whether it was a number.
    limit: Option<Option<i64>>,
    offset: Option<Option<i64>>,
}

impl Request {
    fn bounds(&self) -> Bounds {
        let offset = self.offset.map(Option::unwrap_or_default);
        match (self.limit, offset) {
            (None, offset) => Bounds { lower: offset.unwrap_or_default(), upper: None },
            (Some(None), None) => Bounds::ALL,
            (Some(Some(limit)), None) => Bounds { lower: 0, upper: Some(limit.saturating_sub(1)) },
            // A limit that is no number counts as zero once there is an offset.
            (Some(limit), Some(offset)) => Bounds {
                lower: offset,
                upper: Some(offset.saturating_add(limit.unwrap_or_default()).saturating_sub(1)),
            },
        }
    }
}

/// The `limit` and `offset` parameters as they came.
#[derive(Debug, Clone, Default)]
pub struct RequestedRanges {
    requests: Vec<Request>,
}

impl RequestedRanges {
    fn request(&mut self, path: EmbedPath) -> &mut Request {
        let index = match self.requests.iter().position(|request| request.path == path) {
            Some(index) => index,
            None => {
                self.requests.push(Request { path, ..Request::default() });
                self.requests.len() - 1
            }
        };
        &mut self.requests[index]
    }

    pub(crate) fn limit(&mut self, path: EmbedPath, value: &str) {
        self.request(path).limit = Some(integer(value));
    }

    pub(crate) fn offset(&mut self, path: EmbedPath, value: &str) {
        self.request(path).offset = Some(integer(value));
    }

    fn root(&self) -> Bounds {
        self.requests.iter().find(|request| request.path.is_empty()).map_or(Bounds::ALL, Request::bounds)
    }

    /// Ranges by embed, and the root's where the query asks for one.
    pub(crate) fn of_embeds(&self) -> Result<Vec<(EmbedPath, Range)>, Error> {
        self.requests
            .iter()
            .map(|request| {
                let bounds = request.bounds();
                // The root's is judged together with the `Range` header.
                let negative = bounds.lower < 0 || bounds.upper.is_some_and(|upper| upper < bounds.lower - 1);
                if negative && !request.path.is_empty() {
                    return Err(Error::InvalidRange(RangeError::NegativeLimit));
                }
                Ok((request.path.clone(), bounds.range()))
            })
            .collect()
    }

    /// The root's range within the `Range` header, which counts for `GET` only.
    ///
    /// # Errors
    /// PGRST103 for an empty range, PGRST114 for any range of a `PUT`.
    pub(crate) fn top_level(&self, method: &Method, headers: &HeaderMap) -> Result<Range, Error> {
        let from_header = if method == Method::GET { range_header(headers) } else { Bounds::ALL };
        let from_query = self.root();
        let only_zero = from_query.upper == Some(-1);
        let merged = if only_zero { Bounds::NONE } else { from_header.intersect(from_query) };
        if merged.is_empty() && !only_zero {
            let error =
                if from_header.is_empty() { RangeError::LowerAboveUpper } else { RangeError::NegativeLimit };
            return Err(Error::InvalidRange(error));
        }
        if method == Method::PUT && merged != Bounds::ALL {
            return Err(Error::PutLimit);
        }
        Ok(merged.range())
    }
}

/// A whole number; ones beyond 64 bits count as the largest.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 }))
}

/// `Range: 0-9` or `0-`; anything else asks for everything.
fn range_header(headers: &HeaderMap) -> Bounds {
    let bounds = headers.get(header::RANGE).and_then(|value| {
        let (lower, upper) = value.to_str().ok()?.split_once('-')?;
        if lower.starts_with(['-', ' ']) || upper.starts_with(['-', ' ']) || upper.ends_with(' ') {
            return None;
        }
        let upper = if upper.is_empty() { None } else { Some(integer(upper)?) };
        Some(Bounds { lower: integer(lower)?, upper })
    });
    bounds.unwrap_or(Bounds::ALL)
}
