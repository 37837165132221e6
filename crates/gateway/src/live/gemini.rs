//! Gemini Live (`BidiGenerateContent`): turns without items; the caller's speech interrupts by itself. PCM 16 kHz in,
//! 24 kHz out. Sources: `../shared/specs/voice.md` §3.6 and the types of `google-genai` 3.4 (PyPI).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::Url;

use super::channel::{Broken, Dialect, Frame, Frames, Held, Phase};
use super::openai::{ended, permitted};
use super::session::{
    HistoryItem, Id, OutputEnding, Session, SessionCapabilities, SessionCommand, SessionEvent,
    SessionRequest, SpeechToSpeech, TextState, Turns,
};
use super::socket::{Dialer, Upgrade};
use super::{Encoding, Payload};
use crate::Error;
use crate::chat::ToolCall;
use crate::error::Fault;
use crate::providers::Attempt;
use crate::providers::gemini::explain;
use crate::providers::wire::context_failure;
use crate::usage::Usage;

const METHOD: &str = "ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
/// Calls whose results are still awaited.
const MOST_CALLS: usize = 128;

/// The adapter.
#[derive(Debug, Clone)]
pub struct GeminiLive {
    dialer: Dialer,
}

impl GeminiLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

/// The socket's address stands beside the version that other requests go to.
fn url(base: &Url) -> Url {
    let mut url = base.clone();
    let path = base.path().trim_end_matches('/');
    let path = ["/v1beta", "/v1alpha", "/v1"].iter().find_map(|v| path.strip_suffix(v)).unwrap_or(path);
    url.set_path(&format!("{path}/{METHOD}"));
    url
}

#[async_trait]
impl SpeechToSpeech for GeminiLive {
    fn capabilities(&self, _: &str) -> SessionCapabilities {
        SessionCapabilities {
            input_rates: &[16_000],
            output_rates: &[24_000],
            g711: false,
            truncate: false,
            cancel: false,
            aside: false,
            respond_with: true,
            instructions: false,
            tool_history: false,
            manual_turns: true,
            idle_timeout: false,
            answers_tools: true,
            resumable: true,
        }
    }

    async fn converse(&self, request: &SessionRequest, attempt: &Attempt) -> Result<Session, Error> {
        permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let upgrade = match &attempt.key {
            None => Upgrade::default(),
            // In a header: addresses end up in logs.
            Some(key) => Upgrade::default()
                .secret("x-goog-api-key", key.expose())
                .map_err(|message| context_failure(attempt, Fault::Unauthorized, message))?,
        };
        let dialect = Bidi::new(request, &attempt.model);
        self.dialer.open(url(&attempt.base_url), upgrade, attempt, explain, dialect).await
    }
}

/// One socket's reader and writer. Pure.
#[derive(Debug)]
pub struct Bidi {
    setup: Value,
    input: Encoding,
    manual: bool,
    /// The vendor takes nothing before it has confirmed the setup.
    held: Held<SessionCommand>,
    ready: bool,
    /// Turns of the model so far; each is an output with one part.
    outputs: u64,
    current: Option<Id>,
    /// Turns of the caller so far.
    utterances: u64,
    /// What is written down of the caller's turn in progress.
    caller: Option<Id>,
    /// Something was asked that the model answers.
    asked: bool,
    calls: Vec<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Message<'a> {
    setup_complete: Option<SetupComplete>,
    #[serde(borrow)]
    server_content: Option<ServerContent<'a>>,
    tool_call: Option<Calls>,
    tool_call_cancellation: Option<Cancellation>,
    usage_metadata: Option<UsageMetadata>,
    go_away: Option<GoAway>,
    session_resumption_update: Option<Resumption>,
    #[serde(borrow)]
    voice_activity: Option<&'a RawValue>,
    error: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SetupComplete {
    session_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServerContent<'a> {
    #[serde(borrow)]
    model_turn: Option<Content<'a>>,
    turn_complete: bool,
    interrupted: bool,
    generation_complete: bool,
    input_transcription: Option<Transcription>,
    output_transcription: Option<Transcription>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Part<'a> {
    #[serde(borrow)]
    inline_data: Option<Blob<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    #[serde(default)]
    mime_type: String,
    #[serde(borrow)]
    data: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Transcription {
    text: String,
    finished: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Calls {
    function_calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    id: String,
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cancellation {
    ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct UsageMetadata {
    prompt_token_count: u64,
    cached_content_token_count: u64,
    response_token_count: u64,
    thoughts_token_count: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GoAway {
    time_left: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Resumption {
    new_handle: Option<String>,
    resumable: bool,
}

impl Bidi {
    /// A session as `request` describes it, by this model.
    #[must_use]
    pub fn new(request: &SessionRequest, model: &str) -> Self {
        let manual = request.turns == Turns::Manual;
        Self {
            setup: setup(request, model),
            input: request.input,
            manual,
            held: Held::default(),
            ready: false,
            outputs: 0,
            current: None,
            utterances: 0,
            caller: None,
            asked: false,
            calls: Vec::new(),
            usage: None,
        }
    }

    /// The output in progress, begun if there is none.
    fn output(&mut self, events: &mut VecDeque<SessionEvent>) -> Id {
        if let Some(current) = &self.current {
            return Arc::clone(current);
        }
        // The model speaks: the caller's turn is over.
        if let Some(utterance) = self.caller.take() {
            events.push_back(SessionEvent::Committed { utterance: Some(utterance) });
        }
        let output: Id = format!("g{}", self.outputs).into();
        self.outputs += 1;
        self.asked = false;
        self.current = Some(Arc::clone(&output));
        events.push_back(SessionEvent::OutputStarted { output: Arc::clone(&output) });
        output
    }

    fn caller(&mut self, events: &mut VecDeque<SessionEvent>) -> Id {
        if let Some(caller) = &self.caller {
            return Arc::clone(caller);
        }
        let utterance: Id = format!("c{}", self.utterances).into();
        self.utterances += 1;
        self.caller = Some(Arc::clone(&utterance));
        // The first sign of speech that this interface gives.
        events
            .push_back(SessionEvent::SpeechStarted { utterance: Some(Arc::clone(&utterance)), at_ms: None });
        utterance
    }

    fn end_output(&mut self, ending: OutputEnding, events: &mut VecDeque<SessionEvent>) {
        self.asked = false;
        if let Some(output) = self.current.take() {
            let usage = self.usage.take();
            events.push_back(SessionEvent::OutputDone { output, ending, failure: None, usage });
        }
    }

    fn content(
        &mut self,
        content: ServerContent<'_>,
        text: &Bytes,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Broken> {
        if let Some(said) = content.input_transcription {
            let utterance = Some(self.caller(events));
            if !said.text.is_empty() {
                let state = TextState::More;
                events.push_back(SessionEvent::CallerText { utterance, text: said.text, state });
            }
            if said.finished
                && let Some(utterance) = self.caller.take()
            {
                events.push_back(SessionEvent::SpeechStopped { at_ms: None });
                events.push_back(SessionEvent::Committed { utterance: Some(utterance) });
                self.asked = true;
            }
        }
        for part in content.model_turn.into_iter().flat_map(|turn| turn.parts) {
            if let Some(blob) = part.inline_data {
                if !blob.mime_type.starts_with("audio/pcm") {
                    return Err(Broken::Malformed(format!("audio as {}", blob.mime_type)));
                }
                let output = self.output(events);
                let payload = Payload::Base64(text.slice_ref(blob.data.as_bytes()));
                let part = Arc::clone(&output);
                events.push_back(SessionEvent::Audio { output, part, payload });
            }
        }
        if let Some(said) = content.output_transcription
            && !said.text.is_empty()
        {
            let output = self.output(events);
            let part = Arc::clone(&output);
            events.push_back(SessionEvent::AgentText { output, part, text: said.text, span_ms: None });
        }
        if content.interrupted {
            self.end_output(OutputEnding::Cancelled, events);
        }
        if content.generation_complete
            && let Some(part) = self.current.clone()
        {
            events.push_back(SessionEvent::AudioDone { part });
        }
        if content.turn_complete {
            self.end_output(OutputEnding::Completed, events);
        }
        Ok(())
    }

    fn tell(&mut self, command: SessionCommand, out: &mut Frames) -> Result<(), Broken> {
        match command {
            SessionCommand::Audio(payload) => {
                let base64 = payload.base64().map_err(|error| Broken::Malformed(error.to_string()))?;
                // The hot path: fifty a second and session, so by hand. Base64 needs no escaping.
                let rate = self.input.rate();
                let text = format!(
                    r#"{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={rate}","data":"{base64}"}}}}}}"#
                );
                out.audio(text.into());
            }
            SessionCommand::Text(text) => {
                self.asked = true;
                out.send(json!({"realtimeInput": {"text": text}}));
            }
            SessionCommand::History(item) => out.send(self.turns(&history(&item), false)),
            SessionCommand::ToolOutput { call_id, name, output } => {
                let response = match serde_json::from_str::<Value>(&output) {
                    Ok(Value::Object(fields)) => Value::Object(fields),
                    Ok(other) => json!({"output": other}),
                    Err(_) => json!({"output": output}),
                };
                // Who answers a call that was taken back is answered with an error.
                let Some(index) = self.calls.iter().position(|id| *id == call_id) else { return Ok(()) };
                self.calls.swap_remove(index);
                self.asked = self.calls.is_empty();
                let response = json!({"id": call_id, "name": name, "response": response});
                out.send(json!({"toolResponse": {"functionResponses": [response]}}));
            }
            SessionCommand::Respond { instructions } => {
                self.asked = true;
                match instructions {
                    Some(text) => {
                        let turns = json!([{"role": "user", "parts": [{"text": text}]}]);
                        out.send(self.turns(&turns, true));
                    }
                    None => out.send(json!({"clientContent": {"turnComplete": true}})),
                }
            }
            SessionCommand::StartTurn if self.manual => {
                out.send(json!({"realtimeInput": {"activityStart": {}}}));
            }
            SessionCommand::EndTurn if self.manual => {
                self.asked = true;
                out.send(json!({"realtimeInput": {"activityEnd": {}}}));
            }
            // The stream pauses: what was heard is a turn.
            SessionCommand::EndTurn => out.send(json!({"realtimeInput": {"audioStreamEnd": true}})),
            SessionCommand::StartTurn => {}
            // Refused before they came here.
            SessionCommand::Aside { .. }
            | SessionCommand::Truncate { .. }
            | SessionCommand::Cancel
            | SessionCommand::ClearInput
            | SessionCommand::Instructions(_) => {}
        }
        Ok(())
    }

    fn turns(&self, turns: &Value, complete: bool) -> Value {
        json!({"clientContent": {"turns": turns, "turnComplete": complete}})
    }
}

fn setup(request: &SessionRequest, model: &str) -> Value {
    let model = model.strip_prefix("models/").unwrap_or(model);
    let mut speech = json!({});
    if let Some(voice) = &request.voice {
        speech["voiceConfig"] = json!({"prebuiltVoiceConfig": {"voiceName": voice}});
    }
    if let Some(language) = &request.language {
        speech["languageCode"] = json!(language);
    }
    let detection = match request.turns {
        Turns::Manual => json!({"disabled": true}),
        Turns::Meaning => json!({}),
        Turns::Silence { silence, .. } => match silence {
            Some(silence) => json!({"silenceDurationMs": silence.as_millis() as u64}),
            None => json!({}),
        },
    };
    let mut setup = json!({
        "model": format!("models/{model}"),
        "generationConfig": {"responseModalities": ["AUDIO"], "speechConfig": speech},
        "systemInstruction": {"parts": [{"text": request.instructions}]},
        "realtimeInputConfig": {
            "automaticActivityDetection": detection,
            "activityHandling": "START_OF_ACTIVITY_INTERRUPTS",
        },
        // Without it, a session ends after 15 minutes of audio.
        "contextWindowCompression": {"slidingWindow": {}},
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
    });
    setup["sessionResumption"] = match &request.resume {
        Some(handle) => json!({"handle": handle}),
        None => json!({}),
    };
    if !request.tools.is_empty() {
        let declaration = |tool: &crate::chat::Tool| json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters});
        let declarations: Vec<Value> = request.tools.iter().map(declaration).collect();
        setup["tools"] = json!([{"functionDeclarations": declarations}]);
    }
    json!({"setup": setup})
}

fn history(item: &HistoryItem) -> Value {
    let turn = |role: &str, text: &str| json!([{"role": role, "parts": [{"text": text}]}]);
    match item {
        HistoryItem::Summary(text) => turn("user", &format!("The call so far: {text}")),
        HistoryItem::Caller(text) => turn("user", text),
        HistoryItem::Agent(text) => turn("model", text),
        // Calls of another session have no meaning here: what they were for is told in words.
        HistoryItem::ToolCall { name, arguments, .. } => {
            turn("model", &format!("(I used {name} with {arguments}.)"))
        }
        HistoryItem::ToolOutput { output, .. } => turn("user", &format!("(The result was {output}.)")),
    }
}

/// `"50s"`, `"1.5s"`.
fn duration(text: &str) -> Duration {
    let seconds: f64 = text.trim_end_matches('s').parse().unwrap_or(0.0);
    Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
}

impl Dialect for Bidi {
    type Command = SessionCommand;
    type Event = SessionEvent;

    fn open(&mut self, _: &mut VecDeque<SessionEvent>, out: &mut Frames) {
        out.send(self.setup.take());
    }

    fn command(
        &mut self,
        command: SessionCommand,
        _: &mut VecDeque<SessionEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        match &command {
            SessionCommand::Aside { .. } => Err(Broken::Unsupported("answer beside the conversation")),
            SessionCommand::Truncate { .. } => Err(Broken::Unsupported("forget what was not heard")),
            SessionCommand::Cancel => Err(Broken::Unsupported("be told to stop")),
            SessionCommand::ClearInput => Err(Broken::Unsupported("forget what it heard")),
            SessionCommand::Instructions(_) => Err(Broken::Unsupported("take other instructions later")),
            _ if !self.ready => self.held.push(command),
            _ => self.tell(command, out),
        }
    }

    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<SessionEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        // The vendor sends its JSON as binary messages.
        let text = match frame {
            Frame::Text(text) => Bytes::from(text),
            Frame::Binary(bytes) => bytes,
        };
        let message: Message<'_> = serde_json::from_slice(&text)?;
        if let Some(error) = message.error {
            let (fault, said) = explain(http::StatusCode::BAD_REQUEST, &json!({"error": error}));
            return Err(Broken::Failed { fault: fault.unwrap_or(Fault::InvalidRequest), message: said });
        }
        if let Some(complete) = message.setup_complete {
            self.ready = true;
            events.push_back(SessionEvent::Ready { id: complete.session_id, expires_at: None });
            self.held.take().into_iter().try_for_each(|command| self.tell(command, out))?;
        }
        if let Some(counted) = message.usage_metadata {
            self.usage = Some(Usage {
                input_tokens: counted.prompt_token_count,
                cached_input_tokens: counted.cached_content_token_count,
                output_tokens: counted.response_token_count + counted.thoughts_token_count,
                reasoning_tokens: counted.thoughts_token_count,
                ..Usage::default()
            });
        }
        if let Some(content) = message.server_content {
            self.content(content, &text, events)?;
        }
        for call in message.tool_call.into_iter().flat_map(|calls| calls.function_calls) {
            if self.calls.len() >= MOST_CALLS {
                return Err(Broken::Malformed(format!("{MOST_CALLS} calls without results")));
            }
            if let Some(utterance) = self.caller.take() {
                events.push_back(SessionEvent::Committed { utterance: Some(utterance) });
            }
            self.asked = false;
            self.calls.push(call.id.clone());
            let arguments = if call.args.is_null() { "{}".to_owned() } else { call.args.to_string() };
            let call = ToolCall { id: call.id, name: call.name, arguments, signature: None };
            events.push_back(SessionEvent::ToolCall { output: self.current.clone(), call });
        }
        if let Some(cancelled) = message.tool_call_cancellation {
            self.calls.retain(|id| !cancelled.ids.contains(id));
            events.push_back(SessionEvent::ToolCallsCancelled { call_ids: cancelled.ids });
        }
        if let Some(activity) = message.voice_activity {
            tracing::trace!(activity = activity.get(), "voice activity");
        }
        if let Some(leaving) = message.go_away {
            events.push_back(SessionEvent::Leaving(duration(&leaving.time_left)));
        }
        if let Some(update) = message.session_resumption_update
            && let (true, Some(handle)) = (update.resumable, update.new_handle)
        {
            events.push_back(SessionEvent::Resumable(handle));
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        _: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Broken> {
        let fault = match reason {
            _ if reason.contains("API key not valid") => Fault::Unauthorized,
            _ if reason.contains("quota") || reason.contains("RESOURCE_EXHAUSTED") => Fault::RateLimited,
            _ if reason.contains("not found") => Fault::NotFound,
            _ if code == Some(1007) => Fault::InvalidRequest,
            _ => return Err(ended(code, reason)),
        };
        Err(Broken::Failed { fault, message: reason.to_owned() })
    }

    fn phase(&self) -> Phase {
        match (self.ready, self.asked || self.current.is_some()) {
            (false, _) => Phase::Opening,
            (true, false) => Phase::Quiet,
            (true, true) => Phase::Owing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: &mut Bidi, text: &str) -> Vec<SessionEvent> {
        let mut events = VecDeque::new();
        let frame = Frame::Binary(Bytes::copy_from_slice(text.as_bytes()));
        dialect.frame(frame, &mut events, &mut Frames::default()).unwrap();
        events.into()
    }

    #[test]
    fn a_turn_of_each_side() {
        let mut dialect = Bidi::new(&SessionRequest::new("Be kind.", Encoding::Pcm16(16_000)), "gemini-live");
        assert!(matches!(read(&mut dialect, r#"{"setupComplete":{}}"#)[..], [SessionEvent::Ready { .. }]));
        let events = read(&mut dialect, r#"{"serverContent":{"inputTranscription":{"text":"hello"}}}"#);
        assert!(matches!(events[..], [SessionEvent::SpeechStarted { .. }, SessionEvent::CallerText { .. }]));
        let audio = r#"{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"mimeType":"audio/pcm;rate=24000","data":"AAAA"}}]}}}"#;
        let events = read(&mut dialect, audio);
        assert!(matches!(
            events[..],
            [SessionEvent::Committed { .. }, SessionEvent::OutputStarted { .. }, SessionEvent::Audio { .. }]
        ));
        assert_eq!(dialect.phase(), Phase::Owing);
        let events = read(&mut dialect, r#"{"serverContent":{"interrupted":true}}"#);
        assert!(matches!(events[..], [SessionEvent::OutputDone { ending: OutputEnding::Cancelled, .. }]));
        assert!(read(&mut dialect, r#"{"serverContent":{"turnComplete":true}}"#).is_empty());
        let events = read(&mut dialect, r#"{"goAway":{"timeLeft":"50s"}}"#);
        assert_eq!(events, [SessionEvent::Leaving(Duration::from_secs(50))]);
    }

    #[test]
    fn the_socket_stands_beside_the_version() {
        let base = Url::parse("https://generativelanguage.googleapis.com/v1beta").unwrap();
        assert_eq!(url(&base).as_str(), format!("https://generativelanguage.googleapis.com/{METHOD}"));
    }
}
