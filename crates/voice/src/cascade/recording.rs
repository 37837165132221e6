//! Both sides of a conversation as a stereo WAV: the person left, the agent right.
//!
//! Samples go through a bounded queue to a thread of the blocking pool, which mixes nothing and encodes nothing but
//! WAV; a disk that does not keep up loses seconds of the recording, which are counted, and never slows the
//! conversation.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use super::clock::{Rate, Samples};

/// Pieces that wait for the disk: about ten seconds of both sides.
const QUEUE: usize = 1_024;
/// How far the sides may drift apart before the quiet one is filled with silence, in seconds.
const SKEW: u64 = 2;

#[derive(Debug)]
enum Piece {
    Person(Samples, Vec<i16>),
    Agent(Samples, Vec<i16>),
    Cleared(Samples),
}

/// Writes a recording. Clones write the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    pieces: mpsc::Sender<Option<Piece>>,
}

/// A finished recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Frames of both sides.
    pub frames: u64,
}

impl Recorder {
    /// Begins a recording in a file. The receiver tells when it is whole, after [`Recorder::finish`] or when all
    /// recorders are gone.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, rate: Rate) -> io::Result<(Self, oneshot::Receiver<io::Result<Recording>>)> {
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: rate.0,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).map_err(io_error)?;
        let (sender, mut receiver) = mpsc::channel::<Option<Piece>>(QUEUE);
        let (done, finished) = oneshot::channel();
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut mix = Mix { skew: SKEW * u64::from(rate.0), ..Mix::default() };
            let mut result = Ok(());
            while let Some(Some(piece)) = receiver.blocking_recv() {
                mix.take(piece);
                result = result.and_then(|()| mix.write(false, &mut writer));
            }
            result = result.and_then(|()| mix.write(true, &mut writer));
            let result = result.and_then(|()| writer.finalize()).map_err(io_error);
            let _ = done.send(result.map(|()| Recording { path, frames: mix.written }));
        });
        Ok((Self { pieces: sender }, finished))
    }

    fn push(&self, piece: Piece) {
        if self.pieces.try_send(Some(piece)).is_err() {
            metrics::counter!("longhouse_voice_recording_drops_total").increment(1);
        }
    }

    /// The person's audio, which ended now.
    pub fn person(&self, now: Samples, samples: &[i16]) {
        self.push(Piece::Person(now, samples.to_vec()));
    }

    /// The agent's audio, sent now and played after what was sent before.
    pub fn agent(&self, now: Samples, samples: &[i16]) {
        self.push(Piece::Agent(now, samples.to_vec()));
    }

    /// What was not played yet is not played.
    pub fn cleared(&self, now: Samples) {
        self.push(Piece::Cleared(now));
    }

    /// The recording is over.
    pub fn finish(self) {
        // A full queue ends as well, when the last recorder is gone.
        let _ = self.pieces.try_send(None);
    }
}

fn io_error(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        error => io::Error::other(error),
    }
}

/// Both sides, placed by their times. Index 0 is frame `written`.
#[derive(Default)]
struct Mix {
    person: Vec<i16>,
    agent: Vec<i16>,
    written: u64,
    skew: u64,
}

impl Mix {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Person(end, samples) => {
                let start = end.0.saturating_sub(samples.len() as u64);
                let side = &mut self.person;
                // Audio that follows at once joins on: arrival jitters, speech does not.
                let at = start.saturating_sub(self.written) as usize;
                let joins = at <= side.len() + self.skew as usize / 20;
                side.resize(if joins { side.len() } else { at }, 0);
                side.extend(samples);
            }
            Piece::Agent(now, samples) => {
                let at = now.0.saturating_sub(self.written) as usize;
                let side = &mut self.agent;
                side.resize(side.len().max(at), 0);
                side.extend(samples);
            }
            Piece::Cleared(now) => {
                self.agent.truncate(now.0.saturating_sub(self.written) as usize);
            }
        }
    }

    /// Writes what both sides have; at the end, everything.
    fn write<W: io::Write + io::Seek>(
        &mut self,
        all: bool,
        writer: &mut hound::WavWriter<W>,
    ) -> Result<(), hound::Error> {
        let (person, agent) = (self.person.len() as u64, self.agent.len() as u64);
        let longest = person.max(agent);
        // A side that says nothing for long is silent, and what the agent may still take back is kept.
        let ready = if all { longest } else { longest.saturating_sub(self.skew) };
        let ready = ready as usize;
        self.person.resize(self.person.len().max(ready), 0);
        self.agent.resize(self.agent.len().max(ready), 0);
        for (person, agent) in self.person.drain(..ready).zip(self.agent.drain(..ready)) {
            writer.write_sample(person)?;
            writer.write_sample(agent)?;
        }
        self.written += ready as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_stand_where_they_were_said() {
        let folder = std::env::temp_dir().join(format!("longhouse-recording-{}.wav", std::process::id()));
        let (recorder, done) = Recorder::create(&folder, Rate(8_000)).unwrap();
        for n in 1..=100u64 {
            recorder.person(Samples(n * 160), &[1; 160]);
            if n == 50 {
                recorder.agent(Samples(8_000), &vec![2; 8_000]);
            }
            if n == 75 {
                recorder.cleared(Samples(12_000));
            }
        }
        recorder.finish();
        let recording = done.await.unwrap().unwrap();
        let mut reader = hound::WavReader::open(&recording.path).unwrap();
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        std::fs::remove_file(&recording.path).unwrap();
        assert_eq!((reader.spec().channels, samples.len(), recording.frames), (2, 32_000, 16_000));
        let right: Vec<usize> = (0..16_000).filter(|n| samples[2 * n + 1] == 2).collect();
        assert_eq!((right[0], right.len(), right[right.len() - 1]), (8_000, 4_000, 11_999));
        assert!((0..16_000).all(|n| samples[2 * n] == 1), "the person's side has gaps");
    }
}
