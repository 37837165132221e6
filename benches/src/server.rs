//! The program under test: the release build of `longhouse serve` on a folder and a database of its own.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

/// A first start makes a database cluster.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Variables that would make it another server than the one to measure.
const FOREIGN: [&str; 9] =
    ["LONGHOUSE_", "TWILIO_", "OPENAI_", "SUPABASE_", "DATABASE_", "PORT", "GOTRUE_", "SMTP_", "SITE_URL"];

/// A running server; dropped, it is asked to end and stops its database too.
#[derive(Debug)]
pub struct Server {
    child: Child,
    _folder: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it says about itself.
    pub run: Run,
}

/// What is needed of `run.json`.
#[derive(Debug, Deserialize)]
pub struct Run {
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
}

impl Server {
    /// Starts it with these variables besides its defaults and waits until it is ready. What it prints goes to `log`.
    ///
    /// # Errors
    /// It is not built, or did not start; the message says where to look.
    pub fn start(program: &Path, variables: &[(&str, &str)], log: &Path) -> io::Result<Self> {
        if !program.exists() {
            return Err(io::Error::other(format!(
                "{} is not there: build it with `cargo build --release -p longhouse`, or name it with --server",
                program.display()
            )));
        }
        let folder = tempfile::Builder::new().prefix("longhouse-bench-").tempdir()?;
        // Root's database runs as a user who must get through here.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let data = folder.path().join("data");
        let log_file = File::create(log)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string(), "--data"])
            .arg(&data)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("LONGHOUSE_DATABASE__PORT", free_port()?.to_string())
            .env("LONGHOUSE_LOG__FILTER", "warn")
            .env("LONGHOUSE_SERVER__RATE_LIMIT_PER_SECOND", "0")
            .envs(variables.iter().copied());
        let mut child = command.spawn()?;
        let begun = Instant::now();
        while !is_ready(address) {
            if begun.elapsed() > START_LIMIT || child.try_wait()?.is_some() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!("the server did not start; see {}", log.display())));
            }
            std::thread::sleep(ASK_EVERY);
        }
        let run = serde_json::from_slice(&fs::read(data.join("run.json"))?)?;
        Ok(Self { child, _folder: folder, address, run })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
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

fn free_port() -> io::Result<u16> {
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
