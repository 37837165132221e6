//! `PUT /user` and `GET /reauthenticate`.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Answer, TestAuth};

fn token(session: &Value) -> &str {
    session["access_token"].as_str().unwrap()
}

async fn set_password(auth: &TestAuth, session: &Value, password: &str) -> Answer {
    auth.put_as(token(session), "/user", json!({ "password": password })).await
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_voids_what_was_sent() {
    let auth = TestAuth::start().await;
    let here = auth.signed_up("ann@example.com").await;
    let there = auth.sign_in("ann@example.com", "correct horse").await.body;
    auth.post("/recover", json!({ "email": "ann@example.com" })).await;
    let mail = auth.last_mail("ann@example.com").await;
    let changed = set_password(&auth, &here, "new password").await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(auth.get_as(token(&here), "/user").await.status, 200);
    let ended = auth.get_as(token(&there), "/user").await;
    assert_eq!((ended.status, ended.code()), (403, "session_not_found"));
    let voided = auth.post("/verify", json!({ "type": "recovery", "token_hash": mail.token_hash() })).await;
    assert_eq!(voided.code(), "otp_expired");
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 400);
    assert_eq!(auth.sign_in("ann@example.com", "new password").await.status, 200);
}

#[rstest]
#[case("correct horse", 422, "same_password")]
#[case("short", 422, "weak_password")]
#[case("", 422, "weak_password")]
#[tokio::test]
async fn some_passwords_are_refused(#[case] password: &str, #[case] status: u16, #[case] code: &str) {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let refused = set_password(&auth, &session, password).await;
    assert_eq!((refused.status, refused.code()), (status, code));
}

#[tokio::test]
async fn an_old_sign_in_needs_a_code_to_change_the_password() {
    let auth = TestAuth::with(|options| options.password.require_reauthentication = true).await;
    let session = auth.signed_up("ann@example.com").await;
    assert_eq!(set_password(&auth, &session, "password 2").await.status, 200, "just signed in");
    let sql = "update auth.sessions set created_at = created_at - interval '25 hours'";
    auth.sql.execute(sql, &[]).await.unwrap();
    let refused = set_password(&auth, &session, "password 3").await;
    assert_eq!((refused.status, refused.code()), (400, "reauthentication_needed"));

    assert_eq!(auth.get_as(token(&session), "/reauthenticate").await.text, "{}");
    let mail = auth.last_mail("ann@example.com").await;
    assert_eq!(mail.kind, "reauthentication");
    let with = async |nonce: &str| {
        auth.put_as(token(&session), "/user", json!({ "password": "password 3", "nonce": nonce })).await
    };
    let wrong = if mail.code() == "000000" { "000001" } else { "000000" };
    let refused = with(wrong).await;
    assert_eq!((refused.status, refused.code()), (422, "reauthentication_not_valid"));
    assert_eq!(with(mail.code()).await.status, 200);
    assert_eq!(auth.sign_in("ann@example.com", "password 3").await.status, 200);
    let again = auth
        .put_as(token(&session), "/user", json!({ "password": "password 4", "nonce": mail.code() }))
        .await;
    assert_eq!(again.code(), "reauthentication_not_valid", "a nonce works once");
}

#[tokio::test]
async fn the_current_password_may_be_demanded_but_not_after_recovery() {
    let auth = TestAuth::with(|options| options.password.require_current_password = true).await;
    auth.signed_up("ann@example.com").await;
    let session = auth.sign_in("ann@example.com", "correct horse").await.body;
    assert_eq!(set_password(&auth, &session, "password 2").await.code(), "current_password_required");
    let with = async |current: &str| {
        let body = json!({ "password": "password 2", "current_password": current });
        auth.put_as(token(&session), "/user", body).await
    };
    assert_eq!(with("wrong").await.code(), "current_password_mismatch");
    assert_eq!(with("correct horse").await.status, 200);

    auth.post("/recover", json!({ "email": "ann@example.com" })).await;
    let mail = auth.last_mail("ann@example.com").await;
    let body = json!({ "type": "recovery", "token_hash": mail.token_hash() });
    let recovered = auth.post("/verify", body).await.body;
    assert_eq!(set_password(&auth, &recovered, "password 3").await.status, 200);
}

#[tokio::test]
async fn metadata_is_merged() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let put = async |data: Value| auth.put_as(token(&session), "/user", json!({ "data": data })).await;
    put(json!({ "name": "Ann", "plan": "free" })).await;
    let changed = put(json!({ "plan": null, "tags": ["a"] })).await;
    let metadata = &changed.body["user_metadata"];
    assert_eq!(
        (&metadata["name"], &metadata["tags"], metadata.get("plan")),
        (&json!("Ann"), &json!(["a"]), None)
    );
    let refused = auth.put_as(token(&session), "/user", json!({ "app_metadata": { "role": "admin" } })).await;
    assert_eq!((refused.status, refused.code()), (403, "not_admin"));
    assert_eq!(put(json!({ "long": "x".repeat(5_000) })).await.status, 200);
    let larger = put(json!({ "more": "x".repeat(5_000) })).await;
    assert_eq!(larger.code(), "validation_failed", "the whole has a bound too");
    assert_eq!(auth.get_as(token(&session), "/user").await.status, 200, "large tokens are still accepted");
    let body = json!({ "refresh_token": session["refresh_token"] });
    let refreshed = auth.post("/token?grant_type=refresh_token", body).await;
    assert_eq!(
        auth.get_as(refreshed.text_at("/access_token"), "/user").await.status,
        200,
        "large tokens too"
    );
}

#[rstest]
#[case::old_first(["ann@example.com", "new@example.com"])]
#[case::new_first(["new@example.com", "ann@example.com"])]
#[tokio::test]
async fn both_addresses_confirm_a_change(#[case] order: [&str; 2]) {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let changed = auth.put_as(token(&session), "/user", json!({ "email": "New@example.com" })).await;
    assert_eq!(
        (&changed.body["email"], &changed.body["new_email"]),
        (&json!("ann@example.com"), &json!("new@example.com"))
    );
    let first = auth.get(auth.last_mail(order[0]).await.link()).await;
    let message = first.in_fragment("message").unwrap();
    assert_eq!(message, "Confirmation link accepted. Please proceed to confirm link sent to the other email");
    assert_eq!(auth.get_as(token(&session), "/user").await.body["email"], "ann@example.com");
    let again = auth.get(auth.last_mail(order[0]).await.link()).await;
    assert_eq!(
        again.in_fragment("error_code").as_deref(),
        Some("otp_expired"),
        "one address cannot confirm for both"
    );

    let second = auth.get(auth.last_mail(order[1]).await.link()).await;
    assert_eq!(second.in_fragment("type").as_deref(), Some("email_change"));
    let user = auth.get_as(&second.in_fragment("access_token").unwrap(), "/user").await.body;
    assert_eq!((&user["email"], user.get("new_email")), (&json!("new@example.com"), None));
    assert_eq!(user["identities"][0]["identity_data"]["email"], "new@example.com");
    assert_eq!(auth.sign_in("new@example.com", "correct horse").await.status, 200);
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 400);
}

#[tokio::test]
async fn codes_confirm_a_change_too() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    auth.put_as(token(&session), "/user", json!({ "email": "new@example.com" })).await;
    let verify = async |email: &str| {
        let mail = auth.last_mail(email).await;
        let body = json!({ "type": "email_change", "email": email, "token": mail.code() });
        auth.post("/verify", body).await
    };
    let first = verify("ann@example.com").await;
    assert_eq!((first.status, &first.body["code"]), (200, &json!("200")), "{}", first.text);
    let second = verify("new@example.com").await;
    assert_eq!(second.body["user"]["email"], "new@example.com", "{}", second.text);
}

#[tokio::test]
async fn the_new_address_alone_may_be_enough() {
    let auth = TestAuth::with(|options| options.email.secure_change = false).await;
    let session = auth.signed_up("ann@example.com").await;
    let before = auth.mails("ann@example.com").await;
    auth.put_as(token(&session), "/user", json!({ "email": "new@example.com" })).await;
    assert_eq!(auth.mails("ann@example.com").await, before);
    auth.post("/resend", json!({ "type": "email_change", "email": "ann@example.com" })).await;
    let answer = auth.get(auth.last_mail("new@example.com").await.link()).await;
    assert!(answer.in_fragment("access_token").is_some());
}

#[tokio::test]
async fn addresses_of_others_stay_theirs() {
    let auth = TestAuth::start().await;
    auth.signed_up("bob@example.com").await;
    let session = auth.signed_up("ann@example.com").await;
    let refused = auth.put_as(token(&session), "/user", json!({ "email": "bob@example.com" })).await;
    assert_eq!((refused.status, refused.code()), (422, "email_exists"));
    // Taken between request and confirmation.
    auth.put_as(token(&session), "/user", json!({ "email": "eve@example.com" })).await;
    let (old, new) = (auth.last_mail("ann@example.com").await, auth.last_mail("eve@example.com").await);
    auth.signed_up("eve@example.com").await;
    auth.get(old.link()).await;
    let late = auth.get(new.link()).await;
    assert_eq!(late.in_fragment("error_code").as_deref(), Some("email_exists"));
}

#[tokio::test]
async fn a_second_factor_guards_address_and_password() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let sql = "insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
        select gen_random_uuid(), id, 'totp', 'verified', now(), now() from auth.users";
    auth.sql.execute(sql, &[]).await.unwrap();
    for body in [json!({ "password": "new password" }), json!({ "email": "new@example.com" })] {
        let refused = auth.put_as(token(&session), "/user", body).await;
        assert_eq!((refused.status, refused.code()), (401, "insufficient_aal"));
    }
    assert_eq!(auth.put_as(token(&session), "/user", json!({ "data": { "a": 1 } })).await.status, 200);
    auth.sql.execute("update auth.sessions set aal = 'aal2'", &[]).await.unwrap();
    assert_eq!(set_password(&auth, &session, "new password").await.status, 200);
}

#[tokio::test]
async fn nobody_is_shown_or_changed_without_a_token() {
    let auth = TestAuth::start().await;
    let anon = auth.get("/user").await;
    assert_eq!((anon.status, anon.code()), (401, "no_authorization"));
    let wrong = auth.get_as("not.a.token", "/user").await;
    assert_eq!((wrong.status, wrong.code()), (403, "bad_jwt"));
    assert_eq!(auth.put_as("not.a.token", "/user", json!({})).await.status, 403);
}
