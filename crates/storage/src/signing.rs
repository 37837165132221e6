//! Tokens of signed URLs: what they open, for whom, until when.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest life of a signed URL: 100 years.
pub const LONGEST: u64 = 100 * 366 * 24 * 60 * 60;

/// Opens one object for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadToken {
    /// `bucket/name`.
    pub url: String,
    scope: Download,
    /// How the image is transformed, in the form of the render routes; unset for the file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformations: Option<String>,
    iat: u64,
    /// Seconds since 1970 at which it stops to open.
    pub exp: u64,
}

/// Lets one object be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadToken {
    /// `bucket/name`.
    pub url: String,
    scope: Upload,
    /// Who asked for it, and will own the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether it may replace an object.
    pub upsert: bool,
    iat: u64,
    /// Seconds since 1970 at which it stops to open.
    pub exp: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Download {
    #[serde(rename = "storage.download")]
    Download,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Upload {
    #[serde(rename = "storage.upload")]
    Upload,
}

/// Signs URLs. Its tokens open nothing else: they are no session, whatever they hold.
#[derive(Clone)]
pub struct SigningKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey")
    }
}

impl SigningKey {
    /// A key of its own, derived from the project's JWT secret: all servers of a project agree on it, and who learns
    /// one does not know the other.
    pub fn derive(jwt_secret: &SecretString) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, jwt_secret.expose_secret().as_bytes());
        let key = hmac::sign(&secret, b"longhouse storage: signed URLs");
        Self {
            encoding: EncodingKey::from_secret(key.as_ref()),
            decoding: DecodingKey::from_secret(key.as_ref()),
        }
    }

    /// A token that opens `bucket/name` for some seconds.
    pub fn download(&self, url: &str, seconds: u64, transformations: Option<String>) -> String {
        let (iat, exp) = life(seconds);
        self.sign(&DownloadToken { url: url.into(), scope: Download::Download, transformations, iat, exp })
    }

    /// A token with which `bucket/name` can be uploaded for some seconds.
    pub fn upload(&self, url: &str, seconds: u64, owner: Option<&str>, upsert: bool) -> String {
        let (iat, exp) = life(seconds);
        let owner = owner.map(str::to_owned);
        self.sign(&UploadToken { url: url.into(), scope: Upload::Upload, owner, upsert, iat, exp })
    }

    /// Reads a token for downloading `bucket/name`.
    ///
    /// # Errors
    /// [`Error::InvalidJwt`], [`Error::ExpiredSignature`] or [`Error::InvalidSignature`].
    pub fn verify_download(&self, token: &str, url: &str) -> Result<DownloadToken, Error> {
        let token: DownloadToken = self.verify(token)?;
        same_object(&token.url, url).map(|()| token)
    }

    /// Reads a token for uploading `bucket/name`.
    ///
    /// # Errors
    /// As [`Self::verify_download`].
    pub fn verify_upload(&self, token: &str, url: &str) -> Result<UploadToken, Error> {
        let token: UploadToken = self.verify(token)?;
        same_object(&token.url, url).map(|()| token)
    }

    fn sign<T: Serialize>(&self, claims: &T) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("these claims are JSON, and any bytes are an HMAC key")
    }

    fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T, Error> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_aud = false;
        validation.leeway = 0;
        match decode::<T>(token, &self.decoding, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => Error::ExpiredSignature,
                ErrorKind::InvalidSignature => Error::InvalidJwt("signature verification failed"),
                // Signed by us, for something else.
                ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => {
                    Error::InvalidSignature("Invalid signature: this token is for another use")
                }
                _ => Error::InvalidJwt("Invalid Compact JWS"),
            }),
        }
    }
}

fn same_object(signed: &str, asked: &str) -> Result<(), Error> {
    if signed == asked { Ok(()) } else { Err(Error::InvalidSignature("Invalid signature")) }
}

fn life(seconds: u64) -> (u64, u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    (now, now + seconds.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::derive(&"a secret of at least thirty-two characters".into())
    }

    #[test]
    fn tokens_open_what_they_were_signed_for() {
        let token = key().download("a/b.txt", 60, None);
        assert_eq!(key().verify_download(&token, "a/b.txt").unwrap().url, "a/b.txt");
        assert!(matches!(key().verify_download(&token, "a/c.txt"), Err(Error::InvalidSignature(_))));
        assert!(matches!(key().verify_upload(&token, "a/b.txt"), Err(Error::InvalidSignature(_))));
        let upload = key().upload("a/b.txt", 60, Some("me"), true);
        let read = key().verify_upload(&upload, "a/b.txt").unwrap();
        assert_eq!((read.owner.as_deref(), read.upsert), (Some("me"), true));
        assert!(matches!(key().verify_download(&upload, "a/b.txt"), Err(Error::InvalidSignature(_))));
    }

    #[test]
    fn tokens_of_others_and_of_the_past_open_nothing() {
        let other = SigningKey::derive(&"another secret of at least thirty-two chars".into());
        let token = other.download("a/b.txt", 60, None);
        assert!(matches!(key().verify_download(&token, "a/b.txt"), Err(Error::InvalidJwt(_))));
        assert!(matches!(key().verify_download("x", "a/b.txt"), Err(Error::InvalidJwt(_))));
        let past = DownloadToken {
            url: "a/b.txt".into(),
            scope: Download::Download,
            transformations: None,
            iat: 0,
            exp: 1,
        };
        let past = key().sign(&past);
        assert!(matches!(key().verify_download(&past, "a/b.txt"), Err(Error::ExpiredSignature)));
        // The project's own secret signs sessions, not URLs.
        let secret = EncodingKey::from_secret(b"a secret of at least thirty-two characters");
        let claims =
            serde_json::json!({"url": "a/b.txt", "scope": "storage.download", "iat": 0, "exp": u32::MAX});
        let session = encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert!(key().verify_download(&session, "a/b.txt").is_err());
    }
}
