//! What an OpenID Connect issuer says about itself (OpenID Connect Discovery 1.0), and its keys (RFC 7517), cached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::fetch::{FetchError, Outbound};

/// How long documents are believed.
const FRESH: Duration = Duration::from_secs(3600);
/// Keys younger than this are not fetched again for a key id that they lack: strangers choose key ids.
const REFETCH: Duration = Duration::from_secs(15);
/// Most issuers remembered.
const MOST_ISSUERS: u64 = 64;

/// The parts of an issuer's document that we use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Discovery {
    pub(crate) issuer: String,
    pub(crate) authorization_endpoint: Url,
    pub(crate) token_endpoint: Url,
    pub(crate) userinfo_endpoint: Option<Url>,
    pub(crate) jwks_uri: Url,
    #[serde(default)]
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Keys of an issuer.
pub(crate) struct Keys {
    pub(crate) set: JwkSet,
    fetched: Instant,
}

/// Documents of issuers.
pub(crate) struct Documents {
    outbound: Arc<Outbound>,
    discoveries: Cache<Url, Arc<Discovery>>,
    keys: Cache<Url, Arc<Keys>>,
}

impl Documents {
    pub(crate) fn new(outbound: Arc<Outbound>) -> Self {
        Self {
            outbound,
            discoveries: Cache::builder().max_capacity(MOST_ISSUERS).time_to_live(FRESH).build(),
            keys: Cache::builder().max_capacity(MOST_ISSUERS).time_to_live(FRESH).build(),
        }
    }

    /// The document of the issuer at that address; many at once fetch once.
    pub(crate) async fn discover(&self, issuer: &Url) -> Result<Arc<Discovery>, FetchError> {
        let fetch = async {
            let mut url = issuer.clone();
            url.set_path(&format!(
                "{}/.well-known/openid-configuration",
                issuer.path().trim_end_matches('/')
            ));
            let document: Discovery = self.outbound.get_json(&url, None).await?;
            Ok(Arc::new(document))
        };
        self.discoveries
            .try_get_with_by_ref(issuer, fetch)
            .await
            .map_err(|error: Arc<FetchError>| (*error).clone())
    }

    /// The keys there.
    pub(crate) async fn keys(&self, url: &Url) -> Result<Arc<Keys>, FetchError> {
        let fetch = async { self.fetch_keys(url).await };
        self.keys.try_get_with_by_ref(url, fetch).await.map_err(|error: Arc<FetchError>| (*error).clone())
    }

    /// The keys there, fetched again because `known` lack one. Keeps what it has if that fails.
    pub(crate) async fn newer_keys(&self, url: &Url, known: &Keys) -> Result<Option<Arc<Keys>>, FetchError> {
        if known.fetched.elapsed() < REFETCH {
            return Ok(None);
        }
        let keys = self.fetch_keys(url).await?;
        self.keys.insert(url.clone(), Arc::clone(&keys)).await;
        Ok(Some(keys))
    }

    async fn fetch_keys(&self, url: &Url) -> Result<Arc<Keys>, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = self.outbound.get_json(url, None).await?;
        // Keys of kinds that we do not know are none of our business.
        let keys: Vec<Jwk> =
            document.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        Ok(Arc::new(Keys { set: JwkSet { keys }, fetched: Instant::now() }))
    }
}

#[cfg(test)]
mod tests {
    use longhouse_emulators::oidc::{Options, Server};

    use super::*;

    #[tokio::test]
    async fn keys_are_fetched_again_only_when_they_are_not_brand_new() {
        let server = Server::start(Options::default()).await.unwrap();
        let documents = Documents::new(Arc::new(Outbound::new(true)));
        let discovery = documents.discover(&server.issuer()).await.unwrap();
        let keys = documents.keys(&discovery.jwks_uri).await.unwrap();
        server.rotate_keys(true);
        assert!(documents.newer_keys(&discovery.jwks_uri, &keys).await.unwrap().is_none());
        assert_eq!(server.hits("/jwks.json"), 1);

        let older = Keys { set: keys.set.clone(), fetched: Instant::now() - REFETCH };
        let newer = documents.newer_keys(&discovery.jwks_uri, &older).await.unwrap().unwrap();
        assert!(newer.set.find("key-2").is_some());
        assert_eq!(documents.keys(&discovery.jwks_uri).await.unwrap().set.keys.len(), 2, "and remembered");
        assert_eq!(server.hits("/jwks.json"), 2);
        assert_eq!(server.hits("/plain/.well-known/openid-configuration"), 1);
    }
}
