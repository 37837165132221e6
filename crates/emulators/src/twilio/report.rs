//! What a call leaves behind, and what it tells while it runs.

use std::path::Path;

use serde::Serialize;

use super::Error;
use super::twiml::Problem;
use crate::speech::HeardWord;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// The caller's script ended (or dropped the connection).
    HungUpByCaller,
    /// The TwiML ran out of verbs, or said `<Hangup/>`.
    EndedByServer,
    /// `<Dial>`: the caller talks to someone else now.
    Forwarded {
        /// The number dialled.
        to: String,
    },
    /// `<Reject>`: never answered.
    Rejected,
    /// Twilio would say "an application error has occurred".
    ApplicationError {
        /// Twilio's error code.
        code: u32,
        /// What went wrong and what to change.
        message: String,
    },
    /// The longest permitted duration was reached.
    Timeout,
}

/// How many messages of each kind the server sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounts {
    /// `media`.
    pub media: u64,
    /// `mark`.
    pub mark: u64,
    /// `clear`.
    pub clear: u64,
}

/// Something that Twilio would put in the error log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Twilio's error code.
    pub code: u32,
    /// Milliseconds since the call was answered.
    pub at_ms: u32,
    /// What is wrong and what to change.
    pub message: String,
    /// The message came after `stop`, when the call was already over.
    pub sent_after_stop: bool,
}

/// One `<Connect><Stream>`. Times are milliseconds since the call was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// The URL in the TwiML.
    pub url: String,
    /// `MZ` and 32 hexadecimal digits.
    pub stream_sid: String,
    /// What `start.customParameters` carried.
    pub parameters: Vec<(String, String)>,
    /// When the WebSocket was open; none when it could not be opened (see `violations`).
    pub opened_at_ms: Option<u32>,
    /// When it closed.
    pub closed_at_ms: Option<u32>,
    /// The server's close code, 1006 when the connection ended without one; none when we closed.
    pub close_code: Option<u16>,
    /// When the caller first heard sound from this stream.
    pub first_audio_ms: Option<u32>,
    /// `media` messages sent.
    pub frames_sent: u64,
    /// `media` messages dropped because the server did not read (31930).
    pub frames_dropped: u64,
    /// `media` messages received.
    pub messages_received: MessageCounts,
    /// Audio bytes received.
    pub media_bytes: u64,
    /// What the server did wrong, the first 100.
    pub violations: Vec<Violation>,
}

impl StreamReport {
    pub(crate) fn violate(&mut self, at_ms: u32, problem: Problem, sent_after_stop: bool) -> bool {
        let room = self.violations.len() < 100;
        if room {
            let Problem { code, message } = problem;
            self.violations.push(Violation { code, at_ms, message, sent_after_stop });
        }
        room
    }
}

/// Everything about one call. Times are milliseconds since it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct CallReport {
    /// `CA` and 32 hexadecimal digits.
    pub call_sid: String,
    /// From the first webhook request to its answer.
    pub ring_ms: u32,
    /// How long the call lasted.
    pub duration_ms: u32,
    /// The streams in order.
    pub streams: Vec<StreamReport>,
    /// The TwiML documents in order, as received.
    pub twiml: Vec<String>,
    /// Schema warnings of the TwiML, and verbs that failed without ending the call.
    pub warnings: Vec<Problem>,
    /// The words that the caller heard, decoded from the audio itself.
    pub heard_words: Vec<HeardWord>,
    /// What the caller said, with the time of the first sound.
    pub said: Vec<(u32, String)>,
    /// What `<Say>` announced.
    pub announced: Vec<(u32, String)>,
    /// Answer → first sound of the agent.
    pub greeting_ms: Option<u32>,
    /// End of caller speech → first sound of the agent, per reply.
    pub reply_latencies_ms: Vec<u32>,
    /// Start of caller speech over the agent → end of the agent's sound.
    pub barge_in_stops_ms: Vec<u32>,
    /// Waits of the script that timed out.
    pub unanswered: u32,
    /// Silence between one stream and the next.
    pub gaps_ms: Vec<u32>,
    /// How it ended.
    pub outcome: Outcome,
    /// 8 kHz stereo, interleaved: left the caller, right what the caller heard.
    #[serde(skip)]
    pub recording: Vec<i16>,
    /// With `keep_ulaw`: every byte of caller audio put on the streams, in order.
    #[serde(skip)]
    pub sent_ulaw: Vec<u8>,
    /// With `keep_ulaw`: every byte of audio received in `media`, in order.
    #[serde(skip)]
    pub received_ulaw: Vec<u8>,
}

impl CallReport {
    /// Everything that Twilio would have complained about, over all streams.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.streams.iter().flat_map(|stream| &stream.violations)
    }

    /// The caller's ear alone: 8 kHz, from the answer on, silence included.
    pub fn heard(&self) -> Vec<i16> {
        self.recording.iter().skip(1).step_by(2).copied().collect()
    }

    /// The words heard, as one line.
    pub fn heard_text(&self) -> String {
        self.heard_words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Writes the recording as a 16-bit stereo WAV file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_recording(&self, path: &Path) -> Result<(), Error> {
        super::wav::write_stereo(path, &self.recording)
    }
}

/// What happens on the call while it runs. Times are milliseconds since the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CallEvent {
    /// The webhook is being asked.
    Ringing {
        /// `CA…`.
        call_sid: String,
    },
    /// The webhook has answered.
    Answered {
        /// How long it took.
        ring_ms: u32,
    },
    /// A stream is open.
    StreamOpened {
        /// When.
        at_ms: u32,
        /// Where.
        url: String,
    },
    /// A stream was closed by the far side.
    StreamClosed {
        /// When.
        at_ms: u32,
        /// The close code, if any.
        code: Option<u16>,
    },
    /// The caller starts to say this.
    CallerSays {
        /// When.
        at_ms: u32,
        /// The text, or a description of the audio.
        text: String,
    },
    /// The caller has heard this word.
    AgentWord {
        /// When it began.
        at_ms: u32,
        /// The word.
        text: String,
    },
    /// The agent's sound begins after a pause.
    AgentSpeaks {
        /// When.
        at_ms: u32,
        /// Since the end of the caller's words, when this is a reply.
        latency_ms: Option<u32>,
    },
    /// `<Say>` announces this.
    Announced {
        /// When.
        at_ms: u32,
        /// The text.
        text: String,
    },
    /// Something that Twilio would log as an error or warning.
    Warning {
        /// When.
        at_ms: u32,
        /// The complaint.
        problem: Problem,
    },
    /// The call is over.
    Ended {
        /// When.
        at_ms: u32,
        /// How.
        outcome: Outcome,
    },
}
