//! The caller at their end of the line: says the script, listens, records. Pure: stepped once
//! per 20 ms frame by whoever owns the clock.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::hearing::{Hearing, audible};
use super::playback::{FRAME, FRAME_MS, SILENCE};
use super::report::CallEvent;
use crate::g711::mulaw_decode;
use crate::speech::{CaptionDecoder, HeardWord};

/// After this long, the wait of an interruption for something to interrupt is given up.
const INTERRUPT_PATIENCE_MS: u32 = 30_000;

/// A step of the script, with its audio made.
#[derive(Debug, Clone)]
pub(crate) enum Cue {
    Audio { ulaw: Bytes, text: String },
    Wait { ms: u32 },
    Reply { quiet_ms: u32, timeout_ms: u32 },
    Speech { timeout_ms: u32 },
    Interrupt { heard_ms: u32 },
    Dtmf(char),
    HangUp,
    Drop,
}

/// What the caller does besides making sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Dtmf(char),
    HangUp,
    Drop,
}

/// Sends live events to whoever watches; a watcher who is too slow misses some.
#[derive(Clone, Default)]
pub(crate) struct Watcher(pub(crate) Option<mpsc::Sender<CallEvent>>);

impl Watcher {
    pub(crate) fn tell(&self, event: CallEvent) {
        if let Some(sender) = &self.0 {
            // A full channel only costs the live view an event: the report has everything.
            let _ = sender.try_send(event);
        }
    }
}

pub(crate) struct Line {
    script: VecDeque<Cue>,
    cue_started: Option<u32>,
    position: usize,
    running: bool,
    stay: bool,
    finished: bool,
    frames: u32,
    pub(crate) hearing: Hearing,
    captions: Option<CaptionDecoder>,
    pub(crate) heard_words: Vec<HeardWord>,
    pub(crate) said: Vec<(u32, String)>,
    pub(crate) unanswered: u32,
    recording: Vec<i16>,
    record_limit: usize,
    watcher: Watcher,
    agent_sounding: bool,
}

impl Line {
    pub(crate) fn new(
        script: Vec<Cue>,
        stay: bool,
        record_ms: u32,
        captions: bool,
        watcher: Watcher,
    ) -> Self {
        Self {
            script: script.into(),
            cue_started: None,
            position: 0,
            running: false,
            stay,
            finished: false,
            frames: 0,
            hearing: Hearing::default(),
            captions: captions.then(CaptionDecoder::new),
            heard_words: Vec::new(),
            said: Vec::new(),
            unanswered: 0,
            recording: Vec::new(),
            record_limit: record_ms as usize * 8 * 2,
            watcher,
            agent_sounding: false,
        }
    }

    /// The far side is there: the script begins.
    pub(crate) fn begin(&mut self) {
        self.running = true;
    }

    /// Milliseconds since the answer.
    pub(crate) fn now(&self) -> u32 {
        self.frames * FRAME_MS
    }

    pub(crate) fn take_recording(&mut self) -> Vec<i16> {
        std::mem::take(&mut self.recording)
    }

    /// One frame: hears `far`, fills `near`; true in the first place when `far` has sound.
    pub(crate) fn step(&mut self, far: &[u8; FRAME], near: &mut [u8; FRAME]) -> (bool, Vec<Action>) {
        let now = self.now();
        let sound = audible(far);
        let replies = self.hearing.reply_latencies.len();
        let was_quiet = self.hearing.quiet_for(now) >= 500 || !self.agent_sounding;
        self.hearing.agent_frame(now, FRAME_MS, sound);
        if sound && was_quiet {
            let latency_ms = self.hearing.reply_latencies.get(replies).copied();
            self.watcher.tell(CallEvent::AgentSpeaks { at_ms: now, latency_ms });
        }
        self.agent_sounding = sound || (self.agent_sounding && !was_quiet);
        self.listen(far);

        near.fill(SILENCE);
        let actions = if self.running { self.perform(now, near) } else { Vec::new() };
        self.record(near, far);
        self.frames += 1;
        (sound, actions)
    }

    fn listen(&mut self, far: &[u8; FRAME]) {
        let Some(decoder) = &mut self.captions else { return };
        let samples = far.map(mulaw_decode);
        for word in decoder.push(&samples) {
            let event = CallEvent::AgentWord { at_ms: word.start_ms, text: word.text.clone() };
            self.watcher.tell(event);
            self.heard_words.push(word);
        }
    }

    fn record(&mut self, near: &[u8; FRAME], far: &[u8; FRAME]) {
        if self.recording.len() < self.record_limit {
            self.recording
                .extend(near.iter().zip(far).flat_map(|(n, f)| [mulaw_decode(*n), mulaw_decode(*f)]));
        }
    }

    fn next_cue(&mut self) {
        self.script.pop_front();
        self.cue_started = None;
        self.position = 0;
    }

    /// Runs the script for one frame: steps that take no time run on, audio fills the frame.
    fn perform(&mut self, now: u32, near: &mut [u8; FRAME]) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut speaking = false;
        loop {
            let Some(cue) = self.script.front() else {
                if !self.stay && !self.finished {
                    actions.push(Action::HangUp);
                }
                self.finished = true;
                break;
            };
            let started = *self.cue_started.get_or_insert(now);
            let waited = now - started;
            match cue {
                Cue::Audio { ulaw, text } => {
                    if self.position == 0 {
                        let text = text.clone();
                        self.watcher.tell(CallEvent::CallerSays { at_ms: now, text: text.clone() });
                        self.said.push((now, text));
                    }
                    let rest = &ulaw[self.position.min(ulaw.len())..];
                    if rest.is_empty() {
                        self.next_cue();
                        continue;
                    }
                    let take = rest.len().min(FRAME);
                    near[..take].copy_from_slice(&rest[..take]);
                    self.position += take;
                    speaking = true;
                    if self.position >= ulaw.len() {
                        // Also when the agent spoke unasked before: a reply comes after the words.
                        self.hearing.expect_new_speech();
                        self.next_cue();
                    }
                    break;
                }
                Cue::Wait { ms } => {
                    if waited < *ms {
                        break;
                    }
                    self.next_cue();
                }
                Cue::Reply { quiet_ms, timeout_ms } => {
                    let answered = self.hearing.onset().is_some() && self.hearing.quiet_for(now) >= *quiet_ms;
                    if !self.waited_for(answered, waited, *timeout_ms) {
                        break;
                    }
                }
                Cue::Speech { timeout_ms } => {
                    let answered = self.hearing.onset().is_some();
                    if !self.waited_for(answered, waited, *timeout_ms) {
                        break;
                    }
                }
                Cue::Interrupt { heard_ms } => {
                    let heard = self.hearing.onset().is_some_and(|onset| now >= onset + heard_ms);
                    if !self.waited_for(heard, waited, INTERRUPT_PATIENCE_MS) {
                        break;
                    }
                }
                Cue::Dtmf(digit) => {
                    actions.push(Action::Dtmf(*digit));
                    self.next_cue();
                }
                Cue::HangUp => {
                    actions.push(Action::HangUp);
                    break;
                }
                Cue::Drop => {
                    actions.push(Action::Drop);
                    break;
                }
            }
        }
        let sound = speaking && audible(near);
        self.hearing.caller_frame(now, FRAME_MS, speaking, sound);
        actions
    }

    /// True when the wait is over, by an answer or by its timeout.
    fn waited_for(&mut self, answered: bool, waited: u32, timeout_ms: u32) -> bool {
        if !answered && waited < timeout_ms {
            return false;
        }
        if !answered {
            self.unanswered += 1;
        }
        self.hearing.expect_new_speech();
        self.next_cue();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: u8 = 0x90;

    fn line(script: Vec<Cue>) -> Line {
        let mut line = Line::new(script, false, 60_000, false, Watcher::default());
        line.begin();
        line
    }

    fn audio(frames: usize) -> Cue {
        Cue::Audio { ulaw: vec![LOUD; FRAME * frames].into(), text: "hello".into() }
    }

    /// Steps through the frames of `agent` ('x' sound); returns the caller's as the same picture.
    fn run(line: &mut Line, agent: &str) -> (String, Vec<(usize, Action)>) {
        let mut near = [0; FRAME];
        let mut picture = String::new();
        let mut actions = Vec::new();
        for (i, c) in agent.chars().enumerate() {
            let far = [if c == 'x' { LOUD } else { SILENCE }; FRAME];
            let (_, done) = line.step(&far, &mut near);
            picture.push(if near[0] == LOUD { 'x' } else { '.' });
            actions.extend(done.into_iter().map(|action| (i, action)));
        }
        (picture, actions)
    }

    #[test]
    fn waits_for_the_greeting_then_speaks_then_hangs_up() {
        let mut line = line(vec![Cue::Reply { quiet_ms: 60, timeout_ms: 9000 }, audio(2), Cue::Dtmf('5')]);
        let (said, actions) = run(&mut line, "..xx.xx........");
        assert_eq!(said, "..........xx...");
        assert_eq!(actions, [(12, Action::Dtmf('5')), (12, Action::HangUp)]);
        assert_eq!(line.said, [(200, "hello".to_owned())]);
        assert_eq!(line.take_recording().len(), 15 * FRAME * 2);
    }

    #[test]
    fn gives_up_waiting_and_counts_it() {
        let mut line = line(vec![Cue::Speech { timeout_ms: 60 }, audio(1), Cue::HangUp]);
        let (said, actions) = run(&mut line, "......");
        assert_eq!(said, "...x..");
        assert_eq!(actions[0], (4, Action::HangUp));
        assert_eq!(line.unanswered, 1);
    }

    #[test]
    fn interrupts_when_it_has_heard_enough() {
        let mut line = line(vec![Cue::Interrupt { heard_ms: 80 }, audio(3), Cue::Wait { ms: 10_000 }]);
        let (said, _) = run(&mut line, &format!(".xxxxxxxx{}", ".".repeat(30)));
        assert_eq!(&said[..10], ".....xxx..");
        assert_eq!(line.hearing.barge_in_stops, [80]);
    }

    #[test]
    fn the_recording_is_bounded() {
        let mut line = Line::new(vec![], true, 40, false, Watcher::default());
        run(&mut line, "xxxxxxxx");
        assert_eq!(line.take_recording().len(), 2 * FRAME * 2);
    }
}
