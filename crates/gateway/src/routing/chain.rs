//! The chain of models of one call: who is asked next, and what a failure leads to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::adapters::Adapter;
use super::hedging::PREPARATION;
use super::lanes::{NoPlace, Place};
use super::retry::{Next, Situation, next};
use super::{Call, Inner};
use crate::capability::Capabilities;
use crate::configuration::{ProviderSettings, TaskSettings};
use crate::error::{Error, Failure, Fault, Tried, Waiting};
use crate::keys::ApiKey;
use crate::model::{Modality, ModelRef};
use crate::providers::Attempt;

/// The first feature that a request needs and a protocol lacks.
pub(super) type Lacks = Box<dyn Fn(&Capabilities) -> Option<&'static str> + Send + Sync>;

/// One call's way along its models.
pub(super) struct Chain {
    inner: Arc<Inner>,
    call: Call,
    id: Uuid,
    settings: TaskSettings,
    lacks: Lacks,
    deadline: Instant,
    /// Which model's turn it is.
    index: usize,
    /// Requests made to it so far.
    requests: u32,
    tried: Vec<Tried>,
    last: Option<Failure>,
}

/// A model whose turn it is, with a place in its lane.
pub(super) struct Hop {
    pub(super) model: ModelRef,
    pub(super) adapter: Adapter,
    pub(super) attempt: Attempt,
    pub(super) place: Place,
    pub(super) own_key: bool,
}

impl Chain {
    pub(super) fn new(
        inner: Arc<Inner>,
        call: &Call,
        id: Uuid,
        modality: Modality,
        lacks: Lacks,
    ) -> Result<Self, Error> {
        let settings = inner
            .configuration
            .tasks
            .get(&call.task)
            .ok_or_else(|| Error::UnknownTask(call.task.clone()))?
            .clone();
        if settings.modality != modality {
            return Err(Error::WrongModality {
                task: call.task.clone(),
                wanted: settings.modality,
                asked: modality,
            });
        }
        let wait = call.deadline.map_or(settings.deadline, |wanted| wanted.min(settings.deadline));
        let deadline = Instant::now() + wait;
        Ok(Self {
            inner,
            call: call.clone(),
            id,
            settings,
            lacks,
            deadline,
            index: 0,
            requests: 0,
            tried: Vec::new(),
            last: None,
        })
    }

    pub(super) fn settings(&self) -> &TaskSettings {
        &self.settings
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn restart_allowed(&self) -> bool {
        self.call.restart.unwrap_or(self.settings.restart)
    }

    pub(super) fn tried(&self) -> &[Tried] {
        &self.tried
    }

    fn failure(&self, model: &ModelRef, fault: Fault, message: impl Into<String>) -> Failure {
        Failure {
            provider: model.provider.clone(),
            model: model.model.to_string(),
            fault,
            status: None,
            message: message.into(),
            retry_after: None,
            request_id: None,
            delivered: false,
        }
    }

    /// The next model that can be asked at all.
    pub(super) async fn next(&mut self) -> Result<Hop, Error> {
        loop {
            let Some(model) = self.settings.models.get(self.index).cloned() else {
                return Err(self.exhausted());
            };
            if self.deadline <= Instant::now() {
                return Err(self.too_late());
            }
            match self.prepare(&model).await? {
                Ok(hop) => {
                    self.requests += 1;
                    return Ok(hop);
                }
                Err(failure) => {
                    self.last = Some(failure);
                    self.leave();
                }
            }
        }
    }

    /// The outer error ends the call; the inner one only this model's turn.
    async fn prepare(&self, model: &ModelRef) -> Result<Result<Hop, Failure>, Error> {
        let Some(provider) = self.inner.configuration.providers.get(&model.provider) else {
            return Ok(Err(self.failure(model, Fault::NotFound, "no such provider is configured")));
        };
        if let Some(feature) = (self.lacks)(&provider.protocol.capabilities()) {
            return Ok(Err(self.failure(model, Fault::Unsupported, format!("it lacks {feature}"))));
        }
        let key = self.inner.keys.key(&self.call.owner, &model.provider).await?;
        if key.is_none() && provider.protocol.needs_key() {
            return Ok(Err(self.failure(model, Fault::NoKey, "")));
        }
        let key_id = key.as_ref().map_or("", ApiKey::id);
        let lane = self.inner.lanes.of(&model.provider, key_id, provider);
        let place = match lane.enter(self.deadline).await {
            Ok(place) => place,
            Err(NoPlace::Busy) => return Ok(Err(self.failure(model, Fault::Busy, ""))),
            Err(NoPlace::Open(wait)) => {
                let mut failure = self.failure(model, Fault::BreakerOpen, "");
                failure.retry_after = Some(wait);
                return Ok(Err(failure));
            }
        };
        let Some(adapter) = self.inner.adapters.get(&provider.protocol).cloned() else {
            return Ok(Err(self.failure(model, Fault::Unsupported, "it has no adapter")));
        };
        Ok(Ok(self.hop(model, provider, key, adapter, place)))
    }

    fn hop(
        &self,
        model: &ModelRef,
        provider: &ProviderSettings,
        key: Option<ApiKey>,
        adapter: Adapter,
        place: Place,
    ) -> Hop {
        let named = key.as_ref().and_then(ApiKey::base_url).cloned();
        let attempt = Attempt {
            provider: model.provider.clone(),
            model: Arc::clone(&model.model),
            trusted_address: named.is_none() || self.inner.allow_private_addresses,
            base_url: named.unwrap_or_else(|| provider.base_url.clone()),
            deadline: self.deadline,
            first_byte: self.settings.first_byte,
            idle: self.settings.idle,
            idempotency_key: self.idempotency_key(self.index),
            key,
        };
        let own_key = attempt.key.as_ref().is_some_and(ApiKey::is_own);
        Hop { model: model.clone(), adapter, attempt, place, own_key }
    }

    /// Takes a failure: waits where the same model gets another chance. The error ends the call.
    pub(super) async fn failed(&mut self, place: Place, error: Error, bound: bool) -> Result<(), Error> {
        let Error::Provider(failure) = error else { return Err(error) };
        place.failed(&failure);
        let situation = Situation {
            fault: failure.fault,
            retry_after: failure.retry_after,
            requests: self.requests,
            attempts: self.settings.attempts,
            more: self.index + 1 < self.settings.models.len(),
            remaining: self.deadline.saturating_duration_since(Instant::now()),
            bound,
        };
        tracing::debug!(task = %self.call.task, %failure, "a model failed");
        let timed_out = failure.fault == Fault::TimedOut(Waiting::Deadline);
        self.last = Some(*failure.clone());
        match next(situation, rand::random()) {
            Next::Retry(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Next::FallBack => {
                self.leave();
                Ok(())
            }
            Next::GiveUp if timed_out && !bound => Err(self.too_late()),
            Next::GiveUp if bound || (self.tried.is_empty() && self.requests == 1) => {
                Err(Error::Provider(failure))
            }
            Next::GiveUp => {
                self.leave();
                Err(self.exhausted())
            }
        }
    }

    /// After how long the next model is asked as well; `None`: never.
    pub(super) fn hedge(&self) -> Option<Duration> {
        self.settings.hedge.filter(|_| self.index + 1 < self.settings.models.len())
    }

    /// A model after this one that can be asked at once; the chain stays where it is.
    pub(super) async fn beside(&self) -> Option<(usize, Hop)> {
        for (index, model) in self.settings.models.iter().enumerate().skip(self.index + 1) {
            let prepared = tokio::time::timeout(PREPARATION, self.prepare(model)).await;
            if let Ok(Ok(Ok(mut hop))) = prepared {
                hop.attempt.idempotency_key = self.idempotency_key(index);
                return Some((index, hop));
            }
        }
        None
    }

    /// A model that was asked beside the one whose turn it was is faster.
    pub(super) fn switch(&mut self, to: usize, fault: Option<Fault>) {
        let fault = fault.unwrap_or(Fault::TimedOut(Waiting::Answer));
        if let Some(model) = self.settings.models.get(self.index) {
            self.tried.push(Tried { model: model.clone(), fault, requests: self.requests });
        }
        self.index = to;
        self.requests = 1;
    }

    /// Another model's answer is another operation.
    fn idempotency_key(&self, index: usize) -> String {
        let base = self.call.idempotency_key.clone().unwrap_or_else(|| self.id.to_string());
        format!("{base}-{index}")
    }

    /// On to the next model.
    fn leave(&mut self) {
        if let (Some(model), Some(last)) = (self.settings.models.get(self.index), &self.last) {
            let requests = self.requests;
            self.tried.push(Tried { model: model.clone(), fault: last.fault, requests });
        }
        self.index += 1;
        self.requests = 0;
    }

    fn exhausted(&mut self) -> Error {
        match self.last.take() {
            Some(last) => Error::Exhausted {
                task: self.call.task.clone(),
                tried: self.tried.clone(),
                last: Box::new(last),
            },
            None => Error::UnknownTask(self.call.task.clone()),
        }
    }

    fn too_late(&self) -> Error {
        let wait: Duration =
            self.call.deadline.map_or(self.settings.deadline, |w| w.min(self.settings.deadline));
        Error::Deadline { task: self.call.task.clone(), deadline: wait }
    }
}
