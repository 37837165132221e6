//! How calls begin and end.

use std::time::Duration;

use serde_json::json;

use super::kit::*;
use crate::session::core::{Core, Effect};
use crate::session::{Ending, Entry, Millis, Resumed, Settings};
use crate::upstreams::realtime::HistoryItem;

#[test]
fn a_socket_that_never_starts_is_closed_and_opens_nothing() {
    let mut world = World::new(settings());
    world.caller(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
    for text in ["", "garbage", r#"{"event":"future"}"#, r#"{"event":"mark","mark":{"name":"0"}}"#] {
        world.caller(text);
    }
    world.caller(&media(&ulaw(20)));
    world.leap(Duration::from_secs(6));
    assert_eq!(world.endings(), [Ending::Refused]);
    assert_eq!(world.dials(), [] as [u64; 0]);
}

#[test]
fn audio_that_is_not_a_telephones_is_refused() {
    let mut world = World::new(settings());
    world.caller(&start().replace("audio/x-mulaw", "audio/l16"));
    assert_eq!(world.endings(), [Ending::Refused]);
}

#[test]
fn no_upstream_is_opened_before_the_application_admits_the_call() {
    let mut world = World::new(settings());
    world.caller(&start());
    world.run(100);
    assert!(world.dials().is_empty());
    world.act(Core::refused);
    assert!(world.dials().is_empty());
    assert_eq!(world.endings(), [Ending::Refused]);
}

#[test]
fn a_second_start_changes_nothing() {
    let mut world = World::greeted(settings());
    let before = world.log.len();
    world.caller(&start().replace("MZ1", "MZ2"));
    assert_eq!(world.log.len(), before);
    assert_eq!(world.core.counters().unknown_events, 1);
}

/// B18: `stop` is final whatever the phase.
#[test]
fn stop_ends_every_phase_at_once_and_nothing_follows() {
    type Reach = fn(&mut World);
    let phases: [(&str, Reach); 6] = [
        ("before start", |_| {}),
        ("while admitting", |w| w.caller(&start())),
        ("while dialling", |w| {
            w.obliging = false;
            w.caller(&start());
            w.admit(Some("Hi."));
        }),
        ("while greeting", |w| {
            w.caller(&start());
            w.admit(Some("Hi."));
            w.response("r");
            w.audio("r", 500);
        }),
        ("while a tool runs", |w| {
            w.caller(&start());
            w.admit(None);
            w.response("r");
            w.call("r", "c", "search", "{}");
            w.done("r", "completed");
        }),
        ("during an outage", |w| {
            w.caller(&start());
            w.admit(None);
            w.obliging = false;
            w.lose(1);
        }),
    ];
    for (phase, reach) in phases {
        let mut world = World::new(settings());
        reach(&mut world);
        world.hang_up();
        assert_eq!(world.endings(), [Ending::CallerHungUp], "{phase}");
        assert!(world.open.is_empty(), "{phase}: an upstream session was left open");
        // Whatever else arrives: `act` refuses any effect after the end.
        world.hang_up();
        world.caller(&media(&ulaw(20)));
        world.caller(r#"{"event":"dtmf","dtmf":{"digit":"1"}}"#);
        world.admit(Some("Hi."));
        world.act(|core, now, out| core.dialled(now, 1, out));
        world.act(|core, now, out| core.dial_failed(now, 1, true, out));
        world.act(|core, now, out| core.upstream_lost(now, 1, "closed", out));
        world.act(|core, now, out| core.upstream_message(now, 1, r#"{"type":"session.updated"}"#, out));
        world.act(|core, now, out| core.hand_over(now, now, out));
        world.act(Core::caller_lost);
        world.act(Core::refused);
        world.tool_answers("c", json!({}), None);
        world.act(Core::tick);
        assert_eq!(world.core.next_deadline(world.now), None, "{phase}");
    }
}

#[test]
fn a_connection_that_breaks_is_told_from_a_caller_who_hangs_up() {
    let mut world = World::greeted(settings());
    world.act(Core::caller_lost);
    assert_eq!(world.endings(), [Ending::ConnectionLost]);
}

/// B8, B9: the greeting waits for `start` and a configured session, and is asked for once.
#[test]
fn the_greeting_is_spoken_exactly_once() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(Some("Good morning, Salon Rose."));
    world.act(|core, now, out| core.dialled(now, 1, out));
    world.open.insert(1);
    world.server_on(1, json!({"type":"session.created","session":{}}));
    assert_eq!(world.requests(), 0);
    world.server_on(1, json!({"type":"session.updated","session":{}}));
    assert_eq!(world.requests(), 1);
    assert!(world.last_request().contains("Good morning, Salon Rose."));
    world.server_on(1, json!({"type":"session.updated","session":{}}));
    world.agent_says("g", "Good morning, Salon Rose.", 1_000);
    world.run(1_500);
    world.caller_says("Hello.");
    world.agent_says("r", "How can I help?", 800);
    world.run(1_000);
    world.lose(1);
    assert_eq!(world.requests(), 1, "{:?}", world.commands_of("response.create"));
}

#[test]
fn a_greeting_that_was_lost_before_its_first_sound_is_spoken_by_the_next_session() {
    let mut world = World::answered(settings(), Some("Good morning."));
    world.response("g");
    world.lose(1);
    world.run(300);
    assert_eq!(world.requests(), 2);
    assert!(world.last_request().contains("Good morning."), "{}", world.last_request());
}

#[test]
fn without_a_greeting_the_agent_waits_for_the_caller() {
    let mut world = World::answered(settings(), None);
    world.leap(Duration::from_secs(60));
    assert_eq!(world.requests(), 0);
}

#[test]
fn what_was_heard_before_the_greeting_is_not_kept_for_the_rest_of_the_call() {
    let mut world = World::new(settings());
    world.caller(&start());
    for _ in 0..250 {
        world.caller(&media(&ulaw(20)));
    }
    world.admit(Some("Hi."));
    assert_eq!(world.listened_ms(1), 5_000);
    world.agent_says("g", "Hi.", 500);
    world.run(6_000);
    world.lose(1);
    assert!(world.listened_ms(2) <= 600, "{}", world.listened_ms(2));
}

#[test]
fn what_is_said_before_the_session_is_ready_is_heard_in_order_up_to_five_seconds() {
    for (seconds, kept) in [(2_u64, 2_000), (9, 5_000)] {
        let mut world = World::new(settings());
        world.obliging = false;
        world.caller(&start());
        world.admit(None);
        let frames = seconds * 50;
        for i in 0..frames {
            let frame = base64_simd::STANDARD.encode_to_string([(i % 251) as u8; 160]);
            world.caller(&media(&frame));
        }
        world.act(|core, now, out| core.dialled(now, 1, out));
        world.open.insert(1);
        world.server_on(1, json!({"type":"session.created","session":{}}));
        assert_eq!(world.listened_ms(1), 0);
        world.server_on(1, json!({"type":"session.updated","session":{}}));
        assert_eq!(world.listened_ms(1), kept);
        let appended = world.log.iter().find_map(|(_, e)| match e {
            Effect::ToUpstream { text, .. } if text.contains("append") => Some(text.clone()),
            _ => None,
        });
        let event: serde_json::Value = serde_json::from_str(&appended.unwrap()).unwrap();
        let audio = base64_simd::STANDARD.decode_to_vec(event["audio"].as_str().unwrap()).unwrap();
        let expected: Vec<u8> = (frames - kept / 20..frames).flat_map(|i| [(i % 251) as u8; 160]).collect();
        assert!(audio == expected, "not the last {kept} ms in order");
        // From here on frame by frame.
        world.caller(&media(&ulaw(20)));
        assert_eq!(world.listened_ms(1), kept + 20);
    }
}

/// B11: the server answers turns by itself.
#[test]
fn a_turn_of_the_caller_is_answered_once_and_not_at_our_request() {
    let mut world = World::greeted(settings());
    let asked = world.requests();
    world.caller_says("What does a cut cost?");
    world.agent_says("r", "Forty dollars.", 900);
    world.run(1_200);
    assert_eq!(world.requests(), asked);
    assert_eq!(
        world.transcript(),
        ["Agent: Good morning.", "Caller: What does a cut cost?", "Agent: Forty dollars."]
    );
}

#[test]
fn our_request_that_meets_the_servers_own_response_is_made_again_afterwards() {
    let mut world = World::greeted(settings());
    world.caller(r#"{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"0"}}"#);
    let asked = world.requests();
    world.response("vad");
    world.server(json!({"type":"error","error":{"type":"invalid_request_error",
        "code":"conversation_already_has_active_response","message":"no"}}));
    assert_eq!(world.requests(), asked);
    world.done("vad", "completed");
    assert_eq!(world.requests(), asked + 1);
    assert!(world.endings().is_empty());
}

#[test]
fn a_key_pressed_during_an_outage_is_not_lost() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.obliging = false;
    world.lose(1);
    world.caller(r#"{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"0"}}"#);
    world.obliging = true;
    world.act(|core, now, out| core.dial_failed(now, 2, false, out));
    world.run(3_000);
    assert!(world.told(3).iter().any(|t| t.contains("pressed the 0 key")), "{:?}", world.told(3));
    assert_eq!(world.last_request(), "");
    assert_eq!(world.requests(), 2);
}

#[test]
fn nobody_who_answers_hears_a_goodbye_after_the_third_silence() {
    let mut world = World::greeted(settings());
    for i in 0..3 {
        world.server(json!({"type":"input_audio_buffer.timeout_triggered","item_id":"x"}));
        world.run(50);
        assert!(world.endings().is_empty());
        world.agent_says(&format!("idle-{i}"), "Are you still there?", 700);
        world.run(900);
    }
    assert!(world.last_request().contains("goodbye"), "{}", world.last_request());
    assert!(world.endings().is_empty(), "ended without a goodbye");
    world.agent_says("bye", "Goodbye.", 600);
    world.run(500);
    assert!(world.endings().is_empty(), "hung up before the goodbye was heard");
    world.run(200);
    assert_eq!(world.endings(), [Ending::AgentEnded]);
}

#[test]
fn a_caller_who_speaks_after_all_stays_on_the_line() {
    let mut world = World::greeted(settings());
    for i in 0..3 {
        world.server(json!({"type":"input_audio_buffer.timeout_triggered","item_id":"x"}));
        if i < 2 {
            world.agent_says(&format!("idle-{i}"), "Are you still there?", 700);
            world.run(900);
        }
    }
    world.caller_says("Sorry, I am back.");
    world.agent_says("r", "Welcome back.", 700);
    world.run(25_000);
    assert!(world.endings().is_empty());
}

#[test]
fn the_longest_call_ends_with_a_goodbye_that_is_heard() {
    let settings = Settings { max_duration: Duration::from_secs(60), ..settings() };
    let mut world = World::greeted(settings);
    world.run(57_000);
    // The agent is in the middle of something when time is up.
    world.response("r");
    world.audio("r", 4_000);
    world.run(2_500);
    world.audio_done("r");
    world.done("r", "completed");
    assert!(world.last_request().contains("goodbye"), "{}", world.last_request());
    world.agent_says("bye", "Goodbye.", 1_000);
    world.run(2_000);
    assert!(world.endings().is_empty());
    world.run(1_500);
    assert_eq!(world.endings(), [Ending::TimeLimit]);
}

#[test]
fn the_health_line_comes_every_thirty_seconds() {
    let mut world = World::greeted(settings());
    world.leap(Duration::from_secs(301));
    let alive: Vec<u64> = world
        .log
        .iter()
        .filter(|(_, e)| matches!(e, Effect::Record(Entry::Alive)))
        .map(|(at, _)| at.0)
        .collect();
    assert_eq!(alive, (1..=10).map(|i| i * 30_000).collect::<Vec<_>>());
}

#[test]
fn unknown_and_unreadable_events_are_counted_and_change_nothing() {
    let mut world = World::greeted(settings());
    let before = world.log.len();
    for text in
        [r#"{"type":"response.function_call.arguments.done"}"#, r#"{"type":"response.brand_new","x":1}"#]
    {
        world.act(|core, now, out| core.upstream_message(now, 1, text, out));
    }
    for text in ["", "[]", r#"{"type":"response.output_audio.delta"}"#, r#"{"type":7}"#] {
        world.act(|core, now, out| core.upstream_message(now, 1, text, out));
    }
    world.caller(r#"{"event":"media","media":{"payload":"***"}}"#);
    assert_eq!(world.log.len(), before);
    let counters = world.core.counters();
    assert_eq!((counters.unknown_events, counters.malformed), (2, 5));
}

#[test]
fn a_stopping_server_hands_over_when_nobody_speaks() {
    let mut world = World::greeted(settings());
    world.response("r");
    world.words("r", "We open at nine.");
    world.audio("r", 2_000);
    world.run(500);
    let latest = world.now + Duration::from_secs(30);
    world.act(|core, now, out| core.hand_over(now, latest, out));
    world.audio_done("r");
    world.done("r", "completed");
    world.run(1_300);
    assert!(world.endings().is_empty(), "cut off mid-sentence");
    world.run(300);
    assert_eq!(world.endings(), [Ending::HandedOver]);
    assert_eq!(world.transcript().last().unwrap(), "Agent: We open at nine.");
}

#[test]
fn a_stopping_server_does_not_wait_for_ever() {
    let mut world = World::greeted(settings());
    world.caller_speaks("u");
    let latest = world.now + Duration::from_secs(5);
    world.act(|core, now, out| core.hand_over(now, latest, out));
    world.run(4_900);
    assert!(world.endings().is_empty());
    world.run(200);
    assert_eq!(world.endings(), [Ending::HandedOver]);
}

#[test]
fn a_call_that_was_handed_over_goes_on_where_it_was() {
    let mut world = World::new(settings());
    world.caller(&start());
    world.resume(Resumed {
        history: vec![
            HistoryItem::Agent("Good morning.".into()),
            HistoryItem::Caller("Are you open?".into()),
        ],
        next_ordinal: 7,
        elapsed: Duration::from_secs(60),
    });
    assert_eq!(world.told(1), ["assistant: Good morning.", "user: Are you open?"]);
    assert_eq!(world.requests(), 1);
    assert!(world.last_request().contains("Apologise"));
    world.agent_says("r", "Sorry, yes we are.", 900);
    world.run(1_000);
    let turn = world.turns()[0];
    assert_eq!((turn.ordinal, turn.started), (7, Millis(60_000)));
    assert_eq!(world.core.since_call_began(world.now), world.now + Duration::from_secs(60));
}
