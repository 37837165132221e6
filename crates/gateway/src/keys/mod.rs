//! Keys of providers: who may use which.
//!
//! [`KeySource`] is the seam: [`StaticKeys`] serves the operator's keys from configuration and environment; keys that
//! people bring themselves come from [`PostgresKeys`], which keeps them in [`envelope`]s.

pub mod envelope;
pub mod import;
mod postgres;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use crate::Error;
use crate::model::ProviderName;

pub use postgres::{Holder, NewKey, PostgresKeys, StoredKey};

/// On whose behalf a call is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The application: `stories`, `npc`.
    pub app: String,
    /// The person.
    pub user: Option<Uuid>,
    /// The tenant, where the application has tenants.
    pub tenant: Option<Uuid>,
    /// The project, where the application has projects.
    pub project: Option<Uuid>,
}

/// A key as an adapter uses it. Its secret never appears in `Debug`.
#[derive(Clone)]
pub struct ApiKey {
    secret: SecretString,
    /// Names the key in breakers, limits and the ledger without giving anything away.
    id: Arc<str>,
    /// A server of the owner's own.
    base_url: Option<Url>,
    /// Whether the owner pays for it.
    own: bool,
}

impl ApiKey {
    /// A key; its id is taken from its hash.
    #[must_use]
    pub fn new(secret: SecretString) -> Self {
        let digest = Sha256::digest(secret.expose_secret().as_bytes());
        Self { id: hex::encode(&digest[..6]).into(), secret, base_url: None, own: false }
    }

    /// With an id of a store's.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.into();
        self
    }

    /// For a server that the key's owner named. Only public addresses are asked, whatever the operator trusts.
    #[must_use]
    pub fn with_base_url(mut self, base_url: Url) -> Self {
        self.base_url = Some(base_url);
        self
    }

    /// Brought by the call's owner, who pays for it.
    #[must_use]
    pub fn owned(mut self) -> Self {
        self.own = true;
        self
    }

    /// Whether the call's owner brought it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The owner's own server.
    #[must_use]
    pub fn base_url(&self) -> Option<&Url> {
        self.base_url.as_ref()
    }

    /// The secret, for the header that carries it.
    pub(crate) fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// As people may see it: the last four characters of a long key.
    #[must_use]
    pub fn masked(&self) -> String {
        mask(self.secret.expose_secret())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

/// `***` and the last four characters, if there are enough to hide.
#[must_use]
pub fn mask(secret: &str) -> String {
    let characters: Vec<char> = secret.chars().collect();
    if characters.len() < 12 {
        return "***".to_owned();
    }
    format!("***{}", characters[characters.len() - 4..].iter().collect::<String>())
}

/// Finds the key for a call.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The key that `owner` uses at `provider`: their own before the platform's; `None` if there is neither.
    ///
    /// # Errors
    /// [`Error::Records`] when keys cannot be read; the call is then not made with another key.
    async fn key(&self, owner: &Owner, provider: &ProviderName) -> Result<Option<ApiKey>, Error>;
}

/// The operator's keys.
#[derive(Debug, Clone, Default)]
pub struct StaticKeys {
    keys: HashMap<ProviderName, ApiKey>,
}

impl StaticKeys {
    /// Adds the key of a provider.
    #[must_use]
    pub fn with(mut self, provider: &str, secret: SecretString) -> Self {
        self.keys.insert(ProviderName::new(provider), ApiKey::new(secret));
        self
    }

    /// Whether there is a key of this provider.
    #[must_use]
    pub fn has(&self, provider: &ProviderName) -> bool {
        self.keys.contains_key(provider)
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[async_trait]
impl KeySource for StaticKeys {
    async fn key(&self, _: &Owner, provider: &ProviderName) -> Result<Option<ApiKey>, Error> {
        Ok(self.keys.get(provider).cloned())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sk-proj-abcdefghijkl", "***ijkl")]
    #[case("short", "***")]
    #[case("", "***")]
    fn keys_are_masked(#[case] secret: &str, #[case] shown: &str) {
        assert_eq!(mask(secret), shown);
    }

    #[test]
    fn a_secret_shows_nowhere() {
        let key = ApiKey::new(SecretString::from("sk-planted-marker"));
        assert!(!format!("{key:?}").contains("planted"));
        assert!(!key.id().contains("planted"));
    }
}
