//! A download from a folder: what is in memory is read at once, what is not by another thread.
//!
//! A piece is copied twice, out of the page cache and into the socket. Buffers are used again at once, so that they stay
//! in the processor's cache between both; nothing is handed to another thread unless the disk has to be waited for.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::BlobError;

/// Largest piece of one download: several fit into a processor's cache.
const PIECE: usize = 128 * 1024;
/// Smallest piece, where many download at once.
const PIECE_LEAST: usize = 32 * 1024;
/// Bytes that the pieces of all downloads together have, about.
const TOTAL: usize = 32 * 1024 * 1024;
/// Buffers that are kept while nobody uses them.
const KEPT: usize = 32;

/// What all downloads share.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    running: AtomicUsize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Downloads {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// The more there are, the smaller the pieces.
    fn piece(&self) -> usize {
        let running = self.running.load(Ordering::Relaxed).max(1);
        (TOTAL / running).clamp(PIECE_LEAST, PIECE)
    }

    fn buffer(self: &Arc<Self>, size: usize) -> Lent {
        let kept = match size {
            PIECE => self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop(),
            _ => None,
        };
        Lent { bytes: kept.unwrap_or_else(|| vec![0; size]), filled: 0, home: Arc::clone(self) }
    }
}

/// A buffer that comes back when the piece in it was sent.
struct Lent {
    bytes: Vec<u8>,
    filled: usize,
    home: Arc<Downloads>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.bytes.len() == PIECE {
            let mut kept = self.home.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// One download.
pub(super) struct Reading {
    file: Arc<File>,
    rest: Range<u64>,
    downloads: Arc<Downloads>,
}

impl Reading {
    pub(super) fn new(file: File, range: Range<u64>, downloads: &Arc<Downloads>) -> Self {
        downloads.running.fetch_add(1, Ordering::Relaxed);
        Self { file: Arc::new(file), rest: range, downloads: Arc::clone(downloads) }
    }

    /// The next piece, until there is none.
    pub(super) async fn next(mut self) -> Result<Option<(Bytes, Self)>, BlobError> {
        let left = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let mut lent = self.downloads.buffer(self.downloads.piece());
        let most = left.min(lent.bytes.len());
        lent.filled = in_memory(&self.file, &mut lent.bytes[..most], self.rest.start);
        if lent.filled == 0 {
            let (file, offset) = (Arc::clone(&self.file), self.rest.start);
            let read = spawn_blocking(move || {
                file.read_exact_at(&mut lent.bytes[..most], offset)?;
                lent.filled = most;
                Ok::<_, io::Error>(lent)
            });
            lent = super::local::joined(read).await?;
        }
        self.rest.start += lent.filled as u64;
        Ok(Some((Bytes::from_owner(lent), self)))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.downloads.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads what needs no waiting for the disk; nothing where the system cannot tell. Errors show when it is waited for.
#[cfg(target_os = "linux")]
fn in_memory(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    use rustix::io::ReadWriteFlags;
    let mut buffers = [io::IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_file: &File, _buffer: &mut [u8], _offset: u64) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn buffers_come_back_and_are_used_again() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..10 * PIECE as u32 + 7).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let downloads = Arc::new(Downloads::default());
        let mut reading = Reading::new(file, 0..bytes.len() as u64, &downloads);
        let (mut read, mut held) = (Vec::new(), Vec::new());
        while let Some((piece, rest)) = reading.next().await.unwrap() {
            read.extend_from_slice(&piece);
            // Two are on their way at any time.
            held.push(piece);
            if held.len() > 2 {
                held.remove(0);
            }
            reading = rest;
        }
        assert!(read == bytes);
        assert_eq!(downloads.running(), 0);
        drop(held);
        let kept = downloads.buffers.lock().unwrap().len();
        assert!((1..=3).contains(&kept), "{kept} buffers for three pieces at a time");
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let downloads = Arc::new(Downloads::default());
        let (first, reading) = Reading::new(file, 0..9, &downloads).next().await.unwrap().unwrap();
        assert_eq!(first, "short");
        assert!(reading.next().await.is_err());
    }

    #[test]
    fn many_downloads_have_small_pieces() {
        let downloads = Downloads::default();
        let with = |running| {
            downloads.running.store(running, Ordering::Relaxed);
            downloads.piece()
        };
        assert_eq!((with(1), with(256), with(512), with(100_000)), (PIECE, PIECE, PIECE / 2, PIECE_LEAST));
    }
}
