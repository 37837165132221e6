//! Bodies that are too large to be collected.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use longhouse_rest::config::RestConfig;
use secrecy::ExposeSecret as _;

use crate::api::Fixture;

/// Rows of a megabyte each: more than all buffers between Postgres and a test hold.
const ROWS: usize = 48;
const TABLE: &str = "
    create table api.pages (id int primary key, content text, number text);
    insert into api.pages
        select n, repeat('x', 1000000), case when n < 48 then n::text else 'none' end from generate_series(1, 48) n;
    grant select on api.pages to rest_test_reader;
    create function api.all_pages() returns jsonb stable language sql as
        $$ select jsonb_agg(content) from api.pages $$;
    grant execute on function api.all_pages() to rest_test_reader";

async fn fixture() -> Fixture {
    let fixture = Fixture::new(RestConfig::default()).await;
    fixture.superuser(TABLE).await;
    fixture.reload().await;
    fixture
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_comes_in_parts_with_all_its_headers() {
    let fixture = fixture().await;
    for (path, range) in [
        ("/pages?order=id", format!("0-{}/*", ROWS - 1)),
        ("/pages?order=id&offset=8", format!("8-{}/*", ROWS - 1)),
        ("/rpc/all_pages", "0-0/*".to_owned()),
    ] {
        let (parts, mut body) = fixture.api.handle(get(path)).await.into_parts();
        assert_eq!(
            (parts.status, parts.headers["content-range"].to_str().ok()),
            (StatusCode::OK, Some(&*range))
        );
        let announced = hyper::body::Body::size_hint(&body).exact().expect("a length");
        let (mut whole, mut largest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let part = frame.expect("a part").into_data().expect("data");
            largest = largest.max(part.len());
            whole.extend_from_slice(&part);
        }
        assert_eq!(whole.len() as u64, announced, "{path}");
        assert!(largest <= 64 * 1024, "{path}: a part of {largest} bytes");
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&whole).expect("JSON");
        assert!(rows.len() >= ROWS - 8, "{path}: {} rows", rows.len());
    }
    // The one connection is free again.
    let (status, headers, _) = fixture.ask("HEAD /pages", &[("prefer", "count=exact")], "").await;
    assert_eq!((status, headers["content-range"].to_str().ok()), (StatusCode::OK, Some("0-47/48")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_take_waits_in_postgres() {
    let fixture = fixture().await;
    let mut body = fixture.api.handle(get("/pages")).await.into_body();
    body.frame().await.expect("a part").expect("no error");
    // Postgres waits for somebody to read: nobody has taken the rest of the value from it.
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and state = 'active' and wait_event = 'ClientWrite'";
    let (client, connection) =
        tokio_postgres::connect(fixture.superuser_url().expose_secret(), tokio_postgres::NoTls)
            .await
            .expect("connects");
    tokio::spawn(connection);
    let waiters = async || client.query_one(waiting, &[]).await.expect("counts").get::<_, i64>(0);
    let until = async |wanted: i64| {
        tokio::time::timeout(Duration::from_secs(10), async {
            while waiters().await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("in time");
    };
    until(1).await;
    // The client leaves: so does the connection, and the next request gets another.
    drop(body);
    let (status, _, rows) = fixture.ask("GET /pages?select=id&limit=1&order=id", &[], "").await;
    assert_eq!((status, rows), (StatusCode::OK, serde_json::json!([{"id": 1}])));
    until(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_large_result_is_said_before_it_begins() {
    let fixture = fixture().await;
    let single = ("accept", "application/vnd.pgrst.object+json");
    let (status, _, answer) = fixture.ask("GET /pages", &[single], "").await;
    assert_eq!((status, answer["code"].as_str()), (StatusCode::NOT_ACCEPTABLE, Some("PGRST116")));
    // The last row cannot be shown; those before it can.
    let (status, _, answer) = fixture.ask("GET /pages?select=content,number::int&order=id", &[], "").await;
    assert_eq!((status, answer["code"].as_str()), (StatusCode::BAD_REQUEST, Some("22P02")));
    let (status, _, rows) = fixture.ask("GET /pages?select=id&order=id.desc&limit=1", &[], "").await;
    assert_eq!((status, rows), (StatusCode::OK, serde_json::json!([{"id": 48}])));
}
