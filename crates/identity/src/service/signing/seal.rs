//! Encrypts private keys for the table: AES-256-GCM under a key derived (HKDF-SHA256) from the JWT secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// First byte of a sealed key: how it was sealed.
const VERSION: u8 = 1;
const PURPOSE: &[u8] = b"longhouse signing keys v1";

/// Seals and opens the private parts of signing keys.
pub(super) struct Sealer {
    key: LessSafeKey,
}

impl Sealer {
    pub(super) fn new(secret: &SecretString) -> Self {
        let derived = Salt::new(HKDF_SHA256, b"").extract(secret.expose_secret().as_bytes());
        let info = [PURPOSE];
        let key = derived.expand(&info, &AES_256_GCM).expect("32 bytes are within what HKDF gives");
        Self { key: LessSafeKey::new(UnboundKey::from(key)) }
    }

    /// `version ‖ nonce ‖ ciphertext ‖ tag`, bound to the key's id so that rows cannot be exchanged.
    pub(super) fn seal(&self, id: Uuid, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.as_bytes()),
                &mut sealed,
            )
            .expect("a key is far shorter than what GCM seals");
        [&[VERSION][..], &nonce, &sealed].concat()
    }

    /// What was sealed; `None` if it was sealed under another secret, for another key, or altered.
    pub(super) fn open(&self, id: Uuid, sealed: &[u8]) -> Option<Vec<u8>> {
        let (&version, rest) = sealed.split_first()?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        if version != VERSION {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(id.as_bytes()), &mut text).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_was_sealed_for_that_key_under_that_secret() {
        let (id, plain) = (Uuid::new_v4(), b"private".as_slice());
        let sealer = Sealer::new(&"a secret of the project".into());
        let sealed = sealer.seal(id, plain);
        assert_eq!(sealer.open(id, &sealed).as_deref(), Some(plain));
        assert!(!sealed.windows(plain.len()).any(|window| window == plain));
        assert_eq!(sealer.open(Uuid::new_v4(), &sealed), None);
        assert_eq!(Sealer::new(&"another secret".into()).open(id, &sealed), None);
        for length in [0, 1, 12, 13, sealed.len() - 1] {
            assert_eq!(sealer.open(id, &sealed[..length]), None);
        }
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(sealer.open(id, &altered), None);
        assert_ne!(sealer.seal(id, plain), sealed, "no nonce is used twice");
    }
}
