//! Keys of ID tokens, and tokens signed with them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// What tokens are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, 2048 bits.
    Rs256,
    /// ECDSA on P-256.
    Es256,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

struct Named {
    id: String,
    key: Key,
}

/// The current key, and older ones that are still published.
pub(super) struct KeyRing {
    algorithm: Algorithm,
    /// Oldest first.
    keys: Vec<Named>,
    made: usize,
}

impl KeyRing {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, keys: vec![Named { id: "key-1".into(), key: generate(algorithm) }], made: 1 }
    }

    pub(super) fn rotate(&mut self, keep: bool) {
        if !keep {
            self.keys.clear();
        }
        self.made += 1;
        self.keys.push(Named { id: format!("key-{}", self.made), key: generate(self.algorithm) });
    }

    /// Public keys, as RFC 7517 writes them.
    pub(super) fn published(&self) -> Vec<Value> {
        self.keys.iter().map(Named::public).collect()
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let named = self.keys.last().expect("there is always a key");
        token(&named.id, &named.key, claims)
    }

    pub(super) fn forge(&self, claims: &Value) -> String {
        let named = self.keys.last().expect("there is always a key");
        token(&named.id, &generate(self.algorithm), claims)
    }
}

fn generate(algorithm: Algorithm) -> Key {
    match algorithm {
        Algorithm::Rs256 => {
            Key::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("2048 bits are supported")))
        }
        Algorithm::Es256 => {
            Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("P-256 is supported"))
        }
    }
}

impl Named {
    fn public(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.key {
            Key::Rsa(pair) => {
                let (modulus, exponent) = integers(pair.public_key().as_ref()).expect("DER of two integers");
                json!({ "kty": "RSA", "alg": "RS256", "n": encode(modulus), "e": encode(exponent) })
            }
            Key::Ec(pair) => {
                let point = pair.public_key().as_ref();
                // 4, then both coordinates of 32 bytes.
                json!({ "kty": "EC", "alg": "ES256", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }
}

/// The two integers of an `RSAPublicKey` (RFC 8017, appendix A.1.1), without leading zeros.
fn integers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    /// Content of the element at the start, and what follows it.
    fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
        let (&[found, length], rest) = der.split_first_chunk()?;
        let (length, rest) = match length {
            0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
            0x82 => rest
                .split_first_chunk()
                .map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
            short => (usize::from(short), rest),
        };
        (found == tag).then(|| rest.split_at_checked(length))?
    }
    let (content, _) = element(der, SEQUENCE)?;
    let (modulus, rest) = element(content, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

fn token(id: &str, key: &Key, claims: &Value) -> String {
    let algorithm = match key {
        Key::Rsa(_) => "RS256",
        Key::Ec(_) => "ES256",
    };
    let header = json!({ "alg": algorithm, "kid": id, "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let random = SystemRandom::new();
    let signature = match key {
        Key::Rsa(pair) => {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)
                .expect("the buffer has the modulus' length");
            signature
        }
        Key::Ec(pair) => {
            pair.sign(&random, signed.as_bytes()).expect("signing needs nothing").as_ref().to_vec()
        }
    };
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Header and claims of a token whose ES256 signature is that key's (an uncompressed point).
pub(super) fn verify_es256(token: &str, public_key: &[u8]) -> Option<(Value, Value)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key)
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let (header, claims) = (read(header)?, read(claims)?);
    (header["alg"] == "ES256").then_some((header, claims))
}
