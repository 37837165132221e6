//! Who gets in: operators whose right, account and session are good at this moment, and nobody else, anywhere.

use longhouse_studio::operators;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::harness::TestStudio;

/// What everybody may ask.
const PUBLIC: &[&str] = &["/studio/v1/project"];

/// Every route of the operators' API: those that are described, and what the relay reaches.
fn routes() -> Vec<(Method, String)> {
    let document = serde_json::to_value(longhouse_studio::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let path = path.replace("{schema}", "public").replace("{name}", "notes");
            if !PUBLIC.contains(&path.as_str()) {
                routes.push((method, path));
            }
        }
    }
    assert!(routes.len() >= 7, "{routes:?}");
    for (method, path) in [
        (Method::GET, "/auth/v1/admin/users"),
        (Method::POST, "/auth/v1/admin/users"),
        (Method::DELETE, "/auth/v1/admin/users/00000000-0000-4000-8000-000000000001"),
        (Method::POST, "/auth/v1/invite"),
        (Method::GET, "/storage/v1/bucket"),
        (Method::POST, "/storage/v1/object/list/photos"),
        (Method::GET, "/mailbox/messages"),
        (Method::GET, "/rest/v1/notes"),
        (Method::GET, "/anything/else"),
    ] {
        routes.push((method, format!("/studio/v1/service{path}")));
    }
    routes
}

async fn all_refuse(studio: &TestStudio, token: Option<&str>, status: u16, code: &str) {
    for (method, path) in routes() {
        let body = (method == Method::POST).then(|| json!({ "email": "eve@example.com" }));
        let answer = studio.send(method.clone(), &path, token, body).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    let entries: i64 =
        studio.sql.query_one("select count(*) from longhouse.studio_audit", &[]).await.unwrap().get(0);
    assert_eq!(entries, 0, "who is refused leaves nothing");
}

#[tokio::test]
async fn visitors_get_nothing() {
    let studio = TestStudio::start().await;
    all_refuse(&studio, None, 401, "missing_api_key").await;
    all_refuse(&studio, Some("no.token.atall"), 401, "malformed_token").await;
}

#[tokio::test]
async fn keys_are_nobody_not_even_the_servers() {
    let studio = TestStudio::start().await;
    for key in [&studio.keys.anon_key, &studio.keys.publishable_key, &studio.keys.service_role_key] {
        all_refuse(&studio, Some(key.expose_secret()), 403, "not_operator").await;
    }
}

#[tokio::test]
async fn a_user_gets_403_everywhere_whatever_they_write_into_their_metadata() {
    let studio = TestStudio::start().await;
    let claim = json!({
        operators::CLAIM: true, "app_metadata": { operators::CLAIM: true }, "role": "service_role",
    });
    let eve = studio.sign_up("eve@example.com", claim.clone()).await;
    all_refuse(&studio, Some(&eve), 403, "not_operator").await;
    let change = async |body| studio.send(Method::PUT, "/auth/v1/user", Some(&eve), Some(body)).await;
    let stolen = change(json!({ "app_metadata": { operators::CLAIM: true } })).await;
    assert_eq!(stolen.status, 403, "{stolen:?}");
    assert_eq!(change(json!({ "data": claim })).await.status, 200);
    let again = studio.sign_in("eve@example.com").await;
    all_refuse(&studio, Some(&again), 403, "not_operator").await;
}

#[tokio::test]
async fn an_operator_gets_in() {
    let studio = TestStudio::start().await;
    studio.run("create table public.notes (id int primary key)").await;
    let olga = studio.operator().await;
    for (method, path) in routes().into_iter().filter(|(method, _)| *method == Method::GET) {
        let answer = studio.send(method, &path, Some(&olga), None).await;
        let wanted = match path.as_str() {
            // Files are not served in this test; the others are not for operators either.
            path if path.contains("/storage/") || path.contains("/rest/") || path.contains("/anything") => {
                404
            }
            _ => 200,
        };
        assert_eq!(answer.status, wanted, "{path}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_right_that_was_taken_away_ends_at_once() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    assert_eq!(studio.get("/studio/v1/overview", &olga).await.status, 200);
    assert!(operators::revoke(&studio.sql, "olga@example.com").await.unwrap().is_some());
    assert!(operators::list(&studio.sql).await.unwrap().is_empty());
    all_refuse(&studio, Some(&olga), 403, "not_operator").await;
}

#[tokio::test]
async fn a_ban_ends_it_at_once() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    studio.run("update auth.users set banned_until = now() + interval '1 hour'").await;
    all_refuse(&studio, Some(&olga), 403, "not_operator").await;
}

#[tokio::test]
async fn a_token_outlives_its_session_but_opens_nothing() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    assert_eq!(studio.send(Method::POST, "/auth/v1/logout", Some(&olga), None).await.status, 204);
    all_refuse(&studio, Some(&olga), 403, "session_ended").await;
}

#[tokio::test]
async fn a_second_factor_must_be_shown() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    studio
        .run(
            "insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at, secret)
             select gen_random_uuid(), id, 'totp', 'verified', now(), now(), 's' from auth.users",
        )
        .await;
    all_refuse(&studio, Some(&olga), 403, "mfa_required").await;
}
