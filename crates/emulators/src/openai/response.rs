//! The model's side of a session: what it says, how it streams, and how it stops.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rand::RngExt;
use serde_json::{Value, json};

use super::{
    config::Format,
    conversation::Item,
    lock,
    rules::{self, Answer, Prompt, ToolCall},
    session::{Due, Session},
    validate::ApiError,
};
use crate::speech::{Utterance, Word};

/// Responses outside the conversation at once.
const MAX_RESPONSES: usize = 8;
/// Characters of arguments in one delta.
const ARGUMENT_CHUNK: usize = 12;

/// A response whose speech is ready.
pub(super) struct Ready {
    id: String,
    utterance: Option<Arc<Utterance>>,
}

/// One thing that a response sends.
#[derive(Debug)]
enum Step {
    OpenMessage,
    Words(String, usize),
    Audio(usize, usize),
    CloseMessage,
    OpenCall(ToolCall),
    Arguments(String),
    CloseCall,
    Done,
}

/// The output item being streamed.
struct Open {
    item: Item,
    /// The text sent so far.
    text: String,
    call: Option<ToolCall>,
}

/// A response in progress.
pub(super) struct Response {
    pub(super) id: String,
    /// Whether it is part of the default conversation.
    pub(super) in_conversation: bool,
    audible: bool,
    format: Format,
    voice: Value,
    max_tokens: Option<u64>,
    metadata: Value,
    answer: Answer,
    utterance: Arc<Utterance>,
    steps: VecDeque<Step>,
    open: Option<Open>,
    output: Vec<Value>,
    samples_sent: usize,
    incomplete: bool,
    began: Option<tokio::time::Instant>,
}

impl Response {
    /// The vendor's response object.
    fn json(&self, status: &str, details: Value, conversation_id: &str) -> Value {
        let modality = if self.audible { "audio" } else { "text" };
        json!({
            "object": "realtime.response", "id": self.id, "status": status, "status_details": details,
            "output": self.output, "conversation_id": self.in_conversation.then_some(conversation_id),
            "output_modalities": [modality], "max_output_tokens": self.max_tokens.map_or(json!("inf"), |n| json!(n)),
            "audio": {"output": {"voice": self.voice, "format": format_json(self.format)}},
            "metadata": self.metadata, "usage": null,
        })
    }

    /// Plans the whole stream, once the speech is known.
    fn plan(&mut self, utterance: Arc<Utterance>, delta_ms: u32, cancel_mid_tool: bool) {
        if let Some(text) = self.answer.say.clone() {
            self.steps.push_back(Step::OpenMessage);
            if self.audible {
                let delta = delta_ms.max(10) as usize * 8;
                let total = utterance.samples.len();
                let mut next = 0;
                for from in (0..total).step_by(delta) {
                    let to = (from + delta).min(total);
                    // The transcript runs a little ahead of the audio, as the vendor's does.
                    while let Some(word) = utterance.words.get(next)
                        && ((word.start_ms as usize * 8) < to || to == total)
                    {
                        self.steps.push_back(Step::Words(spaced(next, &word.text), next + 1));
                        next += 1;
                    }
                    self.steps.push_back(Step::Audio(from, to));
                }
            } else {
                for (index, word) in text.split_whitespace().enumerate() {
                    self.steps.push_back(Step::Words(spaced(index, word), 0));
                }
            }
            self.steps.push_back(Step::CloseMessage);
        }
        for call in self.answer.calls.clone() {
            let arguments: Vec<char> = call.arguments.to_string().chars().collect();
            let chunks: Vec<String> = arguments.chunks(ARGUMENT_CHUNK).map(|c| c.iter().collect()).collect();
            self.steps.push_back(Step::OpenCall(call));
            let sent = if cancel_mid_tool { chunks.len().div_ceil(2) } else { chunks.len() };
            self.steps.extend(chunks.into_iter().take(sent).map(Step::Arguments));
            if cancel_mid_tool {
                break;
            }
            self.steps.push_back(Step::CloseCall);
        }
        self.steps.push_back(Step::Done);
        self.utterance = utterance;
    }
}

fn spaced(index: usize, word: &str) -> String {
    if index == 0 { word.to_owned() } else { format!(" {word}") }
}

fn format_json(format: Format) -> Value {
    match format {
        Format::Pcm24 => json!({"type": "audio/pcm", "rate": 24_000}),
        Format::Mulaw => json!({"type": "audio/pcmu"}),
        Format::Alaw => json!({"type": "audio/pcma"}),
    }
}

impl Session {
    /// `response.create`.
    pub(super) async fn create_response(&mut self, asked: Value) -> Result<(), ApiError> {
        let in_conversation = asked["conversation"] != "none";
        if in_conversation && let Some(active) = self.responses.iter().find(|r| r.in_conversation) {
            return Err(already_active(&active.id));
        }
        if self.responses.len() >= MAX_RESPONSES {
            let message =
                format!("At most {MAX_RESPONSES} responses can be in progress; wait for some to be done.");
            return Err(ApiError::new("rate_limit_exceeded", message, None));
        }
        let mut prompt = Prompt::default();
        if let Some(instructions) = asked["instructions"].as_str().filter(|text| !text.trim().is_empty()) {
            prompt.instructions = Some(instructions.to_owned());
        }
        let own_input = match asked["input"].as_array() {
            None => None,
            Some(entries) => {
                let mut items = Vec::new();
                for entry in entries {
                    if entry["type"] == "item_reference" {
                        items.push(
                            self.conversation.retrieve(entry["id"].as_str().unwrap_or_default())?.clone(),
                        );
                    } else {
                        let mut item = Item::new(self.id("item"), entry.clone());
                        self.understand(&mut item)?;
                        items.push(item);
                    }
                }
                Some(items)
            }
        };
        recall(&mut prompt, own_input.as_deref().unwrap_or(self.conversation.items()));
        self.respond(prompt, &asked).await;
        Ok(())
    }

    /// A response that turn detection asks for.
    pub(super) async fn respond_to_turn(&mut self, mut prompt: Prompt) {
        if let Some(active) = self.responses.iter().find(|r| r.in_conversation) {
            let error = already_active(&active.id);
            return self.error(error, None).await;
        }
        if !prompt.idle {
            recall(&mut prompt, self.conversation.items());
        }
        self.respond(prompt, &Value::Null).await;
    }

    async fn respond(&mut self, mut prompt: Prompt, asked: &Value) {
        let session = &self.config.value;
        let pick = |name: &str| if asked[name].is_null() { &session[name] } else { &asked[name] };
        let choice = pick("tool_choice");
        let tools: Vec<Value> = pick("tools").as_array().cloned().unwrap_or_default();
        let audible = pick("output_modalities")[0] != "text";
        let max_tokens = pick("max_output_tokens").as_u64();
        let asked_output = &asked["audio"]["output"];
        let voice = if asked_output["voice"].is_null() {
            &session["audio"]["output"]["voice"]
        } else {
            &asked_output["voice"]
        };
        prompt.forced = match choice {
            Value::Object(function) => function["name"].as_str().map(str::to_owned),
            Value::String(text) if text == "required" => {
                tools.first().and_then(|t| t["name"].as_str()).map(str::to_owned)
            }
            _ => None,
        };
        prompt.tools = if choice == "none" { Vec::new() } else { tools };
        // A greeting without a text of its own is made from the session's instructions.
        if let Some(instructions) = &mut prompt.instructions
            && instructions.contains("system instructions")
        {
            instructions.push_str(self.config.instructions());
        }
        let format = match asked_output["format"]["type"].as_str() {
            Some("audio/pcmu") => Format::Mulaw,
            Some("audio/pcma") => Format::Alaw,
            Some(_) => Format::Pcm24,
            None => self.config.output,
        };
        let (voice, metadata) = (voice.clone(), asked["metadata"].clone());
        let mut answer = rules::answer(&self.shared.options.rules, &prompt);
        let mut incomplete = false;
        if let (Some(limit), Some(text)) = (max_tokens, &mut answer.say) {
            let words: Vec<&str> = text.split_whitespace().collect();
            if words.len() as u64 > limit {
                *text = words[..limit as usize].join(" ");
                incomplete = true;
            }
        }
        let response = Response {
            id: self.id("resp"),
            in_conversation: asked["conversation"] != "none",
            audible,
            format,
            voice,
            max_tokens,
            metadata,
            answer,
            utterance: Arc::default(),
            steps: VecDeque::new(),
            open: None,
            output: Vec::new(),
            samples_sent: 0,
            incomplete,
            began: None,
        };
        self.idle += 1;
        let created = response.json("in_progress", Value::Null, &self.conversation_id);
        self.speak_later(&response);
        self.responses.push(response);
        self.send(json!({"type": "response.created", "response": created})).await;
        let limits = json!([
            {"name": "requests", "limit": 10_000, "remaining": 9_999, "reset_seconds": 0.006},
            {"name": "tokens", "limit": 4_000_000, "remaining": 3_995_904, "reset_seconds": 0.061},
        ]);
        self.send(json!({"type": "rate_limits.updated", "rate_limits": limits})).await;
        self.unknown_event().await;
    }

    /// Synthesises while the model "thinks", off this task, so that the session keeps listening.
    fn speak_later(&mut self, response: &Response) {
        let latency = self.shared.options.first_audio_latency.mul_f64(self.random.random_range(0.8..1.2));
        let text = response.answer.say.clone().filter(|_| response.audible);
        let (id, ready, speaker) =
            (response.id.clone(), self.ready.clone(), self.shared.options.speaker.clone());
        tokio::spawn(async move {
            let speak = async {
                match text {
                    Some(text) => Some(speaker.say(&text).await),
                    None => None,
                }
            };
            let (utterance, ()) = tokio::join!(speak, tokio::time::sleep(latency));
            // The session may have ended meanwhile.
            let _ = ready.send(Ready { id, utterance }).await;
        });
    }

    pub(super) fn synthesised(&mut self, ready: Ready) {
        let (delta_ms, cancel) = (self.shared.options.delta_ms, self.fault.cancel_mid_tool);
        if let Some(response) = self.responses.iter_mut().find(|r| r.id == ready.id) {
            response.plan(ready.utterance.unwrap_or_default(), delta_ms, cancel);
            self.after(Duration::ZERO, Due::Step(ready.id));
        }
    }

    /// Sends the next things, up to the next pause.
    pub(super) async fn step(&mut self, id: &str) {
        loop {
            let Some(at) = self.responses.iter().position(|r| r.id == id) else { return };
            let Some(step) = self.responses[at].steps.pop_front() else { return };
            match step {
                Step::OpenMessage => self.open_message(at).await,
                Step::Words(delta, words) => self.words(at, delta, words).await,
                Step::Audio(from, to) => {
                    self.audio(at, from, to).await;
                    let gap = self.shared.options.delta_gap;
                    self.after(gap, Due::Step(id.to_owned()));
                    return self.audio_misfortunes().await;
                }
                Step::CloseMessage => self.close_message(at, "completed").await,
                Step::OpenCall(call) => self.open_call(at, call).await,
                Step::Arguments(delta) => self.arguments(at, delta).await,
                Step::CloseCall => self.close_call(at, "completed").await,
                Step::Done => return self.done(at).await,
            }
        }
    }

    /// Stops a response; what it has not sent, it never will.
    pub(super) async fn cancel(&mut self, id: &str, reason: &str) {
        let Some(at) = self.responses.iter().position(|r| r.id == id) else { return };
        self.responses[at].steps.clear();
        self.close_open(at).await;
        self.finish(at, "cancelled", json!({"type": "cancelled", "reason": reason})).await;
    }

    async fn close_open(&mut self, at: usize) {
        match &self.responses[at].open {
            Some(Open { call: Some(_), .. }) => self.close_call(at, "incomplete").await,
            Some(_) => self.close_message(at, "incomplete").await,
            None => {}
        }
    }

    async fn done(&mut self, at: usize) {
        if self.responses[at].open.is_some() {
            // Only a scripted misfortune leaves a call half sent.
            self.close_open(at).await;
            return self
                .finish(at, "cancelled", json!({"type": "cancelled", "reason": "turn_detected"}))
                .await;
        }
        if self.responses[at].incomplete {
            let details = json!({"type": "incomplete", "reason": "max_output_tokens"});
            return self.finish(at, "incomplete", details).await;
        }
        self.finish(at, "completed", Value::Null).await;
    }

    async fn finish(&mut self, at: usize, status: &str, details: Value) {
        let response = self.responses.remove(at);
        let mut body = response.json(status, details, &self.conversation_id);
        let audio_out = response.samples_sent as u64 / 400;
        let text_out = response.output.iter().map(|item| item.to_string().len() as u64 / 40).sum::<u64>();
        let text_in = (self.config.instructions().len() / 4 + self.conversation.items().len() * 12) as u64;
        let audio_in = (lock(&self.record).audio_in_seconds * 10.0) as u64;
        body["usage"] = json!({
            "total_tokens": audio_out + text_out + text_in + audio_in,
            "input_tokens": text_in + audio_in, "output_tokens": audio_out + text_out,
            "input_token_details": {
                "text_tokens": text_in, "audio_tokens": audio_in, "image_tokens": 0, "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        });
        self.send(json!({"type": "response.done", "response": body})).await;
        let played = response.began.map_or(Duration::ZERO, |began| began.elapsed());
        let audio = Duration::from_millis(response.samples_sent as u64 / 8);
        if status == "completed" && response.in_conversation {
            self.start_idle_clock(audio.saturating_sub(played));
        }
    }

    /// Announces a new output item.
    async fn open_item(&mut self, at: usize, mut body: Value, call: Option<ToolCall>) {
        body["status"] = json!("in_progress");
        let mut item = Item::new(self.id("item"), body);
        if call.is_none() && self.responses[at].audible {
            item.audio = Some((0, Vec::new()));
        }
        let response = &mut self.responses[at];
        let (id, index, body) = (response.id.clone(), response.output.len(), item.body.clone());
        let in_conversation = response.in_conversation;
        response.open = Some(Open { item: item.clone(), text: String::new(), call });
        let event = json!({
            "type": "response.output_item.added", "response_id": id, "output_index": index, "item": body,
        });
        self.send(event).await;
        if in_conversation {
            let before = self.conversation.last_id().map(str::to_owned);
            self.conversation.push(item);
            let event = json!({"type": "conversation.item.added", "previous_item_id": before, "item": body});
            self.send(event).await;
        }
    }

    /// Sends an event about the open item, with the ids that all such events carry.
    async fn item_event(&mut self, at: usize, mut event: Value, in_content: bool) {
        let response = &self.responses[at];
        let Some(open) = &response.open else { return };
        event["response_id"] = json!(response.id);
        event["item_id"] = json!(open.item.id);
        event["output_index"] = json!(response.output.len());
        if in_content {
            event["content_index"] = json!(0);
        }
        self.send(event).await;
    }

    async fn open_message(&mut self, at: usize) {
        let body = json!({"type": "message", "role": "assistant", "content": []});
        self.open_item(at, body, None).await;
        self.responses[at].began = Some(tokio::time::Instant::now());
        self.spoken |= self.responses[at].audible;
        let part = if self.responses[at].audible {
            json!({"type": "audio", "transcript": ""})
        } else {
            json!({"type": "text", "text": ""})
        };
        self.item_event(at, json!({"type": "response.content_part.added", "part": part}), true).await;
    }

    async fn words(&mut self, at: usize, delta: String, words: usize) {
        let response = &mut self.responses[at];
        let kind = if response.audible {
            "response.output_audio_transcript.delta"
        } else {
            "response.output_text.delta"
        };
        if let Some(open) = &mut response.open {
            open.text.push_str(&delta);
            if let Some(audio) = &mut open.item.audio {
                audio.1 = response.utterance.words[..words].to_vec();
            }
        }
        self.item_event(at, json!({"type": kind, "delta": delta}), true).await;
    }

    async fn audio(&mut self, at: usize, from: usize, to: usize) {
        let response = &mut self.responses[at];
        let bytes = match response.format {
            // Filtered with its surroundings, so that deltas join without a click.
            Format::Pcm24 => {
                let margin = 64;
                let (low, high) =
                    (from.saturating_sub(margin), (to + margin).min(response.utterance.samples.len()));
                let bytes = response.format.encode(&response.utterance.samples[low..high]);
                bytes[(from - low) * 6..(to - low) * 6].to_vec()
            }
            format => format.encode(&response.utterance.samples[from..to]),
        };
        response.samples_sent = to;
        let mut kept = None;
        if let Some(open) = &mut response.open {
            let words: Vec<Word> = open.item.audio.take().map_or_else(Vec::new, |(_, words)| words);
            kept = Some((open.item.id.clone(), open.text.clone(), words.clone()));
            open.item.audio = Some((to, words));
        }
        if let Some((id, text, words)) = kept {
            // What a client has truncated stays so, even if it goes on generating.
            if let Some(item) = self.conversation.get_mut(&id)
                && item.heard.is_none()
            {
                item.audio = Some((to, words));
            }
            let mut record = lock(&self.record);
            record.sent_audio(&bytes, (to - from) as f64 / 8_000.0, self.shared.options.record_audio);
            record.say(&id, &text, (to / 8) as u32);
        }
        let delta = BASE64_STANDARD.encode(&bytes);
        self.item_event(at, json!({"type": "response.output_audio.delta", "delta": delta}), true).await;
    }

    async fn close_message(&mut self, at: usize, status: &str) {
        let audible = self.responses[at].audible;
        let text = self.responses[at].open.as_ref().map(|open| open.text.clone()).unwrap_or_default();
        let (part, content) = if audible {
            self.item_event(at, json!({"type": "response.output_audio.done"}), true).await;
            let event = json!({"type": "response.output_audio_transcript.done", "transcript": text});
            self.item_event(at, event, true).await;
            (
                json!({"type": "audio", "transcript": text}),
                json!({"type": "output_audio", "transcript": text}),
            )
        } else {
            self.item_event(at, json!({"type": "response.output_text.done", "text": text}), true).await;
            (json!({"type": "text", "text": text}), json!({"type": "output_text", "text": text}))
        };
        self.item_event(at, json!({"type": "response.content_part.done", "part": part}), true).await;
        self.close_item(at, status, |body| body["content"] = json!([content])).await;
    }

    async fn open_call(&mut self, at: usize, call: ToolCall) {
        let call_id = self.id("call");
        let body = json!({"type": "function_call", "name": call.name, "call_id": call_id, "arguments": ""});
        self.open_item(at, body, Some(call)).await;
    }

    async fn arguments(&mut self, at: usize, delta: String) {
        let mut call_id = Value::Null;
        if let Some(open) = &mut self.responses[at].open {
            open.text.push_str(&delta);
            call_id = open.item.body["call_id"].clone();
        }
        let event =
            json!({"type": "response.function_call_arguments.delta", "call_id": call_id, "delta": delta});
        self.item_event(at, event, false).await;
    }

    async fn close_call(&mut self, at: usize, status: &str) {
        let Some(open) = &self.responses[at].open else { return };
        let arguments = open.text.clone();
        if status == "completed" {
            let event = json!({
                "type": "response.function_call_arguments.done", "call_id": open.item.body["call_id"],
                "name": open.item.body["name"], "arguments": arguments,
            });
            self.item_event(at, event, false).await;
        }
        self.close_item(at, status, |body| body["arguments"] = json!(arguments)).await;
    }

    async fn close_item(&mut self, at: usize, status: &str, complete: impl FnOnce(&mut Value)) {
        let response = &mut self.responses[at];
        let Some(mut open) = response.open.take() else { return };
        open.item.body["status"] = json!(status);
        complete(&mut open.item.body);
        let (id, index, body) = (response.id.clone(), response.output.len(), open.item.body.clone());
        response.output.push(body.clone());
        let in_conversation = response.in_conversation;
        if in_conversation {
            let items = self.conversation.items();
            let here = items.iter().position(|item| item.id == open.item.id);
            let before = here.and_then(|at| at.checked_sub(1)).map(|at| items[at].id.clone());
            if let Some(item) = self.conversation.get_mut(&open.item.id) {
                // A truncation during the stream has already said what was heard.
                if item.heard.is_none() {
                    item.body = body.clone();
                }
            }
            self.send(json!({"type": "conversation.item.done", "previous_item_id": before, "item": body}))
                .await;
        }
        let event = json!({
            "type": "response.output_item.done", "response_id": id, "output_index": index, "item": body,
        });
        self.send(event).await;
    }
}

fn already_active(id: &str) -> ApiError {
    let message = format!(
        "Conversation already has an active response in progress: {id}. Wait until the response is finished before creating \
         a new one."
    );
    ApiError::new("conversation_already_has_active_response", message, None)
}

/// Finds what there is to answer in the last items.
fn recall(prompt: &mut Prompt, items: &[Item]) {
    let user = items.iter().rev().find(|item| item.is("message") && item.body["role"] == "user");
    prompt.user = user.map(Item::text).unwrap_or_default();
    prompt.said = items
        .iter()
        .filter(|item| item.is("message"))
        .filter_map(|item| Some((item.body["role"].as_str()?.to_owned(), item.text())))
        .filter(|(_, text)| !text.trim().is_empty())
        .collect();
    let called = |call_id: &Value| {
        let call =
            items.iter().rev().find(|item| item.is("function_call") && item.body["call_id"] == *call_id);
        call.and_then(|item| item.body["name"].as_str()).unwrap_or_default().to_owned()
    };
    let last = items.iter().rev().take_while(|item| item.is("function_call_output"));
    prompt.outputs = last
        .map(|item| {
            (called(&item.body["call_id"]), item.body["output"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    prompt.outputs.reverse();
}
