//! `longhouse.signing_keys`: made, put to use and revoked here, and read for the key ring.

use std::time::Duration as StdDuration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey};
use longhouse_database::{Database, RoleTransaction};
use secrecy::SecretString;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::import;
use super::lifecycle::{may_add, may_revoke, rotation};
use super::seal::Sealer;
use crate::KeysError;
use crate::jwks::VerifyingKey;
use crate::service::store;

/// How long others keep the published set: `max-age` of the JWKS route.
pub(crate) const PUBLISHED_SET_AGE: StdDuration = StdDuration::from_secs(600);
/// Rows that are looked at: far more than years of rotation leave unrevoked.
const COLUMNS: &str = "id, algorithm, status, created_at, changed_at";
const SECRET_BYTES: usize = 64;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// A shared secret. Whoever verifies could sign too.
    Hs256,
    /// ECDSA on P-256: short signatures, verified with the public key alone.
    Es256,
    /// RSA with 2048 bits, for verifiers that know nothing else.
    Rs256,
}

impl SigningAlgorithm {
    /// As JWT headers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    pub(crate) fn jwt(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Es256 => Algorithm::ES256,
            Self::Rs256 => Algorithm::RS256,
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "ES256" => Self::Es256,
            "RS256" => Self::Rs256,
            _ => Self::Hs256,
        }
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// Published, so that everybody knows it before it signs.
    Standby,
    /// Signs.
    Current,
    /// Signs no more, but what it signed is good.
    Previous,
    /// What it signed is refused.
    Revoked,
}

impl KeyStatus {
    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Revoked => "revoked",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "standby" => Self::Standby,
            "current" => Self::Current,
            "previous" => Self::Previous,
            _ => Self::Revoked,
        }
    }
}

/// A key, without its private part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// `kid` in the headers of tokens.
    pub id: Uuid,
    /// How it signs.
    pub algorithm: SigningAlgorithm,
    /// Where it is in its life.
    pub status: KeyStatus,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its status changed last.
    pub changed_at: DateTime<Utc>,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// There was nothing to put to use: this key now waits, published, until the next rotation.
    Published(SigningKey),
    /// This key signs from now on.
    InUse(Uuid),
}

impl SigningKey {
    /// All keys, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(database: &Database) -> Result<Vec<Self>, KeysError> {
        let tx = store::begin(database).await?;
        let keys = Self::all(&tx).await?;
        tx.commit().await?;
        Ok(keys)
    }

    /// Makes a key that waits on standby. `secret` is the project's JWT secret, which encrypts its private part.
    ///
    /// # Errors
    /// [`KeysError::Refused`] when another waits already, or the database's.
    pub async fn create(
        database: &Database,
        secret: &SecretString,
        algorithm: SigningAlgorithm,
    ) -> Result<Self, KeysError> {
        // Made first: RSA takes a while, and the table is locked.
        let new = NewKey::generate(algorithm)?;
        let tx = locked(database).await?;
        may_add(&Self::all(&tx).await?).map_err(KeysError::Refused)?;
        let key = new.insert(&tx, secret, KeyStatus::Standby).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Takes over keys that were made elsewhere: a JSON Web Key, a list or a set of them. The first that can sign does
    /// so at once, and the key that signed before becomes a previous one; so do all others of the file. Keys that are
    /// here already stay as they are. Returns the file's keys as they are now.
    ///
    /// # Errors
    /// [`KeysError::Import`] with the first key that cannot be used (then none is taken over), or the database's.
    pub async fn import(
        database: &Database,
        secret: &SecretString,
        document: &str,
    ) -> Result<Vec<Self>, KeysError> {
        let read = import::read(document)?;
        let signs = read.iter().position(|read| read.signs);
        let tx = locked(database).await?;
        let mut keys = Self::all(&tx).await?;
        let mut imported = Vec::new();
        for (index, import::Read { key, .. }) in read.into_iter().enumerate() {
            if let Some(known) = keys.iter().find(|known| known.id == key.id) {
                imported.push(known.clone());
                continue;
            }
            let status = if signs == Some(index) { KeyStatus::Current } else { KeyStatus::Previous };
            if status == KeyStatus::Current
                && let Some(before) = keys.iter().find(|key| key.status == KeyStatus::Current)
            {
                set_status(&tx, before.id, KeyStatus::Previous).await?;
            }
            let key = key.insert(&tx, secret, status).await?;
            keys.push(key.clone());
            imported.push(key);
        }
        tx.commit().await?;
        Ok(imported)
    }

    /// Puts the standby key to use; the key that signed becomes a previous one. Without a standby key, makes one,
    /// which the next rotation puts to use.
    ///
    /// # Errors
    /// [`KeysError::Refused`] while others may not know the standby key yet (unless `now`), or the database's.
    pub async fn rotate(
        database: &Database,
        secret: &SecretString,
        algorithm: SigningAlgorithm,
        now: bool,
    ) -> Result<Rotated, KeysError> {
        let known_after = if now {
            Duration::zero()
        } else {
            Duration::from_std(PUBLISHED_SET_AGE).expect("ten minutes are in range")
        };
        let tx = locked(database).await?;
        let keys = Self::all(&tx).await?;
        let Some(change) = rotation(&keys, Utc::now(), known_after).map_err(KeysError::Refused)? else {
            let key = NewKey::generate(algorithm)?.insert(&tx, secret, KeyStatus::Standby).await?;
            tx.commit().await?;
            return Ok(Rotated::Published(key));
        };
        if let Some(current) = change.demote {
            set_status(&tx, current, KeyStatus::Previous).await?;
        }
        set_status(&tx, change.promote, KeyStatus::Current).await?;
        tx.commit().await?;
        Ok(Rotated::InUse(change.promote))
    }

    /// Ends a key: what it signed is refused within seconds. `longest_token` is the life of access tokens.
    ///
    /// # Errors
    /// [`KeysError::Refused`] while it signs, or while tokens that it signed may be in use (unless `now`).
    pub async fn revoke(
        database: &Database,
        id: Uuid,
        longest_token: StdDuration,
        now: bool,
    ) -> Result<(), KeysError> {
        let longest =
            if now { Duration::zero() } else { Duration::from_std(longest_token).unwrap_or(Duration::MAX) };
        let tx = locked(database).await?;
        let keys = Self::all(&tx).await?;
        let key = keys.iter().find(|key| key.id == id).ok_or_else(|| KeysError::NoSuchKey(id.to_string()))?;
        may_revoke(key, Utc::now(), longest).map_err(KeysError::Refused)?;
        set_status(&tx, id, KeyStatus::Revoked).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn all(tx: &RoleTransaction) -> Result<Vec<Self>, longhouse_database::Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from longhouse.signing_keys order by created_at desc, id limit 1000"
        );
        Ok(tx.query(sql, &[]).await?.iter().map(Self::read).collect())
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            algorithm: SigningAlgorithm::of(row.get("algorithm")),
            status: KeyStatus::of(row.get("status")),
            created_at: row.get("created_at"),
            changed_at: row.get("changed_at"),
        }
    }
}

/// A transaction in which nobody else changes the keys.
async fn locked(database: &Database) -> Result<RoleTransaction, longhouse_database::Error> {
    let tx = store::begin(database).await?;
    tx.execute("lock table longhouse.signing_keys in share row exclusive mode", &[]).await?;
    Ok(tx)
}

async fn set_status(
    tx: &RoleTransaction,
    id: Uuid,
    status: KeyStatus,
) -> Result<(), longhouse_database::Error> {
    let sql = "update longhouse.signing_keys set status = $2, changed_at = now() where id = $1";
    tx.execute(sql, &[&id, &status.name()]).await.map(drop)
}

/// A key that is not stored yet.
pub(super) struct NewKey {
    pub(super) id: Uuid,
    pub(super) algorithm: SigningAlgorithm,
    /// A secret, PKCS #8 (ES256) or PKCS #1 (RS256); empty for keys that only verify.
    pub(super) private: Vec<u8>,
    pub(super) public: Option<Value>,
}

impl NewKey {
    fn generate(algorithm: SigningAlgorithm) -> Result<Self, KeysError> {
        let failed = || KeysError::Generate(algorithm.name());
        let id = Uuid::new_v4();
        let private = match algorithm {
            SigningAlgorithm::Hs256 => {
                let mut secret = vec![0; SECRET_BYTES];
                aws_lc_rs::rand::fill(&mut secret).map_err(|_| failed())?;
                secret
            }
            SigningAlgorithm::Es256 => {
                let random = aws_lc_rs::rand::SystemRandom::new();
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                    .map_err(|_| failed())?
                    .as_ref()
                    .to_vec()
            }
            SigningAlgorithm::Rs256 => {
                let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| failed())?;
                rsa_private_key(pair.as_der().map_err(|_| failed())?.as_ref()).ok_or_else(failed)?
            }
        };
        let public = match algorithm {
            SigningAlgorithm::Hs256 => None,
            _ => Some(public_jwk(id, algorithm, &private).ok_or_else(failed)?),
        };
        Ok(Self { id, algorithm, private, public })
    }

    async fn insert(
        self,
        tx: &RoleTransaction,
        secret: &SecretString,
        status: KeyStatus,
    ) -> Result<SigningKey, longhouse_database::Error> {
        let sealed = Sealer::new(secret).seal(self.id, &self.private);
        let sql = const_format::concatcp!(
            "insert into longhouse.signing_keys (id, algorithm, status, sealed_key, public_jwk)
             values ($1, $2, $3, $4, $5) returning ",
            COLUMNS
        );
        let rows =
            tx.query(sql, &[&self.id, &self.algorithm.name(), &status.name(), &sealed, &self.public]).await?;
        Ok(SigningKey::read(rows.first().expect("an insert returns its row")))
    }
}

/// The public part of a private key, as it is published.
pub(super) fn public_jwk(id: Uuid, algorithm: SigningAlgorithm, private: &[u8]) -> Option<Value> {
    let mut jwk = Jwk::from_encoding_key(&encoding(algorithm, private), algorithm.jwt()).ok()?;
    jwk.common.key_id = Some(id.to_string());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
    serde_json::to_value(jwk).ok()
}

/// The PKCS #1 key inside of a PKCS #8 one (RFC 5208): past version and algorithm, in an octet string.
pub(super) fn rsa_private_key(pkcs8: &[u8]) -> Option<Vec<u8>> {
    const HEAD: usize = 26;
    let (head, key) = pkcs8.split_at_checked(HEAD)?;
    // An octet string whose length takes two bytes, to the end of the document.
    let length = usize::from(u16::from_be_bytes([head[HEAD - 2], head[HEAD - 1]]));
    (head[HEAD - 4..HEAD - 2] == [0x04, 0x82] && length == key.len()).then(|| key.to_vec())
}

fn encoding(algorithm: SigningAlgorithm, private: &[u8]) -> EncodingKey {
    match algorithm {
        SigningAlgorithm::Hs256 => EncodingKey::from_secret(private),
        SigningAlgorithm::Es256 => EncodingKey::from_ec_der(private),
        SigningAlgorithm::Rs256 => EncodingKey::from_rsa_der(private),
    }
}

/// The keys of the table as a server uses them.
#[derive(Default)]
pub(crate) struct Stored {
    /// Row versions, to tell whether anything changed.
    pub(crate) versions: Vec<(Uuid, DateTime<Utc>)>,
    /// What tokens may be verified with.
    pub(crate) verifying: Vec<VerifyingKey>,
    /// What tokens are signed with; unset: the project's secret.
    pub(crate) signing: Option<(Uuid, Algorithm, EncodingKey)>,
    /// Public keys, for everybody.
    pub(crate) published: Vec<Value>,
}

impl Stored {
    /// Reads all keys that are not revoked. A key that cannot be decrypted is left out (with a line in the log):
    /// people can sign in all the same.
    pub(crate) async fn read(
        tx: &RoleTransaction,
        secret: &SecretString,
    ) -> Result<Self, longhouse_database::Error> {
        let sql = "select id, algorithm, status, created_at, changed_at, sealed_key, public_jwk
            from longhouse.signing_keys where status <> 'revoked' order by created_at desc, id limit 100";
        let rows = tx.query(sql, &[]).await?;
        let sealer = Sealer::new(secret);
        let mut stored = Self::default();
        for row in &rows {
            let key = SigningKey::read(row);
            stored.versions.push((key.id, key.changed_at));
            let public = row.get::<_, Option<Value>>("public_jwk");
            // Only what signs, and secrets, are ever decrypted.
            let private = (key.status == KeyStatus::Current || public.is_none()).then(|| {
                let opened = sealer.open(key.id, row.get("sealed_key"));
                if opened.is_none() {
                    tracing::error!(error = %KeysError::Sealed(key.id), "a signing key is left out");
                }
                opened
            });
            let private = private.flatten();
            let verifying = match (&public, &private) {
                (Some(jwk), _) => {
                    serde_json::from_value(jwk.clone()).ok().and_then(|jwk| VerifyingKey::public(&jwk))
                }
                (None, Some(secret)) => VerifyingKey::secret(&key.id.to_string(), secret),
                (None, None) => None,
            };
            stored.verifying.extend(verifying);
            stored.published.extend(public);
            if let (KeyStatus::Current, Some(private)) = (key.status, private) {
                stored.signing = Some((key.id, key.algorithm.jwt(), encoding(key.algorithm, &private)));
            }
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, Validation, decode, encode};
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(SigningAlgorithm::Es256)]
    #[case(SigningAlgorithm::Rs256)]
    fn what_a_made_key_signs_its_public_part_verifies(#[case] algorithm: SigningAlgorithm) {
        let key = NewKey::generate(algorithm).unwrap();
        let jwk = key.public.clone().unwrap();
        assert_eq!(jwk["kid"], json!(key.id.to_string()));
        assert_eq!((&jwk["alg"], &jwk["use"]), (&json!(algorithm.name()), &json!("sig")));
        assert!(jwk.get("d").is_none(), "the private part is not published");
        let verifying = VerifyingKey::public(&serde_json::from_value(jwk).unwrap()).unwrap();
        let claims = json!({ "sub": "x", "exp": Utc::now().timestamp() + 60 });
        let token =
            encode(&Header::new(algorithm.jwt()), &claims, &encoding(algorithm, &key.private)).unwrap();
        let decoded = decode::<Value>(&token, &verifying.key, &Validation::new(algorithm.jwt())).unwrap();
        assert_eq!(decoded.claims["sub"], "x");
    }
}
