//! `POST /token?grant_type=refresh_token`.

use std::collections::HashSet;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Answer, TestAuth};

async fn refresh(auth: &TestAuth, token: &Value) -> Answer {
    auth.post("/token?grant_type=refresh_token", json!({ "refresh_token": token })).await
}

/// Moves everything that happened to tokens and sessions into the past.
async fn pass(auth: &TestAuth, seconds: i32) {
    let sql = format!(
        "update auth.refresh_tokens set updated_at = updated_at - interval '{seconds} s';
         update auth.sessions set created_at = created_at - interval '{seconds} s',
           refreshed_at = refreshed_at - interval '{seconds} s', not_after = not_after - interval '{seconds} s'"
    );
    auth.sql.batch_execute(&sql).await.unwrap();
}

async fn live_tokens(auth: &TestAuth) -> i64 {
    let sql = "select count(*) from auth.refresh_tokens where not revoked";
    auth.sql.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn each_refresh_replaces_the_token() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let second = refresh(&auth, &first["refresh_token"]).await;
    assert_eq!(second.status, 200, "{}", second.text);
    assert_ne!(second.body["refresh_token"], first["refresh_token"]);
    assert_eq!(second.body["user"]["email"], "ann@example.com");
    let (before, after) = (auth.claims(&first), auth.claims(&second.body));
    for claim in ["sub", "session_id", "aal", "amr", "role"] {
        assert_eq!(before[claim], after[claim], "{claim}");
    }
    let third = refresh(&auth, &second.body["refresh_token"]).await;
    assert_eq!(third.status, 200);
    assert_eq!(live_tokens(&auth).await, 1);
    assert_eq!(auth.get_as(third.text_at("/access_token"), "/user").await.status, 200);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_however_late() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let second = refresh(&auth, &first["refresh_token"]).await;
    pass(&auth, 100_000).await;
    let again = refresh(&auth, &first["refresh_token"]).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.body["refresh_token"], second.body["refresh_token"]);
    assert_eq!(live_tokens(&auth).await, 1);
}

#[tokio::test]
async fn tokens_that_were_just_used_get_the_newest() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let second = refresh(&auth, &first["refresh_token"]).await;
    let third = refresh(&auth, &second.body["refresh_token"]).await;
    let again = refresh(&auth, &first["refresh_token"]).await;
    assert_eq!(again.body["refresh_token"], third.body["refresh_token"]);
}

#[tokio::test]
async fn a_stolen_token_ends_the_chain() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let second = refresh(&auth, &first["refresh_token"]).await;
    let third = refresh(&auth, &second.body["refresh_token"]).await;
    pass(&auth, 11).await;
    for token in [&first["refresh_token"], &third.body["refresh_token"], &second.body["refresh_token"]] {
        let refused = refresh(&auth, token).await;
        assert_eq!((refused.status, refused.code()), (400, "refresh_token_already_used"));
        assert_eq!(refused.body["msg"], "Invalid Refresh Token: Already Used");
    }
    assert_eq!(live_tokens(&auth).await, 0);
    let sql = "select count(*) from auth.audit_log_entries where payload ->> 'action' = 'token_revoked'";
    assert!(auth.sql.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0, "and the operator may know");
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200, "a new session is fine");
}

#[tokio::test]
async fn without_rotation_a_stolen_token_ends_nothing() {
    let auth = TestAuth::with(|options| options.sessions.rotation = false).await;
    let first = auth.signed_up("ann@example.com").await;
    let second = refresh(&auth, &first["refresh_token"]).await;
    let third = refresh(&auth, &second.body["refresh_token"]).await;
    pass(&auth, 11).await;
    assert_eq!(refresh(&auth, &first["refresh_token"]).await.code(), "refresh_token_already_used");
    assert_eq!(refresh(&auth, &third.body["refresh_token"]).await.status, 200);
}

/// The bar of issue 4.
#[rstest]
#[case::usual(false)]
#[case::with_a_hook(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_uses_at_once_leave_one_chain(#[case] hook: bool) {
    let auth = TestAuth::with(|options| {
        options.access_token_hook = hook.then(|| "public.hook".to_owned());
    })
    .await;
    if hook {
        let sql = "create function public.hook(event jsonb) returns jsonb language sql as
              $$ select jsonb_set(event, '{claims,plan}', '\"gold\"') $$;
            grant usage on schema public to supabase_auth_admin";
        auth.sql.batch_execute(sql).await.unwrap();
    }
    let first = auth.signed_up("ann@example.com").await;
    let uses = (0..1000).map(|_| refresh(&auth, &first["refresh_token"]));
    let answers = futures_util::future::join_all(uses).await;
    let tokens: HashSet<_> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.text_at("/refresh_token").to_owned()
        })
        .collect();
    assert_eq!(tokens.len(), 1, "everybody has the same new token");
    assert_eq!(live_tokens(&auth).await, 1);
    let rows: i64 = auth.sql.query_one("select count(*) from auth.refresh_tokens", &[]).await.unwrap().get(0);
    assert_eq!(rows, 2);
    let next = refresh(&auth, &json!(tokens.iter().next())).await;
    assert_eq!(next.status, 200);
    assert_eq!(auth.claims(&next.body).get("plan"), hook.then(|| json!("gold")).as_ref());
}

/// Servers know nothing of each other: the database decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_at_once_on_many_servers_leave_one_chain() {
    let auth = TestAuth::start().await;
    let first = auth.signed_up("ann@example.com").await;
    let mut servers = Vec::new();
    for _ in 0..16 {
        servers.push(auth.another_server().await);
    }
    let uses = (0..160).map(async |index| {
        let path =
            format!("http://{}/auth/v1/token?grant_type=refresh_token", servers[index % servers.len()]);
        auth.post(&path, json!({ "refresh_token": first["refresh_token"] })).await
    });
    let answers = futures_util::future::join_all(uses).await;
    let tokens: HashSet<_> =
        answers.iter().map(|answer| answer.text_at("/refresh_token").to_owned()).collect();
    assert_eq!((tokens.len(), live_tokens(&auth).await), (1, 1));
    let session = auth.sql.query_one("select count(*) from auth.refresh_tokens", &[]).await.unwrap();
    assert_eq!(session.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn sessions_end() {
    let auth = TestAuth::with(|options| {
        options.sessions.timebox = Some(Duration::from_secs(1000));
        options.sessions.inactivity = Some(Duration::from_secs(400));
    })
    .await;
    let session = auth.signed_up("ann@example.com").await;
    let expiry = auth.claims(&session)["exp"].as_i64().unwrap();
    assert!(expiry <= chrono::Utc::now().timestamp() + 1000, "tokens end with their session");
    pass(&auth, 350).await;
    let second = refresh(&auth, &session["refresh_token"]).await;
    pass(&auth, 350).await;
    let third = refresh(&auth, &second.body["refresh_token"]).await;
    assert_eq!(third.status, 200, "{}", third.text);
    pass(&auth, 350).await;
    let refused = refresh(&auth, &third.body["refresh_token"]).await;
    assert_eq!((refused.status, refused.code()), (400, "session_expired"), "by its timebox");
    assert_eq!(refused.body["msg"], "Invalid Refresh Token: Session Expired");

    let idle = auth.sign_in("ann@example.com", "correct horse").await;
    pass(&auth, 401).await;
    let refused = refresh(&auth, &idle.body["refresh_token"]).await;
    assert_eq!(refused.body["msg"], "Invalid Refresh Token: Session Expired (Inactivity)");
}

#[tokio::test]
async fn an_account_may_have_one_session_only() {
    let auth = TestAuth::with(|options| options.sessions.single_per_user = true).await;
    let first = auth.signed_up("ann@example.com").await;
    let second = auth.sign_in("ann@example.com", "correct horse").await;
    assert_eq!(refresh(&auth, &first["refresh_token"]).await.status, 400);
    assert_eq!(refresh(&auth, &second.body["refresh_token"]).await.status, 200);
}

#[tokio::test]
async fn banned_people_are_out() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    auth.sql.execute("update auth.users set banned_until = now() + interval '100 years'", &[]).await.unwrap();
    assert_eq!(refresh(&auth, &session["refresh_token"]).await.code(), "user_banned");
    auth.sql.execute("update auth.users set banned_until = null", &[]).await.unwrap();
    assert_eq!(refresh(&auth, &session["refresh_token"]).await.status, 200);
}

#[tokio::test]
async fn unknown_tokens_are_refused() {
    let auth = TestAuth::start().await;
    for (token, code) in [
        (json!("abcdefghijkl"), "refresh_token_not_found"),
        (json!("AAAAAAAAAAAAAAAAAAAAAA"), "refresh_token_not_found"),
        (json!("short"), "validation_failed"),
        (json!("with spaces and more"), "validation_failed"),
        (json!("x".repeat(300)), "validation_failed"),
        (Value::Null, "validation_failed"),
    ] {
        let refused = refresh(&auth, &token).await;
        assert_eq!((refused.status, refused.code()), (400, code), "{token}");
    }
}

#[tokio::test]
async fn a_session_notes_who_refreshes_it() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let headers = [("user-agent", "Browser/2"), ("x-forwarded-for", "192.0.2.7")];
    let body = json!({ "refresh_token": session["refresh_token"] });
    let path = "/token?grant_type=refresh_token";
    auth.send(reqwest::Method::POST, path, None, &headers, Some(body)).await;
    let sql = "select user_agent, host(ip), refreshed_at is not null from auth.sessions";
    let row = auth.sql.query_one(sql, &[]).await.unwrap();
    let row: (String, String, bool) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(row, ("Browser/2".into(), "192.0.2.7".into(), true));
}
