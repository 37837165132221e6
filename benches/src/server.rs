//! The program under test: the release build of `longhouse serve` on a folder and a database of its own.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

/// A first start makes a database cluster.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often a starting server is asked whether it is ready; the precision of its starting time.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// Variables that would make it another server than the one to measure.
const FOREIGN: [&str; 9] =
    ["LONGHOUSE_", "TWILIO_", "OPENAI_", "SUPABASE_", "DATABASE_", "PORT", "GOTRUE_", "SMTP_", "SITE_URL"];

/// What Cargo built: the server's program, and the folder for what a benchmark writes.
#[derive(Debug, Clone)]
pub struct Built {
    /// `longhouse` beside the benchmark, unless another was named.
    pub program: PathBuf,
    /// `bench` in the target folder.
    pub results: PathBuf,
}

impl Built {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be made, or the program is not there: the message says how to build it.
    pub fn find(named: Option<&Path>) -> io::Result<Self> {
        let here = std::env::current_exe()?;
        let beside = here.parent().unwrap_or(Path::new("."));
        let results = beside.parent().unwrap_or(beside).join("bench");
        fs::create_dir_all(&results)?;
        let program = named.map_or_else(|| beside.join("longhouse"), Path::to_owned);
        if program.exists() {
            // The server runs in another folder than we do.
            return Ok(Self { program: program.canonicalize()?, results });
        }
        Err(io::Error::other(format!(
            "{} is not there: build it with `cargo build --release -p longhouse`, or name it with --server",
            program.display()
        )))
    }
}

/// What a server keeps between starts of it: its folder, ports and settings. Outlives the [`Server`]s that it starts.
#[derive(Debug)]
pub struct Home {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    database_port: u16,
    log: PathBuf,
    variables: Vec<(String, String)>,
}

impl Home {
    /// A new place for `program`, which prints to `log`.
    ///
    /// # Errors
    /// When a folder, port or the log cannot be had.
    pub fn new(program: &Path, log: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("longhouse-bench-").tempdir()?;
        // Root's database runs as a user who must get through here.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        File::create(log)?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            port: free_port()?,
            database_port: free_port()?,
            log: log.to_owned(),
            variables: Vec::new(),
        })
    }

    /// A variable besides the defaults.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.variables.push((name.into(), value.to_string()));
        self
    }

    /// The server's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// It did not start; the message says where to look.
    pub fn start(&self) -> io::Result<Server> {
        let log = File::options().append(true).open(&self.log)?;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &self.port.to_string(), "--data"])
            .arg(self.data())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("LONGHOUSE_DATABASE__PORT", self.database_port.to_string())
            .env("LONGHOUSE_LOG__FILTER", "warn")
            .env("LONGHOUSE_SERVER__RATE_LIMIT_PER_SECOND", "0")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let begun = Instant::now();
        let mut process = Process(command.spawn()?);
        while !is_ready(address) {
            if begun.elapsed() > START_LIMIT || process.0.try_wait()?.is_some() {
                return Err(io::Error::other(format!(
                    "the server did not start; see {}",
                    self.log.display()
                )));
            }
            std::thread::sleep(ASK_EVERY);
        }
        let started_in = begun.elapsed();
        let run: Run = serde_json::from_slice(&fs::read(self.data().join("run.json"))?)?;
        if run.pid != process.pid() {
            return Err(io::Error::other("run.json names another server: end it and run this again"));
        }
        Ok(Server { process, address, started_in, run })
    }
}

/// A running server; dropped, it is asked to end and stops its database too.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub started_in: Duration,
    /// What it says about itself.
    pub run: Run,
}

impl Server {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process alone.
    pub fn into_process(self) -> Process {
        self.process
    }
}

/// What is needed of `run.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pid: u32,
    /// The owner's.
    pub database_url: String,
    /// `sb_publishable_…`
    pub publishable_key: String,
    /// `sb_secret_…`
    pub secret_key: String,
    /// JWT of role `service_role`.
    pub service_role_key: String,
    /// Secret of HS256 tokens.
    pub jwt_secret: String,
    /// Signs webhooks, where the receptionist runs.
    pub twilio_auth_token: Option<String>,
    /// A number to call, likewise.
    pub demo_number: Option<String>,
}

/// A process that is asked to end when this is dropped, and killed when it does not.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Takes care of a child.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it without warning.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) else { return };
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(pid, Signal::TERM);
        let asked = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_LIMIT {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A port that nobody listens on.
///
/// # Errors
/// There is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether `/ready` says so.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
