//! One session: its socket, its clock and its client's events.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Shared, Vendor,
    config::Config,
    conversation::{Conversation, Item},
    faults::{Action, After, Fault},
    input::Input,
    lock,
    record::SessionRecord,
    response::{Ready, Response},
    validate::{self, ApiError},
    xai,
};

/// The vendor's limit on one client message.
const MAX_EVENT: usize = 15 << 20;
/// A client that does not read for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Something to do at a time.
#[derive(Debug)]
pub(super) enum Due {
    /// The next step of a response.
    Step(String),
    /// A user's transcript is ready.
    Transcript { item_id: String, text: String, seconds: f64 },
    /// Nothing has happened since the idle clock was set to this.
    Idle(u64),
    /// A scripted misfortune.
    Fault(Action),
    /// `session.updated` with this session.
    Updated(Value),
    /// Begin, after a scripted delay.
    Created,
}

struct Timer {
    at: Instant,
    sequence: u64,
    due: Due,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The state of one session; the modules `input` and `response` hold the rest of its behaviour.
pub(super) struct Session {
    socket: WebSocketStream<TcpStream>,
    pub(super) shared: Arc<Shared>,
    pub(super) record: Arc<Mutex<SessionRecord>>,
    pub(super) fault: Fault,
    pub(super) config: Config,
    pub(super) conversation: Conversation,
    pub(super) conversation_id: String,
    pub(super) input: Input,
    pub(super) responses: Vec<Response>,
    pub(super) ready: mpsc::Sender<Ready>,
    pub(super) readied: Option<mpsc::Receiver<Ready>>,
    pub(super) random: StdRng,
    /// Whether the assistant has spoken, which fixes the voice.
    pub(super) spoken: bool,
    /// Changes whenever something happens that resets the idle timeout.
    pub(super) idle: u64,
    timers: BinaryHeap<Reverse<Timer>>,
    sequence: u64,
    silent: bool,
    created: bool,
    ended: bool,
    /// Messages sent so far.
    sent: usize,
}

impl Session {
    pub(super) fn new(
        socket: WebSocketStream<TcpStream>,
        shared: Arc<Shared>,
        record: Arc<Mutex<SessionRecord>>,
        fault: Fault,
        index: usize,
        model: &str,
        transcribes: bool,
    ) -> Self {
        let mut random =
            StdRng::seed_from_u64(shared.options.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = (now + shared.options.session_cap).as_secs();
        let id = new_id(&mut random, "sess");
        let config = match transcribes {
            true => Config::transcription(&id, expires_at),
            false => Config::new(&id, model, expires_at),
        };
        let (ready, readied) = mpsc::channel(32);
        Self {
            input: Input::new(&config),
            socket,
            shared,
            record,
            fault,
            config,
            conversation: Conversation::default(),
            conversation_id: new_id(&mut random, "conv"),
            responses: Vec::new(),
            ready,
            readied: Some(readied),
            random,
            spoken: false,
            idle: 0,
            timers: BinaryHeap::new(),
            sequence: 0,
            silent: false,
            created: false,
            ended: false,
            sent: 0,
        }
    }

    /// Serves until either side ends it.
    pub(super) async fn run(mut self, beta: bool) {
        if beta {
            self.error(validate::beta(None), None).await;
            self.close(4000, "beta_api_shape_disabled").await;
            return;
        }
        if let Some((code, message)) = self.fault.error_before_ready.clone() {
            self.scripted_error(&code, &message).await;
        }
        self.after(self.fault.created_delay, Due::Created);
        self.after(self.shared.options.session_cap, Due::Fault(Action::Expire));
        for (after, action) in self.fault.actions.clone() {
            if let After::Elapsed(wait) = after {
                self.after(wait, Due::Fault(action));
            }
        }
        let mut readied = self.readied.take().expect("run is called once");
        let stop = self.shared.stop.clone();
        while !self.ended {
            let next =
                self.timers.peek().map_or_else(|| Instant::now() + Duration::from_secs(3_600), |t| t.0.at);
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.message(message).await,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the client's socket failed");
                        lock(&self.record).close(1006, "", true);
                        self.ended = true;
                    }
                    None => {
                        lock(&self.record).close(1006, "", true);
                        self.ended = true;
                    }
                },
                Some(ready) = readied.recv() => self.synthesised(ready),
                () = tokio::time::sleep_until(next) => self.tick().await,
                () = stop.cancelled() => self.close(1001, "The emulator is stopping.").await,
            }
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        while !self.ended && self.timers.peek().is_some_and(|timer| timer.0.at <= now) {
            let Some(Reverse(timer)) = self.timers.pop() else { return };
            match timer.due {
                Due::Step(response) => self.step(&response).await,
                Due::Transcript { item_id, text, seconds } => {
                    self.transcribed(&item_id, &text, seconds).await;
                }
                Due::Idle(idle) => self.idled(idle).await,
                Due::Fault(action) => self.misfortune(action).await,
                Due::Updated(session) => {
                    self.send(json!({"type": "session.updated", "session": session})).await;
                }
                Due::Created => {
                    self.created = true;
                    self.greet_like_xai().await;
                    self.send(json!({"type": "session.created", "session": self.config.value})).await;
                    self.unknown_event().await;
                }
            }
        }
    }

    pub(super) fn after(&mut self, wait: Duration, due: Due) {
        self.sequence += 1;
        self.timers.push(Reverse(Timer { at: Instant::now() + wait, sequence: self.sequence, due }));
    }

    pub(super) fn id(&mut self, prefix: &str) -> String {
        new_id(&mut self.random, prefix)
    }

    /// Sends an event, giving it an id.
    pub(super) async fn send(&mut self, mut event: Value) {
        if self.silent || self.ended {
            return;
        }
        let number = self.sent;
        self.sent += 1;
        let at = self.fault.actions.iter().position(|(after, _)| *after == After::Frames(number));
        if let Some(at) = at {
            let (_, action) = self.fault.actions.remove(at);
            return Box::pin(self.misfortune(action)).await;
        }
        event["event_id"] = json!(self.id("event"));
        lock(&self.record).server(event["type"].as_str().unwrap_or_default());
        self.write(event.to_string()).await;
    }

    async fn write(&mut self, text: String) {
        let sent = tokio::time::timeout(WRITE_TIMEOUT, self.socket.send(Message::text(text))).await;
        if !matches!(sent, Ok(Ok(()))) {
            lock(&self.record).close(1006, "", true);
            self.ended = true;
        }
    }

    /// xAI names the conversation first.
    async fn greet_like_xai(&mut self) {
        if self.shared.options.vendor == Vendor::Xai {
            let conversation = json!({"id": self.conversation_id, "object": "realtime.conversation"});
            self.send(json!({"type": "conversation.created", "conversation": conversation})).await;
            self.send(json!({"type": "ping", "timestamp": 0})).await;
        }
    }

    pub(super) async fn error(&mut self, error: ApiError, event_id: Option<&str>) {
        lock(&self.record).error(error.code, &error.message, error.param.as_deref());
        let body = json!({
            "type": error.kind, "code": error.code, "message": error.message,
            "param": error.param, "event_id": event_id,
        });
        self.send(json!({"type": "error", "error": body})).await;
    }

    async fn scripted_error(&mut self, code: &str, message: &str) {
        lock(&self.record).error(code, message, None);
        let body = json!({"type": "server_error", "code": code, "message": message, "param": null, "event_id": null});
        self.send(json!({"type": "error", "error": body})).await;
    }

    pub(super) async fn unknown_event(&mut self) {
        if self.fault.unknown_events {
            self.send(json!({"type": "emulator.unheard_of", "detail": {"nested": [1, null]}})).await;
        }
    }

    async fn close(&mut self, code: u16, reason: &str) {
        self.ended = true;
        lock(&self.record).close(code, reason, false);
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let finish = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                // The client's own close frame, so that it does not see a reset.
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), finish).await;
    }

    async fn misfortune(&mut self, action: Action) {
        match action {
            Action::Close { code, reason } => self.close(code, &reason).await,
            Action::Drop => {
                lock(&self.record).close(1006, "", false);
                // With no linger the kernel resets the connection when the socket is dropped.
                let _ = self.socket.get_ref().set_zero_linger();
                self.ended = true;
            }
            Action::Silence => self.silent = true,
            Action::Expire => {
                // A cap of seconds stands for the vendor's hour.
                let minutes = match self.shared.options.session_cap.as_secs() / 60 {
                    0 => 60,
                    minutes => minutes,
                };
                let message = format!("Your session hit the maximum duration of {minutes} minutes.");
                self.error(ApiError::new("session_expired", message.clone(), None), None).await;
                self.close(1001, &message).await;
            }
            Action::Error { code, message } => self.scripted_error(&code, &message).await,
            Action::Garble => self.write("{\"type\": <html>".to_owned()).await,
            Action::Oversize(bytes) => self.write(" ".repeat(bytes)).await,
        }
    }

    /// Lets the misfortunes happen that wait for an amount of audio.
    pub(super) async fn audio_misfortunes(&mut self) {
        let (received, sent) = {
            let record = lock(&self.record);
            (record.audio_in_seconds, record.audio_out_seconds)
        };
        let mut at = 0;
        while at < self.fault.actions.len() {
            let due = match self.fault.actions[at].0 {
                After::AudioIn(wait) => received >= wait.as_secs_f64(),
                After::AudioOut(wait) => sent >= wait.as_secs_f64(),
                After::Elapsed(_) | After::Frames(_) => false,
            };
            if due {
                let (_, action) = self.fault.actions.remove(at);
                self.misfortune(action).await;
            } else {
                at += 1;
            }
        }
    }

    async fn message(&mut self, message: Message) {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |f| (u16::from(f.code), f.reason.to_string()));
                lock(&self.record).close(code, &reason, true);
                // Lets the library send its answer.
                let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.flush()).await;
                self.ended = true;
                return;
            }
            Message::Binary(_) => {
                let error =
                    ApiError::new("invalid_event", "Events must be JSON text, not binary messages.", None);
                return self.error(error, None).await;
            }
            _ => return,
        };
        if text.len() > MAX_EVENT {
            let message = format!("The event is {} bytes long; the limit is {MAX_EVENT}.", text.len());
            return self.error(ApiError::new("event_too_large", message, None), None).await;
        }
        let mut event: Value = match serde_json::from_str(&text) {
            Ok(event) => event,
            Err(error) => {
                let message = format!("The event could not be parsed as JSON: {error}.");
                return self.error(ApiError::new("invalid_json", message, None), None).await;
            }
        };
        let event_id = event["event_id"].as_str().map(str::to_owned);
        let translated = match self.shared.options.vendor {
            Vendor::OpenAi => Ok(()),
            Vendor::Xai => xai::translate(&mut event),
        };
        let checked = if self.created {
            translated.and_then(|()| validate::event(&event))
        } else {
            Err(ApiError::new("session_not_ready", "Wait for 'session.created' before sending events.", None))
        };
        if event["type"] != "input_audio_buffer.append" || checked.is_err() {
            let mut logged = event.clone();
            if let Some(audio) = logged.get_mut("audio") {
                *audio = json!(audio.as_str().map_or(0, str::len));
            }
            lock(&self.record).client(event["type"].as_str().unwrap_or("?"), &logged);
        }
        let done = match checked {
            Ok(kind) => self.client_event(kind, event).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.error(error, event_id.as_deref()).await;
        }
    }

    async fn client_event(&mut self, kind: &str, mut event: Value) -> Result<(), ApiError> {
        match kind {
            "session.update" => {
                let config = self.config.updated(&event["session"], self.spoken)?;
                self.input.configure(&self.config, &config);
                self.config = config;
                let session = self.config.value.clone();
                self.after(self.fault.updated_delay, Due::Updated(session));
                // In order with whatever follows, unless a script delays it.
                self.tick().await;
            }
            "input_audio_buffer.append" => self.append(event["audio"].as_str().unwrap_or_default()).await?,
            "input_audio_buffer.commit" => self.manual_commit().await?,
            "input_audio_buffer.clear" => {
                self.input.clear();
                self.send(json!({"type": "input_audio_buffer.cleared"})).await;
            }
            "conversation.item.create" => {
                self.create_item(event["item"].take(), &event["previous_item_id"]).await?;
            }
            "conversation.item.delete" => {
                let id = event["item_id"].as_str().unwrap_or_default();
                self.conversation.delete(id)?;
                self.send(json!({"type": "conversation.item.deleted", "item_id": id})).await;
            }
            "conversation.item.retrieve" => {
                let item =
                    self.conversation.retrieve(event["item_id"].as_str().unwrap_or_default())?.body.clone();
                self.send(json!({"type": "conversation.item.retrieved", "item": item})).await;
            }
            "conversation.item.truncate" => {
                let id = event["item_id"].as_str().unwrap_or_default();
                let end_ms = event["audio_end_ms"].as_u64().unwrap_or_default();
                let heard = self.conversation.truncate(id, end_ms)?;
                lock(&self.record).truncate(id, &heard, end_ms as u32);
                let event = json!({
                    "type": "conversation.item.truncated", "item_id": id, "content_index": 0, "audio_end_ms": end_ms,
                });
                self.send(event).await;
            }
            "response.create" if self.config.value["type"] == "transcription" => {
                let message = "Responses cannot be created in a transcription session.";
                return Err(ApiError::new("invalid_request", message, None));
            }
            "response.create" => self.create_response(event["response"].take()).await?,
            "response.cancel" => {
                let id = event["response_id"].as_str();
                let found = self.responses.iter().find(|r| id.map_or(r.in_conversation, |id| r.id == id));
                let Some(id) = found.map(|r| r.id.clone()) else {
                    let message = "Cancellation failed: no active response found";
                    return Err(ApiError::new("response_cancel_not_active", message, None));
                };
                self.cancel(&id, "client_cancelled").await;
            }
            _ => unreachable!("validate::event names only the events above"),
        }
        Ok(())
    }

    async fn create_item(&mut self, mut body: Value, previous: &Value) -> Result<(), ApiError> {
        let id = body["id"].as_str().map(str::to_owned);
        let id = id.unwrap_or_else(|| self.id("item"));
        if body["type"] == "function_call" && body["call_id"].is_null() {
            body["call_id"] = json!(self.id("call"));
        }
        body["status"] = json!("completed");
        let mut item = Item::new(id, body);
        self.understand(&mut item)?;
        let body = item.body.clone();
        let before = self.conversation.insert(item, previous.as_str())?;
        self.idle += 1;
        for kind in ["conversation.item.added", "conversation.item.done"] {
            self.send(json!({"type": kind, "previous_item_id": before, "item": body})).await;
        }
        Ok(())
    }
}

fn new_id(random: &mut StdRng, prefix: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let tail: String =
        (0..21).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect();
    format!("{prefix}_{tail}")
}
