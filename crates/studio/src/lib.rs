//! The Studio: pages for people who look after a project, and the one API behind them that may do more than its
//! caller could do elsewhere.
//!
//! Who may use it is an *operator*: a signed-in user whose `app_metadata` says so, which no user can write.
//! [`operators`] checks that on every request under `/studio/v1`, in the token and in the database, so that taking the
//! right away, a ban or a sign-out holds at once. The service key stays in this process; [`audit`] writes down
//! who used it for what, before it is used.
//!
//! The pages sign in and read with the unmodified `supabase-js`. Administration of accounts, files and mail are
//! the ordinary services' own endpoints below `/studio/v1/service`, reached with the service key
//! ([`relay`]); everything else is described in `/openapi.json`.

mod audit;
mod error;
pub mod operators;
mod pages;
mod relay;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use longhouse_database::{Database, ServiceReason};
use longhouse_identity::Verifier;
use longhouse_operations::health::Health;
use longhouse_operations::logs::RecentLogs;
use secrecy::SecretString;
use url::Url;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use error::Error;
pub use pages::built;
pub use relay::STREAMING;

/// Tells which schemas `/rest/v1` serves at the moment.
pub type ExposedSchemas = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the Studio shows and acts on.
pub struct Options {
    /// The project's database.
    pub database: Database,
    /// Knows the project's tokens.
    pub verifier: Verifier,
    /// What is healthy.
    pub health: Health,
    /// What was logged a moment ago.
    pub logs: RecentLogs,
    /// Version of the binary.
    pub version: &'static str,
    /// Where the outside reaches the project; unset: as the page was reached.
    pub public_url: Option<Url>,
    /// Schemas that `/rest/v1` serves.
    pub exposed_schemas: ExposedSchemas,
    /// Key that pages may hold.
    pub publishable_key: String,
    /// The same as a JWT.
    pub anon_key: String,
    /// What the relay acts with. Never leaves this process.
    pub service_key: SecretString,
    /// `/auth/v1`.
    pub auth: Router,
    /// `/storage/v1`, where files are served.
    pub storage: Option<Router>,
    /// `/mailbox`, where mail is shown instead of sent.
    pub mailbox: Option<Router>,
}

/// The Studio of a project. Cheap to clone.
#[derive(Clone)]
pub struct Studio {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    verifier: Verifier,
    health: Health,
    logs: RecentLogs,
    version: &'static str,
    public_url: Option<Url>,
    exposed_schemas: ExposedSchemas,
    publishable_key: String,
    anon_key: String,
    service_key: SecretString,
    services: Router,
    has_storage: bool,
    has_mailbox: bool,
}

impl Studio {
    /// The Studio on those services.
    pub fn new(options: Options) -> Self {
        let (has_storage, has_mailbox) = (options.storage.is_some(), options.mailbox.is_some());
        let services = relay::services(options.auth, options.storage, options.mailbox);
        Self {
            inner: Arc::new(Inner {
                database: options.database,
                verifier: options.verifier,
                health: options.health,
                logs: options.logs,
                version: options.version,
                public_url: options.public_url,
                exposed_schemas: options.exposed_schemas,
                publishable_key: options.publishable_key,
                anon_key: options.anon_key,
                service_key: options.service_key,
                services,
                has_storage,
                has_mailbox,
            }),
        }
    }

    /// Pages and API, to be merged at the root.
    pub fn router(&self) -> OpenApiRouter {
        let pages = Router::new()
            .route("/", get(pages::home))
            .route(pages::PATH, get(pages::file))
            .route("/studio/", get(pages::file))
            .route("/studio/{*path}", get(pages::file));
        described(self).merge(OpenApiRouter::from(pages)).merge(OpenApiRouter::from(relay::router(self)))
    }

    /// Removes what the audit keeps no longer. To be called now and then.
    ///
    /// # Errors
    /// The database's.
    pub async fn trim_audit(&self) -> Result<(), Error> {
        const SQL: &str = "select longhouse.trim_studio_audit()";
        let reason = ServiceReason::because("the Studio's audit is bounded in time");
        self.inner.database.as_service(reason).query(SQL, &[]).await?;
        Ok(())
    }
}

/// The API as `/openapi.json` has it, without a server: for `longhouse openapi` and the pages' client.
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().into_openapi()
}

fn described(studio: &Studio) -> OpenApiRouter {
    // Reading rows is reading people's data: it is written down as every change is.
    let rows = api_rows().layer(from_fn_with_state(studio.clone(), audit::record));
    let guarded = api_guarded().merge(rows).layer(from_fn_with_state(studio.clone(), operators::guard));
    guarded.merge(api_public()).with_state(studio.clone())
}

fn api() -> OpenApiRouter<Studio> {
    api_guarded().merge(api_rows()).merge(api_public())
}

/// What everybody may ask: it is what the sign-in page needs.
fn api_public() -> OpenApiRouter<Studio> {
    OpenApiRouter::new().routes(routes!(routes::project::project))
}

/// What operators may ask. Whatever is added here is behind the guard.
fn api_guarded() -> OpenApiRouter<Studio> {
    OpenApiRouter::new()
        .routes(routes!(routes::overview::overview))
        .routes(routes!(routes::tables::list))
        .routes(routes!(routes::tables::describe))
        .routes(routes!(routes::logs::logs))
        .routes(routes!(routes::keys::keys))
        .routes(routes!(routes::audit::entries))
        .routes(routes!(routes::usage::usage))
}

/// What operators may ask, written down.
fn api_rows() -> OpenApiRouter<Studio> {
    OpenApiRouter::new().routes(routes!(routes::rows::rows))
}
