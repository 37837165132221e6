//! The services of the simulated world: a model, a synthesiser, a recogniser.

use std::collections::VecDeque;

use super::{Answer, Due, RATE, Recogniser, Utterance, World};
use crate::cascade::Turns;
use crate::cascade::events::{Event, Hearing, Said, Speech, Thought};
use crate::session::ToolCall;

impl World {
    pub(super) fn ask(&mut self, generation: u32, context: Vec<Said>, speculative: bool) {
        assert!(self.answers.is_empty(), "two answers at once");
        assert!(!context.is_empty());
        self.asked += 1;
        self.contexts.insert(generation, context.clone());
        let mut pieces = VecDeque::new();
        let after_tools = matches!(context.last(), Some(Said::Tools(_)));
        let calls = if !after_tools && self.dice.chance(20) {
            (0..1 + self.dice.below(2))
                .map(|n| ToolCall {
                    call_id: format!("c{generation}-{n}"),
                    name: "look".into(),
                    arguments: serde_json::Map::new(),
                })
                .collect()
        } else {
            Vec::new()
        };
        let sentences = if calls.is_empty() { 1 + self.dice.below(4) } else { self.dice.below(2) };
        let mut number = 0;
        for _ in 0..sentences {
            let words = 2 + self.dice.below(9);
            for word in 0..words {
                number += 1;
                let end = if word + 1 == words {
                    ". "
                } else if self.dice.chance(10) {
                    ", "
                } else {
                    " "
                };
                // Unlike any other word, and capital where a sentence begins.
                let initial = if word == 0 { "G" } else { "g" };
                pieces.push_back(format!("{initial}{generation}w{number}{end}"));
            }
        }
        let fails = self.troubles && self.dice.chance(6);
        if fails {
            let keep = self.dice.below(pieces.len() as u64 + 1) as usize;
            pieces.truncate(keep);
        }
        let _ = speculative;
        self.answers.insert(generation, Answer { pieces, calls, fails });
        let first = self.dice.ms(80, 900);
        self.at(first, Due::Think(generation));
    }

    pub(super) fn think(&mut self, generation: u32) {
        let burst = 1 + self.dice.below(4);
        for _ in 0..burst {
            let Some(answer) = self.answers.get_mut(&generation) else { return };
            match answer.pieces.pop_front() {
                Some(text) => self.step(Event::Thought { generation, thought: Thought::Text(text) }),
                None => {
                    let Some(answer) = self.answers.remove(&generation) else { return };
                    if answer.fails {
                        self.step(Event::Thought { generation, thought: Thought::Failed { fatal: false } });
                        return;
                    }
                    self.answers.insert(
                        generation,
                        Answer { pieces: VecDeque::new(), calls: Vec::new(), fails: false },
                    );
                    for call in answer.calls {
                        self.step(Event::Thought { generation, thought: Thought::Call(call) });
                    }
                    if self.answers.remove(&generation).is_some() {
                        self.step(Event::Thought { generation, thought: Thought::Done });
                    }
                    return;
                }
            }
        }
        let gap = self.dice.ms(5, 60);
        self.at(gap, Due::Think(generation));
    }

    // ---- the synthesiser

    pub(super) fn speak(&mut self, utterance: u32, text: &str) {
        let mut audio = vec![0; self.dice.ms(0, 60) as usize];
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let id = self.renditions.len() as i16 + 1;
            let length = self.dice.ms(60, 350).max(4) as usize;
            self.renditions.insert(id, (word.to_owned(), length));
            let start = audio.len() as u64;
            audio.push(-id);
            audio.resize(audio.len() + length - 1, id);
            words.push((word.trim_end_matches(['.', ',', '?']).to_owned(), start, audio.len() as u64));
            audio.resize(audio.len() + self.dice.ms(0, 80) as usize, 0);
        }
        let fails = self.troubles && self.dice.chance(6);
        let fails_at = fails.then(|| self.dice.below(audio.len() as u64) as usize);
        self.utterances.insert(utterance, Utterance { audio, words, at: 0, told: 0, fails_at });
        let first = self.dice.ms(40, 400);
        self.at(first, Due::Synthesise(utterance));
    }

    pub(super) fn synthesise(&mut self, utterance: u32) {
        let Some(speech) = self.utterances.get_mut(&utterance) else { return };
        let chunk = self.dice.ms(40, 400) as usize;
        let mut end = (speech.at + chunk).min(speech.audio.len());
        // What nobody can tell apart is not asked for: a word of which only the fading is missing.
        let fading =
            |(_, _, word_end): &&(String, u64, u64)| (end as u64..end as u64 + RATE / 100).contains(word_end);
        if let Some((_, _, word_end)) = speech.words.iter().find(fading) {
            end = *word_end as usize;
        }
        if let Some(fails_at) = speech.fails_at
            && end > fails_at
        {
            self.utterances.remove(&utterance);
            self.step(Event::Speech { utterance, speech: Speech::Failed { fatal: false } });
            return;
        }
        let audio = speech.audio[speech.at..end].to_vec();
        speech.at = end;
        let upto = speech.words.iter().filter(|(_, _, e)| *e <= end as u64).count();
        let words = speech.words[speech.told..upto].to_vec();
        speech.told = upto;
        let done = end == speech.audio.len();
        if done {
            self.utterances.remove(&utterance);
        }
        if self.told_times && !words.is_empty() {
            self.step(Event::Speech { utterance, speech: Speech::Words(words) });
        }
        self.step(Event::Speech { utterance, speech: Speech::Audio(audio) });
        if done {
            self.step(Event::Speech { utterance, speech: Speech::Done });
        } else {
            // Faster than it is played, mostly.
            let gap = self.dice.ms(5, 120);
            self.at(gap, Due::Synthesise(utterance));
        }
    }

    // ---- the recogniser

    pub(super) fn listen(&mut self, from: u64) {
        self.recognisers += 1;
        let number = self.recognisers;
        let next = self.words.iter().position(|(_, start, _)| *start >= from).unwrap_or(self.words.len());
        self.recogniser = Some(Recogniser {
            number,
            from,
            ready: false,
            next,
            segment: Vec::new(),
            eager: false,
            finalize: false,
        });
        let delay = self.dice.ms(30, 500);
        if self.troubles && self.dice.chance(10) {
            self.at(delay, Due::Ears(number, Hearing::Lost { fatal: false }));
        } else {
            self.at(delay, Due::Ears(number, Hearing::Ready));
            if self.troubles && self.dice.chance(25) {
                let life = self.dice.ms(1_000, 20_000);
                let end = if self.dice.chance(70) { Hearing::Lost { fatal: false } } else { Hearing::Aging };
                self.at(delay + life, Due::Ears(number, end));
            }
        }
    }

    fn say_hearing(&mut self, number: u32, hearing: Hearing, delay: u64) {
        self.at(delay, Due::Ears(number, hearing));
    }

    /// The recogniser notices words that were said, and silence.
    pub(super) fn notice(&mut self) {
        let now = self.now;
        let turns = self.core.settings.turns;
        let speaking = self.speaking;
        let last_word_end = self.last_word_end;
        let Some(recogniser) = &mut self.recogniser else { return };
        if !recogniser.ready {
            return;
        }
        let mut changed = false;
        while let Some((word, start, end)) = self.words.get(recogniser.next)
            && *end <= now
        {
            if *start >= recogniser.from {
                recogniser.segment.push(word.clone());
                changed = true;
            }
            recogniser.next += 1;
        }
        let number = recogniser.number;
        let text = recogniser.segment.join(" ");
        let silent = !speaking && now >= last_word_end + RATE * 3 / 10;
        let long_silent = !speaking && now >= last_word_end + RATE * 8 / 10;
        let finalize = std::mem::take(&mut recogniser.finalize);
        let mut say = Vec::new();
        if changed {
            if std::mem::take(&mut recogniser.eager) {
                say.push(Hearing::Resumed);
            }
            say.push(Hearing::Partial(text.clone()));
        }
        match turns {
            Turns::Recognizer => {
                if (long_silent || finalize) && !text.is_empty() {
                    recogniser.segment.clear();
                    recogniser.eager = false;
                    say.push(Hearing::EndOfTurn(text));
                } else if silent && !text.is_empty() && !recogniser.eager {
                    recogniser.eager = true;
                    say.push(Hearing::EagerEnd(text));
                }
            }
            _ => {
                if finalize || (long_silent && !text.is_empty()) {
                    recogniser.segment.clear();
                    say.push(Hearing::Final(text));
                }
            }
        }
        // A service's messages stay in order; now and then all of them are late.
        let delay = if number.is_multiple_of(7) { RATE * 2 } else { RATE / 10 };
        for hearing in say {
            self.say_hearing(number, hearing, delay);
        }
    }
}
