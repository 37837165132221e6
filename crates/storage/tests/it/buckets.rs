//! Buckets under their own policies.

use rstest::rstest;
use serde_json::json;

use crate::harness::{ANN_, As, TestStorage, classic, refusal};

#[tokio::test]
async fn a_bucket_lives_its_life() {
    let app = TestStorage::start().await;
    let made = json!({
        "name": "agent.portraits", "id": "agent.portraits", "public": true,
        "file_size_limit": "5MB", "allowed_mime_types": ["image/*"]
    });
    assert_eq!(
        app.call(As::Service, "POST", "/bucket", made.clone()).await.1,
        json!({"name": "agent.portraits"})
    );
    let again = app.call(As::Service, "POST", "/bucket", made).await;
    assert_eq!(classic(again.1), refusal("409", "Duplicate", "The resource already exists"));

    let (_, bucket) = app.call(As::Service, "GET", "/bucket/agent.portraits", json!({})).await;
    assert_eq!(bucket["public"], true);
    assert_eq!(bucket["owner"], "", "supabase-py takes no null");
    assert_eq!(bucket["file_size_limit"], 5_000_000);
    assert_eq!(bucket["allowed_mime_types"], json!(["image/*"]));
    assert!(bucket["created_at"].is_string());

    let change = json!({ "public": false, "file_size_limit": null });
    let changed = app.call(As::Service, "PUT", "/bucket/agent.portraits", change).await;
    assert_eq!(changed.1, json!({"message": "Successfully updated"}));
    let (_, bucket) = app.call(As::Service, "GET", "/bucket/agent.portraits", json!({})).await;
    assert_eq!(bucket["public"], false);
    assert_eq!(bucket["file_size_limit"], json!(null));
    assert_eq!(bucket["allowed_mime_types"], json!(["image/*"]), "what was not named stays");

    app.put(As::Service, "files/a.txt", "a").await;
    let full = app.call(As::Service, "DELETE", "/bucket/files", json!({})).await;
    assert_eq!(full.0, 409);
    assert_eq!(full.1["message"], "The bucket you tried to delete is not empty");
    let emptied = app.call(As::Service, "POST", "/bucket/files/empty", json!({})).await;
    assert!(emptied.1["message"].as_str().unwrap().starts_with("Empty bucket has been queued"));
    assert_eq!(app.count("objects").await, 0);
    let deleted = app.call(As::Service, "DELETE", "/bucket/files", json!({})).await;
    assert_eq!(deleted.1, json!({"message": "Successfully deleted"}));
    assert_eq!(app.call(As::Service, "GET", "/bucket/files", json!({})).await.0, 404);
    assert_eq!(app.call(As::Service, "DELETE", "/bucket/files", json!({})).await.0, 404);
}

#[tokio::test]
async fn policies_of_buckets_decide() {
    let app = TestStorage::start().await;
    let names = async |who| {
        let (_, list) = app.call(who, "GET", "/bucket", json!({})).await;
        let list = list.as_array().unwrap();
        list.iter().map(|bucket| bucket["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(As::Service).await, ["files", "other", "pictures"]);
    assert_eq!(names(ANN_).await, ["files", "pictures"]);
    assert_eq!(names(As::Anon).await, [""; 0]);
    assert_eq!(app.call(ANN_, "GET", "/bucket/other", json!({})).await.0, 404);
    let made = app.call(ANN_, "POST", "/bucket", json!({"name": "mine"})).await;
    assert_eq!(classic(made.1), refusal("403", "Unauthorized", "new row violates row-level security policy"));
    assert_eq!(app.call(ANN_, "DELETE", "/bucket/files", json!({})).await.0, 404, "not hers to delete");
    assert_eq!(app.call(ANN_, "PUT", "/bucket/files", json!({"public": true})).await.0, 404);
    assert_eq!(app.call(As::Nobody, "GET", "/bucket", json!({})).await.0, 403);
    assert_eq!(app.count("buckets").await, 3);
    let (_, page) = app
        .call(
            As::Service,
            "GET",
            "/bucket?limit=1&offset=1&sortColumn=name&sortOrder=desc&search=E",
            json!({}),
        )
        .await;
    assert_eq!(page[0]["name"], "other");
    assert_eq!(page.as_array().unwrap().len(), 1);
}

#[rstest]
#[case(json!({}), "400")]
#[case(json!({"name": 7}), "400")]
#[case(json!({"name": "../up"}), "400")]
#[case(json!({"name": " padded "}), "400")]
#[case(json!({"name": ""}), "400")]
#[case(json!({"name": "n".repeat(101)}), "400")]
#[case(json!({"name": "x", "file_size_limit": "much"}), "400")]
#[case(json!({"name": "x", "file_size_limit": -1}), "400")]
#[case(json!({"name": "x", "file_size_limit": "1GB"}), "413")]
#[case(json!({"name": "x", "allowed_mime_types": ["nonsense"]}), "415")]
#[case(json!({"name": "x", "type": "ANALYTICS"}), "400")]
#[tokio::test]
async fn what_makes_no_bucket_is_refused(#[case] body: serde_json::Value, #[case] status: &str) {
    let app = TestStorage::start().await;
    let (_, answer) = app.call(As::Service, "POST", "/bucket", body).await;
    assert_eq!(answer["statusCode"], status, "{answer}");
    assert_eq!(app.count("buckets").await, 3);
    let nothing = app.call(As::Service, "PUT", "/bucket/files", json!({})).await;
    assert_eq!(nothing.0, 400);
}
