//! The synthesiser's side of the driver.

use std::collections::VecDeque;

use longhouse_gateway::Error;
use longhouse_gateway::live::{Speaking, SpeakingCommand, SpeakingEvent, Utterance};

use super::cache::{Phrases, Spoken};
use super::{CLOSE_LIMIT, is_fatal};
use crate::cascade::clock::Rate;
use crate::cascade::events::Speech;
use crate::cascade::language::Language;
use crate::session::BoxFuture;

enum Leg {
    Closed,
    Dialing(BoxFuture<'static, Result<Speaking, Error>>),
    Open(Speaking),
}

/// An utterance under way.
struct Active {
    id: u32,
    /// The first half of a sample.
    odd: Option<u8>,
    /// To be kept when it is complete.
    kept: Option<(String, Spoken)>,
}

/// One synthesiser at a time.
pub(super) struct Tongue {
    leg: Leg,
    rate: Rate,
    language: Option<Language>,
    active: Vec<Active>,
    /// For a synthesiser that is being dialled.
    waiting: Vec<SpeakingCommand>,
    told: VecDeque<(u32, Speech)>,
    phrases: Phrases,
}

impl Tongue {
    pub(super) fn new(rate: Rate, phrases: Phrases) -> Self {
        Self {
            leg: Leg::Closed,
            rate,
            language: None,
            active: Vec::new(),
            waiting: Vec::new(),
            told: VecDeque::new(),
            phrases,
        }
    }

    /// Speaks from what is known by heart; `false` when it is not.
    pub(super) fn knows(&mut self, id: u32, text: &str) -> bool {
        let Some(spoken) = self.phrases.find(text) else { return false };
        if !spoken.words.is_empty() {
            self.told.push_back((id, Speech::Words(spoken.words.clone())));
        }
        self.told.push_back((id, Speech::Audio(spoken.samples.clone())));
        self.told.push_back((id, Speech::Done));
        true
    }

    /// Whether another must be opened to speak this language.
    pub(super) fn needs(&self, language: Language) -> bool {
        matches!(self.leg, Leg::Closed) || self.language != Some(language)
    }

    /// Another synthesiser. What the last one was to say and did not is reported as failed, and asked for again.
    pub(super) fn open(&mut self, dial: BoxFuture<'static, Result<Speaking, Error>>, language: Language) {
        self.fail(false);
        self.close();
        self.language = Some(language);
        self.leg = Leg::Dialing(dial);
    }

    pub(super) fn close(&mut self) {
        self.waiting.clear();
        if let Leg::Open(speaking) = std::mem::replace(&mut self.leg, Leg::Closed) {
            tokio::spawn(speaking.close(CLOSE_LIMIT));
        }
    }

    fn fail(&mut self, fatal: bool) {
        for active in self.active.drain(..) {
            self.told.push_back((active.id, Speech::Failed { fatal }));
        }
    }

    fn send(&mut self, command: SpeakingCommand) {
        match &mut self.leg {
            Leg::Open(speaking) => {
                if let Err(error) = speaking.send(command) {
                    tracing::warn!(%error, "the speech synthesiser does not take more");
                    self.fail(is_fatal(&error));
                    self.close();
                }
            }
            Leg::Dialing(_) => self.waiting.push(command),
            Leg::Closed => {}
        }
    }

    pub(super) fn say(&mut self, id: u32, text: String) {
        let kept = self.phrases.is_fixed(&text).then(|| (text.clone(), Spoken::default()));
        self.active.push(Active { id, odd: None, kept });
        let utterance = Utterance(u64::from(id));
        self.send(SpeakingCommand::Text(utterance, text));
        self.send(SpeakingCommand::End(utterance));
    }

    pub(super) fn cancel(&mut self, id: u32) {
        self.told.retain(|(told, _)| *told != id);
        if let Some(index) = self.active.iter().position(|a| a.id == id) {
            self.active.swap_remove(index);
            self.send(SpeakingCommand::Cancel(Utterance(u64::from(id))));
        }
    }

    /// The next thing that it does; never ready while there is none.
    pub(super) async fn next(&mut self) -> (u32, Speech) {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            let event = match &mut self.leg {
                Leg::Closed => std::future::pending().await,
                Leg::Dialing(dial) => {
                    match dial.await {
                        Ok(speaking) => {
                            self.leg = Leg::Open(speaking);
                            for command in std::mem::take(&mut self.waiting) {
                                self.send(command);
                            }
                        }
                        Err(error) => self.lost(&error),
                    }
                    continue;
                }
                Leg::Open(speaking) => speaking.next().await,
            };
            match event {
                None => {
                    self.fail(false);
                    self.close();
                }
                Some(Err(error)) => self.lost(&error),
                Some(Ok(event)) => self.tell(event),
            }
        }
    }

    fn lost(&mut self, error: &Error) {
        tracing::warn!(%error, "the speech synthesiser broke off");
        metrics::counter!("longhouse_voice_upstream_lost_total").increment(1);
        self.fail(is_fatal(error));
        self.close();
    }

    fn tell(&mut self, event: SpeakingEvent) {
        let rate = u64::from(self.rate.0);
        let index = |active: &[Active], u: Utterance| active.iter().position(|a| u64::from(a.id) == u.0);
        match event {
            SpeakingEvent::Audio(utterance, payload) => {
                let Some(index) = index(&self.active, utterance) else { return };
                match payload.decoded() {
                    Ok(bytes) => {
                        let active = &mut self.active[index];
                        let samples = samples(&mut active.odd, &bytes);
                        if let Some((_, spoken)) = &mut active.kept {
                            spoken.samples.extend_from_slice(&samples);
                        }
                        self.told.push_back((active.id, Speech::Audio(samples)));
                    }
                    Err(error) => tracing::warn!(%error, "unreadable speech"),
                }
            }
            SpeakingEvent::Words(utterance, words) => {
                let Some(index) = index(&self.active, utterance) else { return };
                let at = |ms: u64| ms * rate / 1_000;
                let words: Vec<_> =
                    words.into_iter().map(|w| (w.text, at(w.start_ms), at(w.end_ms))).collect();
                if let Some((_, spoken)) = &mut self.active[index].kept {
                    spoken.words.extend(words.iter().cloned());
                }
                self.told.push_back((self.active[index].id, Speech::Words(words)));
            }
            SpeakingEvent::Done(utterance) => {
                if let Some(index) = index(&self.active, utterance) {
                    let active = self.active.swap_remove(index);
                    if let Some((text, spoken)) = active.kept
                        && !spoken.samples.is_empty()
                    {
                        self.phrases.keep(&text, spoken);
                    }
                    self.told.push_back((active.id, Speech::Done));
                }
            }
            SpeakingEvent::Failed(utterance, why) => {
                tracing::warn!(why, "a sentence could not be spoken");
                if let Some(index) = index(&self.active, utterance) {
                    let id = self.active.swap_remove(index).id;
                    self.told.push_back((id, Speech::Failed { fatal: false }));
                }
            }
            SpeakingEvent::Warning(text) => tracing::info!(text, "the speech synthesiser warns"),
            SpeakingEvent::Ready(_)
            | SpeakingEvent::Flushed(_)
            | SpeakingEvent::Cancelled(_)
            | SpeakingEvent::Finished(_) => {}
        }
    }
}

/// 16-bit samples of bytes that may be cut anywhere.
fn samples(odd: &mut Option<u8>, bytes: &[u8]) -> Vec<i16> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1);
    let mut bytes = bytes.iter().copied();
    if let Some(first) = odd.take() {
        match bytes.next() {
            Some(second) => out.push(i16::from_le_bytes([first, second])),
            None => *odd = Some(first),
        }
    }
    while let Some(first) = bytes.next() {
        match bytes.next() {
            Some(second) => out.push(i16::from_le_bytes([first, second])),
            None => *odd = Some(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_odd_cuts() {
        let all: Vec<u8> = (0..=255).collect();
        let whole = samples(&mut None, &all);
        for size in [1, 3, 7] {
            let mut odd = None;
            let cut: Vec<i16> = all.chunks(size).flat_map(|chunk| samples(&mut odd, chunk)).collect();
            assert_eq!(cut, whole);
        }
    }
}
