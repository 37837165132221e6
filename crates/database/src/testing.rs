//! Real Postgres for tests (feature `testing`): one shared cluster, and a database per test cloned from a template.
//!
//! The cluster lives in `LONGHOUSE_TEST_CLUSTER`, else in `test-cluster` under Cargo's target folder. The first
//! test process starts it and it keeps running for the next; [`stop_shared`] ends it. Nothing is synced to disk.
//!
//! Functions panic with a clear message when Postgres is not available: a test cannot go on without it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::cluster::{self, Cluster, ClusterAccess, ClusterError, ClusterOptions, Durability, Login, Port};

/// Templates that no test has used for this long are dropped.
const TEMPLATE_LIFE: Duration = Duration::from_secs(48 * 3600);
/// Bound on one clean-up, so that no single test pays for all.
const CLEANED_AT_ONCE: i64 = 50;
/// Longest that the end of a test waits for its database to go.
const DROP_LIMIT: Duration = Duration::from_secs(2);
/// Tests that connect at once, with their pools.
const CONNECTIONS: u16 = 400;

#[derive(Debug, thiserror::Error)]
enum TestingError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "the test cluster refused: {0:?}; run `cargo xtask test`, or remove the folder test-cluster to begin anew"
    )]
    Postgres(#[from] tokio_postgres::Error),
    #[error("cannot use {}: {source}; correct its permissions or set LONGHOUSE_TEST_CLUSTER to another folder", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("preparing the template failed: {0}")]
    Prepare(String),
}

/// The cluster that all tests share.
#[derive(Debug, Clone)]
pub struct TestCluster {
    access: ClusterAccess,
    dir: PathBuf,
}

impl TestCluster {
    /// Starts the shared cluster or uses the running one.
    ///
    /// # Panics
    /// When Postgres cannot be started; the message says what to do.
    pub async fn shared() -> Self {
        Self::at(shared_dir()).await.unwrap_or_else(|error| panic!("test cluster: {error}"))
    }

    async fn at(dir: PathBuf) -> Result<Self, TestingError> {
        let options = ClusterOptions {
            port: Port::Preferred(0),
            max_connections: CONNECTIONS,
            durability: Durability::None,
            ..ClusterOptions::new(&dir)
        };
        // One test process at a time; the others then find it running.
        let lock = locked(&dir, "testing.lock").await?;
        let attached = Box::pin(cluster::attach(options)).await?;
        let access = attached.access.clone();
        drop(attached); // the server stays
        drop(lock);
        Ok(Self { access, dir })
    }

    /// Connection URL of a login for one database.
    pub fn url(&self, login: Login, database: &str) -> SecretString {
        self.access.url(login, database)
    }

    /// Password of a login, to hand to bootstrap.
    pub fn password(&self, login: Login) -> SecretString {
        self.access.password(login)
    }

    async fn connect(&self) -> Result<Client, TestingError> {
        Ok(connect(&self.url(Login::Superuser, "postgres")).await?)
    }
}

/// Stops the shared cluster; false when it was not running.
///
/// # Errors
/// [`ClusterError`] when it does not stop.
pub async fn stop_shared() -> Result<bool, ClusterError> {
    Cluster::stop_abandoned(&shared_dir()).await
}

/// A template that is being prepared: an empty database.
#[derive(Debug)]
#[non_exhaustive]
pub struct TemplateDatabase {
    /// Name of the database.
    pub name: String,
    /// URL of the superuser `supabase_admin`.
    pub superuser_url: SecretString,
    /// URL of the owner `postgres`, once bootstrap has made it.
    pub owner_url: SecretString,
    /// Password that bootstrap must give the owner.
    pub owner_password: SecretString,
    /// Password that bootstrap must give `authenticator`.
    pub authenticator_password: SecretString,
}

/// A database of one test's own; dropped with this value.
#[derive(Debug)]
#[non_exhaustive]
pub struct TestDatabase {
    /// Name of the database.
    pub name: String,
    /// URL of the superuser `supabase_admin`.
    pub superuser_url: SecretString,
    /// URL of the owner `postgres`, if the template made it.
    pub owner_url: SecretString,
    /// URL of `authenticator`, if the template made it.
    pub authenticator_url: SecretString,
    maintenance_url: SecretString,
}

impl TestDatabase {
    /// Clones a template, which `prepare` fills when it does not exist yet.
    ///
    /// `template` must hold everything that the outcome of `prepare` depends on (say, its name and the text of the
    /// migrations): equal texts share one template, across test processes and runs. Preparations never run at
    /// the same time, so they may create cluster-wide roles with `if not exists` checks.
    ///
    /// # Panics
    /// When Postgres cannot be used or `prepare` fails.
    pub async fn create<E: std::fmt::Display>(
        template: &str,
        prepare: impl AsyncFnOnce(&TemplateDatabase) -> Result<(), E>,
    ) -> Self {
        let cluster = TestCluster::shared().await;
        let created = Box::pin(Self::try_create(&cluster, template, prepare)).await;
        created.unwrap_or_else(|error| panic!("test database: {error}"))
    }

    async fn try_create<E: std::fmt::Display>(
        cluster: &TestCluster,
        template: &str,
        prepare: impl AsyncFnOnce(&TemplateDatabase) -> Result<(), E>,
    ) -> Result<Self, TestingError> {
        let template = format!("template_{}", &hex::encode(Sha256::digest(template))[..24]);
        let client = cluster.connect().await?;
        // First, so that a clean-up by another test spares it.
        stamp(cluster, &template)?;
        if !exists(&client, &template).await? {
            let lock = locked(&cluster.dir, "templates.lock").await?;
            if !exists(&client, &template).await? {
                drop_old_templates(cluster, &client).await?;
                build(cluster, &client, &template, prepare).await?;
            }
            drop(lock);
        }
        drop_leftovers(&client).await?;
        let name = format!("t_{}_{}", std::process::id(), Uuid::now_v7().simple());
        clone_database(&client, &template, &name).await?;
        Ok(Self {
            superuser_url: cluster.url(Login::Superuser, &name),
            owner_url: cluster.url(Login::Owner, &name),
            authenticator_url: cluster.url(Login::Authenticator, &name),
            maintenance_url: cluster.url(Login::Superuser, "postgres"),
            name,
        })
    }
}

impl Drop for TestDatabase {
    /// On a thread of its own, because a test's runtime may be single-threaded or shutting down. Briefly: other
    /// tasks of that runtime, which wait meanwhile, may hold what the drop needs. What is left, a later test drops.
    fn drop(&mut self) {
        let (url, name) = (self.maintenance_url.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let dropped = tokio::time::timeout(DROP_LIMIT, async {
                    let client = connect(&url).await?;
                    client.batch_execute("set lock_timeout = '1s'").await?;
                    drop_database(&client, &name).await
                });
                dropped.await.map_err(io::Error::other)?.map_err(io::Error::other)
            })
        });
        if let Ok(Err(error)) = dropping.join() {
            tracing::debug!(%error, "left a test database behind; a later test drops it");
        }
    }
}

/// Prepares a template under another name, so that a killed preparation is never cloned.
async fn build<E: std::fmt::Display>(
    cluster: &TestCluster,
    client: &Client,
    template: &str,
    prepare: impl AsyncFnOnce(&TemplateDatabase) -> Result<(), E>,
) -> Result<(), TestingError> {
    let building = format!("{template}_building");
    drop_database(client, &building).await?;
    client.batch_execute(&format!("create database {building} template template0")).await?;
    let database = TemplateDatabase {
        superuser_url: cluster.url(Login::Superuser, &building),
        owner_url: cluster.url(Login::Owner, &building),
        owner_password: cluster.password(Login::Owner),
        authenticator_password: cluster.password(Login::Authenticator),
        name: building.clone(),
    };
    if let Err(error) = Box::pin(prepare(&database)).await {
        drop_database(client, &building).await?;
        return Err(TestingError::Prepare(error.to_string()));
    }
    // Nobody may be connected to a template; pools of the preparation may still be closing.
    client.batch_execute(&format!("alter database {building} with allow_connections false")).await?;
    let end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1";
    client.query(end, &[&building]).await?;
    client.batch_execute(&format!("alter database {building} rename to {template}")).await?;
    Ok(())
}

/// Clones a database together with what `create database` leaves out: owner, grants and settings.
async fn clone_database(client: &Client, template: &str, name: &str) -> Result<(), TestingError> {
    let row = client
        .query_one(
            "select datdba::regrole::text, current_setting('server_version_num')::int >= 150000
               from pg_database where datname = $1",
            &[&template],
        )
        .await?;
    let (owner, strategies): (String, bool) = (row.get(0), row.get(1));
    // Copying files would force checkpoints of all that the other tests wrote.
    let strategy = if strategies { "strategy wal_log" } else { "" };
    client
        .batch_execute(&format!("create database {name} template {template} owner {owner} {strategy}"))
        .await?;
    client
        .execute(
            "update pg_database set datacl = (select datacl from pg_database where datname = $2) where datname = $1",
            &[&name, &template],
        )
        .await?;
    client
        .execute(
            "insert into pg_db_role_setting (setdatabase, setrole, setconfig)
             select clone.oid, setting.setrole, setting.setconfig
               from pg_db_role_setting setting
               join pg_database template on template.oid = setting.setdatabase and template.datname = $2
               join pg_database clone on clone.datname = $1",
            &[&name, &template],
        )
        .await?;
    Ok(())
}

/// Drops the databases of test processes that are gone.
async fn drop_leftovers(client: &Client) -> Result<(), TestingError> {
    let sql = r"select datname, split_part(datname, '_', 2)::bigint from pg_database
                 where datname ~ '^t_[0-9]+_[0-9a-f]{32}$' order by oid limit $1";
    for row in client.query(sql, &[&CLEANED_AT_ONCE]).await? {
        let (name, pid): (String, i64) = (row.get(0), row.get(1));
        if !u32::try_from(pid).is_ok_and(cluster::alive) {
            // Another test may be dropping the same one.
            let _ = drop_database(client, &name).await;
        }
    }
    Ok(())
}

/// Drops templates that no test has used for long: each change of a migration makes a new one.
async fn drop_old_templates(cluster: &TestCluster, client: &Client) -> Result<(), TestingError> {
    let sql = "select datname from pg_database where datname ~ '^template_[0-9a-f]{24}(_building)?$'";
    for row in client.query(sql, &[]).await? {
        let name: String = row.get(0);
        let used = fs::metadata(cluster.dir.join("templates").join(&name)).and_then(|meta| meta.modified());
        let unused = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        if unused.is_none_or(|unused| unused > TEMPLATE_LIFE) {
            drop_database(client, &name).await?;
            let _ = fs::remove_file(cluster.dir.join("templates").join(&name));
        }
    }
    Ok(())
}

/// Notes that a template is in use.
fn stamp(cluster: &TestCluster, template: &str) -> Result<(), TestingError> {
    let path = cluster.dir.join("templates").join(template);
    let write = || {
        fs::create_dir_all(cluster.dir.join("templates"))?;
        fs::write(&path, "")
    };
    write().map_err(|source| TestingError::Folder { path: path.clone(), source })
}

async fn exists(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_opt("select from pg_database where datname = $1", &[&name]).await?.is_some())
}

/// Names are made here from digits and letters only.
async fn drop_database(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("drop database if exists {name} with (force)")).await
}

async fn connect(url: &SecretString) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url.expose_secret(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Takes a file lock that all test processes share; a dead process holds none.
async fn locked(dir: &Path, name: &str) -> Result<File, TestingError> {
    let path = dir.join(name);
    let refused = |source| TestingError::Folder { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(refused)?;
    let file = File::create(&path).map_err(refused)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(io::Error::other).and_then(|file| file).map_err(refused)
}

/// `LONGHOUSE_TEST_CLUSTER`, else `test-cluster` in the target folder that this program was built into.
fn shared_dir() -> PathBuf {
    if let Some(dir) = env::var_os("LONGHOUSE_TEST_CLUSTER") {
        return PathBuf::from(dir);
    }
    let program = env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| env::temp_dir().join("longhouse"), Path::to_owned).join("test-cluster")
}
