//! Runs a conversation: one task that talks to the person, the recogniser, the model, the synthesiser and tools.

mod cache;
mod ears;
mod ring;
mod tongue;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use longhouse_gateway::chat::{ChatEvent, ChatStream, Tool};
use longhouse_gateway::{Error, Fault};
use tokio::sync::watch;
use tokio::time::Instant;

use self::cache::Phrases;
pub use self::cache::SpeechCache;
use self::ears::Ears;
use self::ring::Ring;
use self::tongue::Tongue;
use super::Settings;
use super::caller::{Caller, CallerCommand, CallerEvent};
use super::clock::{Rate, Samples};
use super::core::{Before, Core};
use super::events::{Effect, Event, Thought, TurnMeasures, Voice};
use super::recording::Recorder;
use super::services::{self, Services};
use crate::audio::activity::{Activity, Detector, Sensitivity};
use crate::session::{BoxFuture, Call, Ending, ToolAnswer, ToolCall};

/// Longest goodbye to anybody.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for the application to store the end.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Who answers, and by what means.
pub struct Agent {
    /// System prompt.
    pub instructions: String,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Manners and bounds.
    pub settings: Settings,
    /// What counts as a voice.
    pub sensitivity: Sensitivity,
    /// Recogniser, model and synthesiser.
    pub services: Arc<dyn Services>,
    /// The application's side.
    pub call: Arc<dyn Call>,
    /// What was said before, when a conversation goes on.
    pub before: Before,
    /// Keeps what every conversation says, if anything does.
    pub cache: Option<SpeechCache>,
    /// Names the voice in it: provider, voice, pace, language.
    pub voice: String,
    /// Where both sides are written down as sound, if anywhere.
    pub recorder: Option<Recorder>,
}

type Asking = BoxFuture<'static, Result<ChatStream, Error>>;
type Running = BoxFuture<'static, (String, ToolAnswer)>;

enum Mind {
    Idle,
    Asking(u32, Asking),
    Writing(u32, ChatStream),
}

struct Driver {
    core: Core,
    rate: Rate,
    began: Instant,
    detector: Option<Detector>,
    ring: Ring,
    ears: Ears,
    tongue: Tongue,
    mind: Mind,
    tools: FuturesUnordered<Running>,
    caller: Option<Box<dyn Caller>>,
    agent: Agent,
    effects: Vec<Effect>,
    activity: Vec<Activity>,
    ended: Option<Ending>,
}

/// Runs one conversation until it ends; returns why it did. Everything is let go of when the future is dropped; the
/// application is then not told.
pub async fn run(
    caller: impl Caller,
    agent: Agent,
    mut handover: watch::Receiver<Option<Instant>>,
) -> Ending {
    let rate = agent.settings.rate;
    let mut driver = Driver {
        core: Core::new(agent.settings.clone(), agent.before.clone()),
        rate,
        began: Instant::now(),
        detector: agent.settings.voice_input.then(|| Detector::new(rate.0, agent.sensitivity)),
        ring: Ring::new(rate.samples(agent.settings.ring)),
        ears: Ears::new(rate),
        tongue: Tongue::new(rate, Phrases::new(agent.cache.clone(), agent.voice.clone(), &agent.settings)),
        mind: Mind::Idle,
        tools: FuturesUnordered::new(),
        caller: Some(Box::new(caller)),
        agent,
        effects: Vec::new(),
        activity: Vec::new(),
        ended: None,
    };
    if driver.agent.settings.voice_output {
        // The first sentence must not wait for a handshake.
        driver.open_tongue(driver.agent.settings.language);
    }
    driver.step(Event::Started);
    driver.drain(*handover.borrow_and_update());
    let mut watching = true;
    let mut due = driver.began;
    while driver.ended.is_none() {
        if due <= Instant::now() {
            driver.tick();
            let now = driver.now();
            let next =
                driver.core.next_deadline(now).map_or(Duration::from_secs(1), |at| rate.duration(at - now));
            due = Instant::now() + next;
        }
        tokio::select! {
            biased;
            event = next_of_caller(&mut driver.caller) => driver.caller_event(event),
            changed = handover.changed(), if watching => {
                // Without its sender there is nobody left to stop for.
                watching = changed.is_ok();
                driver.drain(*handover.borrow_and_update());
            }
            thought = next_thought(&mut driver.mind) => driver.thought(thought),
            (utterance, speech) = driver.tongue.next() => driver.step(Event::Speech { utterance, speech }),
            hearing = driver.ears.next(&driver.ring) => driver.step(Event::Hearing(hearing)),
            Some((call_id, answer)) = driver.tools.next(), if !driver.tools.is_empty() => {
                driver.step(Event::ToolFinished { call_id, answer });
            }
            () = tokio::time::sleep_until(due) => {}
        }
    }
    driver.wind_up().await
}

async fn next_of_caller(caller: &mut Option<Box<dyn Caller>>) -> CallerEvent {
    match caller {
        Some(caller) => std::future::poll_fn(|context| caller.poll_event(context)).await,
        None => std::future::pending().await,
    }
}

enum Progress {
    Asked(u32, Result<ChatStream, Error>),
    Wrote(u32, Option<Result<ChatEvent, Error>>),
}

async fn next_thought(mind: &mut Mind) -> Progress {
    match mind {
        Mind::Idle => std::future::pending().await,
        Mind::Asking(generation, asking) => Progress::Asked(*generation, asking.await),
        Mind::Writing(generation, stream) => Progress::Wrote(*generation, stream.next().await),
    }
}

impl Driver {
    fn now(&self) -> Samples {
        Samples(self.rate.samples(self.began.elapsed()))
    }

    fn drain(&mut self, by: Option<Instant>) {
        if let Some(by) = by {
            let by = Samples(self.rate.samples(by.saturating_duration_since(self.began)));
            self.step(Event::Drain(by));
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        self.core.step(now, event, &mut self.effects);
        self.apply();
    }

    fn tick(&mut self) {
        let now = self.now();
        self.core.tick(now, &mut self.effects);
        self.apply();
    }

    fn caller_event(&mut self, event: CallerEvent) {
        let event = match event {
            CallerEvent::Audio(samples) => return self.audio(&samples),
            CallerEvent::Text(text) => Event::Typed(text),
            CallerEvent::Digit(digit) => Event::Digit(digit),
            CallerEvent::Interrupt => Event::Interrupt,
            CallerEvent::Commit => Event::Committed,
            CallerEvent::Played(position) => Event::Played(position),
            CallerEvent::Cleared(position) => Event::Cleared(position),
            CallerEvent::ToolResult { call_id, output } => {
                Event::ToolFinished { call_id, answer: ToolAnswer { output, then: None } }
            }
            CallerEvent::Away => Event::Away,
            CallerEvent::Back(played) => Event::Back(played),
            CallerEvent::Gone(ending) => Event::Gone(ending),
        };
        self.step(event);
    }

    fn audio(&mut self, samples: &[i16]) {
        let now = self.now();
        if let Some(recorder) = &self.agent.recorder {
            recorder.person(now, samples);
        }
        let Some(detector) = &mut self.detector else { return };
        self.ring.push(now, samples);
        self.ears.hear(samples);
        detector.push(samples, &mut self.activity);
        for activity in std::mem::take(&mut self.activity) {
            let voice = match activity {
                Activity::Started { .. } => Voice::Started,
                Activity::Ended { .. } => Voice::Ended,
            };
            self.step(Event::Voice(voice));
        }
    }

    fn thought(&mut self, progress: Progress) {
        let (generation, thought) = match progress {
            Progress::Asked(generation, Ok(stream)) => {
                self.mind = Mind::Writing(generation, stream);
                return;
            }
            Progress::Asked(generation, Err(error)) | Progress::Wrote(generation, Some(Err(error))) => {
                tracing::warn!(%error, "the model failed");
                self.mind = Mind::Idle;
                (generation, Thought::Failed { fatal: is_fatal(&error) })
            }
            Progress::Wrote(generation, None) => {
                self.mind = Mind::Idle;
                (generation, Thought::Failed { fatal: false })
            }
            Progress::Wrote(generation, Some(Ok(event))) => match event {
                ChatEvent::Text(text) | ChatEvent::Refusal(text) => (generation, Thought::Text(text)),
                ChatEvent::ToolCall { call, .. } => match serde_json::from_str(&call.arguments) {
                    Ok(serde_json::Value::Object(arguments)) => {
                        (generation, Thought::Call(ToolCall { call_id: call.id, name: call.name, arguments }))
                    }
                    _ => {
                        tracing::warn!(tool = call.name, "the model wrote arguments that are no JSON object");
                        self.mind = Mind::Idle;
                        (generation, Thought::Failed { fatal: false })
                    }
                },
                ChatEvent::Finished { .. } => {
                    self.mind = Mind::Idle;
                    (generation, Thought::Done)
                }
                // An answer that began anew was not allowed to.
                ChatEvent::Restarted => {
                    self.mind = Mind::Idle;
                    (generation, Thought::Failed { fatal: false })
                }
                ChatEvent::Started { .. }
                | ChatEvent::Reasoning(_)
                | ChatEvent::ToolCallStarted { .. }
                | ChatEvent::ToolCallArguments { .. }
                | ChatEvent::Opaque(_) => return,
            },
        };
        self.step(Event::Thought { generation, thought });
    }

    fn open_tongue(&mut self, language: super::Language) {
        self.tongue.open(self.agent.services.speak(self.rate, language), language);
    }

    /// Carries out what the core decided, in order.
    fn apply(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Play(samples) => {
                    if let Some(detector) = &mut self.detector {
                        detector.played(&samples);
                    }
                    if let Some(recorder) = &self.agent.recorder {
                        recorder.agent(self.now(), &samples);
                    }
                    self.tell(CallerCommand::Audio(samples));
                }
                Effect::Mark(position) => self.tell(CallerCommand::Mark(position)),
                Effect::Clear => {
                    if let Some(detector) = &mut self.detector {
                        detector.cleared();
                    }
                    if let Some(recorder) = &self.agent.recorder {
                        recorder.cleared(self.now());
                    }
                    self.tell(CallerCommand::Clear);
                }
                Effect::Show(text) => self.tell(CallerCommand::Show(text)),
                Effect::Transcript { text, is_final } => {
                    self.tell(CallerCommand::Transcript { text, is_final });
                }
                Effect::Ask { generation, context, .. } => {
                    let request = services::request(&self.agent.instructions, &self.agent.tools, &context);
                    self.mind = Mind::Asking(generation, self.agent.services.chat(request));
                }
                // Dropping it frees the provider.
                Effect::CancelAsk(generation) => {
                    if matches!(&self.mind, Mind::Asking(g, _) | Mind::Writing(g, _) if *g == generation) {
                        self.mind = Mind::Idle;
                    }
                }
                Effect::Speak { utterance, text, language } => {
                    if self.tongue.knows(utterance, &text) {
                        continue;
                    }
                    if self.tongue.needs(language) {
                        self.open_tongue(language);
                    }
                    self.tongue.say(utterance, text);
                }
                Effect::CancelSpeak(utterance) => self.tongue.cancel(utterance),
                Effect::RunTool(call) => self.run_tool(call),
                Effect::Listen { from } => {
                    let dial = self.agent.services.listen(self.rate, self.core.language());
                    self.ears.open(dial, from);
                }
                Effect::Finalize => self.ears.end_turn(),
                Effect::Record(entry) => self.agent.call.record(entry),
                Effect::Measured(turn) => {
                    measured(&turn);
                    self.tell(CallerCommand::Measured(turn));
                }
                Effect::AnswerOver { interrupted } => self.tell(CallerCommand::AnswerOver { interrupted }),
                Effect::Finish(ending) => self.ended = Some(ending),
            }
        }
    }

    fn tell(&mut self, command: CallerCommand) {
        if let Some(caller) = &mut self.caller {
            caller.send(command);
        }
    }

    fn run_tool(&mut self, call: ToolCall) {
        self.tell(CallerCommand::Tool {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        });
        let (call_id, name) = (call.call_id.clone(), call.name.clone());
        let run = self.agent.call.run_tool(call);
        let limit = self.agent.settings.tool_timeout;
        // A task of its own: a panic in a tool is an error answer, not the end of the conversation.
        let task = tokio::spawn(async move { tokio::time::timeout(limit, run).await });
        let abort = AbortOnDrop(task.abort_handle());
        self.tools.push(Box::pin(async move {
            let _abort = abort;
            let answer = match task.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => failure("this took too long; say so, and offer to try again"),
                Err(error) => {
                    tracing::error!(tool = name, %error, "a tool failed");
                    failure("this failed; say so, and offer to try again")
                }
            };
            (call_id, answer)
        }));
    }

    async fn wind_up(mut self) -> Ending {
        let ending = self.ended.unwrap_or(Ending::Crashed);
        let at = self.rate.millis(self.now());
        self.ears.close();
        self.tongue.close();
        self.mind = Mind::Idle;
        if let Some(recorder) = self.agent.recorder.take() {
            recorder.finish();
        }
        let call = Arc::clone(&self.agent.call);
        if tokio::time::timeout(FINISH_LIMIT, call.finish(ending, at)).await.is_err() {
            tracing::error!(ending = ending.name(), "the end of a conversation could not be stored in time");
        }
        if let Some(mut caller) = self.caller.take() {
            caller.send(CallerCommand::Ending(ending));
            caller.close(ending, CLOSE_LIMIT).await;
        }
        metrics::counter!("longhouse_voice_sessions_total", "ending" => ending.name()).increment(1);
        tracing::info!(
            ending = ending.name(),
            seconds = self.began.elapsed().as_secs_f64(),
            "conversation ended"
        );
        ending
    }
}

fn failure(text: &str) -> ToolAnswer {
    ToolAnswer { output: serde_json::json!({ "error": text }), then: None }
}

/// Whether trying again, with the same key and model, is useless.
fn is_fatal(error: &Error) -> bool {
    error.failure().is_some_and(|failure| {
        matches!(
            failure.fault,
            Fault::Unauthorized
                | Fault::Forbidden
                | Fault::Billing
                | Fault::NotFound
                | Fault::NoKey
                | Fault::ForbiddenAddress
        )
    })
}

fn measured(turn: &TurnMeasures) {
    for (stage, took) in [
        ("transcribed", turn.transcribed),
        ("first_token", turn.first_token),
        ("first_speech", turn.first_speech),
        ("first_sent", turn.first_sent),
        ("first_heard", turn.first_heard),
    ] {
        if let Some(took) = took {
            metrics::histogram!("longhouse_voice_turn_seconds", "stage" => stage).record(took.as_secs_f64());
        }
    }
    metrics::counter!("longhouse_voice_samples_sent_total").increment(turn.sent);
    metrics::counter!("longhouse_voice_samples_heard_total").increment(turn.heard);
    metrics::counter!("longhouse_voice_barge_ins_total").increment(u64::from(turn.interrupted));
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
