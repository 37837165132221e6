//! Creates the data folder, and brings a server up on it: an adopted one or a new one.

use std::collections::HashMap;
use std::fs;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::account::Account;
use super::binaries::Binaries;
use super::credentials::{Credentials, Login};
use super::error::ClusterError;
use super::folder::{Folder, NO_FOLLOW, sync, write_private};
use super::process::{self, Found};
use super::settings::{self, Durability};

/// A killed Longhouse may leave a starting or stopping server; crash recovery of a large database takes minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// A fast shutdown writes a checkpoint; then the server is told to leave at once, and then killed.
const FAST_LIMIT: Duration = Duration::from_secs(20);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// How much of a log an error quotes.
const TAIL_BYTES: usize = 2048;
const TAIL_LINES: usize = 12;

/// Everything that is needed to run Postgres on one data folder.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    pub(super) folder: Folder,
    pub(super) binaries: Binaries,
    pub(super) account: Option<Account>,
    pub(super) max_connections: u16,
    pub(super) durability: Durability,
}

/// A server that accepts connections.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) pid: u32,
    /// Ours to reap, unless it was adopted.
    child: Option<Child>,
}

impl Server {
    /// A running server that is not our child.
    pub(super) fn of(pid: u32) -> Self {
        Self { pid, child: None }
    }

    /// Returns when the process has ended.
    pub(super) async fn exited(&mut self) {
        match &mut self.child {
            Some(child) => {
                let status = child.wait().await;
                debug!(pid = self.pid, ?status, "Postgres ended");
            }
            None => {
                while process::alive(self.pid) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Stops the server: fast (sessions are ended, a checkpoint is written), then immediately, then by force.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        let steps =
            [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT), (Signal::KILL, IMMEDIATE_LIMIT)];
        for (signal, limit) in steps {
            if signal != Signal::INT {
                warn!(pid = self.pid, ?signal, "Postgres does not stop; insisting");
            }
            process::signal(self.pid, signal);
            if tokio::time::timeout(limit, self.exited()).await.is_ok() {
                return Ok(());
            }
        }
        Err(ClusterError::Stop { pid: self.pid })
    }
}

impl Launcher {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        // A clean environment: PGDATA, PGOPTIONS and the like must not reach our server; messages must be English.
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin");
        for name in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.current_dir(&self.folder.home).stdin(Stdio::null());
        if let Some(account) = &self.account {
            // The standard library also drops root's supplementary groups.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    pub(super) fn config(&self, port: u16) -> String {
        settings::render(port, self.max_connections, self.durability, &self.folder.log())
    }

    /// Does a running server have the settings that we would give it?
    pub(super) fn agrees(&self, port: u16) -> bool {
        let path = self.folder.data().join(settings::FILE);
        fs::read_to_string(path).is_ok_and(|text| text == self.config(port))
    }

    /// Creates the data folder by `initdb`, in a temporary folder that is renamed when complete: a killed
    /// attempt leaves nothing that could be taken for a database.
    pub(super) async fn initialise(&self, credentials: &Credentials) -> Result<(), ClusterError> {
        let home = &self.folder.home;
        self.clear_attempts().await?;
        let started = Instant::now();
        let attempt: u64 = rand::random();
        let new = home.join(format!("data.new-{attempt:016x}"));
        DirBuilder::new().mode(0o700).create(&new).map_err(ClusterError::folder(&new))?;
        let password = home.join(format!("initdb-password-{attempt:016x}"));
        let secret = credentials.password(Login::Superuser).expose_secret();
        write_private(&password, secret, self.account.as_ref())?;
        if let Some(account) = &self.account {
            account.own(&new)?;
        }
        info!(folder = %self.folder.dir.display(), version = %self.binaries.version, "creating the database");
        // C.UTF-8 does not exist everywhere (macOS before 15).
        let mut result = self.initdb(&new, &password, "C.UTF-8").await;
        if matches!(&result, Err(ClusterError::Initdb { output }) if output.contains("invalid locale")) {
            result = self.initdb(&new, &password, "C").await;
        }
        let finish = || -> Result<(), ClusterError> {
            result?;
            let conf = new.join("postgresql.conf");
            let text = fs::read_to_string(&conf).map_err(ClusterError::folder(&conf))?;
            write_private(&conf, &(text + settings::INCLUDE), self.account.as_ref())?;
            write_private(&new.join("local.conf"), settings::LOCAL, self.account.as_ref())?;
            let data = self.folder.data();
            fs::rename(&new, &data).and_then(|()| sync(home)).map_err(ClusterError::folder(&data))
        };
        let result = finish();
        let cleared = self.clear_attempts().await;
        result?;
        cleared?;
        debug!(elapsed = ?started.elapsed(), "created the database");
        Ok(())
    }

    async fn initdb(&self, new: &Path, password: &Path, locale: &str) -> Result<(), ClusterError> {
        let mut command = self.command("initdb");
        command.arg("-D").arg(new).args(["-U", Login::Superuser.role(), "--encoding=UTF8"]);
        command.args(["--auth=scram-sha-256", "--data-checksums"]);
        command.arg(format!("--locale={locale}")).arg(format!("--pwfile={}", password.display()));
        command.kill_on_drop(true);
        let output = tokio::time::timeout(INITDB_LIMIT, command.output()).await.map_err(|_| {
            ClusterError::Initdb { output: format!("initdb took more than {} s", INITDB_LIMIT.as_secs()) }
        })?;
        let output = output.map_err(|source| self.cannot_run("initdb", source))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let known = ClusterError::recognise(&text, &self.folder.home, 0);
        Err(known.unwrap_or_else(|| ClusterError::Initdb { output: tail(&text) }))
    }

    /// Removes what interrupted attempts left. Their `initdb` may still be writing for a moment; without its
    /// folder it ends.
    async fn clear_attempts(&self) -> Result<(), ClusterError> {
        let home = &self.folder.home;
        let until = Instant::now() + ORPHAN_LIMIT;
        for entry in fs::read_dir(home).map_err(ClusterError::folder(home))?.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            if name.starts_with("initdb-password-") {
                fs::remove_file(&path).map_err(ClusterError::folder(&path))?;
            }
            if !name.starts_with("data.new-") {
                continue;
            }
            while let Err(error) = fs::remove_dir_all(&path) {
                if error.kind() == std::io::ErrorKind::NotFound {
                    break;
                }
                if Instant::now() >= until {
                    return Err(ClusterError::folder(&path)(error));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Takes over a server that a killed Longhouse left, once it accepts connections; `None` if it ends instead.
    pub(super) async fn adopt(&self, pid: u32) -> Result<Option<Server>, ClusterError> {
        let data = self.folder.data();
        let until = Instant::now() + START_LIMIT;
        loop {
            match process::inspect(&data) {
                Found::Running(server) if server.pid == pid && server.ready => {
                    return Ok(Some(Server::of(pid)));
                }
                Found::Running(server) if server.pid == pid => {}
                _ => return Ok(None),
            }
            if Instant::now() >= until {
                return Err(self.failure(&LogMark::default(), "it is still starting"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends a server on our data that has other settings.
    pub(super) async fn evict(&self, pid: u32) -> Result<(), ClusterError> {
        Server::of(pid).stop().await
    }

    /// Starts Postgres and returns when it accepts connections.
    ///
    /// Cancelling this leaves the started server running, and the next start adopts it; a `stop` ends it.
    pub(super) async fn launch(
        &self,
        port: u16,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<Server, ClusterError> {
        let data = self.folder.data();
        self.prepare(port).await?;
        let mark = LogMark::new(&self.folder.log());
        let path = self.folder.startup_log();
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).write(true).truncate(true).mode(0o600).custom_flags(NO_FOLLOW);
            let file = options.open(&path)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) = open().map_err(ClusterError::folder(&path))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&data).stdout(stdout).stderr(stderr);
        // Its own process group: ctrl-C on the terminal is for Longhouse, which drains before it stops Postgres.
        command.process_group(0);
        let mut child = command.spawn().map_err(|source| self.cannot_run("postgres", source))?;
        let pid = child.id();
        let started = Instant::now();
        let mut told = started;
        loop {
            if let Some(server) = process::read(&data)
                && Some(server.pid) == pid
                && server.ready
            {
                debug!(pid, elapsed = ?started.elapsed(), "Postgres accepts connections");
                return Ok(Server { pid: server.pid, child: Some(child) });
            }
            if stop.is_some_and(|stop| *stop.borrow()) {
                // Crash recovery takes minutes; a stop does not wait for it.
                let pid = pid.unwrap_or_default();
                Server { pid, child: Some(child) }.stop().await?;
                return Err(self.failure(&mark, "it was stopped while starting"));
            }
            if let Ok(Some(status)) = child.try_wait() {
                let output = self.output(&mark);
                // The log's writer may come after the exit it tells of, so the port is asked as well.
                let known = ClusterError::recognise(&output, &self.folder.home, port)
                    .or_else(|| super::port::in_use(port));
                return Err(known.unwrap_or_else(|| self.failure(&mark, &format!("it ended with {status}"))));
            }
            if started.elapsed() >= START_LIMIT {
                let _ = child.start_kill();
                let why = format!("it was not ready after {} s", START_LIMIT.as_secs());
                return Err(self.failure(&mark, &why));
            }
            if told.elapsed() >= Duration::from_secs(5) {
                told = Instant::now();
                info!(
                    seconds = started.elapsed().as_secs(),
                    "Postgres is starting (recovering after a crash takes a while)"
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ownership, stale pid file, settings.
    async fn prepare(&self, port: u16) -> Result<(), ClusterError> {
        let (data, log) = (self.folder.data(), self.folder.log());
        if !log.exists() {
            DirBuilder::new().mode(0o700).recursive(true).create(&log).map_err(ClusterError::folder(&log))?;
        }
        if let Some(account) = &self.account {
            let owner = fs::metadata(&data).map_err(ClusterError::folder(&data))?.uid();
            if owner != account.uid {
                account.own_tree(&data)?;
            }
            if fs::metadata(&log).map_err(ClusterError::folder(&log))?.uid() != account.uid {
                account.own_tree(&log)?;
            }
        }
        self.clear_stale_pid(&data).await?;
        write_private(&data.join(settings::FILE), &self.config(port), self.account.as_ref())
    }

    /// The pid file of a dead server also guards the shared memory of its last backends: starting waits for
    /// them. Then a file that names another program (its number was reused after a crash) or a zombie is
    /// removed, because Postgres would believe it.
    async fn clear_stale_pid(&self, data: &Path) -> Result<(), ClusterError> {
        let until = Instant::now() + ORPHAN_LIMIT;
        while process::has_pid_file(data) {
            let pids = process::working_in(data);
            if pids.is_empty() {
                if process::inspect(data) != Found::Stale {
                    return Ok(());
                }
                warn!(folder = %data.display(), "removing a stale postmaster.pid: its process is no Postgres on these data");
                return process::remove_pid_file(data).map_err(ClusterError::folder(data));
            }
            if Instant::now() >= until {
                return Err(ClusterError::Orphans { path: data.to_owned(), pids });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn cannot_run(&self, program: &str, source: std::io::Error) -> ClusterError {
        let user =
            self.account.as_ref().map_or_else(|| "this user".to_owned(), |account| account.name.clone());
        ClusterError::Run { program: self.binaries.program(program), user, source }
    }

    fn failure(&self, mark: &LogMark, otherwise: &str) -> ClusterError {
        let output = self.output(mark);
        let output = if output.is_empty() { otherwise.to_owned() } else { format!("{otherwise}: {output}") };
        ClusterError::Start { log: self.folder.log(), output }
    }

    /// What Postgres wrote since the mark.
    fn output(&self, mark: &LogMark) -> String {
        let early = fs::read_to_string(self.folder.startup_log()).unwrap_or_default();
        tail(&(early + &mark.since(&self.folder.log())))
    }
}

/// Lengths of the log files at one moment.
#[derive(Debug, Default)]
pub(super) struct LogMark(HashMap<PathBuf, u64>);

impl LogMark {
    pub(super) fn new(log: &Path) -> Self {
        Self(files(log).collect())
    }

    /// Text that was added later.
    pub(super) fn since(&self, log: &Path) -> String {
        let mut text = String::new();
        for (path, len) in files(log) {
            let before = self.0.get(&path).copied().filter(|before| *before <= len).unwrap_or(0);
            let from = before.max(len.saturating_sub(TAIL_BYTES as u64));
            let mut added = Vec::new();
            let read = fs::File::open(&path).and_then(|mut file| {
                file.seek(SeekFrom::Start(from))?;
                file.take(TAIL_BYTES as u64).read_to_end(&mut added)
            });
            if read.is_ok() {
                text.push_str(&String::from_utf8_lossy(&added));
            }
        }
        text
    }
}

fn files(log: &Path) -> impl Iterator<Item = (PathBuf, u64)> {
    let entries = fs::read_dir(log).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok().filter(fs::Metadata::is_file)?.len())))
}

/// The last lines of an output.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    let start = (last.len().saturating_sub(TAIL_BYTES)..last.len()).find(|at| last.is_char_boundary(*at));
    last[start.unwrap_or(0)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_the_end_of_the_log_only() {
        let long: String = (0..1000).map(|n| format!("line {n}\n\n")).collect();
        let tail = tail(&long);
        assert!(tail.ends_with("line 999") && tail.lines().count() == TAIL_LINES, "{tail}");
        assert!(super::tail(&"é".repeat(4000)).len() <= TAIL_BYTES);
        assert_eq!(super::tail(""), "");
    }

    #[test]
    fn a_mark_tells_old_lines_from_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postgres-Mon.log");
        fs::write(&file, "yesterday\n").unwrap();
        let mark = LogMark::new(dir.path());
        fs::write(&file, "yesterday\ntoday\n").unwrap();
        assert_eq!(mark.since(dir.path()), "today\n");
    }
}
