//! Hearing: bytes to words and turns.

use crate::g711;
use crate::speech::{CaptionDecoder, HeardWord, Resampler, SAMPLE_RATE, Vad, VadEvent, VadOptions};

/// How raw audio is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Pcm(u32),
    Mulaw,
    Alaw,
}

impl Format {
    pub(super) fn bytes_per_second(self) -> u32 {
        match self {
            Self::Pcm(rate) => rate * 2,
            Self::Mulaw | Self::Alaw => 8_000,
        }
    }

    /// Samples at 8 kHz as bytes of this format.
    pub(super) fn encode(self, samples: &[i16]) -> Vec<u8> {
        match self {
            Self::Mulaw => g711::linear_to_mulaw(samples),
            Self::Alaw => g711::linear_to_alaw(samples),
            Self::Pcm(rate) => {
                Resampler::whole(SAMPLE_RATE, rate, samples).iter().flat_map(|s| s.to_le_bytes()).collect()
            }
        }
    }
}

/// What a piece of audio settled.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub(super) words: Vec<HeardWord>,
    pub(super) turns: Vec<VadEvent>,
}

/// A listener that detects speech after `silence_ms` of silence.
pub(super) struct Ears {
    format: Format,
    resampler: Resampler,
    odd: Option<u8>,
    captions: CaptionDecoder,
    vads: Vec<Vad>,
    bytes: u64,
}

impl Ears {
    pub(super) fn new(format: Format, silences_ms: &[u32]) -> Self {
        let from = if let Format::Pcm(rate) = format { rate } else { SAMPLE_RATE };
        let vad = |silence: &u32| {
            Vad::new(VadOptions {
                silence_duration_ms: *silence,
                prefix_padding_ms: 0,
                ..VadOptions::default()
            })
        };
        Self {
            format,
            resampler: Resampler::new(from, SAMPLE_RATE),
            odd: None,
            captions: CaptionDecoder::new(),
            vads: silences_ms.iter().map(vad).collect(),
            bytes: 0,
        }
    }

    /// Audio so far, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.bytes as f64 / f64::from(self.format.bytes_per_second())
    }

    fn samples(&mut self, bytes: &[u8]) -> Vec<i16> {
        match self.format {
            Format::Mulaw => g711::mulaw_to_linear(bytes),
            Format::Alaw => g711::alaw_to_linear(bytes),
            Format::Pcm(rate) => {
                let mut whole: Vec<u8> = self.odd.take().into_iter().collect();
                whole.extend_from_slice(bytes);
                if !whole.len().is_multiple_of(2) {
                    self.odd = whole.pop();
                }
                let samples: Vec<i16> =
                    whole.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
                if rate == SAMPLE_RATE { samples } else { self.resampler.push(&samples) }
            }
        }
    }

    /// Takes the next bytes; returns the words, and what each detector noticed.
    pub(super) fn push(&mut self, bytes: &[u8]) -> (Vec<HeardWord>, Vec<Vec<VadEvent>>) {
        self.bytes += bytes.len() as u64;
        let samples = self.samples(bytes);
        let words = self.captions.push(&samples);
        let turns = self.vads.iter_mut().map(|vad| vad.push(&samples)).collect();
        (words, turns)
    }

    /// As [`Ears::push`] for one detector.
    pub(super) fn notice(&mut self, bytes: &[u8]) -> Noticed {
        let (words, turns) = self.push(bytes);
        Noticed { words, turns: turns.into_iter().flatten().collect() }
    }
}
