//! The buffer between the far side's messages and the caller's ear: plays at 8 kHz, keeps marks.

use std::collections::VecDeque;

/// Samples (bytes of mu-law) in 20 ms.
pub(crate) const FRAME: usize = 160;
/// Milliseconds in a frame.
pub(crate) const FRAME_MS: u32 = 20;
/// Mu-law zero.
pub(crate) const SILENCE: u8 = 0xFF;
/// Ten minutes of audio: what is queued beyond is dropped and reported.
pub(crate) const MAX_QUEUED: usize = 10 * 60 * 8000;
const MAX_MARKS: usize = 10_000;
/// The jitter buffer: audio that comes in real time starts this much later (60 ms), so that a
/// packet that is a little late does not leave a hole. Audio that comes faster starts at once.
const JITTER_BUFFER: usize = 3 * FRAME;

enum Item {
    Audio { bytes: Vec<u8>, played: usize },
    Mark(String),
}

/// The playback queue of one stream.
pub(crate) struct Playback {
    queue: VecDeque<Item>,
    queued: usize,
    marks: usize,
    /// Frames for which new audio has waited behind the jitter buffer; none while playing.
    waited: Option<usize>,
    /// Marks inside the frame that is playing now: reached when it has played.
    passing: Vec<String>,
}

impl Default for Playback {
    fn default() -> Self {
        Self { queue: VecDeque::new(), queued: 0, marks: 0, waited: Some(0), passing: Vec::new() }
    }
}

impl Playback {
    /// Queues audio; false when the buffer is full and the audio was dropped.
    pub(crate) fn push_audio(&mut self, bytes: Vec<u8>) -> bool {
        if self.queued + bytes.len() > MAX_QUEUED {
            return false;
        }
        self.queued += bytes.len();
        self.queue.push_back(Item::Audio { bytes, played: 0 });
        true
    }

    /// Queues a mark behind the audio before it; false when there are too many.
    pub(crate) fn push_mark(&mut self, name: String) -> bool {
        if self.marks >= MAX_MARKS {
            return false;
        }
        self.marks += 1;
        self.queue.push_back(Item::Mark(name));
        true
    }

    /// Empties the queue and returns the outstanding marks, which Twilio echoes at once.
    pub(crate) fn clear(&mut self) -> Vec<String> {
        let mut marks = std::mem::take(&mut self.passing);
        marks.extend(self.queue.drain(..).filter_map(|item| match item {
            Item::Mark(name) => Some(name),
            Item::Audio { .. } => None,
        }));
        self.queued = 0;
        self.marks = 0;
        self.waited = Some(0);
        marks
    }

    /// True when nothing waits to be played.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Fills the frame of the next 20 ms; returns the marks reached by now and how many bytes
    /// of the frame are audio (the rest is silence).
    pub(crate) fn next_frame(&mut self, frame: &mut [u8; FRAME]) -> (Vec<String>, usize) {
        let mut reached = std::mem::take(&mut self.passing);
        frame.fill(SILENCE);
        let mut filled = 0;
        if self.holds_back() {
            return (reached, 0);
        }
        while let Some(item) = self.queue.front_mut() {
            match item {
                Item::Mark(name) => {
                    let name = std::mem::take(name);
                    // Before any audio of this frame: everything ahead of it has played.
                    let marks = if filled == 0 { &mut reached } else { &mut self.passing };
                    marks.push(name);
                    self.marks = self.marks.saturating_sub(1);
                    self.queue.pop_front();
                }
                Item::Audio { bytes, played } => {
                    if filled == FRAME {
                        break;
                    }
                    let take = (bytes.len() - *played).min(FRAME - filled);
                    frame[filled..filled + take].copy_from_slice(&bytes[*played..*played + take]);
                    filled += take;
                    *played += take;
                    self.queued -= take;
                    if *played == bytes.len() {
                        self.queue.pop_front();
                    }
                }
            }
        }
        if filled == 0 {
            self.waited = Some(0);
        }
        (reached, filled)
    }

    /// After silence, waits until enough is queued, or has been for long enough, or a mark shows
    /// that the utterance is complete.
    fn holds_back(&mut self) -> bool {
        let Some(waited) = self.waited.as_mut() else { return false };
        let ready = self.queued >= JITTER_BUFFER || self.marks > 0 || *waited * FRAME >= JITTER_BUFFER;
        if self.queued > 0 && !ready {
            *waited += 1;
            return true;
        }
        if self.queued > 0 {
            self.waited = None;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(playback: &mut Playback) -> (Vec<String>, Vec<u8>) {
        let mut frame = [0; FRAME];
        let (marks, filled) = playback.next_frame(&mut frame);
        assert!(frame[filled..].iter().all(|b| *b == SILENCE));
        (marks, frame[..filled].to_vec())
    }

    #[test]
    fn a_mark_comes_back_when_the_audio_before_it_has_played() {
        let mut playback = Playback::default();
        playback.push_audio(vec![1; 200]);
        playback.push_mark("a".into());
        playback.push_audio(vec![2; 150]);
        playback.push_mark("b".into());
        assert_eq!(tick(&mut playback), (vec![], vec![1; 160]));
        // "a" lies inside this frame: not reached before the frame has played.
        let (marks, audio) = tick(&mut playback);
        assert_eq!((marks, &audio[38..42]), (vec![], &[1, 1, 2, 2][..]));
        assert_eq!(tick(&mut playback), (vec!["a".to_owned()], vec![2; 30]));
        assert_eq!(tick(&mut playback), (vec!["b".to_owned()], vec![]));
    }

    #[test]
    fn clear_drops_audio_and_returns_every_outstanding_mark() {
        let mut playback = Playback::default();
        playback.push_audio(vec![1; 100]);
        playback.push_mark("a".into());
        playback.push_audio(vec![1; 1000]);
        playback.push_mark("b".into());
        tick(&mut playback);
        assert_eq!(playback.clear(), ["a", "b"]);
        assert!(playback.is_empty());
        assert_eq!(tick(&mut playback), (vec![], vec![]));
    }

    #[test]
    fn a_mark_without_audio_comes_back_at_the_next_frame() {
        let mut playback = Playback::default();
        playback.push_mark("now".into());
        assert_eq!(tick(&mut playback).0, ["now"]);
    }

    #[test]
    fn audio_in_real_time_starts_behind_a_jitter_buffer_and_survives_a_late_packet() {
        let mut playback = Playback::default();
        assert_eq!(tick(&mut playback).1.len(), 0);
        let mut played = Vec::new();
        for n in 0..10_u8 {
            // Packet 5 comes together with packet 6.
            for packet in match n {
                5 => vec![],
                6 => vec![5, 6],
                n => vec![n],
            } {
                playback.push_audio(vec![packet; FRAME]);
            }
            played.push(tick(&mut playback).1.first().copied());
        }
        assert_eq!(played[..2], [None, None]);
        assert_eq!(played[2..], (0..8).map(Some).collect::<Vec<_>>());
        playback.clear();
        playback.push_audio(vec![1; 10]);
        let waits = (0..10).take_while(|_| tick(&mut playback).1.is_empty()).count();
        assert_eq!(waits, 3, "a short sound is not held for ever");
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut playback = Playback::default();
        assert!(playback.push_audio(vec![1; MAX_QUEUED]));
        assert!(!playback.push_audio(vec![1]));
    }
}
