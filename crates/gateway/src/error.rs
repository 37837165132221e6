//! What can go wrong, and what may be done about it.

use std::fmt;
use std::time::Duration;

use crate::model::{Modality, ModelRef, ProviderName, Task};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No task of this name is configured.
    #[error("no models are configured for the task `{0}`: add [tasks.{0}] to the gateway's configuration")]
    UnknownTask(Task),
    /// The task is for something else.
    #[error("the task `{task}` is for {wanted}, not for {asked}: ask it for {wanted}, or configure another")]
    WrongModality {
        /// The task.
        task: Task,
        /// What it serves.
        wanted: Modality,
        /// What was asked.
        asked: Modality,
    },
    /// The request is wrong whoever serves it.
    #[error("the request cannot be made: {0}")]
    InvalidRequest(String),
    /// A provider failed.
    #[error(transparent)]
    Provider(#[from] Box<Failure>),
    /// No model of the chain could serve the call; the last reason says why.
    #[error("no model could serve the task `{task}` ({}); last: {last}", list(.tried))]
    Exhausted {
        /// The task.
        task: Task,
        /// What was tried, in order.
        tried: Vec<Tried>,
        /// The last failure.
        last: Box<Failure>,
    },
    /// The caller's deadline passed first.
    #[error("the task `{task}` was not done within {deadline:?}: try again, or allow it more time")]
    Deadline {
        /// The task.
        task: Task,
        /// The time it had.
        deadline: Duration,
    },
    /// The owner's quota is used up.
    #[error("the quota `{limit}` is used up: try again in {} s, or raise it", .retry_after.as_secs())]
    QuotaExceeded {
        /// Which limit.
        limit: String,
        /// When some of it is free again.
        retry_after: Duration,
        /// What the limit allows in its period.
        allowed: u64,
        /// What is left of it.
        remaining: u64,
    },
    /// Content that is not allowed.
    #[error("the {what} was blocked by the safety rules ({reason}): change it and try again")]
    Unsafe {
        /// `request` or `answer`.
        what: &'static str,
        /// The category.
        reason: String,
    },
    /// A store of ours (keys, quotas, ledger) failed; calls are refused rather than made uncounted.
    #[error("the gateway's records cannot be reached: {0}; try again shortly")]
    Records(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Provider(Box::new(failure))
    }
}

impl Error {
    /// When trying again may help, and how long to wait before.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider(failure) | Self::Exhausted { last: failure, .. } => failure.retry_after,
            Self::QuotaExceeded { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Provider(failure) | Self::Exhausted { last: failure, .. } => failure.fault.is_retryable(),
            Self::QuotaExceeded { .. } | Self::Deadline { .. } | Self::Records(_) => true,
            _ => false,
        }
    }

    /// Whether the caller has already been given a part of the answer.
    #[must_use]
    pub fn delivered(&self) -> bool {
        matches!(self, Self::Provider(failure) | Self::Exhausted { last: failure, .. } if failure.delivered)
    }

    /// The provider's failure, if one is behind it.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Provider(failure) | Self::Exhausted { last: failure, .. } => Some(failure),
            _ => None,
        }
    }
}

/// What became of one model of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The model.
    pub model: ModelRef,
    /// Why it did not serve.
    pub fault: Fault,
    /// How many requests were made; 0 when it was skipped (no key, breaker open, a feature missing).
    pub requests: u32,
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(|t| format!("{}: {}", t.model, t.fault)).collect::<Vec<_>>().join(", ")
}

/// A provider's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{provider} ({model}): {fault}{}{message}; {}", separator(.message), .fault.advice())]
pub struct Failure {
    /// Whose.
    pub provider: ProviderName,
    /// Of which model.
    pub model: String,
    /// What kind.
    pub fault: Fault,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own words, cut short, without secrets.
    pub message: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
    /// Whether a part of the answer had been handed on before.
    pub delivered: bool,
}

fn separator(message: &str) -> &'static str {
    if message.is_empty() { "" } else { ": " }
}

/// Kinds of failure. What may be done about each is a table: [`Fault::is_retryable`], [`Fault::may_fall_back`],
/// [`Fault::counts_against_health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No key is known for the provider.
    NoKey,
    /// The model lacks a feature that the request needs.
    Unsupported,
    /// The provider rejects the request as such.
    InvalidRequest,
    /// More text than the model takes.
    ContextTooLong,
    /// The key is wrong.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// No such model or address.
    NotFound,
    /// The account has no money or no quota left.
    Billing,
    /// Too many requests or tokens at the moment.
    RateLimited,
    /// The provider is overloaded.
    Overloaded,
    /// The provider has an internal error.
    ServerError,
    /// The provider's own safety rules refuse.
    ContentRefused,
    /// An address that may not be asked.
    ForbiddenAddress,
    /// No connection.
    Unreachable,
    /// Nothing in time.
    TimedOut(Waiting),
    /// The answer broke off.
    Interrupted,
    /// The answer breaks the protocol.
    Malformed,
    /// The answer is larger than any that makes sense.
    TooLarge,
    /// The breaker is open: it failed too often just now.
    BreakerOpen,
    /// Our own limit of concurrent requests to it is reached.
    Busy,
}

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// The first byte of the answer.
    Answer,
    /// The next byte of the answer.
    NextByte,
    /// The end, at the caller's deadline.
    Deadline,
}

impl Fault {
    /// Whether the same request to the same model may succeed a moment later.
    ///
    /// Only failures before anything was processed are retried, or such after which the provider says so: requests to
    /// models cost money, but change nothing, so that a repetition is safe as long as nothing was handed on.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::ServerError
                | Self::Unreachable
                | Self::Interrupted
                | Self::Malformed
                | Self::Busy
                | Self::BreakerOpen
                | Self::TimedOut(Waiting::Answer | Waiting::NextByte)
        )
    }

    /// Whether another model may do better.
    #[must_use]
    pub fn may_fall_back(self) -> bool {
        !matches!(self, Self::InvalidRequest | Self::TimedOut(Waiting::Deadline))
    }

    /// Whether it says something about the provider's health, rather than about the request, the key or us.
    #[must_use]
    pub fn counts_against_health(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::ServerError
                | Self::Unreachable
                | Self::Interrupted
                | Self::Malformed
                | Self::TooLarge
                | Self::TimedOut(Waiting::Answer | Waiting::NextByte)
        )
    }

    /// What a person can do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoKey => "add a key for this provider",
            Self::Unsupported => "choose a model that can, or leave the feature out",
            Self::InvalidRequest => "correct the request",
            Self::ContextTooLong => "shorten the conversation, or choose a model with a larger context",
            Self::Unauthorized => "check the key",
            Self::Forbidden => "give the key the right to use this model",
            Self::NotFound => "check the model's name and the base URL",
            Self::Billing => "check the account's balance and limits at the provider",
            Self::RateLimited | Self::Overloaded | Self::Busy => "try again shortly",
            Self::ServerError | Self::BreakerOpen => "try again later, or configure another model",
            Self::ContentRefused => "change the content",
            Self::ForbiddenAddress => "use a public https address, or let the operator allow private ones",
            Self::Unreachable => "check the network and the base URL",
            Self::TimedOut(_) => "try again, or allow it more time",
            Self::Interrupted => "try again",
            Self::Malformed => "check that the base URL leads to this kind of provider",
            Self::TooLarge => "ask for less at once",
        }
    }

    /// As metrics and the ledger write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::Unsupported => "unsupported",
            Self::InvalidRequest => "invalid_request",
            Self::ContextTooLong => "context_too_long",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Billing => "billing",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::ContentRefused => "content_refused",
            Self::ForbiddenAddress => "forbidden_address",
            Self::Unreachable => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Interrupted => "interrupted",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::BreakerOpen => "breaker_open",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "there is no key",
            Self::Unsupported => "the model cannot do this",
            Self::InvalidRequest => "the request was rejected",
            Self::ContextTooLong => "the request is too long",
            Self::Unauthorized => "the key was refused",
            Self::Forbidden => "the key may not do this",
            Self::NotFound => "there is no such model or address",
            Self::Billing => "the account is out of credit",
            Self::RateLimited => "the rate limit is reached",
            Self::Overloaded => "the provider is overloaded",
            Self::ServerError => "the provider has an internal error",
            Self::ContentRefused => "the provider refused the content",
            Self::ForbiddenAddress => "the address is not allowed",
            Self::Unreachable => "the provider cannot be reached",
            Self::TimedOut(Waiting::Answer) => "no answer came in time",
            Self::TimedOut(Waiting::NextByte) => "the answer stalled",
            Self::TimedOut(Waiting::Deadline) => "the deadline passed",
            Self::Interrupted => "the answer broke off",
            Self::Malformed => "the answer could not be understood",
            Self::TooLarge => "the answer was too large",
            Self::BreakerOpen => "the provider failed too often just now",
            Self::Busy => "too many requests are under way",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_who_what_and_what_to_do() {
        let failure = Failure {
            provider: ProviderName::new("openai"),
            model: "gpt-5-mini".into(),
            fault: Fault::RateLimited,
            status: Some(429),
            message: "20 requests per minute".into(),
            retry_after: Some(Duration::from_secs(3)),
            request_id: None,
            delivered: false,
        };
        let error = Error::from(failure);
        assert_eq!(
            error.to_string(),
            "openai (gpt-5-mini): the rate limit is reached: 20 requests per minute; try again shortly"
        );
        assert!(error.is_retryable() && !error.delivered());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    }
}
