//! Hedging: a slow model is raced by the next one.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::chain::{Chain, Hop};
use crate::error::Error;

/// Who answered.
pub(super) enum Raced<T> {
    /// The model whose turn it was, or nobody: then its failure counts.
    First(Result<T, Error>),
    /// The next model was faster. `hop` replaces the first, which may have failed meanwhile.
    Second {
        /// The faster model.
        hop: Box<Hop>,
        /// What it answered.
        value: T,
        /// How the first failed, if it did rather than being slow.
        failed: Option<Error>,
    },
}

/// Asks the model of `hop`, and, when it has not answered after the task's hedge, the next one as well. Whoever answers
/// first serves; the other is dropped, which frees its provider.
pub(super) async fn race<T>(
    chain: &mut Chain,
    hop: &Hop,
    ask: impl Fn(&Hop) -> BoxFuture<'static, Result<T, Error>>,
) -> Raced<T> {
    let mut first = pin!(ask(hop));
    let Some(patience) = chain.hedge() else { return Raced::First(first.await) };
    if let Ok(answer) = tokio::time::timeout(patience, &mut first).await {
        return Raced::First(answer);
    }
    let Some((index, beside)) = chain.beside().await else { return Raced::First(first.await) };
    metrics::counter!("gateway_hedges_total", "provider" => beside.model.provider.to_string()).increment(1);
    tracing::debug!(slow = %hop.model, model = %beside.model, "the next model is asked as well");
    let mut second = pin!(ask(&beside));
    let mut failed: Option<Error> = None;
    loop {
        tokio::select! {
            answer = &mut first, if failed.is_none() => match answer {
                Ok(value) => return Raced::First(Ok(value)),
                Err(error) => failed = Some(error),
            },
            answer = &mut second => match (answer, failed) {
                (Ok(value), failed) => {
                    chain.switch(index, failed.as_ref().and_then(Error::failure).map(|failure| failure.fault));
                    return Raced::Second { hop: Box::new(beside), value, failed };
                }
                (Err(error), failed) => {
                    if let Some(failure) = error.failure() {
                        beside.place.failed(failure);
                    }
                    return Raced::First(match failed {
                        Some(error) => Err(error),
                        None => first.await,
                    });
                }
            },
        }
    }
}

/// How long the second model is prepared: one whose places are all taken is no help.
pub(super) const PREPARATION: Duration = Duration::from_millis(100);

impl<T> Raced<T> {
    /// The answer and the model behind it; `hop` is the one whose turn it was.
    pub(super) fn settled(self, hop: Hop) -> (Result<T, Error>, Hop, bool) {
        match self {
            Self::First(answer) => (answer, hop, false),
            Self::Second { hop: faster, value, failed } => {
                if let Some(failure) = failed.as_ref().and_then(Error::failure) {
                    hop.place.failed(failure);
                }
                (Ok(value), *faster, true)
            }
        }
    }
}
