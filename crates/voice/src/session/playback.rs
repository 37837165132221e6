//! What the caller has really heard, from marks that come back and the clock between them.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Millis;

/// Bytes of 8 kHz G.711 in one millisecond.
pub const BYTES_PER_MS: u64 = 8;
/// A longer round trip is a disturbance, not a distance.
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(400);
/// A mark is set after this much audio.
const MARK_EVERY: u64 = 200 * BYTES_PER_MS;

/// The far end's playback buffer, as far as it can be known. Positions are bytes since the stream began.
#[derive(Debug, Default)]
pub struct Playback {
    sent: u64,
    /// At `anchor_at`, playback was at `anchor`.
    anchor: u64,
    anchor_at: Millis,
    marks: VecDeque<(u64, u64)>,
    next_mark: u64,
    last_marked: u64,
    /// Heard positions never go back.
    floor: u64,
    /// Bytes that are played while a message goes to the far end and its answer comes back.
    round_trip: u64,
    measured: bool,
}

impl Playback {
    /// Notes audio that goes out now; returns the id of a mark to send after it, if one is due.
    pub fn push(&mut self, now: Millis, bytes: u64) -> Option<u64> {
        if self.heard(now) >= self.sent {
            self.anchor = self.sent;
            self.anchor_at = now;
        }
        self.sent += bytes;
        (self.sent - self.last_marked >= MARK_EVERY).then(|| self.mark())
    }

    /// A mark at the end of what has been sent, unless there is one already.
    pub fn close(&mut self) -> Option<u64> {
        (self.sent > self.last_marked).then(|| self.mark())
    }

    fn mark(&mut self) -> u64 {
        let id = self.next_mark;
        self.next_mark += 1;
        self.last_marked = self.sent;
        self.marks.push_back((id, self.sent));
        id
    }

    /// The network's round trip to the far end. A mark that comes back was reached that much earlier than a clear
    /// sent now would take effect, and truncation counts what has been heard by then.
    pub fn round_trip(&mut self, now: Millis, took: Duration) {
        self.floor = self.heard(now);
        let took = u64::try_from(took.min(LONGEST_ROUND_TRIP).as_millis()).unwrap_or(0) * BYTES_PER_MS;
        // The shortest seen is the network; the rest of a longer one is somebody's delay.
        self.round_trip = if self.measured { self.round_trip.min(took) } else { took };
        self.measured = true;
    }

    /// A mark came back. `false` when it was flushed by a clear or is none of ours.
    pub fn marked(&mut self, now: Millis, id: u64) -> bool {
        let Some(index) = self.marks.iter().position(|&(mark, _)| mark == id) else { return false };
        let (_, position) = self.marks[index];
        self.floor = self.heard(now).max(position);
        self.marks.drain(..=index);
        self.anchor = position + self.round_trip;
        self.anchor_at = now;
        true
    }

    /// Position up to which the caller has heard us.
    pub fn heard(&self, now: Millis) -> u64 {
        let elapsed = (now - self.anchor_at).as_millis() as u64 * BYTES_PER_MS;
        // A mark that has not come back has not been played, whatever the clock says.
        let limit = self.marks.front().map_or(self.sent, |&(_, position)| position + self.round_trip);
        (self.anchor + elapsed).min(limit).max(self.floor).min(self.sent)
    }

    /// Position up to which audio has been sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether everything sent has been heard.
    pub fn is_idle(&self, now: Millis) -> bool {
        self.marks.is_empty() && self.heard(now) >= self.sent
    }

    /// When everything sent will have been heard, as far as the clock alone tells; `None` when it has been, or
    /// when marks will tell.
    pub fn idle_at(&self, now: Millis) -> Option<Millis> {
        (self.marks.is_empty() && !self.is_idle(now)).then(|| {
            let left = self.sent - self.heard(now);
            Millis(now.0 + left.div_ceil(BYTES_PER_MS).max(1))
        })
    }

    /// The far end drops what it has not played. Marks that come back afterwards mean nothing.
    /// Returns the position that was reached.
    pub fn clear(&mut self, now: Millis) -> u64 {
        let heard = self.heard(now);
        self.marks.clear();
        self.floor = heard;
        self.sent = heard;
        self.last_marked = heard;
        self.anchor = heard;
        self.anchor_at = now;
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_fills_in_between_marks() {
        let mut playback = Playback::default();
        // Ten seconds of audio arrive in one second.
        let marks: Vec<u64> = (0..50).filter_map(|i| playback.push(Millis(i * 20), 1_600)).collect();
        assert_eq!(marks.len(), 50);
        assert_eq!(playback.heard(Millis(100)) / BYTES_PER_MS, 100);
        // Not past the first mark before it comes back, then on from it.
        assert_eq!(playback.heard(Millis(900)) / BYTES_PER_MS, 200);
        assert!(playback.marked(Millis(230), marks[0]));
        assert_eq!(playback.heard(Millis(330)) / BYTES_PER_MS, 300);
    }

    #[test]
    fn marks_after_a_clear_are_not_heard() {
        let mut playback = Playback::default();
        let first = playback.push(Millis(0), 1_600).unwrap();
        let second = playback.push(Millis(0), 1_600).unwrap();
        assert_eq!(playback.clear(Millis(120)) / BYTES_PER_MS, 120);
        assert!(!playback.marked(Millis(125), first) && !playback.marked(Millis(125), second));
        assert_eq!(playback.heard(Millis(9_000)) / BYTES_PER_MS, 120);
        assert!(playback.is_idle(Millis(125)));
        // The next reply starts its own clock.
        playback.push(Millis(10_000), 1_600);
        assert_eq!(playback.heard(Millis(10_050)) / BYTES_PER_MS, 170);
    }

    #[test]
    fn a_pause_between_replies_does_not_count_as_heard() {
        let mut playback = Playback::default();
        let mark = playback.push(Millis(0), 1_600).unwrap();
        playback.marked(Millis(210), mark);
        assert!(playback.is_idle(Millis(210)));
        playback.push(Millis(5_000), 800);
        assert_eq!(playback.heard(Millis(5_000)), 1_600);
        assert_eq!(playback.idle_at(Millis(5_000)), Some(Millis(5_100)));
        let last = playback.close().unwrap();
        assert!(playback.close().is_none());
        playback.marked(Millis(5_110), last);
        assert_eq!(playback.idle_at(Millis(5_110)), None);
    }
}
