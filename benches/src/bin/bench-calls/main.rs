//! `cargo xtask bench calls`: what Longhouse adds to phone calls, beside a bare relay in the same run.
//!
//! The generator plays the callers and the speech model of N calls in real time: 50 frames a second each way, the model
//! talking all the time in 20 ms deltas, which is the worst case. Between the two lies nothing, a relay that only
//! forwards, or the release build of `longhouse serve`. Each frame carries the time at which it was written.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod line;
mod load;
mod relay;
mod report;
mod speech;
mod subject;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use longhouse_benches::figures::{Spread, Stamp};
use longhouse_benches::machine::{self, Cpu, Load as MachineLoad, resident_kib};
use longhouse_benches::server::{Built, Home};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use line::{Between, Exchange};
use load::Load;
use report::{Kind, Report, Run, Start};
use subject::Subject;

/// Time between the last call's beginning and the window: buffers have grown, greetings are over.
const SETTLE: Duration = Duration::from_secs(2);
/// Time between a start and the reading of the idle server's memory.
const IDLE: Duration = Duration::from_secs(2);
/// Starts with the database up.
const STARTS: usize = 7;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something that was measured did not do what it should.
    #[error("{0}")]
    Protocol(String),
}

/// Measures calls: added latency, processor time and memory at several numbers of calls.
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  cargo xtask bench calls\n  cargo xtask bench calls -- --calls 50 --seconds 5 --rounds 1"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Role {
    /// The peer: forwards everything between each caller and the given address
    #[command(hide = true)]
    Relay { upstream: SocketAddr },
}

#[derive(Args)]
struct Settings {
    /// Concurrent calls, one measurement each
    #[arg(long, value_delimiter = ',', default_value = "50,200,600", value_parser = parse_positive)]
    calls: Vec<usize>,
    /// Length of a window
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Windows of each kind
    #[arg(long, default_value_t = 3, value_parser = parse_positive)]
    rounds: usize,
    /// Windows to repeat at most, each, when other programs were busy meanwhile; the quietest counts
    #[arg(long, default_value_t = 4)]
    repeats: usize,
    /// Where the figures go [default: calls.json in target/bench]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The server's program [default: longhouse beside this one]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

fn parse_positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(|| "a number from 1 to 10000".into())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_open_files();
    let done = match cli.command {
        Some(Role::Relay { upstream }) => relay::run(upstream).map_err(Error::from),
        None => bench(&cli.settings),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A call takes four descriptors here, two sockets for writing and their doubles for reading.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If it cannot be raised, connecting fails and says why.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn bench(settings: &Settings) -> Result<(), Error> {
    let Built { program, results } = Built::find(settings.server.as_deref())?;
    let out = settings.out.clone().unwrap_or_else(|| results.join("calls.json"));

    let exchange = Exchange::open()?;
    let home = Home::new(&program, &results.join("calls-server.log"))?;
    let home = subject::home(home, exchange.address());
    let start = measure_start(&home)?;
    let nothing = || Ok(None);
    let relay = || subject::relay(exchange.address()).map(Some);
    let server = || subject::longhouse(&home).map(Some);
    let mut runs = Vec::new();
    for &calls in &settings.calls {
        runs.push(quietest(&exchange, &nothing, calls, 0, settings)?);
        for round in 0..settings.rounds {
            // Whoever goes first has the cooler processor, or the busier neighbours.
            let order: [Begin<'_>; 2] = if round % 2 == 0 { [&relay, &server] } else { [&server, &relay] };
            for begin in order {
                runs.push(quietest(&exchange, begin, calls, round, settings)?);
            }
        }
    }
    let mut report = Report {
        stamp: Stamp::now(&program)?,
        seconds: settings.seconds,
        rounds: settings.rounds,
        start,
        bars: Vec::new(),
        runs,
    };
    report.judge();
    let json = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?;
    std::fs::write(&out, json)?;
    println!(
        "{}\nmedian of {} windows of {} s (smallest–largest), latencies in ms\n\n{}",
        report.stamp,
        report.rounds,
        report.seconds,
        report.tables()
    );
    println!("{}", out.display());
    Ok(())
}

/// How long the server takes to start, and what it holds when it has nothing to do.
fn measure_start(home: &Home) -> Result<Start, Error> {
    let first = subject::longhouse(home)?;
    let first_ms = milliseconds(first.started_in);
    eprintln!("first start, with a new database: {first_ms:.0} ms");
    let mut running = first;
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        // Killed, it leaves its database running; the next start finds it up.
        running.kill()?;
        running = subject::longhouse(home)?;
        starts.push(milliseconds(running.started_in));
    }
    std::thread::sleep(IDLE);
    let idle_rss_mb = resident_kib(running.pid())? as f64 * 1_024.0 / 1e6;
    let start = Start { with_database_up_ms: Spread::of(starts), first_ms, idle_rss_mb };
    if let Some(spread) = start.with_database_up_ms {
        eprintln!(
            "start with the database up: {:.0} ms ({:.0}–{:.0}); idle: {idle_rss_mb:.1} MB",
            spread.median, spread.min, spread.max
        );
    }
    Ok(start)
}

/// Starts what is measured; nothing for the generator alone.
type Begin<'a> = &'a dyn Fn() -> Result<Option<Subject>, Error>;

/// Measures until the machine was quiet, or as often as allowed.
fn quietest(
    exchange: &Exchange,
    begin: Begin<'_>,
    calls: usize,
    round: usize,
    settings: &Settings,
) -> Result<Run, Error> {
    let mut best: Option<Run> = None;
    for _ in 0..=settings.repeats {
        let run = measure(exchange, begin()?, calls, round, settings.seconds)?;
        eprintln!("{}", run.line());
        if best.as_ref().is_none_or(|best| run.other_programs_cpus < best.other_programs_cpus) {
            best = Some(run);
        }
        if best.as_ref().is_some_and(Run::is_undisturbed) {
            break;
        }
    }
    best.ok_or_else(|| Error::Protocol("nothing was measured".into()))
}

/// One window with so many calls.
fn measure(
    exchange: &Exchange,
    subject: Option<Subject>,
    calls: usize,
    round: usize,
    seconds: u64,
) -> Result<Run, Error> {
    let nothing = Between::Nothing;
    let between = subject.as_ref().map_or(&nothing, |subject| &subject.between);
    let kind = match between {
        Between::Nothing => Kind::Nothing,
        Between::Relay(_) => Kind::Relay,
        Between::Longhouse { .. } => Kind::Longhouse,
    };
    let pid = subject.as_ref().map(Subject::pid);
    if pid.is_some() {
        std::thread::sleep(IDLE);
    }
    let idle_rss = pid.map(resident_kib).transpose()?;
    let mut load = Load::start(calls, between.speaks())?;
    let connecting = Instant::now();
    for index in 0..calls {
        load.add(exchange.connect(between, index)?)?;
    }
    eprintln!("{calls} calls put through in {:.1} s", connecting.elapsed().as_secs_f64());
    std::thread::sleep(SETTLE);

    let myself = std::process::id();
    let read = || -> Result<_, Error> {
        Ok((Instant::now(), pid.map(Cpu::of).transpose()?, Cpu::of(myself)?, MachineLoad::now()?))
    };
    let mut readings = None;
    let window = load.measure(Duration::from_secs(seconds), read, |before| {
        readings = Some((before, read()?, pid.map(resident_kib).transpose()?));
        Ok(())
    })?;
    let mut run = Run::of(calls, round, kind, &window);
    if let Some((before, after, rss)) = readings {
        let elapsed = after.0 - before.0;
        run.generator_cpus = after.2.since(&before.2).total.as_secs_f64() / elapsed.as_secs_f64();
        run.machine_idle_percent = after.3.idle_since(&before.3);
        let busy = machine::cpus() as f64 * (1.0 - run.machine_idle_percent / 100.0);
        run.other_programs_cpus = busy - run.generator_cpus;
        if let (Some(before), Some(after)) = (before.1, after.1) {
            let used = after.since(&before);
            run.other_programs_cpus -= used.total.as_secs_f64() / elapsed.as_secs_f64();
            let call_seconds = calls as f64 * elapsed.as_secs_f64();
            run.cpu_ms_per_call_second = Some(milliseconds(used.total) / call_seconds);
            run.cpu_system_share = Some(used.system.as_secs_f64() / used.total.as_secs_f64());
        }
        if let (Some(idle), Some(rss)) = (idle_rss, rss) {
            run.memory_kib_per_call = Some(rss.saturating_sub(idle) as f64 / calls as f64);
        }
        (run.idle_rss_kib, run.rss_kib) = (idle_rss, rss);
    }
    load.hang_up()?;
    // The kernel samples idleness at its ticks, but counts the time of programs: small figures may cross over.
    run.other_programs_cpus = run.other_programs_cpus.max(0.0);
    Ok(run)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
