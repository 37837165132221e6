//! `cargo xtask bench storage`: downloads beside nginx, uploads beside a plain write with `fsync`, ten gigabytes each
//! way, and a thousand downloads at once.
//!
//! The release build of `longhouse serve` with the Postgres that it manages, nginx serving the very same file with
//! `sendfile`, and the load generator share one box.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod crowd;
mod downloads;
mod http;
mod nginx;
mod report;
mod site;
mod streams;
mod uploads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use longhouse_benches::figures::Stamp;
use longhouse_benches::server::Built;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use downloads::Way;
use nginx::Nginx;
use report::Report;
use site::Site;

/// Sizes of what is downloaded.
const DOWNLOADS: [usize; 2] = [1_000_000, 100_000_000];
/// Sizes of what is uploaded, and how many in one measurement.
const UPLOADS: [(usize, usize); 3] = [(1_000_000, 50), (16_000_000, 12), (256_000_000, 2)];
/// Size of what a thousand download at once.
const CROWD: usize = 8_000_000;
/// Space that stays free on the disk.
const SPARE: u64 = 15_000_000_000;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something that was measured did not do what it should.
    #[error("{0}")]
    Protocol(String),
}

/// Measures the file service: downloads, uploads, long streams and many clients at once.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  cargo xtask bench storage\n  cargo xtask bench storage -- --seconds 2 --rounds 1 --gigabytes 1"
)]
struct Settings {
    /// Length of a window of downloads
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Windows of each kind
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Connections that download at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    connections: u64,
    /// Size of the long streams; 0 leaves them out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    gigabytes: u64,
    /// Downloads at once; 0 leaves them out
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    crowd: u64,
    /// Only these parts: downloads, uploads, streams, crowd
    #[arg(long, value_delimiter = ',', value_parser = ["downloads", "uploads", "streams", "crowd"])]
    only: Vec<String>,
    /// Where the figures go [default: storage.json in target/bench]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The server's program [default: longhouse beside this one]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// nginx [default: the one on the PATH or in /usr/sbin]
    #[arg(long, value_name = "PROGRAM")]
    nginx: Option<PathBuf>,
}

fn main() -> ExitCode {
    match bench(&Settings::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; says whether all limits are kept.
fn bench(settings: &Settings) -> Result<bool, Error> {
    raise_open_files();
    let nginx_program = nginx::find(settings.nginx.as_deref())?;
    let Built { program, results } = Built::find(settings.server.as_deref())?;
    let out = settings.out.clone().unwrap_or_else(|| results.join("storage.json"));
    let wanted = |part: &str| settings.only.is_empty() || settings.only.iter().any(|only| only == part);
    let site = Site::start(&program, &results.join("storage-server.log"))?;
    let mut report = Report::new(Stamp::now(&program)?, settings.seconds, settings.connections);
    if wanted("downloads") {
        downloads(settings, &site, &nginx_program, &mut report)?;
    }
    if wanted("uploads") {
        for (size, count) in UPLOADS {
            for round in 0..settings.rounds {
                let figures = uploads::round(&site, size, count, round)?;
                eprintln!("{}", figures.line());
                report.uploads.push(figures);
            }
        }
    }
    if wanted("crowd") && settings.crowd > 0 {
        let figures = crowd::run(&site, CROWD, settings.crowd as usize)?;
        eprintln!("{}", figures.line());
        report.crowd = Some(figures);
    }
    if wanted("streams") && settings.gigabytes > 0 {
        let bytes = settings.gigabytes * 1_000_000_000;
        site.has_space(bytes + SPARE)?;
        for figures in streams::run(&site, bytes)? {
            eprintln!("{}", figures.line());
            report.streams.push(figures);
        }
    }
    report.judge();
    std::fs::write(&out, serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?)?;
    println!("{}", report.text());
    println!("{}", out.display());
    Ok(report.all_met())
}

/// All ways to the same file, one after the other, in turns.
fn downloads(
    settings: &Settings,
    site: &Site,
    program: &std::path::Path,
    report: &mut Report,
) -> Result<(), Error> {
    let window = Duration::from_secs(settings.seconds);
    for size in DOWNLOADS {
        let name = format!("file-{size}");
        let bytes = site::content(size);
        site.upload("public", &name, &bytes)?;
        site.upload("private", &name, &bytes)?;
        let file = site.blob_of(size as u64)?;
        let nginx = Nginx::start(program, &file)?;
        for round in 0..settings.rounds {
            let mut ways = [
                (Way::Nginx, nginx.address, nginx.pid(), nginx.request()),
                (Way::Public, site.address(), site.pid(), site.public(&name)),
                (Way::Private, site.address(), site.pid(), site.private(&name)),
            ];
            // Whoever goes first has the cooler processor, or the busier neighbours.
            ways.rotate_left(round as usize % 3);
            for (way, address, pid, request) in ways {
                let connections = settings.connections as usize;
                let measured = downloads::measure(address, &request, size, connections, window, pid)?;
                let download = measured.of(way, round);
                eprintln!("{}", download.line());
                report.downloads.push(download);
            }
        }
    }
    Ok(())
}

/// A thousand downloads take as many sockets.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If it cannot be raised, connecting fails and says why.
    let _ = setrlimit(Resource::Nofile, raised);
}
