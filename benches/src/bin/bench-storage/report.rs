//! Figures, and whether they are enough.

use longhouse_benches::figures::{Bar, Spread, Stamp, table};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::downloads::{Download, Way};
use crate::streams::Stream;
use crate::uploads::Upload;
use crate::{DOWNLOADS, UPLOADS};

/// Least bytes a second, as a share of nginx's, for the large file.
const DOWNLOAD_BAR: f64 = 0.8;
/// Least bytes a second, as a share of a plain write with `fsync`.
const UPLOAD_BAR: f64 = 0.5;
/// Most growth of memory during a long stream, in MB.
const GROWTH_BAR_MB: f64 = 16.0;

/// Everything, as `storage.json` has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    stamp: Stamp,
    seconds: u64,
    connections: u64,
    pub(crate) downloads: Vec<Download>,
    pub(crate) uploads: Vec<Upload>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) crowd: Option<Crowd>,
    bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(stamp: Stamp, seconds: u64, connections: u64) -> Self {
        let (downloads, uploads, streams) = Default::default();
        Self { stamp, seconds, connections, downloads, uploads, streams, crowd: None, bars: Vec::new() }
    }

    /// Whether every limit is kept.
    pub(crate) fn all_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }

    fn of(&self, size: usize, way: Way, figure: fn(&Download) -> f64) -> Option<Spread> {
        Spread::of(self.downloads.iter().filter(|d| d.size == size && d.way == way).map(figure))
    }

    /// Bytes a second beside nginx's of the same round.
    fn beside_nginx(&self, size: usize, way: Way) -> Option<Spread> {
        let of =
            |way, round| self.downloads.iter().find(move |d| (d.size, d.way, d.round) == (size, way, round));
        Spread::of(self.downloads.iter().filter(|d| d.size == size && d.way == way).filter_map(|download| {
            Some(download.mb_per_second / of(Way::Nginx, download.round)?.mb_per_second)
        }))
    }

    fn uploads(&self, size: usize, figure: fn(&Upload) -> f64) -> Option<Spread> {
        Spread::of(self.uploads.iter().filter(|upload| upload.size == size).map(figure))
    }

    /// Compares with the limits.
    pub(crate) fn judge(&mut self) {
        let mut bars = Vec::new();
        for way in [Way::Public, Way::Private] {
            if let Some(ratio) = self.beside_nginx(DOWNLOADS[1], way) {
                let what = format!("100 MB, {}: bytes/s, times nginx's", way.label());
                bars.push(Bar::at_least(what, DOWNLOAD_BAR, ratio.median));
            }
        }
        for (size, _) in UPLOADS {
            if let Some(ratio) = self.uploads(size, |upload| upload.one / upload.plain) {
                let what =
                    format!("uploads of {} MB: bytes/s, times a plain write and fsync", size / 1_000_000);
                bars.push(Bar::at_least(what, UPLOAD_BAR, ratio.median));
            }
        }
        for stream in &self.streams {
            let what =
                format!("growth of memory for {:.0} GB {}, MB", stream.bytes as f64 / 1e9, stream.label());
            bars.push(Bar::at_most(what, GROWTH_BAR_MB, stream.growth_mb()));
        }
        if let Some(crowd) = &self.crowd {
            let what = format!("{} downloads at once: complete and byte-equal", crowd.downloads);
            bars.push(Bar::at_least(what, crowd.downloads as f64, crowd.equal as f64));
        }
        self.bars = bars;
    }

    /// The tables for people, in Markdown.
    pub(crate) fn text(&self) -> String {
        let mut downloads = table(
            &["file", "from", "MB/s", "files/s", "times nginx", "sender, ms CPU/100 MB", "generator"],
            2,
        );
        for size in DOWNLOADS {
            for way in Way::ALL {
                let of = |figure| self.of(size, way, figure);
                let Some(rate) = of(|d| d.mb_per_second) else { continue };
                let ratio = self.beside_nginx(size, way).filter(|_| way != Way::Nginx);
                downloads.add_row([
                    format!("{} MB", size / 1_000_000),
                    way.label().to_owned(),
                    Spread::show(Some(rate), 0),
                    Spread::show(of(|d| d.files_per_second), 0),
                    Spread::show(ratio, 2),
                    Spread::show(of(|d| d.server_ms_100mb), 1),
                    Spread::show(of(|d| d.generator_ms_100mb), 1),
                ]);
            }
        }
        let mut uploads = table(
            &[
                "file",
                "one client, MB/s",
                "four",
                "plain write and fsync",
                "times plain",
                "four, times plain",
            ],
            1,
        );
        for (size, _) in UPLOADS {
            let of = |figure| self.uploads(size, figure);
            let Some(one) = of(|u| u.one) else { continue };
            uploads.add_row([
                format!("{} MB", size / 1_000_000),
                Spread::show(Some(one), 0),
                Spread::show(of(|u| u.four), 0),
                Spread::show(of(|u| u.plain), 0),
                Spread::show(of(|u| u.one / u.plain), 2),
                Spread::show(of(|u| u.four / u.plain), 2),
            ]);
        }
        let lines = self.streams.iter().map(Stream::line).chain(self.crowd.iter().map(Crowd::line));
        let lines: Vec<String> = lines.collect();
        format!(
            "{}\nmedian (least–most) of windows of {} s, {} connections\n\n{downloads}\n\n{uploads}\n\n{}\n\n{}\n",
            self.stamp,
            self.seconds,
            self.connections,
            lines.join("\n"),
            Bar::table(&self.bars)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_compared_within_their_round() {
        let stamp = Stamp::now(std::path::Path::new("true")).unwrap();
        let mut report = Report::new(stamp, 1, 8);
        for (round, way, rate) in
            [(0, Way::Nginx, 1000.0), (0, Way::Public, 900.0), (1, Way::Public, 70.0), (1, Way::Nginx, 100.0)]
        {
            report.downloads.push(Download {
                way,
                round,
                size: DOWNLOADS[1],
                mb_per_second: rate,
                files_per_second: 1.0,
                server_ms_100mb: 1.0,
                generator_ms_100mb: 1.0,
            });
        }
        report.judge();
        assert!(report.all_met(), "{:?}", report.bars);
        assert!(report.text().contains("0.80 (0.70–0.90)"), "{}", report.text());
        report.crowd =
            Some(Crowd { size: 1, downloads: 2, equal: 1, seconds: 1.0, before_kib: 1, peak_kib: 1 });
        report.judge();
        assert!(!report.all_met());
    }
}
