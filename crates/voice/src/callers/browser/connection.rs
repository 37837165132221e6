//! A WebSocket to a browser or a game, as a [`Caller`].

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Framing;
use super::lobby::{Door, Lobby};
use super::messages::{
    ClientMessage, Code, Frame, Init, Manners, Mode, ProtocolError, Ready, ServerMessage, read, write,
};
use crate::cascade::{Caller, CallerCommand, CallerEvent};
use crate::session::{BoxFuture, Ending};

/// Unsent bytes above which a client that does not read is gone.
const BACKLOG: usize = 512 * 1024;
/// Signs of life are asked for this often.
const PING: Duration = Duration::from_secs(5);
/// Without any for this long, the connection is lost.
const SILENCE: Duration = Duration::from_secs(15);
/// Messages of the application that wait to be sent.
const OUTBOX: usize = 64;
/// Errors after which a client is not worth listening to.
const MOST_ERRORS: u32 = 100;

/// Any WebSocket that the library gives.
pub trait Socket:
    Stream<Item = Result<Message, tungstenite::Error>> + Sink<Message, Error = tungstenite::Error> + Send + Unpin
{
}

impl<S> Socket for S where
    S: Stream<Item = Result<Message, tungstenite::Error>>
        + Sink<Message, Error = tungstenite::Error>
        + Send
        + Unpin
{
}

/// An open connection and what waits to be sent on it.
pub struct Link {
    socket: Box<dyn Socket>,
    framing: Framing,
    queue: VecDeque<Message>,
    queued: usize,
    unflushed: bool,
    broken: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("framing", &self.framing)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A connection that has just been opened.
    pub fn new(socket: impl Socket + 'static, framing: Framing) -> Self {
        Self {
            socket: Box::new(socket),
            framing,
            queue: VecDeque::new(),
            queued: 0,
            unflushed: false,
            broken: false,
        }
    }

    /// Waits for `init`; anything else before it is refused.
    ///
    /// # Errors
    /// Nothing, when the client left or took longer than `limit`: there is nobody to be told.
    pub async fn init(&mut self, limit: Duration) -> Option<Init> {
        let waiting = async {
            for _ in 0..MOST_ERRORS {
                let frame = match self.socket.next().await? {
                    Ok(Message::Text(text)) => Frame::Text(text.as_str().to_owned()),
                    Ok(Message::Binary(bytes)) => Frame::Binary(bytes),
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                    Ok(Message::Close(_)) | Err(_) => return None,
                };
                let error = match read(&frame) {
                    Ok(ClientMessage::Init(init)) => return Some(init),
                    Ok(_) => ProtocolError { code: Code::NotInitialized, message: "send init first".into() },
                    Err(error) => error,
                };
                self.tell(&ServerMessage::Error(error));
                self.flush().await;
            }
            None
        };
        tokio::time::timeout(limit, waiting).await.ok().flatten()
    }

    /// Queues a message.
    pub fn tell(&mut self, message: &ServerMessage) {
        let message = match write(message, self.framing) {
            Frame::Text(text) => Message::text(text),
            Frame::Binary(bytes) => Message::Binary(bytes),
        };
        self.push(message);
    }

    fn push(&mut self, message: Message) {
        if !self.broken {
            self.queued += message.len();
            self.queue.push_back(message);
            self.broken = self.queued > BACKLOG;
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.broken && !self.queue.is_empty() {
            let ready = match Pin::new(&mut self.socket).poll_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ready) => ready,
            };
            let sent = ready.and_then(|()| {
                let message = self.queue.pop_front().unwrap_or_else(|| Message::text(""));
                self.queued -= message.len();
                Pin::new(&mut self.socket).start_send(message)
            });
            self.broken |= sent.is_err();
            self.unflushed = true;
        }
        if self.unflushed && !self.broken {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(flushed) => {
                    self.unflushed = false;
                    self.broken |= flushed.is_err();
                }
            }
        }
        Poll::Ready(())
    }

    async fn flush(&mut self) {
        std::future::poll_fn(|context| self.poll_write(context)).await;
    }

    /// Sends what is queued, and closes with a code and reason.
    pub async fn close(mut self, code: u16, reason: &str, limit: Duration) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        self.push(Message::Close(Some(frame)));
        let goodbye = async {
            self.flush().await;
            // The client's own close ends the connection in order.
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = tokio::time::timeout(limit, goodbye).await;
    }

    /// Refuses a client: says why, and closes with 1008.
    pub async fn refuse(mut self, code: Code, message: &str) {
        self.tell(&ServerMessage::Error(ProtocolError { code, message: message.to_owned() }));
        self.close(1008, message, Duration::from_secs(2)).await;
    }
}

/// What a conversation is called towards its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The session.
    pub session_id: String,
    /// Who answers.
    pub npc_name: String,
    /// Whose voice: provider, voice id, and speed in hundredths.
    pub voice: (String, String, u32),
    /// What was agreed.
    pub mode: Mode,
    /// Samples a second.
    pub sample_rate: u32,
    /// How long a lost connection may take to come back; zero for never.
    pub resume_window: Duration,
}

/// A person behind a browser or a game.
pub struct Browser {
    link: Option<Link>,
    introduction: Introduction,
    token: String,
    door: Door,
    manners: Manners,
    sequence: u32,
    /// Samples sent and not dropped.
    position: u64,
    ping: Interval,
    heard_at: Instant,
    /// Runs while the connection is lost.
    lost: Option<Pin<Box<Sleep>>>,
    errors: u32,
    left: bool,
    /// The application has said how it ends.
    said_goodbye: bool,
    outbox: mpsc::Receiver<ServerMessage>,
    events: VecDeque<CallerEvent>,
}

/// What the application itself has to say: what a mind did, why a character leaves, what was stored.
pub type Outbox = mpsc::Sender<ServerMessage>;

impl Browser {
    /// A person whose `init` was accepted: they are told `ready`. What goes into the [`Outbox`] before the application
    /// has stored the end is sent before the goodbye, and a `sync` or `exit_convo` of its own replaces ours.
    pub fn new(link: Link, introduction: Introduction, lobby: &Lobby) -> (Self, Outbox) {
        let (token, door) = lobby.open();
        let (sender, outbox) = mpsc::channel(OUTBOX);
        let mut ping = tokio::time::interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut browser = Self {
            link: Some(link),
            manners: Manners::new(introduction.mode),
            introduction,
            token,
            door,
            sequence: 0,
            position: 0,
            ping,
            heard_at: Instant::now(),
            lost: None,
            errors: 0,
            left: false,
            said_goodbye: false,
            outbox,
            events: VecDeque::new(),
        };
        browser.ready();
        (browser, sender)
    }

    fn tell_for_application(&mut self, message: &ServerMessage) {
        self.said_goodbye |= matches!(message, ServerMessage::Sync { .. } | ServerMessage::ExitConvo { .. });
        self.tell(message);
    }

    fn ready(&mut self) {
        let introduction = self.introduction.clone();
        let ready = Ready {
            session_id: introduction.session_id,
            npc_name: introduction.npc_name,
            voice: introduction.voice,
            mode: introduction.mode,
            sample_rate: introduction.sample_rate,
            resume_token: self.token.clone(),
            position: self.position,
        };
        self.tell(&ServerMessage::Ready(ready));
    }

    fn tell(&mut self, message: &ServerMessage) {
        if let Some(link) = &mut self.link {
            link.tell(message);
        }
    }

    /// The connection is gone; the person may come back.
    fn lose(&mut self) {
        self.link = None;
        if self.lost.is_none() && !self.left {
            self.lost = Some(Box::pin(tokio::time::sleep(self.introduction.resume_window)));
            self.events.push_back(CallerEvent::Away);
        }
    }

    fn take(&mut self, frame: &Frame) {
        let message = match read(frame).and_then(|message| self.manners.check(message)) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                self.errors += 1;
                self.tell(&ServerMessage::Error(error));
                if self.errors >= MOST_ERRORS {
                    self.leave(Ending::CallerHungUp);
                }
                return;
            }
        };
        self.events.push_back(match message {
            ClientMessage::Audio { samples, .. } => CallerEvent::Audio(samples),
            ClientMessage::Commit => CallerEvent::Commit,
            ClientMessage::Text(text) => CallerEvent::Text(text),
            ClientMessage::Interrupt => CallerEvent::Interrupt,
            ClientMessage::Played(position) => CallerEvent::Played(position),
            ClientMessage::Cleared(position) => {
                // What is sent from now on follows what was played.
                self.position = position.map_or(self.position, |p| p.min(self.position));
                CallerEvent::Cleared(position)
            }
            ClientMessage::ToolResult { call_id, output } => CallerEvent::ToolResult { call_id, output },
            ClientMessage::End => return self.leave(Ending::CallerHungUp),
            ClientMessage::Init(_) => return,
        });
    }

    fn leave(&mut self, ending: Ending) {
        if !self.left {
            self.left = true;
            self.events.push_back(CallerEvent::Gone(ending));
        }
    }

    fn poll_link(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(link) = &mut self.link else { return Poll::Pending };
        let _ = link.poll_write(context);
        if link.broken {
            self.lose();
            return Poll::Ready(());
        }
        let frame = match link.socket.poll_next_unpin(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(None | Some(Err(_))) => {
                self.lose();
                return Poll::Ready(());
            }
        };
        self.heard_at = Instant::now();
        match frame {
            Message::Text(text) => self.take(&Frame::Text(text.as_str().to_owned())),
            Message::Binary(bytes) => self.take(&Frame::Binary(bytes)),
            // A client that says goodbye without `end` may only be reloading its page.
            Message::Close(_) => self.lose(),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => link.unflushed = true,
        }
        Poll::Ready(())
    }
}

impl Caller for Browser {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<CallerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            if self.left {
                return Poll::Pending;
            }
            if let Poll::Ready(Some(back)) = self.door.returns.poll_recv(context) {
                if self.lost.is_none() {
                    // The old connection just does not know yet that it is gone.
                    self.events.push_back(CallerEvent::Away);
                }
                self.lost = None;
                self.heard_at = Instant::now();
                self.position = back.played.map_or(self.position, |played| played.min(self.position));
                self.link = Some(back.link);
                self.ready();
                self.events.push_back(CallerEvent::Back(back.played));
                continue;
            }
            if let Poll::Ready(Some(message)) = self.outbox.poll_recv(context) {
                self.tell_for_application(&message);
                continue;
            }
            if let Some(lost) = &mut self.lost
                && lost.as_mut().poll(context).is_ready()
            {
                self.leave(Ending::ConnectionLost);
                continue;
            }
            if self.ping.poll_tick(context).is_ready() {
                if self.link.is_some() && self.heard_at.elapsed() >= SILENCE {
                    self.lose();
                } else if let Some(link) = &mut self.link {
                    link.push(Message::Ping(tungstenite::Bytes::new()));
                }
                continue;
            }
            if self.poll_link(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn send(&mut self, command: CallerCommand) {
        if matches!(command, CallerCommand::Ending(_)) {
            while let Ok(message) = self.outbox.try_recv() {
                self.tell_for_application(&message);
            }
            let ours = matches!(command, CallerCommand::Ending(Ending::AgentEnded | Ending::CallerHungUp));
            if self.said_goodbye && ours {
                return;
            }
        }
        let message = match command {
            CallerCommand::Audio(samples) => {
                let (sequence, position) = (self.sequence, self.position);
                self.sequence = self.sequence.wrapping_add(1);
                self.position += samples.len() as u64;
                ServerMessage::Audio { samples, sequence, position }
            }
            // Clients tell what they have played by themselves.
            CallerCommand::Mark(_) | CallerCommand::Measured(_) => return,
            CallerCommand::Clear => ServerMessage::Clear,
            CallerCommand::Show(text) => ServerMessage::TextChunk(text),
            CallerCommand::Transcript { text, is_final } => ServerMessage::Transcript { text, is_final },
            CallerCommand::Tool { call_id, name, arguments } => {
                ServerMessage::ToolCall { call_id, name, args: arguments }
            }
            CallerCommand::AnswerOver { interrupted } => ServerMessage::GenerationEnd { interrupted },
            CallerCommand::Ending(Ending::HandedOver) => ServerMessage::Reconnect { after_ms: 1_000 },
            CallerCommand::Ending(Ending::UpstreamFailed | Ending::Crashed) => {
                ServerMessage::Error(ProtocolError {
                    code: Code::ProcessingError,
                    message: "no answer can be given at the moment; try again in a minute".into(),
                })
            }
            CallerCommand::Ending(Ending::AgentEnded) => {
                ServerMessage::ExitConvo { reason: "the conversation is over".into(), cooldown_seconds: None }
            }
            CallerCommand::Ending(_) => ServerMessage::Sync { success: true, version: None },
        };
        self.tell(&message);
    }

    fn close(mut self: Box<Self>, ending: Ending, limit: Duration) -> BoxFuture<'static, ()> {
        let (code, reason) = match ending {
            Ending::HandedOver => (1012, "the server restarts; come back"),
            Ending::UpstreamFailed | Ending::Crashed => (1011, "no answer can be given"),
            Ending::Refused => (1008, "refused"),
            _ => (1000, "the conversation is over"),
        };
        match self.link.take() {
            Some(link) => Box::pin(async move { link.close(code, reason, limit).await }),
            None => Box::pin(std::future::ready(())),
        }
    }
}
