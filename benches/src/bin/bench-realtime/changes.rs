//! Followers of one table under row-level security, while rows are written at a steady rate.
//!
//! Every follower is another user and sees the rows of its own; a few see all, so that each change is decided for each
//! of them and delivered to some.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::{EncodingKey, Header, encode};
use longhouse_benches::figures::percentile;
use longhouse_benches::machine::Cpu;
use longhouse_benches::server::Server;
use longhouse_database::{DatabaseOptions, connect_client};
use serde_json::json;

use crate::Error;
use crate::report::Changes;
use crate::socket::{Door, read_frame};

const SCHEMA: &str = "
    create table public.readings (
      id bigint generated always as identity primary key,
      owner uuid not null,
      written_at bigint not null,
      text text not null
    );
    alter table public.readings enable row level security;
    create policy own on public.readings for select to authenticated using (owner = (select auth.uid()));
    grant select on public.readings to authenticated;
    alter publication supabase_realtime add table public.readings;";

/// Rows of one transaction.
const BATCH: u64 = 10;
/// Longest wait for the followers to be told that they follow.
const READY: Duration = Duration::from_secs(30);
/// Longest wait for what was written last.
const LAST: Duration = Duration::from_secs(15);

fn user(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

pub(crate) fn measure(
    server: &Server,
    door: &Door,
    followers: u32,
    rate: u64,
    window: Duration,
) -> Result<Changes, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = server.run.database_url.clone();
    let options = DatabaseOptions {
        url: url.into(),
        pool_size: 1,
        pool_timeout: Duration::from_secs(10),
        ca_file: None,
    };
    let client = runtime.block_on(connect_client(&options))?;
    runtime.block_on(client.batch_execute(SCHEMA)).map_err(longhouse_database::Error::from)?;
    let mut sockets = Vec::new();
    for number in 0..followers {
        let claims = json!({ "sub": user(number), "role": "authenticated", "aud": "authenticated", "exp": epoch_ns() / 1_000_000_000 + 3_600 });
        let token =
            encode(&Header::default(), &claims, &EncodingKey::from_secret(server.run.jwt_secret.as_bytes()))?;
        let config =
            json!({ "postgres_changes": [{ "event": "INSERT", "schema": "public", "table": "readings" }] });
        sockets.push(door.enter(number, "readings", Some((config, &token)))?);
    }
    for stream in &mut sockets {
        stream.set_read_timeout(Some(READY))?;
        let told = String::from_utf8_lossy(&read_frame(stream)?).into_owned();
        if !told.contains("Subscribed to PostgreSQL") {
            return Err(Error::Protocol(told));
        }
        stream.set_nonblocking(true)?;
    }

    let cpu = Cpu::of(server.pid())?;
    let (delivered, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = {
        let (delivered, over) = (Arc::clone(&delivered), Arc::clone(&over));
        std::thread::spawn(move || read(sockets, &delivered, &over))
    };
    let begun = Instant::now();
    let written = runtime.block_on(write(&client, followers, rate, window))?;
    let wrote = begun.elapsed();
    let ended = Instant::now();
    while delivered.load(Ordering::Relaxed) < written && ended.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(5));
    }
    let behind = ended.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut latencies = reader.join().map_err(|_| Error::Protocol("the reader failed".into()))?;
    latencies.sort_unstable();
    let at = |share| percentile(&latencies, share).unwrap_or_default() as f64 / 1e6;
    let changes = Changes {
        followers,
        changes_per_second: written as f64 / wrote.as_secs_f64(),
        decided_per_second: written as f64 * f64::from(followers) / wrote.as_secs_f64(),
        missing: written.saturating_sub(delivered.load(Ordering::Relaxed)),
        behind_ms: behind.as_secs_f64() * 1e3,
        p50_ms: at(0.5),
        p95_ms: at(0.95),
        server_cpu_us_each: Cpu::of(server.pid())?.since(&cpu).total.as_secs_f64() * 1e6
            / written.max(1) as f64,
    };
    eprintln!("{}", changes.line());
    Ok(changes)
}

fn epoch_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64)
}

/// Writes rows for the followers in turn; returns how many.
async fn write(
    client: &longhouse_database::tokio_postgres::Client,
    followers: u32,
    rate: u64,
    window: Duration,
) -> Result<u64, Error> {
    const INSERT: &str = "
        insert into public.readings (owner, written_at, text)
        select ('00000000-0000-4000-8000-' || lpad(to_hex(($1::bigint + n) % $2::bigint), 12, '0'))::uuid, $3, 'a reading of some length'
        from generate_series(0, $4::bigint - 1) as n";
    let insert = client.prepare(INSERT).await.map_err(longhouse_database::Error::from)?;
    let begun = Instant::now();
    let mut written = 0_u64;
    while begun.elapsed() < window {
        let due = Duration::from_nanos(written * 1_000_000_000 / rate.max(1));
        if let Some(wait) = due.checked_sub(begun.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        let (from, count) = (written.cast_signed(), BATCH.cast_signed());
        client
            .execute(&insert, &[&from, &i64::from(followers), &epoch_ns().cast_signed(), &count])
            .await
            .map_err(longhouse_database::Error::from)?;
        written += BATCH;
    }
    Ok(written)
}

/// Reads until it is over; returns the age of each change when it came, in nanoseconds.
fn read(mut sockets: Vec<TcpStream>, delivered: &AtomicU64, over: &AtomicBool) -> Vec<u64> {
    let mut ages = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !over.load(Ordering::Relaxed) {
        let mut idle = true;
        for stream in &mut sockets {
            match stream.read(&mut buffer) {
                Ok(read) => {
                    idle = false;
                    let now = epoch_ns();
                    // A change is small, and at most a few are in one piece.
                    for written in moments(&buffer[..read]) {
                        ages.push(now.saturating_sub(written));
                        delivered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return ages,
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    ages
}

/// The values of `"written_at":` in frames.
fn moments(bytes: &[u8]) -> impl Iterator<Item = u64> {
    const NAME: &[u8] = br#""written_at":"#;
    bytes.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).filter_map(|(at, _)| {
        let digits = bytes[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let value =
            digits.fold(0_u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        (value > 0).then_some(value)
    })
}
