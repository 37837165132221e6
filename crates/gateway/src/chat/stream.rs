//! The answer, as it is written.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::{AssistantPart, Completion, Opaque, ToolCall};
use crate::Error;
use crate::usage::Usage;

/// What happens while a model answers, the same for every provider.
///
/// After [`ChatEvent::Started`] come texts, reasoning and tool calls in the order in which the model makes them, then
/// [`ChatEvent::Finished`], which is the last. A stream that ends without it ends with an error.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// The provider has begun.
    Started {
        /// The provider's id of the answer, where it has one.
        id: Option<String>,
        /// The model that answers, as the provider names it.
        model: String,
    },
    /// What came so far counts for nothing: another model begins anew. Only if the caller allowed it.
    Restarted,
    /// The next piece of text.
    Text(String),
    /// The next piece of reasoning, where the provider shows it.
    Reasoning(String),
    /// The next piece of the reason why the model refuses.
    Refusal(String),
    /// A tool call begins; its arguments follow.
    ToolCallStarted {
        /// Position among the calls of this answer, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// The tool.
        name: String,
    },
    /// The next piece of a call's arguments.
    ToolCallArguments {
        /// The call's position.
        index: usize,
        /// The piece.
        delta: String,
    },
    /// A call is complete.
    ToolCall {
        /// Its position.
        index: usize,
        /// All of it.
        call: ToolCall,
    },
    /// State to send back in the next turn.
    Opaque(Opaque),
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it consumed.
        usage: Usage,
    },
}

impl ChatEvent {
    /// Whether a caller who got this cannot be given another answer instead without noticing.
    #[must_use]
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Started { .. } | Self::Restarted | Self::Opaque(_))
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It was done, or wrote a stop text.
    Stop,
    /// It wants tools called.
    ToolCalls,
    /// The limit of tokens cut it off.
    Length,
    /// Its provider's safety rules cut it off, or it refused.
    Refused,
    /// Something else that the provider names.
    Other,
}

/// An answer as it is written. Dropping it frees the provider at once.
pub struct ChatStream {
    events: Pin<Box<dyn Stream<Item = Result<ChatEvent, Error>> + Send>>,
}

impl ChatStream {
    /// Wraps a stream that follows the order described at [`ChatEvent`].
    pub fn new(events: impl Stream<Item = Result<ChatEvent, Error>> + Send + 'static) -> Self {
        Self { events: Box::pin(events) }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// The stream's.
    pub async fn collect(mut self) -> Result<Completion, Error> {
        let mut completion = Completion::default();
        while let Some(event) = self.next().await {
            completion.push(event?);
        }
        Ok(completion)
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatStream")
    }
}

impl Completion {
    /// Takes the next event.
    pub fn push(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Started { id, model } => {
                self.id = id;
                self.model = model;
            }
            ChatEvent::Restarted => *self = Self::default(),
            ChatEvent::Text(text) => match self.parts.last_mut() {
                Some(AssistantPart::Text(written)) => written.push_str(&text),
                _ => self.parts.push(AssistantPart::Text(text)),
            },
            ChatEvent::Reasoning(text) => self.reasoning.push_str(&text),
            ChatEvent::Refusal(text) => self.refusal.get_or_insert_default().push_str(&text),
            ChatEvent::ToolCallStarted { .. } | ChatEvent::ToolCallArguments { .. } => {}
            ChatEvent::ToolCall { call, .. } => self.parts.push(AssistantPart::ToolCall(call)),
            ChatEvent::Opaque(opaque) => self.parts.push(AssistantPart::Opaque(opaque)),
            ChatEvent::Finished { reason, usage } => {
                self.finish = Some(reason);
                self.usage = usage;
            }
        }
    }
}
