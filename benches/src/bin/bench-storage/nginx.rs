//! The peer: nginx, serving one file from where it lies.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longhouse_benches::machine::cpus;
use longhouse_benches::server::{Process, free_port};
use tempfile::TempDir;

use crate::Error;

const START_LIMIT: Duration = Duration::from_secs(10);

/// The program.
///
/// # Errors
/// It is not installed; the message says how.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("nginx"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            let text = "there is no nginx to compare with: `sudo apt-get install nginx-light` (macOS: `brew install nginx`), or name it with --nginx";
            Error::Protocol(text.into())
        })
}

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
    path: String,
}

impl Nginx {
    /// Serves the folder of this file.
    pub(crate) fn start(program: &Path, file: &Path) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("longhouse-bench-nginx-").tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let root = file.parent().unwrap_or(Path::new("/"));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // As root it would serve as somebody who may not read the file.
        let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
        let at = folder.path().display();
        let config = format!(
            "{user}daemon off;\nworker_processes {};\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 2048; }}\n\
             http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000;\n\
             client_body_temp_path {at}/a;\n  proxy_temp_path {at}/b;\n  fastcgi_temp_path {at}/c;\n\
             uwsgi_temp_path {at}/d;\n  scgi_temp_path {at}/e;\n  default_type application/octet-stream;\n\
             server {{ listen {address}; root {}; }}\n}}\n",
            cpus(),
            root.display()
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config)?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let process = Process::new(child);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > START_LIMIT {
                let log = fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
                return Err(Error::Protocol(format!("nginx did not start: {log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { process, _folder: folder, address, path: format!("/{name}") })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A download of the file.
    pub(crate) fn request(&self) -> Vec<u8> {
        let Self { path, address, .. } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n")
            .into_bytes()
    }
}
