use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::cors::Cors;
use super::headers::{
    ServerTiming, content_location, content_range, location, override_headers, range_status, set_headers,
    set_status,
};
use crate::config::RestConfig;
use crate::error::Error;
use crate::request::Range;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

#[test]
fn content_range_has_a_star_for_what_is_unknown_or_empty() {
    for (first, last, total, expected) in [
        (0, 9, Some(15), "0-9/15"),
        (0, 9, None, "0-9/*"),
        (1, 0, None, "*/*"),
        (1, 0, Some(3), "*/3"),
        (0, 9, Some(0), "*/0"),
        (0, -1, None, "*/*"),
    ] {
        assert_eq!(content_range(first, last, total), expected);
    }
}

#[test]
fn reads_answer_by_how_much_of_the_total_they_hold() {
    let from = |offset| Range { offset, limit: None };
    for (offset, rows, total, status, range) in [
        (0, 15, None, 200, "0-14/*"),
        (0, 15, Some(15), 200, "0-14/15"),
        (0, 2, Some(15), 206, "0-1/15"),
        (5, 0, Some(5), 206, "*/5"),
        (6, 0, Some(5), 416, "*/5"),
        (0, 0, Some(0), 200, "*/0"),
    ] {
        let expected = (StatusCode::from_u16(status).unwrap(), range.to_owned());
        assert_eq!(range_status(from(offset), rows, total), expected, "{offset} {rows} {total:?}");
    }
}

#[test]
fn locations_are_encoded() {
    assert_eq!(location("t", []), None);
    let key = [("id", "eq.1"), ("käse", "eq.a b&c")];
    assert_eq!(location("t", key).unwrap(), "/t?id=eq.1&k%C3%A4se=eq.a%20b%26c");
    assert_eq!(content_location("t", ""), "/t");
    assert_eq!(content_location("t", "id=eq.1"), "/t?id=eq.1");
}

#[test]
fn timings_are_in_milliseconds() {
    let timing = ServerTiming {
        jwt: Some(Duration::from_micros(40)),
        transaction: Some(Duration::from_micros(1250)),
        ..ServerTiming::default()
    };
    assert_eq!(timing.render(), "jwt;dur=0.0, transaction;dur=1.2");
}

#[test]
fn the_database_sets_headers_and_status() {
    let set = set_headers(Some(r#"[{"Set-Cookie":"a=1"},{"Set-Cookie":"b=2"},{"X-A":"ü"}]"#)).unwrap();
    assert_eq!(set.get_all("set-cookie").iter().count(), 2);
    let mut answer = headers(&[("set-cookie", "c=3"), ("content-type", "text/plain")]);
    override_headers(&mut answer, set);
    assert_eq!(answer.get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer["content-type"], "text/plain");
    for wrong in [
        r#"{"a":"b"}"#,
        r#"[{"a":"b","c":"d"}]"#,
        r#"[{"a":1}]"#,
        "[{}]",
        "[\"a\"]",
        "{{",
        "[{\"a b\":\"c\"}]",
    ] {
        assert_eq!(set_headers(Some(wrong)), Err(Error::GucHeaders), "{wrong}");
    }
    assert_eq!(set_headers(None), Ok(HeaderMap::new()));

    assert_eq!(set_status(Some("418")), Ok(Some(StatusCode::IM_A_TEAPOT)));
    assert_eq!(set_status(Some("205 Reset")), Ok(Some(StatusCode::RESET_CONTENT)));
    assert_eq!(set_status(None), Ok(None));
    for wrong in ["a", "-1", "99999", "100", "7"] {
        assert_eq!(set_status(Some(wrong)), Err(Error::GucStatus), "{wrong}");
    }
}

#[test]
fn any_origin_is_let_in_unless_origins_are_configured() {
    let open = RestConfig::default();
    let request = headers(&[("origin", "http://example.com")]);
    assert_eq!(Cors::decide(&Method::GET, &HeaderMap::new(), &open), Cors::None);
    let Cors::Headers(given) = Cors::decide(&Method::GET, &request, &open) else { panic!("no headers") };
    assert_eq!(given["access-control-allow-origin"], "*");
    assert!(
        given["access-control-expose-headers"].to_str().unwrap().ends_with("Transfer-Encoding, Range-Unit")
    );
    assert!(!given.contains_key("access-control-allow-credentials"));

    let closed =
        RestConfig { cors_origins: Some(vec!["http://example.com".into()]), ..RestConfig::default() };
    let Cors::Headers(given) = Cors::decide(&Method::GET, &request, &closed) else { panic!("no headers") };
    assert_eq!(given["access-control-allow-origin"], "http://example.com");
    assert_eq!(given["access-control-allow-credentials"], "true");
    let stranger = headers(&[("origin", "http://example.org")]);
    assert_eq!(Cors::decide(&Method::GET, &stranger, &closed), Cors::None);
}

#[test]
fn preflights_are_answered_and_plain_options_are_not() {
    let config = RestConfig::default();
    let preflight = headers(&[
        ("origin", "http://example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "Foo,Bar, authorization"),
    ]);
    let Cors::Preflight(given) = Cors::decide(&Method::OPTIONS, &preflight, &config) else {
        panic!("no preflight")
    };
    assert_eq!(given["access-control-allow-methods"], "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD");
    assert_eq!(
        given["access-control-allow-headers"],
        "Authorization, Foo, Bar, Accept, Accept-Language, Content-Language"
    );
    assert_eq!(given["access-control-max-age"], "86400");
    let plain = headers(&[("origin", "http://example.com")]);
    assert_eq!(Cors::decide(&Method::OPTIONS, &plain, &config), Cors::None);
    let odd = headers(&[("origin", "http://example.com"), ("access-control-request-method", "TRACE")]);
    assert_eq!(Cors::decide(&Method::OPTIONS, &odd, &config), Cors::None);
}
