//! A folder to work in, gone with its test; and what a server may leave elsewhere.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::longhouse;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = longhouse(arguments);
        command.current_dir(self.folder.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a server on a free port, and waits until it is ready.
    pub(crate) fn serve(&self) -> Server {
        let mut command = self.command(&["serve", "--port", "0"]);
        command.env("LONGHOUSE_DATABASE__PORT", free_port().to_string());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut server = Server { child };
        let started = Instant::now();
        while !self.path(".longhouse/run.json").exists() {
            if server.child.try_wait().unwrap().is_some() || started.elapsed() > PATIENCE {
                let _ = server.child.kill();
                panic!("the server did not start:\n{}", server.output().join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // A failed test may leave the database running.
        let _ = self.command(&["stop", "--wait", "20"]).output();
        // As root the data lie where the database's own user may read them, linked from here.
        if let Ok(data) = fs::read_link(self.path(".longhouse/postgres/data"))
            && let Some(outside) = data.parent().filter(|parent| parent.starts_with("/var/lib/longhouse"))
        {
            let _ = fs::remove_dir_all(outside);
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; exit code, standard output and standard error.
    pub(crate) fn wait(mut self) -> (Option<i32>, String, String) {
        let started = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        let [stdout, stderr] = self.output();
        (code, stdout, stderr)
    }

    fn output(&mut self) -> [String; 2] {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        [stdout, stderr]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
