//! `POST /signup`.

use serde_json::{Value, json};

use crate::harness::TestAuth;

fn ann() -> Value {
    json!({ "email": "Ann@Example.com", "password": "correct horse", "data": { "name": "Ann" } })
}

#[tokio::test]
async fn an_account_is_confirmed_by_the_code_of_its_mail() {
    let auth = TestAuth::start().await;
    let answer = auth.post("/signup", ann()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["email"], "ann@example.com");
    assert_eq!(answer.body["user_metadata"]["name"], "Ann");
    assert_eq!(answer.body["app_metadata"], json!({ "provider": "email", "providers": ["email"] }));
    assert_eq!(answer.body["identities"][0]["provider"], "email");
    assert!(answer.body.get("access_token").is_none() && answer.body.get("email_confirmed_at").is_none());

    let refused = auth.sign_in("ann@example.com", "correct horse").await;
    assert_eq!((refused.status, refused.code()), (400, "email_not_confirmed"));

    let mail = auth.last_mail("ann@example.com").await;
    assert_eq!(mail.kind, "confirmation");
    let body = json!({ "type": "signup", "email": "ann@example.com", "token": mail.code() });
    let session = auth.post("/verify", body.clone()).await;
    assert_eq!(session.status, 200, "{}", session.text);
    let user = &session.body["user"];
    assert_eq!(user["id"], answer.body["id"]);
    assert!(user["email_confirmed_at"].is_string() && user["confirmed_at"].is_string());
    assert_eq!(user["user_metadata"]["email_verified"], true);
    assert_eq!(user["identities"][0]["identity_data"]["email_verified"], true);
    let claims = auth.claims(&session.body);
    assert_eq!(claims["amr"][0]["method"], "otp");
    assert_eq!((claims["role"].as_str(), claims["aal"].as_str()), (Some("authenticated"), Some("aal1")));

    let again = auth.post("/verify", body).await;
    assert_eq!((again.status, again.code()), (403, "otp_expired"), "a code works once");
    assert_eq!(auth.sign_in("ANN@example.com", "correct horse").await.status, 200);
}

#[tokio::test]
async fn without_confirmation_there_is_a_session_at_once() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    let answer = auth.post("/signup", ann()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(auth.claims(&answer.body)["amr"][0]["method"], "password");
    assert_eq!(answer.body["user"]["identities"][0]["id"], answer.body["user"]["id"]);
    assert_eq!(auth.mails("ann@example.com").await, 0);
    let again = auth.post("/signup", ann()).await;
    assert_eq!((again.status, again.code()), (422, "user_already_exists"));
    assert_eq!(again.body["msg"], "User already registered");
}

/// Names and kinds of all members, so that answers can be compared without their values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::String(text) if text.contains('@') => json!(text),
        other => json!(match other {
            Value::String(_) => "text",
            Value::Null => "null",
            _ => "value",
        }),
    }
}

#[tokio::test]
async fn an_answer_does_not_tell_whether_somebody_has_an_account() {
    let auth = TestAuth::start().await;
    let new = auth.post("/signup", ann()).await;
    let unconfirmed = auth.post("/signup", ann()).await;
    let mail = auth.last_mail("ann@example.com").await;
    auth.post("/verify", json!({ "type": "signup", "token_hash": mail.token_hash() })).await;
    let confirmed = auth.post("/signup", ann()).await;
    let once_more = auth.post("/signup", ann()).await;
    let elsewhere = format!("http://{}/auth/v1/signup", auth.another_server().await);
    let elsewhere = auth.post(&elsewhere, ann()).await;
    for answer in [&unconfirmed, &confirmed, &once_more, &elsewhere] {
        assert_eq!(answer.status, 200);
        assert_eq!(shape(&answer.body), shape(&new.body));
    }
    assert_eq!(unconfirmed.body["id"], new.body["id"]);
    assert_ne!(confirmed.body["id"], new.body["id"], "the account's id stays secret");
    assert_eq!(confirmed.body["id"], once_more.body["id"], "as it would for an unconfirmed account");
    assert_eq!(confirmed.body["id"], elsewhere.body["id"], "and on every server");
    assert_eq!(auth.mails("ann@example.com").await, 2, "no mail to a confirmed account");
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);
}

#[tokio::test]
async fn whoever_signs_up_again_too_soon_is_told_so_account_or_not() {
    let auth =
        TestAuth::with(|options| options.email.max_frequency = std::time::Duration::from_secs(60)).await;
    auth.signed_up("bob@example.com").await;
    for email in ["ann@example.com", "bob@example.com"] {
        let body = json!({ "email": email, "password": "correct horse" });
        assert_eq!(auth.post("/signup", body.clone()).await.status, 200);
        let soon = auth.post("/signup", body).await;
        assert_eq!((soon.status, soon.code()), (429, "over_email_send_rate_limit"), "{email}");
        let message = soon.text_at("/msg");
        assert!(message.starts_with("For security purposes, you can only request this after "), "{message}");
        assert!((1..=60).contains(&soon.header("retry-after").parse::<u32>().unwrap()));
    }
}

#[tokio::test]
async fn somebody_elses_password_and_data_do_not_enter_an_unconfirmed_account() {
    let auth = TestAuth::start().await;
    auth.post("/signup", ann()).await;
    let other =
        json!({ "email": "ann@example.com", "password": "other password", "data": { "name": "Eve" } });
    let answer = auth.post("/signup", other).await;
    assert_eq!(answer.body["user_metadata"]["name"], "Eve", "as for a new account");
    let mail = auth.last_mail("ann@example.com").await;
    let session = auth.post("/verify", json!({ "type": "signup", "token_hash": mail.token_hash() })).await;
    assert_eq!(session.body["user"]["user_metadata"]["name"], "Ann");
    assert_eq!(auth.sign_in("ann@example.com", "other password").await.code(), "invalid_credentials");
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);
}

#[tokio::test]
async fn sign_ups_at_once_make_one_account() {
    let auth = TestAuth::start().await;
    let answers = futures_util::future::join_all((0..8).map(|_| auth.post("/signup", ann()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let sql = "select count(*), (select count(*) from auth.identities) from auth.users";
    let row = auth.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
}

#[tokio::test]
async fn wrong_requests_are_named() {
    let auth = TestAuth::with(|options| {
        options.password.required_characters = vec!["0123456789".into()];
        options.phone.enabled = false;
    })
    .await;
    let long = "x".repeat(20_000);
    for (body, status, code) in [
        (json!({ "email": "ann", "password": "correct 1" }), 400, "validation_failed"),
        (json!({ "email": "ann@example.com" }), 400, "validation_failed"),
        (json!({ "email": "ann@example.com", "password": "horse" }), 422, "weak_password"),
        (
            json!({ "email": "ann@example.com", "phone": "12025550199", "password": "correct 1" }),
            400,
            "validation_failed",
        ),
        (json!({ "phone": "12025550199", "password": "correct 1" }), 400, "phone_provider_disabled"),
        (
            json!({ "email": "ann@example.com", "password": "correct 1", "code_challenge": "x" }),
            400,
            "validation_failed",
        ),
        (
            json!({ "email": "ann@example.com", "password": "correct 1", "data": { "long": long } }),
            400,
            "validation_failed",
        ),
        (json!({}), 422, "anonymous_provider_disabled"),
        (json!({ "email": 7 }), 400, "bad_json"),
    ] {
        let answer = auth.post("/signup", body.clone()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}");
    }
    let weak = auth.post("/signup", json!({ "email": "ann@example.com", "password": "x" })).await;
    assert_eq!(weak.body["weak_password"]["reasons"], json!(["length", "characters"]));
    let headers = [("x-supabase-api-version", "2024-01-01")];
    let newer = auth.send(reqwest::Method::POST, "/signup", None, &headers, Some(json!({}))).await;
    assert_eq!(newer.body["code"], "anonymous_provider_disabled");
}

#[tokio::test]
async fn nobody_signs_up_where_that_is_disabled() {
    let auth = TestAuth::with(|options| {
        options.disable_signup = true;
        options.anonymous = true;
    })
    .await;
    for path in ["/signup", "/otp"] {
        let answer =
            auth.post(path, json!({ "email": "ann@example.com", "password": "correct horse" })).await;
        assert_eq!((answer.status, answer.code()), (422, "signup_disabled"), "{path}");
    }
    assert_eq!(auth.post("/signup", json!({})).await.code(), "signup_disabled");
}

#[tokio::test]
async fn a_trigger_of_the_project_may_refuse_an_account() {
    let auth = TestAuth::start().await;
    let trigger = "create function public.refuse() returns trigger language plpgsql as
          $$ begin raise exception 'not you, %', new.raw_user_meta_data ->> 'name'; end $$;
        create trigger refuse before insert on auth.users for each row execute function public.refuse()";
    auth.sql.batch_execute(trigger).await.unwrap();
    let answer = auth.post("/signup", ann()).await;
    assert_eq!((answer.status, answer.code()), (500, "unexpected_failure"));
    assert_eq!(answer.body["msg"], "Database error saving new user");
}

#[tokio::test]
async fn a_visitor_becomes_a_person_with_the_same_id() {
    let auth = TestAuth::with(|options| options.anonymous = true).await;
    let visitor = auth.post("/signup", json!({ "data": { "cart": [1, 2] } })).await;
    assert_eq!(visitor.status, 200, "{}", visitor.text);
    let claims = auth.claims(&visitor.body);
    assert_eq!((&claims["is_anonymous"], &claims["amr"][0]["method"]), (&json!(true), &json!("anonymous")));
    let token = visitor.text_at("/access_token");

    let alone = auth.put_as(token, "/user", json!({ "password": "correct horse" })).await;
    assert_eq!((alone.status, alone.code()), (422, "validation_failed"));
    let changed = auth.put_as(token, "/user", json!({ "email": "ann@example.com" })).await;
    assert_eq!(changed.body["new_email"], "ann@example.com");
    assert_eq!(changed.body["is_anonymous"], true, "not yet");
    let mail = auth.last_mail("ann@example.com").await;
    assert_eq!(mail.kind, "email_change");
    let body = json!({ "type": "email_change", "email": "ann@example.com", "token": mail.code() });
    let session = auth.post("/verify", body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    let user = &session.body["user"];
    assert_eq!(user["id"], visitor.body["user"]["id"]);
    assert_eq!((&user["is_anonymous"], &user["email"]), (&json!(false), &json!("ann@example.com")));
    assert_eq!(user["user_metadata"]["cart"], json!([1, 2]));
    assert_eq!(user["app_metadata"]["providers"], json!(["email"]));

    let token = session.text_at("/access_token");
    assert_eq!(auth.put_as(token, "/user", json!({ "password": "correct horse" })).await.status, 200);
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);
}

#[tokio::test]
async fn where_addresses_need_no_proof_a_visitor_takes_one_at_once() {
    let auth = TestAuth::with(|options| {
        options.anonymous = true;
        options.email.autoconfirm = true;
    })
    .await;
    let visitor = auth.post("/signup", json!({})).await;
    let token = visitor.text_at("/access_token");
    let body = json!({ "email": "ann@example.com", "password": "correct horse" });
    let user = auth.put_as(token, "/user", body).await;
    assert_eq!((user.status, &user.body["is_anonymous"]), (200, &json!(false)), "{}", user.text);
    let signed_in = auth.sign_in("ann@example.com", "correct horse").await;
    assert_eq!(signed_in.body["user"]["id"], visitor.body["user"]["id"]);
}
