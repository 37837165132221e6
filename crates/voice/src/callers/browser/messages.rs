//! The protocol of `/ws/voice`, read and written without a socket.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Framing;

/// Most samples in one message: a second at 48 kHz.
const MOST_SAMPLES: usize = 48_000;
/// Longest text of one message, in characters.
const LONGEST_TEXT: usize = 2_000;
/// Rates of PCM that may be asked for.
pub const RATES: [u32; 3] = [8_000, 16_000, 24_000];
/// Rate unless another is asked for.
pub const DEFAULT_RATE: u32 = 16_000;

const KIND_AUDIO: u8 = 1;
const KIND_PLAYED: u8 = 2;
const KIND_CLEAR: u8 = 3;
const KIND_CLEARED: u8 = 4;
/// 16-bit little-endian samples.
const CODEC_PCM16: u8 = 0;
/// Bytes before the samples: kind, codec, two of zero, sequence number, position.
const HEADER: usize = 16;

/// A WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Text(String),
    /// Audio and what concerns it.
    Binary(Bytes),
}

/// Whether somebody speaks or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// They write.
    Text,
    /// They speak.
    #[default]
    Voice,
}

impl Medium {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Voice => "voice",
        }
    }
}

/// Who speaks and who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub struct Mode {
    /// The person.
    #[serde(default)]
    pub input: Medium,
    /// The agent.
    #[serde(default)]
    pub output: Medium,
}

/// The first message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Init {
    /// The session that was started over REST.
    pub session_id: String,
    /// Unset: the session's own mode.
    pub mode: Option<Mode>,
    /// Proves that the session is theirs.
    pub session_token: Option<String>,
    /// Samples a second, both ways; unset: [`DEFAULT_RATE`].
    pub sample_rate: Option<u32>,
    /// Goes on with a conversation whose connection was lost.
    pub resume_token: Option<String>,
    /// With it: samples that were played in all.
    pub played: Option<u64>,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Who they are.
    Init(Init),
    /// Their voice.
    Audio {
        /// Samples.
        samples: Vec<i16>,
        /// Counts messages; only in binary framing.
        sequence: Option<u32>,
        /// Samples before these; only in binary framing.
        position: Option<u64>,
    },
    /// Their utterance is over.
    Commit,
    /// They write.
    Text(String),
    /// The agent shall stop.
    Interrupt,
    /// They leave.
    End,
    /// So many samples were played, dropped ones not counted.
    Played(u64),
    /// What was not played was dropped, after so many played samples.
    Cleared(Option<u64>),
    /// A tool that runs at the client has answered.
    ToolResult {
        /// Of which call.
        call_id: String,
        /// Its answer.
        output: Value,
    },
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Not JSON, or not an object with a `type`.
    InvalidMessage,
    /// A type that nobody knows.
    UnknownMessage,
    /// Fields that do not fit.
    MessageError,
    /// Something came before `init`.
    NotInitialized,
    /// A second `init`.
    AlreadyInitialized,
    /// Another session than the address names.
    SessionMismatch,
    /// No token, or a wrong one.
    Unauthorized,
    /// Voice where text was agreed, or the other way round.
    ModeMismatch,
    /// Audio that is none.
    AudioError,
    /// Text that cannot be taken.
    TextError,
    /// The session could not be set up.
    InitFailed,
    /// Too many messages.
    RateLimit,
    /// Hearing fails.
    SttError,
    /// Speaking fails.
    TtsError,
    /// Answering fails.
    ProcessingError,
    /// The session could not be ended in order.
    EndFailed,
}

impl Code {
    /// As the protocol writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMessage => "INVALID_MESSAGE",
            Self::UnknownMessage => "UNKNOWN_MESSAGE",
            Self::MessageError => "MESSAGE_ERROR",
            Self::NotInitialized => "NOT_INITIALIZED",
            Self::AlreadyInitialized => "ALREADY_INITIALIZED",
            Self::SessionMismatch => "SESSION_MISMATCH",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::ModeMismatch => "MODE_MISMATCH",
            Self::AudioError => "AUDIO_ERROR",
            Self::TextError => "TEXT_ERROR",
            Self::InitFailed => "INIT_FAILED",
            Self::RateLimit => "RATE_LIMIT",
            Self::SttError => "STT_ERROR",
            Self::TtsError => "TTS_ERROR",
            Self::ProcessingError => "PROCESSING_ERROR",
            Self::EndFailed => "END_FAILED",
        }
    }
}

/// A message that cannot be taken; the connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ProtocolError {
    /// What kind.
    pub code: Code,
    /// What to do about it.
    pub message: String,
}

fn refused<T>(code: Code, message: impl Into<String>) -> Result<T, ProtocolError> {
    Err(ProtocolError { code, message: message.into() })
}

/// Reads a message. Whatever comes, it is a message or an error, never a panic.
///
/// # Errors
/// [`ProtocolError`], to be told to the client.
pub fn read(frame: &Frame) -> Result<ClientMessage, ProtocolError> {
    match frame {
        Frame::Text(text) => read_text(text),
        Frame::Binary(bytes) => read_binary(bytes),
    }
}

fn read_text(text: &str) -> Result<ClientMessage, ProtocolError> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(text) else {
        return refused(Code::InvalidMessage, "send a JSON object with a type");
    };
    let Some(Value::String(kind)) = fields.remove("type") else {
        return refused(Code::InvalidMessage, "the message has no type");
    };
    match kind.as_str() {
        "init" => read_init(fields),
        "audio" => {
            let Some(data) = fields.get("data").and_then(Value::as_str) else {
                return refused(Code::AudioError, "audio has no data: send base64 of 16-bit samples");
            };
            let Ok(bytes) = base64_simd::STANDARD.decode_to_vec(data) else {
                return refused(Code::AudioError, "the data is not base64");
            };
            Ok(ClientMessage::Audio { samples: samples(&bytes)?, sequence: None, position: None })
        }
        "commit" => Ok(ClientMessage::Commit),
        "text" => read_words(&fields, "content"),
        "text_input" => read_words(&fields, "text"),
        "interrupt" => Ok(ClientMessage::Interrupt),
        "end" => Ok(ClientMessage::End),
        "played" => match fields.get("samples").and_then(Value::as_u64) {
            Some(position) => Ok(ClientMessage::Played(position)),
            None => refused(Code::MessageError, "played needs samples, a number"),
        },
        "cleared" => Ok(ClientMessage::Cleared(fields.get("samples").and_then(Value::as_u64))),
        "tool_result" => {
            let Some(call_id) = fields.get("call_id").and_then(Value::as_str).map(str::to_owned) else {
                return refused(Code::MessageError, "tool_result needs the call_id of the tool_call");
            };
            Ok(ClientMessage::ToolResult { call_id, output: fields.remove("output").unwrap_or(Value::Null) })
        }
        _ => {
            let kind: String = kind.chars().take(40).collect();
            refused(Code::UnknownMessage, format!("`{kind}` is no type of message"))
        }
    }
}

fn read_init(fields: Map<String, Value>) -> Result<ClientMessage, ProtocolError> {
    let init: Init = match serde_json::from_value(Value::Object(fields)) {
        Ok(init) => init,
        Err(error) => return refused(Code::MessageError, format!("init cannot be read: {error}")),
    };
    if let Some(rate) = init.sample_rate
        && !RATES.contains(&rate)
    {
        return refused(Code::MessageError, format!("sample_rate must be one of {RATES:?}"));
    }
    Ok(ClientMessage::Init(init))
}

fn read_words(fields: &Map<String, Value>, field: &str) -> Result<ClientMessage, ProtocolError> {
    let text = fields.get(field).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return refused(Code::TextError, format!("{field} is empty"));
    }
    if text.chars().count() > LONGEST_TEXT {
        return refused(Code::TextError, format!("{field} is longer than {LONGEST_TEXT} characters"));
    }
    Ok(ClientMessage::Text(text.to_owned()))
}

fn samples(bytes: &[u8]) -> Result<Vec<i16>, ProtocolError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) || bytes.len() / 2 > MOST_SAMPLES {
        return refused(
            Code::AudioError,
            format!("audio must be 1 to {MOST_SAMPLES} whole 16-bit samples; this is {} bytes", bytes.len()),
        );
    }
    Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn read_binary(bytes: &[u8]) -> Result<ClientMessage, ProtocolError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return refused(Code::InvalidMessage, format!("binary messages begin with {HEADER} bytes of header"));
    };
    let number = |from: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&header[from..from + 8]);
        u64::from_le_bytes(eight)
    };
    let position = number(8);
    let sequence = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    match header[0] {
        KIND_AUDIO if header[1] != CODEC_PCM16 => {
            refused(Code::AudioError, format!("codec {} is not known: send 0, 16-bit PCM", header[1]))
        }
        KIND_AUDIO => Ok(ClientMessage::Audio {
            samples: samples(&bytes[HEADER..])?,
            sequence: Some(sequence),
            position: Some(position),
        }),
        KIND_PLAYED => Ok(ClientMessage::Played(position)),
        KIND_CLEARED => Ok(ClientMessage::Cleared(Some(position))),
        kind => refused(Code::UnknownMessage, format!("binary kind {kind} is not known")),
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// It may begin.
    Ready(Ready),
    /// The person's words.
    Transcript {
        /// The words.
        text: String,
        /// Whether they will not change.
        is_final: bool,
    },
    /// The agent's words, as they are written, without stage directions.
    TextChunk(String),
    /// The agent's voice.
    Audio {
        /// Samples.
        samples: Vec<i16>,
        /// Counts messages.
        sequence: u32,
        /// Samples that were sent before and not dropped.
        position: u64,
    },
    /// Drop what was not played, and say `cleared`.
    Clear,
    /// A tool is run.
    ToolCall {
        /// Its id, for `tool_result`.
        call_id: String,
        /// Its name.
        name: String,
        /// Its arguments.
        args: Map<String, Value>,
    },
    /// What the character's mind did.
    MindActivity {
        /// Tools with their arguments and outcomes.
        tools_called: Vec<Value>,
        /// How long it took.
        duration_ms: u64,
        /// Whether it came to an end.
        completed: bool,
    },
    /// The answer is over, follow-ups included.
    GenerationEnd {
        /// Whether the person cut in.
        interrupted: bool,
    },
    /// The character leaves.
    ExitConvo {
        /// Why.
        reason: String,
        /// Until it talks again.
        cooldown_seconds: Option<u64>,
    },
    /// The session is stored.
    Sync {
        /// Whether it worked.
        success: bool,
        /// Version of what was stored.
        version: Option<u64>,
    },
    /// The server stops: come back with the resume token.
    Reconnect {
        /// After this long.
        after_ms: u64,
    },
    /// Something is wrong.
    Error(ProtocolError),
}

/// The answer to `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The session.
    pub session_id: String,
    /// Who answers.
    pub npc_name: String,
    /// Whose voice: provider, voice id, and speed in hundredths.
    pub voice: (String, String, u32),
    /// What was agreed.
    pub mode: Mode,
    /// Samples a second, both ways.
    pub sample_rate: u32,
    /// To come back with when the connection is lost.
    pub resume_token: String,
    /// Samples of the agent that were sent so far, when a conversation goes on.
    pub position: u64,
}

/// Writes a message.
pub fn write(message: &ServerMessage, framing: Framing) -> Frame {
    let value = match message {
        ServerMessage::Ready(ready) => ready_json(ready, framing),
        ServerMessage::Transcript { text, is_final } => {
            json!({"type": "transcript", "text": text, "is_final": is_final})
        }
        ServerMessage::TextChunk(text) => json!({"type": "text_chunk", "text": text}),
        ServerMessage::Audio { samples, sequence, position } => {
            return write_audio(samples, *sequence, *position, framing);
        }
        ServerMessage::Clear if framing == Framing::Binary => {
            return Frame::Binary(header(KIND_CLEAR, 0, 0).freeze());
        }
        ServerMessage::Clear => json!({"type": "clear"}),
        ServerMessage::ToolCall { call_id, name, args } => {
            json!({"type": "tool_call", "call_id": call_id, "name": name, "args": args})
        }
        ServerMessage::MindActivity { tools_called, duration_ms, completed } => json!({
            "type": "mind_activity", "tools_called": tools_called, "duration_ms": duration_ms, "completed": completed
        }),
        ServerMessage::GenerationEnd { interrupted } => {
            json!({"type": "generation_end", "interrupted": interrupted})
        }
        ServerMessage::ExitConvo { reason, cooldown_seconds } => {
            let mut value = json!({"type": "exit_convo", "reason": reason});
            if let Some(seconds) = cooldown_seconds {
                value["cooldown_seconds"] = (*seconds).into();
            }
            value
        }
        ServerMessage::Sync { success, version } => {
            json!({"type": "sync", "success": success, "version": version})
        }
        ServerMessage::Reconnect { after_ms } => json!({"type": "reconnect", "after_ms": after_ms}),
        ServerMessage::Error(error) => {
            json!({"type": "error", "code": error.code.as_str(), "message": error.message})
        }
    };
    Frame::Text(value.to_string())
}

fn ready_json(ready: &Ready, framing: Framing) -> Value {
    let (provider, voice_id, speed) = &ready.voice;
    json!({
        "type": "ready",
        "session_id": ready.session_id,
        "npc_name": ready.npc_name,
        "voice_config": {"provider": provider, "voice_id": voice_id, "speed": f64::from(*speed) / 100.0},
        "mode": {"input": ready.mode.input.name(), "output": ready.mode.output.name()},
        "protocol_version": "1",
        "audio_format": {
            "input": {"sampleRate": ready.sample_rate, "encoding": "linear16", "channels": 1},
            "output": {"sampleRate": ready.sample_rate, "encoding": "pcm_s16le", "channels": 1},
        },
        "framing": match framing { Framing::Json => "json", Framing::Binary => "binary" },
        "resume_token": ready.resume_token,
        "position": ready.position,
    })
}

fn header(kind: u8, sequence: u32, position: u64) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEADER);
    bytes.put_slice(&[kind, CODEC_PCM16, 0, 0]);
    bytes.put_u32_le(sequence);
    bytes.put_u64_le(position);
    bytes
}

fn write_audio(samples: &[i16], sequence: u32, position: u64, framing: Framing) -> Frame {
    let pcm = samples.iter().flat_map(|sample| sample.to_le_bytes());
    match framing {
        Framing::Binary => {
            let mut bytes = header(KIND_AUDIO, sequence, position);
            bytes.reserve(samples.len() * 2);
            bytes.extend(pcm);
            Frame::Binary(bytes.freeze())
        }
        Framing::Json => {
            let data = base64_simd::STANDARD.encode_to_string(pcm.collect::<Vec<u8>>());
            // Base64 needs no escaping.
            Frame::Text(format!(r#"{{"type":"audio_chunk","data":"{data}","position":{position}}}"#))
        }
    }
}

/// Which messages are in place, after `init` and in the agreed mode. Pure.
#[derive(Debug, Clone)]
pub struct Manners {
    mode: Mode,
    last_sequence: Option<u32>,
}

impl Manners {
    /// After `init`.
    pub fn new(mode: Mode) -> Self {
        Self { mode, last_sequence: None }
    }

    /// Passes a message on, refuses it, or drops audio that came before (`None`), as after a lost connection.
    ///
    /// # Errors
    /// [`ProtocolError`], to be told to the client.
    pub fn check(&mut self, message: ClientMessage) -> Result<Option<ClientMessage>, ProtocolError> {
        match &message {
            ClientMessage::Init(_) => refused(Code::AlreadyInitialized, "init comes once"),
            ClientMessage::Audio { .. } | ClientMessage::Commit if self.mode.input == Medium::Text => {
                refused(Code::ModeMismatch, "the mode's input is text: send text, or begin again with voice")
            }
            ClientMessage::Audio { sequence: Some(sequence), .. } => {
                // Numbers wrap after years; what is behind by less than half of them came before.
                let behind = |last: u32| {
                    sequence.wrapping_sub(last) == 0 || sequence.wrapping_sub(last) > u32::MAX / 2
                };
                if self.last_sequence.is_some_and(behind) {
                    return Ok(None);
                }
                self.last_sequence = Some(*sequence);
                Ok(Some(message))
            }
            _ => Ok(Some(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(message: &str) -> Result<ClientMessage, ProtocolError> {
        read(&Frame::Text(message.into()))
    }

    #[test]
    fn every_message_of_the_protocol_is_read() {
        let init = text(r#"{"type":"init","session_id":"s","mode":{"input":"text"},"session_token":"t"}"#);
        let Ok(ClientMessage::Init(init)) = init else { panic!("{init:?}") };
        assert_eq!(init.mode, Some(Mode { input: Medium::Text, output: Medium::Voice }));
        for (message, expected) in [
            (r#"{"type":"commit"}"#, ClientMessage::Commit),
            (r#"{"type":"text","content":" hi "}"#, ClientMessage::Text("hi".into())),
            (r#"{"type":"text_input","text":"hi"}"#, ClientMessage::Text("hi".into())),
            (r#"{"type":"interrupt"}"#, ClientMessage::Interrupt),
            (r#"{"type":"end"}"#, ClientMessage::End),
            (r#"{"type":"played","samples":5}"#, ClientMessage::Played(5)),
            (r#"{"type":"cleared"}"#, ClientMessage::Cleared(None)),
            (
                r#"{"type":"audio","data":"AQD//w=="}"#,
                ClientMessage::Audio { samples: vec![1, -1], sequence: None, position: None },
            ),
            (
                r#"{"type":"tool_result","call_id":"c","output":{"a":1}}"#,
                ClientMessage::ToolResult { call_id: "c".into(), output: json!({"a": 1}) },
            ),
        ] {
            assert_eq!(text(message), Ok(expected), "{message}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, code) in [
            ("", Code::InvalidMessage),
            ("[]", Code::InvalidMessage),
            ("{}", Code::InvalidMessage),
            (r#"{"type":"dance"}"#, Code::UnknownMessage),
            (r#"{"type":"init"}"#, Code::MessageError),
            (r#"{"type":"init","session_id":"s","sample_rate":11025}"#, Code::MessageError),
            (r#"{"type":"audio"}"#, Code::AudioError),
            (r#"{"type":"audio","data":"!"}"#, Code::AudioError),
            (r#"{"type":"audio","data":"AQ=="}"#, Code::AudioError),
            (r#"{"type":"audio","data":""}"#, Code::AudioError),
            (r#"{"type":"text","content":"  "}"#, Code::TextError),
            (r#"{"type":"played"}"#, Code::MessageError),
        ] {
            assert_eq!(text(message).unwrap_err().code, code, "{message}");
        }
        for (bytes, code) in [
            (vec![1, 0, 0], Code::InvalidMessage),
            (vec![9; 16], Code::UnknownMessage),
            ([vec![1, 7], vec![0; 16]].concat(), Code::AudioError),
            ([vec![1, 0], vec![0; 15]].concat(), Code::AudioError),
        ] {
            assert_eq!(read(&Frame::Binary(bytes.into())).unwrap_err().code, code);
        }
    }

    #[test]
    fn ready_tells_the_formats_that_are_really_used() {
        let ready = Ready {
            session_id: "s".into(),
            npc_name: "Ada".into(),
            voice: ("cartesia".into(), "v".into(), 120),
            mode: Mode::default(),
            sample_rate: 16_000,
            resume_token: "r".into(),
            position: 0,
        };
        let Frame::Text(text) = write(&ServerMessage::Ready(ready), Framing::Json) else {
            panic!("not text")
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["voice_config"], json!({"provider": "cartesia", "voice_id": "v", "speed": 1.2}));
        assert_eq!(
            value["audio_format"]["output"],
            json!({"sampleRate": 16_000, "encoding": "pcm_s16le", "channels": 1})
        );
        assert_eq!(value["protocol_version"], "1");
    }

    #[test]
    fn voice_and_writing_are_kept_apart_and_old_audio_is_dropped() {
        let audio = |n| ClientMessage::Audio { samples: vec![0], sequence: Some(n), position: Some(0) };
        let mut writer = Manners::new(Mode { input: Medium::Text, output: Medium::Voice });
        assert_eq!(writer.check(audio(1)).unwrap_err().code, Code::ModeMismatch);
        assert!(writer.check(ClientMessage::Text("x".into())).unwrap().is_some());
        let mut speaker = Manners::new(Mode::default());
        let passed: Vec<u32> = [1, 2, 2, 1, 5, 4, 6]
            .into_iter()
            .filter(|n| speaker.check(audio(*n)).unwrap().is_some())
            .collect();
        assert_eq!(passed, [1, 2, 5, 6]);
        let mut old = Manners::new(Mode::default());
        assert!(old.check(audio(u32::MAX)).unwrap().is_some() && old.check(audio(0)).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_more_than_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), words in ".{0,200}") {
            let _ = read(&Frame::Binary(bytes.into()));
            let _ = read(&Frame::Text(words.clone()));
            let _ = read(&Frame::Text(json!({"type": "text", "content": words}).to_string()));
        }

        #[test]
        fn json_of_any_shape_is_read_or_refused(kind in "(init|audio|text|played|cleared|tool_result|commit)", field in "(session_id|data|content|samples|mode|call_id|sample_rate)", number in any::<i64>()) {
            for value in [json!(number), json!([number]), json!({"x": number}), json!(null), json!("x"), json!(true)] {
                let _ = read(&Frame::Text(json!({"type": kind, field.as_str(): value}).to_string()));
            }
        }

        #[test]
        fn audio_survives_both_framings(samples in proptest::collection::vec(any::<i16>(), 1..400), sequence in any::<u32>(), position in any::<u64>()) {
            let message = ServerMessage::Audio { samples: samples.clone(), sequence, position };
            let frame = write(&message, Framing::Binary);
            // Both directions have the same frames.
            prop_assert_eq!(read(&frame), Ok(ClientMessage::Audio { samples: samples.clone(), sequence: Some(sequence), position: Some(position) }));
            let Frame::Text(text) = write(&message, Framing::Json) else { panic!("not text") };
            let value: Value = serde_json::from_str(&text).unwrap();
            let again = json!({"type": "audio", "data": value["data"]}).to_string();
            prop_assert_eq!(read(&Frame::Text(again)), Ok(ClientMessage::Audio { samples, sequence: None, position: None }));
        }
    }
}
