//! Which port Postgres listens on, and who else listens there.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use super::error::ClusterError;

/// Port wish of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// This port or none: a busy one is an error.
    Exactly(u16),
    /// This port if it is free, else the next free one, which is remembered. 0 takes any free port.
    Preferred(u16),
}

/// Ports after the preferred one that are tried before taking any free one.
const NEIGHBOURS: u16 = 100;

impl Port {
    /// Finds a free port. `remembered` is the one used last; `refused` were found busy by Postgres itself.
    pub(super) fn choose(self, remembered: Option<u16>, refused: &[u16]) -> Result<u16, ClusterError> {
        match self {
            Self::Exactly(port) => match bind(port) {
                Ok(_) if !refused.contains(&port) => Ok(port),
                Err(source) if source.kind() != io::ErrorKind::AddrInUse => {
                    Err(ClusterError::Port { port, source })
                }
                _ => Err(ClusterError::PortInUse { port, process: listener(port) }),
            },
            Self::Preferred(first) => {
                let near = (first..=first.saturating_add(NEIGHBOURS)).filter(|_| first != 0);
                let usable = |port: &u16| !refused.contains(port) && bind(*port).is_ok();
                match remembered.into_iter().chain(near).find(usable) {
                    Some(port) => Ok(port),
                    None => bind(0).map_err(|source| ClusterError::Port { port: first, source }),
                }
            }
        }
    }
}

/// Binds and releases a port, and returns it.
fn bind(port: u16) -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

/// The error of a port that somebody listens on.
pub(super) fn in_use(port: u16) -> Option<ClusterError> {
    let busy = bind(port).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    busy.then(|| ClusterError::PortInUse { port, process: listener(port) })
}

/// The program that listens on a local port, as `name (process 123)`; known on Linux for processes we may inspect.
pub(super) fn listener(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

/// Socket inodes that listen on `port` in a `/proc/net/tcp` table.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_ports() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let busy = held.local_addr().unwrap().port();
        match Port::Exactly(busy).choose(None, &[]) {
            Err(ClusterError::PortInUse { port, process }) => {
                assert_eq!(port, busy);
                if cfg!(target_os = "linux") {
                    assert!(process.unwrap().contains(&format!("(process {})", std::process::id())));
                }
            }
            other => panic!("{other:?}"),
        }
        assert_ne!(Port::Preferred(busy).choose(None, &[]).unwrap(), busy);
        assert_ne!(Port::Preferred(0).choose(Some(busy), &[]).unwrap(), busy);
        assert!(matches!(in_use(busy), Some(ClusterError::PortInUse { port, .. }) if port == busy));
        drop(held);
        assert!(in_use(busy).is_none());
        assert_eq!(Port::Exactly(busy).choose(None, &[]).unwrap(), busy);
        assert_eq!(Port::Preferred(0).choose(Some(busy), &[]).unwrap(), busy);
        assert_ne!(Port::Preferred(busy).choose(None, &[busy]).unwrap(), busy);
    }
}
