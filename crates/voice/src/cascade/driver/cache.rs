//! Speech that is said in every conversation, synthesised once: greetings, fillers, prompts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::cascade::Settings;
use crate::cascade::clock::Rate;
use crate::cascade::sentences::Sentences;

/// Samples kept by all conversations of a cache: 16 MiB.
const LIMIT: usize = 8 << 20;
/// Longest sentence that is kept, in seconds.
const LONGEST: usize = 15;

/// A sentence as it was spoken.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoken {
    pub(super) samples: Vec<i16>,
    pub(super) words: Vec<(String, u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    voice: String,
    rate: u32,
    text: String,
}

type Entries = VecDeque<(Key, Arc<Spoken>)>;

/// Spoken sentences; the one that was not needed for longest makes room. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SpeechCache {
    entries: Arc<Mutex<Entries>>,
}

impl SpeechCache {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Option<Arc<Spoken>> {
        let mut entries = self.entries();
        let index = entries.iter().position(|(known, _)| known == key)?;
        let entry = entries.remove(index)?;
        let spoken = Arc::clone(&entry.1);
        entries.push_back(entry);
        Some(spoken)
    }

    fn keep(&self, key: Key, spoken: Spoken) {
        if spoken.samples.len() > LONGEST * key.rate as usize {
            return;
        }
        let mut entries = self.entries();
        entries.retain(|(known, _)| *known != key);
        entries.push_back((key, Arc::new(spoken)));
        let mut held: usize = entries.iter().map(|(_, spoken)| spoken.samples.len()).sum();
        while held > LIMIT {
            let Some((_, oldest)) = entries.pop_front() else { break };
            held -= oldest.samples.len();
        }
    }
}

/// One conversation's use of a cache: which of its sentences every conversation says.
pub(super) struct Phrases {
    cache: Option<SpeechCache>,
    voice: String,
    rate: Rate,
    fixed: Vec<String>,
}

impl Phrases {
    pub(super) fn new(cache: Option<SpeechCache>, voice: String, settings: &Settings) -> Self {
        let mut fixed = Vec::new();
        let mut say = |text: &str| {
            let mut sentences = Sentences::new(settings.language);
            sentences.push(text, &mut fixed);
            sentences.finish(&mut fixed);
        };
        settings.greeting.iter().for_each(|greeting| say(&greeting.text));
        say(settings.filler.as_deref().unwrap_or(settings.language.filler()));
        say(settings.language.apology());
        if let Some(idle) = &settings.idle {
            idle.prompts.iter().chain(&idle.goodbye).for_each(|text| say(text));
        }
        Self { cache, voice, rate: settings.rate, fixed }
    }

    fn key(&self, text: &str) -> Key {
        Key { voice: self.voice.clone(), rate: self.rate.0, text: text.to_owned() }
    }

    /// Whether the sentence is worth keeping.
    pub(super) fn is_fixed(&self, text: &str) -> bool {
        self.cache.is_some() && self.fixed.iter().any(|known| known == text)
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<Spoken>> {
        self.cache.as_ref().filter(|_| self.is_fixed(text))?.find(&self.key(text))
    }

    pub(super) fn keep(&self, text: &str, spoken: Spoken) {
        if let Some(cache) = &self.cache {
            cache.keep(self.key(text), spoken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cascade::Saying;

    #[test]
    fn only_what_every_conversation_says_is_kept_and_each_voice_has_its_own() {
        let cache = SpeechCache::default();
        let greeting = Saying { text: "Hello there. How are you?".into(), protected: false };
        let settings = Settings { greeting: Some(greeting), ..Settings::default() };
        let phrases = |voice: &str| Phrases::new(Some(cache.clone()), voice.into(), &settings);
        let ada = phrases("ada");
        assert!(ada.is_fixed("How are you?") && ada.is_fixed("One moment, please.") && !ada.is_fixed("No."));
        ada.keep("Hello there.", Spoken { samples: vec![1; 10], words: Vec::new() });
        assert_eq!(ada.find("Hello there.").unwrap().samples.len(), 10);
        assert!(phrases("bob").find("Hello there.").is_none());
        // It is bounded.
        for n in 0..100 {
            ada.keep(&format!("{n}"), Spoken { samples: vec![0; 200_000], words: Vec::new() });
        }
        assert!(cache.entries().len() < 50 && ada.find("Hello there.").is_none());
    }
}
