//! Sites that people sign in with, by OAuth 2 (RFC 6749, RFC 7636) and OpenID Connect.
//!
//! Five are known by name; any other OpenID Connect issuer is found by discovery at its `url`. ID tokens are verified
//! with `jsonwebtoken`, which shares the process' one cryptography provider.

mod account;
mod apple;
mod discovery;
mod fetch;
mod flow;
mod id_tokens;
mod linking;
mod profile;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use serde_json::{Map, Value};
use url::Url;

use super::options::{AuthOptions, ProviderOptions};
use discovery::{Discovery, Documents};
use fetch::{FetchError, Outbound};
use id_tokens::{Expected, IdTokenError, text};

pub(crate) use account::{Arrival, accept_invite, arrive, link, with_providers};
pub(crate) use flow::{Exchanged, Request, new_verifier};
pub(crate) use profile::Profile;

const GOOGLE: &str = "https://accounts.google.com";
const APPLE: &str = "https://appleid.apple.com";
/// Where Apple is moving its issuer to.
const APPLE_ALSO: &str = "https://account.apple.com";
const AZURE: &str = "https://login.microsoftonline.com/common";
const GITHUB: &str = "https://github.com";
const GITHUB_API: &str = "https://api.github.com";
const DISCORD: &str = "https://discord.com";

/// Why a sign-in through a provider failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// The settings do not fit.
    #[error("{0}")]
    Settings(String),
    /// The code was not accepted.
    #[error("the provider did not accept the code: {0}")]
    Code(String),
    /// The provider's answer lacks something.
    #[error("the provider's answer {0}")]
    Answer(&'static str),
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Google,
    Apple,
    Azure,
    GitHub,
    Discord,
    Oidc,
}

/// A configured provider.
#[derive(Debug)]
pub(crate) struct Provider {
    name: String,
    kind: Kind,
    /// Issuer, or base address of its API.
    base: Url,
    pub(crate) options: ProviderOptions,
}

impl Provider {
    fn new(name: &str, options: &ProviderOptions) -> Option<Self> {
        let (kind, base) = match name {
            "google" => (Kind::Google, GOOGLE),
            "apple" => (Kind::Apple, APPLE),
            "azure" => (Kind::Azure, AZURE),
            "github" => (Kind::GitHub, GITHUB),
            "discord" => (Kind::Discord, DISCORD),
            _ => (Kind::Oidc, ""),
        };
        let base = options.url.clone().or_else(|| base.parse().ok());
        let usable = options.client_ids.iter().any(|id| !id.is_empty());
        let Some(base) = base.filter(|_| usable) else {
            tracing::error!(
                provider = name,
                "this provider needs client_ids, and a url unless its name is known"
            );
            return None;
        };
        Some(Self { name: name.to_owned(), kind, base, options: options.clone() })
    }

    /// As in settings, `?provider=` and `auth.identities`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As people call it.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Google => "Google".to_owned(),
            Kind::Apple => "Apple".to_owned(),
            Kind::Azure => "Microsoft".to_owned(),
            Kind::GitHub => "GitHub".to_owned(),
            Kind::Discord => "Discord".to_owned(),
            Kind::Oidc => {
                let mut name = self.name.replace(['-', '_'], " ");
                if let Some(first) = name.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                name
            }
        }
    }

    fn client_id(&self) -> &str {
        self.options.client_ids.iter().find(|id| !id.is_empty()).map_or("", String::as_str)
    }

    fn has_id_tokens(&self) -> bool {
        !matches!(self.kind, Kind::GitHub | Kind::Discord)
    }

    /// Where its OpenID Connect document is.
    fn issuer_url(&self) -> Url {
        if self.kind == Kind::Azure && !self.base.path().trim_end_matches('/').ends_with("/v2.0") {
            return below(&self.base, "v2.0");
        }
        self.base.clone()
    }

    /// Whether the claims come from this provider's issuer.
    fn issued(&self, discovery: &Discovery, claims: &Map<String, Value>) -> bool {
        let issuer = text(claims, "iss");
        match self.kind {
            // Shared tenants publish a pattern: each token names its own tenant.
            Kind::Azure => {
                let tenant = text(claims, "tid");
                let plain =
                    !tenant.is_empty() && tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                issuer == discovery.issuer
                    || (plain && issuer == discovery.issuer.replace("{tenantid}", tenant))
            }
            Kind::Google => {
                issuer == discovery.issuer || (issuer == "accounts.google.com" && self.options.url.is_none())
            }
            Kind::Apple => issuer == discovery.issuer || (self.options.url.is_none() && issuer == APPLE_ALSO),
            _ => issuer == discovery.issuer,
        }
    }

    /// Whether `issuer`, as a client names it, is this provider's.
    fn is_issuer(&self, issuer: &str) -> bool {
        let same = |url: &Url| url.as_str().trim_end_matches('/') == issuer.trim_end_matches('/');
        match self.kind {
            Kind::GitHub | Kind::Discord => false,
            Kind::Apple => same(&self.base) || (self.options.url.is_none() && issuer == APPLE_ALSO),
            Kind::Azure => {
                let microsoft = "https://login.microsoftonline.com/";
                same(&self.issuer_url())
                    || (self.base.as_str().starts_with(microsoft) && issuer.starts_with(microsoft))
            }
            Kind::Google | Kind::Oidc => same(&self.base),
        }
    }

    fn profile(&self, claims: &Map<String, Value>) -> Profile {
        match self.kind {
            Kind::Google => profile::of_google(claims),
            Kind::Apple => profile::of_apple(claims),
            Kind::Azure => profile::of_azure(claims),
            _ => profile::of_oidc(claims),
        }
    }
}

/// `path` below an address.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// All configured providers.
pub(crate) struct Providers {
    outbound: Arc<Outbound>,
    documents: Documents,
    by_name: BTreeMap<String, Provider>,
    /// Callback address where a provider has none of its own.
    callback: Url,
}

impl Providers {
    pub(crate) fn new(options: &AuthOptions) -> Self {
        let outbound = Arc::new(Outbound::new(options.allow_private_addresses));
        let by_name = options
            .providers
            .iter()
            .filter_map(|(name, provider)| {
                Some((name.to_lowercase(), Provider::new(&name.to_lowercase(), provider)?))
            })
            .collect();
        let callback = below(&options.external_url, "callback");
        Self { documents: Documents::new(Arc::clone(&outbound)), outbound, by_name, callback }
    }

    /// By name, in whatever case.
    pub(crate) fn get(&self, name: &str) -> Option<&Provider> {
        self.by_name.get(&name.to_lowercase())
    }

    /// By the issuer of its ID tokens.
    pub(crate) fn by_issuer(&self, issuer: &str) -> Option<&Provider> {
        self.by_name.values().find(|provider| provider.is_issuer(issuer))
    }

    /// All, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Provider> {
        self.by_name.values()
    }

    /// The verified claims of an ID token, whose `at_hash` fits the access token if both are there.
    pub(crate) async fn verify(
        &self,
        provider: &Provider,
        id_token: &str,
        access_token: Option<&str>,
    ) -> Result<(Map<String, Value>, Profile), ProviderError> {
        if !provider.has_id_tokens() {
            return Err(ProviderError::Settings(format!("{} issues no ID tokens", provider.title())));
        }
        let discovery = self.discover(provider).await?;
        let issued = |claims: &Map<String, Value>| provider.issued(&discovery, claims);
        let expected = Expected {
            issuer: &issued,
            audiences: &provider.options.client_ids,
            now: Utc::now().timestamp(),
        };
        let keys = self.documents.keys(&discovery.jwks_uri).await?;
        let mut verified = id_tokens::verify(id_token, &keys.set, &expected);
        if verified == Err(IdTokenError::UnknownKey)
            && let Some(newer) = self.documents.newer_keys(&discovery.jwks_uri, &keys).await?
        {
            verified = id_tokens::verify(id_token, &newer.set, &expected);
        }
        let (claims, algorithm) = verified?;
        if let Some(access_token) = access_token {
            id_tokens::verify_access_token(&claims, algorithm, access_token)?;
        }
        let profile = provider.profile(&claims);
        Ok((claims, profile))
    }

    async fn discover(&self, provider: &Provider) -> Result<Arc<Discovery>, ProviderError> {
        let url = provider.issuer_url();
        let discovery = self.documents.discover(&url).await?;
        // Discovery §4.3: the document must be the issuer's own. Azure's shared tenants publish a pattern.
        let own = discovery.issuer.trim_end_matches('/') == url.as_str().trim_end_matches('/');
        if own || provider.kind == Kind::Azure {
            Ok(discovery)
        } else {
            Err(ProviderError::Settings(format!(
                "the document at {url} is that of issuer {}: set `url` of provider {} to the issuer",
                discovery.issuer, provider.name
            )))
        }
    }
}
