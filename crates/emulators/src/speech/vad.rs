//! Voice activity detection with hangover, as a server's turn detection does it.

use super::{SAMPLE_RATE, filter::Resampler};

/// The detector's frame: 256 samples at 16 kHz.
const FRAME: usize = 256;
const FRAME_MS: u32 = 16;
/// Speech must last this long to start a turn, so that a click does not.
const ONSET_FRAMES: u32 = 4;
/// An emulated tone is no voice to the neural network: what is this loud, and nearly all below [`TONE_HZ`], counts too.
const TONE_RMS: f32 = 900.0;
const TONE_HZ: f32 = 1_400.0;

/// When a turn is taken to start and to end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VadOptions {
    /// Probability of speech, 0 to 1, that counts as speech.
    pub threshold: f32,
    /// How much audio before the first speech belongs to the turn.
    pub prefix_padding_ms: u32,
    /// How much silence ends a turn.
    pub silence_duration_ms: u32,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self { threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 500 }
    }
}

/// What the detector noticed, in milliseconds from its first sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VadEvent {
    /// Somebody speaks; the turn's audio begins at `at_ms`, padding included.
    SpeechStarted {
        /// The first millisecond of the turn.
        at_ms: u32,
    },
    /// The silence has lasted; the turn's audio ends at `at_ms`, that silence included.
    SpeechStopped {
        /// The end of the turn.
        at_ms: u32,
    },
}

/// A streaming detector of turns in 8 kHz audio.
pub struct Vad {
    options: VadOptions,
    detector: Box<earshot::Detector>,
    upsample: Resampler,
    pending: Vec<i16>,
    low: f32,
    frames: u32,
    run: u32,
    speaking: bool,
    last_speech_ms: u32,
}

impl Vad {
    /// A detector at the start of a stream.
    #[must_use]
    pub fn new(options: VadOptions) -> Self {
        Self {
            options,
            detector: earshot::Detector::default_boxed(),
            upsample: Resampler::new(SAMPLE_RATE, 2 * SAMPLE_RATE),
            pending: Vec::with_capacity(2 * FRAME),
            low: 0.0,
            frames: 0,
            run: 0,
            speaking: false,
            last_speech_ms: 0,
        }
    }

    /// Changes the settings from here on.
    pub fn set_options(&mut self, options: VadOptions) {
        self.options = options;
    }

    /// Whether a turn is in progress.
    #[must_use]
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// Takes the next samples, however many; returns what they settled.
    pub fn push(&mut self, samples: &[i16]) -> Vec<VadEvent> {
        self.pending.extend(self.upsample.push(samples));
        let mut events = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        let mut frames = pending.chunks_exact(FRAME);
        for frame in &mut frames {
            if let Some(event) = self.frame(frame) {
                events.push(event);
            }
        }
        self.pending.extend_from_slice(frames.remainder());
        events
    }

    fn frame(&mut self, frame: &[i16]) -> Option<VadEvent> {
        let start_ms = self.frames * FRAME_MS;
        self.frames += 1;
        let score = self.detector.predict_i16(frame);
        let speech = score >= self.options.threshold || self.is_tone(frame);
        self.run = if speech { self.run + 1 } else { 0 };
        if speech {
            self.last_speech_ms = start_ms + FRAME_MS;
        }
        if !self.speaking && self.run >= ONSET_FRAMES {
            self.speaking = true;
            let onset = start_ms + FRAME_MS - ONSET_FRAMES * FRAME_MS;
            return Some(VadEvent::SpeechStarted {
                at_ms: onset.saturating_sub(self.options.prefix_padding_ms),
            });
        }
        let silent_ms = (start_ms + FRAME_MS).saturating_sub(self.last_speech_ms);
        if self.speaking && silent_ms >= self.options.silence_duration_ms {
            self.speaking = false;
            return Some(VadEvent::SpeechStopped {
                at_ms: self.last_speech_ms + self.options.silence_duration_ms,
            });
        }
        None
    }

    /// Loud, and with nearly all its energy below [`TONE_HZ`]: not noise, whose energy is spread.
    fn is_tone(&mut self, frame: &[i16]) -> bool {
        let coefficient = 1.0 - (-std::f32::consts::TAU * TONE_HZ / (2.0 * SAMPLE_RATE as f32)).exp();
        let (mut all, mut high) = (0.0f32, 0.0f32);
        for &sample in frame {
            let sample = f32::from(sample);
            self.low += coefficient * (sample - self.low);
            all += sample * sample;
            high += (sample - self.low).powi(2);
        }
        (all / FRAME as f32).sqrt() > TONE_RMS && high < all * 0.35
    }
}
