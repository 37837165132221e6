//! `/studio`: the pages and the operators' API, as the settings want them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use longhouse_config::Config;
use longhouse_database::Database;
use longhouse_identity::ProjectKeys;
use longhouse_identity::service::AuthService;
use longhouse_studio::{Options, Studio, operators};
use miette::{IntoDiagnostic, WrapErr, miette};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::auth_v1::AuthV1;
use crate::run_state::LocalOperator;

/// Where the account of a local server is kept, in the data folder.
const FILE: &str = "operator.json";
/// Whose it is.
const EMAIL: &str = "operator@longhouse.local";
/// Bytes of an answer of the auth service that are read.
const MOST_ANSWER: usize = 256 * 1024;

/// The Studio, unless it is switched off or accounts are not kept here: a hosted project has its own.
pub(crate) fn start(
    config: &Config,
    auth: Option<&AuthV1>,
    options: impl FnOnce(&AuthService) -> Options,
) -> Option<Studio> {
    let auth = auth.filter(|_| config.studio.enabled)?;
    Some(Studio::new(options(&auth.service)))
}

/// Bounds the audit, and makes the local operator where one is wanted.
pub(crate) async fn prepare(
    config: &Config,
    database: &Database,
    studio: &Studio,
    auth: Option<&AuthV1>,
    keys: &ProjectKeys,
) -> miette::Result<Option<LocalOperator>> {
    if let Err(error) = studio.trim_audit().await {
        tracing::warn!(%error, "old entries stay in the Studio's audit until the next start");
    }
    let Some(auth) = auth.filter(|_| config.studio.local_operator) else { return Ok(None) };
    if !is_local(config) {
        tracing::warn!(
            "studio.local_operator is for servers that only this machine reaches: no account is made"
        );
        return Ok(None);
    }
    let made = Box::pin(local_operator(&config.data, database, &auth.service, keys)).await;
    made.wrap_err("making the account of studio.local_operator").map(Some)
}

fn is_local(config: &Config) -> bool {
    let server = &config.server;
    server.host.is_loopback() && server.public_url.is_none() && server.trusted_proxies.is_empty()
}

/// The account as it was made, or a new one. Somebody who has lost the file gets a new password; what the account
/// became otherwise, its password or right taken away, is left as it is.
async fn local_operator(
    data: &Path,
    database: &Database,
    auth: &AuthService,
    keys: &ProjectKeys,
) -> miette::Result<LocalOperator> {
    let path = data.join(FILE);
    let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<LocalOperator>(&text).ok());
    let account = operators::find(database, EMAIL).await.into_diagnostic()?;
    if let (Some(kept), Some(_)) = (&kept, account) {
        return Ok(kept.clone());
    }
    let operator = kept.unwrap_or_else(|| LocalOperator {
        email: EMAIL.to_owned(),
        password: Uuid::new_v4().simple().to_string(),
    });
    keep(&path, &operator).map_err(|error| {
        miette!("cannot write {}: {error}; check the folder's owner and free space", path.display())
    })?;
    let app_metadata = json!({ operators::CLAIM: true });
    let (method, path, body) = match account {
        Some(id) => (
            Method::PUT,
            format!("/admin/users/{id}"),
            json!({ "password": operator.password, "app_metadata": app_metadata }),
        ),
        None => (
            Method::POST,
            "/admin/users".to_owned(),
            json!({
                "email": operator.email, "password": operator.password, "email_confirm": true,
                "app_metadata": app_metadata,
            }),
        ),
    };
    administer(auth, keys, method, &path, &body).await?;
    Ok(operator)
}

/// A request to the auth service, as its own clients make it, without a socket.
async fn administer(
    auth: &AuthService,
    keys: &ProjectKeys,
    method: Method,
    path: &str,
    body: &Value,
) -> miette::Result<()> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(AUTHORIZATION, format!("Bearer {}", keys.service_role_key.expose_secret()))
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .into_diagnostic()?;
    let response = auth.router().oneshot(request).await.into_diagnostic()?;
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    let status = response.status();
    let text = to_bytes(response.into_body(), MOST_ANSWER).await.unwrap_or_default();
    Err(miette!("the auth service answered {status}: {}", String::from_utf8_lossy(&text)))
}

/// In one step, readable by its owner only.
fn keep(path: &Path, operator: &LocalOperator) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    // What a killed process left would keep its own mode.
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(operator)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
