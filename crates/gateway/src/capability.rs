//! What each wire protocol and model can do, as data.

use serde::{Deserialize, Serialize};

use crate::chat::{ChatRequest, Content, ResponseFormat, ToolChoice};
use crate::model::Modality;

/// Wire protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `OpenAI` itself: Responses API, and everything else it has.
    Openai,
    /// Chat completions and friends at any base URL: llama.cpp, Ollama, vLLM, OpenRouter, Groq, xAI.
    OpenaiCompatible,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini `generateContent`.
    Gemini,
    /// Deepgram listen and speak.
    Deepgram,
    /// ElevenLabs speech.
    Elevenlabs,
    /// Cartesia speech.
    Cartesia,
    /// Replicate predictions.
    Replicate,
    /// xAI: chat completions and friends, and its own voice sessions.
    Xai,
    /// Nothing leaves this machine.
    Offline,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Openai,
        Self::OpenaiCompatible,
        Self::Anthropic,
        Self::Gemini,
        Self::Deepgram,
        Self::Elevenlabs,
        Self::Cartesia,
        Self::Replicate,
        Self::Xai,
        Self::Offline,
    ];

    /// As configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OpenaiCompatible => "openai-compatible",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Deepgram => "deepgram",
            Self::Elevenlabs => "elevenlabs",
            Self::Cartesia => "cartesia",
            Self::Replicate => "replicate",
            Self::Xai => "xai",
            Self::Offline => "offline",
        }
    }

    /// Where the vendor is; `None` where only the operator knows.
    #[must_use]
    pub fn base_url(self) -> Option<&'static str> {
        match self {
            Self::Openai => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com/v1beta"),
            Self::Deepgram => Some("https://api.deepgram.com"),
            Self::Elevenlabs => Some("https://api.elevenlabs.io"),
            Self::Cartesia => Some("https://api.cartesia.ai"),
            Self::Replicate => Some("https://api.replicate.com/v1"),
            Self::Xai => Some("https://api.x.ai/v1"),
            Self::OpenaiCompatible => None,
            // Never asked; attempts need one.
            Self::Offline => Some("http://offline.invalid"),
        }
    }

    /// The environment variable in which people keep its key.
    #[must_use]
    pub fn key_variable(self) -> Option<&'static str> {
        match self {
            Self::Openai => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Deepgram => Some("DEEPGRAM_API_KEY"),
            Self::Elevenlabs => Some("ELEVENLABS_API_KEY"),
            Self::Cartesia => Some("CARTESIA_API_KEY"),
            Self::Replicate => Some("REPLICATE_API_TOKEN"),
            Self::Xai => Some("XAI_API_KEY"),
            Self::OpenaiCompatible | Self::Offline => None,
        }
    }

    /// Whether it cannot be asked without a key.
    #[must_use]
    pub fn needs_key(self) -> bool {
        !matches!(self, Self::OpenaiCompatible | Self::Offline)
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(self) -> Capabilities {
        use Modality::{Chat, Embeddings, Images, Moderation, Realtime, Speech, Transcription};
        let none = Capabilities::default();
        let chat = Capabilities {
            streaming: true,
            tools: true,
            parallel_tools: true,
            json: true,
            json_schema: true,
            pictures: true,
            ..none
        };
        match self {
            Self::Openai => Capabilities {
                modalities: &[Chat, Speech, Transcription, Images, Embeddings, Moderation, Realtime],
                documents: true,
                audio: true,
                speech_characters: Some(4_096),
                ..chat
            },
            Self::OpenaiCompatible => Capabilities {
                modalities: &[Chat, Speech, Transcription, Images, Embeddings, Moderation],
                audio: true,
                speech_characters: Some(4_096),
                ..chat
            },
            Self::Anthropic => {
                // No JSON mode without a schema: `json` is met by asking for it in the system prompt.
                Capabilities { modalities: &[Chat], documents: true, ..chat }
            }
            Self::Gemini => {
                let modalities = &[Chat, Images, Embeddings, Realtime];
                Capabilities { modalities, documents: true, audio: true, ..chat }
            }
            Self::Deepgram => {
                Capabilities { modalities: &[Speech, Transcription], speech_characters: Some(2_000), ..none }
            }
            Self::Elevenlabs => {
                Capabilities { modalities: &[Speech, Transcription], speech_characters: Some(5_000), ..none }
            }
            Self::Cartesia => Capabilities { modalities: &[Speech], speech_characters: Some(20_000), ..none },
            Self::Replicate => Capabilities { modalities: &[Images], ..none },
            Self::Xai => Capabilities { modalities: &[Chat, Images, Embeddings, Realtime], ..chat },
            Self::Offline => Capabilities {
                modalities: &[Chat, Speech, Images, Embeddings, Moderation],
                speech_characters: Some(100_000),
                pictures: false,
                ..chat
            },
        }
    }
}

/// What a protocol can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// What it serves.
    pub modalities: &'static [Modality],
    /// Whether answers come as they are written.
    pub streaming: bool,
    /// Whether models call tools.
    pub tools: bool,
    /// Whether they may call several at once.
    pub parallel_tools: bool,
    /// Whether they answer in JSON.
    pub json: bool,
    /// Whether they answer in JSON of a schema.
    pub json_schema: bool,
    /// Whether they see pictures.
    pub pictures: bool,
    /// Whether they hear audio in chats.
    pub audio: bool,
    /// Whether they read PDF documents.
    pub documents: bool,
    /// Most characters spoken by one request; adapters split longer texts.
    pub speech_characters: Option<usize>,
}

impl Capabilities {
    /// The first feature that a chat request needs and this lacks.
    #[must_use]
    pub fn lacks(&self, request: &ChatRequest) -> Option<&'static str> {
        let contents = || {
            request.messages.iter().filter_map(|message| match message {
                crate::chat::Message::User(content) => Some(content),
                _ => None,
            })
        };
        let any = |test: fn(&Content) -> bool| contents().flatten().any(test);
        let wants_tools = !request.tools.is_empty() && request.tool_choice != ToolChoice::None;
        [
            (wants_tools && !self.tools, "tools"),
            (matches!(request.format, ResponseFormat::Json) && !self.json, "answers in JSON"),
            (
                matches!(request.format, ResponseFormat::Schema { .. }) && !self.json_schema,
                "answers in JSON of a schema",
            ),
            (any(|c| matches!(c, Content::Picture(_))) && !self.pictures, "pictures"),
            (any(|c| matches!(c, Content::Audio(_))) && !self.audio, "audio"),
            (any(|c| matches!(c, Content::Document(_))) && !self.documents, "documents"),
        ]
        .into_iter()
        .find_map(|(lacking, feature)| lacking.then_some(feature))
    }
}

/// Models that reason refuse `temperature` and `top_p`, and call the limit of tokens by another name.
#[must_use]
pub fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let o_series = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    o_series || (name.starts_with("gpt-5") && !name.contains("chat"))
}

/// Models whose vendors have announced an end, with the day (ISO 8601).
const SHUTDOWNS: &[(&str, &str)] = &[
    ("gpt-4o-mini-transcribe", "2027-02-26"),
    ("gpt-4o-mini-tts", "2027-01-06"),
    ("gpt-4o-transcribe", "2027-02-26"),
    ("gpt-4o-transcribe-diarize", "2027-02-26"),
    ("gpt-audio-mini", "2027-01-20"),
    ("gpt-realtime", "2027-01-20"),
    ("gpt-realtime-mini", "2027-01-20"),
    ("tts-1", "2027-01-06"),
    ("tts-1-hd", "2027-01-06"),
    ("whisper-1", "2027-02-26"),
];

/// The day on which a model's vendor switches it off, where one is announced.
#[must_use]
pub fn shutdown(protocol: Protocol, model: &str) -> Option<&'static str> {
    if protocol != Protocol::Openai {
        return None;
    }
    SHUTDOWNS.iter().find(|(name, _)| *name == model).map(|(_, day)| *day)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::chat::Message;
    use crate::media::Media;

    #[rstest]
    #[case("gpt-5-mini", true)]
    #[case("openai/gpt-5", true)]
    #[case("o4-mini", true)]
    #[case("gpt-5-chat-latest", false)]
    #[case("gpt-4.1", false)]
    #[case("olmo-2", false)]
    fn reasoning_models(#[case] model: &str, #[case] reasoning: bool) {
        assert_eq!(reasons(model), reasoning);
    }

    #[test]
    fn a_missing_feature_is_named() {
        let audio = Content::Audio(Media::new("audio/wav", vec![0]));
        let request = ChatRequest { messages: vec![Message::User(vec![audio])], ..ChatRequest::default() };
        assert_eq!(Protocol::Anthropic.capabilities().lacks(&request), Some("audio"));
        assert_eq!(Protocol::Gemini.capabilities().lacks(&request), None);
    }
}
