//! Links and codes by mail: `/verify`, `/otp`, `/magiclink`, `/recover`, `/resend`, and code exchanges.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rstest::rstest;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::TestAuth;

const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters-0123";

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

#[tokio::test]
async fn a_link_signs_in_with_tokens_in_the_fragment() {
    let auth = TestAuth::start().await;
    auth.post("/signup", json!({ "email": "ann@example.com", "password": "correct horse" })).await;
    let link = auth.last_mail("ann@example.com").await.link().to_owned();
    let scanned = auth.send(reqwest::Method::HEAD, &link, None, &[], None).await;
    assert_eq!(scanned.status, 405, "scanners do not use links up");
    let answer = auth.get(&link).await;
    assert_eq!((answer.status, answer.header("cache-control")), (303, "no-store"));
    assert!(answer.header("location").starts_with("http://localhost:3000#access_token="));
    assert_eq!(answer.in_fragment("type").as_deref(), Some("signup"));
    assert_eq!(answer.in_fragment("expires_in").as_deref(), Some("3600"));
    let token = answer.in_fragment("access_token").unwrap();
    assert_eq!(auth.get_as(&token, "/user").await.body["email"], "ann@example.com");
    let body = json!({ "refresh_token": answer.in_fragment("refresh_token") });
    assert_eq!(auth.post("/token?grant_type=refresh_token", body).await.status, 200);

    let again = auth.get(&link).await;
    assert_eq!(again.status, 303);
    assert_eq!(again.in_fragment("error").as_deref(), Some("access_denied"));
    assert_eq!(again.in_fragment("error_code").as_deref(), Some("otp_expired"));
    let description = again.in_fragment("error_description");
    assert_eq!(description.as_deref(), Some("Email link is invalid or has expired"));
    assert_eq!(again.in_query("error"), None);
}

#[tokio::test]
async fn a_link_followed_twice_at_once_works_once() {
    let auth = TestAuth::start().await;
    auth.post("/signup", json!({ "email": "ann@example.com", "password": "correct horse" })).await;
    let link = auth.last_mail("ann@example.com").await.link().to_owned();
    let answers = futures_util::future::join_all((0..8).map(|_| auth.get(&link))).await;
    let worked = answers.iter().filter(|answer| answer.in_fragment("access_token").is_some()).count();
    assert_eq!(worked, 1);
}

#[rstest]
#[case::allowed("https://app.example/welcome?x=1", "https://app.example/welcome?x=1")]
#[case::of_the_site("http://localhost:3000/deep", "http://localhost:3000/deep")]
#[case::not_allowed("https://evil.example/", "http://localhost:3000")]
#[tokio::test]
async fn links_end_only_at_allowed_addresses(#[case] wish: &str, #[case] end: &str) {
    let auth =
        TestAuth::with(|options| options.redirect_allow_list = vec!["https://app.example/**".into()]).await;
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("redirect_to", wish).finish();
    let body = json!({ "email": "ann@example.com", "password": "correct horse" });
    assert_eq!(auth.post(&format!("/signup?{query}"), body).await.status, 200);
    let link = auth.last_mail("ann@example.com").await.link().to_owned();
    let answer = auth.get(&link).await;
    assert_eq!(answer.header("location").split('#').next(), Some(end));
    // Nor may somebody else write the end into a link.
    let forged =
        format!("{}&redirect_to=https%3A%2F%2Fevil.example", link.split("&redirect_to").next().unwrap());
    assert!(auth.get(&forged).await.header("location").starts_with("http://localhost:3000#"));
}

#[tokio::test]
async fn a_code_exchange_needs_the_verifier_of_the_page_that_began_it() {
    let auth = TestAuth::start().await;
    let body = json!({ "email": "ann@example.com", "password": "correct horse",
        "code_challenge": challenge(), "code_challenge_method": "s256" });
    assert_eq!(auth.post("/signup", body).await.status, 200);
    let mail = auth.last_mail("ann@example.com").await;
    assert!(mail.token_hash().starts_with("pkce_"));
    let answer = auth.get(mail.link()).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let code = answer.in_query("code").unwrap();
    assert!(answer.location().fragment().is_none(), "no tokens pass through the address");

    let exchange = async |code: &str, verifier: &str| {
        let body = json!({ "auth_code": code, "code_verifier": verifier });
        auth.post("/token?grant_type=pkce", body).await
    };
    let wrong = exchange(&code, "another-verifier-of-more-than-forty-three-characters").await;
    assert_eq!((wrong.status, wrong.code()), (400, "bad_code_verifier"));
    assert_eq!(exchange("unknown", VERIFIER).await.code(), "flow_state_not_found");
    assert_eq!(exchange("", VERIFIER).await.code(), "validation_failed");
    let session = exchange(&code, VERIFIER).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(auth.claims(&session.body)["amr"][0]["method"], "email/signup");
    let again = exchange(&code, VERIFIER).await;
    assert_eq!((again.status, again.code()), (404, "flow_state_not_found"), "a code works once");

    let failed = auth.get(mail.link()).await;
    assert_eq!(failed.in_query("error_code").as_deref(), Some("otp_expired"));
    assert_eq!(failed.in_fragment("error_code").as_deref(), Some("otp_expired"));
}

#[tokio::test]
async fn codes_are_exchanged_soon_or_never_but_links_may_be_opened_late() {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    let body =
        json!({ "email": "ann@example.com", "code_challenge": challenge(), "code_challenge_method": "s256" });
    auth.post("/recover", body).await;
    let sql = "update auth.flow_state set created_at = now() - interval '50 minutes'";
    auth.sql.execute(sql, &[]).await.unwrap();
    let link = auth.last_mail("ann@example.com").await.link().to_owned();
    let code = auth.get(&link).await.in_query("code").unwrap();
    let sql = "update auth.flow_state set auth_code_issued_at = now() - interval '301 s'";
    auth.sql.execute(sql, &[]).await.unwrap();
    let body = json!({ "auth_code": code, "code_verifier": VERIFIER });
    let late = auth.post("/token?grant_type=pkce", body).await;
    assert_eq!((late.status, late.code()), (422, "flow_state_expired"));
}

#[rstest]
#[case("signup", "signup", "confirmation")]
#[case("email", "email", "confirmation")]
#[case("recovery", "recovery", "recovery")]
#[case("magiclink", "magiclink", "magic_link")]
#[case("email", "magiclink", "magic_link")]
#[tokio::test]
async fn codes_are_typed_in_where_they_were_sent(
    #[case] kind: &str,
    #[case] sent: &str,
    #[case] template: &str,
) {
    let auth = TestAuth::start().await;
    let name = json!({ "email": "ann@example.com" });
    match sent {
        "recovery" => {
            auth.signed_up("ann@example.com").await;
            auth.post("/recover", name).await;
        }
        "magiclink" => {
            auth.signed_up("ann@example.com").await;
            auth.post("/otp", name).await;
        }
        _ => {
            auth.post("/otp", name).await;
        }
    }
    let mail = auth.last_mail("ann@example.com").await;
    assert_eq!(mail.kind, template);
    assert!(mail.code().len() == 6 && mail.code().bytes().all(|byte| byte.is_ascii_digit()));
    let verify = async |email: &str, code: &str| {
        auth.post("/verify", json!({ "type": kind, "email": email, "token": code })).await
    };
    let wrong = if mail.code() == "000000" { "000001" } else { "000000" };
    assert_eq!(verify("ann@example.com", wrong).await.code(), "otp_expired");
    assert_eq!(verify("bob@example.com", mail.code()).await.code(), "otp_expired");
    let session = verify("Ann@example.com", mail.code()).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(verify("ann@example.com", mail.code()).await.status, 403);
}

#[tokio::test]
async fn codes_expire() {
    let auth = TestAuth::start().await;
    auth.post("/otp", json!({ "email": "ann@example.com" })).await;
    let mail = auth.last_mail("ann@example.com").await;
    let sql = "update auth.one_time_tokens set created_at = created_at - interval '3601 s'";
    auth.sql.execute(sql, &[]).await.unwrap();
    let body = json!({ "type": "email", "email": "ann@example.com", "token": mail.code() });
    assert_eq!(auth.post("/verify", body).await.code(), "otp_expired");
    let location = auth.get(mail.link()).await;
    assert_eq!(location.in_fragment("error_code").as_deref(), Some("otp_expired"));
}

#[tokio::test]
async fn sign_in_by_mail_makes_an_account_unless_told_not_to() {
    let auth = TestAuth::start().await;
    let body = json!({ "email": "ann@example.com", "create_user": false });
    let refused = auth.post("/otp", body).await;
    assert_eq!((refused.status, refused.code()), (422, "otp_disabled"));
    assert_eq!(refused.body["msg"], "Signups not allowed for otp");
    let body = json!({ "email": "ann@example.com", "data": { "name": "Ann" } });
    let made = auth.post("/magiclink", body).await;
    assert_eq!((made.status, made.text.as_str()), (200, "{}"));
    let mail = auth.last_mail("ann@example.com").await;
    let session = auth.post("/verify", json!({ "type": "email", "token_hash": mail.token_hash() })).await;
    assert_eq!(session.body["user"]["user_metadata"]["name"], "Ann", "{}", session.text);
    let nobody = auth.sign_in("ann@example.com", "").await;
    assert_eq!(nobody.code(), "invalid_credentials", "no password is no password");
}

#[tokio::test]
async fn where_addresses_need_no_proof_sign_in_by_mail_still_does() {
    let auth = TestAuth::with(|options| options.email.autoconfirm = true).await;
    assert_eq!(auth.post("/otp", json!({ "email": "ann@example.com" })).await.text, "{}");
    let mail = auth.last_mail("ann@example.com").await;
    assert_eq!(mail.kind, "magic_link");
    let session = auth.post("/verify", json!({ "type": "magiclink", "token_hash": mail.token_hash() })).await;
    assert_eq!(session.status, 200, "{}", session.text);
}

#[tokio::test]
async fn recovery_lets_in_and_tells_strangers_nothing() {
    let auth = TestAuth::with(|options| options.email.max_frequency = Duration::from_secs(60)).await;
    auth.signed_up("ann@example.com").await;
    for email in ["ann@example.com", "nobody@example.com"] {
        let answer = auth.post("/recover", json!({ "email": email })).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
        let soon = auth.post("/recover", json!({ "email": email })).await;
        assert_eq!((soon.status, soon.code()), (429, "over_email_send_rate_limit"), "{email}");
    }
    assert_eq!(auth.mails("nobody@example.com").await, 0);
    let link = auth.last_mail("ann@example.com").await.link().to_owned();
    let answer = auth.get(&link).await;
    assert_eq!(answer.in_fragment("type").as_deref(), Some("recovery"));
    let token = answer.in_fragment("access_token").unwrap();
    let changed = auth.put_as(&token, "/user", json!({ "password": "new password" })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(auth.sign_in("ann@example.com", "new password").await.status, 200);
}

#[tokio::test]
async fn the_newer_mail_counts() {
    let auth = TestAuth::start().await;
    let body = json!({ "email": "ann@example.com", "password": "correct horse" });
    auth.post("/signup", body).await;
    let first = auth.last_mail("ann@example.com").await;
    let resent = auth.post("/resend", json!({ "type": "signup", "email": "ann@example.com" })).await;
    assert_eq!((resent.status, resent.text.as_str()), (200, "{}"));
    let second = auth.last_mail("ann@example.com").await;
    let verify =
        async |hash: &str| auth.post("/verify", json!({ "type": "signup", "token_hash": hash })).await;
    assert_eq!(verify(first.token_hash()).await.code(), "otp_expired");
    assert_eq!(verify(second.token_hash()).await.status, 200);
}

#[tokio::test]
async fn nothing_is_sent_again_that_nobody_waits_for() {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    let before = auth.mails("ann@example.com").await;
    for (kind, email) in
        [("signup", "ann@example.com"), ("email_change", "ann@example.com"), ("signup", "nobody@example.com")]
    {
        let answer = auth.post("/resend", json!({ "type": kind, "email": email })).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    }
    assert_eq!(auth.mails("ann@example.com").await, before);
    assert_eq!(auth.mails("nobody@example.com").await, 0);
    for body in [
        json!({ "type": "magiclink", "email": "ann@example.com" }),
        json!({ "type": "signup" }),
        json!({ "type": "sms" }),
        json!({ "type": "signup", "email": "ann@example.com", "phone": "12025550199" }),
    ] {
        assert_eq!(auth.post("/resend", body).await.code(), "validation_failed");
    }
}

#[tokio::test]
async fn wrong_proofs_are_named() {
    let auth = TestAuth::start().await;
    for (body, message) in [
        (json!({}), "Verify requires a verification type"),
        (json!({ "type": "signup" }), "Verify requires either a token or a token hash"),
        (
            json!({ "type": "signup", "token": "1", "token_hash": "2" }),
            "Verify requires either a token or a token hash",
        ),
        (
            json!({ "type": "signup", "token": "1" }),
            "Only an email address or phone number should be provided on verify",
        ),
        (
            json!({ "type": "signup", "token_hash": "1", "email": "ann@example.com" }),
            "Only the token_hash and type should be provided",
        ),
        (json!({ "type": "sms", "token_hash": "1" }), "Invalid email verification type"),
        (json!({ "type": "other", "token_hash": "1" }), "Unsupported verification type"),
    ] {
        let answer = auth.post("/verify", body).await;
        assert_eq!(
            (answer.status, answer.code(), answer.text_at("/msg")),
            (400, "validation_failed", message)
        );
    }
    assert_eq!(auth.get("/verify?type=signup").await.status, 400);
    assert_eq!(auth.get("/verify?type=signup&token=x%00").await.code(), "validation_failed");
    assert_eq!(auth.get("/verify?type=signup&token=x&token=y").await.code(), "validation_failed");
    assert_eq!(auth.get("/verify?token=x").await.status, 400);
    let unsupported = auth.get("/verify?token=x&type=sms").await;
    assert_eq!(unsupported.in_fragment("error_code").as_deref(), Some("validation_failed"));
}

#[tokio::test]
async fn an_invited_person_is_confirmed_by_the_link() {
    let auth = TestAuth::start().await;
    auth.post("/otp", json!({ "email": "ann@example.com" })).await;
    let mail = auth.last_mail("ann@example.com").await;
    let session = auth.post("/verify", json!({ "type": "invite", "token_hash": mail.token_hash() })).await;
    assert_eq!(session.status, 200, "{}", session.text);
}
