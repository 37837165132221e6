//! Streaming polyphase resampler between the rates of telephony (8 kHz) and speech models (16, 24 kHz).

use std::f64::consts::PI;

/// Taps on each side of the centre, per input sample of the slower rate.
const HALF_WIDTH: usize = 24;
/// Kaiser window shape: about 80 dB of stop-band attenuation.
const BETA: f64 = 8.0;

/// A band-limited resampler whose chunked output equals its whole-buffer output.
#[derive(Debug, Clone)]
pub struct Resampler {
    up: usize,
    down: usize,
    /// Filter split by phase: `phases[p][k]` weighs input sample `n - k`.
    phases: Vec<Vec<f32>>,
    history: Vec<f32>,
    /// Position of the next output in steps of 1/up input samples, relative to the start of `history`.
    position: usize,
}

impl Resampler {
    /// A resampler from one rate in Hz to another. Any ratio works; small ones are cheap.
    pub fn new(from: u32, to: u32) -> Self {
        let divisor = gcd(from, to);
        let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
        let widest = up.max(down);
        // Cut off a little below the lower Nyquist frequency, to leave room for the transition band.
        let cutoff = 0.46 / widest as f64;
        let half = (HALF_WIDTH * widest) as isize;
        let taps: Vec<f64> = (-half..=half)
            .map(|n| {
                let x = n as f64;
                let sinc = if n == 0 { 2.0 * cutoff } else { (2.0 * PI * cutoff * x).sin() / (PI * x) };
                sinc * kaiser(x / half as f64) * up as f64
            })
            .collect();
        let per_phase = taps.len().div_ceil(up);
        let phases = (0..up)
            .map(|phase| {
                (0..per_phase).map(|k| taps.get(phase + k * up).copied().unwrap_or(0.0) as f32).collect()
            })
            .collect();
        Self { up, down, phases, history: vec![0.0; per_phase - 1], position: 0 }
    }

    /// Feeds samples and appends what can be computed from them to `out`.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        let width = self.phases[0].len();
        self.history.extend(samples.iter().map(|&s| f32::from(s)));
        loop {
            let newest = self.position / self.up + width - 1;
            if newest >= self.history.len() {
                break;
            }
            let filter = &self.phases[self.position % self.up];
            let window = &self.history[newest + 1 - width..=newest];
            let sum: f32 = window.iter().rev().zip(filter).map(|(x, w)| x * w).sum();
            out.push(sum.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16);
            self.position += self.down;
        }
        let spent = (self.position / self.up).min(self.history.len().saturating_sub(width - 1));
        self.history.drain(..spent);
        self.position -= spent * self.up;
    }

    /// Delay through the filter, in input samples.
    pub fn delay(&self) -> f64 {
        (HALF_WIDTH * self.up.max(self.down)) as f64 / self.up as f64
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn kaiser(x: f64) -> f64 {
    bessel_i0(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel_i0(BETA)
}

fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..32 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate: f64, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| ((2.0 * PI * hz * n as f64 / rate).sin() * 16_000.0) as i16).collect()
    }

    /// Power at one frequency relative to a full `16000` sine, in dB.
    fn level(samples: &[i16], rate: f64, hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, &s) in samples.iter().enumerate() {
            let window = 0.5 - 0.5 * (2.0 * PI * n as f64 / samples.len() as f64).cos();
            let angle = 2.0 * PI * hz * n as f64 / rate;
            re += f64::from(s) * window * angle.cos();
            im += f64::from(s) * window * angle.sin();
        }
        let amplitude = 4.0 * (re * re + im * im).sqrt() / samples.len() as f64;
        20.0 * (amplitude / 16_000.0).max(1e-9).log10()
    }

    #[test]
    fn chunks_give_the_same_samples_as_one_buffer() {
        let input = sine(24_000.0, 700.0, 9_999);
        for (from, to) in
            [(8_000, 24_000), (24_000, 8_000), (16_000, 24_000), (24_000, 16_000), (22_050, 8_000)]
        {
            let mut whole = Vec::new();
            Resampler::new(from, to).push(&input, &mut whole);
            let (mut chunked, mut resampler) = (Vec::new(), Resampler::new(from, to));
            for chunk in input.chunks(37) {
                resampler.push(chunk, &mut chunked);
            }
            assert_eq!(chunked, whole, "{from} to {to}");
        }
    }

    #[test]
    fn keeps_the_voice_band_and_rejects_aliases() {
        let mut out = Vec::new();
        Resampler::new(24_000, 8_000).push(&sine(24_000.0, 1_000.0, 24_000), &mut out);
        assert!(level(&out[400..], 8_000.0, 1_000.0).abs() < 0.1);
        for hz in (4_600..11_900).step_by(300) {
            let mut out = Vec::new();
            Resampler::new(24_000, 8_000).push(&sine(24_000.0, f64::from(hz), 24_000), &mut out);
            let folded = f64::from(hz) % 8_000.0;
            let alias = if folded > 4_000.0 { 8_000.0 - folded } else { folded };
            let db = level(&out[400..], 8_000.0, alias);
            assert!(db < -40.0, "{hz} Hz comes back at {alias} Hz with {db:.1} dB");
        }
    }

    #[test]
    fn upsampling_leaves_no_image() {
        let mut out = Vec::new();
        Resampler::new(8_000, 24_000).push(&sine(8_000.0, 3_000.0, 8_000), &mut out);
        assert!(level(&out[1_200..], 24_000.0, 3_000.0).abs() < 0.2);
        assert!(level(&out[1_200..], 24_000.0, 5_000.0) < -40.0);
        assert!(level(&out[1_200..], 24_000.0, 11_000.0) < -40.0);
    }
}
