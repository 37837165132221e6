//! T5: audio goes through byte for byte, in both directions, for one call and for many.

use std::time::Duration;

use bytes::Bytes;
use longhouse_emulators::openai::{Rule, SessionRecord};
use longhouse_emulators::twilio::{CallReport, Caller, Step};

use crate::harness::{Setup, TestApp, reply, say};

const FRAME: usize = 160;

/// Every byte value, in bursts too short to be taken for speech, and different for each `call`.
fn every_byte(call: usize) -> Bytes {
    let mut ulaw = Vec::new();
    for round in 0..4 {
        ulaw.extend((0..=255_u8).map(|value| value.wrapping_mul(2 * (call % 100) as u8 + 1).wrapping_add(round)));
        ulaw.extend((call as u16).to_be_bytes());
        ulaw.resize(ulaw.len().next_multiple_of(FRAME) + 8 * FRAME, 0xFF);
    }
    ulaw.into()
}

fn setup() -> Setup {
    let mut setup = Setup::quick();
    setup.upstream.record_audio = true;
    setup.upstream.rules = vec![Rule::say(
        &["number"],
        "You said {{user}} and I say so too, because it is my task to talk for a while about nothing at all.",
    )];
    setup
}

/// The caller's bytes reached the model from the first one on, and the model's reached the caller.
fn assert_bit_exact(report: &CallReport, session: &SessionRecord) {
    let (sent, got) = (&report.sent_ulaw, &session.audio_in);
    assert_eq!(sent.iter().zip(got).position(|(a, b)| a != b), None, "the caller's audio was changed");
    // What was under way when the caller hung up is all that may be missing.
    assert!(got.len() <= sent.len() && sent.len() - got.len() <= 25 * FRAME, "{} of {}", got.len(), sent.len());
    assert!(session.audio_out.len() > 2 * 8_000);
    let (said, heard) = (&session.audio_out, &report.received_ulaw);
    let differs = said.iter().zip(heard).position(|(a, b)| a != b);
    assert_eq!((differs, heard.len()), (None, said.len()), "the agent's audio was changed");
    assert_eq!(session.errors, []);
    assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_passes_unchanged_from_the_first_on() {
    let app = TestApp::with(setup()).await;
    // No wait first: this goes on while the session is being opened and while the greeting plays.
    let mut call = app.quick_call(vec![
        Step::PlayUlaw(every_byte(0)),
        reply(),
        say("number one"),
        reply(),
        Step::PlayUlaw(every_byte(0)),
        Step::Hangup,
    ]);
    call.keep_ulaw = true;
    let report = Caller::new(call).run().await.unwrap();

    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 1);
    assert_bit_exact(&report, &sessions[0]);
    for value in 0..=255_u8 {
        assert!(sessions[0].audio_in.contains(&value), "{value} was not tried");
    }
    assert!(report.heard_text().contains("You said number one"), "{}", report.heard_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_pass_unchanged_in_bounded_memory() {
    const CALLS: usize = 200;
    let mut setup = setup();
    setup.upstream.delta_gap = Duration::from_millis(100);
    let app = TestApp::with(setup).await;
    app.set_agent(Some("Marigold here, hello!"), None).await;
    let before = resident_bytes();
    let calls = (0..CALLS).map(|index| {
        let mut call = app.quick_call(vec![
            Step::PlayUlaw(every_byte(index)),
            reply(),
            say(&format!("number {index}")),
            Step::reply(),
            Step::Hangup,
        ]);
        call.captions = false;
        call.keep_ulaw = true;
        async move {
            // People do not call in the same millisecond.
            tokio::time::sleep(Duration::from_millis(20) * index as u32).await;
            Caller::new(call).run().await.unwrap()
        }
    });
    let reports = tokio::spawn(futures_util::future::join_all(calls.collect::<Vec<_>>())).await.unwrap();
    let grown = resident_bytes().saturating_sub(before);

    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), CALLS);
    let mut kept = 0;
    for (index, report) in reports.iter().enumerate() {
        assert_eq!(report.unanswered, 0, "call {index}");
        assert_eq!(report.streams[0].frames_dropped, 0, "call {index}");
        let played = every_byte(index);
        let own = sessions.iter().find(|s| s.audio_in.windows(256).take(8_000).any(|w| *w == played[..256]));
        assert_bit_exact(report, own.unwrap_or_else(|| panic!("no session heard call {index}")));
        kept += 2 * (report.sent_ulaw.len() + report.received_ulaw.len());
    }
    // Callers and model run in this process too; the audio that they keep for this test is not counted.
    let each = grown.saturating_sub(kept) / CALLS;
    eprintln!("{} KiB a call, kept {} KiB", each / 1024, kept / 1024);
    assert!(each < 400 * 1024, "{} KiB a call", each / 1024);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}
