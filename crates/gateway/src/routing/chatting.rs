//! Chats: streams that may change their model before anything was handed on, or openly after it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use uuid::Uuid;

use super::chain::{Chain, Hop};
use super::guarding::said;
use super::hedging::race;
use super::meter::Meter;
use super::repeating::{Before, kept};
use super::serving::twice_if;
use super::{Call, Gateway, Report, Served};
use crate::chat::{ChatEvent, ChatRequest, ChatStream, Completion};
use crate::error::{Error, Fault};
use crate::ledger::Outcome;
use crate::model::Modality;
use crate::usage::Usage;

/// What an answer may take, for the reservation, where the caller sets no limit.
const USUAL_OUTPUT: u64 = 4_096;

impl Gateway {
    /// Asks for an answer. Returns when the first piece of it is there, so that the report says who answers; models are
    /// changed before it without a trace, and after it only if the call or its task allows a restart, which is then
    /// announced by [`ChatEvent::Restarted`].
    ///
    /// # Errors
    /// See [`Error`]; those of the stream say whether something was handed on before.
    pub async fn chat(&self, call: &Call, request: ChatRequest) -> Result<Served<ChatStream>, Error> {
        request.check()?;
        let request = Arc::new(request);
        let id = Uuid::now_v7();
        let lacks = {
            let request = Arc::clone(&request);
            Box::new(move |capabilities: &crate::capability::Capabilities| capabilities.lacks(&request))
        };
        let chain = Chain::new(Arc::clone(&self.inner), call, id, Modality::Chat, lacks)?;
        let settings = chain.settings().clone();
        if settings.safety.is_some() {
            Box::pin(self.admit(call, id, Modality::Chat, &settings, &said(&request))).await?;
        }
        let leader = match self.before(call, id, &settings, &request, chain.deadline()).await? {
            Before::Answered(served) => return Ok(served),
            Before::Ask(leader) => leader,
        };
        let asked = (request.text_len() as u64).div_ceil(4);
        let estimate = Usage {
            input_tokens: asked,
            output_tokens: request.max_output_tokens.map_or(USUAL_OUTPUT, u64::from),
            estimated: true,
            ..Usage::default()
        };
        let estimate = twice_if(chain.hedge().is_some(), estimate);
        let meter = Meter::start(Arc::clone(&self.inner), call, id, Modality::Chat, estimate).await?;
        let (quota, refused) = (meter.standing(), meter.refused());
        let mut chatting = Chatting {
            chain,
            meter,
            request,
            current: None,
            delivered: false,
            announced: false,
            asked,
            written: 0,
            slower: Usage::default(),
            pending: None,
        };
        // Up to the first event that says something.
        let mut head = Vec::new();
        loop {
            match Box::pin(chatting.next()).await {
                // Models that failed before they said anything leave no trace.
                Some(Ok(ChatEvent::Restarted)) => head.clear(),
                Some(Ok(event)) => {
                    let content = event.is_content();
                    head.push(event);
                    if content {
                        break;
                    }
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        let model = chatting.model();
        let report = Report { call: id, model, tried: chatting.chain.tried().to_vec(), quota, cached: false };
        let rest = stream::unfold(chatting, async |mut chatting| {
            let event = Box::pin(chatting.next()).await?;
            Some((event, chatting))
        });
        let answer = ChatStream::new(stream::iter(head.into_iter().map(Ok)).chain(rest));
        let answer = self.guarded(call, id, &settings, answer, refused);
        let value = kept(leader, report.model.clone(), &settings, answer);
        Ok(Served { value, report })
    }

    /// The whole answer. Failures in the middle change the model: nothing was handed on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn complete(&self, call: &Call, request: ChatRequest) -> Result<Served<Completion>, Error> {
        let call = Call { restart: Some(true), ..call.clone() };
        let served = self.chat(&call, request).await?;
        Ok(Served { value: served.value.collect().await?, report: served.report })
    }
}

/// Asks; with `hedged`, waits for the first content, because that is what the race is about.
fn begin(
    request: Arc<ChatRequest>,
    hop: &Hop,
    hedged: bool,
) -> BoxFuture<'static, Result<ChatStream, Error>> {
    let (adapter, attempt) = (hop.adapter.chat.clone(), hop.attempt.clone());
    async move {
        let Some(adapter) = adapter else {
            let context = crate::providers::context(&attempt);
            return Err(context.fail(Fault::Unsupported, "its adapter does not chat").into());
        };
        let mut stream = adapter.chat(&request, &attempt).await?;
        if !hedged {
            return Ok(stream);
        }
        let mut head = Vec::new();
        while let Some(event) = stream.next().await {
            let event = event?;
            let content = event.is_content() || matches!(event, ChatEvent::Finished { .. });
            head.push(Ok(event));
            if content {
                break;
            }
        }
        Ok(ChatStream::new(stream::iter(head).chain(stream)))
    }
    .boxed()
}

struct Chatting {
    chain: Chain,
    meter: Meter,
    request: Arc<ChatRequest>,
    current: Option<(ChatStream, Hop)>,
    /// Whether content of the current answer was handed on.
    delivered: bool,
    /// Whether `Started` of the current answer was handed on.
    announced: bool,
    /// Estimates, for calls that end without the provider's count.
    asked: u64,
    written: u64,
    /// What slower providers were asked for besides.
    slower: Usage,
    /// Kept until content follows, so that models that fail before it leave no trace.
    pending: Option<ChatEvent>,
}

impl Chatting {
    fn model(&self) -> crate::model::ModelRef {
        let current = self.current.as_ref().map(|(_, hop)| hop.model.clone());
        current.or_else(|| self.meter.model()).unwrap_or_else(|| crate::model::ModelRef::new("none", "none"))
    }

    async fn next(&mut self) -> Option<Result<ChatEvent, Error>> {
        loop {
            if self.current.is_none()
                && let Err(error) = self.open().await?
            {
                return Some(Err(error));
            }
            let (stream, _) = self.current.as_mut()?;
            match stream.next().await {
                Some(Ok(event)) => {
                    if let Some(event) = self.take(event).await {
                        return Some(Ok(event));
                    }
                }
                failed => {
                    let error = match failed {
                        Some(Err(error)) => error,
                        _ => self.broke_off()?,
                    };
                    match self.fail(error).await {
                        Ok(Some(restarted)) => return Some(Ok(restarted)),
                        Ok(None) => {}
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }

    /// Finds a model that accepts the request. `None` after the end.
    async fn open(&mut self) -> Option<Result<(), Error>> {
        if self.meter.is_closed() {
            return None;
        }
        loop {
            let hop = match self.chain.next().await {
                Ok(hop) => hop,
                Err(error) => return Some(Err(self.end(error).await)),
            };
            self.meter.asking(&hop);
            let hedged = self.chain.hedge().is_some();
            let request = Arc::clone(&self.request);
            let ask = move |hop: &Hop| begin(Arc::clone(&request), hop, hedged);
            let (asked, hop, second) = race(&mut self.chain, &hop, ask).await.settled(hop);
            if second {
                self.meter.asking(&hop);
                self.slower += Usage { input_tokens: self.asked, estimated: true, ..Usage::default() };
            }
            match asked {
                Ok(stream) => {
                    self.current = Some((stream, hop));
                    self.announced = false;
                    return Some(Ok(()));
                }
                Err(error) => {
                    if let Err(error) = self.chain.failed(hop.place, error, false).await {
                        return Some(Err(self.end(error).await));
                    }
                }
            }
        }
    }

    /// What to hand on of an event.
    async fn take(&mut self, event: ChatEvent) -> Option<ChatEvent> {
        if let Some(pending) = self.pending.take() {
            // Two events are due: the first now, the other with the next call.
            if let Some((stream, hop)) = self.current.take() {
                let again = stream::iter([Ok(event)]).chain(stream);
                self.current = Some((ChatStream::new(again), hop));
            }
            self.announced = true;
            return Some(pending);
        }
        match &event {
            ChatEvent::Started { .. } if !self.announced => {
                self.pending = Some(event);
                return None;
            }
            ChatEvent::Finished { usage, .. } => {
                self.meter.counted(*usage);
                self.meter.consumed(self.slower);
                if let Some((_, hop)) = self.current.take() {
                    hop.place.succeeded();
                }
                let tried = self.chain.tried().to_vec();
                self.meter.finish(Outcome::Done, &tried, None).await;
                return Some(event);
            }
            ChatEvent::Text(text) | ChatEvent::Reasoning(text) => self.written += text.len() as u64,
            ChatEvent::ToolCallArguments { delta, .. } => self.written += delta.len() as u64,
            _ => {}
        }
        if event.is_content() {
            if !self.delivered {
                self.meter.first_content();
            }
            self.delivered = true;
            // Counted as it comes, for callers that go away in the middle.
            self.meter.counted(self.estimate());
            self.meter.consumed(self.slower);
        }
        Some(event)
    }

    fn estimate(&self) -> Usage {
        Usage {
            input_tokens: self.asked,
            output_tokens: self.written.div_ceil(4),
            estimated: true,
            ..Usage::default()
        }
    }

    /// A stream that just ends.
    fn broke_off(&self) -> Option<Error> {
        let (_, hop) = self.current.as_ref()?;
        let context = crate::providers::context(&hop.attempt);
        Some(context.fail(Fault::Interrupted, "it ended without saying why").into())
    }

    /// After a failure in the middle: on with another model, announced if something was handed on.
    async fn fail(&mut self, mut error: Error) -> Result<Option<ChatEvent>, Error> {
        let Some((stream, hop)) = self.current.take() else { return Err(error) };
        // Frees the provider before anybody waits.
        drop(stream);
        self.pending = None;
        if let Error::Provider(failure) = &mut error {
            failure.delivered = self.delivered;
        }
        let bound = self.delivered && !self.chain.restart_allowed();
        if let Err(error) = self.chain.failed(hop.place, error, bound).await {
            return Err(self.end(error).await);
        }
        let begun = std::mem::take(&mut self.delivered) | std::mem::take(&mut self.announced);
        Ok(begun.then_some(ChatEvent::Restarted))
    }

    async fn end(&mut self, mut error: Error) -> Error {
        if let Error::Provider(failure) | Error::Exhausted { last: failure, .. } = &mut error {
            failure.delivered = self.delivered;
        }
        let tried = self.chain.tried().to_vec();
        self.meter.fail(&error, &tried).await;
        error
    }
}
