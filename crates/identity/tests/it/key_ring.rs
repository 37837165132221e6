//! Signing keys and API keys of the database, and a hosted project's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use longhouse_identity::service::{KeyStatus, Refusal, Rotated, SigningAlgorithm, SigningKey};
use longhouse_identity::{
    ApiKey, ApiKeyKind, AuthError, External, KeyRing, KeysError, ProjectKeys, Verifier, verify_headers,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use crate::harness::TestAuth;

const HOUR: Duration = Duration::from_secs(3600);

fn header_of(session: &Value) -> Header {
    jsonwebtoken::decode_header(session["access_token"].as_str().unwrap()).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

/// Makes a key and puts it to use at once.
async fn rotate(auth: &TestAuth, algorithm: SigningAlgorithm) -> SigningKey {
    let secret = &auth.keys.jwt_secret;
    let key = SigningKey::create(&auth.database, secret, algorithm).await.unwrap();
    let rotated = SigningKey::rotate(&auth.database, secret, algorithm, true).await.unwrap();
    assert_eq!(rotated, Rotated::InUse(key.id));
    auth.ring.refresh().await.unwrap();
    key
}

#[tokio::test]
async fn keys_rotate_without_logging_anyone_out() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    let (database, secret) = (&auth.database, &auth.keys.jwt_secret);
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let sign_up = async |email: &str| {
        auth.post("/signup", json!({ "email": email, "password": "correct horse" })).await.body
    };
    let verify = |session: &Value| verifier.verify(session["access_token"].as_str().unwrap());
    let by_secret = sign_up("a@example.com").await;
    assert_eq!((header_of(&by_secret).alg, header_of(&by_secret).kid), (Algorithm::HS256, None));
    assert_eq!(auth.get("/.well-known/jwks.json").await.body, json!({ "keys": [] }));

    // Standby: published, signs nothing, and not put to use before everybody may know it.
    let first = SigningKey::create(database, secret, SigningAlgorithm::Es256).await.unwrap();
    let second = SigningKey::create(database, secret, SigningAlgorithm::Rs256).await.unwrap_err();
    assert!(matches!(second, KeysError::Refused(Refusal::StandbyExists(id)) if id == first.id));
    auth.ring.refresh().await.unwrap();
    let published = auth.get("/.well-known/jwks.json").await;
    assert_eq!(published.header("cache-control"), "public, max-age=600");
    assert_eq!(published.text_at("/keys/0/kid"), first.id.to_string());
    assert_eq!((published.text_at("/keys/0/crv"), published.text_at("/keys/0/alg")), ("P-256", "ES256"));
    assert!(published.body["keys"][0].get("d").is_none());
    assert_eq!(header_of(&sign_up("b@example.com").await).alg, Algorithm::HS256);
    let early = SigningKey::rotate(database, secret, SigningAlgorithm::Es256, false).await.unwrap_err();
    assert!(matches!(early, KeysError::Refused(Refusal::NotPublishedLongEnough { .. })), "{early}");
    auth.sql
        .execute("update longhouse.signing_keys set changed_at = now() - interval '11 minutes'", &[])
        .await
        .unwrap();
    let rotated = SigningKey::rotate(database, secret, SigningAlgorithm::Es256, false).await.unwrap();
    assert_eq!(rotated, Rotated::InUse(first.id));
    auth.ring.refresh().await.unwrap();

    // Current: signs; what the secret signed stays good.
    let by_first = sign_up("c@example.com").await;
    assert_eq!(
        (header_of(&by_first).alg, header_of(&by_first).kid),
        (Algorithm::ES256, Some(first.id.to_string()))
    );
    assert!(verify(&by_first).is_ok() && verify(&by_secret).is_ok());
    let token = by_first["access_token"].as_str().unwrap();
    assert_eq!(auth.get_as(token, "/user").await.status, 200);

    // Previous: another signs; what the first signed stays good until it is revoked.
    let second = rotate(&auth, SigningAlgorithm::Rs256).await;
    let by_second = sign_up("d@example.com").await;
    assert_eq!(
        (header_of(&by_second).alg, header_of(&by_second).kid),
        (Algorithm::RS256, Some(second.id.to_string()))
    );
    assert!(verify(&by_second).is_ok() && verify(&by_first).is_ok() && verify(&by_secret).is_ok());
    assert_eq!(auth.get("/.well-known/jwks.json").await.body["keys"].as_array().unwrap().len(), 2);
    let current = SigningKey::revoke(database, second.id, HOUR, true).await.unwrap_err();
    assert!(matches!(current, KeysError::Refused(Refusal::Current(_))), "{current}");
    let early = SigningKey::revoke(database, first.id, HOUR, false).await.unwrap_err();
    assert!(matches!(early, KeysError::Refused(Refusal::TokensInUse { .. })), "{early}");

    SigningKey::revoke(database, first.id, HOUR, true).await.unwrap();
    auth.ring.refresh().await.unwrap();
    assert_eq!(verify(&by_first).unwrap_err(), AuthError::Signature, "remembered tokens end, too");
    assert!(verify(&by_second).is_ok() && verify(&by_secret).is_ok());
    // The session of a refused token lives: its holder gets a new one.
    let refreshed = auth
        .post("/token?grant_type=refresh_token", json!({ "refresh_token": by_first["refresh_token"] }))
        .await;
    assert!(verify(&refreshed.body).is_ok());
    let statuses: Vec<_> = SigningKey::list(database).await.unwrap().iter().map(|key| key.status).collect();
    assert_eq!(statuses, [KeyStatus::Current, KeyStatus::Revoked]);
}

#[tokio::test]
async fn a_rotation_without_a_waiting_key_publishes_one() {
    let auth = TestAuth::start().await;
    let secret = &auth.keys.jwt_secret;
    let Rotated::Published(key) =
        SigningKey::rotate(&auth.database, secret, SigningAlgorithm::Hs256, false).await.unwrap()
    else {
        panic!("nothing was there to put to use")
    };
    assert_eq!((key.status, key.algorithm), (KeyStatus::Standby, SigningAlgorithm::Hs256));
    auth.ring.refresh().await.unwrap();
    assert_eq!(
        auth.get("/.well-known/jwks.json").await.body,
        json!({ "keys": [] }),
        "a secret is not published"
    );
    SigningKey::rotate(&auth.database, secret, SigningAlgorithm::Hs256, true).await.unwrap();
    auth.ring.refresh().await.unwrap();
    let session = auth.signed_up("ann@example.com").await;
    assert_eq!(header_of(&session).kid, Some(key.id.to_string()));
    assert_eq!(auth.claims(&session)["email"], "ann@example.com");
    let missing = SigningKey::revoke(&auth.database, uuid::Uuid::nil(), HOUR, true).await.unwrap_err();
    assert!(matches!(missing, KeysError::NoSuchKey(_)), "{missing}");
}

#[tokio::test]
async fn private_keys_are_sealed_under_the_jwt_secret() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    let key = rotate(&auth, SigningAlgorithm::Es256).await;
    let session = auth.signed_up("ann@example.com").await;
    // After the secret changed the key signs no more, but its public part still verifies.
    let other = ProjectKeys::generate();
    let ring = KeyRing::new(&other).with_database(auth.database.clone());
    ring.refresh().await.unwrap();
    let verifier = Verifier::of(&other, &ring);
    assert!(verifier.verify(session["access_token"].as_str().unwrap()).is_ok());
    let sealed: Vec<u8> = auth
        .sql
        .query_one("select sealed_key from longhouse.signing_keys where id = $1", &[&key.id])
        .await
        .unwrap()
        .get(0);
    // PKCS #8 names the curve by this object id.
    assert!(!sealed.windows(8).any(|window| window == [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]));
}

#[tokio::test]
async fn tokens_cannot_choose_how_they_are_verified() {
    let auth = TestAuth::start().await;
    let key = rotate(&auth, SigningAlgorithm::Es256).await;
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let jwks = auth.get("/.well-known/jwks.json").await.body;
    let claims = json!({ "role": "service_role", "exp": chrono::Utc::now().timestamp() + 600 });
    let sign = |alg: Algorithm, kid: Option<String>, secret: &[u8]| {
        let header = Header { kid, ..Header::new(alg) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let kid = Some(key.id.to_string());
    let public = [
        jwks["keys"][0].to_string().into_bytes(),
        URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap(),
        Vec::new(),
    ];
    for secret in public {
        let token = sign(Algorithm::HS256, kid.clone(), &secret);
        assert_eq!(verifier.verify(&token).unwrap_err(), AuthError::Algorithm, "public keys are no secrets");
        let token = sign(Algorithm::HS256, None, &secret);
        assert_eq!(verifier.verify(&token).unwrap_err(), AuthError::Signature);
    }
    let secret = auth.keys.jwt_secret.expose_secret().as_bytes();
    let token = sign(Algorithm::HS256, kid, secret);
    assert_eq!(
        verifier.verify(&token).unwrap_err(),
        AuthError::Algorithm,
        "the named key is of another kind"
    );
    let token = sign(Algorithm::HS512, None, secret);
    assert_eq!(verifier.verify(&token).unwrap_err(), AuthError::Algorithm);
    let token = sign(Algorithm::HS256, Some("elsewhere".into()), secret);
    assert!(verifier.verify(&token).is_ok(), "the secret is the project's, whatever it is called");
    let mut empty = ProjectKeys::generate();
    for key in
        [&mut empty.jwt_secret, &mut empty.anon_key, &mut empty.service_role_key, &mut empty.secret_key]
    {
        *key = String::new().into();
    }
    let verifier = Verifier::new(&empty);
    assert!(verifier.verify(&sign(Algorithm::HS256, None, b"")).is_err(), "an empty secret signs nothing");
    assert!(verifier.verify("").is_err());
}

#[tokio::test]
async fn an_api_key_works_at_once_until_it_is_revoked() {
    let auth = TestAuth::start().await;
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let (kept, key) = ApiKey::create(&auth.database, ApiKeyKind::Secret, " nightly job ").await.unwrap();
    let key = key.expose_secret();
    assert!(key.starts_with(&kept.prefix) && kept.prefix.len() < 16);
    assert_eq!(kept.name, "nightly job");
    assert_eq!(verifier.verify(key).unwrap_err(), AuthError::UnknownKey, "not known to this process yet");
    verifier.refresh_for(&bearer(key)).await;
    assert_eq!(verifier.verify(key).unwrap().role(), "service_role");
    // As `Authorization` and as `apikey`, beside a user's token.
    let session = auth.signed_up("ann@example.com").await;
    let mut headers = bearer(session["access_token"].as_str().unwrap());
    headers.insert("apikey", HeaderValue::from_str(key).unwrap());
    assert_eq!(verify_headers(&verifier, &headers).unwrap().role(), "authenticated");
    let users = auth.get_as(key, "/admin/users").await;
    assert_eq!((users.status, users.header("x-total-count")), (200, "1"));

    let (_, public) = ApiKey::create(&auth.database, ApiKeyKind::Publishable, "page").await.unwrap();
    auth.ring.refresh().await.unwrap();
    assert_eq!(verifier.verify(public.expose_secret()).unwrap().role(), "anon");
    assert_eq!(auth.get_as(public.expose_secret(), "/admin/users").await.code(), "not_admin");
    assert_eq!(ApiKey::list(&auth.database).await.unwrap().len(), 2);
    let rows = auth.sql.query("select row_to_json(k)::text from longhouse.api_keys k", &[]).await.unwrap();
    assert!(rows.iter().all(|row| !row.get::<_, String>(0).contains(key)), "only hashes are kept");

    assert!(ApiKey::revoke(&auth.database, kept.id).await.unwrap());
    assert!(!ApiKey::revoke(&auth.database, kept.id).await.unwrap());
    auth.ring.refresh().await.unwrap();
    assert_eq!(verifier.verify(key).unwrap_err(), AuthError::UnknownKey);
    for name in ["", "  ", &"x".repeat(101)] {
        let error = ApiKey::create(&auth.database, ApiKeyKind::Secret, name).await.unwrap_err();
        assert!(matches!(error, KeysError::Name));
    }
}

#[tokio::test]
async fn a_ring_follows_its_tables_by_itself() {
    let auth = TestAuth::start().await;
    let (kept, key) = ApiKey::create(&auth.database, ApiKeyKind::Secret, "job").await.unwrap();
    let following = auth.ring.follow();
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let until = async |wanted: bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while verifier.verify(key.expose_secret()).is_ok() != wanted {
            assert!(Instant::now() < deadline, "the ring does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(true).await;
    ApiKey::revoke(&auth.database, kept.id).await.unwrap();
    until(false).await;
    following.abort();
}

#[tokio::test]
async fn a_crowd_with_invented_keys_delays_a_real_one_by_a_second_at_most() {
    let auth = TestAuth::start().await;
    let following = auth.ring.follow();
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let invented = |number: usize| bearer(&format!("sb_secret_{number:022}_AAAAAAAA"));
    verifier.refresh_for(&invented(0)).await;
    let started = Instant::now();
    let crowd: Vec<_> = (0..200)
        .map(|number| {
            let verifier = verifier.clone();
            let headers = invented(number);
            tokio::spawn(async move { verifier.refresh_for(&headers).await })
        })
        .collect();
    let (_, key) = ApiKey::create(&auth.database, ApiKeyKind::Secret, "job").await.unwrap();
    verifier.refresh_for(&bearer(key.expose_secret())).await;
    assert!(verifier.verify(key.expose_secret()).is_ok(), "known at its first use");
    for one in crowd {
        one.await.unwrap();
    }
    // Each asking for itself would take minutes.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    following.abort();
}

/// A hosted project's JWKS endpoint: serves a set, counts questions, fails on demand.
async fn hosted(document: Arc<std::sync::Mutex<Option<Value>>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let answer = get(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let document = document.lock().unwrap().clone();
        async move {
            match document {
                Some(document) => Ok(document.to_string()),
                None => Err(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/auth/v1/.well-known/jwks.json", answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, asked)
}

#[tokio::test]
async fn a_hosted_projects_keys_are_fetched_and_kept() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    let document = Arc::new(std::sync::Mutex::new(Some(json!({ "keys": [] }))));
    let (address, asked) = hosted(document.clone()).await;
    let external = External::of_project(&Url::parse(&format!("http://{address}/")).unwrap()).unwrap();
    let keys = ProjectKeys::generate();
    let ring = KeyRing::new(&keys).with_external(external);
    ring.refresh().await.unwrap();
    let verifier = Verifier::of(&keys, &ring);

    rotate(&auth, SigningAlgorithm::Es256).await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(verifier.verify(token).unwrap_err(), AuthError::Signature, "unknown key");
    *document.lock().unwrap() = Some(auth.get("/.well-known/jwks.json").await.body);
    verifier.refresh_for(&bearer(token)).await;
    assert!(verifier.verify(token).is_err(), "it was asked a moment ago: {asked:?}");
    ring.refresh().await.unwrap();
    assert_eq!(verifier.verify(token).unwrap().role(), "authenticated");

    *document.lock().unwrap() = None;
    let error = ring.refresh().await.unwrap_err();
    assert!(error.to_string().contains("500") && error.to_string().contains("supabase.url"), "{error}");
    assert!(verifier.verify(token).is_ok(), "keys are kept when they cannot be fetched");
    for broken in [json!([]), json!({ "keys": "x" }), json!({ "keys": [], "pad": "x".repeat(70_000) })] {
        *document.lock().unwrap() = Some(broken);
        assert!(ring.refresh().await.is_err());
        assert!(verifier.verify(token).is_ok());
    }
    // A key that the project took back is refused from then on.
    *document.lock().unwrap() = Some(json!({ "keys": [] }));
    ring.refresh().await.unwrap();
    assert_eq!(verifier.verify(token).unwrap_err(), AuthError::Signature);
}

#[tokio::test]
async fn the_discovery_document_names_the_keys() {
    let auth = TestAuth::start().await;
    let document = auth.get("/.well-known/openid-configuration").await;
    assert_eq!(document.text_at("/issuer"), auth.url(""));
    assert_eq!(document.text_at("/jwks_uri"), auth.url("/.well-known/jwks.json"));
}

#[tokio::test]
async fn a_verified_token_is_remembered() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    rotate(&auth, SigningAlgorithm::Es256).await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    let cold = Instant::now();
    for _ in 0..50 {
        Verifier::of(&auth.keys, &auth.ring).verify(token).unwrap();
    }
    let cold = cold.elapsed() / 50;
    verifier.verify(token).unwrap();
    let warm = Instant::now();
    for _ in 0..5000 {
        verifier.verify(token).unwrap();
    }
    let warm = warm.elapsed() / 5000;
    assert!(warm * 3 < cold, "cold {cold:?}, remembered {warm:?}");
}
