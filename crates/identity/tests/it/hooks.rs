//! The access token hook, as a function of the project's database.

use serde_json::{Value, json};

use crate::harness::TestAuth;

/// A service whose hook has this body (of `event jsonb`), and one that signs up.
async fn with_hook(body: &str) -> TestAuth {
    let auth = TestAuth::with(|options| {
        options.access_token_hook = Some("public.access_token".into());
        options.email.autoconfirm = true;
    })
    .await;
    let sql = format!(
        "create function public.access_token(event jsonb) returns jsonb language plpgsql as $hook$ {body} $hook$;
         grant execute on function public.access_token to supabase_auth_admin;
         revoke execute on function public.access_token from public, anon, authenticated;"
    );
    auth.sql.batch_execute(&sql).await.unwrap();
    auth
}

async fn sign_up(auth: &TestAuth) -> crate::harness::Answer {
    auth.post("/signup", json!({ "email": "ann@example.com", "password": "correct horse" })).await
}

#[tokio::test]
async fn a_hook_adds_claims_to_every_token() {
    let auth = with_hook(
        "begin
           return jsonb_set(event, '{claims,tenant}', to_jsonb(7))
             || jsonb_build_object('claims', (event -> 'claims') || jsonb_build_object('tenant', 7,
                  'method', event ->> 'authentication_method', 'who', event ->> 'user_id'));
         end",
    )
    .await;
    let session = sign_up(&auth).await.body;
    let claims = auth.claims(&session);
    assert_eq!((&claims["tenant"], &claims["method"]), (&json!(7), &json!("password")));
    assert_eq!(claims["who"], claims["sub"]);
    let refreshed = auth
        .post("/token?grant_type=refresh_token", json!({ "refresh_token": session["refresh_token"] }))
        .await;
    let claims = auth.claims(&refreshed.body);
    assert_eq!((&claims["tenant"], &claims["method"]), (&json!(7), &json!("token_refresh")));
}

#[tokio::test]
async fn a_hook_may_refuse_in_its_own_words() {
    let auth = with_hook(
        "begin
           return '{\"error\": {\"http_code\": 403, \"message\": \"Ask your administrator\"}}'::jsonb;
         end",
    )
    .await;
    let answer = sign_up(&auth).await;
    assert_eq!((answer.status, answer.text_at("/msg")), (403, "Ask your administrator"));
    let accounts: i64 = auth.sql.query_one("select count(*) from auth.sessions", &[]).await.unwrap().get(0);
    assert_eq!(accounts, 0, "what was refused did not happen");
}

#[tokio::test]
async fn broken_hooks_sign_nobody_in() {
    for (body, status, message) in [
        (
            "begin return jsonb_build_object('claims', (event -> 'claims') - 'session_id'); end",
            500,
            "session_id is required",
        ),
        ("begin return event - 'claims'; end", 500, "output claims field is missing"),
        ("begin return null; end", 500, "no JSON object"),
        ("begin raise exception 'secret detail'; end", 500, "Unexpected failure"),
    ] {
        let auth = with_hook(body).await;
        let answer = sign_up(&auth).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.text_at("/msg").contains(message), "{}", answer.text);
        assert!(!answer.text.contains("secret detail"));
    }
}

#[tokio::test]
async fn a_hook_that_hangs_is_cut_off() {
    let auth = with_hook("begin perform pg_sleep(30); return event; end").await;
    let started = std::time::Instant::now();
    let answer = sign_up(&auth).await;
    assert_eq!((answer.status, answer.code()), (422, "hook_timeout"), "{}", answer.text);
    assert!(started.elapsed().as_secs() < 15);
    let waiting: Value = json!(null);
    assert_eq!(answer.body.get("access_token").unwrap_or(&waiting), &waiting);
}
