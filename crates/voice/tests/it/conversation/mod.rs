//! Conversations with real speech over emulated vendors: what was heard is what is stored.

mod json;
mod stage;

use std::time::Duration;

use longhouse_emulators::ai::{Answer, LiveAction, LiveFault, LiveFaults};
use longhouse_voice::cascade::{Saying, Settings};
use longhouse_voice::session::Speaker as Side;
use serde_json::json;

use self::stage::{RATE, Scene, Vendors, says, settings};

const STORY: &str = "Once upon a time a small grey fox lived under seven old oak trees. Every morning it counted the \
                     acorns that had fallen during the night. One day there were none at all. So the fox walked to \
                     the river and asked the otter about them.";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Cuts in at twenty random points: what was decoded from the loudspeaker equals what is stored, word by word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heard_words_are_stored_words_when_the_person_cuts_in_anywhere() {
    let vendors =
        Vendors::new(vec![("story", says(STORY)), ("Stop", says("All right.")), ("", says("Pardon?"))]).await;
    let mut stops = Vec::new();
    // A different twenty every time would be a different test every time.
    let mut seed = 0x5eed_u64;
    let moments: Vec<u64> = (0..20)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            400 + (seed >> 33) % 7_000
        })
        .collect();
    for group in moments.chunks(5) {
        let scenes = group.iter().map(|&moment| {
            let vendors = vendors.clone();
            tokio::spawn(async move {
                let mut scene = Scene::new(&vendors, settings()).await;
                let person = &mut scene.person;
                person.live(Duration::from_millis(300)).await;
                person.say("Tell me a story please").await;
                person.until("the story", stage::Person::is_hearing).await;
                person.live(Duration::from_millis(moment)).await;
                person.say("Stop please").await;
                let onset = person.heard.len();
                person.until("an answer", |p| p.answers() >= 2).await;
                person.live(Duration::from_millis(500)).await;
                let heard_until =
                    person.heard[onset..].windows(RATE / 20).position(|w| w.iter().all(|s| *s == 0));
                let stop_ms = heard_until.unwrap() * 1_000 / RATE;
                let (desk, person) = scene.end().await;
                let stored = desk.words(Side::Agent);
                assert_eq!(person.heard_words(), stored, "cut in at {moment} ms");
                let turns = desk.turns();
                assert_eq!(turns.len(), 4, "{turns:?}");
                assert!(turns[1].interrupted && STORY.starts_with(&turns[1].text), "{turns:?}");
                assert_eq!((turns[2].text.as_str(), turns[3].text.as_str()), ("Stop please", "All right."));
                stop_ms
            })
        });
        for scene in futures_util::future::join_all(scenes).await {
            stops.push(scene.unwrap());
        }
    }
    stops.sort_unstable();
    println!("silent after {stops:?} ms of their speech");
    assert!(stops[18] <= 200, "silent after {stops:?} ms");
}

#[tokio::test]
async fn a_listeners_noise_costs_no_word() {
    let vendors = Vendors::new(vec![("story", says(STORY))]).await;
    let mut scene = Scene::new(&vendors, settings()).await;
    scene.person.say("Tell me a story please").await;
    scene.person.until("the story", stage::Person::is_hearing).await;
    for _ in 0..3 {
        scene.person.live(Duration::from_millis(2_200)).await;
        scene.person.say("Okay").await;
    }
    scene.person.until("the end", |p| p.answers() == 1).await;
    let (desk, person) = scene.end().await;
    assert_eq!(desk.words(Side::Agent), words(STORY));
    assert_eq!(person.heard_words(), words(STORY));
    assert_eq!(desk.words(Side::Caller), words("Tell me a story please Okay Okay Okay"));
}

#[tokio::test]
async fn a_synthesiser_that_breaks_off_in_mid_sentence_loses_no_word() {
    let vendors = Vendors::new(vec![("story", says(STORY))]).await;
    for frame in [4, 9, 23] {
        vendors.speaking.set_live_faults(LiveFaults::first(1, LiveFault::at(frame, LiveAction::Reset)));
        let mut scene = Scene::new(&vendors, settings()).await;
        scene.person.say("Tell me a story please").await;
        scene.person.until("the end", |p| p.answers() == 1).await;
        let (desk, person) = scene.end().await;
        assert_eq!(desk.words(Side::Agent), words(STORY), "broken at frame {frame}");
        assert_eq!(person.heard_words(), words(STORY), "broken at frame {frame}");
    }
}

#[tokio::test]
async fn a_recogniser_that_breaks_off_in_mid_word_loses_no_word() {
    let vendors = Vendors::new(vec![("", says("Understood."))]).await;
    vendors.hearing.set_live_faults(LiveFaults::first(1, LiveFault::at(4, LiveAction::Reset)));
    let mut scene = Scene::new(&vendors, settings()).await;
    scene.person.live(Duration::from_millis(800)).await;
    scene.person.say("I would like to book a table for seven people tomorrow").await;
    scene.person.until("an answer", |p| p.answers() == 1).await;
    let (desk, _) = scene.end().await;
    assert_eq!(desk.words(Side::Caller), words("I would like to book a table for seven people tomorrow"));
    assert!(vendors.hearing.sockets().len() >= 2, "it did not break");
}

#[tokio::test]
async fn slow_tools_are_bridged_and_their_answer_is_spoken() {
    let tables =
        Answer { text: "Let me see.".into(), calls: vec![("tables".into(), json!({}))], ..Answer::default() };
    let vendors = Vendors::new(vec![("table", tables)]).await;
    let greeting = Saying { text: "Good evening.".into(), protected: true };
    let mut scene = Scene::new(&vendors, Settings { greeting: Some(greeting), ..settings() }).await;
    scene.person.until("a greeting", |p| p.answers() == 1).await;
    scene.person.say("Is there a table").await;
    scene.person.until("an answer", |p| p.answers() == 2).await;
    let (desk, person) = scene.end().await;
    let stored = desk.words(Side::Agent);
    assert_eq!(person.heard_words(), stored);
    let said = stored.join(" ");
    assert!(said.starts_with("Good evening. Let me see. One moment, please. I looked:"), "{said}");
    assert_eq!(desk.tools(), ["tables"]);
    assert!(person.messages.iter().any(|m| m["type"] == "tool_call" && m["name"] == "tables"));
}

#[tokio::test]
async fn five_seconds_without_a_network_lose_no_word() {
    let vendors = Vendors::new(vec![("story", says(STORY))]).await;
    let mut scene = Scene::new(&vendors, settings()).await;
    scene.person.say("Tell me a story please").await;
    scene.person.until("the story", stage::Person::is_hearing).await;
    scene.person.live(Duration::from_millis(2_500)).await;
    scene.person.lose_connection();
    scene.person.live(Duration::from_secs(5)).await;
    scene.come_back().await;
    scene.person.until("the end", |p| p.answers() == 1).await;
    let (desk, person) = scene.end().await;
    assert_eq!(person.heard_words(), words(STORY));
    assert_eq!(desk.words(Side::Agent), words(STORY));
}

#[tokio::test]
async fn what_every_conversation_says_is_synthesised_once() {
    let vendors = Vendors::new(Vec::new()).await;
    let greeting = Saying { text: "Good evening. How can I help you?".into(), protected: false };
    for round in 0..2 {
        let mut scene =
            Scene::new(&vendors, Settings { greeting: Some(greeting.clone()), ..settings() }).await;
        scene.person.until("a greeting", |p| p.answers() == 1).await;
        let (desk, person) = scene.end().await;
        assert_eq!(person.heard_words(), words(&greeting.text), "round {round}");
        assert_eq!(desk.words(Side::Agent), words(&greeting.text));
    }
    let spoken: Vec<String> =
        vendors.speaking.sockets().into_iter().flat_map(|socket| socket.spoken).collect();
    assert_eq!(spoken.join(" "), greeting.text);
}
