//! Samples at another rate, and mu-law.

/// Taps of the filter on each side, at the lower of both rates.
const REACH: f64 = 12.0;

/// Converts whole recordings: a windowed sinc, cut off below half of the lower rate.
pub(super) fn resample(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to || samples.is_empty() {
        return samples.to_vec();
    }
    let ratio = f64::from(from) / f64::from(to);
    let cutoff = (1.0 / ratio).min(1.0) * 0.94;
    let reach = REACH / cutoff;
    let length = (samples.len() as f64 / ratio) as usize;
    (0..length)
        .map(|index| {
            let centre = index as f64 * ratio;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach).floor() as usize).min(samples.len() - 1);
            let sum: f64 = (first..=last)
                .map(|at| {
                    let x = at as f64 - centre;
                    let angle = std::f64::consts::PI * x * cutoff;
                    let sinc = if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
                    let window = 0.5 + 0.5 * (std::f64::consts::PI * x / reach).cos();
                    f64::from(samples[at]) * sinc * window * cutoff
                })
                .sum();
            sum.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
        })
        .collect()
}

/// G.711 mu-law.
pub(super) fn mulaw(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + BIAS;
    let exponent = 31 - (magnitude as u32).leading_zeros() as i32 - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_and_level() {
        let tone = |rate: u32, count: usize| -> Vec<i16> {
            (0..count)
                .map(|n| {
                    (8_000.0 * (std::f64::consts::TAU * 440.0 * n as f64 / f64::from(rate)).sin()) as i16
                })
                .collect()
        };
        let made = resample(&tone(22_050, 22_050), 22_050, 8_000);
        let wanted = tone(8_000, 8_000);
        assert_eq!(made.len(), 8_000);
        let worst =
            made[100..7_900].iter().zip(&wanted[100..7_900]).map(|(a, b)| (a - b).abs()).max().unwrap();
        assert!(worst < 120, "{worst}");
    }

    #[test]
    fn mulaw_of_known_samples() {
        assert_eq!([0_i16, -1, 32_767, -32_768, 1_000].map(mulaw), [0xff, 0x7f, 0x80, 0x00, 0xce]);
    }
}
