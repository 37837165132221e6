//! The schema cache of a database that has one of everything.

use std::time::{Duration, Instant};

use longhouse_database::testing::TestDatabase;
use longhouse_rest::config::RestConfig;
use longhouse_rest::schema::{
    self, HandlerRelation, MediaHandler, QualifiedName, Relationship, RelationshipKind, ReturnType,
    SchemaCache, Volatility,
};
use secrecy::ExposeSecret as _;
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str = include_str!("schema.sql");

async fn connect(database: &TestDatabase) -> Client {
    let (client, connection) =
        tokio_postgres::connect(database.superuser_url.expose_secret(), NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

async fn database() -> TestDatabase {
    TestDatabase::create(&format!("rest schema {SCHEMA}"), async |template| {
        let (client, connection) =
            tokio_postgres::connect(template.superuser_url.expose_secret(), NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(SCHEMA).await
    })
    .await
}

async fn load() -> SchemaCache {
    let database = database().await;
    let client = connect(&database).await;
    let config = RestConfig { schemas: vec!["api".into(), "absent".into()], ..RestConfig::default() };
    let cache = schema::load(&client, &config).await.expect("loads");
    client.simple_query("select 1").await.expect("the transaction has ended");
    cache
}

fn api(name: &str) -> QualifiedName {
    QualifiedName::new("api", name)
}

fn between<'a>(cache: &'a SchemaCache, from: &str, to: &str) -> Vec<&'a Relationship> {
    let all = cache.relationships.get(&(api(from), "api".to_owned()));
    all.into_iter().flatten().filter(|relationship| relationship.foreign_table == api(to)).collect()
}

#[tokio::test]
async fn reads_tables_and_columns() {
    let cache = load().await;
    let mut names: Vec<&str> = cache.tables.keys().map(|name| name.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "acted_in",
            "actors",
            "film_names",
            "films",
            "films_with_twin",
            "measurements",
            "people",
            "profiles"
        ],
        "partitions and other schemas are left out"
    );

    let films = &cache.tables[&api("films")];
    assert_eq!(films.description.as_deref(), Some("All films"));
    assert_eq!(films.primary_key, ["id"]);
    assert!(films.insertable && films.updatable && films.deletable && !films.is_view);
    let column = |name: &str| films.column(name).expect(name);
    assert_eq!(column("id").default.as_deref(), Some("nextval('api.films_id_seq'::regclass)"));
    assert_eq!((column("title").max_length, column("title").nullable), (Some(80), false));
    assert_eq!(column("title").base_type, "character varying");
    assert_eq!(column("title").nominal_type, "character varying(80)");
    assert_eq!(column("title").description.as_deref(), Some("As on the poster"));
    assert_eq!(
        (column("stars").base_type.as_str(), column("stars").nominal_type.as_str()),
        ("integer", "api.rating")
    );
    assert!(!column("stars").nullable, "the domain forbids nulls");
    assert_eq!(column("stars").default.as_deref(), Some("3"), "the domain's");
    assert_eq!(column("genre").enum_labels, ["drama", "comedy"]);
    assert_eq!(column("slug").default, None, "generated");

    let names = &cache.tables[&api("film_names")];
    assert!(names.is_view && names.updatable);
    assert_eq!(names.primary_key, ["film_id"]);
    assert!(!cache.tables[&api("films_with_twin")].insertable);
    assert_eq!(cache.tables[&api("measurements")].primary_key, ["at", "id"]);
    assert_eq!(cache.tables[&api("people")].primary_key, ["id"], "through a view of a hidden schema");
    assert_eq!(cache.schema_comments["api"].as_deref(), Some("Films"));
    assert!(cache.server_version >= 140_000);
    assert!(cache.timezones.contains("Europe/Berlin"));
}

#[tokio::test]
async fn relates_tables_and_views() {
    let cache = load().await;
    let kinds = |from, to| between(&cache, from, to).into_iter().map(|r| r.kind.clone()).collect::<Vec<_>>();

    assert!(
        matches!(&kinds("films", "actors")[..], [RelationshipKind::ManyToMany(j)] if j.table == api("acted_in"))
    );
    assert!(matches!(&kinds("acted_in", "films")[..], [RelationshipKind::ManyToOne(_)]));
    assert!(matches!(&kinds("films", "acted_in")[..], [RelationshipKind::OneToMany(_)]));
    assert!(matches!(
        &kinds("profiles", "actors")[..],
        [RelationshipKind::OneToOne { is_parent: false, key }] if key.columns == [("actor_id".into(), "id".into())]
    ));
    assert!(matches!(&kinds("actors", "profiles")[..], [RelationshipKind::OneToOne { is_parent: true, .. }]));
    let [itself, back] = &between(&cache, "films", "films")[..] else {
        panic!("two ways from films to films")
    };
    assert!(itself.is_self && back.is_self);

    assert!(matches!(
        &kinds("acted_in", "film_names")[..],
        [RelationshipKind::ManyToOne(key)] if key.columns == [("film_id".into(), "film_id".into())]
    ));
    let twins = between(&cache, "acted_in", "films_with_twin");
    assert_eq!(twins.len(), 2, "the view shows the key twice");
    assert!(twins.iter().all(|twin| twin.foreign_is_view && !twin.table_is_view));

    assert!(matches!(
        &kinds("films", "people")[..],
        [RelationshipKind::Computed { function, to_one: true, .. }] if *function == api("director")
    ));
}

#[tokio::test]
async fn reads_routines() {
    let cache = load().await;
    let overloads = &cache.routines[&api("add")];
    assert_eq!(overloads.iter().map(|routine| routine.parameters.len()).collect::<Vec<_>>(), [1, 2]);
    let add = &overloads[1];
    assert_eq!((add.parameters[0].required, add.parameters[1].required), (true, false));
    assert!(add.returns_scalar());
    assert_eq!((add.volatility, add.description.as_deref()), (Volatility::Immutable, Some("Adds")));

    let tags = &cache.routines[&api("tag")][0];
    assert!(tags.is_variadic && tags.parameters[0].variadic && tags.returns_void());
    let found = &cache.routines[&api("found")][0];
    assert!(found.returns.is_set);
    assert_eq!(found.composite(), Some(&QualifiedName::new("pg_catalog", "record")), "returns table(…)");
    assert_eq!(found.isolation.as_deref(), Some("serializable"));
    assert_eq!(
        found.settings,
        [
            ("statement_timeout".into(), "5s".into()),
            ("default_transaction_isolation".into(), "serializable".into())
        ]
    );
    let best = &cache.routines[&api("best")][0];
    assert!(best.returns_single_composite());
    assert_eq!(best.composite(), Some(&api("films")));
    let split = &cache.routines[&api("split")][0];
    assert_eq!(
        split.parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["text"],
        "out comes first"
    );
    assert_eq!(cache.routines[&api("pad")][0].parameters[0].type_name, "character");
    assert_eq!(cache.routines[&api("pad")][0].parameters[0].record_type, "character varying");
    assert_eq!(
        cache.routines[&api("page")][0].returns.of,
        ReturnType::Scalar(QualifiedName::new("pg_catalog", "text")),
        "domains are resolved"
    );
    for hidden in ["on_change", "needs_unnamed", "total"] {
        assert!(!cache.routines.contains_key(&api(hidden)), "{hidden}");
    }
    assert!(cache.routines.contains_key(&api("echo")), "one unnamed json argument takes the body");
}

#[tokio::test]
async fn reads_representations_and_media_handlers() {
    let cache = load().await;
    let shown = &cache.representations[&("api.color".to_owned(), "json".to_owned())];
    assert_eq!(shown.function, r#"api."show color""#);

    let handler = |relation, media_type: &str| match &cache.media_handlers[&(relation, media_type.to_owned())]
    {
        MediaHandler::Custom { function, media_type, .. } => (function.clone(), media_type.clone()),
    };
    assert_eq!(
        handler(HandlerRelation::Named(api("page")), "text/html"),
        (api("text/html"), "text/html".to_owned())
    );
    assert_eq!(
        handler(HandlerRelation::Any, "*/*"),
        (api("anything"), "application/octet-stream".to_owned())
    );
    assert_eq!(handler(HandlerRelation::Named(api("films")), "text/html").0, api("film_page"));
}

#[tokio::test]
async fn loads_a_thousand_tables_in_a_second() {
    let database = database().await;
    let client = connect(&database).await;
    client
        .batch_execute(
            "create schema wide; do $$ begin for i in 1..1000 loop execute format(
                'create table wide.t%s (id int primary key, a text, b text, c int, d timestamptz, e jsonb, f numeric,
                 g uuid, h bool, parent int references wide.t%s)', i, greatest(i - 1, 1)); end loop; end $$",
        )
        .await
        .expect("creates tables");
    let config = RestConfig { schemas: vec!["wide".into()], ..RestConfig::default() };
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let cache = schema::load(&client, &config).await.expect("loads");
        best = best.min(started.elapsed());
        assert_eq!(cache.tables.len(), 1000);
        assert_eq!(cache.relationships.len(), 1000);
    }
    println_elapsed(best);
    // The bar is one second on a quiet machine; tests share theirs.
    assert!(best < Duration::from_secs(5), "{best:?}");
}

#[expect(clippy::print_stderr, reason = "the figure is what the reader of this test wants")]
fn println_elapsed(best: Duration) {
    eprintln!("1000 tables in {best:?}");
}
