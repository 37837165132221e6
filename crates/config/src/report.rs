//! The effective configuration for `longhouse config`, redacted.

use crate::keys::KEYS;
use crate::load::{Loaded, Origin};

/// One key as it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLine {
    /// E.g. `server.port`.
    pub key: &'static str,
    /// The value; of a secret only that it is set and its length, of a connection string all but the password;
    /// in brackets what happens instead when it is unset.
    pub value: String,
    /// `default`, `longhouse.toml:3`, `environment PORT`, `flag --port`.
    pub origin: String,
    /// Whether nobody set it.
    pub default: bool,
}

impl Loaded {
    /// Every key in the order of the documentation. Safe to print.
    #[must_use]
    pub fn report(&self) -> Vec<ReportLine> {
        let line = |key: &'static crate::keys::Key| {
            let origin = self.origins.get(key.name);
            ReportLine {
                key: key.name,
                value: (key.show)(&self.config).unwrap_or_else(|| match key.unset {
                    "" => "(none)".to_owned(),
                    unset => format!("({unset})"),
                }),
                origin: origin.to_string(),
                default: *origin == Origin::Default,
            }
        };
        KEYS.iter().map(line).collect()
    }
}
