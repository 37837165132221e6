//! The latest log entries, kept in memory (bounded) for those who look at the running server.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;
use utoipa::ToSchema;

use super::redact;

/// Entries that are kept.
const MOST: usize = 2000;
/// Bytes of a message or value that are kept.
const LONGEST: usize = 2048;
/// Fields whose values nobody shall read.
const SECRET_NAMES: &[&str] = &["password", "secret", "token", "apikey", "api_key"];
/// Fields of an entry that are kept.
const MOST_FIELDS: usize = 32;

/// How important an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody must look.
    Error,
    /// Somebody should look.
    Warn,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
    /// Everything.
    Trace,
}

impl From<&tracing::Level> for Level {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

/// One event. Secrets are removed as from every line of the log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LogEntry {
    /// Counts up from 1, so that a reader can ask for what came after.
    pub number: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// How important it is.
    pub level: Level,
    /// The module that says it.
    pub target: &'static str,
    /// What it says.
    pub message: String,
    /// Its own fields, and those of the request or task that it belongs to.
    pub fields: BTreeMap<String, String>,
}

impl LogEntry {
    /// As it may be shown. Requests do not wait for this: it is done when somebody reads.
    fn redacted(mut self) -> Self {
        let clean = |value: &mut String| {
            if let Cow::Owned(redacted) = redact(value) {
                *value = redacted;
            }
        };
        clean(&mut self.message);
        for (name, value) in &mut self.fields {
            match SECRET_NAMES.contains(&name.as_str()) {
                true => *value = "[redacted]".to_owned(),
                false => clean(value),
            }
        }
        self
    }

    fn holds(&self, text: &str) -> bool {
        let within = |value: &str| value.to_lowercase().contains(text);
        within(&self.message) || within(self.target) || self.fields.values().any(|value| within(value))
    }
}

/// The latest entries of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RecentLogs {
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    numbered: u64,
}

impl RecentLogs {
    /// The newest entries first: at least as important as `level`, with `text` in them whatever its case, numbered
    /// above `after`, at most `limit`.
    pub fn newest(&self, level: Level, text: &str, after: u64, limit: usize) -> Vec<LogEntry> {
        let text = text.to_lowercase();
        let newer: Vec<LogEntry> = {
            let ring = self.ring();
            let newer = ring.entries.iter().rev().take_while(|entry| entry.number > after);
            newer.filter(|entry| entry.level <= level).cloned().collect()
        };
        // What is searched is what is shown: nobody finds out a secret by guessing at it.
        newer.into_iter().map(LogEntry::redacted).filter(|entry| entry.holds(&text)).take(limit).collect()
    }

    /// How many entries are kept.
    pub fn most(&self) -> usize {
        MOST
    }

    /// What fills it.
    pub(super) fn layer(&self) -> Keeping {
        Keeping { logs: self.clone() }
    }

    fn push(&self, mut entry: LogEntry) {
        let mut ring = self.ring();
        ring.numbered += 1;
        entry.number = ring.numbered;
        if ring.entries.len() == MOST {
            ring.entries.pop_front();
        }
        ring.entries.push_back(entry);
    }

    /// Whoever panicked while holding it left whole entries.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer that keeps events.
pub(super) struct Keeping {
    logs: RecentLogs,
}

/// Fields of a span, kept with it.
struct Kept(Fields);

#[derive(Default)]
struct Fields {
    message: String,
    rest: BTreeMap<String, String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A `Debug` that fails leaves what it has written.
        let _ = write!(text, "{value:?}");
        self.put(field, text);
    }
}

impl Fields {
    fn put(&mut self, field: &Field, mut value: String) {
        if value.len() > LONGEST {
            value.truncate(value.floor_char_boundary(LONGEST));
            value.push('…');
        }
        match field.name() {
            "message" => self.message = value,
            name if self.rest.len() < MOST_FIELDS => _ = self.rest.insert(name.to_owned(), value),
            _ => {}
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keeping {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Kept(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(Kept(fields)) = span.extensions_mut().get_mut() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Kept(kept)) = span.extensions().get() {
                for (name, value) in &kept.rest {
                    // The innermost says it most exactly.
                    fields.rest.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.logs.push(LogEntry {
            number: 0,
            at: Utc::now(),
            level: event.metadata().level().into(),
            target: event.metadata().target(),
            message: fields.message,
            fields: fields.rest,
        });
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(play: impl FnOnce()) -> RecentLogs {
        let logs = RecentLogs::default();
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, play);
        logs
    }

    #[test]
    fn entries_carry_the_fields_of_their_request() {
        let logs = logged(|| {
            let span = tracing::info_span!("request", id = "r1", path = "/health");
            span.in_scope(|| tracing::warn!(status = 503, "answered"));
            tracing::info!("apart");
        });
        let entries = logs.newest(Level::Info, "", 0, 10);
        let told: Vec<_> = entries.iter().map(|entry| (entry.number, entry.message.as_str())).collect();
        assert_eq!(told, [(2, "apart"), (1, "answered")]);
        let fields: Vec<_> = entries[1].fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(fields, ["id=r1", "path=/health", "status=503"]);
        assert_eq!(logs.newest(Level::Warn, "", 0, 10).len(), 1);
        assert_eq!(logs.newest(Level::Info, "HEALTH", 0, 10).len(), 1);
        assert_eq!(logs.newest(Level::Info, "", 1, 10).len(), 1);
    }

    #[test]
    fn secrets_are_not_kept() {
        let logs = logged(|| {
            let _span = tracing::info_span!("request", token = "planted-token").entered();
            tracing::info!(url = "postgres://a:planted-word@db/x", "with sk-proj-plantedplanted");
        });
        let entries = format!("{:?}", logs.newest(Level::Trace, "", 0, 10));
        assert!(!entries.contains("planted"), "{entries}");
    }

    #[test]
    fn the_oldest_make_room() {
        let logs = logged(|| {
            for _ in 0..MOST + 3 {
                tracing::info!("{}", "long ".repeat(1000));
            }
        });
        let entries = logs.newest(Level::Info, "", 0, usize::MAX);
        assert_eq!((entries.len(), entries[0].number), (MOST, MOST as u64 + 3));
        assert!(entries.iter().all(|entry| entry.message.len() <= LONGEST + 3));
    }
}
