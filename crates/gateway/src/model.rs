//! Names: tasks, providers, models.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A name that is cheap to copy, and is written as text.
macro_rules! name {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// By name.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self(name.into())
            }

            /// Its name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// What a model call is for, as applications name it: `story_text`, `npc_reply`, `call_summary`.
    Task
}

name! {
    /// A configured provider: `openai`, `anthropic`, or a name of the operator's for a server of their own.
    ProviderName
}

/// A model of a provider, written `provider/model`; the model's own name may contain further slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelRef {
    /// Who serves it.
    pub provider: ProviderName,
    /// The provider's name for it.
    pub model: Arc<str>,
}

impl ModelRef {
    /// A model of a provider.
    #[must_use]
    pub fn new(provider: &str, model: &str) -> Self {
        Self { provider: ProviderName::new(provider), model: model.into() }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// Not `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no model: write provider/model, such as openai/gpt-5-mini")]
pub struct InvalidModelRef(String);

impl FromStr for ModelRef {
    type Err = InvalidModelRef;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self::new(provider, model))
            }
            _ => Err(InvalidModelRef(text.to_owned())),
        }
    }
}

impl Serialize for ModelRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What goes in and comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Messages to text and tool calls.
    Chat,
    /// Text to audio.
    Speech,
    /// Audio to text.
    Transcription,
    /// Text (and pictures) to pictures.
    Images,
    /// Texts to vectors.
    Embeddings,
    /// Texts and pictures to verdicts.
    Moderation,
    /// A conversation in audio, both ways at once.
    Realtime,
}

impl Modality {
    /// As configuration, metrics and the ledger write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Speech => "speech",
            Self::Transcription => "transcription",
            Self::Images => "images",
            Self::Embeddings => "embeddings",
            Self::Moderation => "moderation",
            Self::Realtime => "realtime",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("openai/gpt-5-mini", Some(("openai", "gpt-5-mini")))]
    #[case("openrouter/deepseek/deepseek-v3.2", Some(("openrouter", "deepseek/deepseek-v3.2")))]
    #[case("gpt-5-mini", None)]
    #[case("/x", None)]
    #[case("x/", None)]
    fn model_references(#[case] text: &str, #[case] parts: Option<(&str, &str)>) {
        assert_eq!(text.parse::<ModelRef>().ok(), parts.map(|(p, m)| ModelRef::new(p, m)));
    }
}
