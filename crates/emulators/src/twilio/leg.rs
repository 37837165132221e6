//! One open media stream of a call: sequence numbers, playback, and what the server may send.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Faults;
use super::frames::{self, FromServer, Start};
use super::playback::{FRAME, FRAME_MS, MAX_QUEUED, Playback};
use super::report::StreamReport;
use super::stream::{Received, StreamClient};
use super::twiml::Problem;

/// A server that has not read for a second loses audio.
const MAX_UNREAD: u32 = 50;
/// A message this long after the server has provably read `stop` was sent after it.
const AFTER_STOP: Duration = Duration::from_millis(100);
const STOP_LINGER: Duration = Duration::from_millis(500);
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// What a message from the server did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Audio(Vec<u8>),
    Cleared,
    Nothing,
    Wrong(Problem),
}

pub(crate) struct Leg {
    pub(crate) socket: StreamClient,
    pub(crate) report: StreamReport,
    start: Start,
    playback: Playback,
    sequence: u32,
    chunk: u32,
    opened_ms: u32,
    faults: Faults,
    rng: StdRng,
    held: VecDeque<(u32, String)>,
    late_drops: bool,
}

impl Leg {
    pub(crate) fn new(
        socket: StreamClient,
        mut report: StreamReport,
        start: Start,
        opened_ms: u32,
        faults: Faults,
        rng: StdRng,
    ) -> Self {
        report.opened_at_ms = Some(opened_ms);
        Self {
            socket,
            report,
            start,
            playback: Playback::default(),
            sequence: 1,
            chunk: 0,
            opened_ms,
            faults,
            rng,
            held: VecDeque::new(),
            late_drops: false,
        }
    }

    /// `connected`, `start` and the first audio in one write: a server must not need time between.
    pub(crate) fn open(&mut self, first: &[u8; FRAME]) {
        self.socket.offer(frames::connected(), MAX_UNREAD);
        self.socket.offer(frames::start(&self.start), MAX_UNREAD);
        self.send_media(self.opened_ms, first);
        self.socket.push_out();
    }

    /// The next 20 ms of the server's audio; echoes the marks that have played.
    pub(crate) fn next_frame(&mut self, far: &mut [u8; FRAME]) {
        let (marks, _) = self.playback.next_frame(far);
        self.echo(marks);
    }

    fn echo(&mut self, marks: Vec<String>) {
        for name in marks {
            let sequence = self.next_sequence();
            let text = frames::mark(&self.start.stream_sid, sequence, &name);
            self.send(text);
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Sends the caller's frame of `now`, through the configured faults.
    pub(crate) fn send_media(&mut self, now: u32, frame: &[u8; FRAME]) {
        let lost = self.faults.loss > 0.0 && self.rng.random_bool(self.faults.loss.clamp(0.0, 1.0));
        if !lost {
            self.chunk += 1;
            let sequence = self.next_sequence();
            let at = now.saturating_sub(self.opened_ms);
            let text = frames::media(&self.start.stream_sid, sequence, self.chunk, at, frame);
            let jitter = match self.faults.jitter_ms {
                0 => 0,
                most => self.rng.random_range(0..=most),
            };
            let earliest = self.held.back().map_or(0, |(release, _)| *release);
            self.held.push_back(((now + jitter).max(earliest), text));
        }
        while self.held.front().is_some_and(|(release, _)| *release <= now) {
            if let Some((_, text)) = self.held.pop_front()
                && self.send(text)
            {
                self.report.frames_sent += 1;
            }
        }
    }

    fn send(&mut self, text: String) -> bool {
        let taken = self.socket.offer(text, MAX_UNREAD);
        if !taken {
            self.report.frames_dropped += 1;
            if !std::mem::replace(&mut self.late_drops, true) {
                let message = "the server does not read its socket: messages are dropped until it does";
                self.report.violate(self.opened_ms, Problem::new(31930, message), false);
            }
        }
        taken
    }

    pub(crate) fn send_dtmf(&mut self, digit: char) {
        let sequence = self.next_sequence();
        let text = frames::dtmf(&self.start.stream_sid, sequence, digit);
        self.send(text);
    }

    /// Acts on a text message.
    pub(crate) fn text(&mut self, text: &str, now: u32) -> Effect {
        let effect = match frames::parse(text, &self.start.stream_sid) {
            Ok(FromServer::Media(audio)) => {
                self.report.messages_received.media += 1;
                self.report.media_bytes += audio.len() as u64;
                if self.playback.push_audio(audio.clone()) {
                    Effect::Audio(audio)
                } else {
                    let minutes = MAX_QUEUED / 8000 / 60;
                    Effect::Wrong(Problem::new(
                        31924,
                        format!("over {minutes} minutes of audio are queued: send less ahead"),
                    ))
                }
            }
            Ok(FromServer::Mark(name)) => {
                self.report.messages_received.mark += 1;
                if self.playback.push_mark(name) {
                    Effect::Nothing
                } else {
                    Effect::Wrong(Problem::new(31924, "too many marks are outstanding: send fewer"))
                }
            }
            Ok(FromServer::Clear) => {
                self.report.messages_received.clear += 1;
                let marks = self.playback.clear();
                self.echo(marks);
                self.socket.push_out();
                Effect::Cleared
            }
            Err(problem) => Effect::Wrong(problem),
        };
        if let Effect::Wrong(problem) = &effect {
            self.report.violate(now, problem.clone(), false);
        }
        effect
    }

    /// Records a binary message, which the protocol does not know.
    pub(crate) fn binary(&mut self, len: usize, now: u32) -> Problem {
        let problem =
            Problem::new(31924, format!("a binary message of {len} bytes: send text messages only"));
        self.report.violate(now, problem.clone(), false);
        problem
    }

    /// Sends `stop`, then watches that the server says nothing more and lets go.
    pub(crate) async fn stop(mut self, now: u32) -> StreamReport {
        self.held.drain(..).for_each(drop);
        let Start { stream_sid, account_sid, call_sid, .. } = &self.start;
        let stop = frames::stop(stream_sid, self.sequence + 1, account_sid, call_sid);
        let began = Instant::now();
        let deadline = began + STOP_DEADLINE;
        // The pong proves that the server has read `stop`: what was under way before is no fault.
        let sent = timeout_at(deadline, async {
            self.socket.send_text(stop).await?;
            self.socket.ping().await
        });
        let mut open = matches!(sent.await, Ok(Ok(())));
        let mut read_by: Option<Instant> = None;
        while open {
            let until = read_by.map_or(deadline, |at| (at + STOP_LINGER).min(deadline));
            let Ok(received) = timeout_at(until, self.socket.receive()).await else { break };
            let elapsed = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
            let what = match received {
                Received::Pong => {
                    read_by = Some(Instant::now());
                    continue;
                }
                Received::Close(code) => {
                    self.report.close_code = Some(code.unwrap_or(1005));
                    open = false;
                    continue;
                }
                Received::Ended => {
                    open = false;
                    continue;
                }
                Received::Text(text) => format!("a message {} ms after stop: {}", elapsed, brief(&text)),
                Received::Binary(bytes) => format!("a binary message of {} bytes after stop", bytes.len()),
            };
            if read_by.is_some_and(|at| at.elapsed() > AFTER_STOP) {
                let room = self.report.violate(now + elapsed, Problem::new(31924, what), true);
                if !room {
                    break;
                }
            }
        }
        self.report.closed_at_ms = Some(now);
        self.socket.close(1000).await;
        self.report
    }

    /// Resets the connection.
    pub(crate) fn drop_line(mut self, now: u32) -> StreamReport {
        self.report.closed_at_ms = Some(now);
        self.socket.abort();
        self.report
    }

    /// The server has closed.
    pub(crate) fn closed(mut self, now: u32, code: Option<u16>) -> StreamReport {
        self.report.closed_at_ms = Some(now.max(self.opened_ms + FRAME_MS));
        self.report.close_code = code;
        self.report
    }
}

fn brief(text: &str) -> String {
    text.chars().take(120).collect()
}
