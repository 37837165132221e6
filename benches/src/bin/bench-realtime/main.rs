//! `cargo xtask bench realtime`: what an idle connection costs, how many deliveries there are in a second, how long one
//! takes, and whether changes under row-level security keep up.
//!
//! The release build of `longhouse serve` with its own Postgres, and the clients, share one box. The clients read raw
//! frames and count them by their length; nothing of a message is parsed but the time at which it was due.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod changes;
mod crowd;
mod report;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use longhouse_benches::figures::Stamp;
use longhouse_benches::machine::resident_kib;
use longhouse_benches::server::{Built, Home, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crowd::Crowd;
use report::{Idle, Report};
use socket::Door;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Database(#[from] longhouse_database::Error),
    #[error(transparent)]
    Token(#[from] jsonwebtoken::errors::Error),
    /// Something that was measured did not do what it should.
    #[error("{0}")]
    Protocol(String),
}

/// Measures realtime: connections, fan-out, latency, and changes of the database.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  cargo xtask bench realtime\n  cargo xtask bench realtime -- --connections 2000 --seconds 3 --rounds 1 --only idle,fanout"
)]
struct Settings {
    /// Connections that do nothing
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    connections: u32,
    /// Members of the channel that is sent to, and followers of the table
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    members: u32,
    /// Length of a window
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Windows of each kind
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Deliveries a second whose latency is measured
    #[arg(long, default_value_t = 100_000)]
    deliveries: u64,
    /// Changes a second
    #[arg(long, default_value_t = 1_000)]
    changes: u64,
    /// What to measure: idle, fanout, latency, changes [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the figures go [default: realtime.json in target/bench]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The server's program [default: longhouse beside this one]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

impl Settings {
    fn wants(&self, area: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == area)
    }
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
    raise_open_files(settings.connections)?;
    let Built { program, results } = Built::find(settings.server.as_deref())?;
    let out = settings.out.clone().unwrap_or_else(|| results.join("realtime.json"));
    // No bound may stand in the way of what is measured, except those that protect memory.
    let home = Home::new(&program, &results.join("realtime-server.log"))?
        .with("LONGHOUSE_REALTIME__MAX_CONNECTIONS", settings.connections + settings.members + 1_000)
        .with("LONGHOUSE_REALTIME__JOINS_PER_SECOND", 1_000_000)
        .with("LONGHOUSE_REALTIME__MESSAGES_PER_SECOND", 100_000)
        .with("LONGHOUSE_REALTIME__IDLE_TIMEOUT", "1h");
    let server = home.start()?;
    let mut report = Report::new(Stamp::now(&program)?, settings);
    let window = Duration::from_secs(settings.seconds);
    let door = Door { address: server.address, key: server.run.publishable_key.clone() };

    if settings.wants("idle") {
        report.idle = Some(idle(&server, &door, settings.connections)?);
    }
    if settings.wants("fanout") || settings.wants("latency") {
        let mut crowd = Crowd::join(&door, settings.members)?;
        for _ in 0..settings.rounds {
            if settings.wants("fanout") {
                report.fanout.push(crowd.as_fast_as_possible(server.pid(), window)?);
            }
            if settings.wants("latency") {
                report.latency.push(crowd.paced(server.pid(), settings.deliveries, window)?);
            }
        }
    }
    if settings.wants("changes") {
        report.changes = Some(changes::measure(&server, &door, settings.members, settings.changes, window)?);
    }
    report.judge();
    std::fs::write(&out, serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?)?;
    println!("{}", report.text());
    println!("{}", out.display());
    Ok(report.all_met())
}

/// Connections with one channel each, a hundred to a channel, that say nothing.
fn idle(server: &Server, door: &Door, count: u32) -> Result<Idle, Error> {
    // What the first connections bring into being once is not the others' cost.
    let first: Vec<_> = (0..100).map(|number| door.enter(number, "warm", None)).collect::<Result<_, _>>()?;
    let before = resident_kib(server.pid())?;
    let begun = std::time::Instant::now();
    let mut sockets = Vec::with_capacity(count as usize);
    for number in 0..count {
        sockets.push(door.enter(number, &format!("idle-{}", number / 100), None)?);
        if number % 2_000 == 1_999 {
            eprintln!("{} connections, {} MiB", number + 1, resident_kib(server.pid())? / 1_024);
        }
    }
    let took = begun.elapsed();
    let after = resident_kib(server.pid())?;
    drop(first);
    Ok(Idle {
        connections: count,
        bytes_each: (after.saturating_sub(before) * 1_024) as f64 / f64::from(count),
        resident_mib: after as f64 / 1_024.0,
        connected_per_second: f64::from(count) / took.as_secs_f64(),
    })
}

fn raise_open_files(connections: u32) -> Result<(), Error> {
    // Each connection is a file of the server's and one of ours.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(std::io::Error::from)?;
    match limit.maximum {
        Some(most) if most < u64::from(connections) + 500 => Err(Error::Protocol(format!(
            "{connections} connections need more open files than this machine allows, {most}: raise the hard limit (ulimit -Hn), or measure fewer with --connections"
        ))),
        _ => Ok(()),
    }
}
