//! Moving from a Supabase project: its dump is restored with `psql`, and its people notice nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::binary::Server;

/// What most projects have: a row of the application's per account, made by a trigger.
const PROFILES: &str = "
    create table public.profiles (id uuid primary key references auth.users on delete cascade, name text);
    create function public.handle_new_user() returns trigger language plpgsql security definer set search_path = ''
      as $$ begin insert into public.profiles (id, name) values (new.id, new.email); return new; end $$;
    create trigger on_auth_user_created after insert on auth.users
      for each row execute function public.handle_new_user();";
const DUMP: &str = include_str!("moving.sql");
const ADA: &str = "a0000000-0000-4000-8000-00000000000a";
const BOB: &str = "b0000000-0000-4000-8000-00000000000b";

/// The managed cluster's superuser: whoever restores a dump switches triggers off, which the migration owner may not.
fn superuser(server: &Server) -> String {
    let credentials = std::fs::read(server.folder().join("postgres/credentials.json")).unwrap();
    let credentials: Value = serde_json::from_slice(&credentials).unwrap();
    let mut url = Url::parse(&server.fact("database_url")).unwrap();
    url.set_username("supabase_admin").unwrap();
    url.set_password(credentials["superuser"].as_str()).unwrap();
    url.into()
}

/// Runs SQL with `psql`, all or nothing, as Supabase's guide to moving does.
fn psql(database_url: &str, sql: &str) {
    let mut psql = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1"])
        .args(["--output", "/dev/null", "--dbname", database_url])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql, which comes with Postgres, is installed");
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn post(server: &Server, path: &str, body: Value) -> (StatusCode, Value) {
    let request = reqwest::Client::new()
        .post(format!("{}/auth/v1{path}", server.fact("api_url")))
        .header("apikey", server.fact("anon_key"))
        .json(&body);
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn sign_in(server: &Server, email: &str, password: &str) -> (StatusCode, Value) {
    post(server, "/token?grant_type=password", json!({ "email": email, "password": password })).await
}

async fn refresh(server: &Server, token: &str) -> (StatusCode, Value) {
    post(server, "/token?grant_type=refresh_token", json!({ "refresh_token": token })).await
}

/// A served project with the dump of another in it. The hashes are made by pgcrypto, as those of a Supabase project.
async fn restored() -> Server {
    let server = Server::with_migration(PROFILES, &[]).await;
    let database = server.database().await;
    let mut dump = DUMP.to_owned();
    for (place, password) in [("{{ada}}", "analytical engine"), ("{{bob}}", "tea at five")] {
        let sql = "select extensions.crypt($1, extensions.gen_salt('bf', 10))";
        let hash: String = database.query_one(sql, &[&password]).await.unwrap().get(0);
        assert!(hash.starts_with("$2a$10$"), "{hash}");
        dump = dump.replace(place, &hash);
    }
    psql(&superuser(&server), &dump);
    server
}

#[tokio::test]
async fn people_of_a_restored_dump_sign_in_and_stay_signed_in() {
    let server = restored().await;
    let (status, session) = sign_in(&server, "ada@example.com", "analytical engine").await;
    assert_eq!(status, StatusCode::OK, "{session}");
    assert_eq!(session["user"]["id"], ADA);
    assert_eq!(session["user"]["user_metadata"]["name"], "Ada \"Countess\" Lovelace");
    assert_eq!(session["user"]["identities"][0]["provider"], "email");
    let (status, session) = sign_in(&server, "bob@example.com", "tea at five").await;
    assert_eq!((status, &session["user"]["id"]), (StatusCode::OK, &json!(BOB)), "{session}");
    assert_eq!(session["user"]["identities"].as_array().unwrap().len(), 2);
    for (email, password, code) in [
        ("ada@example.com", "tea at five", "invalid_credentials"),
        ("cleo@example.com", "", "invalid_credentials"),
        ("eve@example.com", "tea at five", "user_banned"),
    ] {
        let (status, refusal) = sign_in(&server, email, password).await;
        assert!(status.is_client_error() && refusal["error_code"] == code, "{email}: {status} {refusal}");
    }

    // Both are still signed in on their telephones, and stay so.
    for (token, id) in [("liveadatoken", ADA), ("Ab_3dEf6hIj9lMnOpQrStU", BOB)] {
        let (status, session) = refresh(&server, token).await;
        assert_eq!((status, &session["user"]["id"]), (StatusCode::OK, &json!(id)), "{session}");
        let (status, next) = refresh(&server, session["refresh_token"].as_str().unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{next}");
    }
    let (status, refusal) = refresh(&server, "usedadatoken").await;
    assert_eq!(
        (status, &refusal["error_code"]),
        (StatusCode::BAD_REQUEST, &json!("refresh_token_already_used")),
        "{refusal}"
    );

    let database = server.database().await;
    let sql = "select string_agg(name, '; ' order by name) from public.profiles";
    let profiles: String = database.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(profiles, "Ada, as she calls herself; Bob", "no trigger fired while restoring");

    // New people get their row, and old ones new passwords that functions of the project can compare.
    let (status, session) =
        post(&server, "/signup", json!({ "email": "fay@example.com", "password": "five o'clock" })).await;
    assert_eq!(status, StatusCode::OK, "{session}");
    let sql = "select u.encrypted_password = extensions.crypt('five o''clock', u.encrypted_password)
        from auth.users u join public.profiles p on p.id = u.id where p.name = 'fay@example.com'";
    assert!(database.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

/// A seed as projects keep it for development: run again and again.
const SEED: &str = "
    insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
      raw_app_meta_data, raw_user_meta_data, created_at, updated_at, confirmation_token, recovery_token,
      email_change_token_new, email_change)
    values ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000001', 'authenticated',
      'authenticated', 'admin@example.com', crypt('velvet rope', gen_salt('bf')), now(),
      '{\"provider\": \"email\", \"providers\": [\"email\"]}', '{}', now(), now(), '', '', '', '')
    on conflict (id) do update set encrypted_password = excluded.encrypted_password, updated_at = now();
    insert into auth.identities (id, user_id, provider_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
    values (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001',
      '{\"sub\": \"00000000-0000-0000-0000-000000000001\", \"email\": \"admin@example.com\"}', 'email', now(), now(), now())
    on conflict (provider_id, provider) do nothing;";

#[tokio::test]
async fn seeds_insert_accounts_again_and_again() {
    let server = Server::with_migration(PROFILES, &[]).await;
    for _ in 0..2 {
        psql(&server.fact("database_url"), SEED);
        let (status, session) = sign_in(&server, "admin@example.com", "velvet rope").await;
        assert_eq!(status, StatusCode::OK, "{session}");
        assert_eq!(session["user"]["id"], "00000000-0000-0000-0000-000000000001");
        assert_eq!(session["user"]["identities"].as_array().unwrap().len(), 1);
    }
}
