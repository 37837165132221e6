//! Speaking: texts to pieces of audio with the words that lie in them.

use crate::speech::{Speaker, Word};

use super::ears::Format;

/// A piece of speech.
pub(super) struct Piece {
    pub(super) audio: Vec<u8>,
    /// Words that begin in it, with times from the start of the text.
    pub(super) words: Vec<Word>,
    /// When it begins, in milliseconds from the start of the text.
    pub(super) start_ms: u32,
}

/// Speaks a text in pieces of this length.
pub(super) async fn speak(speaker: &Speaker, text: &str, format: Format, piece_ms: u32) -> Vec<Piece> {
    let spoken = speaker.say(text).await;
    let whole = format.encode(&spoken.samples);
    let unit = if matches!(format, Format::Pcm(_)) { 2 } else { 1 };
    let size =
        (format.bytes_per_second() as usize * piece_ms as usize / 1_000).next_multiple_of(unit).max(unit);
    whole
        .chunks(size)
        .enumerate()
        .map(|(index, audio)| {
            let start_ms = index as u32 * piece_ms;
            let within = |word: &&Word| (start_ms..start_ms + piece_ms).contains(&word.start_ms);
            let words = spoken.words.iter().filter(within).cloned().collect();
            Piece { audio: audio.to_vec(), words, start_ms }
        })
        .collect()
}
