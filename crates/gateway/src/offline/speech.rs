//! Speech by espeak-ng.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::resample::{mulaw, resample};
use super::words::hash;
use crate::Error;
use crate::error::{Fault, Waiting};
use crate::providers::{Attempt, context};
use crate::speech::{AudioFormat, SpeechEvent, SpeechRequest, SpeechStream};
use crate::usage::Usage;

/// Processes at once.
const MOST_PROCESSES: usize = 2;
/// Longest text.
const MOST_CHARACTERS: usize = 100_000;
/// Most audio: two hours.
const MOST_BYTES: u64 = 22_050 * 2 * 7_200;
/// Size of the pieces that are handed on.
const PIECE: usize = 8_192;
/// Words a minute at a speed of 1.
const PACE: f32 = 155.0;

/// The program, if it is there.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    program: Option<PathBuf>,
    processes: Arc<Semaphore>,
}

impl Voice {
    pub(crate) fn detect() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path).map(|folder| folder.join("espeak-ng")).find(|p| p.is_file());
        Self { program, processes: Arc::new(Semaphore::new(MOST_PROCESSES)) }
    }

    pub(crate) fn is_available(&self) -> bool {
        self.program.is_some()
    }

    pub(crate) async fn speak(
        &self,
        request: &SpeechRequest,
        attempt: &Attempt,
    ) -> Result<SpeechStream, Error> {
        let context = context(attempt);
        let Some(program) = &self.program else {
            let message = "espeak-ng is not installed: apt-get install espeak-ng";
            return Err(context.fail(Fault::Unsupported, message).into());
        };
        if request.text.chars().count() > MOST_CHARACTERS {
            return Err(Error::InvalidRequest(format!(
                "texts may have at most {MOST_CHARACTERS} characters"
            )));
        }
        let speak = async {
            let _place = self.processes.acquire().await.map_err(|error| error.to_string())?;
            run(program, &voice_name(request), pace(request.speed), &request.text).await
        };
        // Dropped at the deadline, and with the caller: the process is killed then.
        let wav = match timeout_at(attempt.deadline, speak).await {
            Ok(Ok(wav)) => wav,
            Ok(Err(message)) => return Err(context.fail(Fault::ServerError, message).into()),
            Err(_) => {
                return Err(context.fail(Fault::TimedOut(Waiting::Deadline), "").into());
            }
        };
        let Some((samples, rate)) = samples(&wav) else {
            return Err(context.fail(Fault::Malformed, "espeak-ng wrote no WAV").into());
        };
        let audio_ms = samples.len() as u64 * 1_000 / u64::from(rate.max(1));
        let (format, audio) = encode(&samples, rate, request.format);
        let characters = request.text.chars().count() as u64;
        let pieces: Vec<Bytes> =
            (0..audio.len()).step_by(PIECE).map(|at| audio.slice(at..audio.len().min(at + PIECE))).collect();
        let usage = Usage { characters, audio_ms, ..Usage::default() };
        let events = pieces.into_iter().map(SpeechEvent::Audio).chain([SpeechEvent::Finished(usage)]);
        Ok(SpeechStream::new(format, stream::iter(events.map(Ok))))
    }
}

async fn run(program: &PathBuf, voice: &str, pace: u32, text: &str) -> Result<Vec<u8>, String> {
    let mut child = Command::new(program)
        .args(["--stdin", "--stdout", "-v", voice, "-s", &pace.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("espeak-ng did not start: {error}"))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("espeak-ng has no pipes".to_owned());
    };
    let write = async move {
        // It may read less than everything when it fails: its status says so.
        let _ = input.write_all(text.as_bytes()).await;
        drop(input);
    };
    let mut wav = Vec::new();
    let mut output = output.take(MOST_BYTES);
    let ((), read) = tokio::join!(write, output.read_to_end(&mut wav));
    read.map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(wav) } else { Err(format!("espeak-ng failed for the voice {voice}: {status}")) }
}

/// A voice of the language; names of other providers' voices each get a timbre of their own.
fn voice_name(request: &SpeechRequest) -> String {
    const TIMBRES: [&str; 6] = ["+f2", "+f3", "+f4", "+m2", "+m3", "+m7"];
    let language = request.language.as_deref().unwrap_or("en").to_lowercase();
    let language = match language.as_str() {
        "en" => "en-us",
        known if known.len() <= 12 && known.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => known,
        _ => "en-us",
    };
    match &request.voice {
        Some(voice) => format!("{language}{}", TIMBRES[(hash(voice) % TIMBRES.len() as u64) as usize]),
        None => language.to_owned(),
    }
}

fn pace(speed: Option<f32>) -> u32 {
    (PACE * speed.unwrap_or(1.0).clamp(0.5, 2.0)) as u32
}

/// Samples and rate of a mono WAV. Written to a pipe, its header does not know the length.
fn samples(wav: &[u8]) -> Option<(Vec<i16>, u32)> {
    let rate = u32::from_le_bytes(wav.get(24..28)?.try_into().ok()?);
    let data = wav.windows(4).position(|window| window == b"data")? + 8;
    let samples = wav.get(data..)?.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    (wav.starts_with(b"RIFF") && rate > 0).then(|| (samples.collect(), rate))
}

/// What was asked for, if it needs no encoder; else WAV.
fn encode(samples: &[i16], rate: u32, wanted: AudioFormat) -> (AudioFormat, Bytes) {
    let pcm = |samples: &[i16]| samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>();
    match wanted {
        AudioFormat::Pcm(to) if (4_000..=192_000).contains(&to) => {
            (wanted, pcm(&resample(samples, rate, to)).into())
        }
        AudioFormat::Mulaw => {
            let narrow = resample(samples, rate, 8_000);
            (wanted, narrow.into_iter().map(mulaw).collect::<Vec<u8>>().into())
        }
        _ => {
            let data = pcm(samples);
            let length = data.len() as u32;
            let mut wav = Vec::with_capacity(44 + data.len());
            wav.extend_from_slice(b"RIFF");
            wav.extend_from_slice(&(36 + length).to_le_bytes());
            wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
            wav.extend_from_slice(&rate.to_le_bytes());
            wav.extend_from_slice(&(rate * 2).to_le_bytes());
            wav.extend_from_slice(b"\x02\0\x10\0data");
            wav.extend_from_slice(&length.to_le_bytes());
            wav.extend_from_slice(&data);
            (AudioFormat::Wav, wav.into())
        }
    }
}
