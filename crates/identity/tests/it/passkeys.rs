//! Passkeys.

use reqwest::Method;
use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::harness::{Answer, TestAuth};

fn token(session: &Value) -> &str {
    session["access_token"].as_str().unwrap()
}

async fn register(auth: &TestAuth, session: &Value, key: &mut Authenticator) -> Answer {
    let options = auth.post_as(token(session), "/passkeys/registration/options", json!({})).await;
    assert_eq!(options.status, 200, "{}", options.text);
    let body = json!({
        "challenge_id": options.body["challenge_id"], "credential": key.create(&options.body["options"]),
    });
    auth.post_as(token(session), "/passkeys/registration/verify", body).await
}

async fn assertion(auth: &TestAuth, key: &mut Authenticator) -> Value {
    let options = auth.post("/passkeys/authentication/options", json!({})).await;
    assert_eq!(options.status, 200, "{}", options.text);
    json!({ "challenge_id": options.body["challenge_id"], "credential": key.get(&options.body["options"]) })
}

#[tokio::test]
async fn a_passkey_signs_in_without_a_password() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let mut key = Authenticator::new();
    let made = register(&auth, &session, &mut key).await;
    assert_eq!((made.status, made.text_at("/friendly_name")), (200, "iCloud Keychain"), "{}", made.text);
    let id = made.text_at("/id");

    let body = assertion(&auth, &mut key).await;
    let signed_in = auth.post("/passkeys/authentication/verify", body.clone()).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text);
    assert_eq!(signed_in.text_at("/user/email"), "ann@example.com");
    let claims = auth.claims(&signed_in.body);
    assert_eq!((&claims["aal"], &claims["amr"][0]["method"]), (&json!("aal1"), &json!("passkey")));
    let replayed = auth.post("/passkeys/authentication/verify", body).await;
    assert_eq!((replayed.status, replayed.code()), (400, "webauthn_challenge_not_found"));

    let path = format!("/passkeys/{id}");
    let renamed = auth
        .send(Method::PATCH, &path, Some(token(&session)), &[], Some(json!({ "friendly_name": "laptop" })))
        .await;
    assert_eq!((renamed.status, renamed.text_at("/friendly_name")), (200, "laptop"));
    let listed = auth.get_as(token(&session), "/passkeys").await;
    assert_eq!(listed.body[0]["friendly_name"], "laptop");
    assert!(listed.body[0]["last_used_at"].is_string() && listed.body[0].get("public_key").is_none());

    let bob = auth.signed_up("bob@example.com").await;
    assert_eq!(
        auth.delete_as(token(&bob), &path).await.status,
        404,
        "others' passkeys are nobody's business"
    );
    assert_eq!(auth.delete_as(token(&session), &path).await.status, 204);
    let body = assertion(&auth, &mut key).await;
    let gone = auth.post("/passkeys/authentication/verify", body).await;
    assert_eq!((gone.status, gone.code()), (400, "webauthn_verification_failed"));
}

#[tokio::test]
async fn forged_and_foreign_answers_are_refused() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let mut key = Authenticator::new();
    assert_eq!(register(&auth, &session, &mut key).await.status, 200);
    let bob = auth.signed_up("bob@example.com").await;
    let twice = register(&auth, &bob, &mut key).await;
    assert_eq!((twice.status, twice.code()), (422, "webauthn_credential_exists"));

    // The key now says that it is Bob's: it must not sign in as Ann, and cannot as Bob.
    let body = assertion(&auth, &mut key).await;
    let confused = auth.post("/passkeys/authentication/verify", body).await;
    assert_eq!((confused.status, confused.code()), (400, "webauthn_verification_failed"));

    let mut ann = Authenticator::new();
    assert_eq!(register(&auth, &session, &mut ann).await.status, 200);
    ann.origin = "http://localhost:3000.evil.example".into();
    let body = assertion(&auth, &mut ann).await;
    assert_eq!(auth.post("/passkeys/authentication/verify", body).await.status, 400);
    ann.origin = "http://localhost:3000".into();
    let mut body = assertion(&auth, &mut ann).await;
    body["credential"]["response"]["signature"] = json!("MEUCIQ");
    assert_eq!(auth.post("/passkeys/authentication/verify", body).await.status, 400);
    for body in [
        json!({}),
        json!({ "challenge_id": "x", "credential": {} }),
        json!({ "challenge_id": uuid::Uuid::nil(), "credential": {} }),
        json!({ "challenge_id": uuid::Uuid::nil() }),
    ] {
        assert_eq!(auth.post("/passkeys/authentication/verify", body).await.status, 400);
    }
    // Another person cannot finish a registration that is under way.
    let options = auth.post_as(token(&session), "/passkeys/registration/options", json!({})).await;
    let mut new = Authenticator::new();
    let body = json!({
        "challenge_id": options.body["challenge_id"], "credential": new.create(&options.body["options"]),
    });
    let stolen = auth.post_as(token(&bob), "/passkeys/registration/verify", body).await;
    assert_eq!((stolen.status, stolen.code()), (400, "webauthn_challenge_not_found"));
}

#[tokio::test]
async fn bans_expiry_and_the_switch_apply() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let mut key = Authenticator::new();
    assert_eq!(register(&auth, &session, &mut key).await.status, 200);
    let body = assertion(&auth, &mut key).await;
    auth.sql
        .execute("update auth.webauthn_challenges set expires_at = now() - interval '1 s'", &[])
        .await
        .unwrap();
    let late = auth.post("/passkeys/authentication/verify", body).await;
    assert_eq!((late.status, late.code()), (400, "webauthn_challenge_expired"));
    auth.sql.execute("update auth.users set banned_until = now() + interval '1 day'", &[]).await.unwrap();
    let body = assertion(&auth, &mut key).await;
    let banned = auth.post("/passkeys/authentication/verify", body).await;
    assert_eq!((banned.status, banned.code()), (403, "user_banned"));

    let off = TestAuth::with(|options| options.mfa.passkeys = false).await;
    let answer = off.post("/passkeys/authentication/options", json!({})).await;
    assert_eq!((answer.status, answer.code()), (404, "passkey_disabled"));
}
