//! `/admin`, `/invite` and the audit log.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Answer, TestAuth};

async fn admin(auth: &TestAuth, method: Method, path: &str, body: Option<Value>) -> Answer {
    auth.send(method, path, Some(auth.service_key()), &[], body).await
}

async fn create(auth: &TestAuth, body: Value) -> Answer {
    admin(auth, Method::POST, "/admin/users", Some(body)).await
}

#[tokio::test]
async fn only_the_projects_servers_administer() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let user = session["access_token"].as_str().unwrap();
    let id = session["user"]["id"].as_str().unwrap();
    let routes = [
        (Method::GET, "/admin/users".to_owned()),
        (Method::POST, "/admin/users".to_owned()),
        (Method::GET, format!("/admin/users/{id}")),
        (Method::PUT, format!("/admin/users/{id}")),
        (Method::DELETE, format!("/admin/users/{id}")),
        (Method::GET, format!("/admin/users/{id}/factors")),
        (Method::PUT, format!("/admin/users/{id}/factors/{id}")),
        (Method::DELETE, format!("/admin/users/{id}/factors/{id}")),
        (Method::GET, format!("/admin/users/{id}/passkeys")),
        (Method::DELETE, format!("/admin/users/{id}/passkeys/{id}")),
        (Method::POST, "/admin/generate_link".to_owned()),
        (Method::GET, "/admin/audit".to_owned()),
        (Method::POST, "/invite".to_owned()),
    ];
    for (method, path) in routes {
        let body = Some(json!({ "email": "bob@example.com" }));
        let answer = auth.send(method.clone(), &path, None, &[], body.clone()).await;
        assert_eq!((answer.status, answer.code()), (401, "no_authorization"), "{method} {path}");
        let answer = auth.send(method.clone(), &path, Some(user), &[], body.clone()).await;
        assert_eq!((answer.status, answer.code()), (403, "not_admin"), "{method} {path}");
        let answer = auth.send(method.clone(), &path, Some("x.y.z"), &[], body).await;
        assert_eq!((answer.status, answer.code()), (403, "bad_jwt"), "{method} {path}");
    }
    assert_eq!(auth.mails("bob@example.com").await, 0);
}

#[tokio::test]
async fn a_made_account_is_as_it_was_ordered() {
    let auth = TestAuth::start().await;
    let id = uuid::Uuid::new_v4();
    let answer = create(
        &auth,
        json!({
            "id": id, "email": "Ann@Example.com", "phone": "+15550100", "password": "correct horse",
            "email_confirm": true, "phone_confirm": true, "role": "staff",
            "user_metadata": { "name": "Ann" }, "app_metadata": { "plan": "gold" },
        }),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.text_at("/id"), id.to_string());
    assert_eq!((answer.text_at("/email"), answer.text_at("/phone")), ("ann@example.com", "15550100"));
    assert_eq!(answer.text_at("/role"), "staff");
    assert!(answer.body["email_confirmed_at"].is_string() && answer.body["phone_confirmed_at"].is_string());
    let app = json!({ "provider": "email", "providers": ["email", "phone"], "plan": "gold" });
    assert_eq!(answer.body["app_metadata"], app);
    assert_eq!(answer.text_at("/user_metadata/name"), "Ann");
    assert_eq!(answer.body["identities"].as_array().unwrap().len(), 2);
    assert!(answer.body.get("encrypted_password").is_none());
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 200);

    let unconfirmed = create(&auth, json!({ "email": "bob@example.com", "password": "correct horse" })).await;
    assert!(unconfirmed.body.get("email_confirmed_at").is_none());
    let refused = auth.sign_in("bob@example.com", "correct horse").await;
    assert_eq!(refused.code(), "email_not_confirmed");
    let hash = bcrypt::hash("from elsewhere", 4).unwrap();
    let moved = create(
        &auth,
        json!({ "email": "cy@example.com", "password_hash": hash, "email_confirm": true, "ban_duration": "none" }),
    )
    .await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    assert_eq!(auth.sign_in("cy@example.com", "from elsewhere").await.status, 200);
    let nobody = create(&auth, json!({ "email": "dee@example.com", "email_confirm": true })).await;
    assert_eq!(nobody.status, 200);
    assert_eq!(auth.sign_in("dee@example.com", "").await.status, 400, "no password is no empty password");
}

#[rstest]
#[case::nameless(json!({ "password": "correct horse" }), 400, "validation_failed")]
#[case::email(json!({ "email": "nope" }), 400, "validation_failed")]
#[case::phone(json!({ "phone": "nope" }), 400, "validation_failed")]
#[case::id(json!({ "email": "b@example.com", "id": "7" }), 400, "validation_failed")]
#[case::nil(json!({ "email": "b@example.com", "id": uuid::Uuid::nil() }), 400, "validation_failed")]
#[case::both(json!({ "email": "b@example.com", "password": "x", "password_hash": "y" }), 400, "validation_failed")]
#[case::hash(json!({ "email": "b@example.com", "password_hash": "md5:x" }), 400, "validation_failed")]
#[case::long(json!({ "email": "b@example.com", "password": "x".repeat(73) }), 400, "validation_failed")]
#[case::ban(json!({ "email": "b@example.com", "ban_duration": "1 week" }), 400, "validation_failed")]
#[case::taken(json!({ "email": "ANN@example.com" }), 422, "email_exists")]
#[case::not_json(json!([]), 400, "bad_json")]
#[tokio::test]
async fn orders_that_cannot_be_filled(#[case] body: Value, #[case] status: u16, #[case] code: &str) {
    let auth = TestAuth::start().await;
    assert_eq!(create(&auth, json!({ "email": "ann@example.com" })).await.status, 200);
    let answer = create(&auth, body).await;
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    let accounts: i64 = auth.sql.query_one("select count(*) from auth.users", &[]).await.unwrap().get(0);
    assert_eq!(accounts, 1);
}

#[tokio::test]
async fn ids_and_numbers_are_taken_once() {
    let auth = TestAuth::start().await;
    let ann = create(&auth, json!({ "email": "ann@example.com", "phone": "15550100" })).await;
    let id = ann.text_at("/id");
    let same_id = create(&auth, json!({ "email": "bob@example.com", "id": id })).await;
    assert_eq!((same_id.status, same_id.code()), (422, "user_already_exists"));
    let same_phone = create(&auth, json!({ "phone": "+15550100" })).await;
    assert_eq!((same_phone.status, same_phone.code()), (422, "phone_exists"));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let auth = TestAuth::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        let body = json!({ "email": format!("{name}@example.com"), "user_metadata": { "full_name": format!("Person {name}") } });
        assert_eq!(create(&auth, body).await.status, 200);
    }
    let emails = |answer: &Answer| -> Vec<String> {
        let users = answer.body["users"].as_array().unwrap();
        users.iter().map(|user| user["email"].as_str().unwrap()[..1].to_owned()).collect()
    };
    let page = admin(&auth, Method::GET, "/admin/users?page=2&per_page=2", None).await;
    assert_eq!(emails(&page), ["c", "b"]);
    assert_eq!((page.header("x-total-count"), page.text_at("/aud")), ("5", "authenticated"));
    assert_eq!(
        page.header("link"),
        "</admin/users?page=3&per_page=2>; rel=\"next\", </admin/users?page=3&per_page=2>; rel=\"last\""
    );
    let last = admin(&auth, Method::GET, "/admin/users?page=3&per_page=2", None).await;
    assert_eq!((emails(&last), last.header("link").contains("next")), (vec!["a".to_owned()], false));
    let oldest = admin(&auth, Method::GET, "/admin/users?sort=created_at%20asc&per_page=1", None).await;
    assert_eq!(emails(&oldest), ["a"]);
    let found = admin(&auth, Method::GET, "/admin/users?filter=person%20D", None).await;
    assert_eq!((emails(&found), found.header("x-total-count")), (vec!["d".to_owned()], "1"));
    let none = admin(&auth, Method::GET, "/admin/users?filter=%25", None).await;
    assert_eq!(none.header("x-total-count"), "0", "a percent sign is a percent sign");
    let bad = admin(&auth, Method::GET, "/admin/users?page=x", None).await;
    assert_eq!((bad.status, bad.code()), (400, "validation_failed"));
}

#[tokio::test]
async fn changes_reach_sessions_identities_and_bans() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let id = session["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/admin/users/{id}");
    let put = async |body: Value| admin(&auth, Method::PUT, &path, Some(body)).await;

    let named = put(
        json!({ "email": "Anna@example.com", "email_confirm": true, "user_metadata": { "name": "Anna" } }),
    )
    .await;
    assert_eq!((named.status, named.text_at("/email")), (200, "anna@example.com"), "{}", named.text);
    assert_eq!(named.text_at("/identities/0/identity_data/email"), "anna@example.com");
    assert_eq!(named.body["identities"][0]["identity_data"]["email_verified"], true);
    let changed =
        put(json!({ "user_metadata": { "name": null, "age": 7 }, "app_metadata": { "plan": "gold" } })).await;
    assert!(changed.body["user_metadata"].get("name").is_none());
    assert_eq!(
        (&changed.body["user_metadata"]["age"], changed.text_at("/app_metadata/plan")),
        (&json!(7), "gold")
    );
    assert_eq!(changed.text_at("/app_metadata/provider"), "email", "what is not named stays");

    let weak = put(json!({ "password": "x" })).await;
    assert_eq!((weak.status, weak.code()), (422, "weak_password"));
    assert_eq!(put(json!({ "password": "battery staple" })).await.status, 200);
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(auth.get_as(token, "/user").await.code(), "session_not_found", "a new password ends sessions");
    assert_eq!(auth.sign_in("anna@example.com", "correct horse").await.status, 400);
    assert_eq!(auth.sign_in("anna@example.com", "battery staple").await.status, 200);

    let banned = put(json!({ "ban_duration": "24h" })).await;
    assert!(banned.body["banned_until"].is_string());
    assert_eq!(auth.sign_in("anna@example.com", "battery staple").await.code(), "user_banned");
    assert!(put(json!({ "ban_duration": "none" })).await.body.get("banned_until").is_none());
    assert_eq!(auth.sign_in("anna@example.com", "battery staple").await.status, 200);

    let phone = put(json!({ "phone": "+15550100", "phone_confirm": true, "role": "staff" })).await;
    assert_eq!((phone.text_at("/phone"), phone.text_at("/role")), ("15550100", "staff"));
    assert_eq!(phone.body["app_metadata"]["providers"], json!(["email", "phone"]));
    let bob = create(&auth, json!({ "email": "bob@example.com", "phone": "15550101" })).await;
    assert_eq!(bob.status, 200);
    assert_eq!(put(json!({ "email": "bob@example.com" })).await.code(), "email_exists");
    assert_eq!(put(json!({ "phone": "15550101" })).await.code(), "phone_exists");
}

#[tokio::test]
async fn deleting_is_for_good_or_leaves_a_nameless_row() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let path = format!("/admin/users/{}", session["user"]["id"].as_str().unwrap());
    let soft = admin(&auth, Method::DELETE, &path, Some(json!({ "should_soft_delete": true }))).await;
    assert_eq!((soft.status, soft.body), (200, json!({})));
    let left = admin(&auth, Method::GET, &path, None).await;
    assert!(left.body["deleted_at"].is_string());
    assert!(!left.text.contains("ann@example.com"), "{}", left.text);
    assert_eq!(auth.sign_in("ann@example.com", "correct horse").await.status, 400);
    assert_eq!(
        auth.get_as(session["access_token"].as_str().unwrap(), "/user").await.code(),
        "session_not_found"
    );
    assert_eq!(
        auth.signed_up("ann@example.com").await["user"]["email"],
        "ann@example.com",
        "the name is free"
    );
    let again = admin(&auth, Method::DELETE, &path, Some(json!({ "should_soft_delete": true }))).await;
    assert_eq!(again.status, 200);

    assert_eq!(admin(&auth, Method::DELETE, &path, None).await.status, 200);
    let gone = admin(&auth, Method::GET, &path, None).await;
    assert_eq!((gone.status, gone.code()), (404, "user_not_found"));
    let odd = admin(&auth, Method::GET, "/admin/users/7", None).await;
    assert_eq!((odd.status, odd.code()), (404, "validation_failed"));
}

#[tokio::test]
async fn what_the_project_refuses_is_told_in_its_words() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let id = session["user"]["id"].as_str().unwrap();
    auth.sql
        .batch_execute(
            "create table public.notes (owner uuid references auth.users (id));
             create function public.keep_owner() returns trigger language plpgsql as $$
               begin raise exception 'Acme would be left without an owner'; end $$;
             create trigger keep_owner before delete on auth.users for each row
               when (old.email = 'ann@example.com') execute function public.keep_owner();",
        )
        .await
        .unwrap();
    let refused = admin(&auth, Method::DELETE, &format!("/admin/users/{id}"), None).await;
    assert_eq!((refused.status, refused.code()), (422, "validation_failed"));
    assert!(refused.text_at("/msg").contains("Acme would be left without an owner"), "{}", refused.text);

    let bob = auth.signed_up("bob@example.com").await;
    let id = bob["user"]["id"].as_str().unwrap();
    let uuid = uuid::Uuid::parse_str(id).unwrap();
    auth.sql.execute("insert into public.notes values ($1)", &[&uuid]).await.unwrap();
    let refused = admin(&auth, Method::DELETE, &format!("/admin/users/{id}"), None).await;
    assert_eq!((refused.status, refused.code()), (409, "conflict"));
    assert!(refused.text_at("/msg").contains("notes"), "{}", refused.text);
    assert_eq!(admin(&auth, Method::GET, &format!("/admin/users/{id}"), None).await.status, 200);
}

#[rstest]
#[case::signup("signup", json!({ "email": "new@example.com", "password": "correct horse" }), "signup", "new@example.com")]
#[case::invite("invite", json!({ "email": "new@example.com" }), "invite", "new@example.com")]
#[case::magiclink("magiclink", json!({ "email": "ann@example.com" }), "magiclink", "ann@example.com")]
#[case::recovery("recovery", json!({ "email": "ann@example.com" }), "recovery", "ann@example.com")]
#[case::newcomer("magiclink", json!({ "email": "new@example.com" }), "signup", "new@example.com")]
#[tokio::test]
async fn generated_links_let_people_in(
    #[case] kind: &str,
    #[case] mut body: Value,
    #[case] verification: &str,
    #[case] email: &str,
) {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    let before = auth.mails(email).await;
    body["type"] = json!(kind);
    let made = admin(&auth, Method::POST, "/admin/generate_link", Some(body.clone())).await;
    assert_eq!((made.status, made.text_at("/verification_type")), (200, verification), "{}", made.text);
    assert_eq!((made.text_at("/email"), made.text_at("/redirect_to")), (email, "http://localhost:3000"));
    assert_eq!(auth.mails(email).await, before, "the server writes its own mail");
    let link = made.text_at("/action_link").split_once("/auth/v1").unwrap().1.to_owned();
    let landed = auth.get(&link).await;
    assert_eq!(landed.status, 303, "{}", landed.text);
    assert!(landed.in_fragment("access_token").is_some(), "{:?}", landed.location());
    let replayed = auth.get(&link).await;
    assert!(replayed.in_fragment("access_token").is_none(), "a link is good once");

    // The hash and the code are good for the same.
    if kind != "signup" && verification != "signup" && kind != "invite" {
        let made = admin(&auth, Method::POST, "/admin/generate_link", Some(body.clone())).await;
        let answer = auth
            .post("/verify", json!({ "type": verification, "token_hash": made.text_at("/hashed_token") }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let made = admin(&auth, Method::POST, "/admin/generate_link", Some(body)).await;
        let code = json!({ "type": verification, "email": email, "token": made.text_at("/email_otp") });
        assert_eq!(auth.post("/verify", code).await.status, 200);
    }
}

#[tokio::test]
async fn generated_links_change_an_address_from_both_sides() {
    let auth = TestAuth::start().await;
    auth.signed_up("ann@example.com").await;
    let body =
        |kind: &str| json!({ "type": kind, "email": "ann@example.com", "new_email": "anna@example.com" });
    for kind in ["email_change_current", "email_change_new"] {
        let made = admin(&auth, Method::POST, "/admin/generate_link", Some(body(kind))).await;
        assert_eq!((made.status, made.text_at("/verification_type")), (200, kind), "{}", made.text);
        assert!(made.text_at("/action_link").contains("type=email_change&"));
    }
    for (body, status, code) in [
        (json!({ "type": "recovery", "email": "nobody@example.com" }), 404, "user_not_found"),
        (
            json!({ "type": "signup", "email": "ann@example.com", "password": "correct horse" }),
            422,
            "email_exists",
        ),
        (json!({ "type": "signup", "email": "new@example.com" }), 400, "validation_failed"),
        (json!({ "type": "smoke", "email": "ann@example.com" }), 400, "validation_failed"),
        (json!({ "type": "invite", "email": "ann@example.com" }), 422, "email_exists"),
        (json!({ "type": "email_change_new", "email": "ann@example.com" }), 400, "validation_failed"),
    ] {
        let answer = admin(&auth, Method::POST, "/admin/generate_link", Some(body)).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    }
    let elsewhere =
        json!({ "type": "magiclink", "email": "ann@example.com", "redirect_to": "https://evil.example" });
    let made = admin(&auth, Method::POST, "/admin/generate_link", Some(elsewhere)).await;
    assert_eq!(made.text_at("/redirect_to"), "http://localhost:3000", "only to allowed addresses");
}

#[tokio::test]
async fn the_invited_take_their_account() {
    let auth = TestAuth::start().await;
    let body = json!({ "email": "Bob@example.com", "data": { "team": "blue" } });
    let invited = admin(&auth, Method::POST, "/invite", Some(body.clone())).await;
    assert_eq!((invited.status, invited.text_at("/user_metadata/team")), (200, "blue"), "{}", invited.text);
    assert!(invited.body["invited_at"].is_string());
    let again = admin(&auth, Method::POST, "/invite", Some(body.clone())).await;
    assert_eq!(again.status, 200, "who has not answered is asked again: {}", again.text);
    let mail = auth.last_mail("bob@example.com").await;
    assert_eq!((mail.kind.as_str(), auth.mails("bob@example.com").await), ("invite", 2));
    let landed = auth.get(mail.link()).await;
    assert!(landed.in_fragment("access_token").is_some(), "{:?}", landed.location());
    let confirmed = admin(&auth, Method::POST, "/invite", Some(body)).await;
    assert_eq!((confirmed.status, confirmed.code()), (422, "email_exists"));
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    create(&auth, json!({ "email": "bob@example.com" })).await;
    let path = format!("/admin/users/{}", session["user"]["id"].as_str().unwrap());
    admin(&auth, Method::DELETE, &path, None).await;
    let all = admin(&auth, Method::GET, "/admin/audit", None).await;
    let newest = &all.body[0];
    assert_eq!(newest["payload"]["action"], "user_deleted");
    assert_eq!(newest["payload"]["traits"]["user_email"], "ann@example.com");
    assert_eq!(newest["payload"]["actor_username"], "service_role");
    assert_eq!(newest["ip_address"], "127.0.0.1");
    let page = admin(&auth, Method::GET, "/admin/audit?per_page=1&page=2", None).await;
    assert_eq!(page.body.as_array().unwrap().len(), 1);
    assert_eq!(page.header("x-total-count"), all.body.as_array().unwrap().len().to_string());
    let mine = admin(&auth, Method::GET, "/admin/audit?query=author:ANN", None).await;
    let entries = mine.body.as_array().unwrap();
    assert!(
        !entries.is_empty()
            && entries.iter().all(|entry| entry["payload"]["actor_username"] == "ann@example.com")
    );
    let made = admin(&auth, Method::GET, "/admin/audit?query=action:signedup", None).await;
    assert!(made.body.as_array().unwrap().iter().all(|entry| entry["payload"]["action"] == "user_signedup"));
    let odd = admin(&auth, Method::GET, "/admin/audit?query=secret:x", None).await;
    assert_eq!((odd.status, odd.code()), (400, "validation_failed"));
}

#[tokio::test]
async fn servers_manage_factors() {
    let auth = TestAuth::start().await;
    let session = auth.signed_up("ann@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let enrolled =
        auth.post_as(token, "/factors", json!({ "factor_type": "totp", "friendly_name": "phone" })).await;
    let factors = format!("/admin/users/{}/factors", session["user"]["id"].as_str().unwrap());
    let listed = admin(&auth, Method::GET, &factors, None).await;
    assert_eq!(
        (listed.body[0]["friendly_name"].as_str(), listed.body[0].get("secret")),
        (Some("phone"), None)
    );
    let one = format!("{factors}/{}", enrolled.text_at("/id"));
    let renamed = admin(&auth, Method::PUT, &one, Some(json!({ "friendly_name": "tablet" }))).await;
    assert_eq!((renamed.status, renamed.text_at("/friendly_name")), (200, "tablet"));
    assert_eq!(admin(&auth, Method::DELETE, &one, None).await.status, 200);
    assert_eq!(admin(&auth, Method::GET, &factors, None).await.body, json!([]));
    assert_eq!(admin(&auth, Method::DELETE, &one, None).await.code(), "mfa_factor_not_found");
}
