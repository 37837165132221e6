//! Stream tokens: proof that a media stream belongs to a call that our webhook has answered.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use uuid::Uuid;

/// Twilio opens the stream within seconds of reading the TwiML.
const LIFETIME_SECONDS: u64 = 60;

/// What a valid token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Tenant of the called number, from the database.
    pub(crate) tenant: Uuid,
    /// Which stream of the call this is; each is opened once.
    pub(crate) epoch: i32,
}

/// Issues and checks tokens. All servers of one deployment share the secret.
#[derive(Debug, Clone)]
pub struct StreamTokens {
    secret: SecretString,
}

impl StreamTokens {
    /// Tokens under a secret of their own.
    pub fn new(secret: SecretString) -> Self {
        Self { secret }
    }

    /// Tokens under a secret derived from the project's JWT secret.
    pub fn derived(jwt_secret: &SecretString) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(jwt_secret.expose_secret().as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(b"longhouse receptionist stream tokens");
        Self { secret: hex::encode(mac.finalize().into_bytes()).into() }
    }

    /// A token for one stream of one call. `now` in Unix seconds.
    pub(crate) fn issue(&self, call_sid: &str, grant: Grant, now: u64) -> String {
        let body = format!("{}.{}.{}", grant.tenant.simple(), grant.epoch, now + LIFETIME_SECONDS);
        let signature = URL_SAFE_NO_PAD.encode(self.mac(call_sid, &body).finalize().into_bytes());
        format!("{body}.{signature}")
    }

    /// What a token grants to the stream of `call_sid`; `None` when it is forged, expired or another call's.
    pub(crate) fn check(&self, token: &str, call_sid: &str, now: u64) -> Option<Grant> {
        let (body, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(call_sid, body).verify_slice(&signature).ok()?;
        let mut parts = body.split('.');
        let grant =
            Grant { tenant: Uuid::try_parse(parts.next()?).ok()?, epoch: parts.next()?.parse().ok()? };
        let expires: u64 = parts.next()?.parse().ok()?;
        (now <= expires).then_some(grant)
    }

    fn mac(&self, call_sid: &str, body: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.expose_secret().as_bytes())
            .expect("HMAC takes keys of any length");
        // The length keeps (sid, body) pairs apart that concatenate to the same text.
        mac.update(&(call_sid.len() as u64).to_be_bytes());
        mac.update(call_sid.as_bytes());
        mac.update(body.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_call_and_minute_only() {
        let tokens = StreamTokens::derived(&"a-secret-of-at-least-thirty-two-characters".to_owned().into());
        let grant = Grant { tenant: Uuid::from_u128(7), epoch: 2 };
        let token = tokens.issue("CA1", grant, 1_000);
        assert_eq!(tokens.check(&token, "CA1", 1_060), Some(grant));
        assert_eq!(tokens.check(&token, "CA1", 1_061), None, "expired");
        assert_eq!(tokens.check(&token, "CA2", 1_000), None, "another call");
        assert_eq!(tokens.check(&token.replacen(".2.", ".3.", 1), "CA1", 1_000), None, "tampered");
        let others = StreamTokens::new("other".to_owned().into());
        assert_eq!(others.check(&token, "CA1", 1_000), None, "another secret");
        for junk in ["", ".", "..", "a.b.c.d", "💥"] {
            assert_eq!(tokens.check(junk, "CA1", 1_000), None);
        }
    }
}
