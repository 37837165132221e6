//! `Prefer`, and what of it was applied.

use http::{HeaderMap, HeaderName};

use super::{Count, Preferences, Return};
use crate::error::Error;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a request did, for which preferences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Rows were read.
    Read,
    /// Rows were inserted; `conflicts` says whether there was a key or an `on_conflict` to resolve duplicates by.
    Insert {
        /// See above.
        conflicts: bool,
    },
    /// Rows were updated.
    Update,
    /// One row was put.
    SingleUpsert,
    /// Rows were deleted.
    Delete,
    /// A function was called.
    Call,
}

impl Preferences {
    /// Reads all `Prefer` headers; of each preference the first counts. `tx` is heard when the server allows it.
    pub fn parse(headers: &HeaderMap, transaction_allowed: bool) -> Self {
        let mut preferences = Self::default();
        for value in headers.get_all(PREFER) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for preference in text.split(',') {
                preferences.add(preference.trim(), transaction_allowed);
            }
        }
        preferences
    }

    fn add(&mut self, preference: &str, transaction_allowed: bool) {
        fn first<T>(slot: &mut Option<T>, value: T) {
            slot.get_or_insert(value);
        }
        match preference {
            "return=representation" => first(&mut self.representation, Return::Representation),
            "return=headers-only" => first(&mut self.representation, Return::HeadersOnly),
            "return=minimal" => first(&mut self.representation, Return::Minimal),
            "count=exact" => first(&mut self.count, Count::Exact),
            "count=planned" => first(&mut self.count, Count::Planned),
            "count=estimated" => first(&mut self.count, Count::Estimated),
            "resolution=merge-duplicates" => first(&mut self.merge_duplicates, true),
            "resolution=ignore-duplicates" => first(&mut self.merge_duplicates, false),
            "tx=commit" | "tx=rollback" => {
                if transaction_allowed {
                    first(&mut self.commit, preference == "tx=commit");
                }
            }
            "missing=default" => first(&mut self.missing_default, true),
            "missing=null" => first(&mut self.missing_default, false),
            "handling=strict" => first(&mut self.strict, true),
            "handling=lenient" => first(&mut self.strict, false),
            _ => {
                if let Some(timezone) = preference.strip_prefix("timezone=") {
                    first(&mut self.timezone, timezone.to_owned());
                } else if let Some(most) = preference.strip_prefix("max-affected=") {
                    if let Ok(most) = most.parse() {
                        first(&mut self.max_affected, most);
                    }
                } else {
                    self.invalid.push(preference.to_owned());
                }
            }
        }
    }

    /// Refuses unknown preferences under `handling=strict`.
    ///
    /// # Errors
    /// PGRST122.
    pub fn check(&self) -> Result<(), Error> {
        if self.strict == Some(true) && !self.invalid.is_empty() {
            return Err(Error::InvalidPreferences(self.invalid.clone()));
        }
        Ok(())
    }

    /// The value of `Preference-Applied`, if any preference was.
    pub fn applied(&self, to: Applied) -> Option<String> {
        let writes =
            matches!(to, Applied::Insert { .. } | Applied::Update | Applied::SingleUpsert | Applied::Delete);
        let mut applied: Vec<String> = Vec::new();
        let mut add = |text: &str| applied.push(text.to_owned());
        if let (Some(merge), Applied::Insert { conflicts: true }) = (self.merge_duplicates, to) {
            add(if merge { "resolution=merge-duplicates" } else { "resolution=ignore-duplicates" });
        }
        if let (Some(default), Applied::Insert { .. } | Applied::Update) = (self.missing_default, to) {
            add(if default { "missing=default" } else { "missing=null" });
        }
        match self.representation.filter(|_| writes) {
            Some(Return::Representation) => add("return=representation"),
            Some(Return::HeadersOnly) => add("return=headers-only"),
            Some(Return::Minimal) => add("return=minimal"),
            None => {}
        }
        match self.count {
            Some(Count::Exact) => add("count=exact"),
            Some(Count::Planned) => add("count=planned"),
            Some(Count::Estimated) => add("count=estimated"),
            None => {}
        }
        if let Some(commit) = self.commit {
            add(if commit { "tx=commit" } else { "tx=rollback" });
        }
        if let Some(strict) = self.strict {
            add(if strict { "handling=strict" } else { "handling=lenient" });
        }
        if let Some(timezone) = &self.timezone {
            add(&format!("timezone={timezone}"));
        }
        let limited = matches!(to, Applied::Update | Applied::Delete | Applied::Call);
        if let Some(most) = self.max_affected.filter(|_| limited && self.strict == Some(true)) {
            add(&format!("max-affected={most}"));
        }
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}
