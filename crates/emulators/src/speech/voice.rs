//! The two voices: espeak-ng as a child process, and the tone.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use super::{
    SAMPLE_RATE, SPEECH_RMS, Utterance, Word,
    captions::{self, SPEECH_TOP_HZ},
    filter::{Fir, Resampler, to_i16},
};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Ten minutes at 22,050 Hz: far more than the longest text needs.
const MAX_WAV: u64 = 27_000_000;

/// Speaks through `espeak-ng`.
pub(super) async fn espeak(program: &Path, text: &str) -> io::Result<Utterance> {
    if text.is_empty() {
        return Ok(Utterance::default());
    }
    let mut child = Command::new(program)
        .args(["-v", "en-us", "-s", "160", "-b", "1", "--stdin", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let work = async {
        let mut wav = Vec::new();
        let write = async {
            stdin.write_all(text.as_bytes()).await?;
            stdin.shutdown().await?;
            drop(stdin);
            Ok::<_, io::Error>(())
        };
        let mut limited = stdout.take(MAX_WAV);
        let (written, read) = tokio::join!(write, limited.read_to_end(&mut wav));
        written?;
        read?;
        let status = child.wait().await?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "espeak-ng ended with {status}; try it by hand on the same text"
            )));
        }
        Ok(wav)
    };
    let wav = tokio::time::timeout(TIMEOUT, work)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "espeak-ng took longer than 20 s"))??;
    let text = text.to_owned();
    let finish = move || {
        let (rate, samples) = parse_wav(&wav)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "espeak-ng gave no 16-bit mono WAV"))?;
        Ok(caption_speech(&text, &Resampler::whole(rate, SAMPLE_RATE, &samples)))
    };
    tokio::task::spawn_blocking(finish).await.map_err(io::Error::other)?
}

/// A streamed WAV's lengths are placeholders, so its data runs to the end of the stream.
fn parse_wav(wav: &[u8]) -> Option<(u32, Vec<i16>)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(wav.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(wav.get(at..at + 4)?.try_into().ok()?));
    if wav.get(..4)? != b"RIFF" || wav.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut at = 12;
    let mut rate = None;
    loop {
        let (id, length) = (wav.get(at..at + 4)?, u32_at(at + 4)? as usize);
        if id == b"fmt " {
            if (u16_at(at + 8)?, u16_at(at + 10)?, u16_at(at + 22)?) != (1, 1, 16) {
                return None;
            }
            rate = Some(u32_at(at + 12)?);
        } else if id == b"data" {
            let data = &wav[at + 8..];
            let data = &data[..data.len().min(length)];
            return Some((rate?, data.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()));
        }
        at = at.checked_add(8)?.checked_add(length)?;
    }
}

/// Levels and band-limits recorded speech, finds where its words lie, and adds the captions.
fn caption_speech(text: &str, samples: &[i16]) -> Utterance {
    let speech: Vec<f32> = samples.iter().map(|&s| f32::from(s)).collect();
    let speech = Fir::low_pass(f64::from(SAMPLE_RATE), SPEECH_TOP_HZ, 100).aligned(&speech);
    let peak = speech.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    let audible = |s: &f32| s.abs() > peak * 0.02;
    let (Some(first), Some(last)) = (speech.iter().position(audible), speech.iter().rposition(audible))
    else {
        return tone(text);
    };
    let margin = SAMPLE_RATE as usize / 50;
    let first = first.saturating_sub(margin);
    let last = (last + margin).min(speech.len());
    let mut speech = speech[first..last].to_vec();
    let rms = (speech.iter().map(|s| s * s).sum::<f32>() / speech.len() as f32).sqrt();
    let gain = SPEECH_RMS / rms.max(1.0);
    speech.iter_mut().for_each(|s| *s *= gain);
    let words = spread(text, speech.len() as u32 * 1000 / SAMPLE_RATE);
    finish(words, speech)
}

fn finish(words: Vec<Word>, mut speech: Vec<f32>) -> Utterance {
    captions::add(&words, &mut speech);
    // Room for the last packet to leave a receiver's filters even when nothing follows.
    speech.resize(speech.len() + SAMPLE_RATE as usize / 25, 0.0);
    Utterance { samples: speech.into_iter().map(to_i16).collect(), words }
}

/// The pause that follows a word, in the same unit as [`weight`].
fn pause(word: &str) -> f64 {
    match word.trim_end_matches(['"', '\'', ')', '’']).chars().last() {
        Some('.' | '?' | '!') => 5.0,
        Some(',' | ';' | ':') => 2.5,
        _ => 0.0,
    }
}

/// How long a word takes to say, relative to others: digits are spoken as whole words.
fn weight(word: &str) -> f64 {
    let spoken: f64 = word
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                4.0
            } else if c.is_alphabetic() {
                1.0
            } else {
                0.2
            }
        })
        .sum();
    spoken + 1.2
}

fn tokens(text: &str) -> Vec<String> {
    text.split_whitespace().flat_map(captions::pieces).collect()
}

/// espeak-ng does not tell where its words lie, so they share the utterance by their length.
fn spread(text: &str, duration_ms: u32) -> Vec<Word> {
    let tokens = tokens(text);
    let pauses = tokens.iter().map(|t| pause(t)).sum::<f64>() - tokens.last().map_or(0.0, |t| pause(t));
    let total = tokens.iter().map(|t| weight(t)).sum::<f64>() + pauses;
    let ms = |position: f64| (position / total * f64::from(duration_ms)).round() as u32;
    let mut position = 0.0;
    let mut words = Vec::with_capacity(tokens.len());
    for text in tokens {
        let end = position + weight(&text);
        let next = end + pause(&text);
        words.push(Word { start_ms: ms(position), end_ms: ms(end), text });
        position = next;
    }
    words
}

/// One beep a word, in two alternating notes a major third apart, with a vowel's overtones.
pub(super) fn tone(text: &str) -> Utterance {
    const NOTES: [f32; 2] = [196.0, 246.9];
    let mut speech = vec![0.0f32; SAMPLE_RATE as usize / 50];
    let mut words = Vec::new();
    for (index, text) in tokens(text).into_iter().enumerate() {
        let start = speech.len();
        let length = SAMPLE_RATE as usize * (160 + 12 * text.chars().count().min(12)) / 1000;
        let note = NOTES[index % 2];
        for n in 0..length {
            let t = n as f32 / SAMPLE_RATE as f32;
            let envelope = (n.min(length - n) as f32 / (SAMPLE_RATE as f32 * 0.03)).min(1.0);
            let voice: f32 = (1..=8)
                .map(|harmonic| {
                    (std::f32::consts::TAU * note * harmonic as f32 * t).sin() / (harmonic as f32).powf(1.2)
                })
                .sum();
            speech.push(voice * envelope * SPEECH_RMS * 1.1);
        }
        let ms = |samples: usize| (samples * 1000 / SAMPLE_RATE as usize) as u32;
        words.push(Word { start_ms: ms(start), end_ms: ms(speech.len()), text });
        let gap = 60.0 + 25.0 * pause(&words.last().expect("just pushed").text);
        speech.resize(speech.len() + (gap * SAMPLE_RATE as f64 / 1000.0) as usize, 0.0);
    }
    if words.is_empty() {
        return Utterance::default();
    }
    finish(words, speech)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_share_the_duration_in_order() {
        let words = spread("Hello there, my friend. Bye", 2_000);
        assert_eq!(words.len(), 5);
        assert_eq!((words[0].start_ms, words[4].end_ms), (0, 2_000));
        assert!(words.windows(2).all(|w| w[0].end_ms <= w[1].start_ms && w[0].start_ms < w[0].end_ms));
        assert!(words[3].end_ms + 100 < words[4].start_ms, "a sentence's end is a pause");
    }

    #[test]
    fn malformed_wavs_are_refused_without_a_panic() {
        for wav in
            [&b""[..], b"RIFF", b"RIFF....WAVEfmt \xff\xff\xff\xff", b"RIFF....WAVEdata\x04\x00\x00\x00\x00"]
        {
            assert!(parse_wav(wav).is_none());
        }
    }
}
