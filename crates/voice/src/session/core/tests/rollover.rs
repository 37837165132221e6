//! The upstream cap: another session takes over (T8, B20).

use std::time::Duration;

use serde_json::json;

use super::kit::*;
use crate::session::{Millis, Settings};

const CAP: Duration = Duration::from_secs(600);

fn capped() -> Settings {
    Settings { session_cap: CAP, ..settings() }
}

fn summary(world: &mut World, generation: u32, text: &str) {
    let metadata = json!({"purpose":"handover-summary"});
    world.server_on(
        generation,
        json!({"type":"response.created","response":{"id":"sum","metadata":metadata}}),
    );
    world.server_on(
        generation,
        json!({"type":"response.done","response":{"id":"sum","status":"completed",
        "metadata":metadata,"output":[{"type":"message","content":[{"type":"output_text","text":text}]}]}}),
    );
}

fn summaries_asked(world: &World) -> usize {
    world.commands_of("response.create").iter().filter(|e| !e["response"]["metadata"].is_null()).count()
}

/// A call shortly before its session is renewed.
fn near_renewal() -> World {
    let mut world = World::greeted(capped());
    world.leap(Duration::from_secs(355));
    assert_eq!(world.dials().len(), 1);
    world
}

#[test]
fn the_next_session_is_ready_long_before_the_cap_and_knows_the_call() {
    let mut world = near_renewal();
    world.caller_says("I am Ada.");
    world.agent_says("r", "Hello Ada.", 600);
    world.run(1_000);
    world.leap(Duration::from_secs(5));
    assert_eq!(world.dials().len(), 2);
    assert_eq!(summaries_asked(&world), 1);
    // Quiet, but the summary is awaited.
    assert!(world.told(2).is_empty());
    summary(&mut world, 1, "Ada called.");
    assert_eq!(
        world.told(2),
        [
            "system: The call so far: Ada called.",
            "assistant: Good morning.",
            "user: I am Ada.",
            "assistant: Hello Ada."
        ]
    );
    let asked = world.requests();
    // The old one is kept for what it still owes, then closed.
    world.run(2_500);
    assert!(world.open.contains(&1));
    world.run(1_000);
    assert!(!world.open.contains(&1));
    assert_eq!((world.requests(), summaries_asked(&world)), (asked, 1));
    world.caller_says("Still there?");
    world.agent_says("s", "Yes.", 300);
    world.run(500);
    assert_eq!(world.transcript().last().unwrap(), "Agent: Yes.");
}

#[test]
fn a_summary_that_never_comes_does_not_stop_the_takeover() {
    let mut world = near_renewal();
    world.leap(Duration::from_secs(30));
    assert_eq!(world.told(2), ["assistant: Good morning."]);
}

#[test]
fn the_switch_waits_for_the_end_of_a_turn() {
    let mut world = near_renewal();
    world.caller_speaks("u");
    world.leap(Duration::from_secs(20));
    summary(&mut world, 1, "A caller.");
    assert_eq!(world.dials().len(), 2);
    assert!(world.told(2).is_empty(), "switched while the caller spoke");
    world.server_on(1, json!({"type":"input_audio_buffer.speech_stopped","item_id":"u"}));
    world.server_on(1, json!({"type":"input_audio_buffer.committed","item_id":"u"}));
    world.transcribed_on(1, "u", "Are you open?");
    world.server_on(1, json!({"type":"response.created","response":{"id":"r"}}));
    world.server_on(1, json!({"type":"response.output_audio_transcript.delta","response_id":"r","item_id":"i","delta":"Yes."}));
    world.server_on(
        1,
        json!({"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":ulaw(900)}),
    );
    world.server_on(1, json!({"type":"response.output_audio.done","response_id":"r","item_id":"i"}));
    world.server_on(1, json!({"type":"response.done","response":{"id":"r","status":"completed"}}));
    world.run(800);
    assert!(world.told(2).is_empty(), "switched before the reply was heard");
    world.run(200);
    assert_eq!(world.told(2).last().unwrap(), "assistant: Yes.");
    assert_eq!(world.requests(), 1, "only the greeting was ever asked for");
}

#[test]
fn a_caller_who_talks_through_the_cap_is_heard_by_the_next_session() {
    let mut world = near_renewal();
    world.caller_speaks("u");
    world.leap(Duration::from_secs(180));
    for _ in 0..200 {
        world.caller(&media(&ulaw(20)));
        world.run(20);
    }
    let asked = world.requests();
    world.leap(Duration::from_secs(10)); // past the moment of the forced switch
    assert!(world.listened_ms(2) >= 4_000, "{}", world.listened_ms(2));
    assert_eq!(world.requests(), asked, "answered in mid-sentence");
    // The old session's words for that turn come too late: the new one hears and writes them.
    world.transcribed_on(1, "u", "Half a sent");
    world.caller_speaks("v");
    world.caller_stops("v");
    world.transcribed_on(2, "v", "Half a sentence and the rest.");
    assert_eq!(world.transcript(), ["Agent: Good morning.", "Caller: Half a sentence and the rest."]);
}

#[test]
fn words_that_the_relieved_session_owes_are_stored_in_their_place() {
    let mut world = near_renewal();
    world.caller_speaks("u");
    world.run(500);
    world.caller_stops("u"); // transcription is slow today
    world.agent_says("r", "Nine to six.", 600);
    world.run(700);
    world.leap(Duration::from_secs(5));
    summary(&mut world, 1, "A caller.");
    world.caller_speaks("w"); // and goes on and on
    world.leap(Duration::from_secs(600 - 400));
    let told = world.told(2);
    assert!(!told.is_empty(), "not switched");
    world.run(1_000);
    world.transcribed_on(1, "u", "When are you open?");
    assert_eq!(
        world.transcript(),
        ["Agent: Good morning.", "Caller: When are you open?", "Agent: Nine to six."]
    );
}

#[test]
fn a_function_that_finishes_across_the_switch_is_delivered_once() {
    let mut world = near_renewal();
    world.caller_says("What does it cost?");
    world.response("r");
    world.call("r", "a", "search_knowledge", "{}");
    world.done("r", "completed");
    // Forced: the session is lost as soon as the next is ready.
    world.leap(Duration::from_secs(6));
    assert_eq!(world.dials().len(), 2);
    world.lose(1);
    world.tool_answers("a", json!({"price":40}), None);
    let told = world.told(2);
    for item in ["function_call: a", "function_call_output: a"] {
        assert_eq!(told.iter().filter(|t| *t == item).count(), 1, "{told:?}");
    }
    assert_eq!(world.outputs().len(), 1);
}

#[test]
fn a_next_session_that_fails_is_dialled_again_while_the_old_one_works() {
    let mut world = near_renewal();
    world.obliging = false;
    world.leap(Duration::from_secs(10));
    assert_eq!(world.dials().len(), 2);
    world.dialling.clear();
    world.act(|core, now, out| core.dial_failed(now, 2, true, out));
    assert!(world.endings().is_empty());
    world.obliging = true;
    world.leap(Duration::from_secs(60));
    assert_eq!(world.dials().len(), 3);
    assert_eq!(world.told(3), ["assistant: Good morning."]);
}

#[test]
fn sessions_relieved_in_quick_succession_are_all_closed() {
    let mut world = World::greeted(Settings { session_cap: Duration::from_secs(4), ..settings() });
    for i in 0..20 {
        let generation = world.newest();
        world.leap(Duration::from_millis(1_000));
        if i % 3 == 0 {
            summary(&mut world, generation.max(2) - 1, "A caller.");
        }
    }
    world.leap(Duration::from_secs(4));
    assert!(world.open.len() <= 3, "{:?}", world.open);
}

#[test]
fn the_servers_own_word_on_its_life_is_taken() {
    let mut world = World::new(settings());
    world.obliging = false;
    world.caller(&start());
    world.admit(None);
    world.dialling.clear();
    world.open.insert(1);
    world.act(|core, now, out| core.dialled(now, 1, out));
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 100;
    world.server_on(1, json!({"type":"session.created","session":{"expires_at":soon}}));
    world.server_on(1, json!({"type":"session.updated","session":{}}));
    world.obliging = true;
    world.leap(Duration::from_secs(100));
    let second = world.dials()[1];
    assert!((58_000..=61_000).contains(&second), "{second}");
}

#[test]
fn a_day_on_the_telephone_takes_no_more_memory_than_an_hour() {
    let mut world = World::greeted(settings());
    let mut sizes = Vec::new();
    for hour in 0..24 {
        for minute in 0..60 {
            world.leap(Duration::from_secs(58));
            world.caller_says("And another thing, if you have a moment, about my appointment.");
            let id = format!("r-{hour}-{minute}");
            world.response(&id);
            world.words(&id, "Of course. Let me see.");
            world.audio(&id, 1_000);
            if minute % 10 == 0 {
                world.call(&id, &format!("c-{id}"), "search_knowledge", "{}");
            } else {
                world.audio_done(&id);
            }
            world.done(&id, "completed");
            if minute % 10 == 0 {
                world.tool_answers(&format!("c-{id}"), json!({"hours":"9-5"}), None);
                world.agent_says(&format!("{id}-b"), "Nine to five.", 800);
            }
            for _ in 0..10 {
                world.caller(&media(&ulaw(20)));
            }
            world.run(2_000);
        }
        sizes.push(format!("{:?}", world.core).len());
        world.log.retain(|(at, _)| *at + Duration::from_secs(3_600) > world.now);
    }
    assert!(world.endings().is_empty());
    assert!(world.core.counters().takeovers >= 24, "{:?}", world.core.counters());
    let (first, last) = (sizes[2], sizes[23]);
    assert!(last < first + first / 5, "{sizes:?}");
    assert!(world.open.len() <= 2);
    assert!(world.now > Millis(24 * 3_600_000));
}
