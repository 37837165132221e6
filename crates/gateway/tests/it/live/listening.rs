//! Streaming recognition.

use std::time::Duration;

use longhouse_gateway::live::{Encoding, ListeningCommand, ListeningEvent, ListeningRequest};
use rstest::rstest;

use super::harness::{Desk, Ear, Tape, speech, turn};
use crate::harness::soon;

const TEXT: &str = "Hello brave new world";

#[rstest]
#[case(Ear::Flux, Encoding::Mulaw)]
#[case(Ear::Flux, Encoding::Pcm16(16_000))]
#[case(Ear::Nova, Encoding::Mulaw)]
#[case(Ear::Nova, Encoding::Alaw)]
#[case(Ear::Nova, Encoding::Pcm16(24_000))]
#[case(Ear::OpenAi, Encoding::Mulaw)]
#[case(Ear::OpenAi, Encoding::Pcm16(24_000))]
#[tokio::test]
async fn speech_becomes_turns(#[case] ear: Ear, #[case] encoding: Encoding) {
    let desk = Desk::new().await;
    let mut listening = Tape::new(desk.listen(ear, &ListeningRequest::new(encoding)).await.unwrap());
    assert!(matches!(listening.event().await, ListeningEvent::Ready(_)));
    for round in 0..2 {
        listening.feed(audio(TEXT, encoding, 1_200).await).await;
        let (text, before) = turn(&mut listening).await;
        assert_eq!(text, TEXT, "{before:?}");
        let started = before.iter().find_map(|event| match event {
            ListeningEvent::SpeechStarted { turn, .. } => Some(*turn),
            _ => None,
        });
        assert_eq!(started, Some(round), "{before:?}");
        assert!(before.iter().any(|event| matches!(event, ListeningEvent::Partial(_))), "{before:?}");
    }
    listening.send(ListeningCommand::Finish);
    let usage = loop {
        if let ListeningEvent::Finished(counted) = listening.event().await {
            break Some(counted);
        }
    };
    assert!(soon(listening.live.next()).await.is_none());
    assert!(usage.is_some_and(|usage| usage.audio_ms > 2_000), "{usage:?}");
    assert_eq!(listening.live.shed(), 0);
    soon(desk.server.sockets_closed()).await;
    let complaints: Vec<_> = desk.server.sockets().into_iter().flat_map(|socket| socket.complaints).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

async fn audio(text: &str, encoding: Encoding, silence_ms: usize) -> Vec<ListeningCommand> {
    speech(text, encoding, silence_ms).await.into_iter().map(ListeningCommand::Audio).collect()
}

#[tokio::test]
async fn an_eager_end_is_taken_back_when_speech_goes_on() {
    let desk = Desk::new().await;
    let request = ListeningRequest { eager_threshold: Some(0.4), ..ListeningRequest::new(Encoding::Mulaw) };
    let mut listening = Tape::new(desk.listen(Ear::Flux, &request).await.unwrap());
    // A pause long enough for the eager judgement, too short for the end.
    listening.feed(audio("I would like", Encoding::Mulaw, 350).await).await;
    listening.feed(audio("two tickets please", Encoding::Mulaw, 1_200).await).await;
    let (text, before) = turn(&mut listening).await;
    assert_eq!(text, "I would like two tickets please");
    let kinds: Vec<&str> = before
        .iter()
        .filter_map(|event| match event {
            ListeningEvent::EagerEnd(heard) if heard.text == "I would like" => Some("eager"),
            ListeningEvent::EagerEnd(_) => Some("eager again"),
            ListeningEvent::Resumed { .. } => Some("resumed"),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["eager", "resumed", "eager again"]);
}

#[rstest]
#[case(Ear::Flux)]
#[case(Ear::Nova)]
#[case(Ear::OpenAi)]
#[tokio::test]
async fn a_turn_can_be_ended_from_outside(#[case] ear: Ear) {
    let desk = Desk::new().await;
    let mut listening = Tape::new(desk.listen(ear, &ListeningRequest::new(Encoding::Mulaw)).await.unwrap());
    listening.feed(audio("one two three", Encoding::Mulaw, 60).await).await;
    listening.send(ListeningCommand::EndTurn);
    assert_eq!(turn(&mut listening).await.0, "one two three");
}

#[tokio::test]
async fn words_have_their_times() {
    let desk = Desk::new().await;
    for ear in [Ear::Flux, Ear::Nova] {
        let mut listening =
            Tape::new(desk.listen(ear, &ListeningRequest::new(Encoding::Mulaw)).await.unwrap());
        listening.feed(audio(TEXT, Encoding::Mulaw, 1_200).await).await;
        let words = loop {
            if let ListeningEvent::EndOfTurn(heard) = listening.event().await {
                break heard.words;
            }
        };
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts.join(" "), TEXT);
        assert!(words.windows(2).all(|pair| pair[0].start_ms < pair[1].start_ms), "{words:?}");
    }
}

#[tokio::test]
async fn a_silent_listener_is_kept_alive() {
    let desk = Desk::new().await;
    let mut listening = desk.listen(Ear::Nova, &ListeningRequest::new(Encoding::Mulaw)).await.unwrap();
    assert!(matches!(soon(listening.next()).await, Some(Ok(ListeningEvent::Ready(_)))));
    let silence = tokio::time::timeout(Duration::from_millis(5_500), listening.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let messages = desk.server.sockets()[0].messages.clone();
    assert_eq!(messages, [serde_json::json!({"type": "KeepAlive"})]);
}

#[tokio::test]
async fn encodings_that_a_vendor_does_not_hear_are_refused_before_it_is_asked() {
    let desk = Desk::new().await;
    let request = ListeningRequest::new(Encoding::Pcm16(16_000));
    let error = desk.listen(Ear::OpenAi, &request).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, longhouse_gateway::Fault::Unsupported);
    assert_eq!(desk.server.open_sockets(), 0);
}

#[tokio::test]
async fn audio_that_is_not_taken_is_dropped_oldest_first() {
    let desk = Desk::new().await;
    let mut listening = desk.listen(Ear::Flux, &ListeningRequest::new(Encoding::Mulaw)).await.unwrap();
    // Ten seconds at once, and nobody polls.
    for piece in speech("", Encoding::Mulaw, 10_000).await {
        listening.send(ListeningCommand::Audio(piece)).unwrap();
    }
    assert!(listening.backlog() <= 64 << 10, "{}", listening.backlog());
    assert!(listening.shed() > 50, "{}", listening.shed());
}
