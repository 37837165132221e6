//! Signing keys that were made elsewhere: JSON Web Keys with their private parts, as Supabase's command line writes
//! them, and public ones whose tokens are to stay good.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::keys::{NewKey, SigningAlgorithm, public_jwk, rsa_private_key};
use crate::KeysError;
use crate::jwks::VerifyingKey;

/// Keys that are read of one file: more than anybody rotates through.
const MOST_KEYS: usize = 32;
/// Shorter secrets can be guessed (RFC 7518 §3.2).
const LEAST_SECRET: usize = 32;

const NOT_KEYS: &str = "it is neither a JSON Web Key nor a set or list of them";
const INCOMPLETE: &str = "its private part is incomplete, or does not belong to its public part";

/// A key of a file, and whether it may sign.
pub(super) struct Read {
    pub(super) key: NewKey,
    pub(super) signs: bool,
}

/// The parts of RFC 7517 and 7518 that matter here.
#[derive(Deserialize)]
struct Parts {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
    k: Option<String>,
}

/// Reads a key, a list of keys, or a set (`{"keys": […]}`).
///
/// # Errors
/// [`KeysError::Import`]; it never repeats what the file holds.
pub(super) fn read(document: &str) -> Result<Vec<Read>, KeysError> {
    let refused = |reason| KeysError::Import { key: 1, reason };
    let document: Value = serde_json::from_str(document).map_err(|_| refused("the file is not JSON"))?;
    let keys = match document {
        Value::Array(keys) => keys,
        Value::Object(mut object) => match object.remove("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(refused(NOT_KEYS)),
            None => vec![Value::Object(object)],
        },
        _ => return Err(refused(NOT_KEYS)),
    };
    if keys.is_empty() || keys.len() > MOST_KEYS {
        return Err(refused("a file may hold 1 to 32 keys"));
    }
    let each = keys.into_iter().enumerate();
    each.map(|(index, key)| one(key).map_err(|reason| KeysError::Import { key: index + 1, reason })).collect()
}

fn one(key: Value) -> Result<Read, &'static str> {
    let parts: Parts = serde_json::from_value(key.clone()).map_err(|_| NOT_KEYS)?;
    let algorithm = parts.algorithm()?;
    if parts.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err("it is not for signatures: its `use` has to be `sig`");
    }
    let id = match &parts.kid {
        None => Uuid::new_v4(),
        // Tokens name it by exactly these characters.
        Some(kid) => Uuid::parse_str(kid)
            .ok()
            .filter(|id| id.to_string() == *kid)
            .ok_or("its `kid` has to be a UUID in lower case, as Supabase's are")?,
    };
    let private = match algorithm {
        SigningAlgorithm::Hs256 => Some(parts.secret()?),
        SigningAlgorithm::Es256 if parts.d.is_some() => Some(parts.ecdsa().ok_or(INCOMPLETE)?),
        SigningAlgorithm::Rs256 if parts.d.is_some() => Some(parts.rsa().ok_or(INCOMPLETE)?),
        SigningAlgorithm::Es256 | SigningAlgorithm::Rs256 => None,
    };
    let public = match (algorithm, &private) {
        (SigningAlgorithm::Hs256, _) => None,
        (_, Some(private)) => Some(public_jwk(id, algorithm, private).ok_or(INCOMPLETE)?),
        (_, None) => Some(of_others(key, id).ok_or("its public part is damaged")?),
    };
    let may_sign = parts.key_ops.is_none_or(|operations| operations.iter().any(|what| what == "sign"));
    let signs = may_sign && private.is_some();
    Ok(Read { key: NewKey { id, algorithm, private: private.unwrap_or_default(), public }, signs })
}

/// A public key as it will be published.
fn of_others(key: Value, id: Uuid) -> Option<Value> {
    let mut jwk: Jwk = serde_json::from_value(key).ok()?;
    jwk.common.key_id = Some(id.to_string());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
    VerifyingKey::public(&jwk)?;
    serde_json::to_value(jwk).ok()
}

impl Parts {
    fn algorithm(&self) -> Result<SigningAlgorithm, &'static str> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => SigningAlgorithm::Rs256,
            ("EC", Some("P-256")) => SigningAlgorithm::Es256,
            ("oct", _) => SigningAlgorithm::Hs256,
            _ => return Err("only RSA keys, EC keys on P-256 and secrets (oct) can sign here"),
        };
        match self.alg.as_deref().is_none_or(|stated| stated == algorithm.name()) {
            true => Ok(algorithm),
            false => Err("its `alg` does not fit: RS256, ES256 and HS256 are known here"),
        }
    }

    fn secret(&self) -> Result<Vec<u8>, &'static str> {
        let secret = bytes(&self.k).ok_or("its secret `k` is missing or damaged")?;
        match secret.len() >= LEAST_SECRET {
            true => Ok(secret),
            false => Err("its secret is shorter than 32 bytes and could be guessed"),
        }
    }

    /// As PKCS #8.
    fn ecdsa(&self) -> Option<Vec<u8>> {
        let point = [&[4][..], &bytes(&self.x)?, &bytes(&self.y)?].concat();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &bytes(&self.d)?, &point).ok()?;
        Some(pair.to_pkcs8v1().ok()?.as_ref().to_vec())
    }

    /// As PKCS #1.
    #[expect(non_snake_case, reason = "the library names them so")]
    fn rsa(&self) -> Option<Vec<u8>> {
        let (dP, dQ, qInv) = (bytes(&self.dp)?, bytes(&self.dq)?, bytes(&self.qi)?);
        let public_key = PublicKeyComponents { n: bytes(&self.n)?, e: bytes(&self.e)? };
        let (d, p, q) = (bytes(&self.d)?, bytes(&self.p)?, bytes(&self.q)?);
        let pair = KeyPair::from_components(&KeyPairComponents { public_key, d, p, q, dP, dQ, qInv }).ok()?;
        rsa_private_key(pair.as_der().ok()?.as_ref())
    }
}

fn bytes(part: &Option<String>) -> Option<Vec<u8>> {
    part.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const KID: &str = "0190b1d0-5f0b-7a52-9d3b-3f6f0c6a1b11";
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    /// RFC 7515, appendix A.3.1.
    const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
    const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA";

    fn curve(change: impl FnOnce(&mut Value)) -> Value {
        let mut key =
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "d": D, "kid": KID, "alg": "ES256" });
        change(&mut key);
        key
    }

    #[rstest]
    #[case::key(curve(|_| ()), &[true])]
    #[case::list(json!([curve(|_| ()), curve(|key| key["key_ops"] = json!(["verify"]))]), &[true, false])]
    #[case::set(json!({ "keys": [curve(|key| key["key_ops"] = json!(["sign", "verify"]))] }), &[true])]
    #[case::public(json!([curve(|key| drop(key.as_object_mut().unwrap().remove("d")))]), &[false])]
    #[case::secret(json!({ "kty": "oct", "k": SECRET, "kid": KID }), &[true])]
    fn keys_sets_and_lists_are_read(#[case] document: Value, #[case] signs: &[bool]) {
        let read = read(&document.to_string()).unwrap();
        assert_eq!(read.iter().map(|read| read.signs).collect::<Vec<_>>(), signs);
        for Read { key, .. } in read {
            assert_eq!(key.id.to_string(), KID);
            let Some(public) = key.public else { continue };
            assert_eq!((&public["kid"], &public["x"]), (&json!(KID), &json!(X)));
            assert!(public.get("d").is_none(), "the private part is not published");
        }
    }

    #[rstest]
    #[case::nothing(json!([]), "1 to 32")]
    #[case::text(json!("key"), "neither")]
    #[case::no_list(json!({ "keys": 1 }), "neither")]
    #[case::other_curve(curve(|key| key["crv"] = json!("P-384")), "P-256")]
    #[case::other_kind(json!({ "kty": "OKP", "crv": "Ed25519", "x": X }), "P-256")]
    #[case::other_algorithm(curve(|key| key["alg"] = json!("RS256")), "`alg`")]
    #[case::encrypts(curve(|key| key["use"] = json!("enc")), "`use`")]
    #[case::name(curve(|key| key["kid"] = json!("my key")), "UUID")]
    #[case::upper_case(curve(|key| key["kid"] = json!(KID.to_uppercase())), "UUID")]
    #[case::not_its_private_part(curve(|key| key["d"] = json!(X)), "does not belong")]
    #[case::half_of_rsa(json!({ "kty": "RSA", "n": X, "e": "AQAB", "d": D }), "incomplete")]
    #[case::short_secret(json!({ "kty": "oct", "k": "c2VjcmV0" }), "guessed")]
    #[case::no_secret(json!({ "kty": "oct" }), "missing")]
    fn what_cannot_be_used_is_refused_with_its_reason(#[case] document: Value, #[case] reason: &str) {
        let error = read(&document.to_string()).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains(X) && !error.contains(D), "{error}");
    }
}
