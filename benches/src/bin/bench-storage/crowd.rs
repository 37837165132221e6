//! Many downloads of one file at once: all have begun before any goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhouse_benches::machine::resident_kib;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::site::{Site, content};
use crate::{Error, http};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Crowd {
    pub(crate) size: usize,
    pub(crate) downloads: usize,
    /// Complete and byte-equal.
    pub(crate) equal: usize,
    pub(crate) seconds: f64,
    pub(crate) before_kib: u64,
    pub(crate) peak_kib: u64,
}

impl Crowd {
    pub(crate) fn line(&self) -> String {
        format!(
            "{} downloads of {} MB at once: {} equal, {:.1} s, {:.0} MB/s; memory {:.1} MB before, {:.1} at most",
            self.downloads,
            self.size / 1_000_000,
            self.equal,
            self.seconds,
            (self.downloads * self.size) as f64 / self.seconds / 1e6,
            self.before_kib as f64 * 1.024e-3,
            self.peak_kib as f64 * 1.024e-3
        )
    }
}

/// So many at once.
pub(crate) fn run(site: &Site, size: usize, downloads: usize) -> Result<Crowd, Error> {
    let bytes = Arc::new(content(size));
    site.upload("private", "crowd", &bytes)?;
    let request: Arc<[u8]> = site.private("crowd").into();
    let before_kib = resident_kib(site.pid())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (equal, seconds, peak_kib) = runtime.block_on(async {
        let ready = Arc::new(Barrier::new(downloads));
        let begun = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..downloads {
            let client = client(site.address(), Arc::clone(&request), Arc::clone(&bytes), Arc::clone(&ready));
            clients.spawn(client);
        }
        let (mut equal, mut peak) = (0, before_kib);
        let mut looking = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = looking.tick() => peak = peak.max(resident_kib(site.pid())?),
                client = clients.join_next() => match client {
                    None => break,
                    Some(Ok(same)) => equal += usize::from(same?),
                    Some(Err(error)) => return Err(Error::Protocol(format!("a client failed: {error}"))),
                },
            }
        }
        Ok::<_, Error>((equal, begun.elapsed().as_secs_f64(), peak))
    })?;
    site.delete("crowd")?;
    Ok(Crowd { size, downloads, equal, seconds, before_kib, peak_kib })
}

/// Whether everything came, and came right.
async fn client(
    address: std::net::SocketAddr,
    request: Arc<[u8]>,
    expected: Arc<Vec<u8>>,
    ready: Arc<Barrier>,
) -> Result<bool, Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request).await?;
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    let (length, begin) = loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(Error::Protocol("the server closed a connection".into())),
            read => filled += read,
        }
        if let Some(head) = http::head(&buffer[..filled])? {
            break head;
        }
    };
    // The server fills its buffers for all of them meanwhile.
    ready.wait().await;
    let mut at = filled - begin;
    let mut same = length == expected.len() as u64 && buffer[begin..filled] == expected[..at];
    while same && at < expected.len() {
        let read = stream.read(&mut buffer).await?;
        same = read > 0 && expected.get(at..at + read) == Some(&buffer[..read]);
        at += read;
    }
    Ok(same)
}
