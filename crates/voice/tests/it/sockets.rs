//! Nothing lasts for ever, whatever the other end does or leaves undone (T9).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_voice::session::{Ending, Settings};
use serde_json::json;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::host::{Desk, PATIENCE, Scene, call_function, hear, say};

fn watchful() -> Settings {
    Settings { silence_timeout: Duration::from_millis(400), ..Settings::default() }
}

/// Half-open: no FIN, no answer to pings.
#[tokio::test]
async fn a_caller_who_is_gone_without_a_word_ends_the_call() {
    let mut scene = Scene::new(Desk::default(), watchful()).await;
    scene.call().await;
    let mut upstream = scene.upstream().await;
    let desk = Arc::clone(&scene.desk);
    let alive = tokio::spawn(async move { while let Some(Ok(_)) = upstream.next().await {} });
    assert_eq!(scene.ending().await, Ending::ConnectionLost);
    assert_eq!(*desk.finished.lock().unwrap(), [Ending::ConnectionLost]);
    tokio::time::timeout(PATIENCE, alive).await.expect("the upstream session was left open").unwrap();
}

#[tokio::test]
async fn a_quiet_caller_who_answers_pings_stays_on_the_line() {
    let mut scene = Scene::new(Desk::default(), watchful()).await;
    scene.call().await;
    let mut upstream = scene.upstream().await;
    let both = async {
        let mut pings = 0;
        while pings < 8 {
            tokio::select! {
                message = scene.caller.next() => {
                    let message = message.expect("closed").unwrap();
                    pings += usize::from(message.is_ping());
                    scene.caller.flush().await.unwrap();
                }
                message = upstream.next() => assert!(message.expect("closed").is_ok()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert!(!scene.session.is_finished());
    scene.caller.send(Message::text(r#"{"event":"stop"}"#)).await.unwrap();
    assert_eq!(scene.ending().await, Ending::CallerHungUp);
}

#[tokio::test]
async fn a_caller_who_takes_nothing_holds_up_nobody_for_long() {
    let mut scene = Scene::new(Desk::default(), watchful()).await;
    scene.call().await;
    let mut upstream = scene.upstream().await;
    hear(&mut upstream, "response.create").await;
    // They talk, so they live; but they do not read what they are sent.
    let (mut talk, mut listen) = (scene.caller, upstream);
    let talking = tokio::spawn(async move {
        let frame = r#"{"event":"media","media":{"payload":"////"}}"#;
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while talk.send(Message::text(frame)).await.is_ok() {
            every.tick().await;
        }
    });
    let flooding = tokio::spawn(async move {
        say(&mut listen, json!({"type":"response.created","response":{"id":"r"}})).await;
        let delta = json!({"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"////".repeat(4_000)});
        while listen.send(Message::text(delta.to_string())).await.is_ok() {}
    });
    let ending = tokio::time::timeout(PATIENCE, scene.session).await.expect("the session goes on").unwrap();
    assert_eq!(ending, Ending::ConnectionLost);
    for task in [talking, flooding] {
        tokio::time::timeout(PATIENCE, task).await.expect("a socket was left open").unwrap();
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_without_a_word_is_replaced() {
    let mut scene = Scene::new(Desk::default(), watchful()).await;
    scene.call().await;
    let _gone = scene.upstream().await; // neither reads nor answers from here on
    let caller = async {
        loop {
            scene.caller.next().await.expect("closed").unwrap();
            scene.caller.flush().await.unwrap();
        }
    };
    let second = tokio::time::timeout(PATIENCE, scene.upstreams.recv());
    tokio::select! {
        () = caller => unreachable!(),
        opened = second => assert!(opened.expect("no other session was opened").is_some()),
    }
}

#[tokio::test]
async fn who_hangs_up_while_being_admitted_leaves_a_closed_call() {
    let gate = Arc::new(Notify::new());
    let mut scene =
        Scene::new(Desk { gate: Some(Arc::clone(&gate)), ..Desk::default() }, Settings::default()).await;
    let desk = Arc::clone(&scene.desk);
    scene.call().await;
    scene.caller.send(Message::text(r#"{"event":"stop"}"#)).await.unwrap();
    gate.notify_one();
    assert_eq!(scene.ending().await, Ending::CallerHungUp);
    assert_eq!(*desk.finished.lock().unwrap(), [Ending::CallerHungUp]);
}

#[tokio::test]
async fn a_tool_that_panics_is_an_answer_and_not_the_end() {
    let mut scene = Scene::new(Desk::default(), Settings::default()).await;
    scene.call().await;
    let mut upstream = scene.upstream().await;
    hear(&mut upstream, "response.create").await;
    call_function(&mut upstream, "panics").await;
    let output = hear(&mut upstream, "conversation.item.create").await;
    assert_eq!(output["item"]["call_id"], "c");
    assert!(output["item"]["output"].as_str().unwrap().contains("failed"), "{output}");
    hear(&mut upstream, "response.create").await;
}

#[tokio::test]
async fn nothing_runs_on_when_the_session_is_dropped() {
    let mut scene = Scene::new(Desk::default(), Settings::default()).await;
    scene.call().await;
    let mut upstream = scene.upstream().await;
    hear(&mut upstream, "response.create").await;
    call_function(&mut upstream, "hangs").await;
    let desk = Arc::clone(&scene.desk);
    tokio::time::timeout(PATIENCE, desk.tools.notified()).await.expect("the tool was not run");
    assert_eq!(desk.running.load(Ordering::SeqCst), 1);
    scene.session.abort();
    let closed = async {
        while let Some(Ok(_)) = upstream.next().await {}
        while let Some(Ok(_)) = scene.caller.next().await {}
        desk.tools.notified().await;
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("something was left behind");
    assert_eq!(desk.running.load(Ordering::SeqCst), 0);
}
