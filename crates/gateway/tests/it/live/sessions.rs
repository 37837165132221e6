//! Speech-to-speech sessions.

use std::time::Duration;

use longhouse_emulators::ai::LiveOptions;
use longhouse_gateway::Fault;
use longhouse_gateway::live::session::{HistoryItem, OutputEnding, TextState};
use longhouse_gateway::live::{Payload, SessionCommand, SessionEvent};
use rstest::rstest;

use super::harness::{Desk, Mind, Tape, raw, speech, words};

type Talk = Tape<SessionCommand, SessionEvent>;

/// What an answer was.
#[derive(Debug, Default)]
struct Answer {
    audio: Vec<u8>,
    text: String,
    caller: String,
    ending: Option<OutputEnding>,
    calls: Vec<(String, String)>,
}

/// Reads to the end of an answer; calls come before it or, with Gemini, instead of it.
async fn answer(session: &mut Talk, calls: usize) -> Answer {
    let mut answer = Answer::default();
    loop {
        match session.event().await {
            SessionEvent::Audio { payload, .. } => answer.audio.extend_from_slice(&raw(&payload)),
            SessionEvent::AgentText { text, .. } => answer.text.push_str(&text),
            SessionEvent::CallerText { text, state, .. } => match state {
                TextState::More => answer.caller.push_str(&text),
                TextState::SoFar | TextState::Whole => answer.caller = text,
                TextState::Failed => panic!("not written down"),
            },
            SessionEvent::ToolCall { call, .. } => {
                answer.calls.push((call.id, call.name));
                if answer.calls.len() == calls {
                    return answer;
                }
            }
            SessionEvent::OutputDone { ending, failure, .. } => {
                assert_eq!(failure, None);
                answer.ending = Some(ending);
                if calls == 0 {
                    return answer;
                }
            }
            SessionEvent::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
}

async fn say(session: &mut Talk, mind: Mind, text: &str) {
    let pieces = speech(text, mind.input(), 1_200).await;
    session.feed(pieces.into_iter().map(|piece| SessionCommand::Audio(Payload::Raw(piece)))).await;
}

#[rstest]
#[case(Mind::OpenAi)]
#[case(Mind::Xai)]
#[case(Mind::Gemini)]
#[tokio::test]
async fn who_speaks_is_answered(#[case] mind: Mind) {
    let desk = Desk::new().await;
    let mut session = Tape::new(desk.converse(mind, &mind.request()).await.unwrap());
    // Before it is ready: what is said is kept.
    say(&mut session, mind, "Where are you").await;
    assert!(matches!(session.event().await, SessionEvent::Ready { .. }));
    let heard = answer(&mut session, 0).await;
    assert_eq!(heard.ending, Some(OutputEnding::Completed));
    let spoken = words(&heard.audio, mind.output()).join(" ");
    assert!(!spoken.is_empty());
    assert_eq!(spoken, heard.text.trim());
    // The caller's words may come later than the answer.
    let mut caller = heard.caller;
    while caller != "Where are you" {
        if let SessionEvent::CallerText { text, .. } = session.event().await {
            caller = text;
        }
    }
    drop(session);
    crate::harness::soon(desk.server.sockets_closed()).await;
}

#[rstest]
#[case(Mind::OpenAi)]
#[case(Mind::Xai)]
#[case(Mind::Gemini)]
#[tokio::test]
async fn written_words_and_instructions_are_answered_aloud(#[case] mind: Mind) {
    let desk = Desk::new().await;
    let mut session = Tape::new(desk.converse(mind, &mind.request()).await.unwrap());
    session.send(SessionCommand::History(HistoryItem::Caller("My name is Ada".into())));
    session.send(SessionCommand::History(HistoryItem::Agent("Hello Ada".into())));
    for command in [
        SessionCommand::Text("Are you there".into()),
        SessionCommand::Respond { instructions: Some("Say goodbye.".into()) },
    ] {
        session.send(command);
        let heard = answer(&mut session, 0).await;
        assert_eq!(heard.ending, Some(OutputEnding::Completed));
        assert!(!words(&heard.audio, mind.output()).is_empty());
    }
}

#[tokio::test]
async fn two_calls_at_once_are_answered_once() {
    let desk = Desk::new().await;
    let mind = Mind::Gemini;
    let mut session = Tape::new(desk.converse(mind, &mind.request()).await.unwrap());
    session.send(SessionCommand::Text("weather and clock please".into()));
    let asked = answer(&mut session, 2).await;
    let names: Vec<&str> = asked.calls.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["weather", "clock"]);
    for (call_id, name) in asked.calls {
        let output = format!("{{\"output\": \"{name} fine\"}}");
        session.send(SessionCommand::ToolOutput { call_id, name, output });
    }
    let told = answer(&mut session, 0).await;
    assert_eq!(words(&told.audio, mind.output()).join(" "), "I looked: weather fine; clock fine");
}

#[rstest]
#[case(Mind::OpenAi)]
#[case(Mind::Xai)]
#[case(Mind::Gemini)]
#[tokio::test]
async fn who_is_spoken_over_stops(#[case] mind: Mind) {
    let live = LiveOptions { gap: Duration::from_millis(60), ..LiveOptions::default() };
    let desk = Desk::with(live).await;
    let mut session = Tape::new(desk.converse(mind, &mind.request()).await.unwrap());
    let long = "Say this: the rain in Spain stays mainly in the plain, and everywhere else it goes on and on and on.";
    let ask = match mind {
        Mind::Gemini => SessionCommand::Text(long.into()),
        _ => SessionCommand::Respond { instructions: Some(format!("Say exactly these words: \"{long}\"")) },
    };
    session.send(ask);
    while !matches!(session.event().await, SessionEvent::Audio { .. }) {}
    say(&mut session, mind, "Stop it now").await;
    let mut started = false;
    let ending = loop {
        match session.event().await {
            SessionEvent::SpeechStarted { .. } => started = true,
            SessionEvent::OutputDone { ending, .. } => break ending,
            _ => {}
        }
    };
    assert_eq!(ending, OutputEnding::Cancelled);
    // Gemini says that it stops before it says that it hears.
    assert!(started || mind == Mind::Gemini);
}

#[tokio::test]
async fn what_a_vendor_cannot_do_is_said_at_once() {
    let desk = Desk::new().await;
    let mind = Mind::Gemini;
    let mut session = Tape::new(desk.converse(mind, &mind.request()).await.unwrap());
    for command in [SessionCommand::Cancel, SessionCommand::Aside { instructions: "x".into() }] {
        let error = session.live.send(command).unwrap_err();
        assert_eq!(error.failure().unwrap().fault, Fault::Unsupported);
    }
    // The session goes on.
    session.send(SessionCommand::Text("hello".into()));
    assert_eq!(answer(&mut session, 0).await.ending, Some(OutputEnding::Completed));
    let mut request = mind.request();
    request.output = longhouse_gateway::live::Encoding::Mulaw;
    let error = desk.converse(mind, &request).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::Unsupported);
}

#[tokio::test]
async fn a_session_says_when_it_leaves_and_how_to_go_on() {
    // Ten minutes in two seconds.
    let desk = Desk::with(LiveOptions { clock: 300.0, ..LiveOptions::default() }).await;
    let mut session = Tape::new(desk.converse(Mind::Gemini, &Mind::Gemini.request()).await.unwrap());
    session.send(SessionCommand::Text("hello".into()));
    let (mut handle, mut leaving) = (None, None);
    let error = loop {
        match crate::harness::soon(session.live.next()).await.expect("an error ends it") {
            Ok(SessionEvent::Resumable(with)) => handle = Some(with),
            Ok(SessionEvent::Leaving(within)) => leaving = Some(within),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(handle.is_some() && leaving.is_some(), "{handle:?} {leaving:?}");
    assert_eq!(error.failure().unwrap().fault, Fault::ServerError);
}

#[tokio::test]
async fn the_part_that_was_heard_is_what_the_model_keeps() {
    let desk = Desk::new().await;
    let mut session = Tape::new(desk.converse(Mind::OpenAi, &Mind::OpenAi.request()).await.unwrap());
    session.send(SessionCommand::Text("Are you there".into()));
    let mut part = None;
    loop {
        match session.event().await {
            SessionEvent::Audio { part: of, .. } => part = Some(of),
            SessionEvent::OutputDone { .. } => break,
            _ => {}
        }
    }
    session.send(SessionCommand::Truncate { part: part.unwrap(), heard_ms: 400 });
    session.send(SessionCommand::Aside { instructions: "Summarise.".into() });
    loop {
        match session.event().await {
            SessionEvent::Aside(text) => break assert!(text.is_some()),
            SessionEvent::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
    let said = desk.server.realtime_sessions()[0].said.clone();
    assert!(said.iter().any(|said| said.truncated_ms.is_some()), "{said:?}");
}
