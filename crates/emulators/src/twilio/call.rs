//! The call itself: webhook, verbs, streams, and the one clock that drives them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};
use url::Url;
use uuid::Uuid;

use super::frames::Start;
use super::leg::{Effect, Leg};
use super::line::{Action, Cue, Line, Watcher};
use super::playback::{FRAME, FRAME_MS, Playback, SILENCE};
use super::report::{CallEvent, CallReport, Outcome, StreamReport};
use super::stream::{Received, Signature, StreamClient};
use super::twiml::{self, Document, Method, Problem, Verb};
use super::webhook::Webhooks;
use super::{CallOptions, Error, Step};
use crate::g711::linear_to_mulaw;

/// Redirects without a stream between them.
const MAX_REDIRECTS: u32 = 20;
const MAX_DOCUMENTS: usize = 1000;

fn sid(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

async fn prepare(options: &CallOptions) -> Result<Vec<Cue>, Error> {
    let mut cues = Vec::new();
    for step in &options.script {
        cues.push(match step {
            Step::Say(text) => {
                let utterance = options.speaker.say(text).await;
                Cue::Audio { ulaw: linear_to_mulaw(&utterance.samples).into(), text: text.clone() }
            }
            Step::Play(samples) => sound(linear_to_mulaw(samples).into()),
            Step::PlayUlaw(ulaw) => sound(ulaw.clone()),
            Step::Wait(duration) => Cue::Wait { ms: millis(*duration) },
            Step::WaitForReply { quiet_ms, timeout } => {
                Cue::Reply { quiet_ms: *quiet_ms, timeout_ms: millis(*timeout) }
            }
            Step::WaitForSpeech { timeout } => Cue::Speech { timeout_ms: millis(*timeout) },
            Step::InterruptAfter { heard_ms } => Cue::Interrupt { heard_ms: *heard_ms },
            Step::Dtmf(digit) if "0123456789*#ABCD".contains(*digit) => Cue::Dtmf(*digit),
            Step::Dtmf(other) => {
                return Err(Error::Options(format!("{other:?} is not a key: use 0-9, *, #, A-D")));
            }
            Step::Hangup => Cue::HangUp,
            Step::AbruptDrop => Cue::Drop,
        });
    }
    Ok(cues)
}

fn sound(ulaw: Bytes) -> Cue {
    let text = format!("(sound, {:.1} s)", ulaw.len() as f64 / 8000.0);
    Cue::Audio { ulaw, text }
}

pub(crate) async fn run(options: CallOptions, watcher: Watcher) -> Result<CallReport, Error> {
    let call_sid = sid("CA");
    let webhooks = Arc::new(Webhooks::new(&options, &call_sid)?);
    let script = prepare(&options).await?;
    let line = Line::new(
        script,
        options.stay_on_line,
        millis(options.record_limit),
        options.captions,
        watcher.clone(),
    );
    let rng = StdRng::seed_from_u64(options.faults.seed);
    let mut call = Call {
        report: CallReport {
            call_sid,
            ring_ms: 0,
            duration_ms: 0,
            streams: Vec::new(),
            twiml: Vec::new(),
            warnings: Vec::new(),
            heard_words: Vec::new(),
            said: Vec::new(),
            announced: Vec::new(),
            greeting_ms: None,
            reply_latencies_ms: Vec::new(),
            barge_in_stops_ms: Vec::new(),
            unanswered: 0,
            gaps_ms: Vec::new(),
            outcome: Outcome::EndedByServer,
            recording: Vec::new(),
            sent_ulaw: Vec::new(),
            received_ulaw: Vec::new(),
        },
        options,
        webhooks,
        watcher,
        line,
        rng,
        origin: Instant::now(),
        announcement: Playback::default(),
        near: [SILENCE; FRAME],
        gap_since: None,
    };
    let outcome = Box::pin(call.follow()).await;
    Ok(call.finish(outcome))
}

/// Why a stream is over.
enum LegEnd {
    ByServer(Option<u16>),
    ByCaller(Outcome),
    Dropped,
}

struct Call {
    options: CallOptions,
    webhooks: Arc<Webhooks>,
    watcher: Watcher,
    line: Line,
    rng: StdRng,
    /// When the call was answered; frame `n` is due `n` × 20 ms later.
    origin: Instant,
    /// What `<Say>` and `<Play>` have queued.
    announcement: Playback,
    /// The caller's latest frame.
    near: [u8; FRAME],
    gap_since: Option<u32>,
    report: CallReport,
}

impl Call {
    /// Fetches and acts out documents until the call is over.
    async fn follow(&mut self) -> Outcome {
        let mut url = self.webhooks.route.voice_url();
        let mut method = Method::Post;
        let mut redirects = 0;
        self.watcher.tell(CallEvent::Ringing { call_sid: self.report.call_sid.clone() });
        let rang = Instant::now();
        let answer = self.webhooks.ask(&url, method, "ringing").await.and_then(|xml| self.accept(xml));
        self.report.ring_ms = millis(rang.elapsed());
        let mut document = match answer {
            Ok(document) => document,
            Err(problem) => return application_error(problem),
        };
        if document.verbs.first() == Some(&Verb::Reject) {
            return Outcome::Rejected;
        }
        self.origin = Instant::now();
        self.watcher.tell(CallEvent::Answered { ring_ms: self.report.ring_ms });
        loop {
            let streams = self.report.streams.len();
            let next = match self.act(document, &url).await {
                Ok(next) => next,
                Err(outcome) => return outcome,
            };
            if self.report.streams.len() > streams {
                redirects = 0;
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS || self.report.twiml.len() >= MAX_DOCUMENTS {
                let message =
                    format!("more than {MAX_REDIRECTS} redirects in a row: end the chain with another verb");
                return application_error(Problem::new(11200, message));
            }
            (url, method) = next;
            let webhooks = Arc::clone(&self.webhooks);
            let target = url.clone();
            let answer =
                match self.meanwhile(async move { webhooks.ask(&target, method, "in-progress").await }).await
                {
                    Ok(answer) => answer,
                    Err(outcome) => return outcome,
                };
            document = match answer.and_then(|xml| self.accept(xml)) {
                Ok(document) => document,
                Err(problem) => return application_error(problem),
            };
        }
    }

    fn accept(&mut self, xml: String) -> Result<Document, Problem> {
        let document = twiml::parse(&xml);
        self.report.twiml.push(xml);
        let document = document?;
        for problem in &document.warnings {
            self.warn(problem.clone());
        }
        Ok(document)
    }

    fn warn(&mut self, problem: Problem) {
        self.watcher.tell(CallEvent::Warning { at_ms: self.line.now(), problem: problem.clone() });
        if self.report.warnings.len() < 100 {
            self.report.warnings.push(problem);
        }
    }

    /// Acts out one document; returns where the next one is.
    async fn act(&mut self, document: Document, base: &Url) -> Result<(Url, Method), Outcome> {
        let goto = |url: &str, method: Method| {
            base.join(url).map(|url| (url, method)).map_err(|e| {
                application_error(Problem::new(
                    11100,
                    format!("{url:?} is not a URL ({e}): write it in full"),
                ))
            })
        };
        for verb in document.verbs {
            match verb {
                Verb::Say { text, times } => {
                    self.line.begin();
                    let speaker = self.options.speaker.clone();
                    let spoken = text.clone();
                    let utterance = self.meanwhile(async move { speaker.say(&spoken).await }).await?;
                    for _ in 0..times {
                        let at_ms = self.line.now();
                        self.watcher.tell(CallEvent::Announced { at_ms, text: text.clone() });
                        self.report.announced.push((at_ms, text.clone()));
                        self.announce(&utterance.samples).await?;
                    }
                }
                Verb::Play { url } => {
                    self.line.begin();
                    let (url, _) = goto(&url, Method::Get)?;
                    let webhooks = Arc::clone(&self.webhooks);
                    match self.meanwhile(async move { webhooks.audio(&url).await }).await? {
                        Ok(samples) => self.announce(&samples).await?,
                        Err(problem) => self.warn(problem),
                    }
                }
                Verb::Pause { seconds } => {
                    let pause = tokio::time::sleep(Duration::from_secs(seconds.into()));
                    self.meanwhile(pause).await?;
                }
                Verb::Connect { stream, action } => {
                    self.stream(&stream).await?;
                    if let Some((url, method)) = action {
                        return goto(&url, method);
                    }
                }
                Verb::Redirect { url, method } => return goto(&url, method),
                Verb::Dial { number } => return Err(Outcome::Forwarded { to: number }),
                Verb::Hangup | Verb::Reject => return Err(Outcome::EndedByServer),
            }
        }
        Err(Outcome::EndedByServer)
    }

    fn due(&self) -> Instant {
        self.origin + Duration::from_millis(self.line.now().into())
    }

    /// Lets the call go on while something else is awaited.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.due()) => self.idle_frame()?,
                done = &mut work => return Ok(done),
            }
        }
    }

    async fn announce(&mut self, samples: &[i16]) -> Result<(), Outcome> {
        for chunk in linear_to_mulaw(samples).chunks(8000) {
            self.announcement.push_audio(chunk.to_vec());
            while !self.announcement.is_empty() {
                sleep_until(self.due()).await;
                self.idle_frame()?;
            }
        }
        Ok(())
    }

    /// 20 ms without a stream.
    fn idle_frame(&mut self) -> Result<(), Outcome> {
        let mut far = [SILENCE; FRAME];
        self.announcement.next_frame(&mut far);
        let (_, actions) = self.line.step(&far, &mut self.near);
        if actions.iter().any(|action| matches!(action, Action::HangUp | Action::Drop)) {
            return Err(Outcome::HungUpByCaller);
        }
        self.check_duration()
    }

    fn check_duration(&self) -> Result<(), Outcome> {
        if self.line.now() >= millis(self.options.max_duration) { Err(Outcome::Timeout) } else { Ok(()) }
    }

    /// Runs a stream until the server closes it; an error is the end of the call.
    async fn stream(&mut self, verb: &twiml::Stream) -> Result<(), Outcome> {
        let start = Start {
            stream_sid: sid("MZ"),
            call_sid: self.report.call_sid.clone(),
            account_sid: self.options.account_sid.clone(),
            parameters: verb.parameters.clone(),
        };
        let mut report = StreamReport {
            url: verb.url.clone(),
            stream_sid: start.stream_sid.clone(),
            parameters: verb.parameters.clone(),
            ..StreamReport::default()
        };
        let socket = match verb.target() {
            Ok(url) => {
                let address = self.webhooks.route.address_of(&url);
                let signature = Signature::Token(self.options.auth_token.clone());
                let connect = async move { StreamClient::connect(&url, Some(&address), &signature).await };
                self.meanwhile(Box::pin(connect)).await?.map_err(|e| Problem::new(31920, e.to_string()))
            }
            Err(problem) => Err(problem),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(problem) => {
                // As on Twilio, a stream that fails is logged and the next verb runs.
                report.violate(self.line.now(), problem.clone(), false);
                self.report.streams.push(report);
                self.warn(problem);
                return Ok(());
            }
        };
        let now = self.line.now();
        if let Some(since) = self.gap_since.take() {
            self.report.gaps_ms.push(now.saturating_sub(since));
        }
        self.watcher.tell(CallEvent::StreamOpened { at_ms: now, url: verb.url.clone() });
        let rng = StdRng::seed_from_u64(self.rng.random());
        let mut leg = Leg::new(socket, report, start, now, self.options.faults, rng);
        leg.open(&self.near);
        if self.options.keep_ulaw {
            self.report.sent_ulaw.extend_from_slice(&self.near);
        }
        self.line.begin();
        let end = self.converse(&mut leg).await;
        let now = self.line.now();
        let (finished, result) = match end {
            LegEnd::ByServer(code) => {
                self.gap_since = Some(now);
                self.watcher.tell(CallEvent::StreamClosed { at_ms: now, code });
                (leg.closed(now, code), Ok(()))
            }
            LegEnd::ByCaller(outcome) => (Box::pin(leg.stop(now)).await, Err(outcome)),
            LegEnd::Dropped => (leg.drop_line(now), Err(Outcome::HungUpByCaller)),
        };
        for violation in finished.violations.iter().filter(|violation| violation.sent_after_stop) {
            let problem = Problem::new(violation.code, violation.message.clone());
            self.watcher.tell(CallEvent::Warning { at_ms: violation.at_ms, problem });
        }
        self.report.streams.push(finished);
        result
    }

    async fn converse(&mut self, leg: &mut Leg) -> LegEnd {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.due()) => {
                    if let Some(end) = self.stream_frame(leg) {
                        return end;
                    }
                }
                received = leg.socket.receive() => match received {
                    Received::Text(text) => self.on_text(leg, &text),
                    Received::Binary(bytes) => {
                        let problem = leg.binary(bytes.len(), self.line.now());
                        self.tell_warning(problem);
                    }
                    Received::Pong => {}
                    Received::Close(code) => {
                        // Writes the answering close frame; the server ends the connection.
                        leg.socket.push_out();
                        return LegEnd::ByServer(Some(code.unwrap_or(1005)));
                    }
                    Received::Ended => return LegEnd::ByServer(Some(1006)),
                },
            }
        }
    }

    fn tell_warning(&self, problem: Problem) {
        self.watcher.tell(CallEvent::Warning { at_ms: self.line.now(), problem });
    }

    fn on_text(&mut self, leg: &mut Leg, text: &str) {
        match leg.text(text, self.line.now()) {
            Effect::Audio(audio) => {
                if self.options.keep_ulaw {
                    self.report.received_ulaw.extend_from_slice(&audio);
                }
            }
            Effect::Cleared => self.line.hearing.agent_cleared(),
            Effect::Nothing => {}
            Effect::Wrong(problem) => self.tell_warning(problem),
        }
    }

    /// 20 ms with a stream; returns why it is over.
    fn stream_frame(&mut self, leg: &mut Leg) -> Option<LegEnd> {
        let now = self.line.now();
        let mut far = [SILENCE; FRAME];
        leg.next_frame(&mut far);
        let (sound, actions) = self.line.step(&far, &mut self.near);
        if sound {
            leg.report.first_audio_ms.get_or_insert(now);
        }
        if actions.contains(&Action::Drop) {
            return Some(LegEnd::Dropped);
        }
        leg.send_media(now + FRAME_MS, &self.near);
        if self.options.keep_ulaw {
            self.report.sent_ulaw.extend_from_slice(&self.near);
        }
        for action in &actions {
            if let Action::Dtmf(digit) = action {
                leg.send_dtmf(*digit);
            }
        }
        leg.socket.push_out();
        if actions.contains(&Action::HangUp) {
            return Some(LegEnd::ByCaller(Outcome::HungUpByCaller));
        }
        self.check_duration().err().map(LegEnd::ByCaller)
    }

    fn finish(mut self, outcome: Outcome) -> CallReport {
        let at_ms = self.line.now();
        self.watcher.tell(CallEvent::Ended { at_ms, outcome: outcome.clone() });
        let mut line = self.line;
        line.hearing.finish();
        self.report.duration_ms = at_ms;
        self.report.heard_words = std::mem::take(&mut line.heard_words);
        self.report.said = std::mem::take(&mut line.said);
        self.report.unanswered = line.unanswered;
        self.report.recording = line.take_recording();
        self.report.greeting_ms = line.hearing.first_agent_ms;
        self.report.reply_latencies_ms = line.hearing.reply_latencies;
        self.report.barge_in_stops_ms = line.hearing.barge_in_stops;
        self.report.outcome = outcome;
        self.report
    }
}

fn application_error(problem: Problem) -> Outcome {
    Outcome::ApplicationError { code: problem.code, message: problem.message }
}
