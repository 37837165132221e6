//! The platform schema as a Supabase project, an operator and an administrator meet it.

#![allow(clippy::unwrap_used)]

use longhouse_database::bootstrap::{self, BootstrapError, Passwords, Platform};
use longhouse_database::cluster::Login;
use longhouse_database::testing::{TestCluster, TestDatabase};
use longhouse_database::tokio_postgres::{self, Client, NoTls};
use secrecy::{ExposeSecret as _, SecretString};

pub(crate) async fn connect(url: &SecretString) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn passwords() -> Passwords {
    let cluster = TestCluster::shared().await;
    Passwords { owner: cluster.password(Login::Owner), authenticator: cluster.password(Login::Authenticator) }
}

async fn empty_database() -> TestDatabase {
    TestDatabase::create("an empty database", async |_| Ok::<_, BootstrapError>(())).await
}

/// A database with the platform schema.
pub(crate) async fn database() -> TestDatabase {
    let database = empty_database().await;
    let mut superuser = connect(&database.superuser_url).await;
    bootstrap::apply(&mut superuser, Some(&passwords().await)).await.unwrap();
    database
}

/// SQLSTATE and message of a failure.
pub(crate) async fn refused(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let db = error.as_db_error().unwrap();
    (db.code().code().to_owned(), db.message().to_owned())
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn an_empty_database_becomes_a_supabase_project_and_the_second_time_nothing_happens() {
    let database = empty_database().await;
    let mut superuser = connect(&database.superuser_url).await;
    let report = bootstrap::apply(&mut superuser, Some(&passwords().await)).await.unwrap();
    assert_eq!(report.platform, Platform::Longhouse);
    assert_eq!(report.applied.len(), 13);

    let again = bootstrap::apply(&mut superuser, Some(&passwords().await)).await.unwrap();
    assert!(again.applied.is_empty() && again.newer.is_empty());
    // The owner may ask, too.
    let mut owner = connect(&database.owner_url).await;
    assert!(bootstrap::apply(&mut owner, None).await.unwrap().applied.is_empty());

    let roles = "select string_agg(format('%s:%s%s%s%s', rolname, case when rolcanlogin then 'l' end,
        case when rolinherit then 'i' end, case when rolbypassrls then 'b' end, case when rolsuper then 's' end),
        ' ' order by rolname)
        from pg_roles where rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'postgres')";
    assert_eq!(
        text(&superuser, roles).await,
        "anon: authenticated: authenticator:l postgres:lib service_role:b"
    );
    let schemas = "select string_agg(nspname, ' ' order by nspname) from pg_namespace
        where nspname !~ '^pg_' and nspname <> 'information_schema'";
    assert_eq!(
        text(&superuser, schemas).await,
        "auth extensions graphql_public longhouse public realtime storage supabase_migrations"
    );
    assert_eq!(text(&owner, "show search_path").await, "\"$user\", public, extensions");
    assert_eq!(
        text(
            &owner,
            "select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()"
        )
        .await,
        "postgres"
    );
    // pgcrypto is on the search path, as seeds expect.
    assert_eq!(text(&owner, "select (crypt('pw', gen_salt('bf')) <> '')::text").await, "true");
    assert_eq!(
        text(&owner, "select string_agg(pubname, ' ' order by pubname) from pg_publication").await,
        "supabase_realtime supabase_realtime_messages_publication"
    );
}

#[tokio::test]
async fn policies_see_the_user_and_the_api_roles_reach_what_migrations_make() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    owner
        .batch_execute(
            "create table notes (id bigint generated always as identity, author uuid default auth.uid(), body text);
             alter table notes enable row level security;
             create policy own on notes to authenticated using (author = auth.uid()) with check (author = auth.uid());
             insert into notes (author, body) values
               ('00000000-0000-0000-0000-00000000000a', 'of a'), ('00000000-0000-0000-0000-00000000000b', 'of b');
             create view bodies with (security_invoker) as select body from notes;",
        )
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));

    let api = connect(&database.authenticator_url).await;
    let (code, _) = refused(&api, "select * from notes").await;
    assert_eq!(code, "42501", "authenticator itself reads nothing");
    let bodies = "select coalesce(string_agg(body, ',' order by body), '') from notes";
    api.batch_execute("set role anon").await.unwrap();
    assert_eq!(text(&api, bodies).await, "", "visitors see nothing, without an error");
    api.batch_execute(
        r#"set role authenticated;
           set request.jwt.claims = '{"sub": "00000000-0000-0000-0000-00000000000a", "role": "authenticated", "email": "a@x.test"}'"#,
    )
    .await
    .unwrap();
    assert_eq!(text(&api, bodies).await, "of a");
    assert_eq!(text(&api, "select auth.role() || ' ' || auth.email()").await, "authenticated a@x.test");
    assert_eq!(text(&api, "select auth.jwt() ->> 'email'").await, "a@x.test");
    api.batch_execute("insert into notes (body) values ('second of a')").await.unwrap();
    assert_eq!(
        text(&api, "select string_agg(body, ',' order by body) from bodies").await,
        "of a,second of a"
    );
    let (code, _) =
        refused(&api, "insert into notes (author, body) values (gen_random_uuid(), 'forged')").await;
    assert_eq!(code, "42501");
    // The claims of older PostgREST.
    api.batch_execute(
        "reset request.jwt.claims; set request.jwt.claim.sub = '00000000-0000-0000-0000-00000000000b'",
    )
    .await
    .unwrap();
    assert_eq!(text(&api, bodies).await, "of b");
    api.batch_execute("reset all; set role service_role").await.unwrap();
    assert_eq!(text(&api, bodies).await, "of a,of b,second of a");
    let (code, _) = refused(&api, "select * from auth.users").await;
    assert_eq!(code, "42501", "accounts are not for the API");
}

#[tokio::test]
async fn the_migration_owner_may_do_what_it_may_on_supabase_and_no_more() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    for sql in [
        "create policy own on storage.objects for select to authenticated
           using (bucket_id = 'agent.portraits' and (storage.foldername(name))[1] = auth.uid()::text)",
        "insert into storage.buckets (id, name, public) values ('agent.portraits', 'agent.portraits', true)",
        "create extension unaccent",
        "select unaccent('é')",
        "create extension if not exists \"uuid-ossp\" with schema extensions",
        "create extension if not exists pg_trgm with schema extensions",
        "create table t (id uuid primary key references auth.users (id) on delete cascade)",
        "alter table t disable trigger user",
        "create function new_user() returns trigger language plpgsql security definer as
           $$ begin insert into public.t values (new.id); return new; end $$",
        "create trigger on_auth_user_created after insert on auth.users for each row execute function new_user()",
        "insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
           raw_app_meta_data, raw_user_meta_data, created_at, updated_at, confirmation_token, recovery_token,
           email_change_token_new, email_change)
         values ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000001', 'authenticated',
           'authenticated', 'a@x.test', crypt('pw', gen_salt('bf')), now(), '{}', '{}', now(), now(), '', '', '', '')
         on conflict (id) do nothing",
        "insert into auth.identities (id, user_id, provider_id, identity_data, provider, last_sign_in_at, created_at,
           updated_at)
         values (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'a', '{\"email\": \"A@x.test\"}', 'email',
           now(), now(), now()) on conflict (provider_id, provider) do nothing",
        "alter publication supabase_realtime add table t",
        "set role authenticated; reset role",
        "alter role authenticated set statement_timeout = '8s'",
        "create schema extra",
    ] {
        owner.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    assert_eq!(text(&owner, "select count(*)::text from t").await, "1", "the trigger on auth.users ran");
    for sql in [
        "alter table t disable trigger all",
        "set session_replication_role = replica",
        "drop table auth.users",
        "delete from longhouse.schema_versions",
        "copy t from program 'id'",
        "alter role supabase_admin password 'x'",
    ] {
        assert_eq!(refused(&owner, sql).await.0, "42501", "{sql}");
    }
}

#[tokio::test]
async fn paths_of_objects_are_taken_apart_as_supabase_does() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    let parts = "select concat_ws(' ', storage.foldername($1), storage.filename($1), storage.extension($1))";
    for (name, expected) in [
        ("a/b/c.png", "{a,b} c.png png"),
        ("c.png", "{} c.png png"),
        ("a/x.tar.gz", "{a} x.tar.gz gz"),
        ("a/plain", "{a} plain plain"),
    ] {
        let row = owner.query_one(parts, &[&name]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), expected, "{name}");
    }
}

#[tokio::test]
async fn databases_of_one_cluster_can_be_set_up_at_the_same_time() {
    let passwords = passwords().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let database = empty_database().await;
        let passwords = passwords.clone();
        tasks.push(tokio::spawn(async move {
            let mut one = connect(&database.superuser_url).await;
            let mut two = connect(&database.superuser_url).await;
            let (a, b) = tokio::join!(
                bootstrap::apply(&mut one, Some(&passwords)),
                bootstrap::apply(&mut two, Some(&passwords)),
            );
            a.unwrap().applied.len() + b.unwrap().applied.len()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 13, "each part is applied once");
    }
}

#[tokio::test]
async fn an_older_schema_is_upgraded_by_who_may_and_a_newer_one_left_alone() {
    let database = database().await;
    let mut superuser = connect(&database.superuser_url).await;
    let mut owner = connect(&database.owner_url).await;
    superuser
        .batch_execute(
            "update longhouse.schema_versions set version = version - 1 where part = 'auth';
             update longhouse.schema_versions set version = version + 1 where part = 'storage'",
        )
        .await
        .unwrap();
    let error = bootstrap::apply(&mut owner, None).await.unwrap_err();
    assert!(matches!(&error, BootstrapError::Outdated { parts, .. } if parts == &["auth"]), "{error}");
    let report = bootstrap::apply(&mut superuser, None).await.unwrap();
    assert_eq!(report.applied, [("auth", 2)]);
    assert_eq!(report.newer, ["storage"]);
}

#[tokio::test]
async fn passwords_change_only_when_asked() {
    let database = database().await;
    let mut superuser = connect(&database.superuser_url).await;
    let hash = "select md5(string_agg(rolpassword, '' order by rolname)) from pg_authid where rolname in ('postgres', 'authenticator')";
    let before = text(&superuser, hash).await;
    superuser.batch_execute("delete from longhouse.schema_versions where part = 'roles'").await.unwrap();
    let other = Passwords { owner: "x'y".to_owned().into(), authenticator: "z".to_owned().into() };
    // Without its row the ledger reads as a hosted one; everything is set up again all the same.
    superuser.batch_execute("delete from longhouse.schema_versions").await.unwrap();
    let hosted = bootstrap::apply(&mut superuser, Some(&other)).await.unwrap();
    assert_eq!(hosted.platform, Platform::Supabase);
    assert_eq!(text(&superuser, hash).await, before);
    // Other tests log in meanwhile, so the same ones are set.
    bootstrap::set_passwords(&mut superuser, &passwords().await).await.unwrap();
    assert_ne!(text(&superuser, hash).await, before, "scram salts anew");
    connect(&database.owner_url).await;
}

#[tokio::test]
async fn a_hosted_supabase_project_gets_our_schema_and_nothing_else() {
    database().await; // so that the roles exist
    let hosted = empty_database().await;
    let superuser = connect(&hosted.superuser_url).await;
    superuser
        .batch_execute(&format!(
            "create schema auth; create table auth.users (id uuid primary key);
             grant create on database {} to postgres",
            hosted.name
        ))
        .await
        .unwrap();
    let mut login = connect(&hosted.owner_url).await;
    let report = bootstrap::apply(&mut login, None).await.unwrap();
    assert_eq!(report.platform, Platform::Supabase);
    assert_eq!(report.applied, [("longhouse", 1)]);
    assert!(bootstrap::apply(&mut login, None).await.unwrap().applied.is_empty());
    let schemas = "select string_agg(nspname, ' ' order by nspname) from pg_namespace
        where nspname !~ '^pg_' and nspname <> 'information_schema'";
    assert_eq!(text(&superuser, schemas).await, "auth longhouse public");
    let columns =
        "select count(*)::text from pg_attribute where attrelid = 'auth.users'::regclass and attnum > 0";
    assert_eq!(text(&superuser, columns).await, "1");
}

#[tokio::test]
async fn a_login_without_rights_is_told_what_an_administrator_must_run() {
    database().await;
    let plain = empty_database().await;
    let superuser = connect(&plain.superuser_url).await;
    let name = format!("app_{}", plain.name);
    superuser.batch_execute(&format!("create role {name} login password 'app'")).await.unwrap();
    let url = plain.superuser_url.expose_secret();
    let (_, address) = url.rsplit_once('@').unwrap();
    let mut login = connect(&format!("postgres://{name}:app@{address}").into()).await;

    let error = bootstrap::apply(&mut login, None).await.unwrap_err();
    let BootstrapError::InsufficientRights { missing, sql, .. } = &error else { panic!("{error}") };
    assert_eq!(
        missing,
        &[
            "membership of anon, authenticated, service_role, authenticator",
            "`create` on the database",
            "`create` on the schema public",
        ]
    );
    superuser.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let report = bootstrap::apply(&mut login, None).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.applied.len(), 13);
    login
        .batch_execute(
            "create table t (); create policy p on storage.objects using (true); set role anon; select * from t",
        )
        .await
        .unwrap();
    login.batch_execute("reset role").await.unwrap();
    superuser.batch_execute(&format!("drop owned by {name} cascade; drop role {name}")).await.unwrap();
}
