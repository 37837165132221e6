//! Limits on what owners may consume: reserved before a call, settled after it.

mod limits;
mod postgres;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::Error;
use crate::keys::Owner;
use crate::ledger::Entry;
use crate::model::{Modality, Task};
use crate::usage::Usage;

pub(crate) use limits::WrittenLimit;
pub use limits::{Limit, Per, Period, Unit};
pub use postgres::{Clock, PostgresQuotas, Used};

/// What a call is about to consume, at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// What for.
    pub task: Task,
    /// What kind.
    pub modality: Modality,
    /// Upper bounds where they are known; `estimated` is set.
    pub usage: Usage,
}

/// Reserves and settles.
#[async_trait]
pub trait Quotas: Send + Sync {
    /// Reserves before the first request is made.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`]; [`Error::Records`] when it cannot be decided, and the call is not made.
    async fn reserve(&self, owner: &Owner, estimate: &Estimate) -> Result<Box<dyn Reservation>, Error>;
}

/// A reservation. One that is dropped unsettled keeps counting in full, until its store lets it expire.
#[async_trait]
pub trait Reservation: Send + Sync {
    /// Replaces the estimate by what the call really consumed; one that reached no model gives everything back.
    ///
    /// # Errors
    /// [`Error::Records`].
    async fn settle(self: Box<Self>, entry: &Entry) -> Result<(), Error>;

    /// How the owner stands with the limit of which the smallest part is left; `None` without limits.
    fn standing(&self) -> Option<&Standing> {
        None
    }
}

/// How an owner stands with a limit, after the call at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The limit's name.
    pub limit: String,
    /// Of what.
    pub unit: Unit,
    /// What it allows in its period: calls, tokens, or 10⁻⁹ dollars.
    pub allowed: u64,
    /// What is left of it, with calls in progress counted in full.
    pub remaining: u64,
    /// When the period ends.
    pub resets_at: DateTime<Utc>,
}

/// No limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

#[async_trait]
impl Quotas for Unlimited {
    async fn reserve(&self, _: &Owner, _: &Estimate) -> Result<Box<dyn Reservation>, Error> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl Reservation for Unlimited {
    async fn settle(self: Box<Self>, _: &Entry) -> Result<(), Error> {
        Ok(())
    }
}
