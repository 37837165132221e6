//! Upstream sessions that fail (T8, B19).

use std::time::Duration;

use serde_json::json;

use super::kit::*;
use crate::session::core::{Core, Effect};
use crate::session::{Ending, Settings};

fn fail_dials(world: &mut World, fatal: bool) {
    let mut waiting: Vec<u32> = world.dialling.drain().collect();
    waiting.sort_unstable();
    for generation in waiting {
        world.act(|core, now, out| core.dial_failed(now, generation, fatal, out));
    }
}

#[test]
fn a_service_that_is_down_is_tried_with_growing_pauses_and_then_given_up() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(Some("Hi."));
    for _ in 0..20_000 {
        fail_dials(&mut world, false);
        world.run(1);
    }
    let dials = world.dials();
    let pauses: Vec<u64> = dials.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(pauses[..4], [250, 500, 1_000, 2_000], "{pauses:?}");
    assert!(pauses[4..].iter().all(|p| *p == 2_000), "{pauses:?}");
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
    let end = world.log.last().unwrap().0.0;
    assert!((8_000..=10_500).contains(&end), "{end}");
}

#[test]
fn a_refusal_that_will_not_change_is_not_tried_again() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(Some("Hi."));
    fail_dials(&mut world, true);
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
    assert_eq!(world.dials().len(), 1);
}

#[test]
fn fatal_errors_end_the_call_and_others_do_not() {
    let cases = [
        ("insufficient_quota", true),
        ("invalid_api_key", true),
        ("beta_api_shape_disabled", true),
        ("model_not_found", true),
        ("session_expired", false),
        ("rate_limit_exceeded", false),
        ("invalid_value", false),
    ];
    for (code, fatal) in cases {
        let mut world = World::greeted(settings());
        world.server(
            json!({"type":"error","error":{"type":"invalid_request_error","code":code,"message":"m"}}),
        );
        world.run(3_000);
        let expected: &[Ending] = if fatal { &[Ending::UpstreamFailed] } else { &[] };
        assert_eq!(world.endings(), expected, "{code}");
        assert_eq!(world.dials().len(), if code == "session_expired" { 2 } else { 1 }, "{code}");
    }
}

#[test]
fn an_error_before_the_session_is_ready_brings_another_session() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(Some("Hi."));
    world.dialling.clear();
    world.open.insert(1);
    world.act(|core, now, out| core.dialled(now, 1, out));
    world.server_on(1, json!({"type":"session.created","session":{}}));
    world.obliging = true;
    world.server_on(1, json!({"type":"error","error":{"type":"server_error","code":null,"message":"m"}}));
    world.run(300);
    assert_eq!(world.dials().len(), 2);
    assert!(world.last_request().contains("Hi."));
}

#[test]
fn a_session_that_never_becomes_ready_is_replaced() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(Some("Hi."));
    world.dialling.clear();
    world.open.insert(1);
    world.act(|core, now, out| core.dialled(now, 1, out));
    world.run(4_900);
    assert_eq!(world.dials().len(), 1);
    world.obliging = true;
    world.run(500);
    assert_eq!(world.dials().len(), 2);
    assert_eq!(world.open.iter().copied().collect::<Vec<_>>(), [2], "the first was left open");
    // It opens after all: too late.
    world.open.insert(1);
    world.act(|core, now, out| core.dialled(now, 1, out));
    assert!(!world.open.contains(&1));
}

#[test]
fn a_session_lost_while_nobody_speaks_is_not_noticed_by_the_caller() {
    let mut world = World::greeted(settings());
    world.run(10_000);
    let at = world.now.0;
    world.lose(1);
    assert_eq!(world.dials().last(), Some(&at), "at once");
    assert_eq!(world.requests(), 1, "the agent speaks without reason");
    assert_eq!(world.told(2), ["assistant: Good morning."]);
}

#[test]
fn the_agent_goes_on_where_it_was_cut_off() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.caller_says("Tell me everything.");
    world.response("r");
    world.words("r", "We open at nine. We close at six on every day but");
    world.audio("r", 2_500);
    world.run(500);
    world.lose(1);
    assert!(world.last_request().contains("cut off"), "{}", world.last_request());
    let told = world.told(2);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[2].starts_with("assistant: We open at nine. We close"), "{told:?}");
    // Cutting in now must not name an item that the new session has never had.
    world.caller_speaks("u");
    assert_eq!(world.to_caller("clear"), 1);
    assert!(world.commands_of("conversation.item.truncate").is_empty());
}

#[test]
fn a_complete_item_of_a_lost_session_is_not_truncated_at_the_next() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.agent_says("r", "A long goodbye.", 4_000);
    world.run(500);
    world.lose(1);
    world.caller_speaks("u");
    assert_eq!(world.to_caller("clear"), 1);
    assert!(world.commands_of("conversation.item.truncate").is_empty());
}

#[test]
fn words_that_were_cut_off_by_an_outage_are_heard_by_the_next_session() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.caller_speaks("u");
    for _ in 0..100 {
        world.caller(&media(&ulaw(20)));
        world.run(20);
    }
    let asked = world.requests();
    world.lose(1);
    assert!(world.listened_ms(2) >= 2_000, "{}", world.listened_ms(2));
    assert_eq!(world.requests(), asked, "answered before the caller had finished");
}

#[test]
fn words_said_during_an_outage_are_heard_by_the_next_session() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.obliging = false;
    world.lose(1);
    for _ in 0..150 {
        world.caller(&media(&ulaw(20)));
        world.run(20);
    }
    world.obliging = true;
    fail_dials(&mut world, false);
    world.run(2_500);
    assert!(world.listened_ms(3) >= 3_000, "{}", world.listened_ms(3));
}

/// Committed and lost before the reply: either the next session hears it or it reads it, not both.
#[test]
fn an_unanswered_question_is_passed_on_once() {
    for transcribed in [false, true] {
        let mut world = World::greeted(settings());
        world.run(5_000);
        world.caller_speaks("u");
        for _ in 0..100 {
            world.caller(&media(&ulaw(20)));
            world.run(20);
        }
        world.caller_stops("u");
        if transcribed {
            world.transcribed_on(1, "u", "Are you open on Sunday?");
        }
        let asked = world.requests();
        world.lose(1);
        let read = world.told(2).iter().any(|t| t.contains("Sunday"));
        let heard = world.listened_ms(2) > 1_000;
        assert_eq!((read, heard), (transcribed, !transcribed));
        // What is heard the server answers of its own accord.
        assert_eq!(world.requests() - asked, usize::from(transcribed));
    }
}

#[test]
fn a_function_that_answers_during_an_outage_is_told_to_the_next_session() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.caller_says("What does it cost?");
    world.response("r");
    world.words("r", "One moment.");
    world.audio("r", 700);
    world.audio_done("r");
    world.call("r", "a", "search_knowledge", "{}");
    world.done("r", "completed");
    world.obliging = false;
    world.lose(1);
    let asked = world.requests();
    world.tool_answers("a", json!({"price":40}), None);
    world.run(1_000);
    world.obliging = true;
    fail_dials(&mut world, false);
    world.run(1_000);
    assert_eq!(
        world.told(3),
        [
            "assistant: Good morning.",
            "user: What does it cost?",
            "assistant: One moment.",
            "function_call: a",
            "function_call_output: a"
        ]
    );
    assert_eq!((world.requests() - asked, world.last_request()), (1, String::new()));
}

#[test]
fn a_function_that_answers_after_an_outage_is_told_once() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.caller_says("What does it cost?");
    world.response("r");
    world.call("r", "a", "search_knowledge", "{}");
    world.done("r", "completed");
    world.lose(1);
    let asked = world.requests();
    world.tool_answers("a", json!({"price":40}), None);
    let told = world.told(2);
    assert_eq!(told.iter().filter(|t| *t == "function_call: a").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|t| *t == "function_call_output: a").count(), 1, "{told:?}");
    assert_eq!(world.requests() - asked, 1);
}

#[test]
fn a_session_that_goes_silent_is_replaced() {
    let mut world = World::greeted(settings());
    world.run(5_000);
    world.caller_says("Hello?");
    world.run(7_900);
    assert_eq!(world.dials().len(), 1);
    world.run(200);
    assert_eq!(world.dials().len(), 2);
    assert!(world.told(2).contains(&"user: Hello?".to_owned()));
    assert_eq!(world.requests(), 2);
}

#[test]
fn sessions_that_break_as_soon_as_they_are_ready_are_not_dialled_for_ever() {
    let mut world = World::answered(settings(), Some("Hi."));
    for _ in 0..60_000 {
        if !world.endings().is_empty() {
            break;
        }
        world.run(100);
        if let Some(generation) = world.open.iter().next().copied() {
            world.lose(generation);
        }
    }
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
    assert!(world.dials().len() < 12, "{:?}", world.dials());
}

#[test]
fn an_outage_now_and_then_is_no_reason_to_give_up() {
    let mut world = World::greeted(settings());
    for _ in 0..50 {
        world.run(7_000);
        world.lose(world.newest());
        world.run(10);
    }
    assert!(world.endings().is_empty());
    assert_eq!(world.dials().len(), 51);
}

#[test]
fn a_model_that_only_fails_is_given_up() {
    let mut world = World::answered(settings(), Some("Hi."));
    let mut failed = 0;
    while world.endings().is_empty() {
        failed += 1;
        assert!(failed < 20, "asked for ever");
        let id = format!("r{failed}");
        world.response(&id);
        world.done(&id, "failed");
        world.run(2_500);
    }
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
    assert_eq!(world.dials().len(), 2, "another session was not tried");
}

#[test]
fn a_response_that_fails_once_is_asked_for_again() {
    let mut world = World::greeted(settings());
    world.caller_says("Hello?");
    world.response("r");
    let asked = world.requests();
    world.done("r", "failed");
    assert_eq!(world.requests(), asked + 1);
    world.agent_says("s", "Hello.", 500);
    world.run(600);
    assert!(world.endings().is_empty());
}

#[test]
fn a_response_that_fails_for_want_of_money_ends_the_call() {
    let mut world = World::answered(settings(), Some("Hi."));
    world.response("r");
    world.server(json!({"type":"response.done","response":{"id":"r","status":"failed",
        "status_details":{"type":"failed","error":{"type":"insufficient_quota","code":"insufficient_quota"}}}}));
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
}

#[test]
fn items_without_an_end_do_not_haunt_later_sessions() {
    let mut world = World::greeted(settings());
    for i in 0..20 {
        let id = format!("r{i}");
        world.caller_says("Hm.");
        world.response(&id);
        world.words(&id, "This will never end");
        world.audio(&id, 300);
        world.done(&id, "incomplete"); // a limit, and no end of the item's audio
        world.run(700);
    }
    world.lose(1);
    let told = world.told(2);
    assert_eq!(told.last().unwrap(), "assistant: This", "{told:?}");
    assert!(told.len() <= 41);
}

#[test]
fn a_tool_and_a_session_that_fail_at_one_moment_leave_one_ending() {
    let settings = Settings {
        outage_budget: Duration::from_millis(1),
        tool_timeout: Duration::from_secs(5),
        ..settings()
    };
    let mut world = World::greeted(settings);
    world.response("r");
    world.call("r", "a", "search_knowledge", "{}");
    world.done("r", "completed");
    world.obliging = false;
    world.lose(1);
    world.run(60);
    world.dialling.clear();
    world.open.insert(2);
    world.act(|core, now, out| core.dialled(now, 2, out));
    // The session's and the tool's time are over; the tick comes late.
    world.now = world.now + Duration::from_secs(20);
    world.act(Core::tick);
    assert_eq!(world.endings(), [Ending::UpstreamFailed]);
    assert!(matches!(world.log.last().unwrap().1, Effect::Finish(_)));
}
