//! Reloads of schema cache and configuration while the API runs.

use std::sync::Arc;
use std::time::Duration;

use longhouse_database::DatabaseOptions;
use longhouse_database::testing::TestDatabase;
use longhouse_rest::config::RestConfig;
use longhouse_rest::reload::{ReloadOptions, Reloader, Source, WATCH_DDL};
use longhouse_rest::schema::{QualifiedName, SchemaCache};
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

const PREPARED: &str = "create schema api; create schema other; create table api.films (id int); \
    create table other.books (id int);";
const LONG: Duration = Duration::from_secs(20);

async fn database() -> TestDatabase {
    TestDatabase::create(&format!("rest reload {PREPARED} {WATCH_DDL}"), async |template| {
        let (client, connection) =
            tokio_postgres::connect(template.superuser_url.expose_secret(), NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(PREPARED).await?;
        client.batch_execute(WATCH_DDL).await
    })
    .await
}

async fn connect(database: &TestDatabase) -> Client {
    let (client, connection) =
        tokio_postgres::connect(database.superuser_url.expose_secret(), NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

fn options(database: &TestDatabase, source: Source) -> ReloadOptions {
    ReloadOptions {
        database: DatabaseOptions {
            url: database.superuser_url.clone(),
            pool_size: 1,
            pool_timeout: Duration::from_secs(5),
            ca_file: None,
        },
        channel: Some("pgrst".into()),
        signals: false,
        source,
    }
}

fn fixed() -> Source {
    Source::Fixed(Arc::new(RestConfig { schemas: vec!["api".into()], ..RestConfig::default() }))
}

fn has(cache: &SchemaCache, table: &str) -> bool {
    cache.tables.contains_key(&QualifiedName::new("api", table))
}

async fn until(cache: &mut watch::Receiver<Arc<SchemaCache>>, wanted: impl Fn(&SchemaCache) -> bool) {
    timeout(LONG, cache.wait_for(|cache| wanted(cache))).await.expect("in time").expect("still running");
}

/// Waits until the reloader listens, so that a notification is not sent before.
async fn until_listening(client: &Client, others: i64) {
    let listening = "select count(*) from pg_stat_activity
        where datname = current_database() and query like 'listen %' and state = 'idle'";
    timeout(LONG, async {
        while client.query_one(listening, &[]).await.expect("counts").get::<_, i64>(0) < others {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("listens in time");
}

#[tokio::test]
async fn changes_of_the_schema_are_noticed() {
    let database = database().await;
    let client = connect(&database).await;
    let reloader = Reloader::start(options(&database, fixed())).await.expect("starts");
    let mut cache = reloader.cache();
    let before = cache.borrow().clone();
    assert!(has(&before, "films"));
    until_listening(&client, 1).await;

    client.batch_execute("create table api.actors (id int)").await.expect("creates");
    until(&mut cache, |cache| has(cache, "actors")).await;
    client.batch_execute("drop table api.actors").await.expect("drops");
    until(&mut cache, |cache| !has(cache, "actors")).await;
    assert!(has(&before, "films") && !has(&before, "actors"), "who holds a cache keeps it");

    cache.mark_unchanged();
    client.batch_execute("create temp table passing (id int); drop table passing").await.expect("runs");
    client.batch_execute("notify pgrst, 'something else'").await.expect("notifies");
    assert!(timeout(Duration::from_millis(500), cache.changed()).await.is_err(), "no reason to reload");
    client.batch_execute("notify pgrst").await.expect("notifies");
    timeout(LONG, cache.changed()).await.expect("in time").expect("runs");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_schema_reloaded() {
    let database = database().await;
    let client = connect(&database).await;
    client.batch_execute("drop event trigger longhouse_notify_of_ddl").await.expect("drops");
    let reloader = Reloader::start(options(&database, fixed())).await.expect("starts");
    let mut cache = reloader.cache();
    until_listening(&client, 1).await;
    client.batch_execute("create table api.missed (id int)").await.expect("creates");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and query like 'listen %'";
    client.execute(cut, &[]).await.expect("cuts");
    until(&mut cache, |cache| has(cache, "missed")).await;
}

#[tokio::test]
async fn configuration_in_the_database_counts_and_is_reloaded() {
    let database = database().await;
    let client = connect(&database).await;
    let user: String = client.query_one("select current_user::text", &[]).await.expect("asks").get(0);
    client
        .batch_execute(
            "create function api.pre_config() returns void language sql as $$
                select set_config('pgrst.db_max_rows', '7', true), set_config('pgrst.db_anon_role', 'early', true)
            $$",
        )
        .await
        .expect("creates");
    // Of this database only, so that other tests do not see it.
    let set = |name: &str, value: &str| {
        format!("alter role \"{user}\" in database \"{}\" set pgrst.{name} = '{value}'", database.name)
    };
    client.batch_execute(&set("db_anon_role", "late")).await.expect("sets");
    let source = Source::Standalone {
        file: None,
        environment: [
            ("PGRST_DB_SCHEMAS", "api"),
            ("PGRST_DB_PRE_CONFIG", "api.pre_config"),
            ("PGRST_DB_MAX_ROWS", "1000"),
            ("PGRST_JWT_SECRET", "reallyreallyreallyreallyverysafe"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
    };
    let reloader = Reloader::start(options(&database, source)).await.expect("starts");
    let mut current = reloader.current();
    let config = current.borrow().config.clone();
    assert_eq!(config.max_rows, Some(7), "the function, over the environment");
    assert_eq!(config.anon_role.as_deref(), Some("late"), "the role's setting, over the function");
    assert!(current.borrow().verifier.is_some());

    until_listening(&client, 1).await;
    client.batch_execute(&set("db_schemas", "other")).await.expect("sets");
    client.batch_execute("notify pgrst, 'reload config'").await.expect("notifies");
    timeout(LONG, current.wait_for(|current| current.config.schemas == ["other"]))
        .await
        .expect("in time")
        .expect("runs");
    until(&mut reloader.cache(), |cache| {
        cache.tables.contains_key(&QualifiedName::new("other", "books")) && !has(cache, "films")
    })
    .await;

    client.batch_execute(&set("db_tx_end", "nonsense")).await.expect("sets");
    client.batch_execute("notify pgrst, 'reload config'").await.expect("notifies");
    current.mark_unchanged();
    assert!(
        timeout(Duration::from_millis(500), current.changed()).await.is_err(),
        "the old configuration stays"
    );
}

#[tokio::test]
async fn a_first_load_that_fails_says_why() {
    let database = database().await;
    let source = Source::Standalone { file: Some("/does/not/exist".into()), environment: Vec::new() };
    let error = Reloader::start(options(&database, source)).await.expect_err("no such file").to_string();
    assert!(error.starts_with("cannot read /does/not/exist"), "{error}");
}
