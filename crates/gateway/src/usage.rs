//! What a call consumed, as the provider counted it, or as we estimate where it does not say.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Amounts of one call. Zero means none or not applicable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens of the prompt, those read from and written to the provider's cache included.
    pub input_tokens: u64,
    /// Of those, read from the provider's prompt cache.
    pub cached_input_tokens: u64,
    /// Of those, written to the provider's prompt cache.
    pub cache_write_tokens: u64,
    /// Tokens of audio among the input.
    pub input_audio_tokens: u64,
    /// Tokens generated, reasoning included.
    pub output_tokens: u64,
    /// Of those, thought but not shown.
    pub reasoning_tokens: u64,
    /// Tokens of audio or pictures among the output.
    pub output_media_tokens: u64,
    /// Milliseconds of audio, heard or spoken.
    pub audio_ms: u64,
    /// Characters spoken.
    pub characters: u64,
    /// Pictures made.
    pub images: u64,
    /// Whether we counted, because the provider did not say.
    pub estimated: bool,
}

impl Usage {
    /// About how many tokens a text has: four bytes of English each, fewer characters elsewhere.
    #[must_use]
    pub fn estimate_tokens(text: &str) -> u64 {
        let (bytes, chars) = (text.len() as u64, text.chars().count() as u64);
        // Letters beyond ASCII take more than one byte and often a token each.
        bytes.div_ceil(4).max((bytes - chars.min(bytes)).div_ceil(2)).max(u64::from(!text.is_empty()))
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.input_audio_tokens += other.input_audio_tokens;
        self.output_tokens += other.output_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.output_media_tokens += other.output_media_tokens;
        self.audio_ms += other.audio_ms;
        self.characters += other.characters;
        self.images += other.images;
        self.estimated |= other.estimated;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", 0)]
    #[case("a", 1)]
    #[case("hello world", 3)]
    #[case("こんにちは", 5)]
    fn tokens_are_estimated(#[case] text: &str, #[case] tokens: u64) {
        assert_eq!(Usage::estimate_tokens(text), tokens);
    }
}
