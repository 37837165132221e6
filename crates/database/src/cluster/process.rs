//! Is there a Postgres on this data folder? Reads `postmaster.pid` and checks that it tells the truth.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};

/// A server as `postmaster.pid` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) port: Option<u16>,
    /// Accepts connections.
    pub(super) ready: bool,
}

impl Postmaster {
    /// Lines of the file: pid, data folder, start time, port, socket folder, address, memory key, status.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
        let ready = lines.nth(3).is_some_and(|line| line.trim() == "ready");
        Some(Self { pid, port, ready })
    }
}

/// What is known about the data folder's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// No server; a file of a dead one may be left, which Postgres itself handles.
    Nothing,
    /// A Postgres serves these data.
    Running(Postmaster),
    /// `postmaster.pid` is unreadable, or names another program or a dead process that nobody has reaped (some
    /// containers' first process never does); Postgres itself would believe it.
    Stale,
}

fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// Is a `postmaster.pid` there, true or not?
pub(super) fn has_pid_file(data: &Path) -> bool {
    pid_file(data).exists()
}

/// Reads `postmaster.pid` without checking it.
pub(super) fn read(data: &Path) -> Option<Postmaster> {
    Postmaster::parse(&fs::read_to_string(pid_file(data)).ok()?)
}

/// Looks for the data folder's server.
pub(super) fn inspect(data: &Path) -> Found {
    if !has_pid_file(data) {
        return Found::Nothing;
    }
    match read(data) {
        None => Found::Stale,
        Some(server) if !exists(server.pid) => Found::Nothing,
        Some(server) if serves(server.pid, data) => Found::Running(server),
        Some(_) => Found::Stale,
    }
}

/// Removes a stale `postmaster.pid`.
pub(super) fn remove_pid_file(data: &Path) -> std::io::Result<()> {
    fs::remove_file(pid_file(data))
}

/// Is the process a postmaster on this data folder?
fn serves(pid: u32, data: &Path) -> bool {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return !Path::new("/proc/self/cmdline").exists() && serves_by_ps(pid, &data);
    };
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    if !matches!(program, "postgres" | "postmaster") {
        return false;
    }
    if let Ok(current) = fs::read_link(format!("/proc/{pid}/cwd")) {
        return current == data;
    }
    let named = words.iter().skip_while(|word| *word != "-D").nth(1);
    named.is_some_and(|named| Path::new(named.as_ref()).canonicalize().is_ok_and(|named| named == data))
}

/// Where there is no `/proc` (macOS).
fn serves_by_ps(pid: u32, data: &Path) -> bool {
    let output = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
    let Ok(output) = output else { return false };
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    line.contains("postgres") && line.contains(data.to_string_lossy().as_ref())
}

/// Processes that work in the data folder: the server, or backends of a killed one (Linux only).
pub(super) fn working_in(data: &Path) -> Vec<u32> {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        (fs::read_link(process.path().join("cwd")).ok()? == data && alive(pid)).then_some(pid)
    });
    pids.collect()
}

/// Does the process run? One that has ended but was not reaped does not.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; the state follows the last bracket.
    exists(pid) && !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Is the number taken?
fn exists(pid: u32) -> bool {
    let sent = pid_of(pid).map(rustix::process::test_kill_process);
    matches!(sent, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// Sends a signal; a process that is gone is no error.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(raw) = pid_of(pid) {
        let _ = rustix::process::kill_process(raw, signal);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "4242\n/srv/data\n1790000000\n54322\n\n127.0.0.1\n  1234 5\nready   \n";

    #[rstest::rstest]
    #[case(FILE, Some((4242, Some(54322), true)))]
    #[case("4242\n/srv/data\n1790000000\n54322\n\n127.0.0.1\n  1234 5\nstarting\n", Some((4242, Some(54322), false)))]
    #[case("4242\n/srv/data\n", Some((4242, None, false)))]
    #[case("", None)]
    #[case("\0\0\0\n", None)]
    fn pid_files(#[case] text: &str, #[case] expected: Option<(u32, Option<u16>, bool)>) {
        let expected = expected.map(|(pid, port, ready)| Postmaster { pid, port, ready });
        assert_eq!(Postmaster::parse(text), expected);
    }

    #[test]
    fn a_pid_file_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path()), Found::Nothing);
        let write = |text: String| fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        write(String::new());
        assert_eq!(inspect(dir.path()), Found::Stale);
        write(FILE.replace("4242", &std::process::id().to_string()));
        assert_eq!(inspect(dir.path()), Found::Stale, "this test is not a Postgres");
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        while alive(pid) {
            std::thread::yield_now();
        }
        write(FILE.replace("4242", &pid.to_string()));
        assert_eq!(inspect(dir.path()), Found::Stale, "a zombie serves nobody");
        child.wait().unwrap();
        assert_eq!(inspect(dir.path()), Found::Nothing);
    }
}
