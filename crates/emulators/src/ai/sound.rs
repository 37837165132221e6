//! Samples to files.

use crate::g711;
use crate::speech::{CaptionDecoder, HeardWord, Resampler, SAMPLE_RATE};

/// Samples at 8 kHz in a format by its vendors' names: `pcm` is 24 kHz, `pcm_16000` says its rate.
pub(super) fn encode(samples: &[i16], format: &str) -> (&'static str, Vec<u8>) {
    let at = |rate: u32| -> Vec<u8> {
        let samples = Resampler::whole(SAMPLE_RATE, rate, samples);
        samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    };
    match format {
        "pcm" => ("audio/pcm", at(24_000)),
        "wav" => ("audio/wav", wav(&at(24_000), 24_000)),
        "ulaw_8000" => ("audio/basic", g711::linear_to_mulaw(samples)),
        rated if rated.starts_with("pcm_") || rated.starts_with("wav_") => {
            let rate = rated[4..].parse().unwrap_or(24_000);
            match rated.starts_with("wav_") {
                true => ("audio/wav", wav(&at(rate), rate)),
                false => ("audio/pcm", at(rate)),
            }
        }
        // No encoder here: the bytes say what they stand for, and no player is fooled.
        other => {
            let mime = match other {
                "opus" => "audio/opus",
                "aac" => "audio/aac",
                "flac" => "audio/flac",
                _ => "audio/mpeg",
            };
            let pcm = at(24_000);
            let mut bytes = format!("emulated {other} of {} ms\n", pcm.len() / 48).into_bytes();
            bytes.extend(pcm);
            (mime, bytes)
        }
    }
}

fn wav(pcm: &[u8], rate: u32) -> Vec<u8> {
    let length = pcm.len() as u32;
    let mut bytes = Vec::with_capacity(pcm.len() + 44);
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + length).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&16_u32.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes()); // PCM
    bytes.extend_from_slice(&1_u16.to_le_bytes()); // mono
    bytes.extend_from_slice(&rate.to_le_bytes());
    bytes.extend_from_slice(&(rate * 2).to_le_bytes());
    bytes.extend_from_slice(&2_u16.to_le_bytes());
    bytes.extend_from_slice(&16_u16.to_le_bytes());
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(pcm);
    bytes
}

/// The samples of a mono WAV file of 16 bits: the one format that these ears understand.
pub(super) fn decode(file: &[u8]) -> Option<(Vec<i16>, u32)> {
    let mut reader = hound::WavReader::new(file).ok()?;
    let spec = reader.spec();
    let known = spec.channels == 1 && spec.bits_per_sample == 16 && spec.sample_rate > 0;
    let samples: Result<Vec<i16>, _> = reader.samples().collect();
    samples.ok().filter(|_| known).map(|samples| (samples, spec.sample_rate))
}

/// The words that emulated speech carries.
pub(super) fn heard(samples: &[i16], rate: u32) -> Vec<HeardWord> {
    if rate == SAMPLE_RATE {
        return CaptionDecoder::new().push(samples);
    }
    CaptionDecoder::new().push(&Resampler::whole(rate, SAMPLE_RATE, samples))
}
