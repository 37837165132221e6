//! Accounts by telephone number, with text messages through Twilio's API.

use std::time::Duration;

use longhouse_emulators::twilio::messages::{Fault, MessagesServer};
use longhouse_identity::service::{AuthOptions, TwilioSms};
use serde_json::json;

use crate::harness::TestAuth;

const PHONE: &str = "12025550199";

async fn start(change: impl FnOnce(&mut AuthOptions)) -> (TestAuth, MessagesServer) {
    let twilio = MessagesServer::start("AC1", "secret").await.unwrap();
    let auth = TestAuth::with(|options| {
        options.phone.enabled = true;
        options.sms = Some(TwilioSms {
            url: twilio.url(),
            account_sid: "AC1".into(),
            auth_token: "secret".to_owned().into(),
            from: "+12025550100".into(),
        });
        change(options);
    })
    .await;
    (auth, twilio)
}

fn last_code(twilio: &MessagesServer) -> String {
    let message = twilio.messages().pop().expect("a message was sent");
    message.body.chars().filter(char::is_ascii_digit).collect()
}

#[tokio::test]
async fn a_number_signs_up_by_the_code_of_its_message() {
    let (auth, twilio) = start(|_| ()).await;
    let body = json!({ "phone": "+1 202 555 0199", "password": "correct horse" });
    let answer = auth.post("/signup", body).await;
    assert_eq!((answer.status, &answer.body["phone"]), (200, &json!(PHONE)), "{}", answer.text);
    let message = twilio.messages().pop().unwrap();
    assert_eq!((message.to.as_str(), message.from.as_str()), ("+12025550199", "+12025550100"));
    assert!(message.body.starts_with("Your code is "));

    let sign_in = json!({ "phone": PHONE, "password": "correct horse" });
    let refused = auth.post("/token?grant_type=password", sign_in.clone()).await;
    assert_eq!((refused.status, refused.code()), (400, "phone_not_confirmed"));
    let body = json!({ "type": "sms", "phone": PHONE, "token": last_code(&twilio) });
    let session = auth.post("/verify", body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert!(session.body["user"]["phone_confirmed_at"].is_string());
    assert_eq!(session.body["user"]["app_metadata"]["providers"], json!(["phone"]));
    let signed_in = auth.post("/token?grant_type=password", sign_in).await;
    assert_eq!(auth.claims(&signed_in.body)["phone"], PHONE);
}

#[tokio::test]
async fn a_number_signs_in_by_code_alone() {
    let (auth, twilio) = start(|_| ()).await;
    for round in 0..2 {
        let answer = auth.post("/otp", json!({ "phone": PHONE, "channel": "sms" })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body.get("message_id").is_some(), round == 1);
        let body = json!({ "type": "sms", "phone": PHONE, "token": last_code(&twilio) });
        let session = auth.post("/verify", body).await;
        assert_eq!(session.status, 200, "{}", session.text);
    }
    let users: i64 = auth.sql.query_one("select count(*) from auth.users", &[]).await.unwrap().get(0);
    assert_eq!(users, 1);
}

#[tokio::test]
async fn codes_of_messages_expire() {
    let (auth, twilio) = start(|_| ()).await;
    auth.post("/otp", json!({ "phone": PHONE })).await;
    let sql = "update auth.one_time_tokens set created_at = created_at - interval '61 s'";
    auth.sql.execute(sql, &[]).await.unwrap();
    let body = json!({ "type": "sms", "phone": PHONE, "token": last_code(&twilio) });
    assert_eq!(auth.post("/verify", body).await.code(), "otp_expired");
}

#[tokio::test]
async fn test_numbers_have_a_fixed_code_and_get_no_message() {
    let (auth, twilio) = start(|options| {
        options.phone.test_otps.insert(format!("+{PHONE}"), "123456".into());
    })
    .await;
    auth.post("/otp", json!({ "phone": PHONE })).await;
    let body = json!({ "type": "sms", "phone": PHONE, "token": "123456" });
    assert_eq!(auth.post("/verify", body.clone()).await.status, 200);
    assert_eq!(auth.post("/verify", body).await.status, 200, "whenever it is needed");
    let other = json!({ "type": "sms", "phone": "12025550111", "token": "123456" });
    assert_eq!(auth.post("/verify", other).await.status, 403);
    assert_eq!(twilio.requests(), 0);
}

#[tokio::test]
async fn a_number_is_added_to_an_account_once_it_is_proved() {
    let (auth, twilio) = start(|_| ()).await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let changed = auth.put_as(token, "/user", json!({ "phone": PHONE })).await;
    assert_eq!((&changed.body["phone"], &changed.body["new_phone"]), (&json!(""), &json!(PHONE)));
    auth.post("/resend", json!({ "type": "phone_change", "phone": PHONE })).await;
    let body = json!({ "type": "phone_change", "phone": PHONE, "token": last_code(&twilio) });
    let session = auth.post("/verify", body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(session.body["user"]["phone"], PHONE);
    assert_eq!(session.body["user"]["app_metadata"]["providers"], json!(["email", "phone"]));
    let taken = auth.signed_up("bob@example.com").await;
    let refused =
        auth.put_as(taken["access_token"].as_str().unwrap(), "/user", json!({ "phone": PHONE })).await;
    assert_eq!((refused.status, refused.code()), (422, "phone_exists"));
}

#[tokio::test]
async fn asking_again_tells_nobody_who_changes_their_number() {
    let (auth, twilio) = start(|options| options.phone.max_frequency = Duration::from_secs(60)).await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    auth.sql.execute("update auth.users set phone = '12025550111'", &[]).await.unwrap();
    assert_eq!(auth.put_as(token, "/user", json!({ "phone": PHONE })).await.status, 200);
    for phone in ["12025550111", "12025550111", "12025550122", "12025550122"] {
        let answer = auth.post("/resend", json!({ "type": "phone_change", "phone": phone })).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"), "{phone}");
    }
    assert_eq!(twilio.messages().len(), 1, "the message is a moment old");
    auth.sql
        .execute("update auth.users set phone_change_sent_at = now() - interval '1 hour'", &[])
        .await
        .unwrap();
    let answer = auth.post("/resend", json!({ "type": "phone_change", "phone": "12025550111" })).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    let messages = twilio.messages();
    assert_eq!((messages.len(), messages[1].to.as_str()), (2, "+12025550199"));
}

#[tokio::test]
async fn a_message_that_was_not_accepted_is_tried_again_only_where_that_is_safe() {
    let (auth, twilio) = start(|options| options.phone.max_frequency = Duration::from_secs(60)).await;
    twilio.set_fault(Fault::TooMany(1));
    assert_eq!(auth.post("/otp", json!({ "phone": PHONE })).await.status, 200);
    assert_eq!((twilio.requests(), twilio.messages().len()), (2, 1));
    for fault in [Fault::Broken, Fault::Failed] {
        twilio.set_fault(fault);
        let before = twilio.requests();
        let refused = auth.post("/otp", json!({ "phone": "12025550111" })).await;
        assert_eq!((refused.status, refused.code()), (422, "sms_send_failed"), "{fault:?}");
        assert_eq!(twilio.requests(), before + 1, "it may have been sent");
    }
    twilio.set_fault(Fault::None);
    let again = auth.post("/otp", json!({ "phone": "12025550111" })).await;
    assert_eq!(again.status, 200, "nobody waits for a message that was not sent: {}", again.text);
    let soon = auth.post("/otp", json!({ "phone": "12025550111" })).await;
    assert_eq!((soon.status, soon.code()), (429, "over_sms_send_rate_limit"));
}

#[tokio::test]
async fn whatsapp_and_messaging_services_are_addressed_as_twilio_wants() {
    let (auth, twilio) = start(|_| ()).await;
    assert_eq!(auth.post("/otp", json!({ "phone": PHONE, "channel": "whatsapp" })).await.status, 200);
    let message = twilio.messages().pop().unwrap();
    let addresses = (message.to.as_str(), message.from.as_str());
    assert_eq!(addresses, ("whatsapp:+12025550199", "whatsapp:+12025550100"));
    assert_eq!(
        auth.post("/otp", json!({ "phone": PHONE, "channel": "fax" })).await.code(),
        "validation_failed"
    );

    let service = format!("MG{}", "0".repeat(32));
    let (auth, twilio) = start(|options| options.sms.as_mut().unwrap().from = service.clone()).await;
    assert_eq!(auth.post("/otp", json!({ "phone": PHONE })).await.status, 200);
    assert_eq!(twilio.messages().pop().unwrap().from, service);
}

#[tokio::test]
async fn the_project_has_a_limit_of_messages() {
    let (auth, twilio) = start(|options| options.limits.sms_per_hour = 2).await;
    for phone in ["12025550101", "12025550102"] {
        assert_eq!(auth.post("/otp", json!({ "phone": phone })).await.status, 200);
    }
    let refused = auth.post("/otp", json!({ "phone": "12025550103" })).await;
    assert_eq!((refused.status, refused.code()), (429, "over_sms_send_rate_limit"));
    assert_eq!(twilio.messages().len(), 2);
}

#[tokio::test]
async fn numbers_may_count_without_proof() {
    let (auth, twilio) = start(|options| options.phone.autoconfirm = true).await;
    let answer = auth.post("/signup", json!({ "phone": PHONE, "password": "correct horse" })).await;
    assert!(answer.body["access_token"].is_string(), "{}", answer.text);
    assert_eq!(twilio.requests(), 0);
}
