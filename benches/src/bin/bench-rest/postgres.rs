//! The peer: `pgbench`, sending the statements that Longhouse sends, pipelined and prepared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use longhouse_benches::machine::Cpu;

use crate::Error;
use crate::site::{Sent, Site};

/// Postgres' own programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The folder that was named, else the newest of Debian's.
    ///
    /// # Errors
    /// When there is no `pgbench`.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Error> {
        let mut folders: Vec<PathBuf> = match named {
            Some(folder) => vec![folder.to_owned()],
            None => fs::read_dir("/usr/lib/postgresql")
                .map(|versions| versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
                .unwrap_or_default(),
        };
        folders.retain(|folder| folder.join("pgbench").exists());
        folders.sort();
        let folder = folders.pop().ok_or_else(|| {
            Error::Protocol(
                "there is no pgbench: install postgresql, or name its folder with --postgres".into(),
            )
        })?;
        Ok(Self { folder })
    }

    pub(crate) fn psql(&self, url: &str, statements: &str) -> Result<(), Error> {
        let output = Command::new(self.folder.join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--set",
                "ON_ERROR_STOP=1",
                "--dbname",
                url,
                "--command",
                statements,
            ])
            .stdout(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Protocol(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// A script for `pgbench` with its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    text: String,
    variables: Vec<(String, String)>,
}

impl Script {
    /// Repeats a transaction in one pipeline. The value that equals `key` varies over all keys of a user.
    pub(crate) fn of(transaction: &[Sent], key: &str, keys: Option<usize>) -> Self {
        let mut text = String::new();
        let mut variables = Vec::new();
        if let Some(keys) = keys {
            text += &format!("\\set key random(1, {keys})\n");
        }
        text += "\\startpipeline\n";
        for statement in transaction {
            let mut sql = statement.sql.clone();
            for (index, value) in statement.params.iter().enumerate().rev() {
                let name = if keys.is_some() && value == key {
                    "key".to_owned()
                } else {
                    let name = format!("v{}", variables.len());
                    variables.push((name.clone(), value.clone()));
                    name
                };
                sql = sql.replace(&format!("${}", index + 1), &format!(":{name}"));
            }
            text += &sql;
            text += ";\n";
        }
        text += "\\endpipeline\n";
        Self { text, variables }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What a window of `pgbench` gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) per_second: f64,
    /// Processor time of `pgbench` itself, in processors.
    pub(crate) cpus: f64,
    /// Processor time of Postgres, in processors.
    pub(crate) postgres_cpus: f64,
}

impl Programs {
    /// Runs a script for so long against the database of the site.
    pub(crate) fn pgbench(
        &self,
        site: &Site,
        url: &str,
        script: &Path,
        of: &Script,
        clients: usize,
        time: Duration,
    ) -> Result<Peer, Error> {
        fs::write(script, of.text())?;
        let seconds = time.as_secs().max(1);
        let mut command = Command::new(self.folder.join("pgbench"));
        command
            .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2"])
            .args(["--client", &clients.to_string(), "--time", &seconds.to_string()])
            .arg("--file")
            .arg(script);
        for (name, value) in &of.variables {
            command.arg("--define").arg(format!("{name}={value}"));
        }
        let child =
            command.arg(url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Its processor time can only be read while it runs: over the middle of the window.
        let edge = Duration::from_millis(400);
        std::thread::sleep(edge);
        let before = (Cpu::of(child.id()), site.postgres_cpu()?);
        let window = Duration::from_secs(seconds) - edge * 2;
        std::thread::sleep(window);
        let after = (Cpu::of(child.id()), site.postgres_cpu()?);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let per_second = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .filter(|_| output.status.success());
        let (Some(per_second), Ok(own_before), Ok(own_after)) = (per_second, before.0, after.0) else {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Protocol(format!("pgbench: {}\n{}", error.trim(), of.text())));
        };
        let processors = |time: Duration| time.as_secs_f64() / window.as_secs_f64();
        Ok(Peer {
            per_second,
            cpus: processors(own_after.since(&own_before).total),
            postgres_cpus: processors(after.1.since(&before.1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_becomes_a_pipeline() {
        let sent = |sql: &str, params: &[&str]| Sent {
            sql: sql.into(),
            params: params.iter().map(|&param| param.to_owned()).collect(),
        };
        let transaction = [
            sent("begin", &[]),
            sent("select set_config('role', $1, true)", &["authenticated"]),
            sent("select $1::text where id = $2", &["x", "777"]),
            sent("commit", &[]),
        ];
        let script = Script::of(&transaction, "777", Some(1000));
        assert_eq!(
            script.text,
            "\\set key random(1, 1000)\n\\startpipeline\nbegin;\nselect set_config('role', :v0, true);\n\
             select :v1::text where id = :key;\ncommit;\n\\endpipeline\n"
        );
        assert_eq!(script.variables, [("v0".into(), "authenticated".into()), ("v1".into(), "x".into())]);
    }
}
