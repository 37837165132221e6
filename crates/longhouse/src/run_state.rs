//! `run.json` in the data folder: what a running server tells the other commands. Only its owner may read it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

/// The account that a local server made for whoever works at this machine.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LocalOperator {
    pub(crate) email: String,
    /// As it was made: its owner may have changed it since.
    pub(crate) password: String,
}

/// Addresses and keys of a running server.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Process id.
    pub(crate) pid: u32,
    /// When the system started that process, in its own ticks: tells it from a later one with the same id.
    pub(crate) process_start: Option<u64>,
    /// RFC 3339, UTC.
    pub(crate) started_at: String,
    /// Version of the binary.
    pub(crate) version: String,
    /// Origin of the API on this machine.
    pub(crate) api_url: String,
    /// Of the migration owner; without its password when the database is not managed here.
    pub(crate) database_url: String,
    /// Where the Studio is served, unless it is switched off.
    pub(crate) studio_url: Option<String>,
    /// Who can sign in there, if this server made somebody.
    pub(crate) operator: Option<LocalOperator>,
    /// Where mail that was not really sent can be read, once it can.
    pub(crate) mailbox_url: Option<String>,
    /// JWT of role `anon`.
    pub(crate) anon_key: String,
    /// JWT of role `service_role`.
    pub(crate) service_role_key: String,
    /// Opaque form of the anon key.
    pub(crate) publishable_key: String,
    /// Opaque form of the service role key.
    pub(crate) secret_key: String,
    /// HS256 secret of keys and sessions.
    pub(crate) jwt_secret: String,
    /// Signs the webhooks of `longhouse call`; null when no token is known.
    pub(crate) twilio_auth_token: Option<String>,
    /// Number that `longhouse call` dials when none is given.
    pub(crate) demo_number: Option<String>,
    /// Providers that emulators stand in for.
    pub(crate) emulated: Vec<String>,
}

impl RunState {
    /// Where it is kept.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("run.json")
    }

    /// The state of the server that runs on a data folder; `None` when none does.
    pub(crate) fn of_running(data: &Path) -> miette::Result<Option<Self>> {
        let path = Self::path(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(miette::miette!(
                    "cannot read {}: {error}; run as the user that started the server",
                    path.display()
                ));
            }
        };
        // A half-written or foreign file tells of no server; the next start replaces it.
        let Ok(state) = serde_json::from_str::<Self>(&text) else { return Ok(None) };
        Ok(state.is_alive().then_some(state))
    }

    /// Writes it in one step, readable by its owner only.
    pub(crate) fn write(&self, data: &Path) -> miette::Result<()> {
        let path = Self::path(data);
        let temporary = path.with_extension(format!("{}.tmp", self.pid));
        let written = || -> std::io::Result<()> {
            // What a killed process left would keep its own mode.
            let _ = fs::remove_file(&temporary);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            fs::rename(&temporary, &path)
        };
        written().map_err(|error| {
            miette::miette!(
                "cannot write {}: {error}; check the folder's owner and free space",
                path.display()
            )
        })
    }

    /// Removes it if it is this process's.
    pub(crate) fn remove(data: &Path) {
        let path = Self::path(data);
        let ours = fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str::<Self>(&text).ok())
            .is_some_and(|state| state.pid == std::process::id());
        if ours && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "the run state stays behind; the next start replaces it");
        }
    }

    /// Whether the process that wrote it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let exists = self.process().is_some_and(|pid| match test_kill_process(pid) {
            Ok(()) => true,
            // It exists, and belongs to somebody else.
            Err(error) => error == rustix::io::Errno::PERM,
        });
        exists && process_start(self.pid) == self.process_start
    }

    /// Asks the process to stop.
    pub(crate) fn terminate(&self) -> Result<(), rustix::io::Errno> {
        match self.process() {
            Some(pid) => kill_process(pid, Signal::TERM),
            None => Err(rustix::io::Errno::SRCH),
        }
    }

    fn process(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?)
    }
}

/// Field 22 of `/proc/<pid>/stat`; `None` for zombies, and on systems without `/proc`.
pub(crate) fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
