//! Transactions as one batch of messages: what they cost, and what they leave behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longhouse_database::batch::{Batch, Command, End, Param, Results, Row};
use longhouse_database::testing::TestDatabase;
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Database, DatabaseOptions, Error, Lifetimes};
use secrecy::{ExposeSecret as _, SecretString};

use crate::bootstrap::{connect, database};
use crate::pool::slow_proxy;

const PID: &str = "select pg_backend_pid()::text";

fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 1, pool_timeout: Duration::from_secs(10), ca_file: None }
}

async fn pool(database: &TestDatabase) -> Database {
    Database::connect(&options(&database.superuser_url)).await.unwrap()
}

async fn run_with(pool: &Database, commands: &[(&str, &[Param])], end: End<'_>) -> Result<Results, Error> {
    let commands: Vec<Command<'_>> = commands.iter().map(|&(sql, params)| Command { sql, params }).collect();
    pool.batch(&Batch { begin: "begin", commands: &commands, prepared: true, end, large: None }).await
}

/// The only value of the last of some statements.
async fn ask(pool: &Database, sql: &str) -> Result<Option<String>, Error> {
    let results = run_with(pool, &[(sql, &[])], End::Commit).await?;
    Ok(results.rows[0].first().and_then(|row| row.text(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_round_trip_even_the_first_time() {
    let database = database().await;
    let one_way = Duration::from_millis(60);
    let mut url = url::Url::parse(database.superuser_url.expose_secret()).unwrap();
    let direct = SocketAddr::new(url.host_str().unwrap().parse().unwrap(), url.port().unwrap());
    url.set_port(Some(slow_proxy(direct, one_way).await.port())).unwrap();
    let pool = Database::connect(&options(&url.to_string().into())).await.unwrap();
    ask(&pool, "select 1").await.unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        let settings = "select set_config('role', $1, true)";
        let commands: [(&str, &[Param]); 3] =
            [(settings, &[Param::from("anon")]), ("select current_user::text", &[]), ("select 2", &[])];
        let results = run_with(&pool, &commands, End::Commit).await.unwrap();
        assert_eq!(results.rows[1][0].text(0).as_deref(), Some("anon"));
        let elapsed = started.elapsed();
        assert!((one_way * 2..one_way * 3).contains(&elapsed), "{elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_changes_nothing_and_spoils_no_connection() {
    let database = database().await;
    let owner = connect(&database.superuser_url).await;
    owner
        .batch_execute(
            "create table public.kept (id int primary key, other int unique deferrable initially deferred)",
        )
        .await
        .unwrap();
    let pool = pool(&database).await;
    let pid = ask(&pool, PID).await.unwrap();
    let count = async || ask(&pool, "select count(*)::text from public.kept").await.unwrap();
    let insert = |id: &'static str| ("insert into public.kept values (1, 1), ($1, 2)", [Param::from(id)]);

    let cases: [(&str, &str, SqlState); 4] = [
        ("select $1::text from public.nothing", "1", SqlState::UNDEFINED_TABLE),
        ("insert into public.kept values (1, 1), ($1, 2)", "1", SqlState::UNIQUE_VIOLATION),
        ("insert into public.kept values (1, 1), ($1, 2)", "x", SqlState::INVALID_TEXT_REPRESENTATION),
        // Known only at the end.
        ("insert into public.kept values (1, 2), ($1, 2)", "2", SqlState::UNIQUE_VIOLATION),
    ];
    for (sql, value, code) in cases {
        for end in [End::Commit, End::Rollback] {
            let params = [Param::from(value)];
            let error = run_with(&pool, &[("select 1", &[]), (sql, &params)], end).await.unwrap_err();
            assert_eq!(error.sql_state(), Some(&code), "{sql}: {error}");
            assert_eq!(count().await.as_deref(), Some("0"), "{sql}");
        }
    }
    let (sql, params) = insert("2");
    run_with(&pool, &[(sql, &params)], End::Rollback).await.unwrap();
    let refuse: &(dyn Fn(&[Vec<Row>]) -> bool + Send + Sync) = &|_| false;
    run_with(&pool, &[(sql, &params)], End::CommitIf(refuse)).await.unwrap();
    assert_eq!(count().await.as_deref(), Some("0"));
    let accept: &(dyn Fn(&[Vec<Row>]) -> bool + Send + Sync) = &|rows| rows[0].len() == 2;
    run_with(&pool, &[(&format!("{sql} returning id"), &params)], End::CommitIf(accept)).await.unwrap();
    assert_eq!(count().await.as_deref(), Some("2"));
    assert_eq!(ask(&pool, PID).await.unwrap(), pid, "one connection did all that");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_or_left_are_replaced() {
    let database = database().await;
    let owner = connect(&database.superuser_url).await;
    let pool = pool(&database).await;
    let first = ask(&pool, PID).await.unwrap().unwrap();
    // Ended while nobody looks: not noticed by who comes next.
    let end = "select pg_terminate_backend($1::text::int, 5000)";
    owner.query(end, &[&first]).await.unwrap();
    let second = ask(&pool, PID).await.unwrap().unwrap();
    assert_ne!(first, second);
    // Ended in the middle: said.
    let asleep = tokio::spawn({
        let pool = pool.clone();
        async move { ask(&pool, "select pg_sleep(30)::text").await }
    });
    let sleeping = "select pg_terminate_backend(pid, 5000) from pg_stat_activity
        where datname = current_database() and wait_event = 'PgSleep'";
    while owner.query(sleeping, &[]).await.unwrap().is_empty() {}
    let error = asleep.await.unwrap().unwrap_err();
    assert!(error.is_transient() && error.sql_state() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    // Left in the middle: rolled back, and closed.
    let left = tokio::time::timeout(Duration::from_millis(100), ask(&pool, "select pg_sleep(2)::text"));
    assert!(left.await.is_err());
    let third = ask(&pool, PID).await.unwrap().unwrap();
    assert_ne!(second, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_too_long_for_a_connection_hears_it() {
    let database = database().await;
    let options =
        DatabaseOptions { pool_timeout: Duration::from_millis(200), ..options(&database.superuser_url) };
    let pool = Database::connect(&options).await.unwrap();
    ask(&pool, "select 1").await.unwrap();
    let (long, short) = tokio::join!(ask(&pool, "select pg_sleep(1)::text"), ask(&pool, PID));
    assert!(long.is_ok());
    assert!(matches!(short, Err(Error::Busy(_))), "{short:?}");
    assert_eq!(pool.batch_status(), (0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_live_as_long_as_they_should() {
    let database = database().await;
    let pids = async |lifetimes| {
        let pool = pool(&database).await.with_lifetimes(lifetimes);
        (ask(&pool, PID).await.unwrap(), ask(&pool, PID).await.unwrap())
    };
    let (one, two) = pids(Lifetimes::default()).await;
    assert_eq!(one, two);
    let long = Some(Duration::from_secs(60));
    let (one, two) = pids(Lifetimes { longest: long, idle: long }).await;
    assert_eq!(one, two);
    for lifetimes in [
        Lifetimes { longest: Some(Duration::ZERO), idle: None },
        Lifetimes { longest: None, idle: Some(Duration::ZERO) },
    ] {
        let (one, two) = pids(lifetimes).await;
        assert_ne!(one, two);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_are_bounded_and_follow_migrations() {
    let database = database().await;
    let owner = connect(&database.superuser_url).await;
    let pool = pool(&database).await;
    for number in 0..1_100 {
        let answer = ask(&pool, &format!("select '{number}'::text")).await.unwrap();
        assert_eq!(answer, Some(number.to_string()));
    }
    let count = "select count(*)::text from pg_prepared_statements";
    let prepared: usize = ask(&pool, count).await.unwrap().unwrap().parse().unwrap();
    assert!((50..=1_010).contains(&prepared), "{prepared}");
    // What is refused again and again is prepared once.
    for _ in 0..5 {
        ask(&pool, "select (1 / (pg_backend_pid() - pg_backend_pid()))::text").await.unwrap_err();
    }
    let again: usize = ask(&pool, count).await.unwrap().unwrap().parse().unwrap();
    assert!(again <= prepared + 1, "{prepared}, then {again}");

    owner
        .batch_execute("create table public.changing (a text); insert into public.changing values ('x')")
        .await
        .unwrap();
    let all = "select * from public.changing";
    assert_eq!(ask(&pool, all).await.unwrap().as_deref(), Some("x"));
    owner
        .batch_execute("alter table public.changing alter column a type varchar(5), add column b int")
        .await
        .unwrap();
    assert_eq!(ask(&pool, all).await.unwrap().as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_comes_in_parts_behind_the_small_ones() {
    let database = database().await;
    let pool = pool(&database).await;
    let (small, size) = ("'small'::text, null::text, 7::bigint", 5_000_000);
    for (last, skipped) in [("repeat('x', 5000000)", 0), ("to_jsonb(repeat('x', 4999998))", 1)] {
        let sql = format!("select {small}, {last}");
        let commands = [Command { sql: &sql, params: &[] }];
        let batch = Batch {
            begin: "begin read only",
            commands: &commands,
            prepared: true,
            end: End::Commit,
            large: Some(100_000),
        };
        for _ in 0..2 {
            let Results { rows, large } = pool.batch(&batch).await.unwrap();
            let row = &rows[0][0];
            assert_eq!((row.text(0).as_deref(), row.get(1), row.bigint(2)), (Some("small"), None, Some(7)));
            let mut large = large.expect("too large to be collected");
            assert_eq!(large.length(), size, "{skipped}");
            let mut whole = Vec::new();
            while let Some(part) = large.next().await {
                whole.extend_from_slice(&part.unwrap());
            }
            assert_eq!(whole.len() as u64, size);
            assert!(whole[1..whole.len() - 1].iter().all(|&byte| byte == b'x'));
        }
    }
    assert_eq!(pool.batch_status(), (0, 1, 1), "the connection is back");
}
