//! The cluster's folder: layout, lock, place outside a closed home, and room on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::account::Account;
use super::error::ClusterError;

/// Where clusters live whose own folder the unprivileged user may not enter.
const ELSEWHERE: &str = "/var/lib/longhouse";

/// Room that a new cluster needs: templates, 16 MiB write-ahead log, and some to begin with.
const ROOM_TO_CREATE: u64 = 100 << 20;
/// Room that an existing one needs to start: two segments of write-ahead log.
const ROOM_TO_START: u64 = 32 << 20;

/// As root we open no link that somebody else may have planted.
pub(super) const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Paths of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    /// What the person named: lock, credentials, port.
    pub(super) dir: PathBuf,
    /// Where `data` and `log` really are; `dir` unless that is closed to the unprivileged user.
    pub(super) home: PathBuf,
}

impl Folder {
    /// Makes the folder and returns its canonical path.
    pub(super) fn open(dir: &Path) -> Result<PathBuf, ClusterError> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(ClusterError::folder(dir))?;
        dir.canonicalize().map_err(ClusterError::folder(dir))
    }

    /// Settles where the data live. Call with the lock held.
    pub(super) fn settle(dir: PathBuf, account: Option<&Account>) -> Result<Self, ClusterError> {
        let link = dir.join("data");
        if let Ok(target) = fs::read_link(&link)
            && target.is_absolute()
            && target.ends_with("data")
        {
            let home = target.parent().map_or_else(|| dir.clone(), Path::to_owned);
            make(&home, 0o755)?;
            return Ok(Self { dir, home });
        }
        let Some(account) = account else { return Ok(Self { home: dir.clone(), dir }) };
        let meta = fs::metadata(&dir).map_err(ClusterError::folder(&dir))?;
        let mut permissions = meta.permissions();
        if permissions.mode() & 0o001 == 0 {
            // Passing through, not listing: the credentials inside stay private.
            permissions.set_mode(permissions.mode() | 0o011);
            fs::set_permissions(&dir, permissions).map_err(ClusterError::folder(&dir))?;
        }
        let Some(barrier) = account.barred_from(&dir).filter(|_| !link.exists()) else {
            return Ok(Self { home: dir.clone(), dir });
        };
        let home =
            Path::new(ELSEWHERE).join(&hex::encode(Sha256::digest(dir.as_os_str().as_encoded_bytes()))[..16]);
        set_aside(&home)?;
        make(Path::new(ELSEWHERE), 0o755)?;
        make(&home, 0o755)?;
        for name in ["data", "log"] {
            let link = dir.join(name);
            // Who removes the link to lost data leaves this one.
            if link.is_symlink() {
                fs::remove_file(&link).map_err(ClusterError::folder(&link))?;
            }
            symlink(home.join(name), &link).map_err(ClusterError::folder(&link))?;
        }
        warn!(
            folder = %dir.display(), data = %home.display(), barrier = %barrier.display(), user = account.name,
            "Postgres runs as an unprivileged user that may not enter this folder: its data live in a folder under /var/lib/longhouse, linked from here: backups and container volumes must include that folder too",
        );
        Ok(Self { dir, home })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Downloaded Postgres programs, one folder per major version.
    pub(super) fn programs(&self) -> PathBuf {
        self.home.join("programs")
    }

    /// Output of `postgres` before its own log takes over.
    pub(super) fn startup_log(&self) -> PathBuf {
        self.home.join("startup.log")
    }

    /// The other lock: two folders that were copied with their links share one home.
    pub(super) fn lock_home(&self) -> Result<Option<Lock>, ClusterError> {
        if self.home == self.dir { Ok(None) } else { Lock::take(&self.home).map(Some) }
    }

    /// Whether there is a database behind `dir/data`, wherever that leads; refuses one that is damaged.
    pub(super) fn initialised(dir: &Path) -> Result<bool, ClusterError> {
        let data = dir.join("data");
        let version = data.join("PG_VERSION");
        if version.try_exists().map_err(ClusterError::folder(&version))? {
            return Ok(true);
        }
        if fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) {
            let reason = io::Error::other("it holds files but no database (PG_VERSION is missing)");
            return Err(ClusterError::Folder { path: data, source: reason });
        }
        Ok(false)
    }

    /// Major version that wrote the data, if there are any.
    pub(super) fn data_major(&self) -> Option<String> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok().map(|text| text.trim().to_owned())
    }

    /// Refuses to begin on a disk that would be full in a moment.
    pub(super) fn check_room(&self, initialised: bool) -> Result<(), ClusterError> {
        let needed = if initialised { ROOM_TO_START } else { ROOM_TO_CREATE };
        let disk = rustix::fs::statvfs(&self.home)
            .map_err(|error| ClusterError::folder(&self.home)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < needed {
            return Err(ClusterError::DiskFull { path: self.home.clone(), free, needed });
        }
        Ok(())
    }

    pub(super) fn remembered_port(&self) -> RememberedPort {
        let text = fs::read_to_string(self.dir.join(RememberedPort::FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(super) fn remember_port(&self, port: &RememberedPort) -> Result<(), ClusterError> {
        let text = serde_json::json!({ "preferred": port.preferred, "actual": port.actual });
        write_private(&self.dir.join(RememberedPort::FILE), &format!("{text}\n"), None)
    }
}

/// The port that was found when the preferred one was busy.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RememberedPort {
    pub(super) preferred: u16,
    pub(super) actual: u16,
}

impl RememberedPort {
    const FILE: &str = "port.json";
}

fn make(path: &Path, mode: u32) -> Result<(), ClusterError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(ClusterError::folder(path))
}

/// A removed project folder leaves its data behind; a new folder of the same path must not inherit them.
fn set_aside(home: &Path) -> Result<(), ClusterError> {
    if !home.exists() {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let aside = home.with_extension(format!("{now}.old"));
    if let super::process::Found::Running(server) = super::process::inspect(&home.join("data")) {
        super::process::signal(server.pid, rustix::process::Signal::INT);
    }
    fs::rename(home, &aside).map_err(ClusterError::folder(home))?;
    warn!(old = %aside.display(), "kept the data of a removed folder of the same path; delete them if they are not wanted");
    Ok(())
}

/// Exclusive hold on a folder; ends with the process, however that dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join("lock");
        let refused = ClusterError::folder;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_FOLLOW);
        let mut file = options.open(&path).map_err(refused(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                for _ in 0..10 {
                    // The holder writes its number just after it takes the lock.
                    if file.read_to_string(&mut text).is_ok() && !text.is_empty() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Err(ClusterError::InUse { dir: dir.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(refused(&path)(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refused(&path))?;
        Ok(Self(file))
    }
}

/// Writes a file of mode 0600 whole or not at all, optionally owned by the account.
///
/// The new file is created exclusively and renamed: as root we never write through a link that the
/// unprivileged user may have planted in its own folder.
pub(super) fn write_private(path: &Path, text: &str, owner: Option<&Account>) -> Result<(), ClusterError> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        if let Some(owner) = owner {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync(path.parent().unwrap_or(path))
    };
    write().map_err(ClusterError::folder(path))
}

/// Makes renames in a folder durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_learns_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        match Lock::take(dir.path()) {
            Err(ClusterError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn private_files_do_not_follow_planted_links() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, planted) = (dir.path().join("victim"), dir.path().join("file.conf"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &planted).unwrap();
        symlink(&victim, dir.path().join("file.new")).unwrap();
        write_private(&planted, "ours", None).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&planted).unwrap(), "ours");
    }
}
