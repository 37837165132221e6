//! `/auth/v1`: a Supabase-Auth-compatible service for accounts, sessions and second factors.
//!
//! Requests walk from `routes` (one file per endpoint) through the decisions next to them to `store` (SQL). All of
//! it runs as `supabase_auth_admin` in one transaction a request. [`AuthApiError`] alone knows the shape of errors.

mod accounts;
mod addresses;
mod body;
mod caller;
mod codes;
mod error;
mod hooks;
mod limits;
mod mail;
mod mfa;
mod options;
mod pages;
mod passwords;
mod providers;
mod redirects;
mod refresh;
mod routes;
mod sending;
mod signing;
mod sms;
pub(crate) mod store;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use longhouse_database::{Database, quote_ident};

pub use error::AuthApiError;
pub use mail::{TemplateError, check_mail_templates};
pub use options::{
    AuthOptions, EmailOptions, LimitOptions, MfaOptions, PasswordHash, PasswordOptions, PhoneOptions,
    ProviderOptions, SessionOptions, SmtpOptions, TwilioSms,
};
pub(crate) use signing::Stored;
pub use signing::{KeyStatus, Refusal, Rotated, Signer, SigningAlgorithm, SigningKey};

use crate::Verifier;
use limits::Limits;
use mail::Mailer;
use pages::Pages;
use passwords::Passwords;
use providers::Providers;
use redirects::RedirectRules;
use refresh::Refreshes;
use sms::SmsSender;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct AuthService {
    pub(crate) options: Arc<AuthOptions>,
    pub(crate) database: Database,
    pub(crate) verifier: Verifier,
    pub(crate) signer: Signer,
    pub(crate) mailer: Arc<Mailer>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) passwords: Passwords,
    pub(crate) redirects: Arc<RedirectRules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) refreshes: Arc<Refreshes>,
    pub(crate) sms: Option<Arc<SmsSender>>,
    /// `select schema.function($1)` of the access token hook.
    pub(crate) hook_call: Option<Arc<str>>,
}

impl AuthService {
    /// A service on that database. `verifier` must accept what `signer` signs.
    pub fn new(options: AuthOptions, database: Database, verifier: Verifier, signer: Signer) -> Self {
        let mailer = Arc::new(Mailer::new(&options));
        let providers = Arc::new(Providers::new(&options));
        let hook_call = options.access_token_hook.as_deref().map(|function| hook_call(function).into());
        Self {
            passwords: Passwords::new(&options.password),
            redirects: Arc::new(RedirectRules::new(&options.site_url, &options.redirect_allow_list)),
            limits: Arc::new(Limits::new(&options.limits)),
            refreshes: Arc::default(),
            sms: options.sms.as_ref().map(|sms| Arc::new(SmsSender::new(sms))),
            options: Arc::new(options),
            database,
            verifier,
            signer,
            mailer,
            providers,
            pages: Arc::new(Pages::new()),
            hook_call,
        }
    }

    /// All endpoints, to be nested at `/auth/v1`.
    pub fn router(&self) -> Router {
        routes::router().layer(from_fn(error::by_api_version)).with_state(self.clone())
    }

    /// `/mailbox`: the page that shows mail where no mail server is configured, to be merged at the root. It answers
    /// clients on this machine and holders of the service key; others get 403.
    pub fn mailbox_router(&self) -> Router {
        routes::mailbox().layer(from_fn(error::by_api_version)).with_state(self.clone())
    }
}

/// Calls `schema.function`; the name comes from the settings, and is quoted all the same.
fn hook_call(function: &str) -> String {
    let quoted: Vec<_> = function.split('.').map(quote_ident).collect();
    format!("select {}($1)", quoted.join("."))
}
