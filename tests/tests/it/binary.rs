//! A server process of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longhouse_emulators::twilio::{CallOptions, Step};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// `longhouse`, as `cargo xtask test` has built it beside this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("longhouse");
    assert!(program.exists(), "{} is missing: run `cargo build -p longhouse` first", program.display());
    program
}

/// Cargo's target folder, in which this test was built.
pub(crate) fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

/// A data folder and the server that runs on it, if one does.
pub(crate) struct Server {
    data: tempfile::TempDir,
    port: u16,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server on embedded defaults and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut server = Self::prepare(&[]);
        server.start_again().await;
        server
    }

    /// Starts a server, with these variables, on a project of one migration.
    pub(crate) async fn with_migration(sql: &str, environment: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(environment);
        let migrations = server.data.path().join("supabase/migrations");
        std::fs::create_dir_all(&migrations).unwrap();
        std::fs::write(migrations.join("20260101000000_project.sql"), sql).unwrap();
        // Before the server starts, so that its first schema cache knows the tables.
        let pushed = server.command(&["db", "push", "--data"]).output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        server.start_again().await;
        server
    }

    fn prepare(environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let environment =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { data, port, environment, child: None }
    }

    /// A command of the binary on this data folder; it knows nothing of the machine but `PATH`.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(words)
            .arg(self.folder())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.data.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts a server on the same folder and port as before.
    pub(crate) async fn start_again(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("server.log"))
            .unwrap();
        let child = self
            .command(&["serve", "--port", &self.port.to_string(), "--data"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while !self.is_ready().await {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the server does not start:\n{}",
                self.log()
            );
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "the server has stopped ({exited:?}):\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.data.path().join("data")
    }

    async fn is_ready(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/ready", self.port);
        matches!(reqwest::get(url).await, Ok(response) if response.status().is_success())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("server.log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGTERM, and waits until the process has ended by itself. Returns its exit code and how long it took.
    pub(crate) async fn terminate(&mut self) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        let mut child = self.child.take().unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        (status.code(), asked.elapsed())
    }

    fn run_state(&self) -> Value {
        let path: &Path = &self.folder().join("run.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// An address, key or secret that the server tells the other commands.
    pub(crate) fn fact(&self, name: &str) -> String {
        self.run_state()[name].as_str().unwrap().to_owned()
    }

    /// Address and password of the account that the server made for itself.
    pub(crate) fn operator(&self) -> (String, String) {
        let operator = &self.run_state()["operator"];
        let text = |name: &str| operator[name].as_str().unwrap().to_owned();
        (text("email"), text("password"))
    }

    /// A call to the demonstration's number.
    pub(crate) fn call(&self, script: Vec<Step>) -> CallOptions {
        let state = self.run_state();
        let webhook = format!("http://127.0.0.1:{}/functions/v1/twilio-router", self.port);
        let mut options =
            CallOptions::new(webhook.parse().unwrap(), state["twilio_auth_token"].as_str().unwrap());
        options.to = state["demo_number"].as_str().unwrap().to_owned();
        options.script = script;
        options.webhook_patience = Duration::from_secs(30);
        options.max_duration = Duration::from_secs(120);
        options
    }

    /// A connection as the database's owner.
    pub(crate) async fn database(&self) -> Client {
        let url = self.fact("database_url");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The managed Postgres outlives a killed server; as root its data lie outside of the folder.
        let stopped = Command::new(program()).args(["stop", "--data"]).arg(self.folder()).output();
        drop(stopped);
        if let Ok(elsewhere) = std::fs::read_link(self.folder().join("postgres")) {
            let _ = std::fs::remove_dir_all(elsewhere);
        }
    }
}
