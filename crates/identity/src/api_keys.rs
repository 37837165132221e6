//! Opaque API keys: made here, shown once, kept as hashes in `longhouse.api_keys`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use constant_time_eq::constant_time_eq_32;
use longhouse_database::{Database, RoleTransaction};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::KeysError;
use crate::service::store;

/// Every process compares with all of them, so their number is bounded.
pub(crate) const MOST_KEYS: usize = 1000;
const LONGEST_NAME: usize = 100;
/// Characters of a key that are kept to tell keys apart, behind `sb_…_`.
const SHOWN: usize = 5;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyKind {
    /// For pages and apps: role `anon`. May be public.
    Publishable,
    /// For servers: role `service_role`, past row-level security.
    Secret,
}

impl ApiKeyKind {
    /// `publishable` or `secret`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publishable => "publishable",
            Self::Secret => "secret",
        }
    }

    /// The role that requests with such a key act as.
    pub fn role(self) -> &'static str {
        match self {
            Self::Publishable => "anon",
            Self::Secret => "service_role",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Publishable => "sb_publishable_",
            Self::Secret => "sb_secret_",
        }
    }

    fn of(name: &str) -> Self {
        if name == "secret" { Self::Secret } else { Self::Publishable }
    }
}

/// What is kept of a key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Names it in commands.
    pub id: Uuid,
    /// Who uses it.
    pub name: String,
    /// What it is for.
    pub kind: ApiKeyKind,
    /// Its first characters.
    pub prefix: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When a server last noted its use (up to a minute late).
    pub last_used_at: Option<DateTime<Utc>>,
    /// Since when it opens nothing.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Makes a key and stores its hash. The key itself is returned once and kept nowhere.
    ///
    /// # Errors
    /// [`KeysError::Name`], [`KeysError::TooMany`], or the database's.
    pub async fn create(
        database: &Database,
        kind: ApiKeyKind,
        name: &str,
    ) -> Result<(Self, SecretString), KeysError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            return Err(KeysError::Name);
        }
        let key = generate(kind.prefix());
        let shown: String = key.chars().take(kind.prefix().len() + SHOWN).collect();
        let tx = store::begin(database).await?;
        let count = tx.query("select count(*) from longhouse.api_keys where revoked_at is null", &[]).await?;
        let count = count.first().map_or(0, |row| row.get::<_, i64>(0));
        if usize::try_from(count).is_ok_and(|count| count >= MOST_KEYS) {
            return Err(KeysError::TooMany(MOST_KEYS));
        }
        let sql = "insert into longhouse.api_keys (name, kind, prefix, hash) values ($1, $2, $3, $4)
            returning id, name, kind, prefix, created_at, last_used_at, revoked_at";
        let hash = hash(&key).to_vec();
        let rows = tx.query(sql, &[&name, &kind.name(), &shown, &hash]).await?;
        let kept = Self::read(rows.first().expect("an insert returns its row"));
        tx.commit().await?;
        Ok((kept, key.into()))
    }

    /// All keys, newest first, revoked ones at the end.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(database: &Database) -> Result<Vec<Self>, KeysError> {
        let tx = store::begin(database).await?;
        let sql =
            "select id, name, kind, prefix, created_at, last_used_at, revoked_at from longhouse.api_keys
            order by revoked_at is not null, created_at desc limit 2000";
        let keys = tx.query(sql, &[]).await?.iter().map(Self::read).collect();
        tx.commit().await?;
        Ok(keys)
    }

    /// Ends a key. Every server follows within seconds. False when there is no such key in use.
    ///
    /// # Errors
    /// The database's.
    pub async fn revoke(database: &Database, id: Uuid) -> Result<bool, KeysError> {
        let tx = store::begin(database).await?;
        let sql = "update longhouse.api_keys set revoked_at = now() where id = $1 and revoked_at is null";
        let revoked = tx.execute(sql, &[&id]).await? > 0;
        tx.commit().await?;
        Ok(revoked)
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            name: row.get("name"),
            kind: ApiKeyKind::of(row.get("kind")),
            prefix: row.get("prefix"),
            created_at: row.get("created_at"),
            last_used_at: row.get("last_used_at"),
            revoked_at: row.get("revoked_at"),
        }
    }
}

/// A key as servers compare with it.
#[derive(Debug, Clone)]
pub(crate) struct KnownApiKey {
    pub(crate) id: Uuid,
    pub(crate) kind: ApiKeyKind,
    hash: [u8; 32],
    /// Set by a request, taken by whoever notes the use in the table.
    used: Arc<AtomicBool>,
}

impl KnownApiKey {
    /// Those in use.
    pub(crate) async fn all(tx: &RoleTransaction) -> Result<Vec<Self>, longhouse_database::Error> {
        let sql = "select id, kind, hash from longhouse.api_keys where revoked_at is null
            order by created_at desc, id limit 1000";
        let read = |row: &Row| {
            Some(Self {
                id: row.get("id"),
                kind: ApiKeyKind::of(row.get("kind")),
                hash: row.get::<_, &[u8]>("hash").try_into().ok()?,
                used: Arc::default(),
            })
        };
        Ok(tx.query(sql, &[]).await?.iter().filter_map(read).collect())
    }

    /// The kind of a key, if it is one of these. Compares hashes, each in constant time, to the last.
    pub(crate) fn find(known: &[Self], key: &str) -> Option<ApiKeyKind> {
        let hash = hash(key);
        let mut found = None;
        for known in known {
            if constant_time_eq_32(&known.hash, &hash) {
                found = Some(known);
            }
        }
        found.inspect(|key| key.used.store(true, Ordering::Relaxed)).map(|key| key.kind)
    }

    /// Notes the use of those that were used since the last time.
    pub(crate) async fn note_use(
        known: &[Self],
        database: &Database,
    ) -> Result<(), longhouse_database::Error> {
        let used: Vec<Uuid> =
            known.iter().filter(|key| key.used.swap(false, Ordering::Relaxed)).map(|key| key.id).collect();
        if used.is_empty() {
            return Ok(());
        }
        let tx = store::begin(database).await?;
        tx.execute("update longhouse.api_keys set last_used_at = now() where id = any ($1)", &[&used])
            .await?;
        tx.commit().await
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// `<prefix><22 random characters>_<8 of their hash>`: a mistyped key is told from an unknown one at sight.
pub(crate) fn generate(prefix: &str) -> String {
    let random = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    let check = URL_SAFE_NO_PAD.encode(Sha256::digest(random.as_bytes()));
    format!("{prefix}{random}_{}", &check[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_alone() {
        let known =
            |key: &str, kind| KnownApiKey { id: Uuid::nil(), kind, hash: hash(key), used: Arc::default() };
        let (publishable, secret) = (generate("sb_publishable_"), generate("sb_secret_"));
        let keys = [known(&publishable, ApiKeyKind::Publishable), known(&secret, ApiKeyKind::Secret)];
        assert_eq!(KnownApiKey::find(&keys, &publishable), Some(ApiKeyKind::Publishable));
        assert_eq!(KnownApiKey::find(&keys, &secret), Some(ApiKeyKind::Secret));
        assert_eq!(KnownApiKey::find(&keys, &secret[..secret.len() - 1]), None);
        assert_eq!(KnownApiKey::find(&keys, ""), None);
    }

    #[test]
    fn keys_are_long_enough_and_differ() {
        let key = generate("sb_secret_");
        assert_eq!(key.len(), "sb_secret_".len() + 22 + 1 + 8);
        assert_ne!(key, generate("sb_secret_"));
    }
}
