//! A Postgres that Longhouse creates, starts, watches and stops by itself.
//!
//! The folder holds `data` (the database), `log`, `credentials.json` (mode 0600), `port.json` and `lock`.
//! Postgres outlives a killed Longhouse, and the next start adopts it; it also outlives a [`Cluster`] that is
//! dropped without [`Cluster::stop`].
//!
//! ```no_run
//! # async fn example() -> Result<(), longhouse_database::cluster::ClusterError> {
//! use longhouse_database::cluster::{Cluster, ClusterOptions, Login};
//!
//! let cluster = Cluster::start(ClusterOptions::new(".longhouse/postgres")).await?;
//! let url = cluster.url(Login::Superuser);
//! // … connect …
//! cluster.stop().await?;
//! # Ok(())
//! # }
//! ```

mod account;
mod binaries;
mod credentials;
#[cfg(feature = "download")]
mod download;
mod error;
mod folder;
mod launch;
mod port;
mod process;
mod settings;
mod supervise;

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::account::Account;
use self::binaries::Binaries;
use self::credentials::Credentials;
use self::folder::{Folder, Lock, RememberedPort};
use self::launch::{Launcher, Server};
use self::process::{Found, Postmaster};
use self::supervise::Supervisor;

pub use self::binaries::ServerVersion;
pub use self::credentials::Login;
pub use self::error::ClusterError;
pub use self::port::Port;
pub use self::settings::Durability;
pub use self::supervise::{ClusterState, RestartPolicy};

#[cfg(feature = "testing")]
pub(crate) use self::process::alive;

/// Tries when a port is taken between our look and Postgres's.
const PORT_TRIES: usize = 5;

/// How to run the managed cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Folder of the cluster, such as `.longhouse/postgres`; made when missing.
    pub dir: PathBuf,
    /// Port on 127.0.0.1.
    pub port: Port,
    /// Folder with `initdb` and `postgres`; by default `PATH` and the distributions' folders are searched.
    pub bin_dir: Option<PathBuf>,
    /// Most connections at a time.
    pub max_connections: u16,
    /// Whether commits wait for the disk.
    pub durability: Durability,
    /// What happens when Postgres dies.
    pub restart: RestartPolicy,
}

impl ClusterOptions {
    /// Defaults: port 54322 or the next free one, 100 connections, full durability.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            port: Port::Preferred(54322),
            bin_dir: None,
            max_connections: 100,
            durability: Durability::Full,
            restart: RestartPolicy::default(),
        }
    }
}

/// A running, supervised Postgres.
///
/// Dropping it without [`stop`](Self::stop) ends the supervision but leaves Postgres running, as `kill -9` does.
#[derive(Debug)]
pub struct Cluster {
    access: ClusterAccess,
    version: ServerVersion,
    adopted: bool,
    state: watch::Receiver<ClusterState>,
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<Result<(), ClusterError>>,
    _locks: Locks,
}

/// Held as long as the cluster is ours.
#[derive(Debug)]
struct Locks {
    _dir: Lock,
    _home: Option<Lock>,
}

/// A server that is up but not supervised yet.
pub(crate) struct Attached {
    pub(crate) access: ClusterAccess,
    launcher: Launcher,
    server: Server,
    adopted: bool,
    locks: Locks,
}

/// How to reach a running cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterAccess {
    credentials: Credentials,
    port: u16,
}

impl Cluster {
    /// Creates the cluster if there is none, starts it or adopts a running one, and supervises it.
    ///
    /// # Errors
    /// Every [`ClusterError`] says what to do; nothing is left half made.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let restart = options.restart;
        let (state, watching) = watch::channel(ClusterState::Starting);
        let attached = Box::pin(attach(options)).await?;
        metrics::describe_counter!(
            "longhouse_postgres_restarts_total",
            "Times that the managed Postgres died and was brought back"
        );
        metrics::counter!("longhouse_postgres_restarts_total").increment(0);
        state.send_replace(ClusterState::Running);
        let (stop, stopping) = watch::channel(false);
        let Attached { access, launcher, server, adopted, locks } = attached;
        let version = launcher.binaries.version;
        let supervisor = Supervisor { launcher, port: access.port, policy: restart, state, stop: stopping };
        let supervisor = tokio::spawn(supervisor.run(server));
        Ok(Self { access, version, adopted, state: watching, stop, supervisor, _locks: locks })
    }

    /// Stops the Postgres that a killed Longhouse left on a folder; false when none runs.
    ///
    /// # Errors
    /// [`ClusterError::InUse`] when a living Longhouse holds the folder.
    pub async fn stop_abandoned(dir: &Path) -> Result<bool, ClusterError> {
        if !dir.exists() {
            return Ok(false);
        }
        let _lock = Lock::take(dir)?;
        match process::inspect(&dir.join("data")) {
            Found::Running(server) => Server::of(server.pid).stop().await.map(|()| true),
            Found::Nothing | Found::Stale => Ok(false),
        }
    }

    /// Connection URL of a login, for database `postgres`.
    ///
    /// `initdb` makes only the superuser; bootstrap makes the other two with [`password`](Self::password).
    pub fn url(&self, login: Login) -> SecretString {
        self.access.url(login, "postgres")
    }

    /// Password of a login.
    pub fn password(&self, login: Login) -> SecretString {
        self.access.password(login)
    }

    /// Version of the server.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.access.port
    }

    /// Whether a running server was taken over from an earlier Longhouse.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// What the cluster is doing; each change wakes the receiver.
    pub fn state(&self) -> watch::Receiver<ClusterState> {
        self.state.clone()
    }

    /// Stops Postgres: sessions are ended, everything is written. When that takes more than 20 s it is told to
    /// leave at once; the next start then recovers.
    ///
    /// # Errors
    /// [`ClusterError::Stop`] when even force does not end it.
    pub async fn stop(mut self) -> Result<(), ClusterError> {
        self.stop.send_replace(true);
        match (&mut self.supervisor).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl ClusterAccess {
    pub(crate) fn url(&self, login: Login, database: &str) -> SecretString {
        self.credentials.url(login, self.port, database)
    }

    pub(crate) fn password(&self, login: Login) -> SecretString {
        self.credentials.password(login).clone()
    }
}

/// Makes sure that a server runs on the folder, creating or adopting it.
pub(crate) async fn attach(options: ClusterOptions) -> Result<Attached, ClusterError> {
    let ClusterOptions { dir, port, bin_dir, max_connections, durability, restart: _ } = options;
    let dir = Folder::open(&dir)?;
    let lock = Lock::take(&dir)?;
    let account = Account::choose(&dir.join("data"))?;
    // Before anything is made: a database that is gone must not be replaced by an empty one.
    let initialised = Folder::initialised(&dir)?;
    let mut credentials = Credentials::load_or_create(&dir, &dir.join("data"), initialised)?;
    let folder = Folder::settle(dir, account.as_ref())?;
    let locks = Locks { _dir: lock, _home: folder.lock_home()? };
    let data_major = folder.data_major();
    let data = folder.data();
    let programs = folder.programs();
    let find = || Binaries::find(bin_dir.as_deref(), &programs, data_major.as_deref(), &data);
    let binaries = match find() {
        #[cfg(feature = "download")]
        Err(ClusterError::NoBinaries { .. }) => {
            download::programs(&programs, data_major.as_deref()).await?;
            find()?
        }
        #[cfg(feature = "download")]
        Err(ClusterError::OtherMajor { found, .. }) if found.is_empty() => {
            download::programs(&programs, data_major.as_deref()).await?;
            find()?
        }
        found => found?,
    };
    let launcher = Launcher { folder, binaries, account, max_connections, durability };

    if let Found::Running(server) = process::inspect(&data)
        && let Some((server, port)) = take_over(&launcher, server, port).await?
    {
        info!(pid = server.pid, port, "adopted the Postgres that an earlier Longhouse left running");
        let access = ClusterAccess { credentials, port };
        return Ok(Attached { access, launcher, server, adopted: true, locks });
    }

    let folder = &launcher.folder;
    let preferred = match port {
        Port::Exactly(port) | Port::Preferred(port) => port,
    };
    let remembered =
        Some(folder.remembered_port()).filter(|port| port.actual != 0 && port.preferred == preferred);
    let remembered = remembered.map(|port| port.actual);
    let mut refused = Vec::new();
    let mut chosen = port.choose(remembered, &refused)?;
    folder.check_room(initialised)?;
    if !initialised {
        launcher.initialise(&credentials).await?;
        credentials.created(&folder.dir)?;
    }
    let server = loop {
        match launcher.launch(chosen, None).await {
            Err(ClusterError::PortInUse { .. }) if refused.len() < PORT_TRIES => {
                refused.push(chosen);
                chosen = port.choose(remembered, &refused)?;
            }
            result => break result?,
        }
    };
    if matches!(port, Port::Preferred(_)) {
        if chosen != preferred && preferred != 0 && remembered != Some(chosen) {
            warn!(preferred, port = chosen, "the preferred database port is busy; using another one");
        }
        folder.remember_port(&RememberedPort { preferred, actual: chosen })?;
    }
    info!(pid = server.pid, port = chosen, version = %launcher.binaries.version, "Postgres is running");
    let access = ClusterAccess { credentials, port: chosen };
    Ok(Attached { access, launcher, server, adopted: false, locks })
}

/// Adopts a running server if its port and settings are the wanted ones; else ends it.
async fn take_over(
    launcher: &Launcher,
    running: Postmaster,
    wanted: Port,
) -> Result<Option<(Server, u16)>, ClusterError> {
    if let Some(port) = running.port {
        let right_port = !matches!(wanted, Port::Exactly(exact) if exact != port);
        if right_port && launcher.agrees(port) {
            return Ok(launcher.adopt(running.pid).await?.map(|server| (server, port)));
        }
    }
    info!(pid = running.pid, "a running Postgres has other settings; restarting it");
    launcher.evict(running.pid).await?;
    Ok(None)
}
