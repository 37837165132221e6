//! A strict emulation of Twilio for one inbound phone call, and for text messages ([`messages`]).
//!
//! [`Caller`] dials a number: it posts the signed voice webhook, acts out the TwiML, opens the media
//! stream, speaks 20 ms frames by a true clock, plays what comes back at 8 kHz, echoes marks when
//! their audio has played, and reports what the caller heard and what Twilio would have complained
//! about. It shares no code with the server side that it tests.
//!
//! Facts: Twilio's documentation of Voice webhooks, TwiML, Media Streams and request validation.
//!
//! ```no_run
//! use longhouse_emulators::twilio::{CallOptions, Caller, Step};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = CallOptions::new("http://127.0.0.1:8080/twilio/voice".parse()?, "auth token");
//! options.script = vec![Step::reply(), Step::Say("What are your opening hours?".into()), Step::reply()];
//! let report = Caller::new(options).run().await?;
//! println!("{} ms to the greeting; heard: {}", report.greeting_ms.unwrap_or(0), report.heard_text());
//! # Ok(())
//! # }
//! ```

mod call;
pub mod frames;
mod hearing;
mod leg;
mod line;
pub mod messages;
mod playback;
mod report;
mod signature;
pub mod stream;
pub mod twiml;
mod wav;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use url::Url;

pub use report::{CallEvent, CallReport, MessageCounts, Outcome, StreamReport, Violation};
pub use signature::sign;
pub use wav::read_8k;

use crate::speech::Speaker;
use line::Watcher;

/// What can keep a call from being made. What goes wrong *in* a call is in its [`CallReport`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error("the call cannot be made: {0}")]
    Options(String),
    /// The stream's server answered the upgrade with a plain HTTP answer.
    #[error(
        "{url} refused the WebSocket with HTTP {status}: check the path and the signature's auth token ({body})"
    )]
    Refused {
        /// Where it connected to.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// No answer at all.
    #[error("{url} cannot be reached ({reason}): is the server running, and is this its address?")]
    Unreachable {
        /// Where it connected to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A stream's connection broke.
    #[error("the stream's connection is gone ({0}): open a new one")]
    Lost(String),
    /// Not a sound file that can be used.
    #[error(
        "the sound cannot be used ({0}): give a 16-bit WAV file, 8 to 48 kHz, mono or stereo, up to ten minutes"
    )]
    Wav(String),
    /// The recording cannot be stored.
    #[error("the recording cannot be written to {path} ({reason}): check the folder and the free space")]
    Recording {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// One step of the caller's script. Steps run one after the other, across streams.
#[derive(Debug, Clone)]
pub enum Step {
    /// Says a text.
    Say(String),
    /// Plays 8 kHz samples.
    Play(Vec<i16>),
    /// Plays exactly these mu-law bytes.
    PlayUlaw(Bytes),
    /// Says nothing for a while.
    Wait(Duration),
    /// Waits until the agent has begun to speak, since the caller's last words or the last wait
    /// that ended, and has then been quiet.
    WaitForReply {
        /// For how long it must be quiet.
        quiet_ms: u32,
        /// Goes on after this, and counts the wait as unanswered.
        timeout: Duration,
    },
    /// Waits until the agent begins to speak.
    WaitForSpeech {
        /// Goes on after this, and counts the wait as unanswered.
        timeout: Duration,
    },
    /// Waits until the agent has been heard for this long: the next step interrupts it.
    InterruptAfter {
        /// Milliseconds since the agent's speech began.
        heard_ms: u32,
    },
    /// Presses a key: 0-9, `*`, `#` or A-D.
    Dtmf(char),
    /// Hangs up.
    Hangup,
    /// Drops the connection without a word: a TCP reset.
    AbruptDrop,
}

impl Step {
    /// Waits for a reply as a patient person does: one second of quiet, half a minute at most.
    pub fn reply() -> Self {
        Self::WaitForReply { quiet_ms: 1000, timeout: Duration::from_secs(30) }
    }
}

/// What the network does to the caller's audio, repeatable by its seed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// The same seed gives the same faults.
    pub seed: u64,
    /// Each packet is held for up to this long; order is kept, so packets arrive in bursts.
    pub jitter_ms: u32,
    /// The share of packets that never arrive, 0 to 1: their timestamps are missing.
    pub loss: f64,
}

/// What to call, as whom, and what to say.
#[derive(Clone)]
pub struct CallOptions {
    /// The number's voice URL, as reachable from here.
    pub webhook: Url,
    /// The voice URL as Twilio would call it, when that differs (a proxy, a tunnel): signed instead
    /// of `webhook`. Streams and redirects on its origin are connected to at `webhook`'s.
    pub public_url: Option<Url>,
    /// `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// Signs the webhook and the stream.
    pub auth_token: String,
    /// The caller's number.
    pub from: String,
    /// The number called.
    pub to: String,
    /// More webhook parameters: Twilio adds some without notice.
    pub extra_parameters: Vec<(String, String)>,
    /// What the caller does.
    pub script: Vec<Step>,
    /// After the script: stay until the far side ends the call, rather than hang up.
    pub stay_on_line: bool,
    /// Ends the call with [`Outcome::Timeout`].
    pub max_duration: Duration,
    /// How much is recorded; zero records nothing.
    pub record_limit: Duration,
    /// Decode the words heard (costs some CPU per call).
    pub captions: bool,
    /// Keep the exact bytes sent and received.
    pub keep_ulaw: bool,
    /// How long refused connections of the webhook are tried again.
    pub webhook_patience: Duration,
    /// Network faults.
    pub faults: Faults,
    /// Speaks the script and `<Say>`.
    pub speaker: Speaker,
}

impl CallOptions {
    /// A call from +15550199 to +15550100 that says nothing, with everything recorded.
    pub fn new(webhook: Url, auth_token: impl Into<String>) -> Self {
        Self {
            webhook,
            public_url: None,
            account_sid: format!("AC{:032x}", 0x1009_4005),
            auth_token: auth_token.into(),
            from: "+15550199".to_owned(),
            to: "+15550100".to_owned(),
            extra_parameters: Vec::new(),
            script: Vec::new(),
            stay_on_line: false,
            max_duration: Duration::from_secs(10 * 60),
            record_limit: Duration::from_secs(10 * 60),
            captions: true,
            keep_ulaw: false,
            webhook_patience: Duration::from_secs(10),
            faults: Faults::default(),
            speaker: Speaker::detect(),
        }
    }
}

impl std::fmt::Debug for CallOptions {
    /// Without the auth token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallOptions")
            .field("webhook", &self.webhook.as_str())
            .field("from", &self.from)
            .field("to", &self.to)
            .field("steps", &self.script.len())
            .finish_non_exhaustive()
    }
}

/// One phone call, not yet made.
#[derive(Debug)]
pub struct Caller {
    options: CallOptions,
    watcher: Option<mpsc::Sender<CallEvent>>,
}

impl Caller {
    /// Prepares a call.
    pub fn new(options: CallOptions) -> Self {
        Self { options, watcher: None }
    }

    /// What happens while the call runs. At most 1,024 events wait: a slower reader misses some,
    /// the report has everything.
    pub fn events(&mut self) -> mpsc::Receiver<CallEvent> {
        let (sender, receiver) = mpsc::channel(1024);
        self.watcher = Some(sender);
        receiver
    }

    /// Makes the call and returns when it is over.
    ///
    /// # Errors
    /// [`Error::Options`] when it cannot be made. A server that misbehaves is no error: see
    /// [`CallReport::outcome`] and [`CallReport::violations`].
    pub async fn run(self) -> Result<CallReport, Error> {
        call::run(self.options, Watcher(self.watcher)).await
    }
}
