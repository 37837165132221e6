//! The database under the server: managed or external, set up, migrated and connected.

use std::path::Path;

use longhouse_config::Config;
use longhouse_database::cluster::{Cluster, ClusterOptions, Login, Port};
use longhouse_database::tokio_postgres::Client;
use longhouse_database::{Database, DatabaseOptions, bootstrap, connect_client};
use miette::{IntoDiagnostic, WrapErr};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::ai_v1;
use crate::applications::{self, Prepared};
use crate::offline::Emulated;
/// A database that is ready for requests.
pub(crate) struct Platform {
    /// Ours to stop, where it is managed.
    pub(crate) cluster: Option<Cluster>,
    /// Pool of the request role.
    pub(crate) database: Database,
    /// How `database` connects.
    pub(crate) requests: DatabaseOptions,
    /// Of the owner, who replicates.
    pub(crate) owner_url: SecretString,
    /// For `run.json`.
    pub(crate) shown_url: String,
    /// What the applications found or made in it.
    pub(crate) prepared: Prepared,
    /// Latest migration, where there is any.
    pub(crate) migration_version: Option<String>,
}

/// How the parts of the database are reached.
struct Urls {
    /// May set up the platform schema.
    admin: SecretString,
    /// Owns and migrates the applications' schemas.
    owner: SecretString,
    /// Becomes each request's role.
    requests: SecretString,
    passwords: Option<bootstrap::Passwords>,
}

impl Platform {
    /// Starts the managed cluster unless an external database is configured, brings schemas up to date, connects.
    pub(crate) async fn start(config: &Config, emulated: Emulated) -> miette::Result<Self> {
        let (cluster, urls) = match &config.database.url {
            Some(url) => {
                let url = || url.clone();
                (None, Urls { admin: url(), owner: url(), requests: url(), passwords: None })
            }
            None => {
                let cluster = Box::pin(Cluster::start(cluster_options(config))).await.into_diagnostic()?;
                let urls = Urls {
                    admin: cluster.url(Login::Superuser),
                    owner: cluster.url(Login::Owner),
                    requests: cluster.url(Login::Authenticator),
                    passwords: Some(bootstrap::Passwords {
                        owner: cluster.password(Login::Owner),
                        authenticator: cluster.password(Login::Authenticator),
                    }),
                };
                (Some(cluster), urls)
            }
        };
        match Box::pin(prepare(config, emulated, &urls)).await {
            Ok((database, prepared, migration_version)) => {
                let shown_url = shown(&urls.owner, cluster.is_some());
                let requests = database_options(config, &urls.requests);
                Ok(Self {
                    cluster,
                    database,
                    requests,
                    owner_url: urls.owner.clone(),
                    shown_url,
                    prepared,
                    migration_version,
                })
            }
            Err(report) => {
                if let Some(cluster) = cluster
                    && let Err(error) = cluster.stop().await
                {
                    tracing::warn!(%error, "the managed Postgres keeps running");
                }
                Err(report)
            }
        }
    }
}

/// Where the managed cluster of a data folder lives.
pub(crate) fn cluster_dir(data: &Path) -> std::path::PathBuf {
    data.join("postgres")
}

fn cluster_options(config: &Config) -> ClusterOptions {
    let mut options = ClusterOptions::new(cluster_dir(&config.data));
    if let Some(port) = config.database.port {
        options.port = Port::Exactly(port);
    }
    options.bin_dir.clone_from(&config.database.bin_dir);
    options
}

fn database_options(config: &Config, url: &SecretString) -> DatabaseOptions {
    DatabaseOptions {
        url: url.clone(),
        pool_size: config.database.pool_size,
        pool_timeout: config.database.pool_timeout,
        ca_file: config.database.ca_file.clone(),
    }
}

async fn prepare(
    config: &Config,
    emulated: Emulated,
    urls: &Urls,
) -> miette::Result<(Database, Prepared, Option<String>)> {
    let options = |url: &SecretString| database_options(config, url);
    let mut admin = connect_client(&options(&urls.admin)).await.into_diagnostic()?;
    let report = Box::pin(bootstrap::apply(&mut admin, urls.passwords.as_ref())).await.into_diagnostic()?;
    if !report.applied.is_empty() {
        tracing::info!(parts = ?report.applied, "platform schema brought up to date");
    }
    if urls.passwords.is_some() {
        // Event triggers need the superuser; other databases notify by their own means or by hand.
        admin
            .batch_execute(longhouse_rest::reload::WATCH_DDL)
            .await
            .into_diagnostic()
            .wrap_err("making the database announce changes of its schema")?;
    }
    drop(admin);
    let mut owner = connect_client(&options(&urls.owner)).await.into_diagnostic()?;
    ai_v1::prepare(config, &mut owner).await?;
    let prepared = Box::pin(applications::prepare(config, emulated, &mut owner)).await?;
    let version =
        migration_version(&owner).await.into_diagnostic().wrap_err("reading the latest migration")?;
    drop(owner);
    let database = Database::connect(&options(&urls.requests)).await.into_diagnostic()?;
    Ok((database, prepared, version))
}

/// The project's latest migration, else the latest of any application.
async fn migration_version(
    client: &Client,
) -> Result<Option<String>, longhouse_database::tokio_postgres::Error> {
    const TABLES: &str = "select to_regclass('supabase_migrations.schema_migrations') is not null,
                                 to_regclass('longhouse.app_migrations') is not null";
    let tables = client.query_one(TABLES, &[]).await?;
    for (column, query) in [
        (0, "select max(version) from supabase_migrations.schema_migrations"),
        (1, "select max(app || '/' || version) from longhouse.app_migrations"),
    ] {
        if tables.get::<_, bool>(column)
            && let Some(version) = client.query_one(query, &[]).await?.get::<_, Option<String>>(0)
        {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// The managed cluster's URL opens it from this machine only and is meant to be used; another database's password
/// is not ours to spread.
fn shown(url: &SecretString, managed: bool) -> String {
    let text = url.expose_secret();
    if managed {
        return text.to_owned();
    }
    match Url::parse(text) {
        Ok(mut url) => {
            // Fails only for URLs that cannot hold a password.
            let _ = url.set_password(None);
            url.set_query(None);
            url.to_string()
        }
        Err(_) => "(as configured)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_databases_password_is_not_shown() {
        let url = SecretString::from("postgres://app:hunter2@db.example:5432/app?password=hunter2");
        assert_eq!(shown(&url, false), "postgres://app@db.example:5432/app");
        assert!(shown(&url, true).contains("hunter2"));
        assert_eq!(shown(&"host=db password=hunter2".into(), false), "(as configured)");
    }
}
