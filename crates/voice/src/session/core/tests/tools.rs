//! Functions that the model calls (T7, defects 32 and 33).

use std::time::Duration;

use serde_json::json;

use super::kit::*;
use crate::session::core::Effect;
use crate::session::{Ending, Entry};

fn asked(world: &mut World, calls: &[(&str, &str)]) {
    world.caller_says("Can you look that up?");
    world.response("r");
    for (call_id, arguments) in calls {
        world.call("r", call_id, "search_knowledge", arguments);
    }
}

fn runs(world: &World) -> Vec<String> {
    world
        .log
        .iter()
        .filter_map(|(_, e)| match e {
            Effect::RunTool(call) => Some(call.call_id.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn two_functions_of_one_response_give_one_answer() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", r#"{"q":"prices"}"#), ("b", r#"{"q":"hours"}"#)]);
    let before = world.requests();
    assert!(runs(&world).is_empty(), "run before the response was done");
    world.done("r", "completed");
    assert_eq!(runs(&world), ["a", "b"]);
    world.tool_answers("b", json!({"hours":"9-5"}), None);
    assert_eq!(world.requests(), before, "the other is still running");
    world.tool_answers("a", json!({"price":40}), None);
    assert_eq!(world.requests(), before + 1);
    assert_eq!(
        world.outputs(),
        [("b".into(), r#"{"hours":"9-5"}"#.into()), ("a".into(), r#"{"price":40}"#.into())]
    );
    // Outputs first, then the request.
    let kinds: Vec<String> =
        world.commands().iter().rev().take(3).map(|(_, e)| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["response.create", "conversation.item.create", "conversation.item.create"]);
}

#[test]
fn a_slow_function_is_bridged_with_one_remark() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", "{}")]);
    world.done("r", "completed");
    let before = world.requests();
    world.run(1_100);
    assert_eq!(world.requests(), before);
    world.run(200);
    assert_eq!(world.requests(), before + 1);
    assert!(world.last_request().contains("looking"));
    world.agent_says("filler", "Let me look.", 600);
    world.run(4_000);
    assert_eq!(world.requests(), before + 1, "said twice");
    world.tool_answers("a", json!({"price":40}), None);
    assert_eq!(world.requests(), before + 2);
    assert_eq!(world.last_request(), "");
}

#[test]
fn an_answer_during_the_remark_is_given_after_it() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", "{}")]);
    world.done("r", "completed");
    world.run(1_300);
    let before = world.requests();
    world.tool_answers("a", json!({"price":40}), None);
    assert_eq!(world.requests(), before, "a second response while one was awaited");
    // The remark began after the output was given, so it may be the answer already; the server says which.
    world.agent_says("filler", "Forty dollars.", 600);
    assert_eq!(world.outputs().len(), 1);
}

#[test]
fn a_function_that_never_answers_is_given_up_once() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", "{}")]);
    world.done("r", "completed");
    world.run(1_300);
    world.agent_says("filler", "Let me look.", 600);
    world.run(7_000);
    let [(call_id, output)] = &world.outputs()[..] else { panic!("{:?}", world.outputs()) };
    assert!(call_id == "a" && output.contains("too long"), "{output}");
    let before = world.requests();
    world.tool_answers("a", json!({"price":40}), None);
    assert_eq!((world.outputs().len(), world.requests()), (1, before), "the late answer was given too");
}

#[test]
fn arguments_that_are_no_object_are_refused_without_a_run() {
    for arguments in ["{", "[1]", "7", r#""text""#, "{}{}", "null"] {
        let mut world = World::greeted(settings());
        asked(&mut world, &[("a", arguments)]);
        let before = world.requests();
        world.done("r", "completed");
        assert!(runs(&world).is_empty(), "{arguments}");
        assert!(world.outputs()[0].1.contains("not a JSON object"), "{arguments}");
        assert_eq!(world.requests(), before + 1, "{arguments}");
    }
}

#[test]
fn a_response_that_was_cancelled_books_nothing() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", "{}")]);
    world.caller_speaks("no");
    world.done("r", "cancelled");
    world.run(2_000);
    assert!(runs(&world).is_empty() && world.outputs().is_empty());
}

#[test]
fn what_is_said_while_a_function_runs_is_answered_together_with_it() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", "{}")]);
    world.done("r", "completed");
    let before = world.requests();
    world.caller_speaks("also");
    world.tool_answers("a", json!({"price":40}), None);
    assert_eq!(world.outputs().len(), 1);
    assert_eq!(world.requests(), before, "spoke over the caller");
    world.caller_stops("also");
    // The server answers the turn, and sees the output.
    world.agent_says("s", "Forty, and yes.", 700);
    world.run(1_000);
    assert_eq!(world.requests(), before);
}

#[test]
fn the_goodbye_is_heard_before_the_line_is_cut() {
    for goodbye_first in [true, false] {
        let mut world = World::greeted(settings());
        world.caller_says("That is all.");
        world.response("r");
        if goodbye_first {
            world.words("r", "Goodbye.");
            world.audio("r", 1_000);
            world.audio_done("r");
        }
        world.call("r", "c", "end_call", "{}");
        world.done("r", "completed");
        let before = world.requests();
        world.tool_answers("c", json!({"ok":true}), Some(Ending::AgentEnded));
        if goodbye_first {
            assert_eq!(world.requests(), before, "said goodbye twice");
        } else {
            assert_eq!(world.requests(), before + 1);
            world.agent_says("bye", "Goodbye.", 1_000);
        }
        world.run(900);
        assert!(world.endings().is_empty(), "cut off the goodbye");
        world.run(200);
        assert_eq!(world.endings(), [Ending::AgentEnded]);
        assert_eq!(world.transcript().last().unwrap(), "Agent: Goodbye.");
    }
}

#[test]
fn a_goodbye_that_never_ends_is_cut_short() {
    let mut world = World::greeted(settings());
    world.response("r");
    world.call("r", "c", "transfer_call", "{}");
    world.done("r", "completed");
    world.phone.mute = true; // its marks never come back
    world.tool_answers("c", json!({"ok":true}), Some(Ending::Transferred));
    world.agent_says("bye", "I am putting you through.", 1_000);
    world.run(19_500);
    assert!(world.endings().is_empty());
    world.run(1_000);
    assert_eq!(world.endings(), [Ending::Transferred]);
}

#[test]
fn every_run_is_reported_with_its_answer() {
    let mut world = World::greeted(settings());
    asked(&mut world, &[("a", r#"{"q":"prices"}"#)]);
    world.done("r", "completed");
    world.run(300);
    world.tool_answers("a", json!({"price":40}), None);
    let entry = world.log.iter().find_map(|(_, e)| match e {
        Effect::Record(Entry::Tool { after, name, arguments, output, took }) => {
            Some((*after, name.clone(), arguments.clone(), output.clone(), *took))
        }
        _ => None,
    });
    let expected = (
        1,
        "search_knowledge".into(),
        r#"{"q":"prices"}"#.into(),
        r#"{"price":40}"#.into(),
        Duration::from_millis(300),
    );
    assert_eq!(entry.unwrap(), expected);
}

#[test]
fn calls_of_lost_sessions_do_not_use_up_the_room_for_later_ones() {
    let mut world = World::greeted(settings());
    for i in 0..40 {
        world.response(&format!("r{i}"));
        world.call(&format!("r{i}"), &format!("c{i}"), "search_knowledge", "{}");
        world.run(6_000);
        world.lose(world.newest());
        world.run(10);
    }
    world.response("r");
    world.call("r", "last", "search_knowledge", "{}");
    world.done("r", "completed");
    assert_eq!(runs(&world), ["last"]);
}
