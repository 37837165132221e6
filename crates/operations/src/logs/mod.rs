//! Logs: readable on a terminal, one JSON object a line elsewhere, without secrets in either.
//!
//! The rule is that secrets are never passed to the log. Redaction here is the net below the rope: it removes
//! what looks like a token, a key or a password from every line, whoever wrote it.

mod recent;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use longhouse_config::{Log, LogFormat};
use regex::Regex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use recent::{Level, LogEntry, RecentLogs};

use crate::Error;

/// Sends `tracing` events to standard error from now on, and keeps the latest.
///
/// # Errors
/// The filter does not parse, or logs are already set up.
pub fn init(settings: &Log) -> Result<RecentLogs, Error> {
    // Postgres' notices ("already exists, skipping") are for those who ask for them. To s3s every refusal is an error,
    // and at `debug` it writes whole requests, session tokens included.
    let filter = EnvFilter::try_new(format!("tokio_postgres=warn,s3s=off,{}", settings.filter))
        .map_err(|error| Error::Filter { filter: settings.filter.clone(), reason: error.to_string() })?;
    let terminal = io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let recent = RecentLogs::default();
    let registry = tracing_subscriber::registry().with(filter).with(recent.layer());
    let layer = tracing_subscriber::fmt::layer().with_writer(Redacting);
    if json {
        registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()
    } else {
        registry.with(layer.with_ansi(terminal)).try_init()
    }
    .map_err(|_| Error::LogsTwice)?;
    Ok(recent)
}

/// Removes what looks like a secret: JWTs, provider and project keys, bearer tokens, passwords in URLs, and
/// values of keys such as `password=`.
pub fn redact(line: &str) -> Cow<'_, str> {
    static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?P<jwt>(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?)",
            r"|(?P<key>(?-u:\b)(?:sk-|sk_|sb_secret_|AIza|xai-|gsk_|rk_)[A-Za-z0-9_-]{12,})",
            r"|(?P<keep1>(?i-u:bearer)\s+)[A-Za-z0-9._~+/=-]{8,}",
            r"|(?P<keep2>[a-z]+://[^\s:/@\x22]*:)[^\s@/\x22]+@",
            r#"|(?P<keep3>(?i-u:\b(?:password|passwd|secret|token|apikey|api_key|access_token|refresh_token)\\?"?[=:]\s*\\?"?))[^\s&"',;}\\]{4,}"#,
        ))
        .expect("constant pattern")
    });
    SECRETS.replace_all(line, |found: &regex::Captures<'_>| {
        if let Some(url) = found.name("keep2") {
            return format!("{}[redacted]@", url.as_str());
        }
        let kept = found.name("keep1").or_else(|| found.name("keep3")).map_or("", |kept| kept.as_str());
        format!("{kept}[redacted]")
    })
}

struct Redacting;

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Redacting {
    /// The formatter writes whole events, so that no secret is split over two calls.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        io::stderr().lock().write_all(redact(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("got eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2ln here", "got [redacted] here")]
    #[case("key sk-proj-abcdefghijklmnop!", "key [redacted]!")]
    #[case("sb_secret_AAAAAAAAAAAAAAAA_BBBB", "[redacted]")]
    #[case("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [redacted]")]
    #[case("postgres://longhouse:hunter2@db:5432/x", "postgres://longhouse:[redacted]@db:5432/x")]
    #[case("?apikey=abcdef&x=1", "?apikey=[redacted]&x=1")]
    #[case(r#"{"password":"hunter22","a":1}"#, r#"{"password":"[redacted]","a":1}"#)]
    #[case(r#"{"message":"{\"token\":\"abcdef\"}"}"#, r#"{"message":"{\"token\":\"[redacted]\"}"}"#)]
    fn planted_secrets_are_removed(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(redact(line), expected);
    }

    #[rstest]
    #[case("answered status=200 path=/functions/v1/twilio-router")]
    #[case("http://127.0.0.1:54321/health")]
    #[case("a task-force of risk-takers at 12:30:45")]
    #[case("sb_publishable_AAAAAAAAAAAAAAAA_BBBB is public")]
    fn the_rest_is_untouched(#[case] line: &str) {
        assert!(matches!(redact(line), Cow::Borrowed(_)), "{}", redact(line));
    }
}
