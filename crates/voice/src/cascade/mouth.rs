//! What the agent says: sentences in order, their audio, and how much of it was heard.

use std::collections::VecDeque;
use std::time::Duration;

use super::Settings;
use super::clock::{Rate, Samples};
use super::events::{Effect, Speech};
use super::language::Language;
use super::ledger::Ledger;
use super::playout::Playout;
use super::words::Tokens;
use crate::session::Entry;

/// Audio goes out in frames of this length.
const FRAME: Duration = Duration::from_millis(20);
/// Marks follow at least this much audio.
const MARK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the far end to say where it stopped.
const CLEAR_TIMEOUT: Duration = Duration::from_millis(600);
/// Longest audio of one sentence; what exceeds it is dropped.
const LONGEST: Duration = Duration::from_secs(60);
/// Synthesiser requests at once.
const OUTSTANDING: usize = 2;
/// Attempts at one sentence.
const TRIES: u8 = 4;
/// Wait before the second attempt; doubled for each further one.
const RETRY: Duration = Duration::from_millis(150);
/// The end of a word, without which it is understood.
const FADING: Duration = Duration::from_millis(10);
/// Letters a second until a voice's own pace is known.
const PACE: f64 = 15.0;
/// Most sentences that wait to be spoken.
const LINES: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Making {
    /// To be asked for, not before this moment.
    Waiting(Samples),
    Asked,
    Done,
}

#[derive(Debug)]
struct Line {
    id: u32,
    answer: u32,
    language: Language,
    protected: bool,
    tokens: Tokens,
    audio: Vec<i16>,
    /// Position of its first sample.
    start: Option<u64>,
    making: Making,
    tries: u8,
    /// Samples of the utterance before its first sample here.
    origin: u64,
}

impl Line {
    fn length(&self) -> u64 {
        self.audio.len() as u64
    }

    fn complete_length(&self) -> Option<u64> {
        (self.making == Making::Done).then(|| self.length())
    }
}

#[derive(Debug)]
struct Answer {
    id: u32,
    ordinal: Option<i32>,
    started: Samples,
    /// Sentences that were heard whole.
    said: String,
    /// Everything that it is to say, while it is not cut.
    written: String,
    /// No more sentences come.
    closed: bool,
}

/// What came of the latest look at the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// The synthesiser fails for good.
    pub(super) hopeless: bool,
    /// Answers that were heard to their end.
    pub(super) over: Option<u32>,
    /// The cut has taken effect.
    pub(super) settled: bool,
}

/// The agent's voice.
#[derive(Debug)]
pub(super) struct Mouth {
    rate: Rate,
    lead: u64,
    ahead: u64,
    /// Whether answers are text that is shown rather than spoken.
    silent: bool,
    whole_words: bool,
    /// Whether the synthesiser tells when words are spoken.
    word_times: bool,
    playout: Playout,
    lines: VecDeque<Line>,
    answers: VecDeque<Answer>,
    next_id: u32,
    next_answer: u32,
    /// A speculative answer: nothing of it may be heard yet.
    pub(super) held: bool,
    /// The person may be speaking: do not begin.
    pub(super) quiet: bool,
    paused: bool,
    /// The far end hears nothing until it comes back.
    absent: bool,
    /// When the far end was told to drop what it has, until it says that it did.
    clearing: Option<Samples>,
    cutting: bool,
    last_mark: u64,
    /// Samples that a letter takes.
    pace: f64,
    hopeless: bool,
    /// Sentences that found no room.
    dropped: u64,
}

impl Mouth {
    pub(super) fn new(settings: &Settings) -> Self {
        let rate = settings.rate;
        Self {
            rate,
            lead: rate.samples(settings.lead),
            ahead: rate.samples(settings.ahead),
            silent: !settings.voice_output,
            whole_words: settings.resume_whole_words,
            word_times: settings.word_times,
            playout: Playout::default(),
            lines: VecDeque::new(),
            answers: VecDeque::new(),
            next_id: 0,
            next_answer: 0,
            held: false,
            quiet: false,
            paused: false,
            absent: false,
            clearing: None,
            cutting: false,
            last_mark: 0,
            pace: f64::from(rate.0) / PACE,
            hopeless: false,
            dropped: 0,
        }
    }

    /// Begins an answer; sentences are added to it until it is closed.
    pub(super) fn open(&mut self) -> u32 {
        self.next_answer += 1;
        self.answers.push_back(Answer {
            id: self.next_answer,
            ordinal: None,
            started: Samples(0),
            said: String::new(),
            written: String::new(),
            closed: false,
        });
        self.next_answer
    }

    /// Nothing more comes for this answer.
    pub(super) fn close(&mut self, answer: u32) {
        if let Some(answer) = self.answers.iter_mut().find(|a| a.id == answer) {
            answer.closed = true;
        }
    }

    /// What waits to be heard has its place in the conversation here, before what is said now.
    pub(super) fn place(&mut self, now: Samples, ledger: &mut Ledger) {
        for answer in self.answers.iter_mut().filter(|a| !a.written.is_empty() && a.ordinal.is_none()) {
            answer.ordinal = Some(ledger.reserve());
            answer.started = now;
        }
    }

    /// Places and words of answers that are being said, heard or not.
    pub(super) fn pending(&self) -> Vec<(i32, String)> {
        self.answers.iter().filter_map(|a| Some((a.ordinal?, a.written.clone()))).collect()
    }

    /// A guess came to nothing: nobody hears of it.
    pub(super) fn forget(&mut self, out: &mut Vec<Effect>) {
        self.held = false;
        for line in self.lines.drain(..) {
            if line.making == Making::Asked {
                out.push(Effect::CancelSpeak(line.id));
            }
        }
        self.answers.clear();
    }

    /// Adds a sentence to an answer.
    pub(super) fn say(
        &mut self,
        now: Samples,
        answer: u32,
        text: &str,
        language: Language,
        protected: bool,
        ledger: &mut Ledger,
    ) {
        let Some(found) = self.answers.iter_mut().find(|a| a.id == answer) else { return };
        let tokens = Tokens::new(text);
        if tokens.all.is_empty() {
            return;
        }
        if self.lines.len() >= LINES {
            self.dropped += 1;
            return;
        }
        append(&mut found.written, &tokens.text(tokens.all.len()));
        if self.silent {
            if found.ordinal.is_none() {
                found.ordinal = Some(ledger.reserve());
                found.started = now;
            }
            append(&mut found.said, &tokens.text(tokens.all.len()));
            return;
        }
        self.next_id += 1;
        self.lines.push_back(Line {
            id: self.next_id,
            answer,
            language,
            protected,
            tokens,
            audio: Vec::new(),
            start: None,
            making: Making::Waiting(now),
            tries: 0,
            origin: 0,
        });
    }

    /// Whether anything is said, or waits to be.
    pub(super) fn is_busy(&self) -> bool {
        !self.answers.is_empty() || self.clearing.is_some()
    }

    /// Whether an answer is under way that the person can hear, or has heard in part.
    pub(super) fn is_sounding(&self) -> bool {
        self.lines.front().is_some_and(|line| line.start.is_some())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn is_settling(&self) -> bool {
        self.clearing.is_some()
    }

    /// Whether what is being said must not be cut.
    pub(super) fn is_protected(&self) -> bool {
        self.lines.front().is_some_and(|line| line.protected)
    }

    /// Whether this answer has anything to say, or had.
    pub(super) fn has_words(&self, answer: u32) -> bool {
        self.answers.iter().any(|a| a.id == answer && !a.written.is_empty())
    }

    pub(super) fn sent(&self) -> u64 {
        self.playout.sent()
    }

    pub(super) fn heard(&self, now: Samples) -> u64 {
        self.playout.heard(now)
    }

    /// Samples that wait, for those who watch over bounds.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.audio.len()).sum()
    }

    /// Silence at once; what was not heard is kept.
    pub(super) fn pause(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.paused || !self.is_sounding() {
            return;
        }
        self.paused = true;
        self.clear(now, out);
    }

    /// The pace by which untold times are estimated, where they are.
    fn pace(&self) -> Option<f64> {
        (!self.word_times).then_some(self.pace)
    }

    fn clear(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.clearing.is_none() && self.playout.sent() > self.playout.heard(now) {
            self.clearing = Some(now);
            out.push(Effect::Clear);
        }
    }

    /// The far end is gone for a while: what it had not played is sent again when it is back.
    pub(super) fn away(&mut self, now: Samples) {
        self.absent = true;
        if self.is_sounding() && self.playout.sent() > self.playout.heard(now) {
            self.clearing.get_or_insert(now);
        }
    }

    /// The far end is back, and tells how much it has played.
    pub(super) fn back(
        &mut self,
        now: Samples,
        played: Option<u64>,
        ledger: &mut Ledger,
        out: &mut Vec<Effect>,
    ) {
        if std::mem::take(&mut self.absent) {
            self.cleared(now, played, ledger, out);
        }
    }

    /// Goes on from where the person stopped hearing.
    pub(super) fn resume(&mut self) {
        self.paused = false;
        self.quiet = false;
    }

    /// Ends everything that is said or waits, at what was heard.
    pub(super) fn cut(&mut self, now: Samples, ledger: &mut Ledger, out: &mut Vec<Effect>) {
        for line in &self.lines {
            if line.making == Making::Asked {
                out.push(Effect::CancelSpeak(line.id));
            }
        }
        // Nothing that has not been sent can be heard any more.
        self.lines.retain(|line| line.start.is_some());
        for line in &mut self.lines {
            if line.making != Making::Done {
                line.making = Making::Waiting(Samples(u64::MAX));
            }
        }
        self.held = false;
        self.quiet = false;
        self.cutting = true;
        self.clear(now, out);
        if self.clearing.is_none() {
            self.finish_cut(now, self.playout.heard(now), ledger, out);
        }
    }

    fn finish_cut(&mut self, now: Samples, position: u64, ledger: &mut Ledger, out: &mut Vec<Effect>) {
        self.cutting = false;
        self.paused = false;
        let (pace, fading) = (self.pace(), self.rate.samples(FADING));
        for line in self.lines.drain(..) {
            let offset = line.start.map_or(0, |start| position.saturating_sub(start));
            let count = line.tokens.heard(offset.min(line.length()), line.complete_length(), pace, fading);
            if let Some(answer) = self.answers.iter_mut().find(|a| a.id == line.answer) {
                append(&mut answer.said, &line.tokens.text(count));
            }
        }
        for answer in self.answers.drain(..) {
            record(answer.ordinal, answer.started, now, answer.said, true, ledger, out);
        }
    }

    /// The far end dropped what it had not played, or will have by now.
    pub(super) fn cleared(
        &mut self,
        now: Samples,
        exact: Option<u64>,
        ledger: &mut Ledger,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(at) = self.clearing.take() else { return false };
        let position = self.playout.cleared(now, at, exact);
        self.last_mark = self.last_mark.min(position);
        for line in &mut self.lines {
            if line.start.is_some_and(|start| start >= position) {
                line.start = None;
            }
        }
        if self.cutting {
            self.finish_cut(now, position, ledger, out);
            return true;
        }
        if self.whole_words {
            self.step_back(position);
        }
        false
    }

    /// A word that was broken off is said again from its beginning.
    fn step_back(&mut self, position: u64) {
        let Some(index) = self.lines.iter().rposition(|line| line.start.is_some()) else { return };
        let (pace, fading) = (self.pace(), self.rate.samples(FADING));
        let line = &mut self.lines[index];
        let offset = position.saturating_sub(line.start.unwrap_or(position));
        if offset >= line.length() {
            return;
        }
        let times = line.tokens.times(line.complete_length(), pace);
        let count = line.tokens.heard(offset, line.complete_length(), pace, fading);
        let Some(&(begins, _)) = times.get(count) else { return };
        if begins >= offset {
            return;
        }
        let rest_audio = line.audio[begins as usize..].to_vec();
        line.audio.truncate(offset as usize);
        let rest = Line {
            id: line.id,
            answer: line.answer,
            language: line.language,
            protected: line.protected,
            tokens: line.tokens.split(count, begins),
            audio: rest_audio,
            start: None,
            making: line.making,
            tries: line.tries,
            // Times that the synthesiser tells from now on are still the whole sentence's.
            origin: line.origin + begins,
        };
        line.making = Making::Done;
        line.id = 0;
        self.lines.insert(index + 1, rest);
    }

    /// What the synthesiser does.
    pub(super) fn speech(&mut self, now: Samples, utterance: u32, speech: Speech) {
        let longest = self.rate.samples(LONGEST);
        let Some(index) =
            self.lines.iter().position(|line| line.id == utterance && line.making == Making::Asked)
        else {
            return;
        };
        let line = &mut self.lines[index];
        match speech {
            Speech::Audio(samples) => {
                let room = longest.saturating_sub(line.length()) as usize;
                line.audio.extend_from_slice(&samples[..samples.len().min(room)]);
            }
            Speech::Words(mut words) => {
                for (_, start, end) in &mut words {
                    *start = start.saturating_sub(line.origin);
                    *end = end.saturating_sub(line.origin);
                }
                line.tokens.told(&words);
                self.word_times = true;
            }
            // Speech without sound is a failure, whatever it is called.
            Speech::Done if line.audio.is_empty() => self.failed(now, index, false),
            Speech::Done => line.making = Making::Done,
            Speech::Failed { fatal } => self.failed(now, index, fatal),
        }
    }

    /// The synthesiser broke off: the words that did not come whole are asked for again.
    fn failed(&mut self, now: Samples, index: usize, fatal: bool) {
        let sent = self.playout.sent();
        let pace = self.pace();
        let wait = self.rate.samples(RETRY) << self.lines[index].tries.min(6);
        self.next_id += 1;
        let next_id = self.next_id;
        let line = &mut self.lines[index];
        line.tries += 1;
        let tries = line.tries;
        if fatal || tries >= TRIES {
            line.making = Making::Waiting(Samples(u64::MAX));
            self.hopeless = true;
            return;
        }
        let Some(start) = line.start else {
            // Nobody has heard any of it.
            line.audio.clear();
            line.tokens = Tokens::new(&line.tokens.text(usize::MAX));
            line.origin = 0;
            line.id = next_id;
            line.making = Making::Waiting(now + wait);
            return;
        };
        let length = line.length();
        let whole =
            line.tokens.all.iter().take_while(|t| t.time.is_some_and(|(_, end)| end <= length)).count();
        let count = if self.word_times { whole } else { line.tokens.heard(length, None, pace, 0) };
        let end = line.tokens.times(None, pace).get(count.wrapping_sub(1)).map_or(0, |&(_, end)| end);
        // What was sent was sent; a word begun is said again.
        line.audio.truncate((sent - start).max(end) as usize);
        line.making = Making::Done;
        line.id = 0;
        let rest = line.tokens.split(count, 0);
        if rest.all.is_empty() {
            return;
        }
        let rest = Line {
            id: next_id,
            answer: line.answer,
            language: line.language,
            protected: line.protected,
            tokens: Tokens::new(&rest.text(usize::MAX)),
            audio: Vec::new(),
            start: None,
            making: Making::Waiting(now + wait),
            tries,
            origin: 0,
        };
        self.lines.insert(index + 1, rest);
    }

    /// The far end has played up to a position.
    pub(super) fn played(&mut self, now: Samples, position: u64) {
        // While it drops what it has, marks come back for what was never played.
        if self.clearing.is_none() {
            self.playout.played(now, position);
        }
    }

    /// Does what is due: asks for speech, sends it, and notices what was heard.
    pub(super) fn pump(&mut self, now: Samples, ledger: &mut Ledger, out: &mut Vec<Effect>) -> Noticed {
        let mut noticed = Noticed { hopeless: std::mem::take(&mut self.hopeless), ..Noticed::default() };
        let waits_long = |at| now - at >= self.rate.samples(CLEAR_TIMEOUT);
        // Who is away can tell when they are back; but an end that is asked for does not wait for them.
        if (!self.absent || self.cutting) && self.clearing.is_some_and(waits_long) {
            noticed.settled = self.cleared(now, None, ledger, out);
        }
        self.request(now, out);
        self.release(now, ledger, out);
        self.hear(now, ledger, out);
        let first = self.answers.front();
        let over = first.filter(|a| a.closed && !self.held && !self.lines.iter().any(|l| l.answer == a.id));
        noticed.over = over.map(|a| a.id);
        if noticed.over.is_some()
            && let Some(a) = self.answers.pop_front()
        {
            record(a.ordinal, a.started, now, a.said, false, ledger, out);
        }
        noticed
    }

    fn request(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let mut outstanding = self.lines.iter().filter(|l| l.making == Making::Asked).count();
        let sent = self.playout.sent();
        let mut ahead = 0;
        for line in &mut self.lines {
            if let Making::Waiting(from) = line.making
                && from <= now
                && outstanding < OUTSTANDING
                && ahead < self.ahead
            {
                line.making = Making::Asked;
                outstanding += 1;
                out.push(Effect::Speak {
                    utterance: line.id,
                    text: line.tokens.text(usize::MAX),
                    language: line.language,
                });
            }
            ahead += line.length() - line.start.map_or(0, |start| (sent - start).min(line.length()));
            if self.held {
                break; // one sentence is enough for a guess
            }
        }
    }

    fn release(&mut self, now: Samples, ledger: &mut Ledger, out: &mut Vec<Effect>) {
        if self.held || self.paused || self.absent || self.clearing.is_some() {
            return;
        }
        let frame = self.rate.samples(FRAME);
        while self.playout.sent() - self.playout.clock(now) < self.lead {
            let sent = self.playout.sent();
            let Some(line) = self.lines.iter_mut().find(|line| {
                line.making != Making::Done || line.start.is_none_or(|start| sent < start + line.length())
            }) else {
                break;
            };
            let offset = line.start.map_or(0, |start| sent - start);
            let available = line.length() - offset;
            let done = line.making == Making::Done;
            if available == 0 || (available < frame && !done) {
                break;
            }
            if line.start.is_none() {
                if self.quiet && !line.protected {
                    break;
                }
                line.start = Some(sent);
            }
            if let Some(answer) = self.answers.iter_mut().find(|a| a.id == line.answer)
                && answer.said.is_empty()
                && answer.ordinal.is_none()
            {
                answer.ordinal = Some(ledger.reserve());
                answer.started = now;
            }
            let take = available.min(frame);
            let samples = line.audio[offset as usize..(offset + take) as usize].to_vec();
            self.playout.push(now, take);
            out.push(Effect::Play(samples));
            let sent = sent + take;
            let ends = done && available == take;
            if ends || sent - self.last_mark >= self.rate.samples(MARK_EVERY) {
                self.last_mark = sent;
                out.push(Effect::Mark(sent));
            }
        }
    }

    /// Takes sentences that were heard whole into the transcript.
    fn hear(&mut self, now: Samples, ledger: &mut Ledger, out: &mut Vec<Effect>) {
        if self.clearing.is_some() {
            return;
        }
        let heard = self.playout.heard(now);
        while let Some(line) = self.lines.front() {
            let whole = line.making == Making::Done && line.start.is_some_and(|s| heard >= s + line.length());
            if !whole {
                break;
            }
            let Some(line) = self.lines.pop_front() else { break };
            let weight = line.tokens.weight();
            if line.length() > 0 && line.origin == 0 && line.id != 0 && weight > 8.0 {
                self.pace = line.length() as f64 / weight;
            }
            let Some(answer) = self.answers.iter_mut().find(|a| a.id == line.answer) else { continue };
            append(&mut answer.said, &line.tokens.text(usize::MAX));
            let (ordinal, started, said) = (answer.ordinal, answer.started, answer.said.clone());
            record(ordinal, started, now, said, false, ledger, out);
        }
    }
}

fn append(said: &mut String, words: &str) {
    if !said.is_empty() && !words.is_empty() {
        said.push(' ');
    }
    said.push_str(words);
}

fn record(
    ordinal: Option<i32>,
    started: Samples,
    now: Samples,
    said: String,
    interrupted: bool,
    ledger: &mut Ledger,
    out: &mut Vec<Effect>,
) {
    if let Some(turn) = ordinal.and_then(|ordinal| ledger.agent(ordinal, started, now, said, interrupted)) {
        out.push(Effect::Record(Entry::Turn(turn)));
    }
}
