//! Captions: the words of an utterance, carried in its own audio.
//!
//! No speech recogniser's weights are available offline, so emulated speech says its words twice: once aloud, and once
//! as a faint data carrier above the voice band. A receiver that gets the audio intact can then tell *exactly* which
//! words arrived, and when; one that gets it byte-swapped, transcoded wrongly or with gaps gets no words at all.
//!
//! The carrier is eight-tone FSK, 125 symbols a second (375 bit/s), 2,875 to 3,750 Hz, about 22 dB below the speech,
//! which is low-passed below it. Each word is one packet of octal digits:
//!
//! | digits | field |
//! |---|---|
//! | 4 | sync pattern |
//! | 2 | length in character codes |
//! | 2 | packet start after the word's start, in 20 ms |
//! | 2 | the word's length, in 20 ms |
//! | 2 each | six-bit character codes |
//! | 5 | CRC-15 of all but the sync |
//!
//! A packet ends when its word ends where the rate allows, so that a word cut short is a word not heard.

use std::collections::VecDeque;

use super::{Word, filter::Fir};

const RATE: usize = 8_000;
const TONES: usize = 8;
/// Samples in a symbol; tones sit on multiples of `RATE / SYMBOL`, hence orthogonal.
const SYMBOL: usize = 64;
/// The lowest tone, in multiples of `RATE / SYMBOL`: 2,875 Hz.
const LOWEST: usize = 23;
/// The decoder looks for a packet at every 1 ms.
const STEP: usize = 8;
const STEPS: usize = SYMBOL / STEP;
/// Speech must stay below this for the carrier to be read.
pub(crate) const SPEECH_TOP_HZ: f64 = 2_660.0;
/// Peak of the carrier; speech is levelled to an RMS of [`super::SPEECH_RMS`].
const CARRIER_PEAK: f32 = 368.0;

const SYNC: [u8; 4] = [7, 0, 5, 2];
const HEADER: usize = SYNC.len() + 6;
const CRC_DIGITS: usize = 5;
const UNIT_MS: u32 = 20;
/// Longest word in one packet, in character codes; a longer one is split.
const MAX_CODES: usize = 24;
const MAX_PACKET: usize = HEADER + 2 * MAX_CODES + CRC_DIGITS;
/// Packets under observation at once; far more than can be genuine.
const MAX_CANDIDATES: usize = 256;

const PUNCTUATION: &str = "'.,?!-:;\"()$%&/@#+=*_£€’";
const ESCAPE: u8 = 60;
const SHIFT: u8 = 62;
const CAPITALS: u8 = 63;

/// A word that arrived whole, and the milliseconds of the received stream in which it was spoken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HeardWord {
    /// The word as written, with its case and punctuation.
    pub text: String,
    /// When the word begins, from the first sample that the decoder was given.
    pub start_ms: u32,
    /// When the word ends.
    pub end_ms: u32,
}

fn character_codes(c: char, out: &mut Vec<u8>) {
    match c {
        'a'..='z' => out.push(c as u8 - b'a'),
        '0'..='9' => out.push(c as u8 - b'0' + 26),
        'A'..='Z' => out.extend([SHIFT, c as u8 - b'A']),
        _ => match PUNCTUATION.chars().position(|p| p == c) {
            Some(index) => out.push(36 + index as u8),
            None => {
                let point = u32::from(c);
                out.push(ESCAPE);
                out.extend((0..4).rev().map(|i| ((point >> (6 * i)) & 63) as u8));
            }
        },
    }
}

/// Cuts a token into pieces that each fit one packet.
pub(crate) fn pieces(token: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut used = 0;
    for c in token.chars() {
        let mut codes = Vec::new();
        character_codes(c, &mut codes);
        if used + codes.len() > MAX_CODES {
            out.push(String::new());
            used = 0;
        }
        used += codes.len();
        out.last_mut().expect("never empty").push(c);
    }
    out
}

fn word_codes(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    if capitals > 1 && !word.chars().any(|c| c.is_ascii_lowercase()) {
        out.push(CAPITALS);
        word.chars().for_each(|c| character_codes(c.to_ascii_lowercase(), &mut out));
    } else {
        word.chars().for_each(|c| character_codes(c, &mut out));
    }
    out
}

fn word_text(codes: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut capitals = false;
    let mut shift = false;
    let mut codes = codes.iter().copied();
    while let Some(code) = codes.next() {
        let c = match code {
            0..26 => char::from(b'a' + code),
            26..36 => char::from(b'0' + code - 26),
            36..60 => PUNCTUATION.chars().nth(usize::from(code) - 36)?,
            ESCAPE => {
                let mut point = 0;
                for _ in 0..4 {
                    point = (point << 6) | u32::from(codes.next()?);
                }
                char::from_u32(point)?
            }
            SHIFT => {
                shift = true;
                continue;
            }
            CAPITALS => {
                capitals = true;
                continue;
            }
            _ => return None,
        };
        text.push(if capitals || shift { c.to_ascii_uppercase() } else { c });
        shift = false;
    }
    (!text.is_empty()).then_some(text)
}

/// CRC-15-CAN over octal digits.
fn crc15(digits: &[u8]) -> u16 {
    let mut crc = 0u16;
    for &digit in digits {
        for bit in (0..3).rev() {
            let feedback = ((crc >> 14) & 1) ^ u16::from((digit >> bit) & 1);
            crc = (crc << 1) & 0x7fff;
            if feedback == 1 {
                crc ^= 0x4599;
            }
        }
    }
    crc
}

fn packet(codes: &[u8], lag_ms: u32, length_ms: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(MAX_PACKET);
    let six_bits = |value: u8, body: &mut Vec<u8>| body.extend([value >> 3, value & 7]);
    let units = |ms: u32| ((ms + UNIT_MS / 2) / UNIT_MS).min(63) as u8;
    six_bits(codes.len() as u8, &mut body);
    six_bits(units(lag_ms), &mut body);
    six_bits(units(length_ms), &mut body);
    codes.iter().for_each(|&code| six_bits(code, &mut body));
    let crc = crc15(&body);
    body.extend((0..CRC_DIGITS).rev().map(|i| ((crc >> (3 * i)) & 7) as u8));
    [&SYNC[..], &body].concat()
}

/// Adds the captions of `words` to speech, lengthening it where they outlast it.
///
/// Each word must be one of its token's [`pieces`].
pub(crate) fn add(words: &[Word], speech: &mut Vec<f32>) {
    let mut free = 0;
    for word in words {
        let codes = word_codes(&word.text);
        let symbols = HEADER + 2 * codes.len() + CRC_DIGITS;
        let (start, end) = (word.start_ms as usize * RATE / 1000, word.end_ms as usize * RATE / 1000);
        let at = end.saturating_sub(symbols * SYMBOL).max(start).max(free);
        let lag_ms = ((at - start) * 1000 / RATE) as u32;
        free = at + symbols * SYMBOL;
        if speech.len() < free {
            speech.resize(free, 0.0);
        }
        write(&packet(&codes, lag_ms, word.end_ms - word.start_ms), &mut speech[at..free]);
    }
}

/// Continuous-phase FSK with soft ends, so that the carrier stays in its band.
fn write(digits: &[u8], out: &mut [f32]) {
    let mut phase = 0.0f32;
    let ramp = SYMBOL / 8;
    let last = out.len();
    for (i, sample) in out.iter_mut().enumerate() {
        let tone = LOWEST + usize::from(digits[i / SYMBOL]);
        phase = (phase + std::f32::consts::TAU * tone as f32 / SYMBOL as f32) % std::f32::consts::TAU;
        let edge = ((i + 1).min(last - i).min(ramp)) as f32 / ramp as f32;
        *sample += CARRIER_PEAK * edge * phase.sin();
    }
}

/// Reads captions out of a stream of 8 kHz samples, cut and chunked anyhow.
///
/// Every word whose packet arrived whole is reported once, with its time; a cut or damaged one never is.
pub struct CaptionDecoder {
    filter: Fir,
    /// One turn of each tone's reference wave.
    reference: Vec<[(f32, f32); SYMBOL]>,
    samples: u64,
    partial: [(f32, f32); TONES],
    steps: VecDeque<[(f32, f32); TONES]>,
    /// The symbol that would begin at each recent step; the newest is number `newest`.
    symbols: VecDeque<Symbol>,
    newest: u64,
    candidates: Vec<u64>,
    /// No packet begins before this step: what precedes it has been read.
    read_to: u64,
}

#[derive(Clone, Copy)]
struct Symbol {
    digit: u8,
    /// The chosen tone's share of the power in all tones.
    purity: f32,
}

impl Default for CaptionDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl CaptionDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        let reference = (0..TONES)
            .map(|tone| {
                std::array::from_fn(|n| {
                    let turns = ((LOWEST + tone) * n % SYMBOL) as f32 / SYMBOL as f32;
                    let (sin, cos) = (turns * std::f32::consts::TAU).sin_cos();
                    (cos, -sin)
                })
            })
            .collect();
        Self {
            filter: Fir::high_pass(RATE as f64, 2_740.0, 64),
            reference,
            samples: 0,
            partial: [(0.0, 0.0); TONES],
            steps: VecDeque::with_capacity(STEPS + 1),
            symbols: VecDeque::with_capacity(MAX_PACKET * STEPS + 1),
            newest: 0,
            candidates: Vec::new(),
            read_to: 0,
        }
    }

    /// Takes the next samples; returns the words that they completed.
    pub fn push(&mut self, samples: &[i16]) -> Vec<HeardWord> {
        let mut words = Vec::new();
        for &sample in samples {
            let value = self.filter.step(f32::from(sample));
            let at = (self.samples % SYMBOL as u64) as usize;
            for (sum, reference) in self.partial.iter_mut().zip(&self.reference) {
                let (cos, sin) = reference[at];
                sum.0 += value * cos;
                sum.1 += value * sin;
            }
            self.samples += 1;
            if self.samples.is_multiple_of(STEP as u64) {
                self.step(&mut words);
            }
        }
        words
    }

    fn step(&mut self, words: &mut Vec<HeardWord>) {
        self.steps.push_back(std::mem::replace(&mut self.partial, [(0.0, 0.0); TONES]));
        if self.steps.len() < STEPS {
            return;
        }
        let mut power = [0.0f32; TONES];
        for (tone, power) in power.iter_mut().enumerate() {
            let (re, im) =
                self.steps.iter().fold((0.0, 0.0), |sum, step| (sum.0 + step[tone].0, sum.1 + step[tone].1));
            *power = re * re + im * im;
        }
        self.steps.pop_front();
        let total: f32 = power.iter().sum();
        let (digit, best) =
            power.iter().enumerate().fold((0, 0.0), |best, (i, &p)| if p > best.1 { (i, p) } else { best });
        // Below this the "carrier" is a fraction of one quantisation step: silence.
        let floor = (10.0 * SYMBOL as f32 / 2.0).powi(2);
        let purity = if best > floor { best / total } else { 0.0 };
        self.symbols.push_back(Symbol { digit: digit as u8, purity });
        self.newest = self.samples / STEP as u64 - STEPS as u64;
        if self.symbols.len() > MAX_PACKET * STEPS {
            self.symbols.pop_front();
        }
        let span = ((SYNC.len() - 1) * STEPS) as u64;
        if let Some(start) = self.newest.checked_sub(span)
            && start >= self.read_to
            && self.candidates.len() < MAX_CANDIDATES
            && (0..SYNC.len())
                .all(|i| self.symbol(start, i).is_some_and(|s| s.digit == SYNC[i] && s.purity > 0.3))
        {
            self.candidates.push(start);
        }
        self.settle(words);
    }

    fn symbol(&self, start: u64, index: usize) -> Option<Symbol> {
        let back = self.newest.checked_sub(start + (index * STEPS) as u64)?;
        let at = self.symbols.len().checked_sub(1 + back as usize)?;
        self.symbols.get(at).copied()
    }

    fn six_bits(&self, start: u64, index: usize) -> Option<u8> {
        Some((self.symbol(start, index)?.digit << 3) | self.symbol(start, index + 1)?.digit)
    }

    /// Reads every candidate whose packet has arrived in full.
    fn settle(&mut self, words: &mut Vec<HeardWord>) {
        let mut at = 0;
        while at < self.candidates.len() {
            let start = self.candidates[at];
            let arrived = ((self.newest - start) as usize) / STEPS + 1;
            if arrived < HEADER {
                at += 1;
                continue;
            }
            let length = self.six_bits(start, SYNC.len()).map_or(0, usize::from);
            let total = HEADER + 2 * length + CRC_DIGITS;
            if (1..=MAX_CODES).contains(&length) && arrived < total {
                at += 1;
                continue;
            }
            self.candidates.remove(at);
            if (1..=MAX_CODES).contains(&length)
                && let Some(word) = self.read(start, length)
            {
                words.push(word);
                // A packet may be found a few steps early or late; the next one must not be missed for it.
                self.read_to = (start + (total * STEPS) as u64).saturating_sub(6);
                self.candidates.retain(|&other| other >= self.read_to);
                at = 0;
            }
        }
    }

    fn read(&self, start: u64, length: usize) -> Option<HeardWord> {
        let digits = (SYNC.len()..HEADER + 2 * length + CRC_DIGITS)
            .map(|i| self.symbol(start, i).map(|s| s.digit))
            .collect::<Option<Vec<u8>>>()?;
        let (body, crc) = digits.split_at(digits.len() - CRC_DIGITS);
        if crc.iter().fold(0u16, |sum, &d| (sum << 3) | u16::from(d)) != crc15(body) {
            return None;
        }
        let codes: Vec<u8> = body[6..].chunks(2).map(|pair| (pair[0] << 3) | pair[1]).collect();
        let text = word_text(&codes)?;
        let packet_ms = (start * STEP as u64).saturating_sub(self.filter.delay() as u64) * 1000 / RATE as u64;
        let lag = u32::from((body[2] << 3) | body[3]) * UNIT_MS;
        let start_ms = (packet_ms as u32).saturating_sub(lag);
        Some(HeardWord { text, start_ms, end_ms: start_ms + u32::from((body[4] << 3) | body[5]) * UNIT_MS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_its_codes() {
        for text in [
            "hello",
            "Hello,",
            "NASA's",
            "it's",
            "$42.50",
            "McDonald",
            "café",
            "日本",
            "a-b_c@d.e",
            "I",
            "O'Neil",
        ] {
            assert_eq!(word_text(&word_codes(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn long_tokens_are_split_and_lose_nothing() {
        let token = "https://example.com/a-very-long-path?with=Many&Parameters=1";
        let cut = pieces(token);
        assert!(cut.len() > 1 && cut.iter().all(|p| word_codes(p).len() <= MAX_CODES));
        assert_eq!(cut.concat(), token);
    }

    #[test]
    fn crc_notices_every_single_wrong_digit() {
        let digits = [1u8, 2, 3, 4, 5, 6, 7, 0, 1, 2];
        for i in 0..digits.len() {
            for change in 1..8u8 {
                let mut wrong = digits;
                wrong[i] ^= change;
                assert_ne!(crc15(&wrong), crc15(&digits));
            }
        }
    }
}
