//! What was audible when: onsets, pauses, reply latencies and barge-in stops, from 20 ms frames.

use crate::g711::mulaw_decode;

/// RMS above which a 20 ms frame counts as sound: about -41 dBFS, above line noise and the caption
/// carrier of emulated speech, well below speech.
const AUDIBLE_RMS: u64 = 300;
/// A pause this long means that the agent is not in mid-speech.
const QUIET_MS: u32 = 200;
/// A pause this long after a barge-in means that the agent has stopped (words pause for less).
const STOPPED_MS: u32 = 400;

/// True when a frame of mu-law carries sound rather than silence or line noise.
pub(crate) fn audible(ulaw: &[u8]) -> bool {
    let energy: u64 = ulaw
        .iter()
        .map(|byte| {
            let sample = i64::from(mulaw_decode(*byte));
            (sample * sample).unsigned_abs()
        })
        .sum();
    energy > AUDIBLE_RMS * AUDIBLE_RMS * ulaw.len() as u64
}

/// Follows both ends of the line. Every time is in milliseconds since the call was answered.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// When the agent was first heard.
    pub(crate) first_agent_ms: Option<u32>,
    /// End of caller speech → first agent audio.
    pub(crate) reply_latencies: Vec<u32>,
    /// Start of caller speech over the agent → end of agent audio.
    pub(crate) barge_in_stops: Vec<u32>,
    agent_onset: Option<u32>,
    agent_last: Option<u32>,
    caller_last: Option<u32>,
    caller_speaking: bool,
    waiting_since: Option<u32>,
    armed: bool,
    barge_in: Option<u32>,
}

impl Hearing {
    /// The agent's frame that plays from `now` to `now + frame_ms`.
    pub(crate) fn agent_frame(&mut self, now: u32, frame_ms: u32, sound: bool) {
        let quiet_for = self.agent_last.map_or(u32::MAX, |last| now.saturating_sub(last));
        if self.waiting_since.is_some() && quiet_for >= QUIET_MS {
            self.armed = true;
        }
        if sound {
            self.first_agent_ms.get_or_insert(now);
            self.agent_onset.get_or_insert(now);
            self.agent_last = Some(now + frame_ms);
            if self.armed {
                self.armed = false;
                if let Some(end) = self.waiting_since.take() {
                    self.reply_latencies.push(now.saturating_sub(end));
                }
            }
        } else if let Some(onset) = self.barge_in
            && quiet_for.min(now.saturating_sub(onset)) >= STOPPED_MS
        {
            self.finish_barge_in(onset);
        }
    }

    /// The caller's frame at the same time; `speaking` while an utterance is being said.
    pub(crate) fn caller_frame(&mut self, now: u32, frame_ms: u32, speaking: bool, sound: bool) {
        if speaking && sound {
            if !self.caller_speaking {
                self.caller_speaking = true;
                self.waiting_since = None;
                let talking = self.agent_last.is_some_and(|last| last + QUIET_MS > now);
                if talking && self.barge_in.is_none() {
                    self.barge_in = Some(now);
                }
            }
            self.caller_last = Some(now + frame_ms);
        }
        if !speaking && self.caller_speaking {
            self.caller_speaking = false;
            self.waiting_since = self.caller_last;
            self.armed = false;
            self.agent_onset = None;
        }
    }

    /// The agent's queued audio was cleared: what comes next is a new reply.
    pub(crate) fn agent_cleared(&mut self) {
        self.armed = self.waiting_since.is_some();
    }

    /// Forgets the onset, so that the next wait asks for new speech.
    pub(crate) fn expect_new_speech(&mut self) {
        self.agent_onset = None;
    }

    /// When the awaited speech began.
    pub(crate) fn onset(&self) -> Option<u32> {
        self.agent_onset
    }

    /// For how long the agent has been quiet.
    pub(crate) fn quiet_for(&self, now: u32) -> u32 {
        self.agent_last.map_or(now, |last| now.saturating_sub(last))
    }

    /// The call is over: a pending barge-in is measured with what was heard.
    pub(crate) fn finish(&mut self) {
        if let Some(onset) = self.barge_in {
            self.finish_barge_in(onset);
        }
    }

    fn finish_barge_in(&mut self, onset: u32) {
        self.barge_in = None;
        let stopped = self.agent_last.unwrap_or(onset);
        self.barge_in_stops.push(stopped.saturating_sub(onset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays (agent sound, caller speaking) per character pair: 'x' is sound, '.' is silence.
    fn play(agent: &str, caller: &str) -> Hearing {
        let mut hearing = Hearing::default();
        for (i, (a, c)) in agent.chars().zip(caller.chars()).enumerate() {
            let now = i as u32 * 20;
            hearing.agent_frame(now, 20, a == 'x');
            hearing.caller_frame(now, 20, c == 'x', c == 'x');
        }
        hearing.finish();
        hearing
    }

    #[test]
    fn measures_the_reply_from_the_end_of_the_question() {
        let hearing = play("....................xxxx", "...xxxxx................");
        assert_eq!(hearing.first_agent_ms, Some(400));
        assert_eq!(hearing.reply_latencies, [240]);
        assert_eq!(hearing.barge_in_stops, Vec::<u32>::new());
    }

    #[test]
    fn measures_how_long_the_agent_talks_on_over_the_caller() {
        let agent = "xxxxxxxxxx...................................xxx";
        let caller = "......xxxxxxxxxxxxxxxxxx........................";
        let hearing = play(agent, caller);
        assert_eq!(hearing.barge_in_stops, [80]);
        assert_eq!(hearing.reply_latencies, [(45 - 24) * 20]);
    }

    #[test]
    fn silence_and_idle_noise_are_not_sound() {
        assert!(!audible(&[0xFF; 160]));
        assert!(!audible(&[0x7F, 0xFE].repeat(80)));
        assert!(audible(&[0x90; 160]));
    }
}
