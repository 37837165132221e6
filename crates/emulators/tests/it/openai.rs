//! The Realtime emulator, seen by a plain WebSocket client.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{SinkExt, StreamExt};
use longhouse_emulators::{
    g711,
    openai::{Action, After, Fault, Faults, Options, Rule, Server, SessionRecord, ToolCall},
    speech::{CaptionDecoder, Resampler, Speaker},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a socket gave.
#[derive(Debug)]
enum Got {
    Event(Value),
    Closed(u16, String),
    Broken,
}

async fn connect(server: &Server, headers: &[(&'static str, &str)]) -> Result<Client, tungstenite::Error> {
    let mut request = format!("{}?model=gpt-realtime-2.1", server.url()).into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    connect_async(request).await.map(|(socket, _)| Client { socket })
}

impl Client {
    /// A client whose session has been created.
    async fn ready(server: &Server) -> Self {
        let mut client = connect(server, &[("authorization", "Bearer test")]).await.expect("the upgrade");
        let created = client.until("session.created").await;
        assert!(created["session"]["id"].as_str().is_some_and(|id| id.starts_with("sess_")));
        client
    }

    /// A client with telephone audio both ways.
    async fn telephone(server: &Server, more: Value) -> Self {
        let mut client = Self::ready(server).await;
        let mut session = json!({"type": "realtime", "audio": {
            "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-4o-mini-transcribe"}},
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        }});
        for (name, value) in more.as_object().expect("an object") {
            session[name] = value.clone();
        }
        client.send(json!({"type": "session.update", "session": session})).await;
        client.until("session.updated").await;
        client
    }

    async fn send(&mut self, event: Value) {
        self.socket.send(Message::text(event.to_string())).await.expect("an open socket");
    }

    async fn next(&mut self) -> Got {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something within 20 s");
            return match message {
                Some(Ok(Message::Text(text))) => Got::Event(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Got::Closed(frame.code.into(), frame.reason.to_string())
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Got::Broken,
            };
        }
    }

    async fn event(&mut self) -> Value {
        match self.next().await {
            Got::Event(event) => {
                assert!(event["event_id"].is_string(), "every event has an id: {event}");
                event
            }
            other => panic!("expected an event, got {other:?}"),
        }
    }

    async fn until(&mut self, kind: &str) -> Value {
        self.collect(kind).await.pop().expect("the awaited event")
    }

    /// All events up to one of a type.
    async fn collect(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let last = event["type"] == kind;
            assert!(kind == "error" || event["type"] != "error", "{event}");
            events.push(event);
            if last {
                return events;
            }
        }
    }

    /// Sends audio as a caller would, but without waiting between frames.
    async fn speak(&mut self, mulaw: &[u8]) {
        for frame in mulaw.chunks(160) {
            self.send(json!({"type": "input_audio_buffer.append", "audio": BASE64_STANDARD.encode(frame)}))
                .await;
        }
    }
}

async fn spoken(text: &str) -> Vec<u8> {
    let mut mulaw = vec![0xff; 1_600];
    mulaw.extend(g711::linear_to_mulaw(&Speaker::detect().say(text).await.samples));
    mulaw.extend([0xff; 8_000]);
    mulaw
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    kinds.dedup();
    kinds
}

fn audio(events: &[Value]) -> Vec<u8> {
    let deltas = events.iter().filter(|e| e["type"] == "response.output_audio.delta");
    deltas
        .flat_map(|e| BASE64_STANDARD.decode(e["delta"].as_str().expect("base64")).expect("base64"))
        .collect()
}

fn words_in(mulaw: &[u8]) -> String {
    let words = CaptionDecoder::new().push(&g711::mulaw_to_linear(mulaw));
    words.into_iter().map(|w| w.text).collect::<Vec<_>>().join(" ")
}

fn tool(name: &str, field: &str) -> Value {
    let parameters =
        json!({"type": "object", "properties": {field: {"type": "string"}}, "required": [field]});
    json!({"type": "function", "name": name, "description": "a tool", "parameters": parameters})
}

async fn start(options: Options) -> Server {
    Server::start(options).await.expect("a free port")
}

async fn closed_record(server: &Server) -> SessionRecord {
    for _ in 0..100 {
        if let Some(record) = server.sessions().into_iter().find(|s| s.closed.is_some()) {
            return record;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no session ended");
}

#[tokio::test]
async fn the_greeting_is_said_exactly_and_streams_in_the_vendors_order() {
    let server = start(Options::default()).await;
    let mut client = Client::telephone(&server, json!({})).await;
    let text = "Hello, this is Maria at Harbour Dental. How can I help?";
    let response = json!({"instructions": format!("Greet the caller with: {text}"), "tool_choice": "none"});
    client.send(json!({"type": "response.create", "event_id": "greet-1", "response": response})).await;
    let events = client.collect("response.done").await;
    let order = kinds(&events);
    let milestones: Vec<&str> = order.iter().copied().filter(|k| !k.ends_with(".delta")).collect();
    assert_eq!(
        milestones,
        [
            "response.created",
            "rate_limits.updated",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
    );
    let transcript: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_audio_transcript.delta")
        .filter_map(|e| e["delta"].as_str())
        .collect();
    assert_eq!(transcript, text);
    assert_eq!(words_in(&audio(&events)), text, "the caller can hear exactly these words");
    let done = &events.last().expect("response.done")["response"];
    assert_eq!(done["status"], "completed");
    assert_eq!(done["output"][0]["content"][0], json!({"type": "output_audio", "transcript": text}));
    assert!(done["usage"]["output_tokens"].as_u64().is_some_and(|n| n > 0));
    let record = &server.sessions()[0];
    assert_eq!((record.said[0].text.as_str(), record.errors.len()), (text, 0));
    assert!(record.audio_out_seconds > 2.0);
}

#[tokio::test]
async fn a_spoken_question_is_transcribed_from_its_audio_and_answered() {
    let server = start(Options::default()).await;
    let mut client = Client::telephone(&server, json!({"tools": [tool("search_knowledge", "query")]})).await;
    client.speak(&spoken("What time do you open on Monday?").await).await;
    let mut events = client.collect("response.done").await;
    if !kinds(&events).contains(&"conversation.item.input_audio_transcription.completed") {
        events.extend(client.collect("conversation.item.input_audio_transcription.completed").await);
    }
    let find = |kind: &str| events.iter().find(|e| e["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let at = |kind: &str| events.iter().position(|e| e["type"] == kind).expect("seen");
    let started = find("input_audio_buffer.speech_started");
    let committed = find("input_audio_buffer.committed");
    assert!(started["audio_start_ms"].as_u64().is_some_and(|ms| ms < 400));
    assert_eq!(started["item_id"], committed["item_id"]);
    let transcript = find("conversation.item.input_audio_transcription.completed");
    assert_eq!(transcript["transcript"], "What time do you open on Monday?");
    assert_eq!(transcript["item_id"], committed["item_id"]);
    assert!(
        at("response.created") < at("conversation.item.input_audio_transcription.completed"),
        "late, as the vendor's"
    );
    let call = find("response.function_call_arguments.done");
    assert_eq!(call["name"], "search_knowledge");
    assert_eq!(call["arguments"], r#"{"query":"What time do you open on Monday?"}"#);

    let output =
        json!({"results": [{"title": "Hours", "content": "We open at nine on Mondays."}]}).to_string();
    let item = json!({"type": "function_call_output", "call_id": call["call_id"], "output": output});
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    client.send(json!({"type": "response.create"})).await;
    let events = client.collect("response.done").await;
    assert_eq!(words_in(&audio(&events)), "We open at nine on Mondays.");
    assert_eq!(server.sessions()[0].heard.len(), 7);
}

#[tokio::test]
async fn audio_in_the_wrong_codec_is_not_understood() {
    let server = start(Options::default()).await;
    let mut client = Client::telephone(&server, json!({})).await;
    let samples = Speaker::detect().say("What time do you open on Monday?").await;
    // 8 kHz linear PCM sent as if it were mu-law.
    let bytes: Vec<u8> = samples.samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    client.speak(&bytes).await;
    client.send(json!({"type": "input_audio_buffer.commit"})).await;
    let transcript = client.until("conversation.item.input_audio_transcription.completed").await;
    let text = transcript["transcript"].as_str().expect("a transcript");
    assert!(text.is_empty() || text == "[unintelligible speech]", "{text}");
    assert_eq!(server.sessions()[0].heard, []);
}

#[tokio::test]
async fn linear_audio_at_24_khz_works_both_ways() {
    let server = start(Options::default()).await;
    let mut client = Client::ready(&server).await;
    let session = json!({"type": "realtime", "audio": {"input": {"turn_detection": null, "transcription": {"model": "whisper-1"}}}});
    client.send(json!({"type": "session.update", "session": session})).await;
    client.until("session.updated").await;
    let question = Speaker::detect().say("Good morning to everybody").await;
    let mut samples = question.samples.clone();
    samples.extend([0; 400]);
    let bytes: Vec<u8> =
        Resampler::whole(8_000, 24_000, &samples).iter().flat_map(|s| s.to_le_bytes()).collect();
    for chunk in bytes.chunks(4_800) {
        client
            .send(json!({"type": "input_audio_buffer.append", "audio": BASE64_STANDARD.encode(chunk)}))
            .await;
    }
    client.send(json!({"type": "input_audio_buffer.commit"})).await;
    let said = client.until("conversation.item.input_audio_transcription.completed").await;
    assert_eq!(said["transcript"], "Good morning to everybody");
    client.send(json!({"type": "response.create"})).await;
    let events = client.collect("response.done").await;
    let wide: Vec<i16> = audio(&events).chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let heard = CaptionDecoder::new().push(&Resampler::whole(24_000, 8_000, &wide));
    let text = heard.into_iter().map(|w| w.text).collect::<Vec<_>>().join(" ");
    assert_eq!(text, "I am an offline emulator. I heard: Good morning to everybody");
}

#[tokio::test]
async fn speaking_over_a_response_cancels_it_and_truncation_keeps_what_was_heard() {
    let gap = Duration::from_millis(150);
    let server = start(Options { delta_gap: gap, ..Options::default() }).await;
    let mut client = Client::telephone(&server, json!({})).await;
    let text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen";
    client
        .send(json!({"type": "response.create", "response": {"instructions": format!("Say: {text}")}}))
        .await;
    let mut events = client.collect("response.output_audio.delta").await;
    for _ in 0..6 {
        events.extend(client.collect("response.output_audio.delta").await);
    }
    client.speak(&spoken("Stop please").await[..12_000]).await;
    let rest = client.collect("response.done").await;
    assert!(kinds(&rest).contains(&"input_audio_buffer.speech_started"));
    let done = rest.last().expect("done")["response"].clone();
    assert_eq!(
        (&done["status"], &done["status_details"]["reason"]),
        (&json!("cancelled"), &json!("turn_detected"))
    );
    assert_eq!(done["output"][0]["status"], "incomplete");
    events.extend(rest);
    let sent_ms = audio(&events).len() as u64 / 8;
    assert!(sent_ms < 5_000, "generation stopped");

    let item_id = done["output"][0]["id"].clone();
    let truncate = |ms: u64| json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": ms});
    client.send(truncate(sent_ms + 1)).await;
    let error = client.until("error").await;
    assert_eq!(
        (&error["error"]["code"], &error["error"]["param"]),
        (&json!("invalid_value"), &json!("audio_end_ms"))
    );
    client.send(truncate(1_000)).await;
    let truncated = client.until("conversation.item.truncated").await;
    assert_eq!(truncated["audio_end_ms"], 1_000);
    let said = server.sessions()[0].said[0].clone();
    assert_eq!(said.truncated_ms, Some(1_000));
    assert!(text.starts_with(&said.text) && said.text.len() < 40, "{}", said.text);
}

#[tokio::test]
async fn two_tools_are_called_in_one_response_and_answered_once() {
    let call = |name: &str| ToolCall { name: name.into(), arguments: json!({"day": "{{user}}"}) };
    let rules = vec![Rule::call(&["book"], vec![call("free_slots"), call("prices")])];
    let server = start(Options { rules, ..Options::default() }).await;
    let tools = json!([tool("free_slots", "day"), tool("prices", "day")]);
    let mut client = Client::telephone(&server, json!({"tools": tools})).await;
    let content = json!([{"type": "input_text", "text": "Please book Monday"}]);
    client.send(json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})).await;
    client.send(json!({"type": "response.create"})).await;
    let events = client.collect("response.done").await;
    let calls: Vec<&Value> =
        events.iter().filter(|e| e["type"] == "response.function_call_arguments.done").collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["arguments"], r#"{"day":"Please book Monday"}"#);
    assert_ne!(calls[0]["call_id"], calls[1]["call_id"]);
    let output = &events.last().expect("done")["response"]["output"];
    assert_eq!((&output[0]["name"], &output[1]["name"]), (&json!("free_slots"), &json!("prices")));
    for (call, text) in calls.iter().zip(["Ten is free.", "It costs forty."]) {
        let item = json!({"type": "function_call_output", "call_id": call["call_id"], "output": json!({"answer": text}).to_string()});
        client.send(json!({"type": "conversation.item.create", "item": item})).await;
    }
    client.send(json!({"type": "response.create", "response": {"output_modalities": ["text"]}})).await;
    let events = client.collect("response.done").await;
    let text = events.iter().find(|e| e["type"] == "response.output_text.done").expect("text");
    assert_eq!(text["text"], "Ten is free. It costs forty.");
    assert!(audio(&events).is_empty());
}

#[tokio::test]
async fn goodbye_is_said_and_the_call_ended_in_one_response() {
    let server = start(Options::default()).await;
    let mut client = Client::telephone(&server, json!({"tools": [tool("end_call", "reason")]})).await;
    client.speak(&spoken("Okay, goodbye.").await).await;
    let events = client.collect("response.done").await;
    assert_eq!(words_in(&audio(&events)), "Thank you for calling. Goodbye!");
    let call = events.iter().find(|e| e["type"] == "response.function_call_arguments.done").expect("a call");
    assert_eq!(call["name"], "end_call");
}

#[tokio::test]
async fn silence_after_an_answer_triggers_the_idle_timeout() {
    let server = start(Options::default()).await;
    let turn = json!({"type": "server_vad", "idle_timeout_ms": 5_000});
    let input = json!({"format": {"type": "audio/pcmu"}, "turn_detection": turn});
    let audio = json!({"input": input, "output": {"format": {"type": "audio/pcmu"}}});
    let mut client = Client::telephone(&server, json!({"audio": audio})).await;
    client.send(json!({"type": "response.create", "response": {"instructions": "Say: Yes."}})).await;
    client.until("response.done").await;
    client.until("input_audio_buffer.timeout_triggered").await;
    let events = client.collect("response.done").await;
    let transcript =
        events.iter().find(|e| e["type"] == "response.output_audio_transcript.done").expect("speech");
    assert_eq!(transcript["transcript"], "Are you still there?");
}

#[tokio::test]
async fn what_the_vendor_refuses_is_refused_with_its_code_and_parameter() {
    let session = |change: Value| {
        let mut session = json!({"type": "realtime"});
        for (name, value) in change.as_object().expect("an object") {
            session[name] = value.clone();
        }
        json!({"type": "session.update", "session": session})
    };
    let message = |role: &str, kind: &str| {
        let content = json!([{"type": kind, "text": "x"}]);
        json!({"type": "conversation.item.create", "item": {"type": "message", "role": role, "content": content}})
    };
    let input = |input: Value| session(json!({"audio": {"input": input}}));
    let cases = [
        (json!({"type": "session.updat"}), "invalid_value", "type"),
        (json!({"no": "type"}), "missing_required_parameter", "type"),
        (json!({"type": "input_audio_buffer.append"}), "missing_required_parameter", "audio"),
        (json!({"type": "input_audio_buffer.append", "audio": "?"}), "invalid_value", "audio"),
        (json!({"type": "input_audio_buffer.append", "audio": 1}), "invalid_type", "audio"),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer_commit_empty", ""),
        (json!({"type": "input_audio_buffer.commit", "now": true}), "unknown_parameter", "now"),
        (json!({"type": "output_audio_buffer.clear"}), "invalid_value", "type"),
        (json!({"type": "session.update", "session": {}}), "missing_required_parameter", "session.type"),
        (json!({"type": "session.update", "session": {"type": "beta"}}), "invalid_value", "session.type"),
        (session(json!({"modalities": ["audio"]})), "beta_api_shape_disabled", "session.modalities"),
        (session(json!({"voice": "alloy"})), "beta_api_shape_disabled", "session.voice"),
        (session(json!({"temperature": 0.8})), "beta_api_shape_disabled", "session.temperature"),
        (
            session(json!({"input_audio_format": "g711_ulaw"})),
            "beta_api_shape_disabled",
            "session.input_audio_format",
        ),
        (input(json!({"format": "g711_ulaw"})), "beta_api_shape_disabled", "session.audio.input.format"),
        (
            input(json!({"format": {"type": "audio/opus"}})),
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            input(json!({"format": {"type": "audio/pcm"}})),
            "missing_required_parameter",
            "session.audio.input.format.rate",
        ),
        (
            input(json!({"format": {"type": "audio/pcm", "rate": 8_000}})),
            "integer_below_min_value",
            "session.audio.input.format.rate",
        ),
        (
            input(json!({"format": {"type": "audio/pcmu", "rate": 8_000}})),
            "unknown_parameter",
            "session.audio.input.format.rate",
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "threshold": 2}})),
            "decimal_above_max_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "eagerness": "low"}})),
            "unknown_parameter",
            "session.audio.input.turn_detection.eagerness",
        ),
        (
            session(json!({"output_modalities": ["audio", "text"]})),
            "invalid_value",
            "session.output_modalities",
        ),
        (
            session(json!({"max_output_tokens": 5_000})),
            "integer_above_max_value",
            "session.max_output_tokens",
        ),
        (session(json!({"model": "gpt-realtime-mini"})), "invalid_value", "session.model"),
        (
            session(json!({"tools": [{"type": "function", "name": "bad name"}]})),
            "invalid_value",
            "session.tools[0].name",
        ),
        (
            session(json!({"tools": [{"type": "function", "function": {}}]})),
            "unknown_parameter",
            "session.tools[0].function",
        ),
        (
            session(json!({"audio": {"output": {"speed": 3.0}}})),
            "decimal_above_max_value",
            "session.audio.output.speed",
        ),
        (session(json!({"surprise": 1})), "unknown_parameter", "session.surprise"),
        (message("assistant", "text"), "invalid_value", "item.content[0].type"),
        (message("assistant", "input_text"), "invalid_value", "item.content[0].type"),
        (message("user", "output_text"), "invalid_value", "item.content[0].type"),
        (message("system", "input_audio"), "invalid_value", "item.content[0].type"),
        (
            json!({"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "call_x", "output": "{}"}}),
            "invalid_tool_call_id",
            "item.call_id",
        ),
        (
            json!({"type": "conversation.item.delete", "item_id": "nope"}),
            "item_delete_invalid_item_id",
            "item_id",
        ),
        (
            json!({"type": "conversation.item.retrieve", "item_id": "nope"}),
            "item_retrieve_invalid_item_id",
            "item_id",
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "nope", "content_index": 0, "audio_end_ms": 1}),
            "item_truncate_invalid_item_id",
            "item_id",
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "nope", "content_index": 1, "audio_end_ms": 1}),
            "integer_above_max_value",
            "content_index",
        ),
        (
            json!({"type": "response.create", "response": {"modalities": ["text"]}}),
            "beta_api_shape_disabled",
            "response.modalities",
        ),
        (json!({"type": "response.cancel"}), "response_cancel_not_active", ""),
    ];
    let server = start(Options::default()).await;
    let mut client = Client::ready(&server).await;
    for (index, (mut event, code, param)) in cases.into_iter().enumerate() {
        event["event_id"] = json!(format!("case-{index}"));
        client.send(event.clone()).await;
        let error = client.event().await["error"].clone();
        assert_eq!(error["code"], code, "{event}: {error}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{event}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["event_id"], event["event_id"], "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10));
    }
    client.socket.send(Message::text("{not json")).await.expect("open");
    assert_eq!(client.event().await["error"]["code"], "invalid_json");
    let huge = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(16 << 20)});
    client.send(huge).await;
    assert_eq!(client.event().await["error"]["code"], "event_too_large");
}

#[tokio::test]
async fn only_one_response_at_a_time_and_restored_text_cannot_be_truncated() {
    let server = start(Options::default()).await;
    let mut client = Client::telephone(&server, json!({})).await;
    client.send(json!({"type": "response.create"})).await;
    client.send(json!({"type": "response.create", "event_id": "second"})).await;
    let error = client.until("error").await;
    assert_eq!(error["error"]["code"], "conversation_already_has_active_response");
    assert_eq!(error["error"]["event_id"], "second");
    client.send(json!({"type": "response.create", "response": {"conversation": "none", "metadata": {"topic": "side"}}})).await;
    let created = client.until("response.created").await;
    assert_eq!(
        (&created["response"]["conversation_id"], &created["response"]["metadata"]["topic"]),
        (&Value::Null, &json!("side"))
    );
    client.send(json!({"type": "response.cancel"})).await;
    let done = client.until("response.done").await;
    assert_eq!(done["response"]["status_details"]["reason"], "client_cancelled");

    let content = json!([{"type": "output_text", "text": "Earlier words"}]);
    let item = json!({"id": "item_old", "type": "message", "role": "assistant", "content": content});
    client.send(json!({"type": "conversation.item.create", "previous_item_id": "root", "item": item})).await;
    let added = client.until("conversation.item.added").await;
    assert_eq!((&added["item"]["id"], &added["previous_item_id"]), (&json!("item_old"), &Value::Null));
    client.send(json!({"type": "conversation.item.truncate", "item_id": "item_old", "content_index": 0, "audio_end_ms": 0})).await;
    assert_eq!(client.until("error").await["error"]["code"], "invalid_value");
}

#[tokio::test]
async fn keys_models_and_the_beta_header_are_checked() {
    let server = start(Options { api_key: Some("right".into()), ..Options::default() }).await;
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Bearer ")]] {
        let Err(tungstenite::Error::Http(response)) = connect(&server, headers).await else {
            panic!("{headers:?} got in")
        };
        assert_eq!(response.status(), 401, "{headers:?}");
    }
    let mut request = server.url().as_str().into_client_request().expect("a request");
    request.headers_mut().insert("authorization", "Bearer right".parse().expect("a value"));
    let Err(tungstenite::Error::Http(response)) = connect_async(request).await else {
        panic!("no model, yet let in")
    };
    assert_eq!(response.status(), 400);
    assert_eq!(server.refused(), 4);

    let headers = [("authorization", "Bearer right"), ("openai-beta", "realtime=v1")];
    let mut client = connect(&server, &headers).await.expect("the upgrade");
    assert_eq!(client.event().await["error"]["code"], "beta_api_shape_disabled");
    assert!(matches!(client.next().await, Got::Closed(4000, _)));
}

#[tokio::test]
async fn the_session_cap_ends_a_session_as_the_vendor_does() {
    let server = start(Options { session_cap: Duration::from_millis(300), ..Options::default() }).await;
    let mut client = Client::ready(&server).await;
    assert_eq!(client.until("error").await["error"]["code"], "session_expired");
    let Got::Closed(code, reason) = client.next().await else { panic!("not closed") };
    assert_eq!((code, reason.as_str()), (1001, "Your session hit the maximum duration of 60 minutes."));
    assert_eq!(closed_record(&server).await.closed.map(|c| (c.code, c.by_client)), Some((1001, false)));
}

#[tokio::test]
async fn faults_strike_the_connections_that_they_are_set_for() {
    let server = start(Options { faults: Faults::first(1, Fault::refuse(503)), ..Options::default() }).await;
    let headers = [("authorization", "Bearer test")];
    let Err(tungstenite::Error::Http(response)) = connect(&server, &headers).await else { panic!("let in") };
    assert_eq!(response.status(), 503);
    drop(Client::ready(&server).await);

    let soon = After::Elapsed(Duration::from_millis(100));
    server.set_faults(Faults {
        sequence: vec![
            Fault::close(soon, 1011, "internal error"),
            Fault::action(After::AudioIn(Duration::from_millis(200)), Action::Drop),
            Fault::action(soon, Action::Silence),
            Fault {
                error_before_ready: Some(("insufficient_quota".into(), "No credit.".into())),
                ..Fault::default()
            },
            Fault { unknown_events: true, created_delay: Duration::from_millis(150), ..Fault::default() },
        ],
        rest: Fault::default(),
    });
    let mut closing = Client::ready(&server).await;
    assert!(matches!(closing.next().await, Got::Closed(1011, reason) if reason == "internal error"));

    let mut dropped = Client::ready(&server).await;
    let silence = BASE64_STANDARD.encode(vec![0u8; 9_600]);
    dropped.send(json!({"type": "input_audio_buffer.append", "audio": silence})).await;
    assert!(matches!(dropped.next().await, Got::Broken), "no close frame");

    let mut silent = Client::ready(&server).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    silent.send(json!({"type": "response.create"})).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(400), silent.socket.next()).await.is_err(),
        "not a word"
    );

    let mut poor = connect(&server, &headers).await.expect("the upgrade");
    assert_eq!(poor.event().await["error"]["code"], "insufficient_quota");

    let asked = std::time::Instant::now();
    let mut odd = Client::ready(&server).await;
    assert!(asked.elapsed() >= Duration::from_millis(150));
    odd.until("emulator.unheard_of").await;
    drop(Client::ready(&server).await);
}

#[tokio::test]
async fn a_response_can_be_cancelled_in_the_middle_of_a_tool_call() {
    let faults = Faults::first(1, Fault { cancel_mid_tool: true, ..Fault::default() });
    let server = start(Options { faults, ..Options::default() }).await;
    let mut client = Client::telephone(&server, json!({"tools": [tool("search_knowledge", "query")]})).await;
    client.speak(&spoken("Where are you?").await).await;
    let events = client.collect("response.done").await;
    assert!(kinds(&events).contains(&"response.function_call_arguments.delta"));
    assert!(!kinds(&events).contains(&"response.function_call_arguments.done"));
    assert_eq!(events.last().expect("done")["response"]["status"], "cancelled");
}

#[tokio::test]
async fn stopping_closes_every_session() {
    let server = start(Options::default()).await;
    let mut client = Client::ready(&server).await;
    assert_eq!(server.open_sessions(), 1);
    let address = server.url();
    let stopped = tokio::spawn(server.stop());
    assert!(matches!(client.next().await, Got::Closed(1001, _)));
    stopped.await.expect("stopped");
    assert!(connect_async(format!("{address}?model=gpt-realtime-2.1")).await.is_err());
}
