//! Limits, and which of them a call counts against. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::configuration::TaskSettings;
use crate::keys::Owner;
use crate::ledger::{Entry, Outcome};
use crate::model::Task;
use crate::prices::{NanoUsd, PriceTable};
use crate::usage::Usage;

/// Whose consumption a limit adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each person's. Calls that no person stands behind do not count.
    User,
    /// Each tenant's.
    Tenant,
    /// Each project's.
    Project,
    /// Each application's.
    App,
    /// All together.
    Everyone,
}

impl Per {
    /// Whose bucket an owner's calls go into.
    fn subject(self, owner: &Owner) -> Option<String> {
        match self {
            Self::User => owner.user.map(|id| id.to_string()),
            Self::Tenant => owner.tenant.map(|id| id.to_string()),
            Self::Project => owner.project.map(|id| id.to_string()),
            Self::App => Some(owner.app.clone()),
            Self::Everyone => Some("*".to_owned()),
        }
    }
}

/// How long a limit adds up: from the beginning of the hour, day or month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// 60 minutes.
    Hour,
    /// From midnight.
    Day,
    /// From the first.
    Month,
}

impl Period {
    /// As Postgres names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calls that reached a model.
    Calls,
    /// Tokens, prompt and answer.
    Tokens,
    /// What the platform pays, in 10⁻⁹ dollars.
    Cost,
}

impl Unit {
    /// As Postgres names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name, for messages and overrides.
    pub name: String,
    /// Whose consumption.
    pub per: Per,
    /// Only of this application.
    pub app: Option<String>,
    /// Only of these tasks; empty: all.
    pub tasks: Vec<Task>,
    /// How long.
    pub period: Period,
    /// Of what.
    pub unit: Unit,
    /// How much: calls, tokens, or 10⁻⁹ dollars.
    pub allowed: u64,
    /// Part of it, in percent, from which on the log and metrics say that it is nearly used up.
    pub warn_percent: u8,
}

/// What a call takes of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Demand<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) subject: String,
    pub(crate) amount: u64,
}

/// Amounts of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) calls: u64,
    pub(crate) tokens: u64,
    pub(crate) cost: u64,
}

impl Amounts {
    /// What a call may consume at most: its cost is that of the dearest model that may serve it.
    pub(crate) fn estimated(
        usage: &Usage,
        task: Option<&TaskSettings>,
        prices: &PriceTable,
        day: chrono::NaiveDate,
    ) -> Self {
        let models = task.map_or(&[][..], |task| &task.models);
        let cost = models.iter().filter_map(|model| prices.cost(model, usage, day)).max().unwrap_or_default();
        Self { calls: 1, tokens: usage.input_tokens + usage.output_tokens, cost: cost.0 }
    }

    /// What it did consume. A call that no model took on takes nothing, and one that its owner pays for takes no money.
    pub(crate) fn settled(entry: &Entry, cost: Option<NanoUsd>) -> Self {
        let consumed = entry.usage != Usage { estimated: entry.usage.estimated, ..Usage::default() };
        let asked = entry.model.is_some() && matches!(entry.outcome, Outcome::Done | Outcome::Cancelled);
        if entry.cached || !(consumed || asked) {
            return Self::default();
        }
        Self {
            calls: 1,
            tokens: entry.usage.input_tokens + entry.usage.output_tokens,
            cost: if entry.own_key { 0 } else { cost.unwrap_or_default().0 },
        }
    }

    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Calls => self.calls,
            Unit::Tokens => self.tokens,
            Unit::Cost => self.cost,
        }
    }
}

/// The limits that a call counts against. Each takes at least one unit, so that a call whose size nobody knows is
/// refused where nothing is left.
pub(crate) fn demands<'a>(
    limits: &'a [Limit],
    owner: &Owner,
    task: &Task,
    amounts: Amounts,
) -> Vec<Demand<'a>> {
    let concerns = |limit: &Limit| {
        limit.app.as_ref().is_none_or(|app| *app == owner.app)
            && (limit.tasks.is_empty() || limit.tasks.contains(task))
    };
    limits
        .iter()
        .filter(|limit| concerns(limit))
        .filter_map(|limit| {
            let subject = limit.per.subject(owner)?;
            Some(Demand { limit, subject, amount: amounts.of(limit.unit).max(1) })
        })
        .collect()
}

/// As TOML writes limits: one entry may limit several units.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenLimit {
    name: String,
    per: Per,
    app: Option<String>,
    #[serde(default)]
    tasks: Vec<String>,
    period: Period,
    calls: Option<u64>,
    tokens: Option<u64>,
    cost_usd: Option<f64>,
    #[serde(default = "usual_warning")]
    warn_percent: u8,
}

fn usual_warning() -> u8 {
    80
}

impl WrittenLimit {
    /// One limit for each unit.
    pub(crate) fn read(self) -> Result<Vec<Limit>, String> {
        let name = &self.name;
        let plain = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !plain {
            return Err(format!("limits: `{name}` is no name: use 1 to 64 letters, digits, _ and -"));
        }
        if self.warn_percent > 100 {
            return Err(format!("limits.{name}: `warn_percent` must be between 0 and 100"));
        }
        if let Some(usd) = self.cost_usd
            && !(0.0..=1e9).contains(&usd)
        {
            return Err(format!("limits.{name}: `cost_usd` must be between 0 and 1000000000"));
        }
        let amounts = [
            (Unit::Calls, self.calls),
            (Unit::Tokens, self.tokens),
            (Unit::Cost, self.cost_usd.map(|usd| NanoUsd::from_usd(usd).0)),
        ];
        let limits: Vec<Limit> = amounts
            .into_iter()
            .filter_map(|(unit, allowed)| {
                Some(Limit {
                    name: self.name.clone(),
                    per: self.per,
                    app: self.app.clone(),
                    tasks: self.tasks.iter().map(|task| Task::new(task)).collect(),
                    period: self.period,
                    unit,
                    allowed: allowed?.min(i64::MAX as u64),
                    warn_percent: self.warn_percent,
                })
            })
            .collect();
        if limits.is_empty() {
            return Err(format!("limits.{name}: say how much, with `calls`, `tokens` or `cost_usd`"));
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn limit(name: &str, per: Per, app: Option<&str>, tasks: &[&str]) -> Limit {
        Limit {
            name: name.into(),
            per,
            app: app.map(str::to_owned),
            tasks: tasks.iter().map(|task| Task::new(task)).collect(),
            period: Period::Hour,
            unit: Unit::Calls,
            allowed: 1,
            warn_percent: 80,
        }
    }

    #[test]
    fn a_limit_concerns_whom_it_names() {
        let limits = [
            limit("each", Per::User, None, &[]),
            limit("stories", Per::User, Some("stories"), &["story_text"]),
            limit("npc", Per::User, Some("npc"), &[]),
            limit("tenant", Per::Tenant, None, &[]),
            limit("all", Per::Everyone, None, &["story_text", "other"]),
            limit("pictures", Per::App, None, &["pictures"]),
        ];
        let ann = Owner { app: "stories".into(), user: Some(Uuid::from_u128(1)), ..Owner::default() };
        let names = |owner: &Owner, task: &str| -> Vec<String> {
            demands(&limits, owner, &Task::new(task), Amounts::default())
                .into_iter()
                .map(|demand| {
                    assert_eq!(demand.amount, 1, "nothing is free");
                    demand.limit.name.clone()
                })
                .collect()
        };
        assert_eq!(names(&ann, "story_text"), ["each", "stories", "all"]);
        assert_eq!(names(&ann, "pictures"), ["each", "pictures"]);
        let nobody = Owner { app: "stories".into(), ..Owner::default() };
        assert_eq!(names(&nobody, "story_text"), ["all"]);
    }
}
