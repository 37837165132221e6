//! The planner's decisions, on a small library: authors write books, books have genres, staff has managers.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::schema::{
    Column, ForeignKey, Junction, Parameter, RelationshipKind, Representation, ReturnType, Returns, Table,
    Volatility,
};

fn column(name: &str, of: &str) -> Column {
    Column {
        name: name.into(),
        description: None,
        nullable: true,
        base_type: of.into(),
        nominal_type: of.into(),
        max_length: None,
        default: (name == "id").then(|| "nextval('ids'::regclass)".into()),
        enum_labels: Vec::new(),
    }
}

fn table(name: &str, primary_key: &[&str], columns: &[(&str, &str)]) -> Table {
    Table {
        name: QualifiedName::new("api", name),
        description: None,
        is_view: false,
        insertable: true,
        updatable: true,
        deletable: true,
        primary_key: primary_key.iter().map(|&key| key.to_owned()).collect(),
        columns: columns.iter().map(|(name, of)| column(name, of)).collect(),
    }
}

fn key(constraint: &str, own: &str, foreign: &str) -> ForeignKey {
    ForeignKey { constraint: constraint.into(), columns: vec![(own.into(), foreign.into())] }
}

fn routine(name: &str, parameters: &[(&str, &str, bool)], of: ReturnType, is_set: bool) -> Routine {
    Routine {
        name: QualifiedName::new("api", name),
        description: None,
        parameters: parameters
            .iter()
            .map(|&(name, of, required)| Parameter {
                name: name.into(),
                type_name: of.into(),
                record_type: of.into(),
                required,
                variadic: of.ends_with("[]"),
            })
            .collect(),
        returns: Returns { is_set, of },
        volatility: Volatility::Stable,
        is_variadic: parameters.iter().any(|(_, of, _)| of.ends_with("[]")),
        isolation: None,
        settings: Vec::new(),
    }
}

/// The library's schema.
pub(crate) fn library() -> SchemaCache {
    let mut cache = SchemaCache::default();
    for table in [
        table(
            "authors",
            &["id"],
            &[("id", "integer"), ("name", "text"), ("data", "jsonb"), ("tags", "text[]")],
        ),
        table(
            "books",
            &["id"],
            &[("id", "integer"), ("title", "text"), ("author_id", "integer"), ("text", "tsvector")],
        ),
        table("genres", &["id"], &[("id", "integer"), ("name", "text")]),
        table("books_genres", &["book_id", "genre_id"], &[("book_id", "integer"), ("genre_id", "integer")]),
        table("staff", &["id"], &[("id", "integer"), ("manager_id", "integer"), ("colour", "api.colour")]),
    ] {
        cache.tables.insert(table.name.clone(), table);
    }
    let mut relate = |table: &str, foreign: &str, kind: RelationshipKind| {
        let relationship = Relationship {
            table: QualifiedName::new("api", table),
            foreign_table: QualifiedName::new("api", foreign),
            is_self: table == foreign,
            table_is_view: false,
            foreign_is_view: false,
            kind,
        };
        cache.relationships.entry((relationship.table.clone(), "api".into())).or_default().push(relationship);
    };
    relate("books", "authors", RelationshipKind::ManyToOne(key("books_author", "author_id", "id")));
    relate("authors", "books", RelationshipKind::OneToMany(key("books_author", "id", "author_id")));
    relate("books", "staff", RelationshipKind::ManyToOne(key("books_editor", "editor", "id")));
    relate("books", "staff", RelationshipKind::ManyToOne(key("books_seller", "seller", "id")));
    let junction = Junction {
        table: QualifiedName::new("api", "books_genres"),
        constraint1: "of_book".into(),
        constraint2: "of_genre".into(),
        source_columns: vec![("id".into(), "book_id".into())],
        target_columns: vec![("id".into(), "genre_id".into())],
    };
    relate("books", "genres", RelationshipKind::ManyToMany(junction));
    relate("staff", "staff", RelationshipKind::ManyToOne(key("manager", "manager_id", "id")));
    relate("staff", "staff", RelationshipKind::OneToMany(key("manager", "id", "manager_id")));
    let computed = RelationshipKind::Computed {
        function: QualifiedName::new("api", "latest"),
        argument: QualifiedName::new("api", "authors"),
        to_one: true,
    };
    relate("authors", "books", computed);

    let integer = || ReturnType::Scalar(QualifiedName::new("pg_catalog", "int4"));
    let books = || ReturnType::Composite(QualifiedName::new("api", "books"));
    for routine in [
        routine("add", &[("a", "integer", true), ("b", "integer", false)], integer(), false),
        routine("find", &[("title", "text", true)], books(), true),
        routine("find", &[("year", "integer", true), ("title", "text", false)], books(), true),
        routine("total", &[("v", "integer[]", true)], integer(), false),
        routine("take", &[("", "json", true)], integer(), false),
        routine("both", &[("a", "integer", false)], integer(), false),
        routine("both", &[("a", "text", false)], integer(), false),
    ] {
        cache.routines.entry(routine.name.clone()).or_default().push(routine);
    }
    let mut represent = |source: &str, target: &str, function: &str| {
        cache.representations.insert(
            (source.into(), target.into()),
            Representation {
                source_type: source.into(),
                target_type: target.into(),
                function: format!("\"api\".\"{function}\""),
            },
        );
    };
    represent("api.colour", "json", "colour_json");
    represent("json", "api.colour", "json_colour");
    represent("text", "api.colour", "text_colour");
    cache
}

/// Settings of the tests.
pub(crate) fn options() -> RestConfig {
    RestConfig { schemas: vec!["api".into()], aggregates: true, ..RestConfig::default() }
}

/// Reads `GET /path`, perhaps with headers and body: `POST /path {Prefer: …} body`.
pub(crate) fn request(line: &str, config: &RestConfig) -> Result<ApiRequest, Error> {
    let (method, rest) = line.split_once(' ').expect("method and path");
    let (path, rest) = rest.split_once(" | ").unwrap_or((rest, ""));
    let (headers, body) = rest.split_once(" | ").unwrap_or((rest, ""));
    let headers: HeaderMap = headers
        .split("; ")
        .filter_map(|header| header.split_once(": "))
        .map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a header's name");
            (name, HeaderValue::from_str(value).expect("a header's value"))
        })
        .collect();
    let method: Method = method.parse().expect("a method");
    ApiRequest::parse(&method, path, &headers, Bytes::copy_from_slice(body.as_bytes()), config)
}

fn refusal(line: &str, config: &RestConfig) -> String {
    let planned = request(line, config).and_then(|request| plan(&request, &library(), config));
    planned.map_or_else(|error| error.code(), |plan| panic!("{line} is planned: {plan:?}"))
}

#[test]
fn refuses_what_the_schema_lacks() {
    let cases = [
        ("GET /novels", "PGRST205"),
        ("GET /books?select=publishers(*)", "PGRST200"),
        ("GET /books?select=staff(*)", "PGRST201"),
        ("GET /books?select=authors!books_seller(*)", "PGRST200"),
        ("GET /books?authors.name=eq.x", "PGRST108"),
        ("GET /books?order=authors(name)", "PGRST108"),
        ("GET /authors?select=books(*)&order=books(title)", "PGRST118"),
        ("GET /authors?select=...books(id.sum())", "PGRST127"),
        ("GET /rpc/add", "PGRST202"),
        ("GET /rpc/add?b=1", "PGRST202"),
        ("GET /rpc/add?a=1&c=1", "PGRST202"),
        ("GET /rpc/both?a=1", "PGRST203"),
        ("GET /rpc/take", "PGRST202"),
        ("GET /books | Accept: application/vnd.pgrst.plan", "PGRST107"),
        ("GET /books | Accept: image/png", "PGRST107"),
        ("GET /books | Prefer: handling=strict, colour=red", "PGRST122"),
        ("POST /books | X-A: b | {\"subtitle\": 1}", "PGRST204"),
        ("PUT /books?id=eq.1&title=eq.x | X-A: b | {\"id\": 1}", "PGRST105"),
        ("PUT /books?id=gt.1 | X-A: b | {\"id\": 1}", "PGRST105"),
        ("PUT /books?and=(id.eq.1) | X-A: b | {\"id\": 1}", "PGRST105"),
        ("POST /rpc/add | Prefer: handling=strict, max-affected=1 | {\"a\": 1}", "PGRST128"),
    ];
    for (line, code) in cases {
        assert_eq!(refusal(line, &options()), code, "{line}");
    }
    let without = RestConfig { aggregates: false, ..options() };
    assert_eq!(refusal("GET /books?select=id.sum()", &without), "PGRST123");
    let strict = RestConfig { legacy_target_names: false, ..options() };
    assert_eq!(refusal("GET /books?select=a:authors(*)&authors.id=eq.1", &strict), "PGRST108");
}

fn tree(line: &str) -> ReadNode {
    let request = request(line, &options()).expect("parses");
    match plan(&request, &library(), &options()).expect("is planned") {
        Plan::Read(plan) => plan.tree,
        other => panic!("no read: {other:?}"),
    }
}

#[test]
fn finds_relationships_by_what_names_them() {
    let cases = [
        ("GET /books?select=authors(*)", "many to one"),
        ("GET /books?select=books_author(*)", "many to one"),
        ("GET /books?select=author_id(*)", "many to one"),
        ("GET /books?select=authors!author_id(*)", "many to one"),
        ("GET /books?select=staff!books_editor(*)", "many to one"),
        ("GET /authors?select=books(*)", "one to many"),
        ("GET /authors?select=latest(*)", "computed"),
        ("GET /books?select=genres(*)", "many to many"),
        ("GET /books?select=genres!books_genres(*)", "many to many"),
        ("GET /staff?select=staff(*)", "one to many"),
        ("GET /staff?select=manager_id(*)", "many to one"),
        ("GET /staff?select=staff!manager_id(*)", "one to many"),
    ];
    for (line, expected) in cases {
        let found = match &tree(line).children[0].relationship.as_ref().expect("related").kind {
            RelationshipKind::OneToMany(_) => "one to many",
            RelationshipKind::ManyToOne(_) => "many to one",
            RelationshipKind::OneToOne { .. } => "one to one",
            RelationshipKind::ManyToMany(_) => "many to many",
            RelationshipKind::Computed { .. } => "computed",
        };
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn ranges_reach_their_nodes_and_keep_to_the_limit() {
    let config = RestConfig { max_rows: Some(10), ..options() };
    let line = "GET /authors?select=*,b:books(*)&limit=20&offset=5&b.limit=3";
    let request = request(line, &config).expect("parses");
    let Plan::Read(ReadPlan { tree, .. }) = plan(&request, &library(), &config).expect("is planned") else {
        panic!("no read");
    };
    assert_eq!(tree.range, Range { offset: 5, limit: Some(10) });
    assert_eq!(tree.children[0].range, Range { offset: 0, limit: Some(3) });
}

#[test]
fn warns_of_names_that_an_alias_replaced() {
    let mut names = Vec::new();
    tree("GET /books?select=a:authors(*)&authors.id=eq.1").legacy_names(&mut names);
    assert_eq!(names, [("authors".to_owned(), "a".to_owned())]);
    names.clear();
    tree("GET /books?select=a:authors(*)&a.id=eq.1").legacy_names(&mut names);
    assert_eq!(names, []);
}

#[test]
fn arguments_choose_the_overload() {
    let cases = [
        ("GET /rpc/add?a=1", 2),
        ("GET /rpc/add?a=1&b=2", 2),
        ("GET /rpc/find?title=x", 1),
        ("GET /rpc/find?year=1&title=x", 2),
        ("POST /rpc/take | X-A: b | {\"a\": 1}", 1),
    ];
    for (line, parameters) in cases {
        let request = request(line, &options()).expect("parses");
        let Plan::Call(call) = plan(&request, &library(), &options()).expect("is planned") else {
            panic!("no call");
        };
        assert_eq!(call.routine.parameters.len(), parameters, "{line}");
    }
}

#[test]
fn variadic_arguments_gather_and_others_replace() {
    let request = request("GET /rpc/total?v=1&v=2", &options()).expect("parses");
    let Plan::Call(call) = plan(&request, &library(), &options()).expect("is planned") else {
        panic!("no call")
    };
    let gathered = RpcValue::Variadic(vec!["1".into(), "2".into()]);
    assert_eq!(call.call.arguments, CallArguments::Direct(HashMap::from([("v".into(), gathered)])));
}

#[test]
fn options_say_what_a_relation_takes() {
    let request = request("OPTIONS /books", &options()).expect("parses");
    let planned = plan(&request, &library(), &options()).expect("is planned");
    assert!(matches!(planned, Plan::Options(allow) if allow == "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"));
}
