//! G.711 (ITU-T, 1988): the two companded 8-bit codes of the telephone network, in 16-bit linear scaling.
//!
//! In both codes the top bit is the sign and, as transmitted, a *set* bit means positive. Mu-law inverts every bit,
//! a-law every second one, so that a silent line still carries transitions.

/// Added before finding the segment, so that mu-law's segments start at powers of two (33 in G.711's 14-bit scaling).
const MU_BIAS: i32 = 0x84;
/// Largest magnitude that mu-law can hold.
const MU_CLIP: i32 = 32_635;

static MU_DECODE: [i16; 256] = mu_table();
static A_DECODE: [i16; 256] = a_table();

const fn mu_table() -> [i16; 256] {
    let mut out = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = !(code as u8);
        let magnitude = ((((bits & 0x0f) as i32) << 3) + MU_BIAS) << ((bits & 0x70) >> 4);
        let value = magnitude - MU_BIAS;
        out[code] = if bits & 0x80 == 0 { value as i16 } else { -value as i16 };
        code += 1;
    }
    out
}

const fn a_table() -> [i16; 256] {
    let mut out = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = (code as u8) ^ 0x55;
        let segment = (bits & 0x70) >> 4;
        let step = ((bits & 0x0f) as i32) << 4;
        let value = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
        out[code] = if bits & 0x80 != 0 { value as i16 } else { -value as i16 };
        code += 1;
    }
    out
}

/// The linear value of one mu-law code, -32124 to 32124. `0xFF` and `0x7F` are both zero.
#[must_use]
pub fn mulaw_decode(code: u8) -> i16 {
    MU_DECODE[usize::from(code)]
}

/// The mu-law code nearest to a linear value.
#[must_use]
pub fn mulaw_encode(sample: i16) -> u8 {
    let value = i32::from(sample);
    let sign = if value < 0 { 0x80 } else { 0 };
    let magnitude = value.abs().min(MU_CLIP) + MU_BIAS;
    let segment = (31 - magnitude.leading_zeros() as i32 - 7).clamp(0, 7);
    let mantissa = (magnitude >> (segment + 3)) & 0x0f;
    !((sign | (segment << 4) | mantissa) as u8)
}

/// The linear value of one a-law code, -32256 to 32256. There is no zero: the smallest magnitude is 8.
#[must_use]
pub fn alaw_decode(code: u8) -> i16 {
    A_DECODE[usize::from(code)]
}

/// The a-law code nearest to a linear value.
#[must_use]
pub fn alaw_encode(sample: i16) -> u8 {
    let value = i32::from(sample);
    let (sign, magnitude) = if value >= 0 { (0x80, value >> 4) } else { (0, (-value - 1) >> 4) };
    let bits = if magnitude < 32 {
        magnitude
    } else {
        let segment = 31 - magnitude.leading_zeros() as i32 - 3;
        (segment << 4) | ((magnitude >> (segment - 1)) & 0x0f)
    };
    ((sign | bits) as u8) ^ 0x55
}

/// Decodes a run of mu-law bytes.
#[must_use]
pub fn mulaw_to_linear(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|&code| mulaw_decode(code)).collect()
}

/// Encodes a run of samples as mu-law.
#[must_use]
pub fn linear_to_mulaw(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|&sample| mulaw_encode(sample)).collect()
}

/// Decodes a run of a-law bytes.
#[must_use]
pub fn alaw_to_linear(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|&code| alaw_decode(code)).collect()
}

/// Encodes a run of samples as a-law.
#[must_use]
pub fn linear_to_alaw(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|&sample| alaw_encode(sample)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mulaw_code_survives_a_round_trip_but_negative_zero() {
        for code in 0..=255u8 {
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(mulaw_encode(mulaw_decode(code)), expected, "code {code:#04x}");
        }
    }

    #[test]
    fn mulaw_matches_the_published_points() {
        assert_eq!(mulaw_encode(0), 0xff);
        assert_eq!(mulaw_decode(0x80), 32_124);
        assert_eq!(mulaw_decode(0x00), -32_124);
        assert_eq!(mulaw_decode(0xff), 0);
        assert_eq!(mulaw_decode(0xfe), 8);
        assert_eq!(mulaw_decode(0x7e), -8);
        assert_eq!(mulaw_encode(i16::MAX), 0x80);
        assert_eq!(mulaw_encode(i16::MIN), 0x00);
    }

    #[test]
    fn every_alaw_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            assert_eq!(alaw_encode(alaw_decode(code)), code, "code {code:#04x}");
        }
        assert_eq!(alaw_encode(0), 0xd5);
        assert_eq!(alaw_decode(0xd5), 8);
        assert_eq!(alaw_decode(0xaa), 32_256);
        assert_eq!(alaw_decode(0x2a), -32_256);
        assert_eq!(alaw_encode(i16::MIN), 0x2a);
    }

    #[test]
    fn the_error_stays_within_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let magnitude = i32::from(sample).abs();
            let error = |decoded: i16| (i32::from(decoded) - i32::from(sample)).abs();
            assert!(
                error(mulaw_decode(mulaw_encode(sample))) <= (magnitude / 32 + 8).min(644),
                "mu-law of {sample}"
            );
            assert!(error(alaw_decode(alaw_encode(sample))) <= magnitude / 32 + 8, "a-law of {sample}");
        }
    }
}
