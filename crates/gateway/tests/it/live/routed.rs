//! Live speech by tasks: fallbacks until somebody is ready, and one entry in the ledger.

use longhouse_emulators::ai::{LiveFault, LiveFaults, Options};
use longhouse_gateway::Fault;
use longhouse_gateway::ledger::Outcome;
use longhouse_gateway::live::{
    Encoding, ListeningCommand, ListeningRequest, SpeakingCommand, SpeakingEvent, SpeakingRequest, Utterance,
};
use longhouse_gateway::routing::Call;

use super::harness::{Mind, Tape, speech, turn, utterance, words};
use crate::harness::{Bench, call, soon};

fn tasks() -> String {
    let task = |name: &str, modality: &str, models: &[&str]| {
        format!("[tasks.{name}]\nmodality = \"{modality}\"\nmodels = {models:?}\nattempts = 1\n")
    };
    task("ears", "transcription", &["deepgram/flux-general-en", "openai/gpt-transcribe"])
        + &task("mouth", "speech", &["cartesia/sonic-3", "offline/espeak"])
        + &task("mind", "realtime", &["openai/gpt-realtime-2.1"])
}

fn for_task(name: &str) -> Call {
    Call { task: longhouse_gateway::Task::new(name), ..call() }
}

#[tokio::test]
async fn a_listener_falls_back_and_is_counted() {
    let bench = Bench::new(Options::default(), &tasks()).await;
    bench.server.set_live_faults(LiveFaults::all(LiveFault::refuse(500)));
    let served =
        bench.gateway.listen(&for_task("ears"), ListeningRequest::new(Encoding::Mulaw)).await.unwrap();
    assert_eq!(served.report.model.to_string(), "openai/gpt-transcribe");
    assert_eq!(served.report.tried[0].fault, Fault::ServerError);
    let mut listening = Tape::new(served.value);
    let pieces = speech("one two three", Encoding::Mulaw, 1_000).await;
    let ms = pieces.len() as u64 * 20;
    listening.feed(pieces.into_iter().map(ListeningCommand::Audio)).await;
    assert_eq!(turn(&mut listening).await.0, "one two three");
    // Hanging up is the usual end.
    drop(listening);
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert_eq!((entry.outcome, entry.tried.len()), (Outcome::Done, 1));
    assert!(entry.usage.audio_ms.abs_diff(ms) < 25, "{} {ms}", entry.usage.audio_ms);
    soon(bench.server.sockets_closed()).await;
}

#[tokio::test]
async fn a_speaker_falls_back_to_this_machine() {
    let bench = Bench::new(Options::default(), &tasks()).await;
    let one = Utterance(1);
    for refused in [false, true] {
        let fault = if refused { LiveFault::refuse(429) } else { LiveFault::default() };
        bench.server.set_live_faults(LiveFaults::all(fault));
        let request = SpeakingRequest::new(Encoding::Mulaw);
        let served = bench.gateway.open_speaker(&for_task("mouth"), request).await.unwrap();
        assert_eq!(served.report.model.provider.as_str(), if refused { "offline" } else { "cartesia" });
        let mut speaking = Tape::new(served.value);
        speaking.send(SpeakingCommand::Text(one, "Good evening.".into()));
        speaking.send(SpeakingCommand::End(one));
        let (audio, _) = utterance(&mut speaking, one).await;
        assert!(!audio.is_empty());
        if !refused {
            assert_eq!(words(&audio, Encoding::Mulaw).join(" "), "Good evening.");
        }
        speaking.send(SpeakingCommand::Finish);
        while !matches!(speaking.event().await, SpeakingEvent::Finished(_)) {}
        assert!(soon(speaking.live.next()).await.is_none());
    }
    let entries = soon(bench.book.entries(2)).await;
    assert!(entries.iter().all(|entry| entry.usage.characters >= 13), "{entries:?}");
}

#[tokio::test]
async fn a_session_that_fails_is_recorded_as_failed() {
    let bench = Bench::new(Options::default(), &tasks()).await;
    let served = bench.gateway.converse(&for_task("mind"), Mind::OpenAi.request()).await.unwrap();
    let mut session = served.value;
    bench.server.set_realtime_faults(Default::default());
    assert!(matches!(
        soon(session.next()).await,
        Some(Ok(longhouse_gateway::live::SessionEvent::Ready { .. }))
    ));
    session.send(longhouse_gateway::live::SessionCommand::Text("Are you there".into())).unwrap();
    loop {
        let event = soon(session.next()).await.unwrap().unwrap();
        if matches!(event, longhouse_gateway::live::SessionEvent::OutputDone { .. }) {
            break;
        }
    }
    // The vendor goes down.
    let server = bench.server;
    let stopped = tokio::spawn(server.stop());
    let error = loop {
        match soon(session.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.failure().is_some());
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert!(matches!(entry.outcome, Outcome::Failed(_)), "{:?}", entry.outcome);
    assert!(entry.usage.output_tokens > 0, "{:?}", entry.usage);
    drop(session);
    soon(stopped).await.unwrap();
}
