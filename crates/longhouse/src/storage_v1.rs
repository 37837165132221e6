//! `/storage/v1`: files, under the project's own keys and policies.

use std::path::PathBuf;
use std::sync::Arc;

use longhouse_config::Config;
use longhouse_database::Database;
use longhouse_identity::{AuthError, ProjectKeys, Verifier, verify_headers};
use longhouse_server::Drain;
use longhouse_storage::blobs::Blobs;
use longhouse_storage::blobs::local::Local;
use longhouse_storage::blobs::remote::{Remote, S3Options};
use longhouse_storage::ledger::sweeper::SweepOptions;
use longhouse_storage::signing::SigningKey;
use longhouse_storage::{Authenticate, Options, S3Keys, Storage};
use miette::{IntoDiagnostic, WrapErr};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

/// Where it is served.
pub(crate) const PATH: &str = "/storage/v1";

/// A running service and its sweeper, which ends when the process drains.
pub(crate) struct StorageV1 {
    pub(crate) storage: Storage,
    pub(crate) sweeping: JoinHandle<()>,
}

/// The service, unless it is switched off or a hosted project has its own.
pub(crate) async fn start(
    config: &Config,
    database: &Database,
    keys: &ProjectKeys,
    verifier: Verifier,
    drain: &Drain,
) -> miette::Result<Option<StorageV1>> {
    if !config.storage.enabled || config.supabase.url.is_some() {
        return Ok(None);
    }
    let storage = service(config, database.clone(), &keys.jwt_secret, by_key(verifier)).await?;
    let storage = storage.with_s3(s3_keys(config, keys));
    let options = SweepOptions { grace: config.storage.grace, ..SweepOptions::default() };
    let sweeping = storage.spawn_sweeper(options, drain.clone());
    Ok(Some(StorageV1 { storage, sweeping }))
}

/// Rows and bytes of the project, for the server and for chores.
pub(crate) async fn service(
    config: &Config,
    database: Database,
    jwt_secret: &SecretString,
    authenticate: Authenticate,
) -> miette::Result<Storage> {
    Ok(Storage::new(Options {
        database,
        blobs: blobs(config).await?,
        authenticate,
        signing: SigningKey::derive(jwt_secret),
        file_size_limit: config.storage.file_size_limit as u64,
        idle_timeout: config.storage.idle_timeout,
    }))
}

async fn blobs(config: &Config) -> miette::Result<Arc<dyn Blobs>> {
    let settings = &config.storage;
    let Some(bucket) = &settings.s3_bucket else {
        let folder = folder(config);
        let local = Local::open(&folder).await.into_diagnostic();
        let local = local.wrap_err_with(|| format!("opening the folder of files, {}", folder.display()))?;
        return Ok(Arc::new(local));
    };
    let remote = Remote::s3(&S3Options {
        endpoint: settings.s3_endpoint.clone(),
        region: settings.s3_region.clone(),
        bucket: bucket.clone(),
        prefix: settings.s3_prefix.clone().unwrap_or_default(),
        access_key_id: settings.s3_access_key_id.as_ref().map(|key| key.expose_secret().to_owned()),
        secret_access_key: settings.s3_secret_access_key.clone(),
        path_style: settings.s3_path_style,
    });
    Ok(Arc::new(remote.into_diagnostic().wrap_err("opening the S3-compatible store")?))
}

/// The operator's key as configured; sessions with the anon key, as clients of Supabase have them.
fn s3_keys(config: &Config, keys: &ProjectKeys) -> S3Keys {
    let settings = &config.storage;
    let id = settings.s3_protocol_access_key_id.as_ref().map(|id| id.expose_secret().to_owned());
    S3Keys {
        operator: id.zip(settings.s3_protocol_secret_access_key.clone()),
        session_secret: Some(keys.anon_key.clone()),
        region: settings.s3_region.clone(),
    }
}

fn folder(config: &Config) -> PathBuf {
    config.storage.folder.clone().unwrap_or_else(|| config.data.join("storage"))
}

/// The project's keys and tokens, as `apikey` or bearer.
fn by_key(verifier: Verifier) -> Authenticate {
    Arc::new(move |headers| match verify_headers(&verifier, headers) {
        Ok(claims) => Ok(Some(claims)),
        Err(AuthError::Missing) => Ok(None),
        Err(error) => Err(error.to_string()),
    })
}
