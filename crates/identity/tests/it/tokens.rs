//! Verification.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use longhouse_identity::{AuthError, Authenticated, ProjectKeys, Verifier};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(keys: &ProjectKeys, claims: Value) -> String {
    let claims: Map<String, Value> = serde_json::from_value(claims).unwrap();
    keys.sign(&claims).expose_secret().to_owned()
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[test]
fn a_users_token_becomes_their_claims() {
    let keys = ProjectKeys::generate();
    let token = sign(
        &keys,
        json!({ "role": "authenticated", "aud": "authenticated", "sub": "u1", "exp": now() + 60, "tenant": 7 }),
    );
    let claims = Verifier::new(&keys).verify(&token).unwrap();
    assert_eq!(claims.role(), "authenticated");
    let json: Value = serde_json::from_str(claims.json()).unwrap();
    assert_eq!((&json["sub"], &json["tenant"]), (&json!("u1"), &json!(7)));
}

#[test]
fn project_keys_stand_for_their_roles() {
    let keys = ProjectKeys::generate();
    let verifier = Verifier::new(&keys);
    for (key, role) in [
        (&keys.anon_key, "anon"),
        (&keys.publishable_key, "anon"),
        (&keys.service_role_key, "service_role"),
        (&keys.secret_key, "service_role"),
    ] {
        let claims = verifier.verify(key.expose_secret()).unwrap();
        assert_eq!(claims.role(), role);
    }
    let anon: Value =
        serde_json::from_str(verifier.verify(keys.anon_key.expose_secret()).unwrap().json()).unwrap();
    assert_eq!(anon["iss"], "longhouse");
    assert!(anon["exp"].as_u64().unwrap() > now() + 9 * 365 * 24 * 3600);
}

#[rstest]
#[case::expired(json!({ "role": "authenticated", "exp": now() - 60 }), AuthError::Expired)]
#[case::no_expiry(json!({ "role": "authenticated" }), AuthError::NoExpiry)]
#[case::not_yet(json!({ "role": "authenticated", "exp": now() + 900, "nbf": now() + 600 }), AuthError::NotYetValid)]
#[case::audience(json!({ "role": "authenticated", "exp": now() + 60, "aud": "other" }), AuthError::Audience)]
#[case::audiences(json!({ "role": "authenticated", "exp": now() + 60, "aud": ["x", "y"] }), AuthError::Audience)]
#[case::no_role(json!({ "exp": now() + 60 }), AuthError::Role)]
#[case::superuser(json!({ "role": "postgres", "exp": now() + 60 }), AuthError::Role)]
#[case::role_not_text(json!({ "role": ["anon"], "exp": now() + 60 }), AuthError::Role)]
fn claims_are_checked(#[case] claims: Value, #[case] expected: AuthError) {
    let keys = ProjectKeys::generate();
    assert_eq!(Verifier::new(&keys).verify(&sign(&keys, claims)).unwrap_err(), expected);
}

#[test]
fn custom_roles_only_when_configured() {
    let keys = ProjectKeys::generate();
    let token = sign(&keys, json!({ "role": "receptionist_agent", "exp": now() + 60 }));
    assert_eq!(Verifier::new(&keys).verify(&token).unwrap_err(), AuthError::Role);
    let verifier = Verifier::new(&keys).with_roles(["receptionist_agent".to_owned()]);
    assert_eq!(verifier.verify(&token).unwrap().role(), "receptionist_agent");
}

#[test]
fn forged_tokens_are_refused() {
    let keys = ProjectKeys::generate();
    let verifier = Verifier::new(&keys);
    let body = json!({ "role": "service_role", "exp": now() + 600 });
    let good = sign(&keys, body.clone());

    let other_secret = sign(&ProjectKeys::generate(), body.clone());
    assert_eq!(verifier.verify(&other_secret).unwrap_err(), AuthError::Signature);

    for algorithm in ["none", "None", "NONE", ""] {
        for signature in ["", good.rsplit('.').next().unwrap()] {
            let token =
                format!("{}.{}.{signature}", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(&body));
            assert_eq!(verifier.verify(&token).unwrap_err(), AuthError::Algorithm, "alg {algorithm:?}");
        }
    }
    // The HMAC is right, but the header claims another algorithm: key confusion.
    for algorithm in ["RS256", "ES256", "HS512", "EdDSA"] {
        let signed = format!("{}.{}", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(&body));
        let key = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            keys.jwt_secret.expose_secret().as_bytes(),
        );
        let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        let token = format!("{signed}.{tag}");
        assert_eq!(verifier.verify(&token).unwrap_err(), AuthError::Algorithm, "{algorithm}");
    }
    let mut altered: Vec<&str> = good.split('.').collect();
    let claims = part(&json!({ "role": "service_role", "exp": now() + 6000 }));
    altered[1] = &claims;
    assert_eq!(verifier.verify(&altered.join(".")).unwrap_err(), AuthError::Signature);
}

#[rstest]
#[case("", AuthError::Malformed)]
#[case("a.b.c", AuthError::Malformed)]
#[case("not a token", AuthError::Malformed)]
#[case("sb_secret_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA", AuthError::UnknownKey)]
#[case(&"x".repeat(9000), AuthError::Malformed)]
fn nonsense_is_refused(#[case] token: &str, #[case] expected: AuthError) {
    assert_eq!(Verifier::new(&ProjectKeys::generate()).verify(token).unwrap_err(), expected);
}

/// Asks a route that says who the caller is, with these headers.
async fn ask(keys: &ProjectKeys, headers: &[(&str, &str)]) -> (u16, Value) {
    let router: Router = Router::new()
        .route("/", get(|Authenticated(claims): Authenticated| async move { format!("{:?}", claims.role()) }))
        .with_state(Verifier::new(keys));
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    if status == 401 {
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn requests_act_as_the_bearer_else_as_the_key() {
    let keys = ProjectKeys::generate();
    let anon = keys.anon_key.expose_secret();
    let user = format!("Bearer {}", sign(&keys, json!({ "role": "authenticated", "exp": now() + 60 })));
    assert_eq!(ask(&keys, &[("apikey", anon)]).await, (200, json!("anon")));
    assert_eq!(
        ask(&keys, &[("apikey", anon), ("authorization", &user)]).await,
        (200, json!("authenticated"))
    );
    assert_eq!(ask(&keys, &[("authorization", &user)]).await, (200, json!("authenticated")));
    let publishable = keys.publishable_key.expose_secret();
    let bearer = format!("bearer {publishable}");
    assert_eq!(
        ask(&keys, &[("apikey", publishable), ("authorization", &bearer)]).await,
        (200, json!("anon"))
    );
}

#[tokio::test]
async fn refusals_are_json_that_says_what_to_do() {
    let keys = ProjectKeys::generate();
    let user = format!("Bearer {}", sign(&keys, json!({ "role": "authenticated", "exp": now() + 60 })));
    for (headers, code) in [
        (vec![], "missing_api_key"),
        (vec![("apikey", "sb_publishable_x")], "invalid_api_key"),
        (vec![("apikey", "sb_publishable_x"), ("authorization", user.as_str())], "invalid_api_key"),
        (vec![("authorization", "Basic dTpw")], "malformed_token"),
        (vec![("authorization", user.as_str()), ("authorization", user.as_str())], "malformed_token"),
    ] {
        let (status, body) = ask(&keys, &headers).await;
        assert_eq!((status, body["code"].as_str()), (401, Some(code)), "{body}");
        assert!(body["hint"].is_string());
    }
}
