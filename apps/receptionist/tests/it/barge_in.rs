//! T6: the caller cuts in during a long reply that arrived much faster than it is spoken.

use std::time::Duration;

use longhouse_emulators::openai::Rule;
use longhouse_emulators::speech::Speaker;
use longhouse_emulators::twilio::{CallReport, Caller, Step};

use crate::harness::{Setup, TestApp, reply, say};

const LONG: &str = "We can cut and colour and curl and braid and wash and dry and trim and shape your hair, and we can \
                    also do beards and brows and nails and make up and much more on any day that suits you well.";
const APOLOGY: &str = "Sorry, go on.";

/// When each caller cuts in, and the word by which the model's record of the call is found.
const CALLS: [(u32, &str); 8] = [
    (300, "alpha"),
    (900, "bravo"),
    (1_700, "charlie"),
    (2_600, "delta"),
    (3_900, "echo"),
    (5_200, "foxtrot"),
    (6_100, "golf"),
    (7_700, "hotel"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_cuts_in_is_heard_and_the_agent_stops() {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![Rule::say(&["services"], LONG), Rule::say(&["stop"], APOLOGY)];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    let calls = CALLS.map(|(heard_ms, name)| {
        let mut call = app.quick_call(vec![
            say(&format!("Services {name}")),
            Step::InterruptAfter { heard_ms },
            say("Stop please"),
            reply(),
            Step::Hangup,
        ]);
        call.record_limit = Duration::from_secs(30);
        Caller::new(call).run()
    });
    let reports = futures_util::future::join_all(calls).await;

    let sessions = app.upstream.sessions();
    let mut stops = Vec::new();
    for ((moment, name), report) in CALLS.into_iter().zip(reports) {
        let report = report.unwrap();
        assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
        assert_eq!(report.streams[0].messages_received.clear, 1, "one clear at {moment} ms");
        stops.extend_from_slice(&report.barge_in_stops_ms);

        app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
        let turns = app.turns(&report.call_sid).await;
        let [(_, asked, _), (_, stored, true), (_, stop, false), (_, apology, false)] = &turns[..] else {
            panic!("caller, agent (cut), caller, agent expected at {moment} ms: {turns:?}");
        };
        assert_eq!(*asked, format!("Services {name}"));
        assert_eq!((stop.as_str(), apology.as_str()), ("Stop please", APOLOGY));

        // Late audio did not come through, and what is stored is what was heard.
        let heard = report.heard_text();
        let heard = heard.strip_suffix(APOLOGY).unwrap_or_else(|| panic!("{moment} ms: {heard}")).trim();
        assert!(LONG.starts_with(heard), "{heard}");
        assert!(LONG.starts_with(stored.as_str()), "{stored}");
        let words = |text: &str| text.split_whitespace().count();
        assert!(
            words(heard).abs_diff(words(stored)) <= 1,
            "at {moment} ms heard {heard:?}, stored {stored:?}"
        );

        // The model forgets what the caller did not hear, to the twenty-fifth of a second.
        let session = sessions.iter().find(|s| s.heard.iter().any(|word| word.text == name)).unwrap();
        assert_eq!(session.errors, []);
        assert_eq!(session.said.len(), 2);
        let truncated = session.said[0].truncated_ms.unwrap();
        let (least, most) = played_ms(&report).await;
        assert!(
            (least.saturating_sub(40)..=most + 40).contains(&truncated),
            "at {moment} ms: truncated at {truncated} ms, heard {least} to {most} ms"
        );
        assert!(session.said[0].audio_ms < 12_000 && session.said[0].audio_ms > truncated + 500);
    }
    // From the caller's first sound, so with the detector's 64 ms.
    stops.sort_unstable();
    assert_eq!(stops.len(), CALLS.len());
    assert!(stops[CALLS.len() - 1] <= 300, "silent after {stops:?} ms");
}

/// Milliseconds of the long reply that the caller heard: at least and at most, because it pauses between words.
async fn played_ms(report: &CallReport) -> (u32, u32) {
    let audible = |sample: &i16| sample.unsigned_abs() > 200;
    let said = Speaker::tone().say(LONG).await;
    let heard = report.heard();
    let lead = said.samples.iter().position(audible).unwrap();
    let start = heard.iter().position(audible).unwrap() - lead;
    let mut least = 0;
    for (at, _) in said.samples.iter().enumerate().filter(|(_, sample)| audible(sample)) {
        if heard.get(start + at).is_none_or(|sample| *sample == 0) {
            return (least / 8, at as u32 / 8);
        }
        least = at as u32;
    }
    panic!("the reply was heard to its end");
}
