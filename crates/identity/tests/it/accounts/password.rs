//! `POST /token?grant_type=password`, `/logout`, `/settings`.

use longhouse_identity::service::PasswordHash;
use rstest::rstest;
use serde_json::json;

use crate::harness::TestAuth;

#[tokio::test]
async fn a_password_opens_a_session() {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    let answer = auth.sign_in("ann@example.com", "correct horse").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!((&answer.body["token_type"], &answer.body["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert_eq!(answer.header("cache-control"), "no-store");
    let claims = auth.claims(&answer.body);
    assert_eq!(claims["amr"][0]["method"], "password");
    assert_eq!(claims["sub"], answer.body["user"]["id"]);
    let user = auth.get_as(answer.text_at("/access_token"), "/user").await;
    assert_eq!(user.body["email"], "ann@example.com");
    assert!(!user.text.contains("$2a$"), "hashes stay here");
}

#[tokio::test]
async fn wrong_names_and_wrong_passwords_sound_the_same() {
    let auth = TestAuth::with(|options| options.phone.enabled = true).await;
    auth.signed_up("ann@example.com").await;
    let sql = "update auth.users set encrypted_password = '' where email = 'without@example.com'";
    auth.signed_up("without@example.com").await;
    auth.sql.execute(sql, &[]).await.unwrap();
    let mut texts = Vec::new();
    for name in [
        json!({ "email": "ann@example.com", "password": "wrong" }),
        json!({ "email": "ann@example.com" }),
        json!({ "email": "nobody@example.com", "password": "correct horse" }),
        json!({ "email": "without@example.com", "password": "" }),
        json!({ "email": "no address", "password": "correct horse" }),
        json!({ "phone": "12025550199", "password": "correct horse" }),
    ] {
        let answer = auth.post("/token?grant_type=password", name).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_credentials"));
        texts.push(answer.text);
    }
    texts.dedup();
    assert_eq!(
        texts,
        [r#"{"code":400,"error_code":"invalid_credentials","msg":"Invalid login credentials"}"#]
    );
}

#[tokio::test]
async fn only_who_knows_the_password_learns_of_a_ban() {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    auth.sql.execute("update auth.users set banned_until = now() + interval '1 day'", &[]).await.unwrap();
    assert_eq!(auth.sign_in("ann@example.com", "wrong").await.code(), "invalid_credentials");
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.code(), "user_banned");
    auth.sql.execute("update auth.users set banned_until = now() - interval '1 second'", &[]).await.unwrap();
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);
}

/// The hash of `correct horse` or of another password, at the harness' low cost.
async fn cheap_hash(password: &str) -> String {
    let auth = TestAuth::start().await;
    auth.post("/signup", json!({ "email": "ann@example.com", "password": password })).await;
    stored_hash(&auth).await
}

async fn stored_hash(auth: &TestAuth) -> String {
    auth.sql.query_one("select encrypted_password from auth.users", &[]).await.unwrap().get(0)
}

#[rstest]
#[case::weaker(PasswordHash::Bcrypt(5), "$2a$05$")]
#[case::as_strong(PasswordHash::Bcrypt(4), "$2a$04$")]
#[case::other_kind(PasswordHash::Argon2id, "$2a$04$")]
#[tokio::test]
async fn weaker_hashes_are_replaced_at_sign_in(#[case] option: PasswordHash, #[case] after: &str) {
    let auth = TestAuth::with(|options| options.password.hash = option).await;
    auth.signed_up("ann@example.com").await;
    let hash = cheap_hash("correct horse").await;
    assert!(hash.starts_with("$2a$04$"));
    auth.sql.execute("update auth.users set encrypted_password = $1", &[&hash]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);
    }
    let now = stored_hash(&auth).await;
    assert!(now.starts_with(after), "{now}");
}

#[tokio::test]
async fn a_password_that_rules_have_overtaken_still_works_and_says_so() {
    let auth = TestAuth::with(|options| options.password.min_length = 8).await;
    auth.signed_up("ann@example.com").await;
    let hash = cheap_hash("abcdef").await;
    auth.sql.execute("update auth.users set encrypted_password = $1", &[&hash]).await.unwrap();
    let answer = auth.sign_in("ann@example.com", "abcdef").await;
    assert_eq!(answer.body["weak_password"]["reasons"], json!(["length"]), "{}", answer.text);
}

#[tokio::test]
async fn unknown_grants_are_refused() {
    let auth = TestAuth::start().await;
    for path in ["/token", "/token?grant_type=magic"] {
        let answer = auth.post(path, json!({})).await;
        assert_eq!((answer.status, answer.text_at("/msg")), (400, "unsupported_grant_type"));
    }
}

#[tokio::test]
async fn wallets_and_saml_are_refused_by_name() {
    let auth = TestAuth::start().await;
    for (path, body, status, code) in [
        ("/token?grant_type=web3", json!({ "chain": "solana" }), 422, "web3_provider_disabled"),
        ("/token?grant_type=web3", json!({ "chain": "ethereum" }), 422, "web3_provider_disabled"),
        ("/token?grant_type=web3", json!({ "chain": "polygon" }), 400, "web3_unsupported_chain"),
        ("/sso", json!({ "domain": "example.com" }), 404, "saml_provider_disabled"),
    ] {
        let answer = auth.post(path, body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    }
}

#[rstest]
#[case("?scope=local", [false, true, true])]
#[case("?scope=others", [true, false, true])]
#[case("?scope=global", [false, false, true])]
#[case("", [false, false, true])]
#[tokio::test]
async fn signing_out_ends_the_named_sessions(#[case] scope: &str, #[case] alive: [bool; 3]) {
    let auth = TestAuth::start().await;
    let here = auth.signed_up("ann@example.com").await;
    let there = auth.sign_in("ann@example.com", "correct horse").await.body;
    let other = auth.signed_up("bob@example.com").await;
    let token = here["access_token"].as_str().unwrap();
    let answer = auth.post_as(token, &format!("/logout{scope}"), json!({})).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    for (session, alive) in [here, there, other].iter().zip(alive) {
        let user = auth.get_as(session["access_token"].as_str().unwrap(), "/user").await;
        assert_eq!(user.status, if alive { 200 } else { 403 }, "{}", user.text);
        let body = json!({ "refresh_token": session["refresh_token"] });
        let refreshed = auth.post("/token?grant_type=refresh_token", body).await;
        assert_eq!(refreshed.status == 200, alive, "{}", refreshed.text);
    }
}

#[tokio::test]
async fn other_scopes_of_signing_out_are_refused() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let answer = auth.post_as(token, "/logout?scope=everybody", json!({})).await;
    assert_eq!((answer.status, answer.code()), (400, "validation_failed"));
    assert_eq!(auth.get_as(token, "/user").await.status, 200);
    assert_eq!(auth.post("/logout", json!({})).await.status, 401);
}

#[tokio::test]
async fn settings_say_what_pages_may_offer() {
    let auth = TestAuth::with(|options| options.anonymous = true).await;
    let settings = auth.get("/settings").await.body;
    assert_eq!(settings["external"]["email"], true);
    assert_eq!(settings["external"]["anonymous_users"], true);
    assert_eq!(settings["external"]["github"], false);
    assert_eq!(
        (&settings["disable_signup"], &settings["mailer_autoconfirm"]),
        (&json!(false), &json!(false))
    );
}
