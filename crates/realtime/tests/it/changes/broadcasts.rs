//! Messages that the database sends to channels.

use chrono::{Duration, Utc};
use longhouse_database::Claims;
use longhouse_realtime::changes::{BroadcastPayload, replay};
use serde_json::{Value, json};

use super::harness::{ANN, BOB, TestProject};

fn json_of(payload: &BroadcastPayload) -> Value {
    match payload {
        BroadcastPayload::Json(json) => serde_json::from_slice(json).unwrap(),
        BroadcastPayload::Binary(bytes) => json!(bytes.to_vec()),
    }
}

#[tokio::test]
async fn messages_arrive_once_and_in_the_order_of_commits() {
    let project = TestProject::create().await;
    let (first, second) = (project.server().await, project.server().await);
    first.follow("notes").await;
    second.follow("notes").await;
    project
        .sql(
            "select realtime.send('{\"n\": 1}', 'e', 'room', false);
             begin; select realtime.send('{\"n\": 2}', 'e', 'room'); select realtime.send_binary('\\x0102', 'b', 'room'); commit;
             begin; select realtime.send('{\"n\": 0}', 'e', 'room'); rollback;
             insert into realtime.messages (topic, extension, event, payload) values ('room', 'presence', 'e', '{}');
             select realtime.send('[3]', 'last', 'room');",
        )
        .await;
    // One of them reads the log.
    let servers = [&first, &second];
    let leader = servers[0].recorder.until("the last message", |recorder| {
        let _ = recorder;
        servers.iter().position(|server| server.recorder.broadcasts().iter().any(|b| b.event == "last"))
    });
    let leader = tokio::select! {
        leader = leader => leader,
        leader = servers[1].recorder.until("the last message", |recorder| {
            recorder.broadcasts().iter().any(|b| b.event == "last").then_some(1)
        }) => leader,
    };
    let messages = servers[leader].recorder.broadcasts();
    let shown: Vec<_> = messages.iter().map(|m| (m.event.as_str(), m.topic.as_str(), m.private)).collect();
    assert_eq!(
        shown,
        [("e", "room", false), ("e", "room", true), ("b", "room", true), ("last", "room", true)]
    );
    assert_eq!(json_of(&messages[0].payload), json!({"n": 1, "id": messages[0].id}));
    assert_eq!(json_of(&messages[2].payload), json!([1, 2]));
    assert_eq!(json_of(&messages[3].payload), json!([3]));
    assert!(servers[1 - leader].recorder.broadcasts().is_empty(), "the sink tells the other servers");
    first.changes.stop().await;
    second.changes.stop().await;
}

#[tokio::test]
async fn whoever_joins_a_channel_hears_the_database_without_following_any_table() {
    let project = TestProject::create().await;
    let server = project.server().await;
    server.changes.attend();
    let sql = "select coalesce((select active and confirmed_flush_lsn is not null from pg_replication_slots where database = current_database()), false)::text";
    while project.text(sql).await != "true" {
        tokio::task::yield_now().await;
    }
    project.sql("select realtime.send('{}', 'e', 'room')").await;
    server.recorder.until("the message", |recorder| recorder.broadcasts().pop()).await;
    server.changes.stop().await;
}

#[tokio::test]
async fn a_replay_gives_the_latest_private_messages_that_policies_allow() {
    let project = TestProject::create().await;
    project
        .sql(&format!(
            "create policy room on realtime.messages for select to authenticated
               using (realtime.topic() = topic and auth.uid() = '{ANN}');
             select realtime.send(jsonb_build_object('n', n), 'e', 'room') from generate_series(1, 30) n;
             select realtime.send('{{}}', 'e', 'room', false); select realtime.send('{{}}', 'e', 'other');
             update realtime.messages set inserted_at = inserted_at - interval '10 minutes' where (payload ->> 'n')::int <= 20;
             update realtime.messages set inserted_at = inserted_at + (payload ->> 'n')::int * interval '1 us'
               where payload ? 'n';"
        ))
        .await;
    let server = project.server().await;
    let ann = Claims::user(ANN);
    let numbers = async |claims: &Claims, minutes: i64, limit: u32| -> Vec<i64> {
        let since = Utc::now() - Duration::minutes(minutes);
        let messages = replay(&server.database, claims, "room", since, limit).await.unwrap();
        messages.iter().map(|message| json_of(&message.payload)["n"].as_i64().unwrap()).collect()
    };
    assert_eq!(numbers(&ann, 5, 3).await, [28, 29, 30]);
    assert_eq!(numbers(&ann, 5, 100).await, (21..=30).collect::<Vec<_>>());
    assert_eq!(numbers(&ann, 60, 1_000).await.len(), 25);
    assert!(numbers(&Claims::user(BOB), 60, 5).await.is_empty());
    server.changes.stop().await;
}
