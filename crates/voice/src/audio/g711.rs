//! ITU-T G.711 mu-law and A-law, as exact tables of the standard's segments.

/// Silence in mu-law (positive zero).
pub const ULAW_SILENCE: u8 = 0xff;

const ULAW_BIAS: i32 = 0x84;
const ULAW_CLIP: i32 = 32_635;

/// One mu-law byte as a 16-bit sample.
pub const fn ulaw_decode(code: u8) -> i16 {
    ULAW_TO_LINEAR[code as usize]
}

/// One 16-bit sample as mu-law.
pub const fn ulaw_encode(sample: i16) -> u8 {
    let mut magnitude = sample as i32;
    let sign = if magnitude < 0 {
        magnitude = -magnitude;
        0x80
    } else {
        0
    };
    if magnitude > ULAW_CLIP {
        magnitude = ULAW_CLIP;
    }
    magnitude += ULAW_BIAS;
    let segment = (31 - (magnitude as u32).leading_zeros() as i32) - 7;
    let mantissa = (magnitude >> (segment + 3)) & 0x0f;
    !(sign | (segment << 4) as u8 | mantissa as u8)
}

/// One A-law byte as a 16-bit sample.
pub const fn alaw_decode(code: u8) -> i16 {
    ALAW_TO_LINEAR[code as usize]
}

/// One 16-bit sample as A-law.
pub const fn alaw_encode(sample: i16) -> u8 {
    // The standard works on 13-bit magnitudes; negative values are ones-complemented.
    let value = (sample >> 3) as i32;
    let (mask, magnitude) = if value >= 0 { (0xd5, value) } else { (0x55, -value - 1) };
    if magnitude < 32 {
        return ((magnitude >> 1) as u8) ^ mask;
    }
    let segment = 31 - (magnitude as u32).leading_zeros() as i32 - 4;
    let segment = if segment > 7 { 7 } else { segment };
    let mantissa = (magnitude >> segment) & 0x0f;
    ((segment << 4) as u8 | mantissa as u8) ^ mask
}

static ULAW_TO_LINEAR: [i16; 256] = {
    let mut table = [0i16; 256];
    let mut i = 0;
    while i < 256 {
        let code = !(i as u8);
        let segment = (code >> 4) & 7;
        let mantissa = (code & 0x0f) as i32;
        let magnitude = (((mantissa << 3) + ULAW_BIAS) << segment) - ULAW_BIAS;
        table[i] = if code & 0x80 != 0 { -magnitude } else { magnitude } as i16;
        i += 1;
    }
    table
};

static ALAW_TO_LINEAR: [i16; 256] = {
    let mut table = [0i16; 256];
    let mut i = 0;
    while i < 256 {
        let code = (i as u8) ^ 0x55;
        let segment = (code >> 4) & 7;
        let mantissa = (code & 0x0f) as i32;
        let magnitude =
            if segment == 0 { (mantissa << 4) + 8 } else { ((mantissa << 4) + 0x108) << (segment - 1) };
        table[i] = if code & 0x80 != 0 { magnitude } else { -magnitude } as i16;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulaw_has_the_standard_values() {
        // G.711 table 2a/2b, scaled from 14 to 16 bits.
        for (code, value) in [
            (0xff, 0),
            (0x7f, 0),
            (0xfe, 8),
            (0xf0, 120),
            (0xef, 132),
            (0xe0, 372),
            (0xdf, 396),
            (0x8f, 16_764),
            (0x80, 32_124),
            (0x00, -32_124),
        ] {
            assert_eq!(ulaw_decode(code), value, "code {code:#04x}");
        }
        assert_eq!(ulaw_encode(0), ULAW_SILENCE);
    }

    #[test]
    fn ulaw_codes_survive_a_round_trip() {
        for code in 0..=255u8 {
            let again = ulaw_encode(ulaw_decode(code));
            // 0x7f is negative zero, which linear samples cannot tell from zero.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(again, expected, "code {code:#04x}");
        }
    }

    #[test]
    fn ulaw_is_monotonic_and_within_half_a_step() {
        let mut last = i16::MIN;
        for sample in -32_635..=32_635i16 {
            let code = ulaw_encode(sample);
            let value = ulaw_decode(code);
            assert!(value >= last, "sample {sample}");
            last = value;
            let step = 8i32 << ((!code >> 4) & 7);
            let error = (i32::from(value) - i32::from(sample)).abs();
            // The standard puts the decision between two segments half a step of the upper one below it.
            assert!(error <= step / 2 + step / 4, "sample {sample}: {value}");
        }
    }

    #[test]
    fn alaw_has_the_standard_values_and_survives_a_round_trip() {
        for (code, value) in [(0xd5, 8), (0x55, -8), (0xaa, 32_256), (0x2a, -32_256)] {
            assert_eq!(alaw_decode(code), value, "code {code:#04x}");
        }
        for code in 0..=255u8 {
            assert_eq!(alaw_encode(alaw_decode(code)), code, "code {code:#04x}");
        }
    }
}
