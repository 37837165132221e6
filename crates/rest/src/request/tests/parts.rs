//! Resources, profiles, ranges, preferences, media types and bodies.

use std::collections::BTreeSet;

use super::{code, request, request_under};
use crate::config::{OpenApiMode, RestConfig, TxEnd};
use crate::error::{Error, RangeError};
use crate::request::{Action, Applied, Invocation, MediaType, Mutation, Payload, Preferences, Range};
use crate::schema::QualifiedName;

#[test]
fn paths_and_methods_become_actions() {
    let relation = || "t".to_owned();
    let routine = || "f".to_owned();
    for (method, path, action) in [
        ("GET", "/t", Action::Read { relation: relation(), head: false }),
        ("HEAD", "/t?id=eq.1", Action::Read { relation: relation(), head: true }),
        ("POST", "/t", Action::Mutate { relation: relation(), mutation: Mutation::Create }),
        ("PUT", "/t", Action::Mutate { relation: relation(), mutation: Mutation::SingleUpsert }),
        ("PATCH", "/t", Action::Mutate { relation: relation(), mutation: Mutation::Update }),
        ("DELETE", "/t", Action::Mutate { relation: relation(), mutation: Mutation::Delete }),
        ("OPTIONS", "/t", Action::RelationOptions(relation())),
        ("GET", "/rpc/f", Action::Call { routine: routine(), invocation: Invocation::Get }),
        ("HEAD", "/rpc/f", Action::Call { routine: routine(), invocation: Invocation::Head }),
        ("POST", "/rpc/f", Action::Call { routine: routine(), invocation: Invocation::Post }),
        ("OPTIONS", "/rpc/f", Action::RoutineOptions(routine())),
        ("GET", "/", Action::Describe { head: false }),
        ("OPTIONS", "/", Action::RootOptions),
        ("GET", "/%D9%85 +%2B", Action::Read { relation: "م ++".into(), head: false }),
        ("GET", "/rpc", Action::Read { relation: "rpc".into(), head: false }),
    ] {
        let parsed = request(method, path, &[], "{}").map(|request| request.action);
        assert_eq!(parsed, Ok(action), "{method} {path}");
    }
    for (method, path, expected) in [
        ("GET", "/t/", "PGRST125"),
        ("GET", "/a/b", "PGRST125"),
        ("GET", "/rpc/f/g", "PGRST125"),
        ("DELETE", "/rpc/f", "PGRST101"),
        ("POST", "/", "PGRST117"),
        ("TRACE", "/t", "PGRST117"),
    ] {
        assert_eq!(code(request(method, path, &[], "{}")), expected, "{method} {path}");
    }
}

#[test]
fn the_root_may_be_a_function_or_nothing() {
    let spec = RestConfig { root_spec: Some(QualifiedName::new("api", "root")), ..RestConfig::default() };
    let action = request_under(&spec, "GET", "/", &[], "").map(|request| request.action);
    assert_eq!(action, Ok(Action::Call { routine: "root".into(), invocation: Invocation::Get }));
    let off = RestConfig { openapi_mode: OpenApiMode::Disabled, ..spec };
    assert_eq!(code(request_under(&off, "GET", "/", &[], "")), "PGRST126");
}

#[test]
fn profiles_choose_among_exposed_schemas() {
    let config = RestConfig { schemas: vec!["v1".into(), "v2".into()], ..RestConfig::default() };
    let schema = |method, headers: &[(&'static str, &str)]| {
        request_under(&config, method, "/t", headers, "{}")
            .map(|request| (request.schema, request.profile_answered))
    };
    assert_eq!(schema("GET", &[]), Ok(("v1".into(), true)));
    assert_eq!(
        schema("GET", &[("accept-profile", "v2"), ("content-profile", "v1")]),
        Ok(("v2".into(), true))
    );
    assert_eq!(
        schema("POST", &[("accept-profile", "v2"), ("content-profile", "v1")]),
        Ok(("v1".into(), true))
    );
    assert_eq!(
        schema("PATCH", &[("content-profile", "v3")]),
        Err(Error::UnacceptableSchema { schema: "v3".into(), exposed: config.schemas.clone() })
    );
    let single = request("GET", "/t", &[], "").unwrap();
    assert_eq!((single.schema.as_str(), single.profile_answered), ("public", false));
    assert!(request("GET", "/t", &[("accept-profile", "public")], "").unwrap().profile_answered);
}

#[test]
fn ranges_are_cut_from_each_other() {
    let range = |offset, limit| Ok(Range { offset, limit });
    let bad = |error| Err(Error::InvalidRange(error));
    for (query, header, expected) in [
        ("", None, range(0, None)),
        ("limit=5", None, range(0, Some(5))),
        ("limit=5&offset=10", None, range(10, Some(5))),
        ("offset=10", None, range(10, None)),
        ("limit=0", None, range(0, Some(0))),
        ("limit=0", Some("3-4"), range(0, Some(0))),
        ("limit=x", None, range(0, None)),
        ("offset=-3", None, range(0, None)),
        ("offset=-3&limit=5", None, range(0, Some(2))),
        ("limit=99999999999999999999", None, range(0, Some(i64::MAX as u64 / 2))),
        ("", Some("0-9"), range(0, Some(10))),
        ("", Some("5-"), range(5, None)),
        ("", Some("items=0-9"), range(0, None)),
        ("", Some("0--1"), range(0, None)),
        ("limit=5&offset=2", Some("4-20"), range(4, Some(3))),
        ("", Some("1-0"), bad(RangeError::LowerAboveUpper)),
        ("limit=-1", None, bad(RangeError::NegativeLimit)),
        ("offset=5&limit=-1", None, bad(RangeError::NegativeLimit)),
        ("offset=20&limit=5", Some("0-9"), bad(RangeError::NegativeLimit)),
        ("offset=5&limit=x", None, bad(RangeError::NegativeLimit)),
        ("a.limit=-1", None, bad(RangeError::NegativeLimit)),
    ] {
        let headers: Vec<(&'static str, &str)> = header.map(|value| ("range", value)).into_iter().collect();
        let parsed = request("GET", &format!("/t?{query}"), &headers, "").map(|request| request.range);
        assert_eq!(parsed, expected, "{query} {header:?}");
    }
    let ignored = request("POST", "/t", &[("range", "1-0")], "{}").unwrap();
    assert_eq!(ignored.range, Range::default());
    assert_eq!(code(request("PUT", "/t?id=eq.1&limit=1", &[], "{}")), "PGRST114");
    assert_eq!(code(request("PUT", "/t?id=eq.1&offset=0", &[], "{}")), "none");
}

#[test]
fn the_canonical_query_is_sorted_and_joined() {
    for (query, canonical) in [
        ("a=eq.1&c=eq.3&b=eq.2&d", "a=eq.1&b=eq.2&c=eq.3&d="),
        ("id=gt.1&select=*&id=lt.5", "id=gt.1,lt.5&select=%2A"),
        ("b=like.a+b%2Bc", "b=like.a%20b%2Bc"),
        ("k%C3%A4se=eq.1", "k%C3%A4se=eq.1"),
        ("", ""),
    ] {
        assert_eq!(request("GET", &format!("/t?{query}"), &[], "").unwrap().query.canonical, canonical);
    }
}

fn preferences(headers: &[(&'static str, &str)]) -> Preferences {
    let config =
        RestConfig { tx_end: TxEnd { rollback: false, allow_override: true }, ..RestConfig::default() };
    request_under(&config, "GET", "/t", headers, "").unwrap().preferences
}

#[test]
fn preferences_are_heard_and_answered() {
    let all = preferences(&[
        (
            "prefer",
            "count=exact,    tx=commit   ,return=representation , missing=default, handling=strict, anything",
        ),
        (
            "prefer",
            "count=planned, resolution=ignore-duplicates,timezone=America/Lima, max-affected=10,max-affected=x",
        ),
    ]);
    assert_eq!(all.invalid, ["anything"]);
    assert_eq!(all.check(), Err(Error::InvalidPreferences(vec!["anything".into()])));
    let rest = "count=exact, tx=commit, handling=strict, timezone=America/Lima";
    for (to, expected) in [
        (Applied::Read, rest.to_owned()),
        (Applied::Call, format!("{rest}, max-affected=10")),
        (Applied::Delete, format!("return=representation, {rest}, max-affected=10")),
        (Applied::SingleUpsert, format!("return=representation, {rest}")),
        (Applied::Update, format!("missing=default, return=representation, {rest}, max-affected=10")),
        (Applied::Insert { conflicts: false }, format!("missing=default, return=representation, {rest}")),
        (
            Applied::Insert { conflicts: true },
            format!("resolution=ignore-duplicates, missing=default, return=representation, {rest}"),
        ),
    ] {
        assert_eq!(all.applied(to).as_deref(), Some(expected.as_str()));
    }
    let lenient = preferences(&[("prefer", "handling=lenient, max-affected=1, what")]);
    assert_eq!(lenient.check(), Ok(()));
    assert_eq!(lenient.applied(Applied::Delete).as_deref(), Some("handling=lenient"));
    assert_eq!(preferences(&[]).applied(Applied::Read), None);
    let fixed = request("GET", "/t", &[("prefer", "tx=rollback")], "").unwrap().preferences;
    assert_eq!((fixed.commit, fixed.invalid.len()), (None, 0));
}

#[test]
fn media_types_are_recognised() {
    let plan = |json, of, options: &[&str]| MediaType::Plan {
        json,
        of: Box::new(of),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    for (text, expected) in [
        ("application/json; charset=utf-8", MediaType::Json),
        ("application/vnd.pgrst.plan;", plan(false, MediaType::Json, &[])),
        ("application/vnd.pgrst.plan+json;for=\"text/csv\"", plan(true, MediaType::Csv, &[])),
        (
            "application/vnd.pgrst.plan ; for=\"text/xml\" ; options=wal|analyze|what",
            plan(false, MediaType::Xml, &["analyze", "wal"]),
        ),
        ("application/vnd.pgrst.array+json;nulls=stripped", MediaType::ArrayStripped),
        ("application/vnd.pgrst.array+json", MediaType::Json),
        ("application/vnd.pgrst.object;NULLS=stripped", MediaType::Object { strip_nulls: true }),
        ("ApplicatIon/vnd.PgRsT.object+json", MediaType::Object { strip_nulls: false }),
        ("application/vnd.twkb", MediaType::Other("application/vnd.twkb".into())),
        ("*/*", MediaType::Any),
        ("", MediaType::Other(String::new())),
    ] {
        assert_eq!(MediaType::parse(text), expected, "{text}");
    }
    let written = MediaType::parse("application/vnd.pgrst.plan+json; options=verbose|analyze").content_type();
    assert_eq!(
        written,
        "application/vnd.pgrst.plan+json; for=\"application/json\"; options=analyze|verbose; charset=utf-8"
    );
    assert_eq!(MediaType::OctetStream.content_type(), "application/octet-stream");
}

#[test]
fn accept_is_ordered_by_quality_then_specificity() {
    for (header, expected) in [
        ("text/csv, */*; q=0.01", vec![MediaType::Csv, MediaType::Any]),
        (
            "*/*;q=0.8, application/json, text/csv;q=0.9",
            vec![MediaType::Json, MediaType::Csv, MediaType::Any],
        ),
        ("*/*, text/plain", vec![MediaType::Text, MediaType::Any]),
    ] {
        assert_eq!(request("GET", "/t", &[("accept", header)], "").unwrap().accept, expected, "{header}");
    }
    assert_eq!(request("GET", "/t", &[], "").unwrap().accept, [MediaType::Any]);
}

fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn json_bodies_are_checked_and_kept() {
    for (body, names, array) in [
        (r#"{"a":1,"b":[{"c":2}]}"#, &["a", "b"][..], false),
        ("{}", &[], false),
        (r#" [{"a":1,"b":2},{"b":3,"a":4}] "#, &["a", "b"], true),
        (r#"[{"a":1,"a":2},{"a":3}]"#, &["a"], true),
        (r#"[{"a\u0062":1},{"ab":2}]"#, &["ab"], true),
        ("[{},{}]", &[], true),
    ] {
        let parsed = request("POST", "/t", &[], body).unwrap();
        let expected = Payload::Json { raw: body.into(), keys: keys(names), is_array: array };
        assert_eq!((parsed.payload, parsed.columns), (Some(expected), keys(names)), "{body}");
    }
    for (body, message) in [
        ("", "Empty or invalid json"),
        ("{", "Empty or invalid json"),
        ("{}{}", "Empty or invalid json"),
        (r#"[{"a":1},{"b":1]"#, "Empty or invalid json"),
        ("{\"\\u0000\":1}", "Empty or invalid json"),
        (r#"[{"a":1},{"b":1}]"#, "All object keys must match"),
        (r#"[{"a":1},{"a":1,"b":1}]"#, "All object keys must match"),
        (r#"[{"a":1,"b":1},{"a":1}]"#, "All object keys must match"),
        (r#"[{"a":1},3]"#, "All object keys must match"),
        ("[1,2]", "All object keys must match"),
        ("[[1]]", "All object keys must match"),
    ] {
        assert_eq!(request("POST", "/t", &[], body), Err(Error::InvalidBody(message.into())), "{body}");
    }
    // Neither rows nor a row: as PostgREST does, nothing.
    for body in ["[]", "3", "null", "\"x\""] {
        let expected = Payload::Json { raw: "[]".into(), keys: keys(&[]), is_array: true };
        assert_eq!(request("POST", "/t", &[], body).unwrap().payload, Some(expected), "{body}");
    }
}

#[test]
fn columns_replace_the_keys_of_json() {
    let parsed = request("POST", "/t?columns=a,\"b c\"", &[], r#"[{"a":1},{"x":2}]"#).unwrap();
    assert_eq!(parsed.columns, keys(&["a", "b c"]));
    assert_eq!(code(request("PUT", "/t?columns=a", &[], r#"[{"a":1},{"x":2}]"#)), "PGRST102");
    assert_eq!(request("DELETE", "/t", &[], "what?").unwrap().payload, None);
    let empty = request("POST", "/rpc/f", &[], "").unwrap();
    assert_eq!(empty.payload, Some(Payload::Json { raw: "".into(), keys: keys(&[]), is_array: false }));
}

fn csv(body: &str) -> Result<(String, BTreeSet<String>), Error> {
    let parsed = request("POST", "/t", &[("content-type", "text/csv")], body)?;
    let Some(Payload::Json { raw, is_array: true, .. }) = parsed.payload else { panic!("no rows") };
    Ok((String::from_utf8(raw.to_vec()).unwrap(), parsed.columns))
}

#[test]
fn csv_becomes_json() {
    for (body, json, names) in [
        ("a,b\nfoo,bar\nbaz,NULL", r#"[{"a":"foo","b":"bar"},{"a":"baz","b":null}]"#, &["a", "b"][..]),
        ("a,b\r\n\"x,\"\"y\"\"\",\"1\n2\"\r\n\r\n", r#"[{"a":"x,\"y\"","b":"1\n2"}]"#, &["a", "b"]),
        ("a,b\n,\n", r#"[{"a":"","b":""}]"#, &["a", "b"]),
        ("a\n1,2\n", r#"[{"a":"1"}]"#, &["a"]),
        ("a,b\n", "[]", &[]),
        ("käse\nä", r#"[{"käse":"ä"}]"#, &["käse"]),
    ] {
        assert_eq!(csv(body), Ok((json.to_owned(), keys(names))), "{body}");
    }
    for (body, message) in [
        ("a,b\nfoo,bar\nbaz", "All lines must have same number of fields"),
        ("", "parse error (not enough input) at \"\""),
        ("a\nx\"y", "parse error (endOfInput) at \"\\\"y\""),
    ] {
        assert_eq!(csv(body), Err(Error::InvalidBody(message.into())), "{body}");
    }
}

#[test]
fn functions_take_forms_and_raw_bodies() {
    let typed = |path: &str, kind: &str, body: &str| request("POST", path, &[("content-type", kind)], body);
    let form = typed("/rpc/f", "application/x-www-form-urlencoded", "a=1+2&b=%26&a=3").unwrap();
    let fields =
        [("a", "1 2"), ("b", "&"), ("a", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!((form.payload, form.columns), (Some(Payload::Form(fields.into())), keys(&["a", "b"])));
    let row = typed("/t", "application/x-www-form-urlencoded", "b=x&a=1&a=2").unwrap();
    let raw = r#"{"a":"2","b":"x"}"#;
    assert_eq!(
        row.payload,
        Some(Payload::Json { raw: raw.into(), keys: keys(&["a", "b"]), is_array: false })
    );
    for kind in ["text/plain", "text/xml", "application/octet-stream"] {
        assert_eq!(typed("/rpc/f", kind, "hi").unwrap().payload, Some(Payload::Raw("hi".into())));
        let refused = Error::InvalidBody(format!("Content-Type not acceptable: {kind}"));
        assert_eq!(typed("/t", kind, "hi"), Err(refused));
    }
    assert_eq!(code(typed("/rpc/f", "image/png", "hi")), "PGRST102");
}

#[test]
fn headers_and_cookies_are_kept_apart() {
    let headers = [("cookie", "a=b; c=d=e; f"), ("x-one", "1"), ("authorization", "Bearer x")];
    let parsed = request("GET", "/t?x=eq.1", &headers, "").unwrap();
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let headers: Vec<_> =
        parsed.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    assert_eq!(headers, [("x-one", "1"), ("authorization", "Bearer x")]);
    assert_eq!(parsed.cookies, [("a", "b"), ("c", "d=e"), ("f", "")].map(pair));
    assert_eq!((parsed.method.as_str(), parsed.path.as_str()), ("GET", "/t"));
}
