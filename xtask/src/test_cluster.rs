//! Stops the Postgres cluster that the tests share (`longhouse_database::testing`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Error, process};

/// Bound on the wait for a shutdown; nothing is synced to disk, so it takes a moment only.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the cluster lives, by the same rule as the tests.
pub(crate) fn folder(target: &Path) -> PathBuf {
    std::env::var_os("LONGHOUSE_TEST_CLUSTER").map_or_else(|| target.join("test-cluster"), PathBuf::from)
}

/// Stops it if it runs.
pub(crate) fn stop(folder: &Path) -> Result<(), Error> {
    let Some(pid) = running(&folder.join("data")) else { return Ok(()) };
    // SIGINT is Postgres's fast shutdown: sessions end, files are left consistent.
    process::read(Command::new("sh").args(["-c", "kill -INT \"$1\"", "sh", &pid.to_string()]))?;
    let deadline = Instant::now() + PATIENCE;
    while running(&folder.join("data")) == Some(pid) {
        if Instant::now() > deadline {
            let advice =
                format!("the test cluster (process {pid}) does not stop; end it with `kill -QUIT {pid}`");
            return Err(Error::Advice(advice));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Process of the server on this data folder; `None` when the file is stale.
fn running(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = file.lines().next()?.trim().parse().ok()?;
    is_postgres(pid).then_some(pid)
}

/// The number may belong to another program by now.
fn is_postgres(pid: u32) -> bool {
    let by_ps = || {
        let named = process::output(Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]));
        named.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
    };
    // Linux has /proc even where `ps` is not installed.
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => name.trim() == "postgres",
        Err(_) if Path::new("/proc/self").exists() => false,
        Err(_) => by_ps(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        stop(folder.path()).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        // This very process: alive, and not Postgres.
        fs::write(folder.path().join("data/postmaster.pid"), format!("{}\n/data\n", std::process::id()))
            .unwrap();
        stop(folder.path()).unwrap();
    }
}
