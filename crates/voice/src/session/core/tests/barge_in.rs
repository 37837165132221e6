//! The caller cuts in (T6, B23).

use std::time::Duration;

use serde_json::Value;

use super::kit::*;

/// A reply of ten seconds that arrives within one, as the vendor delivers it.
fn reply(world: &mut World, id: &str) {
    world.response(id);
    world.words(id, &"one two three four five six seven eight nine ten ".repeat(5));
    for _ in 0..50 {
        world.audio(id, 200);
        world.run(20);
    }
    world.audio_done(id);
}

fn truncations(world: &World) -> Vec<(String, u64)> {
    let all = world.commands_of("conversation.item.truncate");
    all.iter()
        .map(|e: &Value| (e["item_id"].as_str().unwrap().to_owned(), e["audio_end_ms"].as_u64().unwrap()))
        .collect()
}

/// Truncation names what the caller has heard when the clear arrives, whichever way the delay is.
#[test]
fn the_agent_stops_and_remembers_only_what_was_heard() {
    for (down, up, mute) in [(0, 0, false), (0, 120, false), (120, 0, false), (60, 60, false), (0, 0, true)] {
        for after in [90, 400, 1_730, 6_010] {
            if mute && after > 200 {
                continue; // a telephone that answers no marks has heard nothing for certain
            }
            let mut world = World::answered(settings(), None);
            (world.phone.down, world.phone.up, world.phone.mute) = (down, up, mute);
            world.act(|core, now, _| core.caller_round_trip(now, Duration::from_millis(down + up)));
            reply(&mut world, "r");
            let spent = world.now.0;
            if after > spent {
                world.run(after - spent);
            } else {
                // Cut in while the reply is still being delivered.
                world = World::answered(settings(), None);
                (world.phone.down, world.phone.up, world.phone.mute) = (down, up, mute);
                world.act(|core, now, _| core.caller_round_trip(now, Duration::from_millis(down + up)));
                world.response("r");
                world.words("r", &"one two three four five six ".repeat(8));
                world.audio("r", 5_000);
                world.run(after);
            }
            world.caller_speaks("u");
            assert_eq!(world.to_caller("clear"), 1);
            let case = format!("down {down} up {up} mute {mute} after {after}");
            // Late audio of that response is not played.
            let sent = world.to_caller("media");
            world.audio("r", 200);
            world.audio_done("r");
            world.done("r", "cancelled");
            world.run(2_000);
            assert_eq!(world.to_caller("media"), sent, "{case}");
            assert_eq!(world.core.counters().dropped_deltas, 1, "{case}");
            let [(item, at)] = &truncations(&world)[..] else { panic!("{:?}", truncations(&world)) };
            assert_eq!(item, "item-r");
            assert!(at.abs_diff(world.phone.heard_ms) <= 40, "{case}: {at} for {}", world.phone.heard_ms);
        }
    }
}

#[test]
fn marks_that_a_clear_flushes_are_not_words_that_were_heard() {
    let mut world = World::answered(settings(), None);
    world.phone.up = 80;
    reply(&mut world, "r");
    world.run(1_000);
    world.caller_speaks("u");
    world.run(5_000); // dozens of flushed marks come back
    world.done("r", "cancelled");
    let [turn] = &world.turns()[world.turns().len() - 1..] else { panic!() };
    assert!(turn.interrupted);
    let words = turn.text.split(' ').count();
    assert!((8..=12).contains(&words), "2 of 10 s were heard: {}", turn.text);
}

#[test]
fn both_of_two_queued_items_are_cut() {
    let mut world = World::answered(settings(), None);
    world.agent_says("a", "First the good news.", 1_000);
    world.agent_says("b", "Then the bad news.", 1_000);
    world.run(400);
    world.caller_speaks("u");
    let cut = truncations(&world);
    assert_eq!(cut.len(), 2, "{cut:?}");
    assert!(cut[0].0 == "item-a" && cut[0].1.abs_diff(400) <= 40, "{cut:?}");
    assert_eq!(cut[1], ("item-b".to_owned(), 0));
    assert_eq!(world.to_caller("clear"), 1);
    world.run(500);
    world.hang_up();
    assert_eq!(world.transcript().len(), 1, "{:?}", world.transcript());
}

#[test]
fn nothing_is_cut_when_everything_was_heard() {
    let mut world = World::greeted(settings());
    world.caller_says("Hello.");
    assert_eq!(world.to_caller("clear"), 0);
    assert!(truncations(&world).is_empty());
    assert_eq!(world.core.counters().barge_ins, 0);
    assert_eq!(world.transcript(), ["Agent: Good morning.", "Caller: Hello."]);
}

#[test]
fn a_reply_that_has_not_sounded_yet_never_will() {
    let mut world = World::greeted(settings());
    world.caller_says("I want");
    world.response("r");
    world.caller_speaks("more");
    let sent = world.to_caller("media");
    world.audio("r", 300);
    world.done("r", "cancelled");
    assert_eq!(world.to_caller("media"), sent);
    world.caller_stops("more");
    world.agent_says("s", "Both, then.", 500);
    assert!(world.to_caller("media") > sent, "the next reply is heard");
    assert_eq!(world.to_caller("clear"), 0);
}

#[test]
fn after_an_interruption_positions_count_from_the_next_reply() {
    let mut world = World::answered(settings(), None);
    reply(&mut world, "r");
    world.caller_speaks("u");
    world.done("r", "cancelled");
    world.run(700);
    world.caller_stops("u");
    world.phone.heard_ms = 0;
    reply(&mut world, "s");
    world.run(800);
    world.caller_speaks("v");
    world.run(100);
    let (item, at) = truncations(&world).pop().unwrap();
    assert_eq!(item, "item-s");
    assert!(at.abs_diff(world.phone.heard_ms) <= 40, "{at} for {}", world.phone.heard_ms);
}

#[test]
fn who_speaks_over_a_goodbye_is_listened_to() {
    let mut world = World::greeted(settings());
    world.response("r");
    world.call("r", "c", "end_call", "{}");
    world.done("r", "completed");
    world.tool_answers("c", serde_json::json!({"ok":true}), Some(crate::session::Ending::AgentEnded));
    world.response("bye");
    world.audio("bye", 1_500);
    world.run(500);
    world.caller_speaks("wait");
    world.done("bye", "cancelled");
    world.run(500);
    world.caller_stops("wait");
    world.agent_says("s", "Yes?", 500);
    world.run(25_000);
    assert!(world.endings().is_empty());
}
