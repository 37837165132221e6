//! Reads secrets that other systems sealed, to bring them over: Fernet tokens, and AES-256-GCM under a password.

use std::num::NonZeroU32;

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::consts::U16;
use aes_gcm::{AesGcm, Nonce};
use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// Why something cannot be brought over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The key is none.
    #[error("the Fernet key is none: it is 32 bytes in URL-safe base64, 44 characters")]
    Key,
    /// It is not in a form that is known.
    #[error("this is no {0}: check that it was copied whole")]
    Form(&'static str),
    /// The key does not open it.
    #[error("it does not open: the encryption key is another one, or it was changed")]
    Broken,
}

/// With or without the `=` at the end, as people copy it.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What the sealing system used.
const ROUNDS: u32 = 100_000;

/// Opens a Fernet token (`gAAAAA…`: AES-128-CBC and HMAC-SHA256). Its age does not matter.
///
/// # Errors
/// [`ImportError`].
pub fn fernet(token: &str, key: &SecretString) -> Result<SecretString, ImportError> {
    const FORM: ImportError = ImportError::Form("Fernet token");
    let key = URL_SAFE.decode(key.expose_secret().trim()).map_err(|_| ImportError::Key)?;
    let (signing, encrypting) = key.split_first_chunk::<16>().ok_or(ImportError::Key)?;
    if encrypting.len() != 16 {
        return Err(ImportError::Key);
    }
    let token = URL_SAFE.decode(token.trim()).map_err(|_| FORM)?;
    // Version, time, initialisation vector; ciphertext; signature.
    let (signed, signature) = token.split_last_chunk::<32>().ok_or(FORM)?;
    let ([0x80, ..], Some((iv, ciphertext))) =
        (signed, signed.get(9..).and_then(|rest| rest.split_first_chunk::<16>()))
    else {
        return Err(FORM);
    };
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, signing), signed, signature)
        .map_err(|_| ImportError::Broken)?;
    let key = UnboundCipherKey::new(&AES_128, encrypting).map_err(|_| ImportError::Key)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| ImportError::Key)?;
    let mut body = ciphertext.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(*iv));
    let plain = key.decrypt(&mut body, context).map_err(|_| ImportError::Broken)?;
    text(plain)
}

/// The forms in which such a secret is kept: today's and an older one in JSON.
#[derive(Deserialize)]
struct Envelope {
    salt: String,
    iv: String,
    #[serde(rename = "authTag")]
    tag: String,
    #[serde(alias = "data")]
    ciphertext: String,
}

/// Opens AES-256-GCM under a key that PBKDF2-HMAC-SHA256 makes of a password (100 000 rounds): JSON with `salt`, `iv`,
/// `authTag` and `ciphertext` (or `data`) in base64, or these four joined by colons.
///
/// # Errors
/// [`ImportError`].
pub fn aes_gcm_pbkdf2(envelope: &str, password: &SecretString) -> Result<SecretString, ImportError> {
    const FORM: ImportError = ImportError::Form("AES-256-GCM envelope");
    let envelope = envelope.trim();
    let parts = if envelope.starts_with('{') {
        serde_json::from_str(envelope).map_err(|_| FORM)?
    } else {
        let mut parts = envelope.split(':').map(str::to_owned);
        let mut part = || parts.next().ok_or(FORM);
        let envelope = Envelope { salt: part()?, iv: part()?, tag: part()?, ciphertext: part()? };
        if parts.next().is_some() {
            return Err(FORM);
        }
        envelope
    };
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| FORM);
    let (salt, iv, tag) = (bytes(&parts.salt)?, bytes(&parts.iv)?, bytes(&parts.tag)?);
    if tag.len() != 16 || salt.is_empty() {
        return Err(FORM);
    }
    let mut key = [0; 32];
    let rounds = NonZeroU32::new(ROUNDS).expect("it is not zero");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.expose_secret().as_bytes(), &mut key);
    let cipher = AesGcm::<Aes256, U16>::new(&key.into());
    let nonce = Nonce::<U16>::try_from(iv.as_slice()).map_err(|_| FORM)?;
    let mut body = bytes(&parts.ciphertext)?;
    body.extend_from_slice(&tag);
    let plain = cipher.decrypt(&nonce, body.as_slice()).map_err(|_| ImportError::Broken)?;
    text(&plain)
}

fn text(plain: &[u8]) -> Result<SecretString, ImportError> {
    std::str::from_utf8(plain).map(SecretString::from).map_err(|_| ImportError::Broken)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The specification's own example.
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    #[test]
    fn a_fernet_token_opens() {
        assert_eq!(fernet(TOKEN, &KEY.into()).unwrap().expose_secret(), "hello");
        assert_eq!(fernet(TOKEN.trim_end_matches('='), &KEY.into()).unwrap().expose_secret(), "hello");
    }

    #[rstest]
    #[case("", KEY, ImportError::Form("Fernet token"))]
    #[case("gAAAAAAdwJ6w", KEY, ImportError::Form("Fernet token"))]
    #[case("hello", KEY, ImportError::Form("Fernet token"))]
    #[case(TOKEN, "short", ImportError::Key)]
    #[case(TOKEN, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ImportError::Broken)]
    #[case(&TOKEN.replace("5CV9", "5CV8"), KEY, ImportError::Broken)]
    fn what_is_no_token_of_that_key_is_refused(
        #[case] token: &str,
        #[case] key: &str,
        #[case] error: ImportError,
    ) {
        assert_eq!(fernet(token, &key.into()).unwrap_err(), error);
    }

    /// Made with Node's crypto.
    const SALT: &str = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";
    const IV: &str = "Dx4tPEtaaXiHlqW0w9Lh8A==";
    const TAG: &str = "sAtGQUoAsWdR4Q57uGlH8Q==";
    const CIPHERTEXT: &str = "UaYgoDHdt9VT9FiBil0iGawQYg74v7nI";
    const PASSWORD: &str = "an old encryption key";

    fn forms() -> [String; 3] {
        [
            format!(
                r#"{{"algorithm":"aes-256-gcm","keyVersion":1,"salt":"{SALT}","iv":"{IV}","authTag":"{TAG}","ciphertext":"{CIPHERTEXT}"}}"#
            ),
            format!(r#"{{"iv":"{IV}","salt":"{SALT}","authTag":"{TAG}","data":"{CIPHERTEXT}","version":1}}"#),
            format!("{SALT}:{IV}:{TAG}:{CIPHERTEXT}"),
        ]
    }

    #[test]
    fn all_three_forms_open() {
        for form in forms() {
            let opened = aes_gcm_pbkdf2(&form, &PASSWORD.into()).unwrap();
            assert_eq!(opened.expose_secret(), r#"{"openai":"sk-imported"}"#, "{form}");
            assert_eq!(aes_gcm_pbkdf2(&form, &"another".into()).unwrap_err(), ImportError::Broken);
            let changed = form.replace("sAtG", "sAtH");
            assert_eq!(aes_gcm_pbkdf2(&changed, &PASSWORD.into()).unwrap_err(), ImportError::Broken);
        }
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case("a:b:c")]
    #[case("a:b:c:d:e")]
    #[case("AAAA:AAAA:AAAA:AAAA")]
    fn what_is_no_envelope_is_refused(#[case] text: &str) {
        let error = aes_gcm_pbkdf2(text, &PASSWORD.into()).unwrap_err();
        assert_eq!(error, ImportError::Form("AES-256-GCM envelope"));
    }
}
