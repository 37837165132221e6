//! As root, Postgres runs as an unprivileged user: Postgres itself refuses root.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::{Path, PathBuf};

use super::error::ClusterError;

/// The unprivileged user that Postgres runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` when we are not root: Postgres then runs as ourselves.
    ///
    /// Data that already belong to some user stay that user's.
    pub(super) fn choose(data: &Path) -> Result<Option<Self>, ClusterError> {
        let us = rustix::process::geteuid();
        let owner = fs::metadata(data).ok().map(|meta| (meta.uid(), meta.gid()));
        if !us.is_root() {
            return match owner {
                Some((owner, _)) if owner != us.as_raw() => {
                    Err(ClusterError::NotOwner { path: data.to_owned(), owner })
                }
                _ => Ok(None),
            };
        }
        if let Some((uid, gid)) = owner
            && uid != 0
        {
            return Ok(Some(Self { name: format!("user {uid}"), uid, gid }));
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(ClusterError::folder("/etc/passwd"))?;
        let found = ["postgres", "_postgres", "nobody"].iter().find_map(|name| Self::parse(&passwd, name));
        found.map(Some).ok_or(ClusterError::NoAccount)
    }

    fn parse(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let (uid, gid): (u32, u32) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            (uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
        })
    }

    /// Gives one file or folder to the account.
    pub(super) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(ClusterError::folder(path))
    }

    /// Gives a whole tree to the account; symbolic links are changed, not followed.
    pub(super) fn own_tree(&self, path: &Path) -> Result<(), ClusterError> {
        let refused = ClusterError::folder;
        lchown(path, Some(self.uid), Some(self.gid)).map_err(refused(path))?;
        if !fs::symlink_metadata(path).map_err(refused(path))?.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(path).map_err(refused(path))? {
            self.own_tree(&entry.map_err(refused(path))?.path())?;
        }
        Ok(())
    }

    /// First ancestor of `path` that the account may not enter.
    pub(super) fn barred_from(&self, path: &Path) -> Option<PathBuf> {
        let mut ancestors: Vec<_> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        let barred = |path: &&Path| !fs::metadata(path).is_ok_and(|meta| self.may_enter(&meta));
        ancestors.into_iter().find(barred).map(Path::to_owned)
    }

    fn may_enter(&self, meta: &Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_account_from_passwd_and_never_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var/lib:/bin/bash\nnobody:x:0:0::/:\n";
        let account = Account::parse(passwd, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        assert_eq!(Account::parse(passwd, "nobody"), None);
        assert_eq!(Account::parse(passwd, "post"), None);
    }
}
