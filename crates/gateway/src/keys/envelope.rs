//! Envelopes: a secret is sealed with a data key of its own, and the data key with a master key.
//!
//! To rotate, data keys are wrapped anew; secrets stay as they are. Both seals are AES-256-GCM with a random nonce, and
//! are bound to what they are for (id, owner, provider and address of the key), so that a row that somebody moved or
//! redirected in the database does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

/// Why an envelope does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It was sealed under a master key that this server does not have.
    #[error(
        "it was sealed with the master key {0}, which this server does not have: add it as gateway.master_key_previous"
    )]
    UnknownMaster(String),
    /// It was changed, or is not what it is presented as.
    #[error("it does not open: it was changed, or belongs to another key or owner")]
    Broken,
}

/// A key that wraps data keys.
struct MasterKey {
    id: String,
    key: LessSafeKey,
}

/// The master key in force, and the one before it while keys rotate.
pub struct MasterKeys {
    current: MasterKey,
    previous: Option<MasterKey>,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({})", self.current.id)
    }
}

/// A sealed secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Nonce, ciphertext and tag of the secret.
    pub ciphertext: Vec<u8>,
    /// Nonce, ciphertext and tag of the data key.
    pub wrapped_key: Vec<u8>,
    /// Which master key wrapped it.
    pub master_key: String,
}

impl MasterKey {
    /// `secret` must have the entropy of a key; its length and alphabet do not matter.
    fn new(secret: &SecretString) -> Self {
        let derived = Salt::new(HKDF_SHA256, b"").extract(secret.expose_secret().as_bytes());
        let key = derived.expand(&[b"longhouse gateway master key v1"], &AES_256_GCM);
        let key = key.expect("32 bytes are within what HKDF gives");
        let mut id = [0; 32];
        derived
            .expand(&[b"longhouse gateway master key id v1"], HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut id))
            .expect("32 bytes are within what HKDF gives");
        Self { id: hex::encode(&id[..8]), key: LessSafeKey::new(UnboundKey::from(key)) }
    }
}

fn key_of(bytes: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("the key has 32 bytes"))
}

impl MasterKeys {
    /// New secrets are sealed with `current`; what `previous` sealed still opens.
    #[must_use]
    pub fn new(current: &SecretString, previous: Option<&SecretString>) -> Self {
        Self { current: MasterKey::new(current), previous: previous.map(MasterKey::new) }
    }

    /// Names the key in force; gives nothing away.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.current.id
    }

    fn find(&self, id: &str) -> Result<&MasterKey, EnvelopeError> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == id)
            .ok_or_else(|| EnvelopeError::UnknownMaster(id.to_owned()))
    }

    /// Seals a secret for what `context` says.
    #[must_use]
    pub fn seal(&self, secret: &SecretString, context: &str) -> Sealed {
        let mut data_key = SecretBox::new(Box::new([0_u8; 32]));
        fill(secrecy::ExposeSecretMut::expose_secret_mut(&mut data_key));
        let ciphertext = seal(&key_of(data_key.expose_secret()), secret.expose_secret().as_bytes(), context);
        let wrapped_key = seal(&self.current.key, data_key.expose_secret(), &wrapping(context));
        Sealed { ciphertext, wrapped_key, master_key: self.current.id.clone() }
    }

    /// Opens what was sealed for the same.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(&self, sealed: &Sealed, context: &str) -> Result<SecretString, EnvelopeError> {
        let data_key = self.unwrap(sealed, context)?;
        let secret = open(&key_of(data_key.expose_secret()), &sealed.ciphertext, context)?;
        let text = String::from_utf8(secret.expose_secret().clone()).map_err(|_| EnvelopeError::Broken)?;
        Ok(text.into())
    }

    /// The same data key under the master key in force; `None` if it is that already.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn rewrap(&self, sealed: &Sealed, context: &str) -> Result<Option<Sealed>, EnvelopeError> {
        if sealed.master_key == self.current.id {
            return Ok(None);
        }
        let data_key = self.unwrap(sealed, context)?;
        Ok(Some(Sealed {
            ciphertext: sealed.ciphertext.clone(),
            wrapped_key: seal(&self.current.key, data_key.expose_secret(), &wrapping(context)),
            master_key: self.current.id.clone(),
        }))
    }

    fn unwrap(&self, sealed: &Sealed, context: &str) -> Result<SecretBox<Vec<u8>>, EnvelopeError> {
        let data_key = open(&self.find(&sealed.master_key)?.key, &sealed.wrapped_key, &wrapping(context))?;
        if data_key.expose_secret().len() == 32 { Ok(data_key) } else { Err(EnvelopeError::Broken) }
    }
}

/// A data key is never mistaken for a secret.
fn wrapping(context: &str) -> String {
    format!("data key of {context}")
}

fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system gives random bytes");
}

fn seal(key: &LessSafeKey, plain: &[u8], context: &str) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce);
    let mut sealed = nonce.to_vec();
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
        .expect("a secret is shorter than what one nonce allows");
    sealed.append(&mut body);
    sealed
}

fn open(key: &LessSafeKey, sealed: &[u8], context: &str) -> Result<SecretBox<Vec<u8>>, EnvelopeError> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(EnvelopeError::Broken)?;
    let mut body = body.to_vec();
    let plain = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut body)
        .map_err(|_| EnvelopeError::Broken)?;
    let length = plain.len();
    body.truncate(length);
    Ok(SecretBox::new(Box::new(body)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    #[test]
    fn an_envelope_opens_only_as_what_it_is() {
        let keys = MasterKeys::new(&secret("one"), None);
        let sealed = keys.seal(&secret("sk-planted-marker"), "ann's key");
        assert_eq!(keys.open(&sealed, "ann's key").unwrap().expose_secret(), "sk-planted-marker");
        assert_eq!(keys.open(&sealed, "bob's key").unwrap_err(), EnvelopeError::Broken);
        assert!(!format!("{keys:?} {sealed:?}").contains("planted"));
        let again = keys.seal(&secret("sk-planted-marker"), "ann's key");
        assert_ne!(again.ciphertext, sealed.ciphertext);
        assert_ne!(again.wrapped_key, sealed.wrapped_key);
    }

    #[test]
    fn rotation_keeps_what_was_sealed() {
        let (old, new) = (secret("old master"), secret("new master"));
        let before = MasterKeys::new(&old, None);
        let during = MasterKeys::new(&new, Some(&old));
        let after = MasterKeys::new(&new, None);
        let sealed = before.seal(&secret("sk-1"), "k");
        assert_eq!(after.open(&sealed, "k").unwrap_err(), EnvelopeError::UnknownMaster(before.id().into()));
        assert_eq!(during.open(&sealed, "k").unwrap().expose_secret(), "sk-1");
        let rewrapped = during.rewrap(&sealed, "k").unwrap().unwrap();
        assert_eq!(rewrapped.ciphertext, sealed.ciphertext, "the secret itself is not touched");
        assert_eq!(after.open(&rewrapped, "k").unwrap().expose_secret(), "sk-1");
        assert!(before.open(&rewrapped, "k").is_err());
        assert_eq!(during.rewrap(&rewrapped, "k").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_secret_comes_back_and_no_changed_byte_passes(
            text in "\\PC{0,200}", context in "\\PC{0,40}", at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let keys = MasterKeys::new(&secret("master"), None);
            let sealed = keys.seal(&secret(&text), &context);
            let opened = keys.open(&sealed, &context).unwrap();
            prop_assert_eq!(opened.expose_secret(), text.as_str());
            let mut changed = sealed.clone();
            let length = changed.ciphertext.len();
            changed.ciphertext[at.index(length)] ^= 1 << bit;
            prop_assert!(keys.open(&changed, &context).is_err());
            let mut changed = sealed;
            let length = changed.wrapped_key.len();
            changed.wrapped_key[at.index(length)] ^= 1 << bit;
            prop_assert!(keys.open(&changed, &context).is_err());
        }
    }
}
