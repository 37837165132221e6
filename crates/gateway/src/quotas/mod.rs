//! Limits on what owners may consume: reserved before a call, settled after it.

use async_trait::async_trait;

use crate::Error;
use crate::keys::Owner;
use crate::model::{Modality, Task};
use crate::usage::Usage;

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
    /// Replaces the estimate by what was really consumed; zero usage gives everything back.
    ///
    /// # Errors
    /// [`Error::Records`].
    async fn settle(self: Box<Self>, usage: &Usage) -> Result<(), Error>;
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
    async fn settle(self: Box<Self>, _: &Usage) -> Result<(), Error> {
        Ok(())
    }
}
