//! Arbitrary input never makes a parser panic, and never takes it deep.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use proptest::prelude::*;

use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{ApiRequest, MediaType, Query};

/// Text made of the grammar's own words, which gets further than noise.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "select",
            "order",
            "limit",
            "offset",
            "and",
            "or",
            "not",
            "columns",
            "on_conflict",
            "=",
            "&",
            ",",
            ".",
            "(",
            ")",
            "->",
            "->>",
            "::",
            ":",
            "!",
            "...",
            "*",
            "\"",
            "\\",
            "{",
            "}",
            "-",
            " ",
            "+",
            "%",
            "%22",
            "%00",
            "eq",
            "in",
            "is",
            "null",
            "fts",
            "like(any)",
            "sum()",
            "count()",
            "inner",
            "desc",
            "nullslast",
            "1",
            "-1",
            "id",
            "ä",
            ";",
            "?",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

fn methods() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ])
}

fn check(method: &Method, path: &str, headers: &HeaderMap, body: Vec<u8>) {
    let config = RestConfig::default();
    if let Err(error) = ApiRequest::parse(method, path, headers, Bytes::from(body), &config) {
        let (status, _, answer) = error.response(false, &config);
        assert!(status.is_client_error(), "{error:?}");
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queries(method in methods(), query in words(), rpc in any::<bool>()) {
        let path = if rpc { "/rpc/f" } else { "/t" };
        check(&method, &format!("{path}?{query}"), &HeaderMap::new(), Vec::new());
    }

    #[test]
    fn values(key in prop::sample::select(vec!["select", "order", "or", "a.and", "id", "columns", "limit"]), value in words()) {
        let encoded = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        check(&Method::GET, &format!("/t?{key}={encoded}"), &HeaderMap::new(), Vec::new());
    }

    #[test]
    fn whole_requests(
        method in methods(),
        path in "\\PC{0,20}",
        names in prop::collection::vec(prop::sample::select(vec!["range", "prefer", "accept", "content-type", "cookie"]), 0..4),
        value in prop::collection::vec(any::<u8>(), 0..30),
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            for name in names {
                headers.append(name, value.clone());
            }
        }
        check(&method, &path, &headers, body);
    }

    #[test]
    fn bodies(
        kind in prop::sample::select(vec!["application/json", "text/csv", "application/x-www-form-urlencoded"]),
        body in prop_oneof!["[\\[\\]{}\",:a1\\\\ntrue-]{0,40}", "[a,\"\r\n]{0,40}", "\\PC{0,40}"],
    ) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        check(&Method::POST, "/t", &headers, body.into_bytes());
    }

    #[test]
    fn media_types_survive_being_written(text in "[a-z*/+;=\" .,q0-9-]{0,40}") {
        for media in MediaType::parse_accept(&text) {
            let written = media.to_string();
            prop_assert_eq!(MediaType::parse(&written), media);
        }
    }
}

#[test]
fn deep_trees_are_refused() {
    for query in [
        format!("select={}", "a(".repeat(100_000)),
        format!("and={}", "(or".repeat(100_000)),
        format!("or=({}", "and(a.eq.1,".repeat(100_000)),
    ] {
        let Err(Error::QueryParameter { details, .. }) = Query::parse(&query, false) else { panic!("taken") };
        assert!(details.contains("nested too deeply") || details.starts_with("unexpected"), "{details}");
    }
    let body = "[".repeat(100_000);
    let parsed =
        ApiRequest::parse(&Method::POST, "/t", &HeaderMap::new(), body.into(), &RestConfig::default());
    assert_eq!(parsed.unwrap_err().code(), "PGRST102");
}
