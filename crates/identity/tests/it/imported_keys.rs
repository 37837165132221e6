//! Signing keys from files, and the tokens that a project's servers sign with them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use longhouse_identity::service::{KeyStatus, SigningAlgorithm, SigningKey};
use longhouse_identity::{AuthError, KeysError, Verifier};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::harness::TestAuth;

/// Made for this test alone, in the shape of `supabase gen signing-key`: RS256, then ES256.
const FILE: &str = include_str!("fixtures/signing_keys.json");

fn ids() -> Vec<String> {
    let keys: Value = serde_json::from_str(FILE).unwrap();
    keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_first_key_of_a_file_signs_and_the_others_verify() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    let secret = &auth.keys.jwt_secret;
    SigningKey::create(&auth.database, secret, SigningAlgorithm::Es256).await.unwrap();
    SigningKey::rotate(&auth.database, secret, SigningAlgorithm::Es256, true).await.unwrap();
    auth.ring.refresh().await.unwrap();
    let before = auth.signed_up("ann@example.com").await;

    for round in 0..2 {
        let imported = SigningKey::import(&auth.database, secret, FILE).await.unwrap();
        let statuses: Vec<_> = imported.iter().map(|key| (key.id.to_string(), key.status)).collect();
        let [rsa, curve] = <[String; 2]>::try_from(ids()).unwrap();
        let expected = [(rsa, KeyStatus::Current), (curve, KeyStatus::Previous)];
        assert_eq!(statuses, expected, "round {round}: a second time changes nothing");
    }
    auth.ring.refresh().await.unwrap();
    let session = auth.signed_up("bob@example.com").await;
    let header = jsonwebtoken::decode_header(session["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((header.alg, header.kid), (Algorithm::RS256, Some(ids()[0].clone())));
    for session in [&before, &session] {
        assert_eq!(auth.get_as(session["access_token"].as_str().unwrap(), "/user").await.status, 200);
    }
    let published = auth.get("/.well-known/jwks.json").await;
    assert_eq!(published.body["keys"].as_array().unwrap().len(), 3);
    let keys: Value = serde_json::from_str(FILE).unwrap();
    for (key, private) in [(0, "d"), (0, "p"), (0, "q"), (1, "d")] {
        assert!(!published.text.contains(keys[key][private].as_str().unwrap()));
    }
}

#[tokio::test]
async fn public_keys_keep_tokens_good_without_signing() {
    let auth = TestAuth::start().await;
    let mut key = serde_json::from_str::<Value>(FILE).unwrap()[1].clone();
    key.as_object_mut().unwrap().remove("d");
    let set = json!({ "keys": [key] }).to_string();
    let imported = SigningKey::import(&auth.database, &auth.keys.jwt_secret, &set).await.unwrap();
    assert_eq!(imported[0].status, KeyStatus::Previous);
    auth.ring.refresh().await.unwrap();
    let session = auth.signed_up("ann@example.com").await;
    let header = jsonwebtoken::decode_header(session["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((header.alg, header.kid), (Algorithm::HS256, None));
    assert_eq!(auth.get("/.well-known/jwks.json").await.text_at("/keys/0/kid"), ids()[1]);
}

#[tokio::test]
async fn a_file_is_taken_over_whole_or_not_at_all() {
    let auth = TestAuth::start().await;
    let mut keys: Value = serde_json::from_str(FILE).unwrap();
    keys[1]["d"] = keys[1]["x"].clone();
    let refused = SigningKey::import(&auth.database, &auth.keys.jwt_secret, &keys.to_string()).await;
    assert!(matches!(refused, Err(KeysError::Import { key: 2, .. })), "{refused:?}");
    assert_eq!(SigningKey::list(&auth.database).await.unwrap(), []);
}

#[rstest]
#[case::of_a_server("service_role", None, 200)]
#[case::of_a_supabase_server("supabase_admin", None, 200)]
#[case::of_a_supabase_server_for_a_while("supabase_admin", Some(60), 200)]
#[case::expired("service_role", Some(-60), 403)]
#[case::of_a_person("authenticated", None, 403)]
#[case::of_nobody("anon", None, 403)]
#[case::of_the_superuser("postgres", None, 403)]
#[tokio::test]
async fn tokens_without_an_end_administer_and_do_nothing_else(
    #[case] role: &str,
    #[case] life: Option<i64>,
    #[case] status: u16,
) {
    let auth = TestAuth::start().await;
    let mut claims = json!({ "role": role, "sub": "1234567890" });
    if let Some(life) = life {
        claims["exp"] = json!(chrono::Utc::now().timestamp() + life);
    }
    let sign = |secret: &[u8]| {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
    };
    let token = sign(auth.keys.jwt_secret.expose_secret().as_bytes());
    let answer = auth.get_as(&token, "/admin/users").await;
    assert_eq!(answer.status, status, "{}", answer.text);
    let expected = match (role, life) {
        (_, Some(..0)) => AuthError::Expired,
        (_, None) => AuthError::NoExpiry,
        (_, Some(_)) => AuthError::Role,
    };
    let verifier = Verifier::of(&auth.keys, &auth.ring);
    assert_eq!(verifier.verify(&token).unwrap_err(), expected, "elsewhere it is refused");
    assert_eq!(auth.get_as(&token, "/user").await.code(), "bad_jwt");
    let forged = auth.get_as(&sign(b"a secret that somebody guessed at"), "/admin/users").await;
    assert_eq!((forged.status, forged.code()), (403, "bad_jwt"));
    assert!(forged.text_at("/msg").contains("unable to parse or verify signature"), "{}", forged.text);
}
