//! Requests under way while the schema changes and is reloaded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhouse_rest::config::RestConfig;

use crate::api::Fixture;

/// How long requests and changes go on.
const TIME: Duration = Duration::from_secs(4);
/// Requests at once.
const CLIENTS: usize = 6;

/// What changes, over and over. None of it takes anything away that a request asks for.
const CHANGES: [&str; 8] = [
    "alter table api.notes add column more text; notify pgrst, 'reload schema'",
    "create table api.passing (id int primary key, note int references api.notes); notify pgrst",
    "create index passing_note on api.notes (owner); notify pgrst, 'reload schema'",
    "create or replace function api.other() returns int language sql as 'select 1'; notify pgrst, 'reload schema'",
    "drop table api.passing; notify pgrst, 'reload schema'",
    "alter table api.notes drop column more; notify pgrst, 'reload schema'",
    "drop index api.passing_note; notify pgrst, 'reload schema'",
    "create or replace view api.titles as select id, body from api.notes; notify pgrst, 'reload config'",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_schema_changes_and_is_reloaded() {
    let fixture = Fixture::with_connections(4, Some("pgrst"), RestConfig::default()).await;
    let requests: [(&str, &str); 5] = [
        ("GET /notes?select=id,body&order=id&limit=5", ""),
        ("GET /notes?owner=eq.ann", ""),
        ("POST /notes", r#"{"owner": "ann", "body": "new"}"#),
        ("PATCH /notes?id=eq.1", r#"{"body": "changed"}"#),
        ("GET /rpc/who", ""),
    ];
    let (over, answered, written) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let clients = futures_util::future::join_all((0..CLIENTS).map(async |client| {
        let mut next = client;
        while !over.load(Ordering::Relaxed) {
            let (line, body) = requests[next % requests.len()];
            let (status, _, answer) = fixture.ask(line, &[("user", "ann")], body).await;
            assert!(status.is_success(), "{line}: {status} {answer}");
            answered.fetch_add(1, Ordering::Relaxed);
            written.fetch_add(u64::from(line.starts_with("POST")), Ordering::Relaxed);
            next += 1;
        }
    }));
    let changes = async {
        let begun = Instant::now();
        let mut reloads = fixture.reloader.cache();
        let mut seen = 0;
        while begun.elapsed() < TIME {
            for change in CHANGES {
                fixture.superuser(change).await;
                seen += u64::from(reloads.has_changed().expect("the reloader runs"));
                reloads.mark_unchanged();
            }
        }
        over.store(true, Ordering::Relaxed);
        seen
    };
    let (_, reloads) = tokio::join!(clients, changes);
    let (answered, written) = (answered.into_inner(), written.into_inner());
    assert!(reloads > 3, "the cache was reloaded {reloads} times while {answered} requests were answered");
    assert!(answered > 100, "{answered} requests");
    let (_, headers, _) =
        fixture.ask("HEAD /notes?body=eq.new", &[("user", "ann"), ("prefer", "count=exact")], "").await;
    let range = headers["content-range"].to_str().expect("text");
    assert_eq!(range, format!("0-{}/{written}", written - 1), "each write happened, and once");
}
