//! Streaming speech.

use std::sync::Arc;
use std::time::Duration;

use longhouse_emulators::ai::LiveOptions;
use longhouse_gateway::live::offline::OfflineSpeech;
use longhouse_gateway::live::{
    Encoding, SpeakingCommand, SpeakingEvent, SpeakingRequest, TextToSpeech, Utterance,
};
use rstest::rstest;
use url::Url;

use super::harness::{Desk, Mouth, Tape, utterance, words};
use crate::harness::soon;

const A: Utterance = Utterance(1);
const B: Utterance = Utterance(2);

/// As a language model writes.
fn pieces(of: Utterance, text: &str) -> Vec<SpeakingCommand> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(3).map(|piece| SpeakingCommand::Text(of, piece.iter().collect())).collect()
}

#[rstest]
#[case(Mouth::Aura, Encoding::Mulaw)]
#[case(Mouth::Aura, Encoding::Pcm16(24_000))]
#[case(Mouth::Cartesia, Encoding::Mulaw)]
#[case(Mouth::Cartesia, Encoding::Pcm16(16_000))]
#[case(Mouth::ElevenLabs, Encoding::Mulaw)]
#[case(Mouth::ElevenLabs, Encoding::Pcm16(24_000))]
#[tokio::test]
async fn text_becomes_speech(#[case] mouth: Mouth, #[case] encoding: Encoding) {
    let desk = Desk::new().await;
    let mut speaking = Tape::new(desk.speak(mouth, &SpeakingRequest::new(encoding)).await.unwrap());
    assert!(matches!(speaking.event().await, SpeakingEvent::Ready(_)));
    // The second is told before the first is done.
    let (first, second) = ("Good morning. How can I help you today?", "We are open until nine.");
    for (of, text) in [(A, first), (B, second)] {
        for command in pieces(of, text) {
            speaking.send(command);
        }
        speaking.send(SpeakingCommand::End(of));
    }
    let (mut audio, mut times, mut done) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new());
    while done.len() < 2 {
        match speaking.event().await {
            SpeakingEvent::Audio(of, payload) => {
                audio[of.0 as usize - 1].extend_from_slice(&super::harness::raw(&payload));
            }
            SpeakingEvent::Words(of, words) => times[of.0 as usize - 1].extend(words),
            SpeakingEvent::Done(of) => done.push(of),
            other => panic!("{other:?}"),
        }
    }
    for (index, text) in [first, second].into_iter().enumerate() {
        assert_eq!(words(&audio[index], encoding).join(" "), text);
        if mouth != Mouth::Aura {
            let told: Vec<&str> = times[index].iter().map(|word| word.text.as_str()).collect();
            assert_eq!(told.join(" "), text);
            let end = encoding.duration(audio[index].len()).as_millis() as u64;
            assert!(times[index].windows(2).all(|pair| pair[0].start_ms < pair[1].start_ms), "{times:?}");
            assert!(times[index].iter().all(|word| word.end_ms <= end + 20), "{end} {times:?}");
        }
    }
    speaking.send(SpeakingCommand::Finish);
    let SpeakingEvent::Finished(usage) = speaking.event().await else { panic!() };
    assert!(usage.characters >= (first.len() + second.len()) as u64 - 2, "{usage:?}");
    assert!(soon(speaking.live.next()).await.is_none());
    soon(desk.server.sockets_closed()).await;
    let complaints: Vec<_> = desk.server.sockets().into_iter().flat_map(|socket| socket.complaints).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[rstest]
#[case(Mouth::Aura)]
#[case(Mouth::Cartesia)]
#[case(Mouth::ElevenLabs)]
#[tokio::test]
async fn what_is_cancelled_falls_silent_and_the_next_is_whole(#[case] mouth: Mouth) {
    let desk = Desk::with(LiveOptions { gap: Duration::from_millis(40), ..LiveOptions::default() }).await;
    let mut speaking = Tape::new(desk.speak(mouth, &SpeakingRequest::new(Encoding::Mulaw)).await.unwrap());
    let long = "This is a very long sentence that nobody wants to hear to its end, because it never ends.";
    speaking.send(SpeakingCommand::Text(A, long.into()));
    speaking.send(SpeakingCommand::Flush(A));
    while !matches!(speaking.event().await, SpeakingEvent::Audio(A, _)) {}
    speaking.send(SpeakingCommand::Cancel(A));
    speaking.send(SpeakingCommand::Text(B, "Yes, of course.".into()));
    speaking.send(SpeakingCommand::End(B));
    let (mut cancelled, mut audio) = (false, Vec::new());
    loop {
        match speaking.event().await {
            SpeakingEvent::Audio(A, _) => panic!("audio of what was cancelled"),
            SpeakingEvent::Cancelled(A) => cancelled = true,
            SpeakingEvent::Audio(B, payload) => audio.extend_from_slice(&super::harness::raw(&payload)),
            SpeakingEvent::Done(of) => {
                assert_eq!(of, B);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(words(&audio, Encoding::Mulaw).join(" "), "Yes, of course.");
    while !cancelled {
        cancelled = matches!(speaking.event().await, SpeakingEvent::Cancelled(A));
    }
}

#[tokio::test]
async fn a_plan_without_more_contexts_fails_the_utterance_and_not_the_socket() {
    let desk = Desk::with(LiveOptions { cartesia_contexts: 1, ..LiveOptions::default() }).await;
    let mut speaking =
        Tape::new(desk.speak(Mouth::Cartesia, &SpeakingRequest::new(Encoding::Mulaw)).await.unwrap());
    speaking.send(SpeakingCommand::Text(A, "Half a".into()));
    speaking.send(SpeakingCommand::Text(B, "Too many".into()));
    while !matches!(speaking.event().await, SpeakingEvent::Failed(B, _)) {}
    speaking.send(SpeakingCommand::Text(A, " sentence.".into()));
    speaking.send(SpeakingCommand::End(A));
    let (audio, _) = utterance(&mut speaking, A).await;
    assert_eq!(words(&audio, Encoding::Mulaw).join(" "), "Half a sentence.");
}

#[tokio::test]
async fn seven_utterances_share_five_contexts() {
    let desk = Desk::new().await;
    let mut speaking =
        Tape::new(desk.speak(Mouth::ElevenLabs, &SpeakingRequest::new(Encoding::Mulaw)).await.unwrap());
    for n in 0..7 {
        speaking.send(SpeakingCommand::Text(Utterance(n), format!("Number {n}.")));
    }
    for n in 0..7 {
        speaking.send(SpeakingCommand::End(Utterance(n)));
    }
    let mut done = 0;
    while done < 7 {
        done += usize::from(matches!(speaking.event().await, SpeakingEvent::Done(_)));
    }
    assert!(desk.server.sockets()[0].complaints.is_empty());
}

#[tokio::test]
async fn offline_speech_is_real_speech_and_says_each_sentence() {
    let desk = Desk::new().await;
    let offline: Arc<dyn TextToSpeech> = Arc::new(OfflineSpeech::detect());
    let attempt = desk.attempt(Url::parse("http://offline.invalid").unwrap(), "espeak");
    let opened = offline.open(&SpeakingRequest::new(Encoding::Mulaw), &attempt).await;
    let mut speaking = Tape::new(opened.unwrap());
    assert!(matches!(speaking.event().await, SpeakingEvent::Ready(_)));
    for command in pieces(A, "First sentence. Second sentence") {
        speaking.send(command);
    }
    // The first is spoken before the second has ended.
    assert!(matches!(speaking.event().await, SpeakingEvent::Audio(A, _)));
    speaking.send(SpeakingCommand::End(A));
    let (audio, _) = utterance(&mut speaking, A).await;
    assert!(Encoding::Mulaw.duration(audio.len()) > Duration::from_millis(900), "{}", audio.len());
    speaking.send(SpeakingCommand::Text(B, "Never mind. This is not said.".into()));
    speaking.send(SpeakingCommand::Cancel(B));
    assert_eq!(speaking.event().await, SpeakingEvent::Cancelled(B));
    speaking.send(SpeakingCommand::Finish);
    let SpeakingEvent::Finished(usage) = speaking.event().await else { panic!() };
    assert!(usage.characters >= 30 && usage.audio_ms > 900, "{usage:?}");
    assert!(soon(speaking.live.next()).await.is_none());
}
