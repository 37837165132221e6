//! Mail: from the outbox to a strict server, and to the mailbox page.

use std::time::Duration;

use longhouse_emulators::smtp::{Options, Server};
use longhouse_identity::service::{AuthOptions, SmtpOptions};
use longhouse_server::Drain;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::TestAuth;

fn smtp(server: &Server) -> SmtpOptions {
    SmtpOptions {
        host: "localhost".into(),
        port: server.address().port(),
        user: None,
        password: None,
        from: "house@longhouse.example".into(),
        from_name: Some("Die Hütte".into()),
        ca_certificate: None,
    }
}

async fn with_server(server: &Server, change: impl FnOnce(&mut AuthOptions)) -> TestAuth {
    TestAuth::with(|options| {
        options.smtp = Some(smtp(server));
        change(options);
    })
    .await
}

/// Runs the worker; dropping the guard ends it.
struct Worker {
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    fn start(auth: &TestAuth) -> Self {
        let drain = Drain::new();
        Self { task: tokio::spawn(auth.service.clone().run_mail(drain.clone())), drain }
    }

    async fn stop(self) {
        self.drain.begin(Duration::from_secs(5));
        tokio::time::timeout(Duration::from_secs(5), self.task).await.expect("it stops").unwrap();
    }
}

async fn sign_up(auth: &TestAuth, email: &str) {
    let body = json!({ "email": email, "password": "correct horse", "data": { "name": "<Ada>" } });
    let answer = auth.post("/signup", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// One row, once it is as wanted. Polls: the worker writes it from another task.
async fn row_when(auth: &TestAuth, condition: &str) -> Value {
    let sql = "select to_jsonb(m) || jsonb_build_object('given_up', next_attempt_at = 'infinity',
            'wait', case when next_attempt_at < 'infinity' then extract(epoch from next_attempt_at - now()) end)
        from longhouse.mail_outbox m";
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let row = auth.sql.query_one(sql, &[]).await.unwrap().get::<_, Value>(0);
            let met: bool = match condition {
                "sent" => !row["sent_at"].is_null(),
                _ => !row["error"].is_null(),
            };
            if met {
                return row;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time")
}

#[tokio::test]
async fn a_confirmation_arrives_and_its_link_works() {
    let server = Server::start(Options::default()).await.unwrap();
    let auth = with_server(&server, |_| ()).await;
    let worker = Worker::start(&auth);
    sign_up(&auth, "ada@example.com").await;
    let mails = server.wait_for(1).await;
    let mail = &mails[0];
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("house@longhouse.example", ["ada@example.com".to_owned()].as_slice())
    );
    assert_eq!(mail.header("subject").unwrap(), "Confirm your email address");
    assert_eq!(mail.header("auto-submitted").unwrap(), "auto-generated");
    assert!(mail.header("message-id").unwrap().ends_with("@longhouse.example>"));
    assert!(mail.header("from").unwrap().ends_with("<house@longhouse.example>"));
    let (text, html) = (mail.part("text/plain").unwrap(), mail.part("text/html").unwrap());
    assert!(html.contains("<h1>Confirm your email address</h1>") && html.contains("color-scheme"));
    assert!(!text.contains('<'), "{text}");
    let link = text.split(['(', ')']).find(|part| part.contains("/verify?")).unwrap();
    let path = link.split_once("/auth/v1").unwrap().1;
    let answer = auth.get(path).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert!(answer.in_fragment("access_token").is_some());
    let row = row_when(&auth, "sent").await;
    assert!(
        row["variables"].get("Token").is_none() && row["variables"].get("ConfirmationURL").is_none(),
        "{row}"
    );
    worker.stop().await;
}

#[rstest]
#[case::trusted(true)]
#[case::not_trusted(false)]
#[tokio::test]
async fn logins_and_mail_go_over_tls_that_is_verified(#[case] trusted: bool) {
    let login = Some(("house".to_owned(), "s3cret".to_owned()));
    let server = Server::start(Options { login, starttls: true, ..Options::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.certificate()).unwrap();
    let auth = with_server(&server, |options| {
        let smtp = options.smtp.as_mut().unwrap();
        smtp.user = Some("house".into());
        smtp.password = Some("s3cret".to_owned().into());
        smtp.ca_certificate = trusted.then_some(ca);
    })
    .await;
    let worker = Worker::start(&auth);
    sign_up(&auth, "ada@example.com").await;
    if trusted {
        assert!(server.wait_for(1).await[0].encrypted);
    } else {
        let row = row_when(&auth, "error").await;
        assert!(row["error"].as_str().unwrap().contains("certificate"), "{row}");
        assert!(server.mails().is_empty());
    }
    worker.stop().await;
}

#[rstest]
#[case::later("451 4.3.0 Try again later", false)]
#[case::never("550 5.1.1 No such mailbox", true)]
#[tokio::test]
async fn refusals_are_kept_and_tried_again_where_that_helps(#[case] refusal: &str, #[case] final_: bool) {
    let server = Server::start(Options::default()).await.unwrap();
    let auth = with_server(&server, |_| ()).await;
    server.refuse_next(refusal);
    sign_up(&auth, "ada@example.com").await;
    let worker = Worker::start(&auth);
    let row = row_when(&auth, "error").await;
    assert_eq!(row["attempts"], 1);
    assert!(row["error"].as_str().unwrap().contains(&refusal[4..9]), "{row}");
    assert_eq!(row["given_up"], final_);
    if !final_ {
        let wait = row["wait"].as_f64().unwrap();
        assert!((6.0..=15.5).contains(&wait), "{wait}");
        auth.sql.execute("update longhouse.mail_outbox set next_attempt_at = now()", &[]).await.unwrap();
        server.wait_for(1).await;
        let row = row_when(&auth, "sent").await;
        assert_eq!((row["attempts"].as_i64(), row["error"].is_null()), (Some(2), true));
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_eighth_failure_is_the_last() {
    let server = Server::start(Options::default()).await.unwrap();
    let auth = with_server(&server, |_| ()).await;
    sign_up(&auth, "ada@example.com").await;
    auth.sql.execute("update longhouse.mail_outbox set attempts = 7", &[]).await.unwrap();
    server.refuse_next("451 4.3.0 Try again later");
    let worker = Worker::start(&auth);
    let row = row_when(&auth, "error").await;
    assert_eq!((row["given_up"].as_bool(), row["sent_at"].is_null()), (Some(true), true));
    worker.stop().await;
}

#[tokio::test]
async fn several_servers_share_the_work_and_send_each_mail_once() {
    let server = Server::start(Options::default()).await.unwrap();
    let auth = with_server(&server, |_| ()).await;
    let sql = "insert into longhouse.mail_outbox (kind, recipient, variables)
        select 'magic_link', 'p' || n || '@example.com', '{\"Token\": \"123456\"}' from generate_series(1, 60) n";
    auth.sql.execute(sql, &[]).await.unwrap();
    let workers = [Worker::start(&auth), Worker::start(&auth), Worker::start(&auth)];
    server.wait_for(60).await;
    for worker in workers {
        worker.stop().await;
    }
    let mut to: Vec<_> = server.mails().into_iter().flat_map(|mail| mail.to).collect();
    to.sort_unstable();
    to.dedup();
    assert_eq!((to.len(), server.mails().len()), (60, 60));
}

#[tokio::test]
async fn operators_write_their_own_mails() {
    let folder = tempfile::tempdir().unwrap();
    let template = "Subject: Hallo {{ .Data.name }}\n<p>{{ if .Data.name }}Hi {{ .Data.name }}{{ end }}, <a href=\"{{ .SiteURL }}/confirm?token_hash={{ .TokenHash }}&type=email\">go</a></p>";
    std::fs::write(folder.path().join("confirmation.html"), template).unwrap();
    let server = Server::start(Options::default()).await.unwrap();
    let auth = with_server(&server, |options| options.templates = Some(folder.path().to_owned())).await;
    let worker = Worker::start(&auth);
    sign_up(&auth, "ada@example.com").await;
    let mail = server.wait_for(1).await.remove(0);
    assert_eq!(mail.header("subject").unwrap(), "Hallo <Ada>");
    assert!(
        mail.part("text/html")
            .unwrap()
            .contains("Hi &lt;Ada&gt;, <a href=\"http:&#x2f;&#x2f;localhost:3000/confirm?token_hash=")
    );
    assert!(
        mail.part("text/plain").unwrap().contains("Hi <Ada>, go (http://localhost:3000/confirm?token_hash=")
    );
    worker.stop().await;
}

#[tokio::test]
async fn without_a_server_mail_ends_in_the_mailbox_and_is_pruned() {
    let auth = TestAuth::start().await;
    sign_up(&auth, "ada@example.com").await;
    sign_up(&auth, "bob@example.com").await;
    let sql = "insert into longhouse.mail_outbox (kind, recipient, variables, created_at)
        values ('invite', 'old@example.com', '{}', now() - interval '8 days')";
    auth.sql.execute(sql, &[]).await.unwrap();
    let worker = Worker::start(&auth);
    let base = format!("http://localhost:{}", mailbox(&auth).await);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| client.get(format!("{base}{path}")).send().await.unwrap();
    // The old one goes with the worker's first round.
    let mails = loop {
        let all: Value = get("/mailbox/messages").await.json().await.unwrap();
        if all.as_array().unwrap().len() == 2
            && all.as_array().unwrap().iter().all(|mail| !mail["sent_at"].is_null())
        {
            break all;
        }
    };
    worker.stop().await;
    assert_eq!((&mails[0]["to"], &mails[1]["to"]), (&json!("bob@example.com"), &json!("ada@example.com")));
    let only: Value = get("/mailbox/messages?to=Ada@example.com").await.json().await.unwrap();
    assert_eq!(only.as_array().unwrap().len(), 1);
    assert_eq!(only[0]["code"].as_str().unwrap().len(), 6);
    let id = &only[0]["id"];
    let list = get("/mailbox").await;
    assert!(list.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    assert!(
        list.text()
            .await
            .unwrap()
            .contains(&format!("<a href=\"mailbox/{id}\">Confirm your email address</a>"))
    );
    let page = get(&format!("/mailbox/{id}")).await.text().await.unwrap();
    assert!(page.contains("sandbox=\"allow-popups"), "{page}");
    let frame = get(&format!("/mailbox/{id}/html")).await;
    assert!(frame.headers()["content-security-policy"].to_str().unwrap().contains("sandbox"));
    assert!(frame.text().await.unwrap().contains("<base target=\"_blank\">"));
    let link = only[0]["link"].as_str().unwrap().split_once("/auth/v1").unwrap().1.to_owned();
    assert!(auth.get(&link).await.in_fragment("access_token").is_some());
}

#[tokio::test]
async fn strangers_do_not_read_the_mailbox() {
    let auth = TestAuth::start().await;
    let port = mailbox(&auth).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |name: &str, value: &str| {
        let request = client.get(format!("http://127.0.0.1:{port}/mailbox/messages")).header(name, value);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(get("accept", "*/*").await, 200);
    assert_eq!(get("host", "evil.example").await, 403);
    assert_eq!(get("sec-fetch-site", "cross-site").await, 403);
    let as_role = async |key: &str| {
        let request =
            client.get(format!("http://127.0.0.1:{port}/mailbox/messages")).header("host", "api.example.com");
        request.bearer_auth(key).send().await.unwrap().status().as_u16()
    };
    use secrecy::ExposeSecret;
    assert_eq!(as_role(auth.keys.anon_key.expose_secret()).await, 403);
    assert_eq!(as_role(auth.service_key()).await, 200);

    let sends = TestAuth::with(|options| options.mailbox = false).await;
    let status = client
        .get(format!("http://127.0.0.1:{}/mailbox", mailbox(&sends).await))
        .send()
        .await
        .unwrap()
        .status();
    assert_eq!(status, 404);
}

/// Serves the mailbox at the root of a port of its own, as the binary does.
async fn mailbox(auth: &TestAuth) -> u16 {
    use longhouse_server::{Listener, Stack, serve};
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().port();
    let settings =
        longhouse_config::Server { rate_limit_per_second: 0, ..longhouse_config::Server::default() };
    let router = Stack::new(&settings).apply(auth.service.mailbox_router());
    tokio::spawn(serve(listener, router, Drain::new()));
    port
}
