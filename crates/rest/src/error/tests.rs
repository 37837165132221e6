use http::HeaderMap;
use serde_json::{Value, json};

use super::{Error, JwtError, PostgresError, RangeError};
use crate::config::RestConfig;
use crate::request::MediaType;
use crate::schema::{
    ForeignKey, Junction, Parameter, QualifiedName, Relationship, RelationshipKind, ReturnType, Returns,
    Routine, SchemaCache, Table, Volatility,
};

fn answer(error: &Error, authenticated: bool) -> (u16, HeaderMap, Value) {
    let (status, headers, body) = error.response(authenticated, &RestConfig::default());
    (status.as_u16(), headers, serde_json::from_slice(&body).unwrap())
}

fn api(name: &str) -> QualifiedName {
    QualifiedName::new("api", name)
}

fn relationship(table: &str, foreign: &str, kind: RelationshipKind) -> Relationship {
    Relationship {
        table: api(table),
        foreign_table: api(foreign),
        is_self: table == foreign,
        table_is_view: false,
        foreign_is_view: false,
        kind,
    }
}

fn key(constraint: &str, columns: &[(&str, &str)]) -> ForeignKey {
    let columns = columns.iter().map(|(one, two)| ((*one).into(), (*two).into())).collect();
    ForeignKey { constraint: constraint.into(), columns }
}

fn routine(name: &str, parameters: &[(&str, &str)]) -> Routine {
    let parameter = |(name, type_name): &(&str, &str)| Parameter {
        name: (*name).into(),
        type_name: (*type_name).into(),
        record_type: (*type_name).into(),
        required: true,
        variadic: false,
    };
    Routine {
        name: api(name),
        description: None,
        parameters: parameters.iter().map(parameter).collect(),
        returns: Returns { is_set: false, of: ReturnType::Scalar(QualifiedName::new("pg_catalog", "int4")) },
        volatility: Volatility::Volatile,
        is_variadic: false,
        isolation: None,
        settings: Vec::new(),
    }
}

fn cache() -> SchemaCache {
    let mut cache = SchemaCache::default();
    for name in ["films", "directors", "projects"] {
        let table = Table {
            name: api(name),
            description: None,
            is_view: false,
            insertable: true,
            updatable: true,
            deletable: true,
            primary_key: Vec::new(),
            columns: Vec::new(),
        };
        cache.tables.insert(api(name), table);
    }
    let to = |foreign| relationship("films", foreign, RelationshipKind::ManyToOne(key("fk", &[("a", "b")])));
    cache
        .relationships
        .insert((api("films"), "api".into()), vec![to("directors"), to("roles"), to("actors")]);
    let overloads = vec![
        routine("test", &[("val", "text"), ("param", "text"), ("name", "text")]),
        routine("test", &[("id", "integer"), ("attr", "text")]),
    ];
    cache.routines.insert(api("test"), overloads);
    cache.routines.insert(api("another"), vec![routine("another", &[])]);
    cache
}

#[test]
fn the_body_is_compact_and_in_order() {
    let error = Error::InvalidBody("Empty or invalid json".into());
    let (status, headers, body) = error.response(true, &RestConfig::default());
    assert_eq!(status, 400);
    assert_eq!(body, r#"{"code":"PGRST102","details":null,"hint":null,"message":"Empty or invalid json"}"#);
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(headers["proxy-status"], "PostgREST; error=PGRST102");
    let minimal = RestConfig { minimal_errors: true, ..RestConfig::default() };
    assert_eq!(error.body(&minimal), r#"{"code":"PGRST102","message":"Empty or invalid json"}"#);
}

#[test]
fn statuses_follow_the_sqlstate_and_the_role() {
    let table = [
        ("23505", "duplicate key", 409),
        ("23503", "foreign key", 409),
        ("23502", "null value", 400),
        ("25006", "read only", 405),
        ("21000", "UPDATE requires a WHERE clause", 400),
        ("21000", "more than one row returned by a subquery", 500),
        ("22023", "role \"nobody\" does not exist", 401),
        ("22023", "invalid parameter", 400),
        ("42501", "permission denied", 403),
        ("42883", "function xmlagg(json) does not exist", 406),
        ("42883", "function f() does not exist", 404),
        ("42P01", "no such table", 404),
        ("42P17", "infinite recursion", 500),
        ("P0001", "raised", 400),
        ("P0002", "no data", 500),
        ("08006", "connection failure", 503),
        ("53300", "too many connections", 503),
        ("53400", "limit exceeded", 500),
        ("57P01", "shutdown", 503),
        ("57014", "statement timeout", 500),
        ("28000", "invalid authorization", 403),
        ("XX000", "internal", 500),
        ("PT402", "Payment Required", 402),
        ("PTxyz", "no number", 500),
        ("PT101", "no end", 500),
        ("é", "odd", 400),
    ];
    for (code, message, expected) in table {
        let error: Error =
            PostgresError { code: code.into(), message: message.into(), ..PostgresError::default() }.into();
        assert_eq!(error.status(true).as_u16(), expected, "{code} {message}");
    }
    let denied = PostgresError { code: "42501".into(), message: "denied".into(), ..PostgresError::default() };
    let (status, headers, body) = answer(&denied.into(), false);
    assert_eq!((status, headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    assert_eq!(body["code"], "42501");
    let paid = PostgresError {
        code: "PT402".into(),
        message: "Payment Required".into(),
        ..PostgresError::default()
    };
    assert_eq!(Error::from(paid).reason().as_deref(), Some("Payment Required"));
}

#[test]
fn functions_raise_whole_answers() {
    let raise = |message: &str, detail: Option<&str>| -> Error {
        PostgresError {
            code: "PGRST".into(),
            message: message.into(),
            detail: detail.map(str::to_owned),
            hint: None,
        }
        .into()
    };
    let message = r#"{"code":"123","message":"ABC","details":"DEF","hint":"XYZ"}"#;
    let error =
        raise(message, Some(r#"{"status":332,"status_text":"My Text","headers":{"X-Header":"str"}}"#));
    let (status, headers, body) = answer(&error, true);
    assert_eq!(status, 332);
    assert_eq!(error.reason().as_deref(), Some("My Text"));
    assert_eq!(headers["x-header"], "str");
    assert_eq!(headers["proxy-status"], "PostgREST; error=123");
    assert_eq!(body, json!({"code": "123", "message": "ABC", "details": "DEF", "hint": "XYZ"}));

    for (message, detail, details) in [
        ("INVALID", None, "Invalid JSON value for MESSAGE: 'INVALID'"),
        (message, None, "DETAIL is missing in the RAISE statement"),
        (message, Some("INVALID"), "Invalid JSON value for DETAIL: 'INVALID'"),
        (message, Some(r#"{"status":1}"#), "Invalid JSON value for DETAIL: '{\"status\":1}'"),
    ] {
        let (status, _, body) = answer(&raise(message, detail), true);
        assert_eq!((status, &body["code"]), (500, &json!("PGRST121")));
        assert_eq!(body["message"], "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error");
        assert_eq!(body["details"], details);
    }
}

#[test]
fn tokens_are_refused_with_a_challenge() {
    let (status, headers, body) = answer(&JwtError::Expired.into(), false);
    assert_eq!(status, 401);
    assert_eq!(
        headers["www-authenticate"],
        "Bearer error=\"invalid_token\", error_description=\"JWT expired\""
    );
    assert_eq!(body, json!({"code": "PGRST303", "details": null, "hint": null, "message": "JWT expired"}));
    let (_, headers, body) = answer(&JwtError::TokenRequired.into(), false);
    assert_eq!(headers["www-authenticate"], "Bearer");
    assert_eq!(body["code"], "PGRST302");
    let (status, headers, _) = answer(&JwtError::SecretMissing.into(), false);
    assert_eq!((status, headers.contains_key("www-authenticate")), (500, false));
}

#[test]
fn ranges_out_of_bounds_say_what_there_is() {
    let error = Error::InvalidRange(RangeError::OutOfBounds { lower: 100, total: 15 });
    let (status, _, body) = answer(&error, true);
    assert_eq!(status, 416);
    assert_eq!(body["details"], "An offset of 100 was requested, but there are only 15 rows.");
}

#[test]
fn unknown_relationships_suggest_parents_then_children() {
    let cache = cache();
    for (parent, child, hint) in [
        ("film", "directors", json!("Perhaps you meant 'films' instead of 'film'.")),
        ("films", "role", json!("Perhaps you meant 'roles' instead of 'role'.")),
        ("films", "actors", Value::Null),
        ("noclosealternative", "roles", Value::Null),
        ("films", "noclosealternative", Value::Null),
    ] {
        let (status, _, body) = answer(&Error::no_relationship(parent, child, None, "api", &cache), true);
        assert_eq!((status, &body["hint"]), (400, &hint), "{parent} {child}");
    }
    let (_, _, body) = answer(&Error::no_relationship("a", "b", Some("c"), "api", &cache), true);
    assert_eq!(
        body["details"],
        "Searched for a foreign key relationship between 'a' and 'b' using the hint 'c' in the schema 'api', but no \
         matches were found."
    );
}

#[test]
fn ambiguous_relationships_are_listed() {
    let junction = Junction {
        table: api("jobs"),
        constraint1: "jobs_site_fkey".into(),
        constraint2: "jobs_project_fkey".into(),
        source_columns: vec![("id".into(), "site_id".into())],
        target_columns: vec![("id".into(), "project_id".into())],
    };
    let one = relationship(
        "sites",
        "projects",
        RelationshipKind::ManyToOne(key("main", &[("a", "x"), ("b", "y")])),
    );
    let two = relationship("sites", "projects", RelationshipKind::ManyToMany(junction));
    let (status, _, body) = answer(&Error::ambiguous_relationship("sites", "projects", &[&one, &two]), true);
    assert_eq!(status, 300);
    assert_eq!(
        body["hint"],
        "Try changing 'projects' to one of the following: 'projects!main', 'projects!jobs'. Find the desired \
         relationship in the 'details' key."
    );
    assert_eq!(
        body["details"],
        json!([
            {
                "cardinality": "many-to-one",
                "embedding": "sites with projects",
                "relationship": "main using sites(a, b) and projects(x, y)"
            },
            {
                "cardinality": "many-to-many",
                "embedding": "sites with projects",
                "relationship": "jobs using jobs_site_fkey(site_id) and jobs_project_fkey(project_id)"
            }
        ])
    );
}

#[test]
fn unknown_functions_suggest_names_then_parameters() {
    let cache = cache();
    let hint = |name: &str, arguments: &[&str]| {
        answer(&Error::no_function(&api(name), arguments, &MediaType::Json, false, &cache), true).2["hint"]
            .clone()
    };
    assert_eq!(hint("testt", &["val"]), "Perhaps you meant to call the function api.test");
    assert_eq!(hint("noclosealternative", &[]), Value::Null);
    let three = "Perhaps you meant to call the function api.test(name, param, val)";
    assert_eq!(hint("test", &["vall", "pqaram", "nam"]), three);
    assert_eq!(hint("test", &["val", "param"]), three);
    assert_eq!(hint("test", &["id", "attrs"]), "Perhaps you meant to call the function api.test(attr, id)");
    assert_eq!(hint("test", &["noclosealternative"]), Value::Null);

    let body = |arguments: &[&str], media: MediaType, posted| {
        let body = answer(&Error::no_function(&api("f"), arguments, &media, posted, &cache), true).2;
        (body["message"].as_str().unwrap().to_owned(), body["details"].as_str().unwrap().to_owned())
    };
    let (message, details) = body(&["a", "b"], MediaType::Json, true);
    assert_eq!(message, "Could not find the function api.f(a, b) in the schema cache");
    assert_eq!(
        details,
        "Searched for the function api.f with parameters a, b or with a single unnamed json/jsonb parameter, but no \
         matches were found in the schema cache."
    );
    let (message, details) = body(&[], MediaType::Json, false);
    assert_eq!(message, "Could not find the function api.f without parameters in the schema cache");
    assert!(details.starts_with("Searched for the function api.f without parameters, but"));
    let (message, details) = body(&[], MediaType::Text, true);
    assert_eq!(message, "Could not find the function api.f in the schema cache");
    assert!(details.starts_with("Searched for the function api.f with a single unnamed text parameter, but"));
}

#[test]
fn ambiguous_functions_show_their_signatures() {
    let (one, two) = (routine("f", &[("a", "integer")]), routine("f", &[("a", "text"), ("", "json")]));
    let (status, _, body) = answer(&Error::ambiguous_function(&[&one, &two]), true);
    assert_eq!(status, 300);
    assert_eq!(
        body["message"],
        "Could not choose the best candidate function between: api.f(a => integer), api.f(a => text,  => json)"
    );
}

#[test]
fn unknown_tables_suggest_only_close_ones() {
    let cache = cache();
    for (name, hint) in [
        ("projectx", json!("Perhaps you meant the table 'api.projects'")),
        ("projecxx", json!("Perhaps you meant the table 'api.projects'")),
        ("projxxxx", Value::Null),
    ] {
        let (status, _, body) = answer(&Error::table_not_found("api", name, &cache), true);
        assert_eq!((status, &body["hint"]), (404, &hint));
        assert_eq!(body["message"], format!("Could not find the table 'api.{name}' in the schema cache"));
    }
}
