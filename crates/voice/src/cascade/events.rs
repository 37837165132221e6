//! What happens to a conversation, and what it makes happen.

use std::time::Duration;

use super::clock::Samples;
use super::language::Language;
use crate::session::{Ending, Entry, ToolAnswer, ToolCall};

/// Something that happened. Whoever runs the core passes it in, with the moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The person is there and can hear.
    Started,
    /// What the voice detector noticed in their audio.
    Voice(Voice),
    /// What the speech recogniser wrote.
    Hearing(Hearing),
    /// They typed this.
    Typed(String),
    /// They pressed a key of their telephone.
    Digit(char),
    /// They asked the agent to stop, by a button rather than by voice.
    Interrupt,
    /// They say that their utterance is over, by a button or by a detector of their own.
    Committed,
    /// Their side has played this many samples of what it was sent (and did not drop) since the session began.
    Played(u64),
    /// Their side has dropped what it had not played. Where it can tell, it says how much it has played in all.
    Cleared(Option<u64>),
    /// What the language model does.
    Thought {
        /// Of which [`Effect::Ask`].
        generation: u32,
        /// What.
        thought: Thought,
    },
    /// What the speech synthesiser does.
    Speech {
        /// Of which [`Effect::Speak`].
        utterance: u32,
        /// What.
        speech: Speech,
    },
    /// A tool has answered.
    ToolFinished {
        /// Which call.
        call_id: String,
        /// Its answer.
        answer: ToolAnswer,
    },
    /// Their connection is lost, and they may come back: nothing can be heard meanwhile.
    Away,
    /// They are back, and have played this many samples in all, where they can tell.
    Back(Option<u64>),
    /// The server stops; the conversation must have moved on by then.
    Drain(Samples),
    /// The person is gone.
    Gone(Ending),
}

/// What a voice detector notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Somebody has begun to speak: at most 100 ms of speech ago.
    Started,
    /// They have fallen silent.
    Ended,
}

/// What a speech recogniser writes.
#[derive(Debug, Clone, PartialEq)]
pub enum Hearing {
    /// It listens now.
    Ready,
    /// The words since the last final ones, as far as they can be told; replaces the last partial ones.
    Partial(String),
    /// Words that will not change any more; appended to those of the turn.
    Final(String),
    /// The speaker may be done; the words of the turn so far.
    EagerEnd(String),
    /// They were not.
    Resumed,
    /// They are: the words of the turn. Only recognisers that tell turns say this.
    EndOfTurn(String),
    /// What they speak, where the recogniser can tell.
    Language(Language),
    /// It must be relieved soon.
    Aging,
    /// It broke off. `fatal`: no use in trying again.
    Lost {
        /// Whether trying again is useless.
        fatal: bool,
    },
}

/// What a language model does.
#[derive(Debug, Clone, PartialEq)]
pub enum Thought {
    /// The next piece of its answer.
    Text(String),
    /// It wants a tool run.
    Call(ToolCall),
    /// The answer is complete.
    Done,
    /// It failed. What came so far stands if any of it was heard.
    Failed {
        /// Whether trying again is useless.
        fatal: bool,
    },
}

/// What a speech synthesiser does.
#[derive(Debug, Clone, PartialEq)]
pub enum Speech {
    /// The next samples, at the session's rate.
    Audio(Vec<i16>),
    /// When words are spoken: text, and start and end in samples from the beginning of the utterance.
    Words(Vec<(String, u64, u64)>),
    /// The utterance is complete.
    Done,
    /// It broke off.
    Failed {
        /// Whether trying again is useless.
        fatal: bool,
    },
}

/// Something to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Play these samples to the person.
    Play(Vec<i16>),
    /// Ask the far end to say when everything sent so far is played, where it can.
    Mark(u64),
    /// Drop what the far end has not played; [`Event::Cleared`] tells where it stopped.
    Clear,
    /// Show this text: the agent's words as they are written.
    Show(String),
    /// Show what the person said.
    Transcript {
        /// The words.
        text: String,
        /// Whether they will not change any more.
        is_final: bool,
    },
    /// Ask the language model.
    Ask {
        /// Its events carry this number.
        generation: u32,
        /// The conversation: what was really heard, and what the person said.
        context: Vec<Said>,
        /// Asked before the turn was over: it may come to nothing.
        speculative: bool,
    },
    /// The answer is not wanted any more.
    CancelAsk(u32),
    /// Synthesise a sentence.
    Speak {
        /// Its events carry this number.
        utterance: u32,
        /// The words.
        text: String,
        /// The language to speak.
        language: Language,
    },
    /// The sentence is not wanted any more.
    CancelSpeak(u32),
    /// Run a tool.
    RunTool(ToolCall),
    /// Open a speech recogniser; it hears the person's audio again from this moment on, and then the live audio.
    Listen {
        /// From when.
        from: Samples,
    },
    /// Ask the recogniser for final words of what it has heard.
    Finalize,
    /// Report.
    Record(Entry),
    /// What a turn was like.
    Measured(TurnMeasures),
    /// An answer is over: everything of it was heard, or cut.
    AnswerOver {
        /// Whether it was cut.
        interrupted: bool,
    },
    /// The conversation is over.
    Finish(Ending),
}

/// Something of a conversation, as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// The person's words.
    User(String),
    /// The agent's words that were heard.
    Agent {
        /// The words.
        text: String,
        /// Whether the person cut in.
        interrupted: bool,
    },
    /// Tools that were run, with their answers.
    Tools(Vec<(ToolCall, serde_json::Value)>),
}

/// Times of one turn, from the end of the person's speech. What did not happen is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnMeasures {
    /// To the final words.
    pub transcribed: Option<Duration>,
    /// To the model's first word.
    pub first_token: Option<Duration>,
    /// To the synthesiser's first sample.
    pub first_speech: Option<Duration>,
    /// To the first sample that was sent to the person.
    pub first_sent: Option<Duration>,
    /// To the first sample that the person heard.
    pub first_heard: Option<Duration>,
    /// Samples sent.
    pub sent: u64,
    /// Samples heard.
    pub heard: u64,
    /// Whether the answer was cut.
    pub interrupted: bool,
    /// Whether the answer was begun before the turn was over.
    pub speculative: bool,
}
