//! Making pictures.

use serde::{Deserialize, Serialize};

use crate::media::{Media, Picture};
use crate::usage::Usage;

/// A picture to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRequest {
    /// What it shows.
    pub prompt: String,
    /// What it must not show, for models that take it.
    pub negative_prompt: Option<String>,
    /// Pictures to start from or keep to: the same character, the same style.
    pub references: Vec<Picture>,
    /// How many, 1 to 10.
    pub count: u8,
    /// Width and height in pixels; adapters choose the nearest that the model makes.
    pub size: Option<(u32, u32)>,
    /// How much care.
    pub quality: Option<Quality>,
    /// The file format.
    pub format: ImageFormat,
    /// The same seed makes about the same picture, for models that take it.
    pub seed: Option<u64>,
    /// The provider's id for the person behind it.
    pub user: Option<String>,
}

impl ImageRequest {
    /// One PNG.
    #[must_use]
    pub fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.to_owned(),
            negative_prompt: None,
            references: Vec::new(),
            count: 1,
            size: None,
            quality: None,
            format: ImageFormat::Png,
            seed: None,
            user: None,
        }
    }
}

/// How much care a picture gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Fast and cheap.
    Low,
    /// In between.
    Medium,
    /// Slow and dear.
    High,
}

/// File formats of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

impl ImageFormat {
    /// As providers write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }
}

/// Pictures made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Images {
    /// In the order the provider gave them; never fewer than one.
    pub images: Vec<Image>,
    /// What they consumed.
    pub usage: Usage,
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its bytes.
    pub media: Media,
    /// The prompt as the provider rewrote it, if it did.
    pub revised_prompt: Option<String>,
}
