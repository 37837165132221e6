//! Downloads over connections that are kept: each asks again when it has everything.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longhouse_benches::machine::Family;
use serde::Serialize;

use crate::{Error, http};

/// What one read takes from a socket.
const BUFFER: usize = 256 * 1024;
/// Before each window: connections are open, files in memory.
const WARM_UP: Duration = Duration::from_millis(500);

/// Who sends the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// nginx, with `sendfile`.
    Nginx,
    /// The server, from a public bucket.
    Public,
    /// The server, to a user whom a policy lets.
    Private,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Nginx, Self::Public, Self::Private];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Nginx => "nginx, sendfile",
            Self::Public => "longhouse, public",
            Self::Private => "longhouse, by policy",
        }
    }
}

/// A window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Download {
    pub(crate) way: Way,
    pub(crate) round: u64,
    pub(crate) size: usize,
    pub(crate) mb_per_second: f64,
    pub(crate) files_per_second: f64,
    /// Processor time of the sender, in milliseconds for a hundred megabytes; Postgres does not count.
    pub(crate) server_ms_100mb: f64,
    /// The same of the generator.
    pub(crate) generator_ms_100mb: f64,
}

impl Download {
    pub(crate) fn line(&self) -> String {
        format!(
            "{} MB, {}, round {}: {:.0} MB/s, {:.0} files/s, ms of processor for 100 MB: sender {:.1}, generator {:.1}",
            self.size / 1_000_000,
            self.way.label(),
            self.round + 1,
            self.mb_per_second,
            self.files_per_second,
            self.server_ms_100mb,
            self.generator_ms_100mb
        )
    }
}

/// A window, before it is said whose it is.
pub(crate) struct Measured {
    size: usize,
    bytes: u64,
    elapsed: Duration,
    server: Duration,
    generator: Duration,
}

impl Measured {
    pub(crate) fn of(&self, way: Way, round: u64) -> Download {
        let each = |time: Duration| time.as_secs_f64() * 1e3 * 1e8 / self.bytes as f64;
        let per_second = self.bytes as f64 / self.elapsed.as_secs_f64();
        Download {
            way,
            round,
            size: self.size,
            mb_per_second: per_second / 1e6,
            files_per_second: per_second / self.size as f64,
            server_ms_100mb: each(self.server),
            generator_ms_100mb: each(self.generator),
        }
    }
}

/// Downloads for a while; every response must have `size` bytes.
pub(crate) fn measure(
    address: SocketAddr,
    request: &[u8],
    size: usize,
    connections: usize,
    window: Duration,
    pid: u32,
) -> Result<Measured, Error> {
    let (counting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (request, counting, over) = (request.to_vec(), Arc::clone(&counting), Arc::clone(&over));
            std::thread::spawn(move || client(address, &request, size, &counting, &over))
        })
        .collect();
    std::thread::sleep(WARM_UP);
    let before = (Family::of(pid)?, Family::of(std::process::id())?);
    let begun = Instant::now();
    counting.store(true, Ordering::Relaxed);
    std::thread::sleep(window);
    counting.store(false, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    let after = (Family::of(pid)?, Family::of(std::process::id())?);
    over.store(true, Ordering::Relaxed);
    let mut bytes = 0;
    for client in clients {
        bytes += client.join().map_err(|_| Error::Protocol("a client failed".into()))??;
    }
    Ok(Measured {
        size,
        bytes,
        elapsed,
        server: after.0.since(&before.0),
        // The servers are this program's children, and not the generator.
        generator: after.1.own_since(&before.1),
    })
}

/// Bytes that came while they counted, heads included.
fn client(
    address: SocketAddr,
    request: &[u8],
    size: usize,
    counting: &AtomicBool,
    over: &AtomicBool,
) -> Result<u64, Error> {
    let mut stream = http::connect(address)?;
    let mut buffer = vec![0; BUFFER];
    let mut counted = 0;
    loop {
        stream.write_all(request)?;
        let (length, range) = http::read_head(&mut stream, &mut buffer)?;
        if length != size as u64 {
            return Err(Error::Protocol(format!("{length} bytes instead of {size}")));
        }
        let mut left = length - range.len() as u64;
        while left > 0 {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err(Error::Protocol("a download broke off".into()));
            }
            left = left.checked_sub(read as u64).ok_or_else(|| Error::Protocol("too many bytes".into()))?;
            if counting.load(Ordering::Relaxed) {
                counted += read as u64;
            }
            if over.load(Ordering::Relaxed) {
                return Ok(counted);
            }
        }
        if over.load(Ordering::Relaxed) {
            return Ok(counted);
        }
    }
}
