use std::collections::HashMap;

use super::*;
use crate::schema::{
    Column, ForeignKey, Parameter, QualifiedName, Relationship, RelationshipKind, ReturnType, Returns,
    Volatility,
};

fn column(name: &str, base_type: &str) -> Column {
    Column {
        name: name.into(),
        description: None,
        nullable: true,
        base_type: base_type.into(),
        nominal_type: base_type.into(),
        max_length: None,
        default: None,
        enum_labels: Vec::new(),
    }
}

fn cache() -> SchemaCache {
    let films = QualifiedName::new("api", "films");
    let columns = vec![
        Column { nullable: false, description: Some("Number".into()), ..column("id", "integer") },
        Column { max_length: Some(80), default: Some("'?'::text".into()), ..column("title", "text") },
        Column { enum_labels: vec!["a".into()], ..column("genre", "api.genre") },
        Column { default: Some("now()".into()), ..column("at", "date") },
        column("tags", "text[]"),
        column("extra", "jsonb"),
        column("studio", "bigint"),
    ];
    let table = Table {
        name: films.clone(),
        description: Some("Films\n\nAll of\nthem".into()),
        is_view: false,
        insertable: true,
        updatable: false,
        deletable: false,
        primary_key: vec!["id".into()],
        columns,
    };
    let towards = |name: &str, is_view| Relationship {
        table: films.clone(),
        foreign_table: QualifiedName::new("api", name),
        is_self: false,
        table_is_view: false,
        foreign_is_view: is_view,
        kind: RelationshipKind::ManyToOne(ForeignKey {
            constraint: "fk".into(),
            columns: vec![("studio".into(), "id".into())],
        }),
    };
    let parameter = |name: &str, type_name: &str, required, variadic| Parameter {
        name: name.into(),
        type_name: type_name.into(),
        record_type: type_name.into(),
        required,
        variadic,
    };
    let routine = |name: &str, volatility, parameters| Routine {
        name: QualifiedName::new("api", name),
        description: None,
        parameters,
        returns: Returns { is_set: false, of: ReturnType::Scalar(QualifiedName::new("pg_catalog", "int4")) },
        volatility,
        is_variadic: false,
        isolation: None,
        settings: Vec::new(),
    };
    let search = vec![parameter("genre", "api.genre", true, false), parameter("v", "text[]", false, true)];
    SchemaCache {
        tables: HashMap::from([(films.clone(), table)]),
        relationships: HashMap::from([(
            (films.clone(), "api".into()),
            vec![towards("a_view", true), towards("studios", false)],
        )]),
        routines: HashMap::from([
            (QualifiedName::new("api", "search"), vec![routine("search", Volatility::Stable, search)]),
            (QualifiedName::new("api", "reset"), vec![routine("reset", Volatility::Volatile, Vec::new())]),
        ]),
        schema_comments: HashMap::from([("api".into(), Some("Title\nText".into()))]),
        ..SchemaCache::default()
    }
}

fn place() -> Place {
    Place { scheme: "http".into(), host: "!4".into(), port: 3000, path: "/".into() }
}

fn described(config: &RestConfig, access: &Access) -> Value {
    document(&cache(), config, "api", access, &place())
}

#[test]
fn the_whole_schema() {
    let document = described(&RestConfig::default(), &Access::everything(&cache(), "api"));
    assert_eq!(document["info"]["title"], "Title");
    assert_eq!(document["info"]["description"], "Text");
    assert_eq!(document["host"], "0.0.0.0:3000");
    assert!(document.get("security").is_none());
    let get = &document["paths"]["/films"]["get"];
    assert_eq!((&get["summary"], &get["description"]), (&json!("Films"), &json!("All of\nthem")));
    assert_eq!(get["parameters"][0], json!({"$ref": "#/parameters/rowFilter.films.id"}));
    assert_eq!(
        document["definitions"]["films"]["properties"],
        json!({
            "id": {"format": "int32", "type": "integer", "description": "Number\n\nNote:\nThis is a Primary Key.<pk/>"},
            "title": {"format": "text", "type": "string", "maxLength": 80, "default": "?"},
            "genre": {"format": "api.genre", "type": "string", "enum": ["a"]},
            "at": {"format": "date", "type": "string", "default": "now()"},
            "tags": {"format": "text[]", "type": "array", "items": {"type": "string"}},
            "extra": {"format": "jsonb"},
            "studio": {
                "format": "int64",
                "type": "integer",
                "description": "Note:\nThis is a Foreign Key to `studios.id`.<fk table='studios' column='id'/>",
            },
        })
    );
    assert_eq!(document["definitions"]["films"]["required"], json!(["id"]));
    let search = &document["paths"]["/rpc/search"];
    assert_eq!(
        search["get"]["parameters"][1],
        json!({
            "name": "v", "required": false, "in": "query", "type": "array", "collectionFormat": "multi",
            "items": {"format": "text", "type": "string"},
        })
    );
    assert_eq!(search["post"]["parameters"][0]["schema"]["required"], json!(["genre"]));
    assert!(document["paths"]["/rpc/reset"].get("get").is_none());
}

#[test]
fn only_what_is_accessible_as_the_search_path_writes_it() {
    let access = Access::from_json(
        r#"{"tables": [], "routines": [["search", ["genre", "text[]"]], ["reset", ["integer"]]], "comment": null}"#,
    )
    .expect("reads");
    let document = described(&RestConfig::default(), &access);
    let paths: Vec<&String> = document["paths"].as_object().expect("an object").keys().collect();
    assert_eq!(paths, ["/", "/rpc/search"]);
    assert_eq!(document["paths"]["/rpc/search"]["get"]["parameters"][0]["format"], "genre");
    assert_eq!(document["info"]["title"], "PostgREST API");
}

#[test]
fn proxy_and_security_are_shown() {
    let config = RestConfig {
        openapi_proxy_uri: Some("https://example.com/api".into()),
        openapi_security: true,
        ..RestConfig::default()
    };
    let document = described(&config, &Access::default());
    assert_eq!(
        (&document["host"], &document["basePath"], &document["schemes"]),
        (&json!("example.com:443"), &json!("/api"), &json!(["https"]))
    );
    assert_eq!(document["security"], json!([{"JWT": []}]));
    assert_eq!(document["securityDefinitions"]["JWT"]["type"], "apiKey");
}
