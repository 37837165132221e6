//! Listing, in both versions.

use serde_json::{Value, json};

use crate::harness::{ANN, ANN_, As, BOB_, TestStorage};

async fn filled() -> TestStorage {
    let app = TestStorage::start().await;
    let names = [
        "b.txt",
        "a.txt",
        "C.txt",
        "docs/one.txt",
        "docs/two.txt",
        "docs/deep/x.txt",
        "Docs2/y.txt",
        "a%b_c",
    ];
    for (minute, name) in names.iter().enumerate() {
        let sql = "insert into storage.objects (bucket_id, name, created_at, updated_at, version)
                   values ('files', $1, timestamptz '2026-01-01' + make_interval(mins => $2), timestamptz '2026-01-01' + make_interval(mins => $2), null)";
        app.owner.execute(sql, &[name, &(minute as i32)]).await.unwrap();
    }
    app
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_folder_shows_what_is_in_it() {
    let app = filled().await;
    let list = async |body: Value| app.call(As::Service, "POST", "/object/list/files", body).await.1;
    let root = list(json!({"prefix": ""})).await;
    assert_eq!(names(&root), ["a%b_c", "a.txt", "b.txt", "C.txt", "docs", "Docs2"]);
    assert_eq!(root[4]["id"], json!(null));
    assert!(root[1]["id"].is_string() && root[1]["created_at"].is_string());
    assert_eq!(names(&list(json!({"prefix": "docs"})).await), ["deep", "one.txt", "two.txt"]);
    assert_eq!(names(&list(json!({"prefix": "docs/"})).await), ["deep", "one.txt", "two.txt"]);
    assert_eq!(names(&list(json!({"prefix": "docs/deep/"})).await), ["x.txt"]);
    assert_eq!(names(&list(json!({"prefix": "none"})).await), [""; 0]);
    assert_eq!(names(&list(json!({"prefix": "", "limit": 2, "offset": 1})).await), ["a.txt", "b.txt"]);
    assert_eq!(names(&list(json!({"prefix": "", "search": "A"})).await), ["a%b_c", "a.txt"]);
    assert_eq!(names(&list(json!({"prefix": "", "search": "a%"})).await), ["a%b_c"]);
    assert_eq!(names(&list(json!({"prefix": "docs", "search": "t"})).await), ["two.txt"]);
    assert_eq!(names(&list(json!({"prefix": "", "search": "docs/deep/x"})).await), ["docs/deep/x.txt"]);
    let down = json!({"prefix": "", "sortBy": {"column": "name", "order": "desc"}});
    assert_eq!(names(&list(down).await), ["Docs2", "docs", "C.txt", "b.txt", "a.txt", "a%b_c"]);
    let newest = json!({"prefix": "", "sortBy": {"column": "created_at", "order": "desc"}});
    assert_eq!(names(&list(newest).await), ["docs", "Docs2", "a%b_c", "C.txt", "a.txt", "b.txt"]);
    let oldest = json!({"prefix": "docs", "sortBy": {"column": "updated_at", "order": "asc"}});
    assert_eq!(names(&list(oldest).await), ["deep", "one.txt", "two.txt"]);
    assert_eq!(
        names(&app.call(As::Service, "POST", "/object/list/nowhere", json!({"prefix": ""})).await.1),
        [""; 0]
    );
}

#[tokio::test]
async fn listings_show_what_policies_show() {
    let app = TestStorage::start().await;
    app.put(ANN_, &format!("files/{ANN}/a.txt"), "a").await;
    for (who, count) in [(ANN_, 1), (BOB_, 0), (As::Anon, 0)] {
        let (_, list) = app.call(who, "POST", "/object/list/files", json!({"prefix": ANN.to_string()})).await;
        assert_eq!(list.as_array().unwrap().len(), count);
        let (_, list) = app.call(who, "POST", "/object/list-v2/files", json!({})).await;
        assert_eq!(list["objects"].as_array().unwrap().len(), count);
    }
    assert_eq!(app.call(As::Nobody, "POST", "/object/list/files", json!({"prefix": ""})).await.0, 403);
}

#[tokio::test]
async fn pages_join_without_gap_or_overlap() {
    let app = filled().await;
    let flat = [
        "C.txt",
        "Docs2/y.txt",
        "a%b_c",
        "a.txt",
        "b.txt",
        "docs/deep/x.txt",
        "docs/one.txt",
        "docs/two.txt",
    ];
    let level = ["C.txt", "Docs2/", "a%b_c", "a.txt", "b.txt", "docs/"];
    let by_time = ["b.txt", "a.txt", "C.txt", "docs/", "Docs2/", "a%b_c"];
    for (delimiter, column, expected) in
        [(false, "name", &flat[..]), (true, "name", &level[..]), (true, "created_at", &by_time[..])]
    {
        for order in ["asc", "desc"] {
            let mut expected = expected.to_vec();
            if order == "desc" {
                expected.reverse();
            }
            for limit in [1, 2, 3, 100] {
                let mut seen = Vec::new();
                let mut cursor = Value::Null;
                loop {
                    let mut body = json!({"limit": limit, "with_delimiter": delimiter, "sortBy": {"column": column, "order": order}});
                    if let Some(cursor) = cursor.as_str() {
                        body["cursor"] = cursor.into();
                    }
                    let (_, page) = app.call(As::Service, "POST", "/object/list-v2/files", body).await;
                    let mut entries: Vec<String> = Vec::new();
                    for kind in ["folders", "objects"] {
                        entries.extend(names(&page[kind]).into_iter().map(str::to_owned));
                    }
                    assert!(entries.len() <= limit);
                    // Within a page, folders and files come apart.
                    entries.sort_by_key(|name| expected.iter().position(|other| other == name));
                    seen.extend(entries);
                    cursor = page["nextCursor"].clone();
                    assert_eq!(page["hasNext"], cursor.is_string());
                    if cursor.is_null() {
                        break;
                    }
                }
                assert_eq!(seen, expected, "{delimiter} {column} {order} {limit}");
            }
        }
    }
    let (_, docs) = app
        .call(
            As::Service,
            "POST",
            "/object/list-v2/files",
            json!({"prefix": "docs/", "with_delimiter": true}),
        )
        .await;
    assert_eq!(names(&docs["folders"]), ["docs/deep/"]);
    assert_eq!(docs["folders"][0]["key"], "deep");
    assert_eq!(names(&docs["objects"]), ["docs/one.txt", "docs/two.txt"]);
    assert_eq!(docs["objects"][0]["key"], "one.txt");
}

#[tokio::test]
async fn what_cannot_be_listed_is_refused() {
    let app = TestStorage::start().await;
    for body in [
        json!({}),
        json!({"prefix": 7}),
        json!({"prefix": "", "limit": 0}),
        json!({"prefix": "", "offset": -1}),
        json!({"prefix": "a\u{0}b"}),
        json!({"prefix": "", "sortBy": {"column": "owner; drop table"}}),
        json!({"prefix": "", "sortBy": {"column": "name", "order": "sideways"}}),
    ] {
        let (status, answer) = app.call(As::Service, "POST", "/object/list/files", body.clone()).await;
        assert_eq!(status, 400, "{body} {answer}");
    }
    let forged = app.call(As::Service, "POST", "/object/list-v2/files", json!({"cursor": "forged"})).await;
    assert_eq!(forged.0, 400);
}

#[tokio::test]
async fn a_large_folder_costs_what_its_page_costs() {
    let app = TestStorage::start().await;
    let fill = "insert into storage.objects (bucket_id, name)
                select 'files', format('big/%s/%s', n % 3, n) from generate_series(1, 30000) n;
                insert into storage.objects (bucket_id, name) values ('files', 'z.txt');
                analyze storage.objects";
    app.owner.batch_execute(fill).await.unwrap();
    let (_, root) = app.call(As::Service, "POST", "/object/list/files", json!({"prefix": ""})).await;
    assert_eq!(names(&root), ["big", "z.txt"]);
    let (_, big) = app.call(As::Service, "POST", "/object/list/files", json!({"prefix": "big"})).await;
    assert_eq!(names(&big), ["0", "1", "2"]);
    // A step a folder, not a row an object: what Postgres read says so.
    let reads = "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = 'objects'";
    let list = "select count(*) from storage.search('big/', 'files')";
    let client = &app.owner;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(client.query_one(list, &[]).await.unwrap().get::<_, i64>(0), 3);
    let read: i64 = client.query_one(reads, &[]).await.unwrap().get(0);
    client.batch_execute("rollback").await.unwrap();
    assert!(read < 100, "{read} rows were read");
}
