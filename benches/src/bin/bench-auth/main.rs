//! `cargo xtask bench auth`: what a token check costs, how many refreshes and sign-ins there are in a second, and what
//! a thousand uses of one refresh token at once leave behind.
//!
//! The release build of `longhouse serve` with its own Postgres, and the clients, share one box.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use longhouse_benches::figures::{Stamp, percentile};
use longhouse_benches::machine::{Cpu, cpus};
use longhouse_benches::server::{Built, Home, Server};
use longhouse_identity::{ProjectKeys, Verifier};
use serde_json::json;

use client::{Client, Session};
use report::{Race, Refreshes, Report, SignIns, TokenCheck};

/// Every account's password, and a bcrypt cost as Supabase uses it.
const PASSWORD: &str = "correct horse battery staple";
const COST: u32 = 10;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Hash(#[from] bcrypt::BcryptError),
    /// Something that was measured did not do what it should.
    #[error("{0}")]
    Protocol(String),
}

/// Measures the auth service: token checks, refreshes, sign-ins, and a race for one refresh token.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  cargo xtask bench auth\n  cargo xtask bench auth -- --seconds 3 --rounds 1"
)]
struct Settings {
    /// Length of a window
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Windows of each kind
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Signed-in devices that refresh
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    devices: u64,
    /// Uses of one refresh token at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    uses: u64,
    /// Where the figures go [default: auth.json in target/bench]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The server's program [default: longhouse beside this one]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench(&Settings::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; says whether all limits are kept.
async fn bench(settings: &Settings) -> Result<bool, Error> {
    let Built { program, results } = Built::find(settings.server.as_deref())?;
    let out = settings.out.clone().unwrap_or_else(|| results.join("auth.json"));
    let mut home = Home::new(&program, &results.join("auth-server.log"))?;
    for name in ["TOKEN", "OTP", "FAILURES"] {
        home = home.with(format!("LONGHOUSE_AUTH__LIMIT_{name}"), 0);
    }
    let server = home.start()?;

    let window = Duration::from_secs(settings.seconds);
    let mut report = Report::new(Stamp::now(&program)?);
    for _ in 0..settings.rounds {
        report.token_checks.push(token_check()?);
    }
    let client = Client::new(&server)?;
    let hash = bcrypt::hash(PASSWORD, COST)?;
    let mut sessions = Vec::new();
    for device in 0..settings.devices {
        let email = format!("device-{device}@example.com");
        client.create(&email, &hash).await?;
        sessions.push(client.sign_in(&email, PASSWORD).await?);
    }
    for _ in 0..settings.rounds {
        report.refreshes.push(refreshes(&server, &client, &mut sessions, window).await?);
        eprintln!("{}", report.refreshes.last().map(Refreshes::line).unwrap_or_default());
    }
    for round in 0..settings.rounds {
        // Whoever goes first has the cooler processor.
        let (hashes, signed_in) = if round % 2 == 0 {
            let hashes = hashing(&hash, window).await?;
            (hashes, sign_ins(&client, settings.devices, window).await?)
        } else {
            let signed_in = sign_ins(&client, settings.devices, window).await?;
            (hashing(&hash, window).await?, signed_in)
        };
        report.sign_ins.push(SignIns { hashes_per_second: hashes, per_second: signed_in });
        eprintln!("{}", report.sign_ins.last().map(SignIns::line).unwrap_or_default());
    }
    report.race = Some(race(&client, settings.uses).await?);
    report.judge();
    std::fs::write(&out, serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?)?;
    println!("{}", report.text());
    println!("{}", out.display());
    Ok(report.all_met())
}

/// Checks one token again and again, as a server does whose clients ask more than once; and ever new ones.
fn token_check() -> Result<TokenCheck, Error> {
    const TIMES: u32 = 200_000;
    const NEW: u32 = 5_000;
    let keys = ProjectKeys::generate();
    let verifier = Verifier::new(&keys);
    let token = |serial: u32| {
        let claims = json!({
            "sub": "5f2b8f4e-4a39-4e0f-9d86-1d4e0d5f6a01", "role": "authenticated", "aud": "authenticated",
            "exp": chrono::Utc::now().timestamp() + 3_600, "email": "ada@example.com", "serial": serial,
            "app_metadata": { "provider": "email", "providers": ["email"] },
            "session_id": "0b0d4d3e-2f34-4a8e-8d0e-6e1f0a9b7c55", "aal": "aal1",
        });
        let map = claims.as_object().cloned().unwrap_or_default();
        keys.sign(&map)
    };
    let check = |token: &secrecy::SecretString| {
        use secrecy::ExposeSecret as _;
        verifier.verify(token.expose_secret()).map(drop).map_err(|error| Error::Protocol(error.to_string()))
    };
    let one = token(0);
    check(&one)?;
    let begun = Instant::now();
    for _ in 0..TIMES {
        check(&one)?;
    }
    let cached = begun.elapsed() / TIMES;
    let new: Vec<_> = (1..=NEW).map(token).collect();
    let begun = Instant::now();
    for token in &new {
        check(token)?;
    }
    Ok(TokenCheck {
        cached_us: cached.as_secs_f64() * 1e6,
        new_us: begun.elapsed().as_secs_f64() * 1e6 / f64::from(NEW),
    })
}

/// Every device refreshes as fast as it is answered.
async fn refreshes(
    server: &Server,
    client: &Client,
    sessions: &mut Vec<Session>,
    window: Duration,
) -> Result<Refreshes, Error> {
    let over = Arc::new(AtomicBool::new(false));
    let myself = std::process::id();
    let before = (Cpu::of(server.pid())?, Cpu::of(myself)?);
    let begun = Instant::now();
    let mut devices = tokio::task::JoinSet::new();
    for mut session in sessions.drain(..) {
        let (client, over) = (client.clone(), Arc::clone(&over));
        devices.spawn(async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                session = client.refresh(&session.refresh_token).await?;
                times.push(asked.elapsed());
            }
            Ok::<_, Error>((session, times))
        });
    }
    tokio::time::sleep(window).await;
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(device) = devices.join_next().await {
        let (session, mut of_device) =
            device.map_err(|error| Error::Protocol(format!("a device failed: {error}")))??;
        sessions.push(session);
        times.append(&mut of_device);
    }
    let elapsed = begun.elapsed();
    let after = (Cpu::of(server.pid())?, Cpu::of(myself)?);
    times.sort_unstable();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times.len().max(1) as f64;
    let at = |share| percentile(&times, share).map_or(0.0, |time: Duration| time.as_secs_f64() * 1e3);
    Ok(Refreshes {
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        server_us: each(after.0.since(&before.0).total),
        generator_us: each(after.1.since(&before.1).total),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    })
}

/// The most hashes that this machine checks in a second: the ceiling of sign-ins.
async fn hashing(hash: &str, window: Duration) -> Result<f64, Error> {
    let begun = Instant::now();
    let threads: Vec<_> = (0..cpus())
        .map(|_| {
            let hash = hash.to_owned();
            std::thread::spawn(move || {
                let mut checked = 0_u64;
                while begun.elapsed() < window {
                    if !bcrypt::verify(PASSWORD, &hash)? {
                        return Err(Error::Protocol("bcrypt refuses the right password".into()));
                    }
                    checked += 1;
                }
                Ok(checked)
            })
        })
        .collect();
    let mut checked = 0;
    for thread in threads {
        checked += thread.join().map_err(|_| Error::Protocol("a hashing thread failed".into()))??;
    }
    Ok(checked as f64 / begun.elapsed().as_secs_f64())
}

/// Sign-ins by password, a few at once, as fast as they are answered.
async fn sign_ins(client: &Client, accounts: u64, window: Duration) -> Result<f64, Error> {
    const AT_ONCE: u64 = 8;
    let begun = Instant::now();
    let count = Arc::new(AtomicU64::new(0));
    let mut devices = tokio::task::JoinSet::new();
    for device in 0..AT_ONCE {
        let (client, count) = (client.clone(), Arc::clone(&count));
        devices.spawn(async move {
            let email = format!("device-{}@example.com", device % accounts);
            while begun.elapsed() < window {
                client.sign_in(&email, PASSWORD).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(device) = devices.join_next().await {
        device.map_err(|error| Error::Protocol(format!("a sign-in failed: {error}")))??;
    }
    Ok(count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

/// One refresh token, used by many at once: everybody must end up on the same live chain.
async fn race(client: &Client, uses: u64) -> Result<Race, Error> {
    let session = client.sign_in("device-0@example.com", PASSWORD).await?;
    let begun = Instant::now();
    let mut devices = tokio::task::JoinSet::new();
    for _ in 0..uses {
        let (client, token) = (client.clone(), session.refresh_token.clone());
        devices.spawn(async move { client.refresh(&token).await });
    }
    let (mut answered, mut tokens) = (0, std::collections::BTreeSet::new());
    while let Some(device) = devices.join_next().await {
        let device = device.map_err(|error| Error::Protocol(format!("a device failed: {error}")))?;
        if let Ok(session) = device {
            answered += 1;
            tokens.insert(session.refresh_token);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut live = 0;
    for token in &tokens {
        // A chain that lives can be refreshed once more.
        live += u64::from(client.refresh(token).await.is_ok());
    }
    Ok(Race { uses, answered, distinct: tokens.len() as u64, live, seconds })
}
