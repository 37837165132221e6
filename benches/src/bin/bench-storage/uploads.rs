//! Uploads one after the other and four at once, beside one thread that writes the same bytes to the same disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Instant;

use serde::Serialize;

use crate::site::{Site, content};
use crate::{Error, http};

/// Clients of the second kind.
const AT_ONCE: usize = 4;

/// What a round gave, in megabytes a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Upload {
    pub(crate) size: usize,
    pub(crate) round: u64,
    /// Write, then `fsync`, one file after the other.
    pub(crate) plain: f64,
    /// One client.
    pub(crate) one: f64,
    /// Four clients.
    pub(crate) four: f64,
}

impl Upload {
    pub(crate) fn line(&self) -> String {
        format!(
            "uploads of {} MB, round {}: {:.0} MB/s by one client, {:.0} by {AT_ONCE}, plain write and fsync {:.0}",
            self.size / 1_000_000,
            self.round + 1,
            self.one,
            self.four,
            self.plain
        )
    }
}

/// So many files by each.
pub(crate) fn round(site: &Site, size: usize, count: usize, round: u64) -> Result<Upload, Error> {
    let bytes = content(size);
    let rate = |begun: Instant| (size * count) as f64 / begun.elapsed().as_secs_f64() / 1e6;
    let plain = || -> Result<f64, Error> {
        let folder = site.folder().join("bench-plain");
        fs::create_dir_all(&folder)?;
        let begun = Instant::now();
        for index in 0..count {
            let mut file = File::create(folder.join(index.to_string()))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
        }
        let rate = rate(begun);
        fs::remove_dir_all(&folder)?;
        Ok(rate)
    };
    let ours = |clients: usize| -> Result<f64, Error> {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients)
                .map(|client| {
                    let bytes = &bytes;
                    scope.spawn(move || -> Result<(), Error> {
                        let mut stream = http::connect(site.address())?;
                        for index in (client..count).step_by(clients) {
                            let head = site.uploading("private", &format!("up-{size}-{index}"), size as u64);
                            http::exchange(&mut stream, &head, bytes)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            clients.into_iter().try_for_each(|client| {
                client.join().map_err(|_| Error::Protocol("a client failed".into()))?
            })
        })?;
        let rate = rate(begun);
        for index in 0..count {
            site.delete(&format!("up-{size}-{index}"))?;
        }
        site.forget_deleted(size as u64)?;
        Ok(rate)
    };
    // Whoever goes first has the cooler processor, or the emptier disk cache.
    let (plain, one, four) = if round.is_multiple_of(2) {
        (plain()?, ours(1)?, ours(AT_ONCE.min(count))?)
    } else {
        let (four, one) = (ours(AT_ONCE.min(count))?, ours(1)?);
        (plain()?, one, four)
    };
    Ok(Upload { size, round, plain, one, four })
}
