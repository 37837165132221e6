use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const SECRET: &str = "reallyreallyreallyreallyverysafe";
const NOW: i64 = 1_700_000_000;

fn config() -> JwtConfig {
    JwtConfig {
        secret: Some(SECRET.into()),
        anon_role: Some("anonymous".into()),
        cache_entries: 10,
        ..JwtConfig::default()
    }
}

fn token(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("encodes")
}

fn verify(config: &JwtConfig, claims: &Value) -> Result<Arc<Authenticated>, JwtError> {
    let verifier = config.verifier().expect("a usable secret");
    let token = token(claims);
    let first = verifier.verify(Some(&token), NOW);
    assert_eq!(first, verifier.verify(Some(&token), NOW), "also from the cache");
    first
}

#[test]
fn the_role_is_the_claimed_one() {
    let found = verify(&config(), &json!({"role": "author", "id": 7})).expect("valid");
    assert_eq!(found.role, "author");
    assert_eq!(found.claims["id"], 7);
    assert_eq!(found.claims_json, r#"{"id":7,"role":"author"}"#);
    assert_eq!(verify(&config(), &json!({"id": 7})).expect("valid").role, "anonymous");
    let nested = JwtConfig { role_path: ".user.roles[0]".parse().expect("a path"), ..config() };
    assert_eq!(verify(&nested, &json!({"user": {"roles": ["editor"]}})).expect("valid").role, "editor");
}

#[test]
fn without_a_token_the_request_is_anonymous_or_refused() {
    let anonymous = config().verifier().expect("usable").verify(None, NOW).expect("allowed");
    assert_eq!(
        (anonymous.role.as_str(), anonymous.claims_json.as_str()),
        ("anonymous", r#"{"role":"anonymous"}"#)
    );
    let closed = JwtConfig { anon_role: None, ..config() };
    assert_eq!(closed.verifier().expect("usable").verify(None, NOW), Err(JwtError::TokenRequired));
    assert_eq!(verify(&closed, &json!({})), Err(JwtError::TokenRequired));
    let without = JwtConfig { secret: None, ..config() };
    assert_eq!(without.verifier().expect("usable").verify(Some("a.b.c"), NOW), Err(JwtError::SecretMissing));
}

#[test]
fn claims_are_checked() {
    let audience = JwtConfig { audience: Some("us".into()), ..config() };
    for (claims, expected) in [
        (json!({"exp": NOW - 31}), Err(JwtError::Expired)),
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": 1.5}), Err(JwtError::Expired)),
        (json!({"exp": null}), Ok(())),
        (json!({"nbf": NOW + 31}), Err(JwtError::NotYetValid)),
        (json!({"nbf": NOW + 29}), Ok(())),
        (json!({"iat": NOW + 31}), Err(JwtError::IssuedInFuture)),
        (json!({"exp": "soon"}), Err(JwtError::ClaimNotNumber("exp"))),
        (json!({"nbf": "soon"}), Err(JwtError::ClaimNotNumber("nbf"))),
        (json!({"iat": []}), Err(JwtError::ClaimNotNumber("iat"))),
        (json!({"exp": NOW - 99, "nbf": "soon"}), Err(JwtError::Expired)),
        (json!({"aud": "us"}), Ok(())),
        (json!({"aud": "them"}), Err(JwtError::NotInAudience)),
        (json!({"aud": ""}), Err(JwtError::NotInAudience)),
        (json!({"aud": ["them", "us"]}), Ok(())),
        (json!({"aud": ["them"]}), Err(JwtError::NotInAudience)),
        (json!({"aud": []}), Ok(())),
        (json!({"aud": null}), Ok(())),
        (json!({"aud": {"a": 1}}), Err(JwtError::AudienceType)),
        (json!({"aud": ["us", 1]}), Err(JwtError::AudienceType)),
    ] {
        assert_eq!(verify(&audience, &claims).map(|_| ()), expected, "{claims}");
    }
    assert!(verify(&config(), &json!({"aud": "anybody"})).is_ok(), "no audience is configured");
}

#[test]
fn a_cached_token_still_expires() {
    let verifier = config().verifier().expect("usable");
    let token = token(&json!({"exp": NOW + 60}));
    assert!(verifier.verify(Some(&token), NOW).is_ok());
    assert_eq!(verifier.verify(Some(&token), NOW + 91), Err(JwtError::Expired));
}

#[test]
fn what_is_no_token_is_refused() {
    let verifier = config().verifier().expect("usable");
    let valid = token(&json!({}));
    let [header, payload, signature] = valid.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let none = BASE64_URL.encode(r#"{"alg":"none"}"#);
    let rsa = BASE64_URL.encode(r#"{"alg":"RS256"}"#);
    let odd = BASE64_URL.encode(r#"{"alg":"odd"}"#);
    let unsuitable = || JwtError::Key("No suitable key was found to decode the JWT".into());
    let unable = || JwtError::Key("None of the keys was able to decode the JWT".into());
    for (bearer, expected) in [
        (String::new(), JwtError::Empty),
        ("one".into(), JwtError::UnexpectedParts(1)),
        ("one.two".into(), JwtError::UnexpectedParts(2)),
        (format!("{valid}.four"), JwtError::UnexpectedParts(4)),
        (format!("***.{payload}.{signature}"), JwtError::Crypto),
        (format!("{}.{payload}.{signature}", BASE64_URL.encode("[]")), JwtError::Undecodable),
        (format!("{odd}.{payload}.{signature}"), JwtError::Undecodable),
        (format!("{rsa}.{payload}.{signature}"), unsuitable()),
        (
            format!("{none}.{payload}."),
            JwtError::Algorithm("JWT is unsecured but expected 'alg' was not 'none'".into()),
        ),
        (format!("{header}.{payload}.AAAA"), unable()),
        (format!("{header}.e30.{signature}é"), unable()),
    ] {
        assert_eq!(verifier.verify(Some(&bearer), NOW), Err(expected), "{bearer}");
    }
    assert_eq!(verifier.verify(Some(&token(&json!([1]))), NOW), Err(JwtError::Claims));
}

#[test]
fn secrets_of_all_kinds() {
    let with = |secret: &str, base64| JwtConfig {
        secret: Some(secret.into()),
        secret_is_base64: base64,
        ..config()
    };
    assert!(matches!(with("short", false).verifier(), Err(SecretError::Short)));
    assert!(matches!(with("%%%", true).verifier(), Err(SecretError::Base64)));
    assert!(matches!(with(r#"{"kty":"RSA","n":"AQ"}"#, false).verifier(), Err(SecretError::NoKey(_))));
    assert!(matches!(with(r#"{"keys":[]}"#, false).verifier(), Err(SecretError::NoKey(_))));
    let encoded = base64::prelude::BASE64_STANDARD.encode(SECRET);
    let key = format!(
        r#"{{"kty":"oct","kid":"1","k":"{}"}}"#,
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(SECRET)
    );
    for config in [
        with(&encoded, true),
        with(&key, false),
        with(&format!(r#"{{"keys":[{{"kty":"odd"}},{key}]}}"#), false),
    ] {
        assert_eq!(verify(&config, &json!({"role": "author"})).expect("valid").role, "author");
    }
}
