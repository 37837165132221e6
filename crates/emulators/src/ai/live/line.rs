//! One socket: what goes over it is counted, noted, and hit by what was scripted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::{Shared, lock};
use super::{LiveAction, LiveFault, LiveOptions, LiveRecord};

/// Messages noted for each socket.
const MAX_MESSAGES: usize = 4_096;
/// A client that does not read for this long is gone.
const WRITE: Duration = Duration::from_secs(20);

/// What happened next.
pub(super) enum Next {
    Text(String),
    Binary(Bytes),
    /// The time that was waited for.
    Due,
    /// The socket is of no use any more.
    Gone,
}

pub(super) struct Line {
    socket: WebSocketStream<TcpStream>,
    pub(super) shared: Arc<Shared>,
    pub(super) record: Arc<Mutex<LiveRecord>>,
    fault: LiveFault,
    sent: usize,
    silent: bool,
    over: bool,
    /// Whether JSON goes out in binary messages.
    pub(super) binary: bool,
    /// The vendor's internal error, and the code with which it closes.
    pub(super) trouble: (Value, u16),
    heard_at: Instant,
}

impl Line {
    pub(super) fn new(
        socket: WebSocketStream<TcpStream>,
        shared: Arc<Shared>,
        record: Arc<Mutex<LiveRecord>>,
        fault: LiveFault,
    ) -> Self {
        let _ = socket.get_ref().set_nodelay(true);
        Self {
            socket,
            shared,
            record,
            fault,
            sent: 0,
            silent: false,
            over: false,
            binary: false,
            trouble: (json!({"type": "Error", "description": "internal error"}), 1011),
            heard_at: Instant::now(),
        }
    }

    pub(super) fn options(&self) -> &LiveOptions {
        &self.shared.options.live
    }

    /// The vendor's time by this emulator's clock.
    pub(super) fn vendor_time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.options().clock.max(0.001))
    }

    pub(super) fn complain(&self, what: impl Into<String>) {
        lock(&self.record).complaints.push(what.into());
    }

    pub(super) fn heard(&self, word: &str) {
        lock(&self.record).heard.push(word.to_owned());
    }

    pub(super) fn spoke(&self, words: impl Iterator<Item = String>) {
        lock(&self.record).spoken.extend(words);
    }

    pub(super) async fn send(&mut self, value: Value) {
        let text = value.to_string();
        let message = if self.binary { Message::binary(text.into_bytes()) } else { Message::text(text) };
        self.message(message).await;
    }

    pub(super) async fn send_audio(&mut self, bytes: Vec<u8>) {
        self.message(Message::binary(bytes)).await;
    }

    async fn message(&mut self, message: Message) {
        if self.over || self.silent {
            return;
        }
        let number = self.sent;
        self.sent += 1;
        if let Some((_, action)) = self.fault.at.take_if(|(at, _)| *at == number) {
            return self.misfortune(action).await;
        }
        lock(&self.record).sent += 1;
        self.write(message).await;
    }

    async fn write(&mut self, message: Message) {
        let sent = tokio::time::timeout(WRITE, self.socket.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.ended(1006, true);
        }
    }

    fn ended(&mut self, code: u16, by_client: bool) {
        self.over = true;
        lock(&self.record).closed.get_or_insert((code, by_client));
    }

    async fn misfortune(&mut self, action: LiveAction) {
        match action {
            LiveAction::Reset => {
                // With no linger the kernel resets the connection when the socket is dropped.
                let _ = self.socket.get_ref().set_zero_linger();
                self.ended(1006, false);
            }
            LiveAction::Close(code, reason) => self.close(code, &reason).await,
            LiveAction::Silence => self.silent = true,
            LiveAction::Garble => self.write(Message::text("{\"type\": <html>")).await,
            LiveAction::Oversize(bytes) => self.write(Message::text(" ".repeat(bytes))).await,
            LiveAction::Error => {
                let (value, code) = self.trouble.clone();
                let text = value.to_string();
                self.write(Message::text(text)).await;
                self.close(code, "internal error").await;
            }
        }
    }

    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        if self.over {
            return;
        }
        self.ended(code, false);
        let reason: String = reason.chars().take(120).collect();
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let finish = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                // The client's own close frame, so that it does not see a reset.
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), finish).await;
    }

    /// Waits for a message, or for a time.
    pub(super) async fn next(&mut self, due: Option<Instant>) -> Next {
        loop {
            if self.over {
                return Next::Gone;
            }
            if self.silent {
                // Half-open: what comes is not even read, so that pings stay without an answer.
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                return Next::Gone;
            }
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            let message = tokio::select! {
                biased;
                message = self.socket.next() => message,
                () = tokio::time::sleep_until(due) => return Next::Due,
            };
            let silence = self.heard_at.elapsed().as_millis() as u64;
            match message {
                Some(Ok(Message::Text(text))) => {
                    self.noted(silence);
                    let mut record = lock(&self.record);
                    if record.messages.len() < MAX_MESSAGES {
                        record.messages.push(brief(&text));
                    }
                    return Next::Text(text.to_string());
                }
                Some(Ok(Message::Binary(bytes))) => {
                    self.noted(silence);
                    lock(&self.record).audio_in += bytes.len();
                    return Next::Binary(bytes);
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    // Lets the library send its answer.
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.flush()).await;
                    self.ended(code, true);
                }
                Some(Ok(_)) => {
                    let _ = tokio::time::timeout(WRITE, self.socket.flush()).await;
                }
                Some(Err(_)) | None => self.ended(1006, true),
            }
        }
    }

    fn noted(&mut self, silence: u64) {
        self.heard_at = Instant::now();
        let mut record = lock(&self.record);
        record.longest_silence_ms = record.longest_silence_ms.max(silence);
    }
}

/// A message without its audio.
fn brief(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    let audio = value.pointer_mut("/realtimeInput/audio/data");
    if let Some(audio) = audio {
        *audio = json!(audio.as_str().map_or(0, str::len));
    }
    value
}
