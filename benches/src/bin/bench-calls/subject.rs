//! The processes that are measured: the server and the bare relay.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longhouse_benches::server::{Home, Process};

use crate::Error;
use crate::line::Between;

/// A running process under test.
#[derive(Debug)]
pub(crate) struct Subject {
    process: Process,
    pub(crate) between: Between,
    /// From the start of the process to its first answer.
    pub(crate) started_in: Duration,
}

impl Subject {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it without warning, as for a crash.
    pub(crate) fn kill(self) -> Result<(), Error> {
        Ok(self.process.kill()?)
    }
}

/// Starts the relay to `upstream`: this same program under another name.
pub(crate) fn relay(upstream: SocketAddr) -> Result<Subject, Error> {
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["relay", &upstream.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let started_in = begun.elapsed();
    let process = Process::new(child);
    match line.trim().parse() {
        Ok(address) => Ok(Subject { process, between: Between::Relay(address), started_in }),
        Err(_) => Err(Error::Protocol(format!("the relay did not start: {line:?}"))),
    }
}

/// The same server for calls to the model at `upstream`.
pub(crate) fn home(home: Home, upstream: SocketAddr) -> Home {
    home.with("OPENAI_API_KEY", "benchmark")
        .with("LONGHOUSE_OPENAI__REALTIME_URL", format!("ws://{upstream}/v1/realtime"))
        .with("LONGHOUSE_RECEPTIONIST__MAX_CALLS", 5_000)
}

/// Starts the server and waits until it is ready for calls.
pub(crate) fn longhouse(home: &Home) -> Result<Subject, Error> {
    let server = home.start()?;
    match (server.run.twilio_auth_token.clone(), server.run.demo_number.clone()) {
        (Some(auth_token), Some(number)) => {
            let between = Between::Longhouse { address: server.address, auth_token, number };
            Ok(Subject { between, started_in: server.started_in, process: server.into_process() })
        }
        _ => Err(Error::Protocol("run.json names no number to call".into())),
    }
}
