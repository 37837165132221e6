//! Second factors.

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::harness::{Answer, TestAuth};

/// The code of an authenticator app, `steps` half minutes from now (RFC 6238).
fn code(secret: &str, steps: u64) -> String {
    let mut bits = 0u64;
    let (mut length, mut key) = (0, Vec::new());
    for letter in secret.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|&c| c == letter).unwrap();
        bits = bits << 5 | value as u64;
        length += 5;
        if length >= 8 {
            length -= 8;
            key.push((bits >> length) as u8);
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = hmac::sign(&key, &(now / 30 + steps).to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 15);
    let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

fn token(session: &Value) -> &str {
    session["access_token"].as_str().unwrap()
}

async fn challenge(auth: &TestAuth, session: &Value, factor: &str) -> Value {
    let answer = auth.post_as(token(session), &format!("/factors/{factor}/challenge"), json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

async fn verify(auth: &TestAuth, session: &Value, factor: &str, challenge: &Value, code: &str) -> Answer {
    let body = json!({ "challenge_id": challenge["id"], "code": code });
    auth.post_as(token(session), &format!("/factors/{factor}/verify"), body).await
}

/// An account with a verified authenticator app: its session at aal2, the factor's id and secret.
async fn with_app(auth: &TestAuth, email: &str) -> (Value, String, String) {
    let session = auth.signed_up(email).await;
    let enrolled = auth.post_as(token(&session), "/factors", json!({ "factor_type": "totp" })).await;
    assert_eq!(enrolled.status, 200, "{}", enrolled.text);
    let (id, secret) = (enrolled.text_at("/id").to_owned(), enrolled.text_at("/totp/secret").to_owned());
    let asked = challenge(auth, &session, &id).await;
    let verified = verify(auth, &session, &id, &asked, &code(&secret, 0)).await;
    assert_eq!(verified.status, 200, "{}", verified.text);
    (verified.body, id, secret)
}

#[tokio::test]
async fn an_app_raises_a_session_and_ends_the_others() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let other = auth.sign_in("ann@example.com", "correct horse").await.body;
    assert_eq!(auth.claims(&first)["aal"], "aal1");

    let enrolled = auth
        .post_as(token(&first), "/factors", json!({ "factor_type": "totp", "friendly_name": "phone" }))
        .await;
    let id = enrolled.text_at("/id");
    assert_eq!((enrolled.text_at("/type"), enrolled.text_at("/friendly_name")), ("totp", "phone"));
    assert!(enrolled.text_at("/totp/qr_code").contains("<svg"));
    assert!(enrolled.text_at("/totp/uri").starts_with("otpauth://totp/"));
    let secret = enrolled.text_at("/totp/secret");

    let asked = challenge(&auth, &first, id).await;
    assert!(asked["expires_at"].as_i64().unwrap() > chrono::Utc::now().timestamp());
    let wrong = verify(&auth, &first, id, &asked, "000000").await;
    assert_eq!((wrong.status, wrong.code()), (422, "mfa_verification_failed"));
    let right = verify(&auth, &first, id, &asked, &code(secret, 0)).await;
    assert_eq!(right.status, 200, "{}", right.text);
    assert_eq!(right.text_at("/user/factors/0/status"), "verified");
    let claims = auth.claims(&right.body);
    assert_eq!(claims["aal"], "aal2");
    let methods: Vec<_> = claims["amr"].as_array().unwrap().iter().map(|amr| &amr["method"]).collect();
    assert_eq!(methods[0], "totp");
    assert_eq!(methods.len(), 2);

    let ended = auth.get_as(token(&other), "/user").await;
    assert_eq!((ended.status, ended.code()), (403, "session_not_found"), "aal1 sessions end");
    let refreshed = auth
        .post("/token?grant_type=refresh_token", json!({ "refresh_token": right.body["refresh_token"] }))
        .await;
    assert_eq!(auth.claims(&refreshed.body)["aal"], "aal2", "the level outlives a refresh");

    let gone = auth.delete_as(token(&refreshed.body), &format!("/factors/{id}")).await;
    assert_eq!((gone.status, &gone.body["id"]), (200, &json!(id)));
    let refreshed = auth
        .post("/token?grant_type=refresh_token", json!({ "refresh_token": refreshed.body["refresh_token"] }))
        .await;
    let claims = auth.claims(&refreshed.body);
    assert_eq!(claims["aal"], "aal1", "without the factor, nothing proves more");
    assert_eq!(claims["amr"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_code_is_good_once_also_for_two_at_once() {
    let auth = TestAuth::start().await;
    let (session, id, secret) = with_app(&auth, "ann@example.com").await;
    let asked = challenge(&auth, &session, &id).await;
    let again = verify(&auth, &session, &id, &asked, &code(&secret, 0)).await;
    assert_eq!((again.status, again.code()), (422, "mfa_verification_failed"), "used to enrol");

    let next = code(&secret, 1);
    let (one, two) = (challenge(&auth, &session, &id).await, challenge(&auth, &session, &id).await);
    let (one, two) =
        tokio::join!(verify(&auth, &session, &id, &one, &next), verify(&auth, &session, &id, &two, &next));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422]);
}

#[tokio::test]
async fn whoever_has_a_factor_must_prove_it_to_change_factors() {
    let auth = TestAuth::start().await;
    let (_, id, _) = with_app(&auth, "ann@example.com").await;
    let session = auth.sign_in("ann@example.com", "correct horse").await.body;
    let body = json!({ "factor_type": "totp", "friendly_name": "mine too" });
    let another = auth.post_as(token(&session), "/factors", body).await;
    assert_eq!((another.status, another.code()), (403, "insufficient_aal"));
    let removed = auth.delete_as(token(&session), &format!("/factors/{id}")).await;
    assert_eq!((removed.status, removed.code()), (422, "insufficient_aal"));
    let codes = auth.post_as(token(&session), "/factors/recovery_codes", json!({})).await;
    assert_eq!((codes.status, codes.code()), (403, "insufficient_aal"));
}

#[tokio::test]
async fn factors_of_others_and_odd_requests_are_refused() {
    let auth = TestAuth::with(|options| {
        options.anonymous = true;
        options.mfa.max_factors = 2;
    })
    .await;
    let (_, foreign, _) = with_app(&auth, "ann@example.com").await;
    let session = auth.signed_up("bob@example.com").await;
    let bob = token(&session);
    let path = format!("/factors/{foreign}/challenge");
    let answer = auth.post_as(bob, &path, json!({})).await;
    assert_eq!((answer.status, answer.code()), (404, "mfa_factor_not_found"));
    let answer = auth.post_as(bob, "/factors/x/challenge", json!({})).await;
    assert_eq!((answer.status, answer.code()), (404, "validation_failed"));
    for (body, status, code) in [
        (json!({ "factor_type": "smoke" }), 400, "validation_failed"),
        (json!({ "factor_type": "phone", "phone": "+15550100" }), 422, "mfa_phone_enroll_not_enabled"),
        (json!({ "factor_type": "totp", "issuer": "a:b" }), 400, "validation_failed"),
        (json!({ "factor_type": "totp", "friendly_name": "x".repeat(201) }), 400, "validation_failed"),
    ] {
        let answer = auth.post_as(bob, "/factors", body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    }
    for name in ["a", "b"] {
        let body = json!({ "factor_type": "totp", "friendly_name": name });
        assert_eq!(auth.post_as(bob, "/factors", body).await.status, 200);
    }
    for (name, code) in [("a", "mfa_factor_name_conflict"), ("c", "too_many_enrolled_mfa_factors")] {
        let answer =
            auth.post_as(bob, "/factors", json!({ "factor_type": "totp", "friendly_name": name })).await;
        assert_eq!((answer.status, answer.code()), (422, code));
    }
    let visitor = auth.post("/signup", json!({})).await.body;
    let answer = auth.post_as(token(&visitor), "/factors", json!({ "factor_type": "totp" })).await;
    assert_eq!((answer.status, answer.code()), (403, "no_authorization"));
    assert_eq!(auth.post("/factors", json!({ "factor_type": "totp" })).await.status, 401);
}

#[tokio::test]
async fn a_challenge_is_for_one_address_and_for_some_minutes() {
    let auth = TestAuth::start().await;
    let (session, id, secret) = with_app(&auth, "ann@example.com").await;
    let asked = challenge(&auth, &session, &id).await;
    let body = json!({ "challenge_id": asked["id"], "code": code(&secret, 1) });
    let path = format!("/factors/{id}/verify");
    let elsewhere = [("x-forwarded-for", "203.0.113.9")];
    let answer = auth.send(Method::POST, &path, Some(token(&session)), &elsewhere, Some(body.clone())).await;
    assert_eq!((answer.status, answer.code()), (422, "mfa_ip_address_mismatch"), "{}", answer.text);
    auth.sql
        .execute("update auth.mfa_challenges set created_at = created_at - interval '6 minutes'", &[])
        .await
        .unwrap();
    let answer = auth.post_as(token(&session), &path, body).await;
    assert_eq!((answer.status, answer.code()), (422, "mfa_challenge_expired"));
    let unknown = json!({ "challenge_id": uuid::Uuid::nil(), "code": "123456" });
    assert_eq!(auth.post_as(token(&session), &path, unknown).await.code(), "mfa_factor_not_found");
}

#[tokio::test]
async fn guessing_is_limited_per_address_and_per_factor() {
    let auth = TestAuth::with(|options| {
        options.limits.mfa = 6;
        options.limits.failures_per_account = 3;
    })
    .await;
    let (session, id, _) = with_app(&auth, "ann@example.com").await;
    let asked = challenge(&auth, &session, &id).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        let answer = verify(&auth, &session, &id, &asked, "000000").await;
        codes.push((answer.status, answer.code().to_owned()));
    }
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(
        codes,
        [
            refused(422, "mfa_verification_failed"),
            refused(422, "mfa_verification_failed"),
            refused(422, "mfa_verification_failed"),
            refused(429, "over_request_rate_limit"),
        ]
    );
}

#[tokio::test]
async fn recovery_codes_stand_in_once_each() {
    let auth = TestAuth::start().await;
    let (session, id, _) = with_app(&auth, "ann@example.com").await;
    let made = auth.post_as(token(&session), "/factors/recovery_codes", json!({})).await;
    let codes: Vec<String> = serde_json::from_value(made.body["recovery_codes"].clone()).unwrap();
    assert_eq!(codes.len(), 10);
    let stored: i64 = auth
        .sql
        .query_one(
            "select count(*) from longhouse.mfa_recovery_codes where encode(hash, 'escape') like '%' || $1 || '%'",
            &[&codes[0]],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, 0, "only hashes are kept");

    let fresh = auth.sign_in("ann@example.com", "correct horse").await.body;
    let body = json!({ "code": codes[0].to_lowercase().replace('-', " ") });
    let path = "/factors/recovery_codes/verify";
    let (one, two) = tokio::join!(
        auth.post_as(token(&fresh), path, body.clone()),
        auth.post_as(token(&fresh), path, body.clone())
    );
    let (right, wrong) = if one.status == 200 { (one, two) } else { (two, one) };
    assert_eq!((right.status, wrong.status), (200, 422), "{} {}", right.text, wrong.text);
    assert_eq!(wrong.code(), "mfa_verification_failed");
    let claims = auth.claims(&right.body);
    assert_eq!((&claims["aal"], &claims["amr"][0]["method"]), (&json!("aal2"), &json!("mfa/recovery_code")));
    let left = auth.get_as(token(&right.body), "/factors/recovery_codes").await;
    assert_eq!(left.body["remaining"], 9);

    // The lost phone can be replaced now; with the last factor the codes go, and the raised session falls.
    assert_eq!(auth.delete_as(token(&right.body), &format!("/factors/{id}")).await.status, 200);
    let left = auth.get_as(token(&right.body), "/factors/recovery_codes").await;
    assert_eq!(left.body["remaining"], 0);
    let refreshed = auth
        .post("/token?grant_type=refresh_token", json!({ "refresh_token": right.body["refresh_token"] }))
        .await;
    assert_eq!(auth.claims(&refreshed.body)["aal"], "aal1");
    let none = auth.post_as(token(&refreshed.body), "/factors/recovery_codes", json!({})).await;
    assert_eq!((none.status, none.code()), (422, "mfa_factor_not_found"));
}

#[tokio::test]
async fn a_number_is_proved_by_the_code_sent_to_it() {
    let auth = TestAuth::with(|options| {
        options.mfa.phone = true;
        options.phone.test_otps.insert("+1 555 0100".into(), "424242".into());
    })
    .await;
    let session = auth.signed_up("ann@example.com").await;
    let body = json!({ "factor_type": "phone", "phone": "+15550100" });
    let enrolled = auth.post_as(token(&session), "/factors", body.clone()).await;
    assert_eq!(enrolled.text_at("/phone"), "+15550100");
    let again = auth.post_as(token(&session), "/factors", body.clone()).await;
    assert_eq!(again.status, 200, "an unfinished enrolment gives way: {}", again.text);
    let id = again.text_at("/id");
    let asked = challenge(&auth, &session, id).await;
    let kept: String =
        auth.sql.query_one("select otp_code from auth.mfa_challenges", &[]).await.unwrap().get(0);
    assert!(!kept.contains("424242"));
    assert_eq!(verify(&auth, &session, id, &asked, "424243").await.code(), "mfa_verification_failed");
    let raised = verify(&auth, &session, id, &asked, "424242").await;
    assert_eq!(auth.claims(&raised.body)["amr"][0]["method"], "mfa/phone");
    let replayed = verify(&auth, &raised.body, id, &asked, "424242").await;
    assert_eq!((replayed.status, replayed.code()), (422, "mfa_ip_address_mismatch"), "answered before");
    let taken = auth.post_as(token(&raised.body), "/factors", body).await;
    assert_eq!(taken.code(), "mfa_verified_factor_exists");
}

#[tokio::test]
async fn a_security_key_is_a_second_factor() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let body = json!({ "factor_type": "webauthn", "friendly_name": "key" });
    let enrolled = auth.post_as(token(&session), "/factors", body).await;
    let id = enrolled.text_at("/id").to_owned();
    let path = format!("/factors/{id}/verify");
    let asked = challenge(&auth, &session, &id).await;
    assert_eq!(asked["webauthn"]["type"], "create");
    let options = &asked["webauthn"]["credential_options"]["publicKey"];
    assert_eq!(
        (&options["rp"]["id"], &options["user"]["name"]),
        (&json!("localhost"), &json!("ann@example.com"))
    );

    let answer_with = |asked: &Value, kind: &str, credential: Value| json!({ "challenge_id": asked["id"], "webauthn": { "type": kind, "credential_response": credential } });
    let mut key = Authenticator::new();
    key.origin = "http://evil.example".into();
    let phished =
        auth.post_as(token(&session), &path, answer_with(&asked, "create", key.create(options))).await;
    assert_eq!((phished.status, phished.code()), (422, "mfa_verification_failed"));
    key.origin = "http://localhost:3000".into();
    let body = answer_with(&asked, "create", key.create(options));
    let raised = auth.post_as(token(&session), &path, body.clone()).await;
    assert_eq!(raised.status, 200, "{}", raised.text);
    assert_eq!(auth.claims(&raised.body)["amr"][0]["method"], "mfa/webauthn");
    let replayed = auth.post_as(token(&raised.body), &path, body).await;
    assert_eq!(replayed.code(), "mfa_factor_not_found", "a question is answered once");

    let fresh = auth.sign_in("ann@example.com", "correct horse").await.body;
    let asked = challenge(&auth, &fresh, &id).await;
    assert_eq!(asked["webauthn"]["type"], "request");
    let options = &asked["webauthn"]["credential_options"]["publicKey"];
    assert_eq!(options["allowCredentials"].as_array().unwrap().len(), 1);
    let mut stranger = Authenticator::new();
    let foreign =
        auth.post_as(token(&fresh), &path, answer_with(&asked, "request", stranger.get(options))).await;
    assert_eq!(foreign.code(), "mfa_verification_failed");
    let body = answer_with(&asked, "request", key.get(options));
    let raised = auth.post_as(token(&fresh), &path, body).await;
    assert_eq!((raised.status, &auth.claims(&raised.body)["aal"]), (200, &json!("aal2")));

    let fresh = auth.sign_in("ann@example.com", "correct horse").await.body;
    let asked = challenge(&auth, &fresh, &id).await;
    key.counter = 0;
    let options = &asked["webauthn"]["credential_options"]["publicKey"];
    let copied = auth.post_as(token(&fresh), &path, answer_with(&asked, "request", key.get(options))).await;
    assert_eq!(copied.code(), "mfa_verification_failed", "a counter that stands still is a copy's");
}
