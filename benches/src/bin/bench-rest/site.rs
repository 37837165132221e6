//! The server with its database: the release build of `longhouse serve` on a folder of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longhouse_benches::machine::Family;
use longhouse_benches::server::{Home, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::Error;
use crate::postgres::Programs;

/// How long a notice needs at most from the database to the server, or a setting to every backend.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub(crate) struct Site {
    // Ends before its home does.
    server: Server,
    home: Home,
    postmaster: u32,
    cluster: PathBuf,
    programs: Programs,
}

#[derive(Deserialize)]
struct Credentials {
    authenticator: String,
}

/// A statement as the server sent it, with its values as Postgres logged them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) sql: String,
    pub(crate) params: Vec<String>,
}

impl Site {
    /// Starts the server on a new folder and waits until it is ready.
    pub(crate) fn start(program: &Path, programs: Programs, pool: usize, log: &Path) -> Result<Self, Error> {
        let home = Home::new(program, log)?.with("LONGHOUSE_DATABASE__POOL_SIZE", pool);
        let server = home.start()?;
        let data = home.data();
        let cluster = find(&data, "postmaster.pid")?
            .ok_or_else(|| Error::Protocol("the data folder holds no running database".into()))?;
        let postmaster = fs::read_to_string(cluster.join("postmaster.pid"))?
            .lines()
            .next()
            .and_then(|pid| pid.trim().parse().ok())
            .ok_or_else(|| Error::Protocol("postmaster.pid cannot be read".into()))?;
        Ok(Self { server, home, postmaster, cluster, programs })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn apikey(&self) -> &str {
        &self.server.run.publishable_key
    }

    pub(crate) fn jwt_secret(&self) -> &str {
        &self.server.run.jwt_secret
    }

    /// URL of the role that the server's requests connect as.
    pub(crate) fn requests_url(&self) -> Result<String, Error> {
        let file = find(&self.home.data(), "credentials.json")?
            .ok_or_else(|| Error::Protocol("the data folder holds no credentials".into()))?;
        let credentials: Credentials = serde_json::from_slice(&fs::read(file.join("credentials.json"))?)
            .map_err(|error| Error::Protocol(format!("credentials.json: {error}")))?;
        let (_, place) = self.server.run.database_url.split_once('@').unwrap_or_default();
        Ok(format!("postgresql://authenticator:{}@{place}", credentials.authenticator))
    }

    /// Runs statements as the owner of the schema.
    pub(crate) fn sql(&self, statements: &str) -> Result<(), Error> {
        self.programs.psql(&self.server.run.database_url, statements)
    }

    /// Waits until the server knows of new tables.
    pub(crate) fn await_schema(&self, request: &[u8]) -> Result<(), Error> {
        let begun = Instant::now();
        while self.ask(request)?.0 == 404 {
            if begun.elapsed() > NOTICE_LIMIT {
                return Err(Error::Protocol("the server does not see the new tables".into()));
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }

    /// Status and all bytes of the answer to one request.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<(u16, String), Error> {
        let mut stream = TcpStream::connect(self.server.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&close(request))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, answer))
    }

    /// The statements that the server sends for a request, from Postgres' own log.
    pub(crate) fn statements_of(&self, request: &[u8]) -> Result<Vec<Sent>, Error> {
        // The first time a connection prepares what it sends, which is logged otherwise.
        self.ask(request)?;
        self.log_statements(true)?;
        let log = self.log_file()?;
        let begun = Instant::now();
        let sent = loop {
            let before = fs::metadata(&log)?.len() as usize;
            self.ask(request)?;
            std::thread::sleep(ASK_EVERY * 5);
            let text = fs::read(&log)?;
            let text = String::from_utf8_lossy(text.get(before..).unwrap_or_default());
            if let Some(sent) = request_transaction(&text) {
                break sent;
            }
            if begun.elapsed() > NOTICE_LIMIT {
                return Err(Error::Protocol("no whole transaction of a request in Postgres' log".into()));
            }
        };
        self.log_statements(false)?;
        Ok(sent)
    }

    fn log_statements(&self, on: bool) -> Result<(), Error> {
        let setting = if on { "log_statement = 'all'\nlog_parameter_max_length = -1\n" } else { "" };
        fs::write(self.cluster.join("local.conf"), setting)?;
        if let Some(pid) = i32::try_from(self.postmaster).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::HUP).map_err(std::io::Error::from)?;
        }
        std::thread::sleep(ASK_EVERY * 10);
        Ok(())
    }

    fn log_file(&self) -> Result<PathBuf, Error> {
        let home = self.cluster.parent().unwrap_or(&self.cluster).join("log");
        let mut logs = fs::read_dir(&home)?.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
        logs.pop().ok_or_else(|| Error::Protocol(format!("no log in {}", home.display())))
    }

    /// Processor time of Postgres: all of its processes.
    pub(crate) fn postgres_cpu(&self) -> Result<Family, Error> {
        Ok(Family::of(self.postmaster)?)
    }
}

/// The same request on a connection that ends with it.
fn close(request: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(request).replacen("Connection: keep-alive", "Connection: close", 1).into_bytes()
}

/// The folder, at most three levels down, that holds a file of this name.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>, Error> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..4 {
        let mut below = Vec::new();
        for folder in level {
            if folder.join(name).exists() {
                return Ok(Some(folder));
            }
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    below.push(path);
                }
            }
        }
        level = below;
    }
    Ok(None)
}

/// The statements of a request, from `begin` to `commit`, among those of other sessions.
fn request_transaction(log: &str) -> Option<Vec<Sent>> {
    let mut sessions: Vec<(&str, Vec<Sent>)> = Vec::new();
    for line in log.lines() {
        let Some((session, message)) = line.split_once("] ") else { continue };
        let session = session.rsplit('[').next().unwrap_or_default();
        let index = sessions.iter().position(|(known, _)| *known == session).unwrap_or_else(|| {
            sessions.push((session, Vec::new()));
            sessions.len() - 1
        });
        let sent = &mut sessions[index].1;
        let statement = message
            .split_once(" LOG:  execute ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .or_else(|| message.split_once(" LOG:  statement: "));
        if let Some((_, sql)) = statement {
            if sql.starts_with("begin") {
                sent.clear();
            }
            sent.push(Sent { sql: sql.to_owned(), params: Vec::new() });
            let is_request = sent.iter().any(|statement| statement.sql.contains("'request.path'"));
            if is_request && sql == "commit" {
                return Some(std::mem::take(sent));
            }
        } else if let Some((_, params)) = message.split_once(" DETAIL:  parameters: ")
            && let Some(last) = sent.last_mut()
        {
            last.params = parse_params(params);
        }
    }
    None
}

/// Values of `$1 = 'it''s', $2 = NULL, …`; null counts as empty.
fn parse_params(mut text: &str) -> Vec<String> {
    let mut params = Vec::new();
    while let Some((_, rest)) = text.split_once(" = ") {
        let Some(mut quoted) = rest.strip_prefix('\'') else {
            params.push(String::new());
            text = rest;
            continue;
        };
        let mut value = String::new();
        while let Some((part, rest)) = quoted.split_once('\'') {
            value.push_str(part);
            match rest.strip_prefix('\'') {
                Some(rest) => {
                    value.push('\'');
                    quoted = rest;
                }
                None => {
                    quoted = rest;
                    break;
                }
            }
        }
        params.push(value);
        text = quoted;
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_of_a_request_are_found_among_others() {
        let log = "2026-11-21 14:00:00.000 UTC [9] authenticator@postgres LOG:  statement: begin read only
2026-11-21 14:00:00.000 UTC [8] authenticator@postgres LOG:  statement: begin
2026-11-21 14:00:00.000 UTC [8] authenticator@postgres LOG:  execute s1: select other
2026-11-21 14:00:00.000 UTC [9] authenticator@postgres LOG:  execute s1: select set_config('request.path', $1), a::text
2026-11-21 14:00:00.000 UTC [9] authenticator@postgres DETAIL:  parameters: $1 = '{\"it''s\": \"a = b\"}', $2 = NULL, $3 = ''
2026-11-21 14:00:00.000 UTC [8] authenticator@postgres LOG:  statement: commit
2026-11-21 14:00:00.000 UTC [9] authenticator@postgres LOG:  statement: commit
";
        let sent = request_transaction(log).unwrap();
        let sql: Vec<&str> = sent.iter().map(|sent| sent.sql.as_str()).collect();
        assert_eq!(sql, ["begin read only", "select set_config('request.path', $1), a::text", "commit"]);
        assert_eq!(sent[1].params, ["{\"it's\": \"a = b\"}", "", ""]);
        assert_eq!(request_transaction(&log[..log.len() - 20]), None);
    }
}
