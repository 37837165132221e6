//! Every key that tokens are signed and verified with: a snapshot in memory that follows the database's tables, and
//! a hosted project's published keys. Verification reads it without waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey};
use longhouse_database::Database;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::api_keys::KnownApiKey;
use crate::external::External;
use crate::jwks::VerifyingKey;
use crate::service::Stored;
use crate::service::store::begin;
use crate::{KeysError, ProjectKeys};

/// How often the tables are looked at: the longest that a revoked key stays good.
const FOLLOW_EVERY: Duration = Duration::from_secs(3);
/// How often a hosted project's keys are fetched without anybody asking.
const FETCH_EVERY: Duration = Duration::from_secs(600);
/// Unknown keys make a server look at most this often: whoever invents them waits, and costs next to nothing.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// The same for a hosted project, which is somebody else's server.
const FETCH_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// How often the use of API keys is noted.
const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// The project's keys. Cheap to clone; all clones see the same snapshot.
#[derive(Clone)]
pub struct KeyRing {
    inner: Arc<Inner>,
}

struct Inner {
    secret: SecretString,
    secret_key: EncodingKey,
    /// Tokens without a key id were signed with the project's secret; `None` if that is empty.
    secret_verifying: Option<VerifyingKey>,
    snapshot: ArcSwap<Snapshot>,
    database: Option<Database>,
    external: Option<External>,
    looked: Mutex<Looked>,
}

/// When the sources were last asked.
#[derive(Default)]
struct Looked {
    database: Option<Instant>,
    /// For a request, apart from following.
    asked: Option<Instant>,
    external: Option<Instant>,
}

/// What is known at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Grows when keys change: what was verified in an earlier one is verified anew.
    pub(crate) epoch: u64,
    versions: Vec<(Uuid, DateTime<Utc>)>,
    own: HashMap<String, VerifyingKey>,
    hosted: HashMap<String, VerifyingKey>,
    pub(crate) signing: Option<(Uuid, Algorithm, EncodingKey)>,
    pub(crate) published: Vec<Value>,
    pub(crate) api_keys: Vec<KnownApiKey>,
}

impl Snapshot {
    /// The key that a token names.
    pub(crate) fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.own.get(kid).or_else(|| self.hosted.get(kid))
    }
}

impl KeyRing {
    /// The keys of `keys.json` and the settings alone.
    pub fn new(keys: &ProjectKeys) -> Self {
        let secret = keys.jwt_secret.expose_secret().as_bytes();
        Self {
            inner: Arc::new(Inner {
                secret_key: EncodingKey::from_secret(secret),
                secret_verifying: VerifyingKey::secret("", secret),
                secret: keys.jwt_secret.clone(),
                snapshot: ArcSwap::default(),
                database: None,
                external: None,
                looked: Mutex::default(),
            }),
        }
    }

    /// Adds the signing keys and API keys of the database, once [`Self::refresh`] has read them.
    #[must_use]
    pub fn with_database(self, database: Database) -> Self {
        self.rebuilt(|inner| inner.database = Some(database))
    }

    /// Adds the keys that a hosted project publishes, once [`Self::refresh`] has fetched them.
    #[must_use]
    pub fn with_external(self, external: External) -> Self {
        self.rebuilt(|inner| inner.external = Some(external))
    }

    fn rebuilt(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner {
            secret: self.inner.secret.clone(),
            secret_key: self.inner.secret_key.clone(),
            secret_verifying: self.inner.secret_verifying.clone(),
            snapshot: ArcSwap::new(self.inner.snapshot.load_full()),
            database: self.inner.database.clone(),
            external: self.inner.external.clone(),
            looked: Mutex::default(),
        };
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.inner.snapshot.load()
    }

    pub(crate) fn secret_key(&self) -> &EncodingKey {
        &self.inner.secret_key
    }

    pub(crate) fn secret_verifying(&self) -> Option<&VerifyingKey> {
        self.inner.secret_verifying.as_ref()
    }

    /// A code of `message` that only holders of the project's secret can compute; every server of the project computes
    /// the same.
    pub(crate) fn authenticate(&self, message: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.inner.secret.expose_secret().as_bytes());
        hmac::sign(&key, message).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Reads the tables and fetches the hosted project's keys now. What cannot be had stays as it was.
    ///
    /// # Errors
    /// The first of what failed; the rest was done.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        let mut looked = self.inner.looked.lock().await;
        let external = self.look_outside(&mut looked).await;
        self.look_inside(&mut looked).await.and(external)
    }

    /// Follows the sources until the handle is aborted.
    pub fn follow(&self) -> JoinHandle<()> {
        let ring = self.clone();
        tokio::spawn(async move {
            let mut noted = Instant::now();
            // Said once when it begins and once when it ends, not every few seconds.
            let mut failing = false;
            loop {
                tokio::time::sleep(FOLLOW_EVERY).await;
                let result = ring.follow_once(&mut noted).await;
                match (&result, failing) {
                    (Err(error), false) => tracing::warn!(%error, "keys stay as they are"),
                    (Ok(()), true) => tracing::info!("keys are followed again"),
                    _ => {}
                }
                failing = result.is_err();
            }
        })
    }

    async fn follow_once(&self, noted: &mut Instant) -> Result<(), KeysError> {
        let mut looked = self.inner.looked.lock().await;
        let outside = match looked.external.is_none_or(|at| at.elapsed() >= FETCH_EVERY) {
            true => self.look_outside(&mut looked).await,
            false => Ok(()),
        };
        self.look_inside(&mut looked).await?;
        drop(looked);
        if let Some(database) = &self.inner.database
            && noted.elapsed() >= NOTE_USE_EVERY
        {
            *noted = Instant::now();
            KnownApiKey::note_use(&self.snapshot().api_keys.clone(), database).await?;
        }
        outside
    }

    /// Whether a request's headers name a key that is not known here: then [`Self::refresh_for`] may help.
    /// `known` spares a token whose key was found before from being read.
    pub(crate) fn lacks(&self, headers: &HeaderMap, known: impl Fn(&str) -> bool) -> bool {
        if self.inner.database.is_none() && self.inner.external.is_none() {
            return false;
        }
        let bearer = crate::credential(headers).ok().flatten();
        let apikey = headers.get("apikey").and_then(|value| value.to_str().ok()).map(str::trim);
        let snapshot = self.snapshot();
        [bearer, apikey].into_iter().flatten().any(|token| {
            let unknown_kid = || {
                jsonwebtoken::decode_header(token)
                    .is_ok_and(|header| header.kid.is_some_and(|kid| snapshot.key(&kid).is_none()))
            };
            !known(token) && (token.starts_with("sb_") || unknown_kid())
        })
    }

    /// Looks at the sources for a request that names an unknown key. However many such requests come, the database is
    /// asked once a second, and all that wait for that second share the answer.
    pub(crate) async fn look_again(&self, still_lacking: impl Fn() -> bool) {
        let arrived = Instant::now();
        let mut looked = self.inner.looked.lock().await;
        // Whoever had the lock before may have brought it, or learnt that there is none.
        let since = |at: Option<Instant>| at.is_some_and(|at| at >= arrived);
        if !still_lacking() {
            return;
        }
        if self.inner.database.is_some() && !since(looked.database) {
            if let Some(asked) = looked.asked {
                tokio::time::sleep_until(asked + LOOK_AT_MOST_EVERY).await;
            }
            looked.asked = Some(Instant::now());
            if let Err(error) = self.look_inside(&mut looked).await {
                tracing::warn!(%error, "an unknown key cannot be looked up");
            }
        }
        let due = looked.external.is_none_or(|at| at.elapsed() >= FETCH_AT_MOST_EVERY);
        if due
            && still_lacking()
            && let Err(error) = self.look_outside(&mut looked).await
        {
            tracing::warn!(%error, "an unknown key cannot be looked up");
        }
    }

    /// Callers hold the lock, so snapshots follow each other.
    async fn look_inside(&self, looked: &mut Looked) -> Result<(), KeysError> {
        let Some(database) = &self.inner.database else { return Ok(()) };
        // Also when it fails: an unreachable database is not asked for every request.
        looked.database = Some(Instant::now());
        let tx = begin(database).await?;
        let mut stored = Stored::read(&tx, &self.inner.secret).await?;
        let api_keys = KnownApiKey::all(&tx).await?;
        tx.commit().await?;
        stored.versions.sort_unstable();
        let before = self.inner.snapshot.load_full();
        let same_api_keys = before.api_keys.len() == api_keys.len()
            && before.api_keys.iter().zip(&api_keys).all(|(before, now)| before.id == now.id);
        if before.versions == stored.versions && same_api_keys {
            return Ok(());
        }
        self.inner.snapshot.store(Arc::new(Snapshot {
            epoch: before.epoch + 1,
            versions: stored.versions,
            own: by_id(stored.verifying),
            hosted: before.hosted.clone(),
            signing: stored.signing,
            published: stored.published,
            api_keys,
        }));
        Ok(())
    }

    async fn look_outside(&self, looked: &mut Looked) -> Result<(), KeysError> {
        let Some(external) = &self.inner.external else { return Ok(()) };
        looked.external = Some(Instant::now());
        let hosted = by_id(external.fetch().await?);
        let before = self.inner.snapshot.load_full();
        if before.hosted.len() == hosted.len() && hosted.keys().all(|kid| before.hosted.contains_key(kid)) {
            return Ok(());
        }
        self.inner.snapshot.store(Arc::new(Snapshot {
            epoch: before.epoch + 1,
            versions: before.versions.clone(),
            own: before.own.clone(),
            hosted,
            signing: before.signing.clone(),
            published: before.published.clone(),
            api_keys: before.api_keys.clone(),
        }));
        Ok(())
    }
}

fn by_id(keys: Vec<VerifyingKey>) -> HashMap<String, VerifyingKey> {
    keys.into_iter().map(|key| (key.kid.clone(), key)).collect()
}
