//! One suite for all chat adapters: each against the emulator of its vendor.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longhouse_emulators::ai::{End, Fault as Trouble, Faults, Options};
use longhouse_gateway::chat::{
    ChatEvent, ChatRequest, Effort, FinishReason, Message, ResponseFormat, Tool, ToolChoice, ToolResult,
};
use longhouse_gateway::ledger::Outcome;
use longhouse_gateway::{Error, Fault, Waiting};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Bench, KEY, Vendor, call, soon, task};

fn options() -> Options {
    Options::default()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest { max_output_tokens: Some(500), ..ChatRequest::new("You are kind.", text) }
}

fn tool(name: &str) -> Tool {
    Tool {
        name: name.into(),
        description: format!("Looks up the {name} of a city."),
        parameters: json!({"type": "object", "properties": {"city": {"type": "string"}},
            "required": ["city"], "additionalProperties": false}),
        strict: true,
    }
}

/// What went wrong, of a call that must fail.
fn fault(error: &Error) -> Fault {
    let message = error.to_string();
    assert!(!message.contains("planted"), "{message}");
    error.failure().unwrap_or_else(|| panic!("{error:?}")).fault
}

#[rstest]
#[tokio::test]
async fn an_answer_comes_piece_by_piece(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let served = soon(bench.gateway.chat(&call(), request("hello there world"))).await.unwrap();
    assert!(!served.report.is_degraded());
    assert_eq!(served.report.model.to_string(), vendor.model());
    let events: Vec<ChatEvent> = soon(served.value.map(Result::unwrap).collect()).await;
    assert!(
        matches!(&events[0], ChatEvent::Started { model, .. } if vendor.model().ends_with(model.as_str()))
    );
    let texts: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert!(texts.len() > 2, "{texts:?}");
    assert_eq!(texts.concat(), "You said: hello there world");
    let Some(ChatEvent::Finished { reason: FinishReason::Stop, usage }) = events.last() else {
        panic!("{events:?}")
    };
    assert!(usage.input_tokens > 0 && usage.output_tokens > 0 && !usage.estimated, "{usage:?}");
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert_eq!((entry.outcome, entry.usage), (Outcome::Done, *usage));
    assert!(entry.first_content.is_some() && entry.latency >= entry.first_content.unwrap());
}

#[rstest]
#[tokio::test]
async fn two_tools_are_called_side_by_side_and_their_results_used(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let mut request = request("weather and time in Rome");
    request.tools = vec![tool("weather"), tool("time")];
    let completion = soon(bench.gateway.complete(&call(), request.clone())).await.unwrap().value;
    assert_eq!(completion.finish, Some(FinishReason::ToolCalls));
    let calls: Vec<_> = completion.tool_calls().cloned().collect();
    assert_eq!(calls.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["weather", "time"]);
    assert_ne!(calls[0].id, calls[1].id);
    for call in &calls {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        assert_eq!(arguments, json!({"city": "weather and time in Rome"}));
    }
    let results = calls.iter().map(|call| ToolResult {
        call_id: call.id.clone(),
        name: call.name.clone(),
        output: format!("{} is fine", call.name),
        is_error: false,
    });
    let results = Message::Tool(results.collect());
    request.messages.push(completion.into_message());
    request.messages.push(results);
    let answer = soon(bench.gateway.complete(&call(), request)).await.unwrap().value;
    assert_eq!(answer.text(), "I looked: weather is fine; time is fine");
}

#[rstest]
#[tokio::test]
async fn tool_choices_are_obeyed(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
    #[values(
        (ToolChoice::None, 0),
        (ToolChoice::Required, 1),
        (ToolChoice::Named("time".into()), 1)
    )]
    choice: (ToolChoice, usize),
) {
    let bench = Bench::one(vendor, options()).await;
    let mut request = request("weather please");
    request.tools = vec![tool("weather"), tool("time")];
    request.single_tool_call = true;
    request.tool_choice = choice.0.clone();
    let completion = soon(bench.gateway.complete(&call(), request)).await.unwrap().value;
    assert_eq!(completion.tool_calls().count(), choice.1);
    if choice.0 == ToolChoice::Named("time".into()) {
        assert_eq!(completion.tool_calls().next().unwrap().name, "time");
    }
}

#[rstest]
#[tokio::test]
async fn answers_have_the_shape_that_was_asked_for(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let schema = json!({"type": "object", "properties": {"title": {"type": "string"}, "pages": {"type": "integer"}},
        "required": ["title", "pages"], "additionalProperties": false});
    let mut request = request("A fox");
    request.format = ResponseFormat::Schema { name: "story".into(), schema };
    let story: Value =
        soon(bench.gateway.complete(&call(), request.clone())).await.unwrap().value.json().unwrap();
    assert_eq!(story, json!({"title": "A fox", "pages": 1}));
    request.format = ResponseFormat::Json;
    let any: Value = soon(bench.gateway.complete(&call(), request)).await.unwrap().value.json().unwrap();
    assert!(any.is_object(), "{any}");
}

/// Every parameter at once: the vendors refuse what they do not know.
#[rstest]
#[tokio::test]
async fn all_settings_are_written_as_the_vendor_wants_them(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let mut request = request("hi");
    request.temperature = Some(0.7);
    request.top_p = Some(0.9);
    request.effort = Some(Effort::Low);
    request.user = Some("u_1".into());
    if vendor != Vendor::Responses {
        request.stop = vec!["END".into()];
    }
    request.messages.insert(0, Message::user("before"));
    request.messages.insert(1, Message::assistant("I see."));
    let completion = soon(bench.gateway.complete(&call(), request)).await.unwrap().value;
    assert_eq!(completion.text(), "You said: hi");
}

#[rstest]
#[tokio::test]
async fn a_limit_of_tokens_is_reported(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let mut request = request(&"word ".repeat(60));
    request.max_output_tokens = Some(20);
    let completion = soon(bench.gateway.complete(&call(), request)).await.unwrap().value;
    assert_eq!(completion.finish, Some(FinishReason::Length));
}

#[rstest]
#[tokio::test]
async fn a_caller_who_goes_away_frees_the_vendor_at_once(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let options = Options { event_gap: Duration::from_millis(50), ..options() };
    let bench = Bench::one(vendor, options).await;
    let mut stream = soon(bench.gateway.chat(&call(), request(&"word ".repeat(400)))).await.unwrap().value;
    while !matches!(soon(stream.next()).await.unwrap().unwrap(), ChatEvent::Text(_)) {}
    assert_eq!(bench.server.open(), 1);
    let dropped = Instant::now();
    drop(stream);
    soon(bench.server.idle()).await;
    assert!(dropped.elapsed() < Duration::from_millis(500), "{:?}", dropped.elapsed());
    assert_eq!(bench.server.records()[0].end, Some(End::Cancelled));
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert_eq!(entry.outcome, Outcome::Cancelled);
    assert!(entry.usage.estimated && entry.usage.input_tokens > 0, "{:?}", entry.usage);
}

#[rstest]
#[tokio::test]
async fn a_vendor_that_says_nothing_times_out(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let tasks = task(&[vendor.model()], "attempts = 1\nfirst_byte_ms = 150\nidle_ms = 150");
    let bench = Bench::new(options(), &tasks).await;
    let slow = Trouble { delay: Duration::from_secs(60), ..Trouble::default() };
    bench.server.set_faults(Faults::all(slow));
    let error = soon(bench.gateway.chat(&call(), request("hi"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::TimedOut(Waiting::Answer));
    let stalled = Trouble { stall_after: Some(900), ..Trouble::default() };
    bench.server.set_faults(Faults::all(stalled));
    let error = soon(bench.gateway.complete(&call(), request(&"word ".repeat(100)))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::TimedOut(Waiting::NextByte));
    soon(bench.server.idle()).await;
}

#[rstest]
#[tokio::test]
async fn a_rate_limit_is_waited_for_and_named_when_it_lasts(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::new(options(), &task(&[vendor.model()], "attempts = 2")).await;
    let wait = Duration::from_millis(1_000);
    bench.server.set_faults(Faults::first(1, Trouble::wait(429, wait)));
    let begun = Instant::now();
    let served = soon(bench.gateway.complete(&call(), request("hi"))).await.unwrap();
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    assert_eq!(served.value.text(), "You said: hi");
    let keys: Vec<_> = bench.server.records().iter().map(|r| r.idempotency_key.clone()).collect();
    assert_eq!(keys[0], keys[1], "a repetition is known as one");
    bench.server.set_faults(Faults::all(Trouble::wait(429, Duration::from_secs(40))));
    let error = soon(bench.gateway.chat(&call(), request("hi"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(40)));
}

#[rstest]
#[tokio::test]
async fn a_vendor_that_fails_is_replaced(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
    #[values(500, 503, 529)] status: u16,
) {
    let bench = Bench::new(options(), &task(&[vendor.model(), "offline/rules"], "attempts = 1")).await;
    bench.server.set_faults(Faults::all(Trouble::status(status)));
    let served = soon(bench.gateway.complete(&call(), request("Hello"))).await.unwrap();
    assert!(served.report.is_degraded());
    assert_eq!(served.report.model.to_string(), "offline/rules");
    let tried = &served.report.tried[0];
    assert_eq!((tried.model.to_string().as_str(), tried.requests), (vendor.model(), 1));
    assert!(matches!(tried.fault, Fault::ServerError | Fault::Overloaded), "{tried:?}");
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert_eq!((entry.outcome, entry.tried), (Outcome::Done, served.report.tried));
}

/// The stream is cut at every byte: never a panic, never a whole answer that is none, never a wrong word.
#[rstest]
#[tokio::test]
async fn a_cut_at_any_byte_is_noticed(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    let whole = soon(bench.gateway.complete(&call(), request("ok"))).await.unwrap().value;
    let length = bench.server.records()[0].sent;
    let mut handed_on = 0;
    // Breakers would end the experiment: a good answer in between keeps them closed.
    for (number, cut) in (0..length).step_by(if length > 4_000 { 3 } else { 1 }).enumerate() {
        let sequence = if number % 4 == 3 {
            vec![Trouble::default(), Trouble::cut(cut)]
        } else {
            vec![Trouble::cut(cut)]
        };
        let good = sequence.len() == 2;
        bench.server.set_faults(Faults { sequence, rest: Trouble::default() });
        if good {
            soon(bench.gateway.complete(&call(), request("ok"))).await.unwrap();
        }
        let mut text = String::new();
        let error = match soon(bench.gateway.chat(&call(), request("ok"))).await {
            Err(error) => Some(error),
            Ok(served) => {
                let mut stream = served.value;
                let mut error = None;
                let mut finished = false;
                while let Some(event) = soon(stream.next()).await {
                    match event {
                        Ok(ChatEvent::Text(piece)) => text.push_str(&piece),
                        Ok(ChatEvent::Finished { .. }) => finished = true,
                        Ok(_) => {}
                        Err(failed) => error = Some(failed),
                    }
                }
                assert!(finished != error.is_some(), "an answer ends in exactly one way (cut at {cut})");
                error
            }
        };
        assert!(whole.text().starts_with(&text), "cut at {cut}: {text}");
        match error {
            Some(error) => {
                assert_eq!(fault(&error), Fault::Interrupted, "cut at {cut}: {error}");
                assert_eq!(error.delivered(), !text.is_empty(), "cut at {cut}");
                handed_on += usize::from(!text.is_empty());
            }
            // Only what comes after the last word of the protocol may be missing.
            None => assert_eq!(text, whole.text(), "cut at {cut}"),
        }
    }
    assert!(handed_on > 10, "{handed_on}");
    soon(bench.server.idle()).await;
}

#[rstest]
#[tokio::test]
async fn what_is_no_protocol_is_called_so(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
    #[values(0, 2)] event: usize,
) {
    let bench = Bench::one(vendor, options()).await;
    bench.server.set_faults(Faults::all(Trouble { garble_event: Some(event), ..Trouble::default() }));
    let error = soon(bench.gateway.complete(&call(), request("hello there"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Malformed);
    soon(bench.server.idle()).await;
}

#[rstest]
#[tokio::test]
async fn an_endless_answer_is_cut(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    bench.server.set_faults(Faults::all(Trouble { oversize: Some(64 << 20), ..Trouble::default() }));
    let error = soon(bench.gateway.complete(&call(), request("hi"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::TooLarge);
    soon(bench.server.idle()).await;
    assert!(bench.server.records()[0].sent < 40 << 20, "it was stopped early");
}

#[rstest]
#[tokio::test]
async fn a_failure_within_the_stream_keeps_its_name(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let bench = Bench::one(vendor, options()).await;
    bench.server.set_faults(Faults::all(Trouble { fail_after_events: Some(2), ..Trouble::default() }));
    let error = soon(bench.gateway.complete(&call(), request("hello there"))).await.unwrap_err();
    assert!(matches!(fault(&error), Fault::Overloaded | Fault::ServerError), "{error}");
}

#[rstest]
#[tokio::test]
async fn a_wrong_key_and_an_unknown_model_are_named(
    #[values(Vendor::Responses, Vendor::Completions, Vendor::Anthropic, Vendor::Gemini)] vendor: Vendor,
) {
    let (provider, _) = vendor.model().split_once('/').unwrap();
    let unknown = format!("{provider}/nothing-1");
    let bench = Bench::new(options(), &task(&[&unknown], "attempts = 1")).await;
    let error = soon(bench.gateway.chat(&call(), request("hi"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::NotFound, "{error}");
    let provider = longhouse_gateway::ProviderName::new(provider);
    let key = |secret: &str| Some(longhouse_gateway::keys::ApiKey::new(secret.into()));
    let error = soon(bench.gateway.models(&provider, key("sk-wrong-planted-key"))).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Unauthorized, "{error}");
    assert!(!soon(bench.gateway.models(&provider, key(KEY))).await.unwrap().is_empty());
}
