//! An object as a response: conditions, ranges, and headers under which it can do no harm on our origin.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Metadata;
use super::pace::paced;
use super::store::Object;
use crate::blobs::Version;
use crate::{Error, Storage};

/// `encodeURIComponent`'s set, less the quote, which RFC 5987 gives a meaning.
const FILE_NAME: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'!').remove(b'~');

/// A file may show itself; it may run, load and send nothing.
const HARMLESS: &str = "default-src 'none'; img-src 'self' data:; media-src 'self'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors *";

/// How an object is to be served.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// `?download` or `?download=name`: to be saved rather than shown.
    pub download: Option<String>,
    /// When the URL stops to open.
    pub expires: Option<SystemTime>,
    /// Headers alone.
    pub head: bool,
}

/// The response to a request for an object that may be read.
///
/// # Errors
/// [`Error::NoSuchKey`] for a row that never had bytes, [`Error::InvalidRange`] in a response of its own,
/// [`Error::BytesMissing`], or the store.
pub async fn respond(
    storage: &Storage,
    object: &Object,
    request: &HeaderMap,
    serving: &Serving,
) -> Result<Response, Error> {
    let metadata = object.described().ok_or(Error::NoSuchKey)?;
    let version = object.version.as_deref().and_then(Version::parse).ok_or(Error::NoSuchKey)?;
    let mut headers = describing(&metadata, serving)?;
    if is_current(request, &metadata) {
        headers.remove(CONTENT_LENGTH);
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let whole = 0..metadata.size;
    let (status, range) = match wanted_range(request, &metadata) {
        Wanted::Whole => (StatusCode::OK, whole),
        Wanted::Part(range) => {
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, metadata.size);
            headers.insert(CONTENT_RANGE, value(&text)?);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Wanted::Beyond => {
            let mut response = Error::InvalidRange.into_response();
            response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{}", metadata.size))?);
            return Ok(response);
        }
    };
    if serving.head {
        return Ok((status, headers, Body::empty()).into_response());
    }
    let content = storage.blobs().get(version, range).await?;
    Ok((status, headers, Body::from_stream(paced(content))).into_response())
}

fn describing(metadata: &Metadata, serving: &Serving) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, value(shown_type(&metadata.mimetype))?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(metadata.size));
    headers.insert(ETAG, value(&metadata.e_tag)?);
    headers.insert(LAST_MODIFIED, http_date(metadata.last_modified.into())?);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(HARMLESS));
    let robots = metadata.x_robots_tag.as_deref().unwrap_or("none");
    headers.insert(HeaderName::from_static("x-robots-tag"), value(robots)?);
    match serving.expires {
        Some(expires) => headers.insert(EXPIRES, http_date(expires)?),
        None => headers.insert(CACHE_CONTROL, value(&metadata.cache_control)?),
    };
    if let Some(name) = &serving.download {
        headers.insert(CONTENT_DISPOSITION, value(&disposition(name))?);
    }
    Ok(headers)
}

/// Pages would run their scripts with the rights of this origin: they are shown as their source.
fn shown_type(mimetype: &str) -> &str {
    let lower = mimetype.to_ascii_lowercase();
    if lower.contains("text/html") || lower.contains("xhtml") { "text/plain" } else { mimetype }
}

pub(crate) fn disposition(name: &str) -> String {
    if name.is_empty() {
        return "attachment".into();
    }
    let name: String = name.chars().take(255).collect();
    let encoded = utf8_percent_encode(&name, FILE_NAME);
    format!("attachment; filename={encoded}; filename*=UTF-8''{encoded}")
}

/// What a row says may have been written by hand: it is checked again before it becomes a header.
fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::NoSuchKey)
}

fn http_date(time: SystemTime) -> Result<HeaderValue, Error> {
    // Four digits of a year are all that the format has.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    value(&httpdate::fmt_http_date(time.clamp(SystemTime::UNIX_EPOCH, last)))
}

/// Whether the client's copy is current (RFC 9110, 13.2.2: a tag goes before a date).
fn is_current(request: &HeaderMap, metadata: &Metadata) -> bool {
    let mut tags = request.get_all(IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        return tags.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == metadata.e_tag
        });
    }
    date(request, &IF_MODIFIED_SINCE).is_some_and(|since| seconds(metadata.last_modified) <= since)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Beyond,
}

fn wanted_range(request: &HeaderMap, metadata: &Metadata) -> Wanted {
    let Some(text) = request.get(RANGE).and_then(|value| value.to_str().ok()) else { return Wanted::Whole };
    if let Some(condition) = request.get(IF_RANGE) {
        let same_tag = condition.as_bytes() == metadata.e_tag.as_bytes();
        let same_date = date(request, &IF_RANGE).is_some_and(|date| seconds(metadata.last_modified) == date);
        if !same_tag && !same_date {
            return Wanted::Whole;
        }
    }
    parse_range(text, metadata.size)
}

/// One range of bytes. Several, or what is no range, are ignored, as RFC 9110 allows.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are further than any file reaches.
        true if !text.is_empty() => Some(text.parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    match (from.is_empty(), number(from), to.is_empty(), number(to)) {
        (true, _, _, Some(0)) => Wanted::Beyond,
        (true, _, _, Some(_)) if size == 0 => Wanted::Beyond,
        (true, _, _, Some(last)) => Wanted::Part(size.saturating_sub(last)..size),
        (_, Some(from), true, _) if from < size => Wanted::Part(from..size),
        (_, Some(from), _, Some(to)) if from < size && from <= to => {
            Wanted::Part(from..to.saturating_add(1).min(size))
        }
        (_, Some(from), _, Some(to)) if from > to => Wanted::Whole,
        (_, Some(_), true, _) | (_, Some(_), _, Some(_)) => Wanted::Beyond,
        _ => Wanted::Whole,
    }
}

fn date(request: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = request.get(name)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn seconds(time: DateTime<Utc>) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use rstest::rstest;

    use super::*;
    use crate::blobs::Written;

    #[rstest]
    #[case("bytes=0-3", 10, Wanted::Part(0..4))]
    #[case("bytes=4-", 10, Wanted::Part(4..10))]
    #[case("bytes=-3", 10, Wanted::Part(7..10))]
    #[case("bytes=-30", 10, Wanted::Part(0..10))]
    #[case("bytes=8-30", 10, Wanted::Part(8..10))]
    #[case("bytes=9-9", 10, Wanted::Part(9..10))]
    #[case("bytes=10-", 10, Wanted::Beyond)]
    #[case("bytes=10-12", 10, Wanted::Beyond)]
    #[case("bytes=-0", 10, Wanted::Beyond)]
    #[case("bytes=0-", 0, Wanted::Beyond)]
    #[case("bytes=-1", 0, Wanted::Beyond)]
    #[case("bytes=99999999999999999999999-", 10, Wanted::Beyond)]
    #[case("bytes=0-99999999999999999999999", 10, Wanted::Part(0..10))]
    #[case("bytes=5-4", 10, Wanted::Whole)]
    #[case("bytes=0-1,3-4", 10, Wanted::Whole)]
    #[case("bytes=a-b", 10, Wanted::Whole)]
    #[case("bytes=-", 10, Wanted::Whole)]
    #[case("lines=1-2", 10, Wanted::Whole)]
    fn ranges(#[case] text: &str, #[case] size: u64, #[case] wanted: Wanted) {
        assert_eq!(parse_range(text, size), wanted);
    }

    fn metadata() -> Metadata {
        let written = Written { size: 10, sha256: [7; 32] };
        let mut metadata = Metadata::new(&written, "text/plain", "no-cache", None);
        metadata.last_modified = DateTime::from_timestamp(1_000_000, 500_000_000).unwrap();
        metadata
    }

    #[rstest]
    #[case("if-none-match", "TAG", true)]
    #[case("if-none-match", "W/TAG", true)]
    #[case("if-none-match", "\"other\", TAG", true)]
    #[case("if-none-match", "*", true)]
    #[case("if-none-match", "\"other\"", false)]
    #[case("if-modified-since", "Mon, 12 Jan 1970 13:46:40 GMT", true)]
    #[case("if-modified-since", "Mon, 12 Jan 1970 13:46:39 GMT", false)]
    #[case("if-modified-since", "yesterday", false)]
    fn conditions(#[case] name: &'static str, #[case] text: &str, #[case] current: bool) {
        let metadata = metadata();
        let text = text.replace("TAG", &metadata.e_tag);
        let request = [(HeaderName::from_static(name), value(&text).unwrap())].into_iter().collect();
        assert_eq!(is_current(&request, &metadata), current);
    }

    #[test]
    fn a_tag_goes_before_a_date() {
        let request = [
            (IF_NONE_MATCH, value("\"other\"").unwrap()),
            (IF_MODIFIED_SINCE, value("Mon, 12 Jan 2070 13:46:40 GMT").unwrap()),
        ];
        assert!(!is_current(&request.into_iter().collect(), &metadata()));
    }

    #[test]
    fn a_range_of_another_version_is_not_mixed_in() {
        let metadata = metadata();
        let request = |tag: &str| -> HeaderMap {
            [(RANGE, value("bytes=0-1").unwrap()), (IF_RANGE, value(tag).unwrap())].into_iter().collect()
        };
        assert_eq!(wanted_range(&request("\"other\""), &metadata), Wanted::Whole);
        assert_eq!(wanted_range(&request(&metadata.e_tag), &metadata), Wanted::Part(0..2));
        assert_eq!(wanted_range(&request("Mon, 12 Jan 1970 13:46:40 GMT"), &metadata), Wanted::Part(0..2));
    }

    #[test]
    fn names_of_downloads_cannot_break_out() {
        assert_eq!(disposition(""), "attachment");
        assert_eq!(disposition("a b.txt"), "attachment; filename=a%20b.txt; filename*=UTF-8''a%20b.txt");
        let hostile = disposition("x\"; \r\nset-cookie: a=b");
        assert!(hostile.is_ascii() && !hostile.contains(['\r', '\n', '"']), "{hostile}");
    }

    #[test]
    fn pages_are_shown_as_source() {
        assert_eq!(shown_type("text/html; charset=utf-8"), "text/plain");
        assert_eq!(shown_type("Application/XHTML+xml"), "text/plain");
        assert_eq!(shown_type("image/svg+xml"), "image/svg+xml");
    }
}
