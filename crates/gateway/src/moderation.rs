//! A provider's judgement of content.

use serde::{Deserialize, Serialize};

use crate::media::Picture;
use crate::usage::Usage;

/// Content to judge; each input gets a verdict of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModerationRequest {
    /// Texts.
    pub texts: Vec<String>,
    /// A picture that belongs to them.
    pub picture: Option<Picture>,
}

/// What the provider found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moderation {
    /// For each text in order; with a picture, one for everything together.
    pub verdicts: Vec<Verdict>,
    /// What it consumed.
    pub usage: Usage,
}

/// One verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the provider would refuse it.
    pub flagged: bool,
    /// Every category with its score from 0 to 1.
    pub categories: Vec<Category>,
}

/// A category of a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// As the provider names it: `violence`, `self-harm/intent`.
    pub name: String,
    /// Whether it alone is enough.
    pub flagged: bool,
    /// From 0 to 1.
    pub score: f32,
}
