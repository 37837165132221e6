//! Verification of ID tokens (OpenID Connect Core 1.0 §3.1.3.7).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use constant_time_eq::constant_time_eq;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Clocks may differ by this, in seconds.
const LEEWAY: i64 = 60;
/// Longest token that is looked at.
const MOST_BYTES: usize = 16 * 1024;

/// Why an ID token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdTokenError {
    /// Not a JWT, or a claim of the wrong kind.
    #[error("the ID token is malformed: send it as the provider issued it")]
    Malformed,
    /// Signed with something that proves nothing.
    #[error("the ID token is signed with an algorithm that is not accepted here")]
    Algorithm,
    /// Signed with a key that the provider does not publish (any more).
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// Tampered with.
    #[error("the signature of the ID token is wrong")]
    Signature,
    /// Somebody else's.
    #[error("the ID token was issued by {0:?}: use the provider that it belongs to")]
    Issuer(String),
    /// Meant for another application.
    #[error("Unacceptable audience in id_token: {0:?}")]
    Audience(Vec<String>),
    /// Too old, or from the future.
    #[error("the ID token is not valid at this time: get a new one")]
    Expired,
    /// Belongs to another access token.
    #[error("the ID token belongs to another access token")]
    AccessToken,
}

/// What an ID token must say.
pub(crate) struct Expected<'a> {
    /// Whose tokens are accepted.
    pub(crate) issuer: &'a (dyn Fn(&Map<String, Value>) -> bool + Sync),
    /// Client ids of ours.
    pub(crate) audiences: &'a [String],
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// The claims of a token that is signed with one of `keys` and says what it must.
pub(crate) fn verify(
    token: &str,
    keys: &JwkSet,
    expected: &Expected<'_>,
) -> Result<(Map<String, Value>, Algorithm), IdTokenError> {
    if token.len() > MOST_BYTES {
        return Err(IdTokenError::Malformed);
    }
    let header = decode_header(token).map_err(|_| IdTokenError::Malformed)?;
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        // A public key must never serve as a shared secret.
        return Err(IdTokenError::Algorithm);
    }
    let candidates = keys
        .keys
        .iter()
        .filter(|key| fits(key, header.alg) && (header.kid.is_none() || key.common.key_id == header.kid));
    let mut validation = Validation::new(header.alg);
    // Checked below, against the given time and with our own errors.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let mut outcome = Err(IdTokenError::UnknownKey);
    for key in candidates {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match decode::<Map<String, Value>>(token, &key, &validation) {
            Ok(data) => {
                outcome = Ok(data.claims);
                break;
            }
            Err(_) => outcome = Err(IdTokenError::Signature),
        }
    }
    let claims = outcome?;
    check(&claims, expected)?;
    Ok((claims, header.alg))
}

/// Whether a published key may verify signatures of that algorithm.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let named = key.common.key_algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
    let kind = match (&key.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
        ) => true,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES384) => ec.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(_), Algorithm::EdDSA) => true,
        _ => false,
    };
    for_signatures && named && kind
}

fn check(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), IdTokenError> {
    if !(expected.issuer)(claims) {
        return Err(IdTokenError::Issuer(text(claims, "iss").to_owned()));
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let ours = |id: &str| !id.is_empty() && expected.audiences.iter().any(|audience| audience == id);
    // A token for several applications must say that it was asked for by ours.
    if !audiences.iter().any(|audience| ours(audience)) || (audiences.len() > 1 && !ours(text(claims, "azp")))
    {
        return Err(IdTokenError::Audience(audiences.into_iter().map(str::to_owned).collect()));
    }
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        // Some issuers write fractions.
        Some(value) => value.as_f64().map(|seconds| Some(seconds as i64)).ok_or(IdTokenError::Malformed),
    };
    let expires = time("exp")?.ok_or(IdTokenError::Malformed)?;
    let begins = time("nbf")?.into_iter().chain(time("iat")?).max().unwrap_or(expected.now);
    if expires + LEEWAY <= expected.now || begins - LEEWAY > expected.now {
        return Err(IdTokenError::Expired);
    }
    if text(claims, "sub").is_empty() {
        return Err(IdTokenError::Malformed);
    }
    Ok(())
}

/// Checks `at_hash` (§3.1.3.6) where the token has one.
pub(crate) fn verify_access_token(
    claims: &Map<String, Value>,
    algorithm: Algorithm,
    access_token: &str,
) -> Result<(), IdTokenError> {
    let Some(expected) = claims.get("at_hash").and_then(Value::as_str) else { return Ok(()) };
    let digest = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => Sha384::digest(access_token).to_vec(),
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => Sha512::digest(access_token).to_vec(),
        _ => Sha256::digest(access_token).to_vec(),
    };
    let actual = URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2]);
    if constant_time_eq(expected.as_bytes(), actual.as_bytes()) {
        Ok(())
    } else {
        Err(IdTokenError::AccessToken)
    }
}

/// A claim that is text; empty when it is missing or something else.
pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("an object"),
        }
    }

    #[rstest]
    #[case::good(json!({}), Ok(()))]
    #[case::one_of_our_apps(json!({"aud": "mobile"}), Ok(()))]
    #[case::several(json!({"aud": ["web", "other"], "azp": "web"}), Ok(()))]
    #[case::just_expired(json!({"exp": 950}), Ok(()))]
    #[case::fraction(json!({"exp": 1500.5}), Ok(()))]
    #[case::other_issuer(json!({"iss": "https://evil"}), Err(IdTokenError::Issuer("https://evil".into())))]
    #[case::other_app(json!({"aud": "other"}), Err(IdTokenError::Audience(vec!["other".into()])))]
    #[case::nobody(json!({"aud": ""}), Err(IdTokenError::Audience(vec!["".into()])))]
    #[case::asked_for_by_another(json!({"aud": ["web", "other"], "azp": "other"}),
        Err(IdTokenError::Audience(vec!["web".into(), "other".into()])))]
    #[case::expired(json!({"exp": 940}), Err(IdTokenError::Expired))]
    #[case::from_the_future(json!({"iat": 1100}), Err(IdTokenError::Expired))]
    #[case::not_yet(json!({"nbf": 1100}), Err(IdTokenError::Expired))]
    #[case::endless(json!({"exp": null}), Err(IdTokenError::Malformed))]
    #[case::of_nobody(json!({"sub": ""}), Err(IdTokenError::Malformed))]
    fn claims_must_fit(#[case] change: Value, #[case] expected: Result<(), IdTokenError>) {
        let mut claims = object(json!({
            "iss": "https://issuer", "sub": "1", "aud": "web", "exp": 1500, "iat": 1000
        }));
        claims.extend(object(change));
        let audiences = ["web".to_owned(), "mobile".to_owned()];
        let issuer = |claims: &Map<String, Value>| text(claims, "iss") == "https://issuer";
        let result = check(&claims, &Expected { issuer: &issuer, audiences: &audiences, now: 1000 });
        assert_eq!(result, expected);
    }

    // OpenID Connect Core 1.0, appendix A.3.
    #[rstest]
    #[case("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", Ok(()))]
    #[case("another", Err(IdTokenError::AccessToken))]
    fn access_tokens_must_match(#[case] access_token: &str, #[case] expected: Result<(), IdTokenError>) {
        let claims = object(json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}));
        assert_eq!(verify_access_token(&claims, Algorithm::RS256, access_token), expected);
    }
}
