//! Filters and sample-rate conversion, all windowed-sinc FIR with linear phase.

use std::collections::VecDeque;

/// Kaiser window shape for about 70 dB of stop band.
const KAISER_BETA: f64 = 6.8;

fn bessel_i0(x: f64) -> f64 {
    let mut sum = 1.0;
    let mut term = 1.0;
    let mut k = 1.0;
    while term > sum * 1e-12 {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Ideal low-pass response at `offset` samples from the centre, windowed to `half` samples each side.
fn tap(offset: f64, cutoff: f64, half: f64) -> f64 {
    if offset.abs() > half {
        return 0.0;
    }
    let x = 2.0 * cutoff * offset;
    let sinc =
        if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    let edge = (1.0 - (offset / half).powi(2)).max(0.0).sqrt();
    2.0 * cutoff * sinc * bessel_i0(KAISER_BETA * edge) / bessel_i0(KAISER_BETA)
}

pub(crate) fn to_i16(value: f32) -> i16 {
    value.round().clamp(-32_768.0, 32_767.0) as i16
}

/// A streaming FIR filter.
pub(crate) struct Fir {
    taps: Vec<f32>,
    history: Vec<f32>,
    at: usize,
}

impl Fir {
    /// Passes below `cutoff_hz`.
    pub(crate) fn low_pass(rate: f64, cutoff_hz: f64, half: usize) -> Self {
        let taps = (-(half as isize)..=half as isize)
            .map(|i| tap(i as f64, cutoff_hz / rate, half as f64 + 1.0) as f32)
            .collect::<Vec<_>>();
        Self::new(taps)
    }

    /// Passes above `cutoff_hz`: a unit impulse less the low-pass of the same length.
    pub(crate) fn high_pass(rate: f64, cutoff_hz: f64, half: usize) -> Self {
        let mut filter = Self::low_pass(rate, cutoff_hz, half);
        for value in &mut filter.taps {
            *value = -*value;
        }
        filter.taps[half] += 1.0;
        filter
    }

    fn new(taps: Vec<f32>) -> Self {
        // Twice the length, so that the newest `taps.len()` samples are always one contiguous slice.
        let history = vec![0.0; taps.len() * 2];
        Self { taps, history, at: 0 }
    }

    /// Samples by which the output lags the input.
    pub(crate) fn delay(&self) -> usize {
        self.taps.len() / 2
    }

    pub(crate) fn step(&mut self, sample: f32) -> f32 {
        let n = self.taps.len();
        self.history[self.at] = sample;
        self.history[self.at + n] = sample;
        self.at = (self.at + 1) % n;
        self.history[self.at..self.at + n].iter().zip(&self.taps).map(|(x, t)| x * t).sum()
    }

    /// Filters a whole recording and removes the delay, so that the result lines up with the input.
    pub(crate) fn aligned(mut self, samples: &[f32]) -> Vec<f32> {
        let delay = self.delay();
        let padded = samples.iter().copied().chain(std::iter::repeat_n(0.0, delay));
        padded.map(|sample| self.step(sample)).skip(delay).collect()
    }
}

/// A streaming polyphase converter between two sample rates.
///
/// Output sample `n` is taken at input position `n * from / to`; the filter has one set of taps for each of the
/// `to / gcd` fractional positions that occur.
pub struct Resampler {
    phases: Vec<Vec<f32>>,
    up: usize,
    down: usize,
    half: usize,
    input: VecDeque<f32>,
    /// Index of `input[0]` relative to the next output's base sample, and that output's fractional phase.
    base: usize,
    phase: usize,
}

impl Resampler {
    /// A converter that keeps everything up to 48 % of the lower of the two rates.
    ///
    /// # Panics
    /// When a rate is zero.
    #[must_use]
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        assert!(from_hz > 0 && to_hz > 0, "sample rates are positive");
        let divisor = gcd(from_hz, to_hz);
        let (up, down) = ((to_hz / divisor) as usize, (from_hz / divisor) as usize);
        let ratio = f64::from(to_hz.min(from_hz)) / f64::from(from_hz);
        let cutoff = 0.5 * ratio * 0.97;
        let half = (32.0 / ratio).ceil() as usize;
        let phases = (0..up)
            .map(|phase| {
                let fraction = phase as f64 / up as f64;
                (0..=2 * half)
                    .map(|i| tap(i as f64 - half as f64 - fraction, cutoff, half as f64 + 1.0) as f32)
                    .collect()
            })
            .collect();
        // Half a filter of silence stands before the first sample, so output 0 is centred on input 0.
        Self { phases, up, down, half, input: std::iter::repeat_n(0.0, half).collect(), base: 0, phase: 0 }
    }

    /// Converts the next samples; the last few milliseconds stay inside until more arrive.
    pub fn push(&mut self, samples: &[i16]) -> Vec<i16> {
        self.input.extend(samples.iter().map(|&s| f32::from(s)));
        let mut out = Vec::with_capacity(samples.len() * self.up / self.down + 2);
        let span = 2 * self.half + 1;
        while self.base + span <= self.input.len() {
            let taps = &self.phases[self.phase];
            let value: f32 =
                self.input.range(self.base..self.base + span).zip(taps).map(|(x, t)| x * t).sum();
            out.push(to_i16(value));
            let next = self.phase + self.down;
            self.base += next / self.up;
            self.phase = next % self.up;
        }
        let spent = self.base.min(self.input.len());
        self.input.drain(..spent);
        self.base -= spent;
        out
    }

    /// Converts a whole recording.
    #[must_use]
    pub fn whole(from_hz: u32, to_hz: u32, samples: &[i16]) -> Vec<i16> {
        if from_hz == to_hz {
            return samples.to_vec();
        }
        let mut resampler = Self::new(from_hz, to_hz);
        let mut out = resampler.push(samples);
        out.extend(resampler.push(&vec![0; resampler.half + 1]));
        let wanted = (samples.len() as u64 * u64::from(to_hz)).div_ceil(u64::from(from_hz)) as usize;
        out.truncate(wanted);
        out
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate: f64, hz: f64, n: usize) -> Vec<i16> {
        (0..n).map(|i| ((i as f64 * hz * std::f64::consts::TAU / rate).sin() * 10_000.0) as i16).collect()
    }

    fn rms(samples: &[i16]) -> f64 {
        (samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn resampling_keeps_a_tone_and_its_length() {
        for (from, to) in [(22_050, 8_000), (24_000, 8_000), (8_000, 24_000), (8_000, 16_000)] {
            let input = sine(f64::from(from), 1_000.0, from as usize);
            let output = Resampler::whole(from, to, &input);
            assert_eq!(output.len(), to as usize);
            let expected = sine(f64::from(to), 1_000.0, to as usize);
            let middle = 500..output.len() - 500;
            let error: Vec<i16> =
                output[middle.clone()].iter().zip(&expected[middle]).map(|(a, b)| a - b).collect();
            assert!(rms(&error) < 20.0, "{from} to {to}: error {}", rms(&error));
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_removed() {
        let alias = Resampler::whole(24_000, 8_000, &sine(24_000.0, 5_000.0, 24_000));
        assert!(rms(&alias[200..7_800]) < 10.0, "{}", rms(&alias[200..7_800]));
    }

    #[test]
    fn chunking_does_not_change_the_result() {
        let input = sine(24_000.0, 700.0, 4_801);
        let mut whole = Resampler::new(24_000, 8_000);
        let mut pieces = Resampler::new(24_000, 8_000);
        let expected = whole.push(&input);
        let got: Vec<i16> = input.chunks(37).flat_map(|c| pieces.push(c)).collect();
        assert_eq!(got, expected);
    }
}
