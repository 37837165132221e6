//! Keeps schema cache and configuration in step with the database, while requests run.
//!
//! A reload is asked for by `notify pgrst` (with nothing or `reload schema`, or with `reload config`), by SIGUSR1
//! (schema) and SIGUSR2 (configuration), by [`Reloader`]'s methods, and by a lost listening connection, since
//! notifications may have been lost with it. What is loaded replaces the old at once for requests that start then;
//! running ones keep theirs. Until a load succeeds the old stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhouse_database::{DatabaseOptions, connect_client, connect_listening, quote_ident};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::auth::{JwtVerifier, SecretError};
use crate::config::RestConfig;
use crate::config_file::{ConfigError, Settings};
use crate::schema::{self, SchemaCache};
use crate::standalone::{Standalone, database_settings};

/// Makes the database notify `pgrst` after each change of its schema. For a superuser; may be run again.
pub const WATCH_DDL: &str = include_str!("watch_ddl.sql");

/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

/// Options that a project's own server decides: who signs in, and who may connect from where.
const BEYOND_THE_API: &[&str] =
    &["jwt", "db_anon_role", "db_pre_config", "openapi_server_proxy_uri", "server_cors", "server_trace"];

/// The role whose settings are the project's, whichever role connects.
const AUTHENTICATOR: &str = "authenticator";

/// What requests are answered by.
#[derive(Debug, Clone)]
pub struct Current {
    /// Options of the API.
    pub config: Arc<RestConfig>,
    /// Verifier of tokens, where the API verifies them itself.
    pub verifier: Option<Arc<JwtVerifier>>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// It does not change.
    Fixed(Arc<RestConfig>),
    /// These, and above them what the database says: `alter role authenticator set pgrst.…`, as projects do. Options
    /// that concern tokens or the listener are not taken from there.
    Project(Settings),
    /// File (read again at each reload), environment and database.
    Standalone {
        /// The file, if there is one.
        file: Option<std::path::PathBuf>,
        /// Environment variables.
        environment: Vec<(String, String)>,
    },
}

/// How to reload.
#[derive(Debug, Clone)]
pub struct ReloadOptions {
    /// The database; each load opens a connection of its own.
    pub database: DatabaseOptions,
    /// Channel to listen on; none: do not listen.
    pub channel: Option<String>,
    /// Listen to SIGUSR1 and SIGUSR2.
    pub signals: bool,
    /// The configuration.
    pub source: Source,
}

/// Why a load failed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The database cannot be reached.
    #[error(transparent)]
    Database(#[from] longhouse_database::Error),
    /// A query was refused.
    #[error("the schema cache cannot be loaded: {}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret is wrong.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code()),
        None => error.to_string(),
    }
}

/// Reloads in the background until it is dropped.
#[derive(Debug)]
pub struct Reloader {
    cache: watch::Receiver<Arc<SchemaCache>>,
    current: watch::Receiver<Current>,
    wanted: Arc<Wanted>,
    tasks: Vec<JoinHandle<()>>,
}

/// Reloads asked for and not begun. Any number of askers make one reload.
#[derive(Debug, Default)]
struct Wanted {
    schema: Notify,
    config: Notify,
}

impl Reloader {
    /// Loads configuration and schema cache once and then keeps them in step.
    ///
    /// # Errors
    /// When the first load fails.
    pub async fn start(options: ReloadOptions) -> Result<Self, ReloadError> {
        let current = load_config(&options).await?;
        let cache = load_schema(&options, &current.config).await?;
        let (cache_sender, cache) = watch::channel(cache);
        let (current_sender, current) = watch::channel(current);
        let wanted = Arc::new(Wanted::default());
        let mut tasks = Vec::new();
        if let Some(channel) = options.channel.clone() {
            tasks.push(tokio::spawn(listen(options.database.clone(), channel, wanted.clone())));
        }
        if options.signals {
            tasks.push(tokio::spawn(hear_signals(wanted.clone())));
        }
        tasks.push(tokio::spawn(keep(options, cache_sender, current_sender, wanted.clone())));
        Ok(Self { cache, current, wanted, tasks })
    }

    /// The schema cache of the moment, and of every moment to come.
    pub fn cache(&self) -> watch::Receiver<Arc<SchemaCache>> {
        self.cache.clone()
    }

    /// The configuration of the moment, and of every moment to come.
    pub fn current(&self) -> watch::Receiver<Current> {
        self.current.clone()
    }

    /// Asks for a reload of the schema cache.
    pub fn reload_schema(&self) {
        self.wanted.schema.notify_one();
    }

    /// Asks for a reload of the configuration, and of the schema cache if it exposes other schemas then.
    pub fn reload_config(&self) {
        self.wanted.config.notify_one();
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Serves the wishes for reloads one after the other.
async fn keep(
    options: ReloadOptions,
    cache: watch::Sender<Arc<SchemaCache>>,
    current: watch::Sender<Current>,
    wanted: Arc<Wanted>,
) {
    loop {
        let mut with_schema = tokio::select! {
            () = wanted.schema.notified() => true,
            () = wanted.config.notified() => false,
        };
        // A reload of the schema reads the configuration in the database too.
        match load_config(&options).await {
            Ok(loaded) => {
                with_schema |= cached_parts_differ(&current.borrow().config, &loaded.config);
                current.send_replace(loaded);
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
        let mut pause = PAUSES.0;
        while with_schema {
            let config = current.borrow().config.clone();
            match load_schema(&options, &config).await {
                Ok(loaded) => {
                    cache.send_replace(loaded);
                    with_schema = false;
                }
                Err(error) => {
                    tracing::error!(%error, retry_in = ?pause, "the schema cache stays as it was");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = wanted.schema.notified() => {}
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }
}

/// Whether the schema cache depends on what changed.
fn cached_parts_differ(old: &RestConfig, new: &RestConfig) -> bool {
    (&old.schemas, &old.extra_search_path, &old.hoisted_settings)
        != (&new.schemas, &new.extra_search_path, &new.hoisted_settings)
}

async fn load_config(options: &ReloadOptions) -> Result<Current, ReloadError> {
    let (file, environment) = match &options.source {
        Source::Fixed(config) => return Ok(Current { config: config.clone(), verifier: None }),
        Source::Project(settings) => return project_config(&options.database, settings).await,
        Source::Standalone { file, environment } => (file, environment),
    };
    let (mut standalone, settings): (Standalone, Settings) =
        Standalone::load(file.as_deref(), environment.iter().cloned())?;
    if standalone.db_config {
        let client = connect_client(&options.database).await?;
        match database_settings(&client, standalone.pre_config.as_ref(), None).await {
            Ok(found) => standalone = Standalone::from_settings(&settings.with_database(found))?,
            // As PostgREST does: the other sources must do.
            Err(error) => {
                tracing::error!(
                    error = describe(&error),
                    "options in the database cannot be read; going on without"
                );
            }
        }
    }
    let verifier = Arc::new(standalone.jwt.verifier()?);
    Ok(Current { config: Arc::new(standalone.rest), verifier: Some(verifier) })
}

/// The project's options; a mistake in the database's must not keep the server from starting.
async fn project_config(database: &DatabaseOptions, settings: &Settings) -> Result<Current, ReloadError> {
    let client = connect_client(database).await?;
    let configured = match database_settings(&client, None, Some(AUTHENTICATOR)).await {
        Ok(found) => {
            let ours =
                |(name, _): &(String, String)| !BEYOND_THE_API.iter().any(|part| name.starts_with(part));
            RestConfig::from_settings(&settings.clone().with_database(found.into_iter().filter(ours)))
                .inspect_err(
                    |error| tracing::error!(%error, "options in the database are wrong; going on without"),
                )
                .ok()
        }
        Err(error) => {
            tracing::error!(
                error = describe(&error),
                "options in the database cannot be read; going on without"
            );
            None
        }
    };
    let config = match configured {
        Some(config) => config,
        None => RestConfig::from_settings(settings)?,
    };
    Ok(Current { config: Arc::new(config), verifier: None })
}

async fn load_schema(options: &ReloadOptions, config: &RestConfig) -> Result<Arc<SchemaCache>, ReloadError> {
    let started = Instant::now();
    let loaded = async {
        // Its own connection: a long-lived one would keep a catalogue cache as large as the schema.
        let client = connect_client(&options.database).await?;
        Ok(schema::load(&client, config).await?)
    };
    let loaded: Result<SchemaCache, ReloadError> = loaded.await;
    let status = if loaded.is_ok() { "SUCCESS" } else { "FAIL" };
    metrics::counter!("pgrst_schema_cache_loads_total", "status" => status).increment(1);
    let cache = loaded?;
    let elapsed = started.elapsed();
    metrics::gauge!("pgrst_schema_cache_query_time_seconds").set(elapsed.as_secs_f64());
    tracing::info!(
        relations = cache.tables.len(),
        relationships = cache.relationships.len(),
        functions = cache.routines.len(),
        ?elapsed,
        "schema cache loaded"
    );
    Ok(Arc::new(cache))
}

/// Turns notifications into wishes; connects again whenever the connection is lost.
async fn listen(database: DatabaseOptions, channel: String, wanted: Arc<Wanted>) {
    let statement = format!("listen {}", quote_ident(&channel));
    let mut pause = PAUSES.0;
    let mut connected_before = false;
    loop {
        let listening = async {
            let (client, notifications) = connect_listening(&database).await?;
            client.batch_execute(&statement).await?;
            Ok::<_, longhouse_database::Error>((client, notifications))
        };
        match listening.await {
            Ok((_client, mut notifications)) => {
                tracing::info!(channel, "listening for reloads");
                if connected_before {
                    wanted.schema.notify_one();
                }
                (connected_before, pause) = (true, PAUSES.0);
                while let Some(notification) = notifications.recv().await {
                    match notification.payload() {
                        "" | "reload schema" => wanted.schema.notify_one(),
                        "reload config" => wanted.config.notify_one(),
                        // Others may use the channel too.
                        _ => {}
                    }
                }
                tracing::warn!(channel, retry_in = ?pause, "the listening connection is lost");
            }
            Err(error) => {
                // The cache may be stale once the database is back.
                connected_before = true;
                tracing::warn!(channel, %error, retry_in = ?pause, "cannot listen for reloads");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

#[cfg(unix)]
async fn hear_signals(wanted: Arc<Wanted>) {
    use tokio::signal::unix::{SignalKind, signal};

    let handlers = signal(SignalKind::user_defined1())
        .and_then(|schema| Ok((schema, signal(SignalKind::user_defined2())?)));
    let (mut schema, mut config) = match handlers {
        Ok(handlers) => handlers,
        Err(error) => {
            tracing::error!(%error, "cannot hear SIGUSR1 and SIGUSR2; reload with notify pgrst");
            return;
        }
    };
    loop {
        tokio::select! {
            heard = schema.recv() => match heard {
                Some(()) => wanted.schema.notify_one(),
                None => return,
            },
            heard = config.recv() => match heard {
                Some(()) => wanted.config.notify_one(),
                None => return,
            },
        }
    }
}

#[cfg(not(unix))]
async fn hear_signals(_wanted: Arc<Wanted>) {}
