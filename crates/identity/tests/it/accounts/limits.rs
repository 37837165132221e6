//! Limits as clients meet them.

use serde_json::json;

use crate::harness::{Answer, TestAuth};

async fn from(auth: &TestAuth, ip: &str, path: &str, body: serde_json::Value) -> Answer {
    auth.send(reqwest::Method::POST, path, None, &[("x-forwarded-for", ip)], Some(body)).await
}

#[tokio::test]
async fn an_address_may_ask_so_often() {
    let auth = TestAuth::with(|options| options.limits.otp = 3).await;
    let ask = async |ip: &str| from(&auth, ip, "/recover", json!({ "email": "nobody@example.com" })).await;
    for _ in 0..3 {
        assert_eq!(ask("192.0.2.1").await.status, 200);
    }
    let refused = ask("192.0.2.1").await;
    assert_eq!((refused.status, refused.code()), (429, "over_request_rate_limit"));
    assert_eq!((refused.header("x-ratelimit-limit"), refused.header("x-ratelimit-remaining")), ("3", "0"));
    let wait: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=100).contains(&wait), "{wait}");
    assert_eq!(ask("192.0.2.2").await.status, 200, "others are not concerned");
}

#[tokio::test]
async fn guessing_a_password_ends_soon_whoever_guesses() {
    let auth = TestAuth::with(|options| options.limits.failures_per_account = 3).await;
    auth.signed_up("ann@example.com").await;
    for email in ["ann@example.com", "nobody@example.com"] {
        let guess = async |ip: &str, password: &str| {
            let body = json!({ "email": email, "password": password });
            from(&auth, ip, "/token?grant_type=password", body).await
        };
        for ip in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(guess(ip, "wrong").await.code(), "invalid_credentials");
        }
        let refused = guess("192.0.2.4", "correct horse").await;
        assert_eq!((refused.status, refused.code()), (429, "over_request_rate_limit"), "{email}");
    }
}

#[tokio::test]
async fn guessing_a_code_ends_soon_too() {
    let auth = TestAuth::with(|options| options.limits.failures_per_account = 3).await;
    auth.post("/otp", json!({ "email": "ann@example.com" })).await;
    let code = auth.last_mail("ann@example.com").await.code().to_owned();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let guess = async |code: &str| {
        auth.post("/verify", json!({ "type": "email", "email": "ann@example.com", "token": code })).await
    };
    for _ in 0..3 {
        assert_eq!(guess(wrong).await.code(), "otp_expired");
    }
    assert_eq!(guess(&code).await.code(), "over_request_rate_limit");
}

#[tokio::test]
async fn the_project_has_a_limit_of_mails_and_it_tells_nothing() {
    let auth = TestAuth::with(|options| options.limits.emails_per_hour = 2).await;
    for email in ["ann@example.com", "bob@example.com"] {
        assert_eq!(auth.post("/otp", json!({ "email": email })).await.status, 200);
    }
    for (path, email) in
        [("/otp", "eve@example.com"), ("/recover", "ann@example.com"), ("/recover", "nobody@example.com")]
    {
        let refused = auth.post(path, json!({ "email": email })).await;
        assert_eq!((refused.status, refused.code()), (429, "over_email_send_rate_limit"), "{path} {email}");
    }
    let sql = "update longhouse.mail_outbox set created_at = created_at - interval '61 minutes'";
    auth.sql.execute(sql, &[]).await.unwrap();
    assert_eq!(auth.post("/otp", json!({ "email": "eve@example.com" })).await.status, 200);
}

#[tokio::test]
async fn visitors_are_counted_by_the_hour() {
    let auth = TestAuth::with(|options| {
        options.anonymous = true;
        options.limits.anonymous = 1;
    })
    .await;
    assert_eq!(from(&auth, "192.0.2.1", "/signup", json!({})).await.status, 200);
    let refused = from(&auth, "192.0.2.1", "/signup", json!({})).await;
    assert_eq!((refused.status, refused.code()), (429, "over_request_rate_limit"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 3_000);
}
