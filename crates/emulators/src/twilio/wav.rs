//! WAV files in and out.

use std::io::Cursor;
use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use super::Error;
use crate::speech::Resampler;

/// Ten minutes: nobody says more in one go.
const MAX_SECONDS: u64 = 600;

/// Reads a WAV file (16-bit, 8 to 48 kHz, mono or stereo) as 8 kHz mono.
///
/// # Errors
/// When it is no such file, or is longer than ten minutes.
pub fn read_8k(bytes: &[u8]) -> Result<Vec<i16>, Error> {
    let invalid = |what: String| Error::Wav(what);
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(|e| invalid(e.to_string()))?;
    let spec = reader.spec();
    if spec.sample_format != SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(invalid(format!("it has {}-bit {:?} samples", spec.bits_per_sample, spec.sample_format)));
    }
    if !(8000..=48_000).contains(&spec.sample_rate) || !(1..=2).contains(&spec.channels) {
        return Err(invalid(format!("it has {} channels at {} Hz", spec.channels, spec.sample_rate)));
    }
    if u64::from(reader.duration()) > MAX_SECONDS * u64::from(spec.sample_rate) {
        return Err(invalid(format!("it is longer than {MAX_SECONDS} seconds")));
    }
    let samples: Vec<i16> =
        reader.samples::<i16>().collect::<Result<_, _>>().map_err(|e| invalid(e.to_string()))?;
    let mono: Vec<i16> = match spec.channels {
        1 => samples,
        _ => samples.chunks_exact(2).map(|pair| i16::midpoint(pair[0], pair[1])).collect(),
    };
    Ok(Resampler::whole(spec.sample_rate, 8000, &mono))
}

pub(crate) fn write_stereo(path: &Path, interleaved: &[i16]) -> Result<(), Error> {
    let failed = |e: hound::Error| Error::Recording { path: path.to_owned(), reason: e.to_string() };
    let spec =
        WavSpec { channels: 2, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(path, spec).map_err(failed)?;
    for sample in interleaved {
        writer.write_sample(*sample).map_err(failed)?;
    }
    writer.finalize().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(rate: u32, channels: u16, seconds: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let spec =
            WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for n in 0..rate * seconds {
            let t = f64::from(n) / f64::from(rate);
            let value = (8000.0 * (2.0 * std::f64::consts::PI * 440.0 * t).sin()) as i16;
            for _ in 0..channels {
                writer.write_sample(value).unwrap();
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_common_rate_becomes_8_khz_with_the_same_tone() {
        for (rate, channels) in [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 2)] {
            let samples = read_8k(&wav(rate, channels, 1)).unwrap();
            assert_eq!(samples.len(), 8000, "{rate}");
            let crossings = samples.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
            assert!((438..=441).contains(&crossings), "{rate}: {crossings}");
            let peak = samples[400..7600].iter().map(|s| s.unsigned_abs()).max().unwrap();
            assert!((7800..=8200).contains(&peak), "{rate}: {peak}");
        }
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let error = read_8k(b"not a wav file").unwrap_err();
        assert!(error.to_string().contains("16-bit"), "{error}");
    }
}
