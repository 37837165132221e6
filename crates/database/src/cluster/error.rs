//! What can go wrong with the managed cluster, and what the person should do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the managed cluster could not be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The folder cannot be created, read or written.
    #[error("cannot use {} for the database: {source}; choose a writable folder with --data or correct its permissions", path.display())]
    Folder {
        /// File or folder that was refused.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another Longhouse server holds this folder.
    #[error(
        "{} is in use by another Longhouse server{}; stop it with `longhouse stop`, or give this one its own folder with --data",
        dir.display(), holder(*pid)
    )]
    InUse {
        /// The folder both want.
        dir: PathBuf,
        /// Process that holds it, when it said so.
        pid: Option<u32>,
    },
    /// No Postgres is installed.
    #[error(
        "found no Postgres 14 to 18 ({searched}); {install}, or set DATABASE_URL to use a server that you run"
    )]
    NoBinaries {
        /// Where we looked.
        searched: String,
        /// What to install on this system.
        install: String,
    },
    /// No Postgres is installed and it could not be downloaded (feature `download`).
    #[error(
        "could not download Postgres {major}: {reason}; check the network connection and start again, or {install}"
    )]
    Download {
        /// Major version that was wanted.
        major: String,
        /// What failed.
        reason: String,
        /// What to install on this system.
        install: String,
    },
    /// The configured folder of binaries is not usable.
    #[error("the configured Postgres folder {} {reason}; it must hold `initdb` and `postgres` of version 14 to 18", path.display())]
    BinDir {
        /// The configured folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data were written by a major version that is not installed.
    #[error(
        "the data in {} were written by Postgres {data}, but {} is available; install Postgres {data} \
         (or point the binaries setting at it), or move the data with pg_upgrade or pg_dump and restore; nothing was changed",
        path.display(), available(found)
    )]
    OtherMajor {
        /// Data folder.
        path: PathBuf,
        /// Major version in its `PG_VERSION`.
        data: String,
        /// Major versions that are installed.
        found: Vec<u16>,
    },
    /// The data belong to a user that we are not.
    #[error("the data in {} belong to user {owner}, and Postgres must run as their owner; run Longhouse as that user, or chown the folder", path.display())]
    NotOwner {
        /// Data folder.
        path: PathBuf,
        /// Numeric id of its owner.
        owner: u32,
    },
    /// Running as root without an unprivileged user to run Postgres as.
    #[error(
        "Postgres refuses to run as root and neither user `postgres` nor `nobody` exists; create one with `useradd --system postgres`"
    )]
    NoAccount,
    /// Passwords are missing or unreadable although the data exist.
    #[error("cannot read the database passwords in {}: {reason}; restore the file from a backup, or remove {} to begin with an empty database", path.display(), data.display())]
    Credentials {
        /// Credentials file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Data folder.
        data: PathBuf,
    },
    /// There was a database, and it is gone.
    #[error("the database is missing: there is no {}, though {} remains of it; restore it from a backup, or remove {remove} to begin with an empty database; nothing was changed", path.display(), evidence.display())]
    Lost {
        /// Where the data should be.
        path: PathBuf,
        /// What shows that there was a database.
        evidence: PathBuf,
        /// What keeps us from making a new one.
        remove: String,
    },
    /// The demanded port is taken.
    #[error("port {port} on 127.0.0.1 is in use{}; stop that program, or set another database port", by(process.as_deref()))]
    PortInUse {
        /// The port.
        port: u16,
        /// Program that listens there, when it can be told.
        process: Option<String>,
    },
    /// The demanded port may not be listened on.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; set a database port of 1024 or above")]
    Port {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// No room on the disk.
    #[error("the disk under {} is full ({}); free some space, or put the data on another disk with --data", path.display(), room(*free, *needed))]
    DiskFull {
        /// Folder on the full disk.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed; 0 when Postgres itself ran out.
        needed: u64,
    },
    /// A program of Postgres cannot be run.
    #[error("{user} cannot run {}: {source}; make it readable and executable for that user", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Who tried.
        user: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// `initdb` failed for another reason.
    #[error("creating the database failed; correct what initdb reports and start again: {output}")]
    Initdb {
        /// Last lines of its output.
        output: String,
    },
    /// Postgres did not start.
    #[error("Postgres did not start; correct what its log reports and start again (log: {}): {output}", log.display())]
    Start {
        /// Log folder.
        log: PathBuf,
        /// Last lines that it wrote.
        output: String,
    },
    /// Processes of a killed server still use the data.
    #[error("processes {pids:?} of a killed Postgres still use {}; wait for them to end, or end them, and start again", path.display())]
    Orphans {
        /// Data folder.
        path: PathBuf,
        /// The processes.
        pids: Vec<u32>,
    },
    /// Postgres could not be stopped.
    #[error("Postgres (process {pid}) did not stop; end it with `kill -QUIT {pid}`")]
    Stop {
        /// Its process id.
        pid: u32,
    },
}

impl ClusterError {
    pub(super) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, free: 0, needed: 0 }
            }
            _ => Self::Folder { path, source },
        }
    }

    /// Recognises in the output of `initdb` or `postgres` what has a remedy of its own.
    pub(super) fn recognise(output: &str, home: &Path, port: u16) -> Option<Self> {
        if output.contains("No space left on device") || output.contains("Disk quota exceeded") {
            return Some(Self::DiskFull { path: home.to_owned(), free: 0, needed: 0 });
        }
        if output.contains("Address already in use") {
            return Some(Self::PortInUse { port, process: super::port::listener(port) });
        }
        None
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn available(majors: &[u16]) -> String {
    if majors.is_empty() {
        return "no Postgres".to_owned();
    }
    let majors: Vec<_> = majors.iter().map(ToString::to_string).collect();
    format!("only Postgres {}", majors.join(", "))
}

fn by(process: Option<&str>) -> String {
    process.map(|process| format!(" by {process}")).unwrap_or_default()
}

fn room(free: u64, needed: u64) -> String {
    if needed == 0 {
        return "Postgres reports no space left".to_owned();
    }
    format!("{} MiB free, {} MiB needed", free >> 20, needed >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_is_wrong_and_what_to_do() {
        let home = Path::new("/srv/app");
        let full = ClusterError::recognise("could not write: No space left on device", home, 1).unwrap();
        assert!(full.to_string().contains("/srv/app is full"), "{full}");
        let busy = ClusterError::PortInUse { port: 5, process: Some("nginx (process 7)".into()) };
        assert_eq!(
            busy.to_string(),
            "port 5 on 127.0.0.1 is in use by nginx (process 7); stop that program, or set another database port"
        );
        assert!(ClusterError::recognise("FATAL: out of cheese", home, 1).is_none());
        let used = ClusterError::InUse { dir: home.into(), pid: Some(12) };
        assert!(used.to_string().contains("another Longhouse server (process 12)"), "{used}");
    }
}
