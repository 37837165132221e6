//! Headers of answers, from what the statement reported.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::error::Error;
use crate::request::{Range, UNRESERVED};
use crate::schema::{Routine, Table, Volatility};

/// `Vary` of every answer that sets none itself.
pub const VARY: &str = "Accept, Prefer, Range";

/// `Content-Range` from first and last row (last below first: no rows) and the number of all rows, if counted.
pub fn content_range(first: i64, last: i64, total: Option<i64>) -> String {
    let total_text = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    if total != Some(0) && first <= last {
        format!("{first}-{last}/{total_text}")
    } else {
        format!("*/{total_text}")
    }
}

/// Status and `Content-Range` of a read of `rows` rows out of `total`. A status of 416 asks for the body of
/// [`crate::error::RangeError::OutOfBounds`].
pub fn range_status(range: Range, rows: u64, total: Option<u64>) -> (StatusCode, String) {
    let status = match total {
        Some(total) if range.offset > total => StatusCode::RANGE_NOT_SATISFIABLE,
        Some(total) if rows < total => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let first = signed(range.offset);
    let last = first.saturating_add(signed(rows)).saturating_sub(1);
    (status, content_range(first, last, total.map(signed)))
}

/// `Location` of an inserted row: its key as filters; none without a key.
pub fn location<'a>(relation: &str, key: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut text = format!("/{relation}");
    let mut separator = '?';
    for (column, filter) in key {
        text.push(separator);
        text.extend(utf8_percent_encode(column, UNRESERVED));
        text.push('=');
        text.extend(utf8_percent_encode(filter, UNRESERVED));
        separator = '&';
    }
    (separator == '&').then_some(text)
}

/// `Content-Location` of a read, from the canonical query string.
pub fn content_location(relation: &str, canonical: &str) -> String {
    if canonical.is_empty() { format!("/{relation}") } else { format!("/{relation}?{canonical}") }
}

/// `Server-Timing` of what was measured, in the order of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerTiming {
    /// Verifying the token.
    pub jwt: Option<Duration>,
    /// Parsing the request.
    pub parse: Option<Duration>,
    /// Planning.
    pub plan: Option<Duration>,
    /// The transaction.
    pub transaction: Option<Duration>,
    /// Making the response.
    pub response: Option<Duration>,
}

impl ServerTiming {
    /// The header's value, in milliseconds.
    pub fn render(&self) -> String {
        let stages = [
            ("jwt", self.jwt),
            ("parse", self.parse),
            ("plan", self.plan),
            ("transaction", self.transaction),
            ("response", self.response),
        ];
        let mut text = String::new();
        for (stage, duration) in stages {
            if let Some(duration) = duration {
                let separator = if text.is_empty() { "" } else { ", " };
                write!(text, "{separator}{stage};dur={:.1}", duration.as_secs_f64() * 1000.0)
                    .expect("a string takes everything");
            }
        }
        text
    }
}

/// One header that the database set.
struct SetHeader(HeaderName, HeaderValue);

impl<'de> Deserialize<'de> for SetHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnePair;

        impl<'de> Visitor<'de> for OnePair {
            type Value = SetHeader;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object with one header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SetHeader, A::Error> {
                use serde::de::Error as _;
                let pair = map.next_entry::<String, String>()?;
                let (name, value) = pair.ok_or_else(|| A::Error::custom("no header"))?;
                if map.next_entry::<String, String>()?.is_some() {
                    return Err(A::Error::custom("more than one header"));
                }
                Ok(SetHeader(
                    HeaderName::try_from(name).map_err(A::Error::custom)?,
                    HeaderValue::try_from(value).map_err(A::Error::custom)?,
                ))
            }
        }

        deserializer.deserialize_map(OnePair)
    }
}

/// Parses `response.headers` as the database left it; an unset or empty setting has no headers.
///
/// # Errors
/// PGRST111 unless it is an array of objects of one header each.
pub fn set_headers(setting: Option<&str>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if let Some(setting) = setting.filter(|setting| !setting.is_empty()) {
        let list: Vec<SetHeader> = serde_json::from_str(setting).map_err(|_| Error::GucHeaders)?;
        for SetHeader(name, value) in list {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// Parses `response.status` as the database left it.
///
/// # Errors
/// PGRST112 unless it begins with a status that can end an exchange.
pub fn set_status(setting: Option<&str>) -> Result<Option<StatusCode>, Error> {
    let Some(setting) = setting.filter(|setting| !setting.is_empty()) else { return Ok(None) };
    let end = setting.find(|c: char| !c.is_ascii_digit()).unwrap_or(setting.len());
    let status = setting[..end].parse().ok().and_then(|status: u16| StatusCode::from_u16(status).ok());
    status.filter(|status| !status.is_informational()).map(Some).ok_or(Error::GucStatus)
}

/// Lets headers that the database set replace those of the answer.
pub fn override_headers(answer: &mut HeaderMap, set: HeaderMap) {
    for name in set.keys() {
        answer.remove(name);
    }
    for (name, value) in set.iter() {
        answer.append(name, value.clone());
    }
}

/// `Allow` of a table or view.
pub fn allow_table(table: &Table) -> String {
    let methods = [
        (true, "OPTIONS,GET,HEAD"),
        (table.insertable, "POST"),
        (table.insertable && table.updatable && !table.primary_key.is_empty(), "PUT"),
        (table.updatable, "PATCH"),
        (table.deletable, "DELETE"),
    ];
    let allowed: Vec<&str> =
        methods.iter().filter(|(allowed, _)| *allowed).map(|(_, method)| *method).collect();
    allowed.join(",")
}

/// `Allow` of a function.
pub fn allow_routine(routine: &Routine) -> &'static str {
    match routine.volatility {
        Volatility::Volatile => "OPTIONS,POST",
        Volatility::Stable | Volatility::Immutable => "OPTIONS,GET,HEAD,POST",
    }
}

/// `Allow` of the root.
pub const ALLOW_ROOT: &str = "OPTIONS,GET,HEAD";
