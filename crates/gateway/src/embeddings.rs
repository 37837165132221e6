//! Texts to vectors.

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingRequest {
    /// The texts, none of them empty.
    pub texts: Vec<String>,
    /// Length of the vectors, for models that can shorten them.
    pub dimensions: Option<u32>,
    /// What the vectors are for, for models that care.
    pub purpose: Purpose,
}

/// What vectors are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To be found.
    #[default]
    Document,
    /// To find with.
    Query,
}

/// Vectors, one for each text, in their order and all of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// What they consumed.
    pub usage: Usage,
}
