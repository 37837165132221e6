//! Conversations with a model: messages, tools, structured answers, and the answer as a stream of events.

mod completion;
mod request;
mod stream;

pub use completion::Completion;
pub use request::{
    AssistantPart, ChatRequest, Content, Effort, Message, Opaque, ResponseFormat, Tool, ToolCall, ToolChoice,
    ToolResult,
};
pub use stream::{ChatEvent, ChatStream, FinishReason};
