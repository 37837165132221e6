//! Speech for emulators: 8 kHz mono, spoken by espeak-ng or by an honest tone, always carrying its own words.

mod captions;
mod filter;
mod vad;
mod voice;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
};

pub use captions::{CaptionDecoder, HeardWord};
pub use filter::Resampler;
pub use vad::{Vad, VadEvent, VadOptions};

/// Samples in a second, everywhere in this crate where nothing else is said.
pub const SAMPLE_RATE: u32 = 8_000;
/// The level to which speech is brought: -20 dB of full scale.
const SPEECH_RMS: f32 = 3_277.0;
/// Longer texts are cut here, at a word.
const MAX_TEXT: usize = 4_096;
const CACHE_ENTRIES: usize = 256;
/// At most 16 MiB of speech is kept for reuse.
const CACHE_SAMPLES: usize = 8 << 20;
/// Synthesiser processes at once.
const MAX_PROCESSES: usize = 4;

/// A word and the milliseconds of its utterance in which it is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word as written, with its punctuation.
    pub text: String,
    /// When it begins, in milliseconds from the start of the utterance.
    pub start_ms: u32,
    /// When it ends.
    pub end_ms: u32,
}

/// Spoken text: samples at [`SAMPLE_RATE`] with captions, and where each word lies in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Utterance {
    /// Mono samples at 8 kHz.
    pub samples: Vec<i16>,
    /// The words in order; tokens too long for one caption are split.
    pub words: Vec<Word>,
}

impl Utterance {
    /// How long it lasts, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u32 {
        (self.samples.len() as u64 * 1000 / u64::from(SAMPLE_RATE)) as u32
    }
}

/// Turns text into [`Utterance`]s. Clones share one cache and one limit on processes.
#[derive(Clone)]
pub struct Speaker {
    inner: Arc<Inner>,
}

struct Inner {
    program: Option<PathBuf>,
    processes: tokio::sync::Semaphore,
    cache: Mutex<VecDeque<(String, Arc<Utterance>)>>,
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker").field("program", &self.inner.program).finish_non_exhaustive()
    }
}

impl Default for Speaker {
    fn default() -> Self {
        Self::detect()
    }
}

impl Speaker {
    /// Speaks with `espeak-ng` where it is on the `PATH`, else with [`Speaker::tone`].
    #[must_use]
    pub fn detect() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&path).map(|dir| dir.join("espeak-ng")).find(|file| file.is_file());
        Self::with(program)
    }

    /// Speaks with a beep for each word: needs nothing, says nothing to a person, and still carries captions.
    #[must_use]
    pub fn tone() -> Self {
        Self::with(None)
    }

    fn with(program: Option<PathBuf>) -> Self {
        let processes = tokio::sync::Semaphore::new(MAX_PROCESSES);
        Self { inner: Arc::new(Inner { program, processes, cache: Mutex::default() }) }
    }

    /// Whether this is the tone rather than a voice: people should be told.
    #[must_use]
    pub fn is_tone(&self) -> bool {
        self.inner.program.is_none()
    }

    /// Speaks a text, of which at most 4,096 bytes are used.
    ///
    /// A synthesiser that fails or takes longer than 20 seconds is replaced by the tone for this text, with a warning
    /// in the log. Text without words gives an empty utterance.
    pub async fn say(&self, text: &str) -> Arc<Utterance> {
        let text = bounded(text);
        if let Some(known) = self.recall(&text) {
            return known;
        }
        let _permit = self.inner.processes.acquire().await.expect("the semaphore is never closed");
        if let Some(known) = self.recall(&text) {
            return known;
        }
        let spoken = match &self.inner.program {
            Some(program) => voice::espeak(program, &text).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "espeak-ng failed; speaking with the tone instead");
                voice::tone(&text)
            }),
            None => voice::tone(&text),
        };
        let utterance = Arc::new(spoken);
        self.remember(text, &utterance);
        utterance
    }

    fn recall(&self, text: &str) -> Option<Arc<Utterance>> {
        let cache = self.inner.cache.lock().expect("no panic while the cache is held");
        cache.iter().find(|(known, _)| known == text).map(|(_, utterance)| Arc::clone(utterance))
    }

    fn remember(&self, text: String, utterance: &Arc<Utterance>) {
        let mut cache = self.inner.cache.lock().expect("no panic while the cache is held");
        cache.push_back((text, Arc::clone(utterance)));
        let mut held: usize = cache.iter().map(|(_, u)| u.samples.len()).sum();
        while cache.len() > CACHE_ENTRIES || held > CACHE_SAMPLES {
            let Some((_, oldest)) = cache.pop_front() else { break };
            held -= oldest.samples.len();
        }
    }
}

fn bounded(text: &str) -> String {
    let mut out = String::new();
    for token in text.split_whitespace() {
        let token: String = token.chars().filter(|c| !c.is_control()).collect();
        if out.len() + token.len() + 1 > MAX_TEXT {
            break;
        }
        if token.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&token);
    }
    out
}
