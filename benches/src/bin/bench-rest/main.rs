//! `cargo xtask bench rest`: requests to `/rest/v1` beside `pgbench`, which sends the same statements without HTTP.
//!
//! One box holds the release build of `longhouse serve` with the Postgres that it manages, the load generator, and in
//! alternation with it `pgbench`. Every request carries a key and a user's signed token, every table has row-level
//! security. What `pgbench` sends is read from Postgres' log of one request: the same transaction, prepared, in one
//! pipeline.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod load;
mod postgres;
mod report;
mod site;
mod workloads;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use longhouse_benches::figures::Stamp;
use longhouse_benches::machine::{Cpu, resident_kib};
use longhouse_benches::server::Built;

use load::{Load, Pace, Until};
use postgres::{Programs, Script};
use report::{HalfLoad, Large, Memory, Report, Round};
use site::Site;
use workloads::{SCHEMA, SETTLE, Senders, Workload};

/// Before each window: connections are open, statements prepared, caches warm.
const WARM_UP: Duration = Duration::from_millis(1_000);

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something that was measured did not do what it should.
    #[error("{0}")]
    Protocol(String),
}

/// Measures the REST API: throughput beside pgbench, latency at half load, memory over many requests.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  cargo xtask bench rest\n  cargo xtask bench rest -- --seconds 3 --rounds 1 --only read\n  cargo xtask bench rest -- --requests 10000000"
)]
struct Settings {
    /// Length of a window
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=3_600))]
    seconds: u64,
    /// Windows of each kind and workload
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Only these workloads: read, list, embed, insert, rpc
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// HTTP connections of the generator
    #[arg(long, default_value_t = 32, value_parser = positive)]
    connections: usize,
    /// Database connections of the server's pool
    #[arg(long, default_value_t = 10, value_parser = positive)]
    pool: usize,
    /// Database connections of pgbench
    #[arg(long, default_value_t = 16, value_parser = positive)]
    clients: usize,
    /// Requests over which memory must stay flat
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
    /// Where the figures go [default: rest.json in target/bench]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The server's program [default: longhouse beside this one]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Folder with pgbench and psql [default: the newest in /usr/lib/postgresql]
    #[arg(long, value_name = "FOLDER")]
    postgres: Option<PathBuf>,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1_000).contains(n)).ok_or_else(|| "a number from 1 to 1000".into())
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
    let Built { program, results } = Built::find(settings.server.as_deref())?;
    let out = settings.out.clone().unwrap_or_else(|| results.join("rest.json"));
    let programs = Programs::find(settings.postgres.as_deref())?;
    let workloads = workloads(&settings.only)?;

    let site = Site::start(&program, programs.clone(), settings.pool, &results.join("rest-server.log"))?;
    site.sql(SCHEMA)?;
    site.sql(SETTLE)?;
    let senders = Senders::new(site.address(), site.apikey(), site.jwt_secret())?;
    site.await_schema(&senders.example(Workload::Insert))?;
    let url = site.requests_url()?;
    let mut load = Load::connect(site.address(), settings.connections)?;

    let mut report = Report {
        stamp: Stamp::now(&program)?,
        seconds: settings.seconds,
        connections: settings.connections,
        pool: settings.pool,
        clients: settings.clients,
        rounds: Vec::new(),
        half_loads: Vec::new(),
        memory: None,
        large: None,
        bars: Vec::new(),
    };
    let window = Duration::from_secs(settings.seconds);
    for &workload in &workloads {
        let script = script(&site, &senders, workload)?;
        let requests = senders.requests(workload);
        let file = results.join(format!("rest-{}.pgbench", workload.label().replace(' ', "-")));
        for round in 0..settings.rounds {
            let longhouse = || measure(&site, &mut load, &requests, window);
            let peer = || programs.pgbench(&site, &url, &file, &script, settings.clients, window);
            // Whoever goes first has the cooler processor, or the busier neighbours.
            let (used, peer) = if round % 2 == 0 {
                let used = { longhouse }()?;
                (used, peer()?)
            } else {
                let peer = peer()?;
                ({ longhouse }()?, peer)
            };
            let round = Round { workload, round, longhouse: used, pgbench: peer.into() };
            eprintln!("{}", round.line());
            report.rounds.push(round);
        }
        let rate = report.median_rate(workload) / 2.0;
        load.run(&requests, Pace::Open(rate), Until::Time(WARM_UP))?;
        let half = load.run(&requests, Pace::Open(rate), Until::Time(window))?;
        let half = HalfLoad::of(workload, rate, &half);
        eprintln!("{}", half.line());
        report.half_loads.push(half);
    }
    report.memory = Some(memory(&site, &mut load, &senders, &workloads, settings.requests)?);
    report.large = Some(large(&site, &senders)?);
    report.judge();
    let json = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?;
    std::fs::write(&out, json)?;
    println!("{}", report.text());
    println!("{}", out.display());
    Ok(report.bars.iter().all(|bar| bar.met))
}

fn workloads(only: &[String]) -> Result<Vec<Workload>, Error> {
    let name = |workload: &Workload| workload.label().split(' ').next().unwrap_or_default();
    if let Some(unknown) = only.iter().find(|only| !Workload::ALL.iter().any(|known| name(known) == *only)) {
        return Err(Error::Protocol(format!(
            "no workload `{unknown}`; choose of read, list, embed, insert, rpc"
        )));
    }
    let chosen = |workload: &Workload| only.is_empty() || only.iter().any(|only| only == name(workload));
    Ok(Workload::ALL.into_iter().filter(chosen).collect())
}

/// What pgbench shall send for a workload, after a look at whether the server answers rightly.
fn script(site: &Site, senders: &Senders, workload: Workload) -> Result<Script, Error> {
    let example = senders.example(workload);
    let (status, answer) = site.ask(&example)?;
    if !(200..300).contains(&status) || !answer.contains(workload.expected()) {
        return Err(Error::Protocol(format!("{}: {answer}", workload.label())));
    }
    let sent = site.statements_of(&example)?;
    Ok(Script::of(&sent, &workload.example_key().to_string(), workload.keys()))
}

/// The most that the server answers, and what that costs.
fn measure(
    site: &Site,
    load: &mut Load,
    requests: &[Vec<u8>],
    window: Duration,
) -> Result<report::Used, Error> {
    load.run(requests, Pace::Closed, Until::Time(WARM_UP))?;
    let myself = std::process::id();
    let before = (Cpu::of(site.pid())?, site.postgres_cpu()?, Cpu::of(myself)?);
    let window = load.run(requests, Pace::Closed, Until::Time(window))?;
    let after = (Cpu::of(site.pid())?, site.postgres_cpu()?, Cpu::of(myself)?);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / window.requests as f64;
    Ok(report::Used {
        per_second: window.per_second(),
        server_us: each(after.0.since(&before.0).total),
        postgres_us: each(after.1.since(&before.1)),
        generator_us: each(after.2.since(&before.2).total),
    })
}

/// Memory of the server before and after many requests of all kinds.
fn memory(
    site: &Site,
    load: &mut Load,
    senders: &Senders,
    workloads: &[Workload],
    requests: u64,
) -> Result<Memory, Error> {
    let of_each: Vec<Vec<Vec<u8>>> = workloads.iter().map(|workload| senders.requests(*workload)).collect();
    let longest = of_each.iter().map(Vec::len).max().unwrap_or(0);
    let mixed: Vec<Vec<u8>> = (0..longest)
        .flat_map(|index| of_each.iter().map(move |all| all[index % all.len()].clone()))
        .collect();
    // Buffers and caches have grown after the first tenth.
    load.run(&mixed, Pace::Closed, Until::Requests(requests / 10))?;
    let before_kib = resident_kib(site.pid())?;
    let mut samples_kib = Vec::new();
    for _ in 0..9 {
        load.run(&mixed, Pace::Closed, Until::Requests(requests / 10))?;
        samples_kib.push(resident_kib(site.pid())?);
        eprintln!("memory: {} MB", samples_kib.last().copied().unwrap_or_default() / 1_000);
    }
    Ok(Memory { requests, before_kib, samples_kib })
}

/// Reads a large result slowly, and looks at the server's memory meanwhile.
fn large(site: &Site, senders: &Senders) -> Result<Large, Error> {
    let before_kib = resident_kib(site.pid())?;
    let mut peak_kib = before_kib;
    let mut stream = TcpStream::connect(site.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let begun = Instant::now();
    let request = String::from_utf8_lossy(&senders.large()).replacen("keep-alive", "close", 1);
    stream.write_all(request.as_bytes())?;
    let (mut buffer, mut bytes, mut looked) = (vec![0; 1 << 20], 0_u64, 0_u64);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes - looked > 4 << 20 {
            looked = bytes;
            peak_kib = peak_kib.max(resident_kib(site.pid())?);
        }
    }
    Ok(Large { bytes, seconds: begun.elapsed().as_secs_f64(), before_kib, peak_kib })
}
