//! The processes that are measured: the server and the bare relay.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::Error;
use crate::line::Between;

/// A first start makes a database cluster.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often a starting server is asked whether it is ready; the precision of its starting time.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// A running process under test.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    pub(crate) between: Between,
    /// From the start of the process to its first answer.
    pub(crate) started_in: Duration,
}

impl Subject {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning, as for a crash.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Subject {
    /// Asks the process to end, so that a server stops its database, too.
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(pid, Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Starts the relay to `upstream`: this same program under another name.
pub(crate) fn relay(upstream: SocketAddr) -> Result<Subject, Error> {
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["relay", &upstream.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let started_in = begun.elapsed();
    match line.trim().parse() {
        Ok(address) => Ok(Subject { child, between: Between::Relay(address), started_in }),
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Error::Protocol(format!("the relay did not start: {line:?}")))
        }
    }
}

/// What a server needs to run, kept between starts of it.
#[derive(Debug)]
pub(crate) struct Site {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    database_port: u16,
    upstream: SocketAddr,
    log: PathBuf,
}

/// What a running server says about itself.
#[derive(Deserialize)]
struct RunFile {
    pid: u32,
    twilio_auth_token: Option<String>,
    demo_number: Option<String>,
}

impl Site {
    /// A place for a server that uses the model at `upstream` and writes to `log`.
    pub(crate) fn new(program: &Path, upstream: SocketAddr, log: &Path) -> Result<Self, Error> {
        if !program.exists() {
            return Err(Error::Protocol(format!(
                "{} is not there: build it with `cargo build --release -p longhouse`, or name it with --server",
                program.display()
            )));
        }
        let folder = tempfile::Builder::new().prefix("longhouse-bench-").tempdir()?;
        // Root's database runs as a user who must get through here.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        File::create(log)?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            port: free_port()?,
            database_port: free_port()?,
            upstream,
            log: log.to_owned(),
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server and waits until it is ready for calls.
    pub(crate) fn start(&self) -> Result<Subject, Error> {
        let log = File::options().append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &self.port.to_string(), "--data"])
            .arg(self.data())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            // Nothing of the surroundings' configuration; without a token the server makes its own and a demo number.
            let name = name.to_string_lossy().into_owned();
            if ["LONGHOUSE_", "TWILIO_", "OPENAI_", "SUPABASE_", "DATABASE_", "PORT"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        command
            .env("OPENAI_API_KEY", "benchmark")
            .env("LONGHOUSE_OPENAI__REALTIME_URL", format!("ws://{}/v1/realtime", self.upstream))
            .env("LONGHOUSE_DATABASE__PORT", self.database_port.to_string())
            .env("LONGHOUSE_SERVER__RATE_LIMIT_PER_SECOND", "0")
            .env("LONGHOUSE_RECEPTIONIST__MAX_CALLS", "5000");
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let begun = Instant::now();
        let child = command.spawn()?;
        let mut subject = Subject { child, between: Between::Nothing, started_in: Duration::ZERO };
        while !is_ready(address) {
            if begun.elapsed() > START_LIMIT || subject.child.try_wait()?.is_some() {
                return Err(Error::Protocol(format!("the server did not start; see {}", self.log.display())));
            }
            std::thread::sleep(ASK_EVERY);
        }
        subject.started_in = begun.elapsed();
        let run: RunFile = serde_json::from_slice(&fs::read(self.data().join("run.json"))?)
            .map_err(|error| Error::Protocol(format!("run.json: {error}")))?;
        match (run.twilio_auth_token, run.demo_number) {
            (Some(auth_token), Some(number)) if run.pid == subject.pid() => {
                subject.between = Between::Longhouse { address, auth_token, number };
                Ok(subject)
            }
            _ => Err(Error::Protocol("run.json names another server, or no number to call".into())),
        }
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether `/ready` says so.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
