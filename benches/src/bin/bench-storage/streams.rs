//! One very large file up and down again, with an eye on the server's memory.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longhouse_benches::machine::resident_kib;
use serde::Serialize;

use crate::site::{Site, content};
use crate::{Error, http};

/// The file is this again and again, each time with its number in front.
const BLOCK: usize = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a stream gave.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Stream {
    pub(crate) up: bool,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) before_kib: u64,
    pub(crate) peak_kib: u64,
    pub(crate) after_kib: u64,
}

impl Stream {
    pub(crate) fn label(&self) -> &'static str {
        if self.up { "up" } else { "down" }
    }

    pub(crate) fn line(&self) -> String {
        let mb = |kib: u64| kib as f64 * 1.024e-3;
        format!(
            "{:.1} GB {}: {:.0} MB/s; memory {:.1} MB before, {:.1} at most, {:.1} after",
            self.bytes as f64 / 1e9,
            self.label(),
            self.bytes as f64 / self.seconds / 1e6,
            mb(self.before_kib),
            mb(self.peak_kib),
            mb(self.after_kib)
        )
    }

    /// Growth at its highest, in MB.
    pub(crate) fn growth_mb(&self) -> f64 {
        self.peak_kib.saturating_sub(self.before_kib) as f64 * 1.024e-3
    }
}

/// The block of a number.
struct Blocks(Vec<u8>);

impl Blocks {
    fn new() -> Self {
        Self(content(BLOCK))
    }

    fn of(&mut self, number: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&number.to_le_bytes());
        &self.0
    }
}

/// Up and down. The file is deleted afterwards.
pub(crate) fn run(site: &Site, bytes: u64) -> Result<[Stream; 2], Error> {
    let up = watched(site, bytes, true, || up(site, bytes))?;
    let down = watched(site, bytes, false, || down(site, bytes));
    site.delete("stream")?;
    site.forget_deleted(bytes)?;
    Ok([up, down?])
}

fn watched(
    site: &Site,
    bytes: u64,
    up: bool,
    work: impl FnOnce() -> Result<(), Error> + Send,
) -> Result<Stream, Error> {
    let before_kib = resident_kib(site.pid())?;
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let peak_kib = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peak = before_kib;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(resident_kib(site.pid()).unwrap_or(0));
                std::thread::sleep(LOOK_EVERY);
            }
            peak
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let peak = watching.join().map_err(|_| Error::Protocol("the watcher failed".into()))?;
        done.map(|()| peak)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Stream { up, bytes, seconds, before_kib, peak_kib, after_kib: resident_kib(site.pid())? })
}

fn up(site: &Site, bytes: u64) -> Result<(), Error> {
    let mut stream = http::connect(site.address())?;
    stream.write_all(&site.uploading("private", "stream", bytes))?;
    let (mut blocks, mut sent, mut number) = (Blocks::new(), 0, 0);
    while sent < bytes {
        let block = blocks.of(number);
        let most = usize::try_from(bytes - sent).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(&block[..most])?;
        sent += most as u64;
        number += 1;
    }
    // The last of it is still on its way to the disk.
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    http::read_head(&mut stream, &mut vec![0; 64 * 1024]).map(drop)
}

fn down(site: &Site, bytes: u64) -> Result<(), Error> {
    let mut stream = http::connect(site.address())?;
    stream.write_all(&site.private("stream"))?;
    let mut buffer = vec![0; BLOCK];
    let (length, range) = http::read_head(&mut stream, &mut buffer)?;
    if length != bytes {
        return Err(Error::Protocol(format!("{length} bytes came instead of {bytes}")));
    }
    let (mut blocks, mut number, mut received) = (Blocks::new(), 0, 0);
    let mut filled = range.len();
    buffer.copy_within(range, 0);
    while received < bytes {
        let most = usize::try_from(bytes - received).unwrap_or(BLOCK).min(BLOCK);
        while filled < most {
            match stream.read(&mut buffer[filled..most])? {
                0 => return Err(Error::Protocol("the download broke off".into())),
                read => filled += read,
            }
        }
        if buffer[..most] != blocks.of(number)[..most] {
            return Err(Error::Protocol(format!("other bytes came back, at {received}")));
        }
        received += most as u64;
        number += 1;
        filled = 0;
    }
    Ok(())
}
