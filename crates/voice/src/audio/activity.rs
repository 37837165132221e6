//! Voice activity: whether somebody speaks, and whether it is only our own voice coming back.

use std::collections::VecDeque;
use std::time::Duration;

use super::resample::Resampler;

/// The network's frame: 16 ms at 16 kHz.
const FRAME: usize = 256;
const NETWORK_RATE: u32 = 16_000;
/// Frames that the network needs to know the line's noise.
const WARM_UP: u64 = 12;
const FRAME_TIME: Duration = Duration::from_millis(16);

/// What counts as a voice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensitivity {
    /// Probability of speech in a frame, 0 to 1, that counts as speech.
    pub threshold: f32,
    /// Speech that begins a voice.
    pub onset: Duration,
    /// Silence that ends it.
    pub hangover: Duration,
}

impl Default for Sensitivity {
    fn default() -> Self {
        Self { threshold: 0.5, onset: Duration::from_millis(64), hangover: Duration::from_millis(240) }
    }
}

/// What was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Somebody speaks.
    Started {
        /// Input samples from the first one to where the speech began.
        at: u64,
    },
    /// They have been silent for the hangover.
    Ended {
        /// Input samples from the first one to where the silence began.
        at: u64,
    },
}

/// Tells speech from everything else in a stream of samples.
///
/// Deterministic: the same samples give the same events, however they are chunked.
pub struct Detector {
    sensitivity: Sensitivity,
    network: Box<earshot::Detector>,
    rate: u32,
    resampler: Option<Resampler>,
    pending: Vec<i16>,
    frames: u64,
    run: u32,
    silence: u32,
    speaking: bool,
    floor: Floor,
    echo: EchoGuard,
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector")
            .field("rate", &self.rate)
            .field("speaking", &self.speaking)
            .finish_non_exhaustive()
    }
}

impl Detector {
    /// For a stream at this rate in Hz.
    pub fn new(rate: u32, sensitivity: Sensitivity) -> Self {
        Self {
            sensitivity,
            network: earshot::Detector::default_boxed(),
            rate,
            resampler: (rate != NETWORK_RATE).then(|| Resampler::new(rate, NETWORK_RATE)),
            pending: Vec::with_capacity(2 * FRAME),
            frames: 0,
            run: 0,
            silence: 0,
            speaking: false,
            floor: Floor::default(),
            echo: EchoGuard::new(rate),
        }
    }

    /// Whether somebody speaks.
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// What we play to the person, at the same rate: it may come back as an echo.
    pub fn played(&mut self, samples: &[i16]) {
        self.echo.played(samples);
    }

    /// What was not played of it was dropped.
    pub fn cleared(&mut self) {
        self.echo.cleared();
    }

    /// Takes the next samples, however many, and appends what they settle to `out`.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<Activity>) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(samples, &mut self.pending),
            None => self.pending.extend_from_slice(samples),
        }
        let pending = std::mem::take(&mut self.pending);
        let mut frames = pending.chunks_exact(FRAME);
        for frame in &mut frames {
            if let Some(activity) = self.frame(frame) {
                out.push(activity);
            }
        }
        self.pending = frames.remainder().to_vec();
    }

    fn frame(&mut self, frame: &[i16]) -> Option<Activity> {
        self.frames += 1;
        let score = self.network.predict_i16(frame);
        let is_echo = self.echo.explains(frame);
        let stands_out = self.floor.is_exceeded(frame);
        let speech = score >= self.sensitivity.threshold && stands_out && !is_echo && self.frames > WARM_UP;
        let frames = |time: Duration| time.as_millis().div_ceil(FRAME_TIME.as_millis()) as u32;
        if speech {
            self.run += 1;
            self.silence = 0;
        } else {
            self.run = 0;
            self.silence += 1;
        }
        if !self.speaking && self.run >= frames(self.sensitivity.onset) {
            self.speaking = true;
            return Some(Activity::Started { at: self.position(u64::from(self.run)) });
        }
        if self.speaking && self.silence >= frames(self.sensitivity.hangover) {
            self.speaking = false;
            return Some(Activity::Ended { at: self.position(u64::from(self.silence)) });
        }
        None
    }

    /// Input samples up to `back` frames ago.
    fn position(&self, back: u64) -> u64 {
        (self.frames - back.min(self.frames)) * FRAME as u64 * u64::from(self.rate) / u64::from(NETWORK_RATE)
    }
}

/// Frames over which noise is steady: one and a half seconds.
const STEADY: usize = 94;
/// Speech is this much louder than the noise behind it.
const ABOVE_FLOOR: f32 = 1.8;

/// The noise that is always there. With the narrow band of a telephone, the network takes loud steady noise for speech;
/// but nobody speaks for long without a gap between two sounds.
#[derive(Debug, Default)]
struct Floor {
    last: f32,
    recent: VecDeque<f32>,
}

impl Floor {
    /// Whether the frame is louder than the quietest one of late. Differences between samples are compared, so that
    /// rumble counts little.
    fn is_exceeded(&mut self, frame: &[i16]) -> bool {
        let mut energy = 0.0;
        for &sample in frame {
            let sample = f32::from(sample);
            energy += (sample - self.last).powi(2);
            self.last = sample;
        }
        let level = (energy / frame.len() as f32).sqrt();
        if self.recent.len() == STEADY {
            self.recent.pop_front();
        }
        self.recent.push_back(level);
        let floor = self.recent.iter().copied().fold(f32::MAX, f32::min);
        level > floor * ABOVE_FLOOR
    }
}

/// Frames of both sides that are compared: two seconds.
const WINDOW: usize = 128;
/// Longest way of an echo, in frames: 512 ms.
const LONGEST_WAY: usize = 32;
/// The way is looked for again after this many frames.
const LEARN_EVERY: u64 = 16;
/// Likeness of the two envelopes from which one is the other's echo.
const LIKENESS: f32 = 0.75;
/// A voice this much louder than the echo is a voice.
const MARGIN: f32 = 2.0;
/// Frames for which an echo lasts, and the network's memory of it.
const TAIL: usize = 8;
/// RMS below which nothing is played.
const AUDIBLE: f32 = 40.0;

/// Knows our own voice when it comes back: from how loud it is when, at the delay at which it usually comes.
///
/// It compares envelopes, so it costs next to nothing and cannot remove an echo; it only keeps us from taking it for a
/// person who cuts in. A person who is clearly louder than the echo is heard.
#[derive(Debug)]
struct EchoGuard {
    rate: u32,
    /// Samples that are being played.
    playing: VecDeque<i16>,
    /// RMS of each frame: what was played, what came.
    out: VecDeque<f32>,
    inward: VecDeque<f32>,
    frames: u64,
    /// Frames from playing to hearing, and the echo's strength.
    path: Option<(usize, f32)>,
}

impl EchoGuard {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            playing: VecDeque::new(),
            out: VecDeque::from(vec![0.0; WINDOW + LONGEST_WAY]),
            inward: VecDeque::from(vec![0.0; WINDOW]),
            frames: 0,
            path: None,
        }
    }

    fn played(&mut self, samples: &[i16]) {
        // What is sent ahead of playing: more than a second of it is somebody's mistake.
        let room = (self.rate as usize * 2).saturating_sub(self.playing.len());
        self.playing.extend(&samples[..samples.len().min(room)]);
    }

    fn cleared(&mut self) {
        self.playing.clear();
    }

    /// Takes the next frame of the person's side; whether all of it may be echo.
    fn explains(&mut self, frame: &[i16]) -> bool {
        let samples = (FRAME as u64 * u64::from(self.rate) / u64::from(NETWORK_RATE)) as usize;
        let played = self.playing.len().min(samples);
        let out = rms(self.playing.drain(..played), samples);
        let inward = rms(frame.iter().copied(), frame.len());
        self.out.pop_front();
        self.out.push_back(out);
        self.inward.pop_front();
        self.inward.push_back(inward);
        self.frames += 1;
        if self.frames.is_multiple_of(LEARN_EVERY) {
            self.learn();
        }
        let Some((lag, strength)) = self.path else { return false };
        // The two sides' frames do not begin together, rooms reverberate, and the network remembers.
        let newest = self.out.len() - 1;
        let loudest = (lag.saturating_sub(1)..=lag + TAIL)
            .filter_map(|l| self.out.get(newest - l))
            .fold(0.0f32, |a, b| a.max(*b));
        loudest > AUDIBLE && inward <= loudest * strength * MARGIN
    }

    fn learn(&mut self) {
        let active = self.out.iter().filter(|rms| **rms > AUDIBLE).count();
        if active < WINDOW / 4 {
            return; // silence teaches nothing
        }
        let out: Vec<f32> = self.out.iter().copied().collect();
        let inward: Vec<f32> = self.inward.iter().copied().collect();
        let mut best: Option<(f32, usize)> = None;
        for lag in 0..LONGEST_WAY {
            let played = &out[LONGEST_WAY - lag..LONGEST_WAY - lag + WINDOW];
            let likeness = correlation(played, &inward);
            if best.is_none_or(|(known, _)| likeness > known) {
                best = Some((likeness, lag));
            }
        }
        let Some((likeness, lag)) = best else { return };
        if likeness < LIKENESS {
            return; // a person talks, or there is no echo: what was learnt before stays
        }
        let played = &out[LONGEST_WAY - lag..LONGEST_WAY - lag + WINDOW];
        let (mut both, mut own) = (0.0, 0.0);
        for (o, i) in played.iter().zip(&inward) {
            both += o * i;
            own += o * o;
        }
        self.path = Some((lag, both / own.max(1.0)));
    }
}

fn rms(samples: impl Iterator<Item = i16>, count: usize) -> f32 {
    let energy: f32 = samples.map(|s| f32::from(s) * f32::from(s)).sum();
    (energy / count.max(1) as f32).sqrt()
}

fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len() as f32;
    let (mean_a, mean_b) = (a.iter().sum::<f32>() / n, b.iter().sum::<f32>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb).sqrt().max(1.0)
}
