//! Migrations as a developer, a pipeline and the Supabase command line meet them.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use longhouse_database::migrations::{
    self, Aftermath, Embedded, MigrationError, Progress, PushOptions, PushReport, SeedOutcome, Source, State,
};
use longhouse_database::testing::TestDatabase;
use longhouse_database::tokio_postgres::Client;
use tempfile::TempDir;

use crate::bootstrap::{connect, database};

/// A project: a folder of migrations and its database.
struct Project {
    database: TestDatabase,
    folder: TempDir,
    owner: Client,
}

impl Project {
    async fn new(files: &[(&str, &str)]) -> Self {
        let database = database().await;
        let owner = connect(&database.owner_url).await;
        let project = Self { database, folder: tempfile::tempdir().unwrap(), owner };
        for (name, sql) in files {
            project.write(name, sql);
        }
        project
    }

    fn write(&self, name: &str, sql: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, sql).unwrap();
        path
    }

    fn source(&self) -> Source {
        Source::Folder(self.folder.path().into())
    }

    async fn push(&mut self) -> Result<PushReport, MigrationError> {
        self.push_with(PushOptions::default()).await
    }

    async fn push_with(&mut self, options: PushOptions<'_>) -> Result<PushReport, MigrationError> {
        let source = self.source();
        migrations::push(&mut self.owner, &source, options).await
    }

    async fn states(&self) -> Vec<(String, State)> {
        let status = migrations::status(&self.owner, &self.source()).await.unwrap();
        status.entries.into_iter().map(|entry| (entry.version, entry.state)).collect()
    }

    async fn text(&self, sql: &str) -> String {
        self.owner.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
    }
}

fn failure(error: MigrationError) -> migrations::Failure {
    match error {
        MigrationError::Failed(failure) => *failure,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn files_are_applied_in_order_and_recorded_as_the_supabase_command_line_does() {
    let mut project = Project::new(&[
        ("20260102000000_rows.sql", "insert into t values ('a;b'), ($$;$$);\n-- the end\n"),
        ("20260101000000_table.sql", "-- first\ncreate table t (v text);\ncreate index on t (v);"),
        ("notes.sql", "this is no migration"),
    ])
    .await;
    let steps = Mutex::new(Vec::new());
    let progress = |step: Progress<'_>| {
        if let Progress::Applying { number, total, .. } = step {
            steps.lock().unwrap().push((number, total));
        }
    };
    let report = project.push_with(PushOptions { progress: &progress, ..Default::default() }).await.unwrap();
    let versions: Vec<_> = report.applied.iter().map(|entry| entry.version.as_str()).collect();
    assert_eq!(versions, ["20260101000000", "20260102000000"]);
    assert!(report.ignored[0].ends_with("notes.sql"));
    assert_eq!(*steps.lock().unwrap(), [(1, 2), (2, 2)]);

    let row = project
        .owner
        .query_one(
            "select name, statements from supabase_migrations.schema_migrations where version = '20260101000000'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "table");
    assert_eq!(row.get::<_, Vec<String>>(1), ["-- first\ncreate table t (v text)", "create index on t (v)"]);
    assert!(project.push().await.unwrap().applied.is_empty());
    assert_eq!(project.text("select count(*)::text from t").await, "2");
}

#[tokio::test]
async fn every_state_is_told_and_repair_changes_it() {
    let mut project =
        Project::new(&[("1_a.sql", "create table a ()"), ("2_b.sql", "create table b ()")]).await;
    project.push().await.unwrap();
    // Another tool's work: a row without our hash, and one without a file here.
    project
        .owner
        .batch_execute(
            "delete from longhouse.migration_hashes where version = '2';
             insert into supabase_migrations.schema_migrations (version, name) values ('3', 'theirs')",
        )
        .await
        .unwrap();
    project.write("1_a.sql", "create table a (id int)");
    project.write("4_d.sql", "create table d ()");
    let state = |version: &str, state| (version.to_owned(), state);
    assert_eq!(
        project.states().await,
        [
            state("1", State::EditedAfterApply),
            state("2", State::AppliedElsewhere),
            state("3", State::MissingLocally),
            state("4", State::Pending),
        ]
    );
    let error = project.push().await.unwrap_err();
    assert!(error.to_string().contains("longhouse db repair --status reverted 3"), "{error}");

    let source = project.source();
    migrations::repair(&mut project.owner, &source, false, &["3".into()]).await.unwrap();
    migrations::repair(&mut project.owner, &source, true, &["1".into(), "2".into()]).await.unwrap();
    let unknown = migrations::repair(&mut project.owner, &source, true, &["9".into()]).await;
    assert!(matches!(unknown, Err(MigrationError::UnknownVersion(version)) if version == "9"));
    assert_eq!(
        project.states().await,
        [state("1", State::Applied), state("2", State::Applied), state("4", State::Pending)]
    );
    project.write("1_a.sql", "create table a (id text)");
    let report = project.push().await.unwrap();
    assert_eq!((report.applied.len(), report.edited[0].version.as_str()), (1, "1"));
}

#[tokio::test]
async fn a_late_file_is_refused_unless_asked_for() {
    let mut project = Project::new(&[("20260102000000_b.sql", "create table b ()")]).await;
    project.push().await.unwrap();
    project.write("20260101000000_a.sql", "create table a ()");
    let error = project.push().await.unwrap_err();
    assert!(error.to_string().contains("--include-all"), "{error}");
    let options = PushOptions { include_all: true, ..Default::default() };
    assert_eq!(project.push_with(options).await.unwrap().applied.len(), 1);
}

#[tokio::test]
async fn a_dry_run_plans_and_changes_nothing() {
    let mut project = Project::new(&[("1_a.sql", "create table a ()")]).await;
    let options = PushOptions { dry_run: true, ..Default::default() };
    assert_eq!(project.push_with(options.clone()).await.unwrap().applied.len(), 1);
    assert_eq!(project.states().await, [("1".to_owned(), State::Pending)]);
    project.write("2_b.sql", "select 'never closed");
    let error = project.push_with(options).await.unwrap_err();
    assert!(error.to_string().contains("2_b.sql: line 1: this string is never closed"), "{error}");
}

#[tokio::test]
async fn an_error_names_its_place_and_leaves_nothing() {
    let table: &[(&str, (usize, usize), &str, &str)] = &[
        // (file, place, SQLSTATE, part of the report)
        (
            "create table x ();\n\n  select missing\n  from x;",
            (3, 10),
            "42703",
            "  select missing\n   |          ^",
        ),
        ("create table x ();\n-- ü\nselect 'üüü', oops from x;", (3, 15), "42703", "oops from x"),
        ("create table x ();\nselect 1\nfrm x;", (3, 5), "42601", "syntax error"),
        (
            "create table x (a int primary key);\ninsert into x values (1);\n-- twice\ninsert into x values (1);",
            (4, 1),
            "23505",
            "Key (a)=(1) already exists.",
        ),
        (
            "create table x ();\n\ndo $$ begin\n  perform 1 / 0;\nend $$;",
            (3, 1),
            "22012",
            "inline_code_block line 2",
        ),
        (
            "create table x (a int unique deferrable initially deferred);\ninsert into x values (1), (1);",
            (2, 1),
            "23505",
            "already exists",
        ),
        ("set role anon;\ncreate table x ();", (2, 14), "42501", "permission denied"),
        (
            "create table x ();\ncreate type m as enum ('a');\nalter type nope add value 'b';",
            (3, 1),
            "42704",
            "nope",
        ),
    ];
    let mut project = Project::new(&[]).await;
    for (sql, place, code, part) in table {
        project.write("1_bad.sql", sql);
        let error = project.push().await.expect_err(sql);
        let report = error.to_string();
        let failure = failure(error);
        assert_eq!((failure.line, failure.column), *place, "{report}");
        assert_eq!((failure.sqlstate.as_str(), &failure.aftermath), (*code, &Aftermath::Nothing), "{report}");
        assert!(report.contains(part) && report.contains("Nothing of this file was applied"), "{report}");
        assert_eq!(project.text("select to_regclass('x')::text").await, "", "{sql}");
        assert_eq!(project.states().await, [("1".to_owned(), State::Pending)]);
    }
}

#[tokio::test]
async fn what_psql_alone_understands_is_refused_before_anything_runs() {
    let mut project = Project::new(&[("1_a.sql", "create table a (v text)")]).await;
    for (sql, part) in [
        ("copy a from stdin;\nx\n\\.\n", "copy … from stdin"),
        ("\\set x 1", "`\\set` is a command of psql"),
        ("begin;\nselect 1;", "line 1: this transaction is still open"),
    ] {
        project.write("2_b.sql", sql);
        let error = project.push().await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(project.text("select to_regclass('a')::text").await, "");
    }
}

#[tokio::test]
async fn concurrently_runs_outside_of_a_transaction_and_its_failure_is_told_exactly() {
    let mut project = Project::new(&[
        ("1_a.sql", "create table a (id int); insert into a values (1), (1);"),
        ("2_b.sql", "create index concurrently a_id on a (id);\nvacuum a;"),
    ])
    .await;
    assert_eq!(project.push().await.unwrap().applied.len(), 2);
    assert_eq!(project.text("select to_regclass('a_id')::text").await, "a_id");

    project.write(
        "3_c.sql",
        "create table c ();\ncreate unique index concurrently a_unique on a (id);\ncreate table d ();",
    );
    let error = project.push().await.unwrap_err();
    let report = error.to_string();
    assert!(report.contains("1 of its 3 statements have run and stay"), "{report}");
    let failure = failure(error);
    assert_eq!((failure.line, failure.sqlstate.as_str()), (2, "23505"));
    assert_eq!(
        project.text("select to_regclass('c')::text || coalesce(to_regclass('d')::text, '')").await,
        "c"
    );
    assert_eq!(project.states().await[2], ("3".to_owned(), State::Pending));
}

#[tokio::test]
async fn transactions_and_settings_of_a_file_are_its_own() {
    let mut project = Project::new(&[
        ("1_a.sql", "begin;\ncreate table a ();\ncommit;"),
        ("2_b.sql", "begin; create table b (); commit; begin; create table c (); rollback;"),
        (
            "3_c.sql",
            "set role service_role; reset role; set search_path = ''; set role authenticated;
             select set_config('search_path', '', false); prepare p as select 1; create temp table x ();",
        ),
        ("4_d.sql", "create table d (); prepare p as select 2; create temp table x ();"),
    ])
    .await;
    // A file that creates as `authenticated` would fail; this one only leaves the role set.
    project.write(
        "3_c.sql",
        &std::fs::read_to_string(project.folder.path().join("3_c.sql"))
            .unwrap()
            .replace(" create temp table x ();", ""),
    );
    assert_eq!(project.push().await.unwrap().applied.len(), 4);
    let tables = "select string_agg(tablename || ':' || tableowner, ' ' order by tablename) from pg_tables where schemaname = 'public'";
    assert_eq!(project.text(tables).await, "a:postgres b:postgres d:postgres");
    assert_eq!(
        project.text("select current_user || ' ' || current_setting('search_path')").await,
        "postgres \"$user\", public, extensions"
    );

    // A wrapped file is one with its row: nothing stays when its end fails.
    project.write("5_e.sql", "begin;\ncreate table e ();\nselect nope;\ncommit;");
    let failure = failure(project.push().await.unwrap_err());
    assert_eq!((failure.line, failure.column, failure.aftermath), (3, 8, Aftermath::Nothing));
    assert_eq!(project.text("select to_regclass('e')::text").await, "");
}

#[tokio::test]
async fn eight_pushes_at_once_apply_every_file_once() {
    let project = Project::new(&[
        ("1_a.sql", "create table log (n int); insert into log values (1)"),
        ("2_b.sql", "select pg_sleep(0.2); insert into log values (2)"),
    ])
    .await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut client = connect(&project.database.owner_url).await;
        let source = project.source();
        tasks.push(tokio::spawn(async move {
            migrations::push(&mut client, &source, PushOptions::default()).await.unwrap().applied.len()
        }));
    }
    let mut applied = 0;
    for task in tasks {
        applied += task.await.unwrap();
    }
    assert_eq!(applied, 2);
    assert_eq!(project.text("select string_agg(n::text, ',' order by n) from log").await, "1,2");
}

#[tokio::test]
async fn who_waits_too_long_is_told_for_whom() {
    let mut project = Project::new(&[("1_a.sql", "select pg_sleep(2)")]).await;
    let mut other = connect(&project.database.owner_url).await;
    let source = project.source();
    let busy =
        tokio::spawn(async move { migrations::push(&mut other, &source, PushOptions::default()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let options = PushOptions { lock_wait: Duration::from_millis(300), ..Default::default() };
    let error = project.push_with(options).await.unwrap_err().to_string();
    assert!(error.contains("Postgres process "), "{error}");
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_push_leaves_nothing_of_its_file() {
    let mut project = Project::new(&[
        ("1_a.sql", "create table a ()"),
        ("2_b.sql", "create table b (); select pg_sleep(30);"),
    ])
    .await;
    let (mut other, connection) = {
        use longhouse_database::tokio_postgres::{NoTls, connect};
        use secrecy::ExposeSecret as _;
        connect(project.database.owner_url.expose_secret(), NoTls).await.unwrap()
    };
    let connection = tokio::spawn(connection);
    let source = project.source();
    let push =
        tokio::spawn(async move { migrations::push(&mut other, &source, PushOptions::default()).await });
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Dropping the socket is what a kill -9 does.
    connection.abort();
    push.abort();
    // The server notices at its next write, at the latest when told.
    let superuser = connect(&project.database.superuser_url).await;
    superuser
        .batch_execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
             where datname = current_database() and query like '%pg_sleep(30)%' and pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    assert_eq!(project.states().await, [("1".to_owned(), State::Applied), ("2".to_owned(), State::Pending)]);
    assert_eq!(project.text("select to_regclass('b')::text").await, "");
    project.write("2_b.sql", "create table b ()");
    assert_eq!(project.push().await.unwrap().applied.len(), 1);
}

#[tokio::test]
async fn a_reset_takes_the_project_back_to_its_files() {
    let mut project = Project::new(&[(
        "1_a.sql",
        "create extension unaccent with schema extensions; create schema extra; create table extra.t ();
         create type mood as enum ('calm'); create domain short as text check (length(value) < 9);
         create table a (id bigint generated always as identity primary key, n serial, m mood, s short);
         create view v as select id, m from a; create materialized view mv as select 1;
         create function f(m mood) returns mood language sql as 'select m'; create sequence s;
         create function new_user() returns trigger language plpgsql as 'begin return new; end';
         create trigger on_user after insert on auth.users for each row execute function new_user();
         create policy p on storage.objects using (true); alter publication supabase_realtime add table a;
         create aggregate total(int) (sfunc = int4pl, stype = int);
         create operator === (leftarg = int, rightarg = int, function = int4eq);
         insert into storage.buckets (id, name) values ('b', 'b')",
    )])
    .await;
    let seed =
        project.write("seed", "insert into auth.users (id, email) values (gen_random_uuid(), 'seed@x.test')");
    let options = PushOptions { include_seed: Some(seed), ..Default::default() };
    let first = project.push_with(options.clone()).await.unwrap();
    assert_eq!(first.seed, SeedOutcome::Loaded);
    assert_eq!(project.push_with(options.clone()).await.unwrap().seed, SeedOutcome::Unchanged);
    project
        .owner
        .batch_execute(
            "create table stray (); insert into a default values; revoke usage on schema public from anon",
        )
        .await
        .unwrap();
    migrations::app(&mut project.owner, "shop", SHOP).await.unwrap();

    let source = project.source();
    let report = migrations::reset(&mut project.owner, &source, options).await.unwrap();
    assert_eq!((report.applied.len(), report.seed), (1, SeedOutcome::Loaded));
    let state = "select format('%s %s %s %s %s', to_regclass('stray'), (select count(*) from a),
        (select count(*) from auth.users), (select count(*) from shop.items),
        has_table_privilege('anon', 'a', 'select') and has_schema_privilege('anon', 'public', 'usage'))";
    assert_eq!(project.text(state).await, " 0 1 1 t");
}

#[tokio::test]
async fn a_reset_without_its_files_costs_nothing() {
    let mut project = Project::new(&[("1_a.sql", "create table a ()")]).await;
    project.push().await.unwrap();
    let nowhere = Source::Folder(project.folder.path().join("nowhere"));
    migrations::reset(&mut project.owner, &nowhere, PushOptions::default()).await.unwrap_err();
    assert_eq!(project.text("select to_regclass('a')::text").await, "a");
}

const SHOP: &[Embedded] = &[
    Embedded {
        version: "0001",
        name: "items",
        sql: "create table items (id int); insert into items values (1);",
    },
    Embedded { version: "0002", name: "names", sql: "alter table shop.items add column name text;" },
];

#[tokio::test]
async fn an_application_has_its_own_schema_and_ledger() {
    let project = Project::new(&[]).await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let mut client = connect(&project.database.owner_url).await;
        tasks.push(tokio::spawn(async move { migrations::app(&mut client, "shop", SHOP).await.unwrap() }));
    }
    let mut applied = Vec::new();
    for task in tasks {
        applied.extend(task.await.unwrap());
    }
    assert_eq!(applied, ["0001", "0002"]);
    assert_eq!(project.text("select count(name)::text || count(id) from shop.items").await, "01");
    assert_eq!(project.states().await, [], "a project's ledger knows nothing of it");

    let mut owner = connect(&project.database.owner_url).await;
    let edited = [Embedded { sql: "create table items ();", ..SHOP[0] }];
    let error = migrations::app(&mut owner, "shop", &edited).await.unwrap_err();
    assert!(error.to_string().contains("put the change into a new migration"), "{error}");
    let bad = [Embedded { version: "0003", name: "bad", sql: "create table x ();\nselect nope" }];
    let failure = failure(migrations::app(&mut owner, "shop", &bad).await.unwrap_err());
    assert_eq!((failure.file.as_str(), failure.line, failure.column), ("shop/0003_bad.sql", 2, 8));
    for name in ["auth", "Shop", "pg_x", "a-b", ""] {
        assert!(matches!(migrations::app(&mut owner, name, SHOP).await, Err(MigrationError::BadApp(_))));
    }
}
