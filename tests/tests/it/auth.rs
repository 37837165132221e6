//! `/auth/v1` as people in a browser and official clients meet it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use longhouse_emulators::oidc;

use crate::binary::Server;
use crate::clients::{browse, python};

const DIARY: &str = include_str!("auth.sql");

/// A port that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn count(server: &Server, sql: &str) -> i64 {
    server.database().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_password_opens_ones_own_diary_until_signing_out() {
    let server = Server::with_migration(DIARY, &[]).await;
    browse(&server, "accounts", &[]).await;
    let shared =
        "select count(distinct owner) from public.entries where text in ('The mill turns.', 'Dear diary')";
    assert_eq!(count(&server, shared).await, 2);
}

#[tokio::test]
async fn another_site_signs_people_in_with_and_without_pkce() {
    // Site and project name each other: both addresses must be known before either starts.
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let issuer = format!("http://{listen}/plain");
    let settings = [
        ("LONGHOUSE_PROVIDERS__OIDC_NAME", "house"),
        ("LONGHOUSE_PROVIDERS__OIDC_CLIENT_ID", "diary"),
        ("LONGHOUSE_PROVIDERS__OIDC_SECRET", "s3cret&+%"),
        ("LONGHOUSE_PROVIDERS__OIDC_URL", issuer.as_str()),
        ("LONGHOUSE_AUTH__ALLOW_PRIVATE_ADDRESSES", "true"),
    ];
    let server = Server::with_migration(DIARY, &settings).await;
    let callback = format!("{}/auth/v1/callback", server.fact("api_url"));
    let site = oidc::Server::start(oidc::Options {
        listen,
        clients: vec![oidc::Client::new("diary", "s3cret&+%", &callback)],
        people: vec![oidc::Person::new("1001", "Ada Lovelace", "ada@example.com")],
        ..oidc::Options::default()
    });
    let site = site.await.unwrap();
    browse(&server, "providers", &[("LONGHOUSE_TEST_PROVIDER", site.issuer().into())]).await;
    assert_eq!(count(&server, "select count(*) from auth.users").await, 1);
    assert_eq!(site.hits("/plain/token"), 2, "a code is exchanged once per sign-in");
}

#[tokio::test]
async fn links_from_the_mailbox_sign_in() {
    let server = Server::with_migration(DIARY, &[("LONGHOUSE_AUTH__EMAIL_AUTOCONFIRM", "false")]).await;
    browse(&server, "mailbox", &[]).await;
}

#[tokio::test]
async fn a_second_factor_opens_what_a_policy_seals() {
    let server = Server::with_migration(DIARY, &[]).await;
    browse(&server, "factors", &[]).await;
}

#[tokio::test]
async fn a_passkey_replaces_the_password() {
    let port = free_port();
    let page = format!("http://localhost:{port}/diary.html");
    let server = Server::with_migration(DIARY, &[("LONGHOUSE_AUTH__SITE_URL", &page)]).await;
    browse(&server, "passkeys", &[("LONGHOUSE_TEST_PAGES_PORT", port.to_string())]).await;
}

#[tokio::test]
async fn supabase_py_lives_through_an_account() {
    let server = Server::with_migration(DIARY, &[]).await;
    python(&server, "accounts", &[]).await;
}
