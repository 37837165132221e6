//! Live speech: opened along the chain of models, counted to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::chain::{Chain, Hop};
use super::lanes::Place;
use super::meter::Meter;
use super::serving::unsupported;
use super::{Call, Gateway, Report, Served};
use crate::error::{Error, Fault, Tried};
use crate::ledger::Outcome;
use crate::live::{
    Channel, Encoding, Listening, ListeningCommand, ListeningEvent, ListeningRequest, Live, Session,
    SessionCommand, SessionEvent, SessionRequest, Speaking, SpeakingCommand, SpeakingEvent, SpeakingRequest,
};
use crate::model::Modality;
use crate::usage::Usage;

/// Audio that is reserved for a listener or a session; they last as long as they are used.
const USUAL_AUDIO_MS: u64 = 60_000;
/// Characters that are reserved for a speaker.
const USUAL_CHARACTERS: u64 = 1_000;

impl Gateway {
    /// Opens a listener for a task of [`Modality::Transcription`]. Models are changed until one says that it is ready;
    /// afterwards a failure is the caller's to answer, who still has the audio. It takes a place among the requests to
    /// its provider until it is dropped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn listen(&self, call: &Call, request: ListeningRequest) -> Result<Served<Listening>, Error> {
        let estimate = Usage { audio_ms: USUAL_AUDIO_MS, estimated: true, ..Usage::default() };
        let rules = Rules {
            encoding: request.encoding,
            ready: |event| matches!(event, ListeningEvent::Ready(_)),
            sent: |command, tally| {
                if let ListeningCommand::Audio(bytes) = command {
                    tally.hear(bytes.len());
                }
            },
            heard: |event, tally| {
                if let ListeningEvent::Finished(usage) = event {
                    tally.usage = *usage;
                }
            },
        };
        let request = Arc::new(request);
        let ask = move |hop: &Hop| {
            let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
            let adapter = hop.adapter.listening.clone().ok_or_else(|| unsupported(hop));
            async move { adapter?.listen(&request, &attempt).await }.boxed()
        };
        self.open_live(call, Modality::Transcription, estimate, rules, ask).await
    }

    /// Opens a speaker for a task of [`Modality::Speech`], as [`Gateway::listen`] opens a listener.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open_speaker(
        &self,
        call: &Call,
        request: SpeakingRequest,
    ) -> Result<Served<Speaking>, Error> {
        let estimate = Usage { characters: USUAL_CHARACTERS, estimated: true, ..Usage::default() };
        let rules = Rules {
            encoding: request.encoding,
            ready: |event| matches!(event, SpeakingEvent::Ready(_)),
            sent: |command, tally| {
                if let SpeakingCommand::Text(_, text) = command {
                    tally.usage.characters += text.chars().count() as u64;
                    tally.usage.estimated = true;
                }
            },
            heard: |event, tally| {
                if let SpeakingEvent::Finished(usage) = event {
                    tally.usage = *usage;
                }
            },
        };
        let request = Arc::new(request);
        let ask = move |hop: &Hop| {
            let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
            let adapter = hop.adapter.speaking.clone().ok_or_else(|| unsupported(hop));
            async move { adapter?.open(&request, &attempt).await }.boxed()
        };
        self.open_live(call, Modality::Speech, estimate, rules, ask).await
    }

    /// Opens a session for a task of [`Modality::Realtime`], as [`Gateway::listen`] opens a listener.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn converse(&self, call: &Call, request: SessionRequest) -> Result<Served<Session>, Error> {
        let estimate = Usage { audio_ms: USUAL_AUDIO_MS, estimated: true, ..Usage::default() };
        let rules = Rules {
            encoding: request.input,
            ready: |event| matches!(event, SessionEvent::Ready { .. }),
            sent: |command, tally| {
                if let SessionCommand::Audio(payload) = command {
                    tally.hear(payload.audio_len());
                }
            },
            heard: |event, tally| {
                if let SessionEvent::OutputDone { usage: Some(usage), .. } = event {
                    tally.usage += *usage;
                }
            },
        };
        let request = Arc::new(request);
        let ask = move |hop: &Hop| {
            let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
            let adapter = hop.adapter.session.clone().ok_or_else(|| unsupported(hop));
            async move { adapter?.converse(&request, &attempt).await }.boxed()
        };
        self.open_live(call, Modality::Realtime, estimate, rules, ask).await
    }

    async fn open_live<C: Send + 'static, E: Send + 'static>(
        &self,
        call: &Call,
        modality: Modality,
        estimate: Usage,
        rules: Rules<C, E>,
        ask: impl Fn(&Hop) -> BoxFuture<'static, Result<Live<C, E>, Error>>,
    ) -> Result<Served<Live<C, E>>, Error> {
        let id = Uuid::now_v7();
        let mut chain = Chain::new(Arc::clone(&self.inner), call, id, modality, Box::new(|_| None))?;
        let mut meter = Meter::start(Arc::clone(&self.inner), call, id, modality, estimate).await?;
        let quota = meter.standing();
        loop {
            let hop = match chain.next().await {
                Ok(hop) => hop,
                Err(error) => {
                    meter.fail(&error, chain.tried()).await;
                    return Err(error);
                }
            };
            meter.asking(&hop);
            match greeted(ask(&hop).await, rules.ready, &hop).await {
                Ok((live, head)) => {
                    let tried = chain.tried().to_vec();
                    let model = hop.model.clone();
                    let channel = Metered {
                        live,
                        head,
                        tally: Tally { encoding: rules.encoding, bytes: 0, usage: Usage::default() },
                        rules,
                        open: Some((meter, hop.place)),
                        tried: tried.clone(),
                        tasks: self.inner.tasks.clone(),
                    };
                    let report = Report { call: id, model, tried, quota, cached: false };
                    return Ok(Served { value: Live::new(channel), report });
                }
                Err(error) => {
                    if let Err(error) = chain.failed(hop.place, error, false).await {
                        meter.fail(&error, chain.tried()).await;
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// Waits until a vendor is ready: some say only then that they refuse.
async fn greeted<C, E>(
    opened: Result<Live<C, E>, Error>,
    ready: fn(&E) -> bool,
    hop: &Hop,
) -> Result<(Live<C, E>, VecDeque<E>), Error> {
    let mut live = opened?;
    let mut head = VecDeque::new();
    loop {
        match live.next().await {
            Some(event) => {
                let event = event?;
                let greeted = ready(&event);
                head.push_back(event);
                if greeted {
                    return Ok((live, head));
                }
            }
            None => {
                let context = crate::providers::context(&hop.attempt);
                return Err(context.fail(Fault::Interrupted, "it closed before it was ready").into());
            }
        }
    }
}

/// What a kind of channel is counted by.
struct Rules<C, E> {
    encoding: Encoding,
    ready: fn(&E) -> bool,
    sent: fn(&C, &mut Tally),
    heard: fn(&E, &mut Tally),
}

/// What has been consumed.
struct Tally {
    encoding: Encoding,
    bytes: usize,
    usage: Usage,
}

impl Tally {
    fn hear(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.usage.audio_ms = self.encoding.duration(self.bytes).as_millis() as u64;
        self.usage.estimated = true;
    }
}

/// A channel that is recorded when it ends, however it does.
struct Metered<C, E> {
    live: Live<C, E>,
    /// Events that came while it was opened.
    head: VecDeque<E>,
    tally: Tally,
    rules: Rules<C, E>,
    /// `None` when it has been recorded.
    open: Option<(Meter, Place)>,
    tried: Vec<Tried>,
    tasks: TaskTracker,
}

impl<C, E> Metered<C, E> {
    fn end(&mut self, error: Option<&Error>) {
        let Some((mut meter, place)) = self.open.take() else { return };
        let outcome = match error.and_then(Error::failure) {
            Some(failure) => {
                place.failed(failure);
                Outcome::Failed(failure.fault)
            }
            // Whoever hangs up has got what they wanted of it.
            None => {
                place.succeeded();
                Outcome::Done
            }
        };
        meter.counted(self.tally.usage);
        let tried = std::mem::take(&mut self.tried);
        // Tracked: shutting down waits for it.
        self.tasks.spawn(async move { meter.finish(outcome, &tried, None).await });
    }
}

impl<C, E> Drop for Metered<C, E> {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[async_trait]
impl<C: Send + 'static, E: Send + 'static> Channel<C, E> for Metered<C, E> {
    fn send(&mut self, command: C) -> Result<(), Error> {
        let mut tally =
            Tally { encoding: self.tally.encoding, bytes: self.tally.bytes, usage: self.tally.usage };
        (self.rules.sent)(&command, &mut tally);
        self.live.send(command)?;
        self.tally = tally;
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<E, Error>>> {
        if let Some(event) = self.head.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        let event = std::task::ready!(self.live.poll_event(context));
        match &event {
            Some(Ok(event)) => {
                (self.rules.heard)(event, &mut self.tally);
                if let Some((meter, _)) = &mut self.open {
                    meter.first_content();
                }
            }
            Some(Err(error)) => self.end(Some(error)),
            None => self.end(None),
        }
        Poll::Ready(event)
    }

    fn backlog(&self) -> usize {
        self.live.backlog()
    }

    fn shed(&self) -> u64 {
        self.live.shed()
    }

    async fn close(&mut self, limit: Duration) {
        self.live.goodbye(limit).await;
    }
}
