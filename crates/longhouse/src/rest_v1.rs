//! `/rest/v1`: the REST API of the server, under the project's own keys and tokens.

use std::sync::Arc;

use axum::Router;
use longhouse_config::Config;
use longhouse_database::Database;
use longhouse_identity::{AuthError, Verifier, verify_headers};
use longhouse_rest::api::{Authenticate, Identity, RestApi};
use longhouse_rest::config_file::Settings;
use longhouse_rest::error::JwtError;
use longhouse_rest::openapi::Place;
use longhouse_rest::reload::{ReloadOptions, Reloader, Source};
use miette::{IntoDiagnostic, WrapErr};
use url::Url;

use crate::platform::Platform;

/// As a Supabase project has it, and with what is switched on besides; its migrations may say otherwise
/// (`alter role authenticator set pgrst.…`).
fn options(config: &Config) -> String {
    let mut schemas = vec!["public", "graphql_public"];
    // People see their own rows of the gateway's records, members those of their businesses; `anon` none of either.
    schemas.extend(config.gateway.enabled.then_some(longhouse_gateway::SCHEMA));
    schemas.extend(config.receptionist.enabled.then_some(longhouse_receptionist::SCHEMA));
    format!(
        "db-schemas = \"{}\"\ndb-extra-search-path = \"public,extensions\"\ndb-anon-role = \"anon\"\ndb-max-rows = 1000\n",
        schemas.join(",")
    )
}

/// Where it is served.
pub(crate) const PATH: &str = "/rest/v1";

/// A running API. Its schema cache is kept in step until it is dropped.
pub(crate) struct RestV1 {
    reloader: Reloader,
    database: Database,
    place: Place,
}

impl RestV1 {
    /// Loads the schema cache and listens for changes.
    pub(crate) async fn start(config: &Config, platform: &Platform) -> miette::Result<Self> {
        let reloader = Reloader::start(ReloadOptions {
            database: platform.requests.clone(),
            channel: Some("pgrst".into()),
            signals: false,
            source: Source::Project(Settings::parse(&options(config)).into_diagnostic()?),
        })
        .await
        .into_diagnostic()
        .wrap_err("loading the schema cache of /rest/v1")?;
        Ok(Self { reloader, database: platform.database.clone(), place: place(config) })
    }

    /// Tells which schemas it serves, now and later.
    pub(crate) fn exposed_schemas(&self) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
        let current = self.reloader.current();
        Arc::new(move || current.borrow().config.schemas.clone())
    }

    /// The API, to be nested at [`PATH`].
    pub(crate) fn router(&self, verifier: Verifier) -> Router {
        RestApi::new(self.database.clone(), self.reloader.cache(), self.reloader.current(), by_key(verifier))
            .with_place(self.place.clone())
            .router()
    }
}

/// The project's keys and tokens, as `apikey` or bearer.
fn by_key(verifier: Verifier) -> Authenticate {
    Arc::new(move |parts, _| {
        let claims = verify_headers(&verifier, &parts.headers).map_err(|error| refusal(&error))?;
        Ok(Identity {
            authenticated: claims.role() != "anon",
            role: claims.role().to_owned(),
            claims: claims.json().to_owned(),
        })
    })
}

/// The same refusal in the words that PostgREST's clients know.
fn refusal(error: &AuthError) -> JwtError {
    match error {
        AuthError::Missing => JwtError::TokenRequired,
        AuthError::Expired => JwtError::Expired,
        AuthError::NotYetValid => JwtError::NotYetValid,
        AuthError::NoExpiry => JwtError::ClaimNotNumber("exp"),
        AuthError::Audience => JwtError::NotInAudience,
        AuthError::Signature => JwtError::Crypto,
        AuthError::Algorithm => JwtError::Algorithm(error.to_string()),
        AuthError::Role => JwtError::Claims,
        AuthError::Scheme | AuthError::UnknownKey | AuthError::Malformed => JwtError::Undecodable,
    }
}

fn place(config: &Config) -> Place {
    let local =
        || Url::parse(&format!("http://127.0.0.1:{}", config.server.port)).expect("host and port make a URL");
    let url = config.server.public_url.clone().unwrap_or_else(local);
    Place {
        scheme: url.scheme().to_owned(),
        host: url.host_str().unwrap_or("127.0.0.1").to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        path: PATH.to_owned(),
    }
}
