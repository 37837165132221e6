//! Quotas in Postgres: what a call may consume is reserved in all its limits or in none, by one statement.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::limits::{Amounts, Demand, Limit, Unit, demands};
use super::{Estimate, Quotas, Reservation, Standing, Unlimited};
use crate::configuration::Configuration;
use crate::keys::Owner;
use crate::ledger::Entry;
use crate::prices::Prices;
use crate::{Error, schema};

const RESERVE: &str = "
    select place, granted, allowed, used, held, period_end, at
    from ai.reserve_quotas($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const SETTLE: &str = "select ai.settle_quotas($1, $2, $3, $4)";
const USE: &str = "
    select name, unit, used, period_end from ai.quota_use
    where subject = $1 and period_end > coalesce($2, now()) order by name, unit, period_end limit 1000";
const OVERRIDES: &str = "select name, unit, allowed from ai.limit_overrides where subject = $1";

/// How much longer than its call a reservation lasts.
const MARGIN: Duration = Duration::from_secs(60);
/// Of calls whose task is not configured any more.
const USUAL: Duration = Duration::from_secs(3_600);
/// Attempts to settle, and the pause between them; an unsettled reservation expires.
const SETTLING: (u32, Duration) = (3, Duration::from_millis(100));

/// What time it is; tests say so themselves. `None`: the database's own clock, which all servers share.
pub type Clock = Arc<dyn Fn() -> Option<DateTime<Utc>> + Send + Sync>;

/// Limits from the configuration, use and overrides in Postgres. Clones share everything.
#[derive(Clone)]
pub struct PostgresQuotas {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    claims: Claims,
    configuration: Configuration,
    prices: Prices,
    clock: Clock,
}

impl std::fmt::Debug for PostgresQuotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresQuotas")
            .field("limits", &self.inner.configuration.limits)
            .finish_non_exhaustive()
    }
}

/// One limit, and what somebody used of it: for people to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Used {
    /// The limit's name.
    pub name: String,
    /// Of what.
    pub unit: Unit,
    /// How long it adds up.
    pub period: super::Period,
    /// How much is allowed: calls, tokens, or 10⁻⁹ dollars.
    pub allowed: u64,
    /// How much was used in this period.
    pub used: u64,
    /// When the period ends; `None`: nothing was used in it.
    pub resets_at: Option<DateTime<Utc>>,
}

impl PostgresQuotas {
    /// The configuration's limits, over a database with the gateway's schema.
    #[must_use]
    pub fn new(database: Database, configuration: Configuration, prices: Prices) -> Self {
        Self::with_clock(database, configuration, prices, Arc::new(|| None))
    }

    /// The same with a clock of the caller's.
    #[must_use]
    pub fn with_clock(
        database: Database,
        configuration: Configuration,
        prices: Prices,
        clock: Clock,
    ) -> Self {
        Self { inner: Arc::new(Inner { database, claims: schema::claims(), configuration, prices, clock }) }
    }

    /// What `owner` has used of the limits that count for them alone.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn used(&self, owner: &Owner) -> Result<Vec<Used>, Error> {
        let Some(user) = owner.user else { return Ok(Vec::new()) };
        let subject = user.to_string();
        let inner = &self.inner;
        let acting = inner.database.as_role(&inner.claims);
        let rows = acting.query(USE, &[&subject, &(inner.clock)()]).await.map_err(schema::records)?;
        let overrides = acting.query(OVERRIDES, &[&subject]).await.map_err(schema::records)?;
        let limits = inner.configuration.limits.iter().filter(|limit| limit.per == super::Per::User);
        let amount = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(limits
            .map(|limit| {
                let is_it = |row: &&tokio_postgres::Row| {
                    row.get::<_, &str>(0) == limit.name && row.get::<_, &str>(1) == limit.unit.as_str()
                };
                let row = rows.iter().find(is_it);
                Used {
                    name: limit.name.clone(),
                    unit: limit.unit,
                    period: limit.period,
                    allowed: overrides.iter().find(is_it).map_or(limit.allowed, |row| amount(row.get(2))),
                    used: row.map_or(0, |row| amount(row.get(2))),
                    resets_at: row.map(|row| row.get(3)),
                }
            })
            .collect())
    }
}

#[async_trait]
impl Quotas for PostgresQuotas {
    async fn reserve(&self, owner: &Owner, estimate: &Estimate) -> Result<Box<dyn Reservation>, Error> {
        let inner = &self.inner;
        let task = inner.configuration.tasks.get(&estimate.task);
        let day = (inner.clock)().unwrap_or_else(Utc::now).date_naive();
        let amounts = Amounts::estimated(&estimate.usage, task, &inner.prices.table(), day);
        let demands = demands(&inner.configuration.limits, owner, &estimate.task, amounts);
        if demands.is_empty() {
            return Ok(Box::new(Unlimited));
        }
        let id = Uuid::now_v7();
        let lasts = task.map_or(USUAL, |task| task.deadline) + MARGIN;
        let standing = inner.reserve(id, lasts, &demands).await?;
        Ok(Box::new(Held { inner: Arc::clone(inner), id, standing }))
    }
}

impl Inner {
    /// All or nothing.
    async fn reserve(
        &self,
        id: Uuid,
        lasts: Duration,
        demands: &[Demand<'_>],
    ) -> Result<Option<Standing>, Error> {
        let texts = |text: fn(&Limit) -> &str| -> Vec<&str> {
            demands.iter().map(|demand| text(demand.limit)).collect()
        };
        let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let (names, units) = (texts(|limit| &limit.name), texts(|limit| limit.unit.as_str()));
        let periods = texts(|limit| limit.period.as_str());
        let subjects: Vec<&str> = demands.iter().map(|demand| demand.subject.as_str()).collect();
        let allowed: Vec<i64> = demands.iter().map(|demand| amount(demand.limit.allowed)).collect();
        // Twice the largest must not overflow what Postgres adds.
        let amounts: Vec<i64> =
            demands.iter().map(|demand| amount(demand.amount).min(i64::MAX / 4)).collect();
        let now = (self.clock)();
        let rows = self
            .database
            .as_role(&self.claims)
            .query(
                RESERVE,
                &[&id, &lasts.as_secs_f64(), &names, &units, &subjects, &periods, &allowed, &amounts, &now],
            )
            .await
            .map_err(schema::records)?;
        let mut tightest: Option<Standing> = None;
        let mut refused: Option<Error> = None;
        for row in &rows {
            let place: i32 = row.get(0);
            let Some(demand) = usize::try_from(place - 1).ok().and_then(|place| demands.get(place)) else {
                continue;
            };
            let (allowed, used, held): (i64, i64, i64) = (row.get(2), row.get(3), row.get(4));
            let left = allowed.saturating_sub(used).saturating_sub(held);
            let (ends, now): (DateTime<Utc>, DateTime<Utc>) = (row.get(5), row.get(6));
            let allowed = u64::try_from(allowed).unwrap_or_default();
            let standing = Standing {
                limit: demand.limit.name.clone(),
                unit: demand.limit.unit,
                allowed,
                remaining: u64::try_from(left).unwrap_or_default(),
                resets_at: ends,
            };
            if !row.get::<_, bool>(1) {
                let short = i64::try_from(demand.amount).unwrap_or(i64::MAX) > left;
                if short && refused.is_none() {
                    metrics::counter!("gateway_quota_refusals_total", "limit" => standing.limit.clone())
                        .increment(1);
                    refused = Some(Error::QuotaExceeded {
                        limit: standing.limit.clone(),
                        retry_after: (ends - now).to_std().unwrap_or(Duration::from_secs(1)),
                        allowed,
                        remaining: standing.remaining,
                    });
                }
                continue;
            }
            warn_when_near(demand, &standing);
            let share = |standing: &Standing| standing.remaining as f64 / standing.allowed.max(1) as f64;
            if tightest.as_ref().is_none_or(|other| share(&standing) < share(other)) {
                tightest = Some(standing);
            }
        }
        match refused {
            Some(error) => Err(error),
            None if rows.first().is_some_and(|row| row.get::<_, bool>(1)) => Ok(tightest),
            None => Err(Error::Records("the database decided nothing about the quota".into())),
        }
    }
}

/// Budgets of applications, tenants and everybody are the operator's business; a person's own is theirs.
fn warn_when_near(demand: &Demand<'_>, standing: &Standing) {
    let limit = demand.limit;
    let used = standing.allowed - standing.remaining.min(standing.allowed);
    let threshold = u128::from(standing.allowed) * u128::from(limit.warn_percent);
    if u128::from(used) * 100 < threshold {
        return;
    }
    metrics::counter!("gateway_quota_near_total", "limit" => limit.name.clone()).increment(1);
    // Said by the call that crosses the line, not by all that follow.
    let before = used.saturating_sub(demand.amount);
    if u128::from(before) * 100 < threshold && limit.per != super::Per::User {
        tracing::warn!(
            limit = limit.name,
            unit = limit.unit.as_str(),
            subject = demand.subject,
            used,
            allowed = standing.allowed,
            "a budget is nearly used up"
        );
    }
}

/// What a call in progress holds.
struct Held {
    inner: Arc<Inner>,
    id: Uuid,
    standing: Option<Standing>,
}

#[async_trait]
impl Reservation for Held {
    async fn settle(self: Box<Self>, entry: &Entry) -> Result<(), Error> {
        let inner = &self.inner;
        let at = (inner.clock)().unwrap_or_else(Utc::now);
        let amounts = Amounts::settled(entry, inner.prices.of(entry, at));
        let number = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).min(i64::MAX / 4);
        let (calls, tokens, cost) = (number(amounts.calls), number(amounts.tokens), number(amounts.cost));
        let (attempts, pause) = SETTLING;
        let mut attempt = 1;
        loop {
            let settled = inner
                .database
                .as_role(&inner.claims)
                .query(SETTLE, &[&self.id, &calls, &tokens, &cost])
                .await;
            match settled {
                Ok(_) => return Ok(()),
                // Done twice, it counts once.
                Err(error) if error.is_transient() && attempt < attempts => {
                    attempt += 1;
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(schema::records(error)),
            }
        }
    }

    fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }
}
