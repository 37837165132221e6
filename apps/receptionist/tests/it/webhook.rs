//! T1 and T2: who may ask what to do with a call, and that every caller hears something.

use std::time::{Duration, Instant};

use longhouse_emulators::twilio::sign;
use longhouse_emulators::twilio::twiml::{self, Document, Stream, Verb};
use reqwest::header::CONTENT_TYPE;
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use crate::harness::{AUTH_TOKEN, GREETING, NUMBER, Setup, TestApp, launch, unreachable_database};
use crate::outage::Road;

const CALL_SID: &str = "CA0123456789abcdef0123456789abcdef";
const PATH: &str = "/functions/v1/twilio-router";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

/// A webhook request, right in every respect until a test changes it.
pub(crate) struct Ask {
    /// Where it goes.
    address: Url,
    /// The URL that is signed: how Twilio knows the number's webhook.
    signed_url: String,
    form: Vec<(String, String)>,
    /// What the signature is made over, when that is not the form that is sent.
    signed_form: Option<Vec<(String, String)>>,
    body: Option<(&'static str, Vec<u8>)>,
    get: bool,
    token: Option<String>,
    signature_header: &'static str,
    headers: Vec<(&'static str, String)>,
}

impl Ask {
    pub(crate) fn new(app: &TestApp) -> Self {
        Self::at(app.webhook())
    }

    fn at(address: Url) -> Self {
        // Every request is another call, unless a test says otherwise.
        let call_sid = format!("CA{}", uuid::Uuid::new_v4().simple());
        let form = [
            ("CallSid", call_sid.as_str()),
            ("From", "+12025550199"),
            ("To", NUMBER),
            ("CallStatus", "ringing"),
        ];
        Self {
            signed_url: address.to_string(),
            address,
            form: form.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            signed_form: None,
            body: None,
            get: false,
            token: Some(AUTH_TOKEN.to_owned()),
            signature_header: "X-Twilio-Signature",
            headers: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.form.retain(|(n, _)| n != name);
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    fn and(mut self, name: &str, value: &str) -> Self {
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.form.retain(|(n, _)| n != name);
        self
    }

    fn signed_as(mut self, url: &str) -> Self {
        self.signed_url = url.to_owned();
        self
    }

    fn token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn get(mut self) -> Self {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.form).finish();
        self.address.set_query(Some(&query));
        self.signed_url = self.address.to_string();
        self.form.clear();
        self.get = true;
        self
    }

    /// Status, content type, body.
    async fn send(self) -> (u16, String, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = if self.get { client.get(self.address) } else { client.post(self.address) };
        if let Some(token) = &self.token {
            let form: &[_] =
                if self.body.is_some() { &[] } else { self.signed_form.as_ref().unwrap_or(&self.form) };
            request = request.header(self.signature_header, sign(&self.signed_url, form, token));
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response = match (self.body, self.get) {
            (Some((kind, body)), _) => request.header(CONTENT_TYPE, kind).body(body),
            (None, true) => request,
            (None, false) => request
                .header(CONTENT_TYPE, FORM)
                .body(form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.form).finish()),
        }
        .send()
        .await
        .unwrap();
        let kind = response.headers().get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap()).to_owned();
        (response.status().as_u16(), kind, response.text().await.unwrap())
    }

    async fn status(self) -> u16 {
        self.send().await.0
    }

    /// The TwiML, which must be faultless and leave nobody in silence.
    pub(crate) async fn twiml(self) -> Document {
        let (status, kind, body) = self.send().await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(kind, "text/xml; charset=utf-8");
        assert!(
            body.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')),
            "XML cannot carry control characters: {body:?}"
        );
        let document = twiml::parse(&body).unwrap_or_else(|problem| panic!("{problem}: {body}"));
        assert_eq!(document.warnings, [], "{body}");
        match &document.verbs[0] {
            Verb::Connect { stream, .. } => {
                stream.target().unwrap_or_else(|problem| panic!("{problem}: {body}"));
            }
            Verb::Say { text, .. } => assert!(!text.trim().is_empty(), "{body}"),
            Verb::Dial { number } => assert!(number.starts_with('+'), "{body}"),
            other => panic!("the caller hears nothing: {other:?}"),
        }
        document
    }

    /// The stream that is opened.
    pub(crate) async fn stream(self) -> Stream {
        let document = self.twiml().await;
        match document.verbs.into_iter().next() {
            Some(Verb::Connect { stream, .. }) => stream,
            other => panic!("not connected: {other:?}"),
        }
    }

    /// What is said where the call is not connected.
    async fn spoken(self) -> String {
        let document = self.twiml().await;
        match &document.verbs[..] {
            [Verb::Say { text, .. }, Verb::Hangup] => text.clone(),
            other => panic!("not a spoken message: {other:?}"),
        }
    }
}

pub(crate) fn parameter<'a>(stream: &'a Stream, name: &str) -> Option<&'a str> {
    stream.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// T1: everything that Twilio signs is let in, by either route and method.
#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_are_answered() {
    let app = TestApp::with(Setup { tokens: vec!["new-token", AUTH_TOKEN], ..Setup::quick() }).await;
    for path in [PATH, "/twilio/voice"] {
        Ask::at(app.url(path)).stream().await;
        Ask::at(app.url(path)).get().stream().await;
    }
    Ask::new(&app).token(Some("new-token")).stream().await;
    let mut lower = Ask::new(&app);
    lower.signature_header = "x-twilio-signature";
    lower.stream().await;
    Ask::at(app.url(&format!("{PATH}?tenant_id=1&x=a%20b"))).stream().await;
    // Parameters appear without notice, more than once, and empty.
    let repeated = Ask::new(&app).and("Tag", "z").and("Tag", "a").and("Tag", "z").and("FromCity", "");
    repeated.stream().await;

    // A JSON body is vouched for by its hash in the signed URL; it names no call.
    let body = br#"{"CallSid":"CA1"}"#.to_vec();
    let hash = hex::encode(Sha256::digest(&body));
    let json = |body: Vec<u8>| {
        let mut ask = Ask::at(app.url(&format!("{PATH}?bodySHA256={hash}")));
        ask.body = Some(("application/json", body));
        ask
    };
    json(body).spoken().await;
    assert_eq!(json(b"{}".to_vec()).status().await, 403, "another body");
}

/// T1: what is not signed by Twilio, exactly as it is sent, gets nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn unsigned_and_tampered_requests_are_refused() {
    let app = TestApp::with(Setup::quick()).await;
    let ask = || Ask::new(&app);
    let mut other_form = ask();
    other_form.signed_form = Some(other_form.form.clone());
    let other_form = other_form.with("To", "+12025550124");
    let mut added = ask();
    added.signed_form = Some(added.form.clone());
    let added = added.and("Digits", "1");
    let mut json_without_hash = ask();
    json_without_hash.body = Some(("application/json", b"{}".to_vec()));
    let mut get = ask().get();
    get.address.query_pairs_mut().append_pair("To", "+12025550124");
    for (what, request) in [
        ("unsigned", ask().token(None)),
        ("unsigned GET", ask().get().token(None)),
        ("another account's token", ask().token(Some("other-token"))),
        ("an empty token", ask().token(Some(""))),
        ("not base64", ask().token(None).header("X-Twilio-Signature", "!!!")),
        ("empty signature", ask().token(None).header("X-Twilio-Signature", "")),
        ("a changed value", other_form),
        ("an added parameter", added),
        ("an added query parameter", get),
        ("another host", ask().signed_as("https://example.org/functions/v1/twilio-router")),
        ("another path", ask().signed_as(app.url("/twilio/voice").as_str())),
        ("JSON without its hash", json_without_hash),
        // Nobody but a trusted proxy may say under which name we were called.
        (
            "a forwarded host from a stranger",
            ask()
                .header("X-Forwarded-Host", "voice.example.com")
                .header("X-Forwarded-Proto", "https")
                .signed_as("https://voice.example.com/functions/v1/twilio-router"),
        ),
    ] {
        let (status, _, body) = request.send().await;
        assert_eq!(status, 403, "{what}: {body}");
        assert!(body.contains("invalid_signature"), "{what}: {body}");
    }
    let calls: i64 =
        app.owner.query_one("select count(*) from receptionist.calls", &[]).await.unwrap().get(0);
    assert_eq!(calls, 0, "a refused request has left something behind");

    let open = TestApp::with(Setup { tokens: Vec::new(), ..Setup::quick() }).await;
    assert_eq!(Ask::new(&open).status().await, 403, "no token is configured");
}

/// T1: Twilio signs the name it calls, which behind a proxy is not the one we see.
#[tokio::test(flavor = "multi_thread")]
async fn the_public_name_is_what_is_signed() {
    let public = Setup { public_url: Some("https://voice.example.com".parse().unwrap()), ..Setup::quick() };
    let app = TestApp::with(public).await;
    for signed in [
        "https://voice.example.com/functions/v1/twilio-router",
        "https://voice.example.com:443/functions/v1/twilio-router",
        "https://voice.example.com/functions/v1/twilio-router/",
    ] {
        let stream = Ask::new(&app).signed_as(signed).stream().await;
        assert_eq!(stream.url, "wss://voice.example.com/functions/v1/twilio-voice-realtime");
    }
    assert_eq!(Ask::new(&app).status().await, 403, "the name behind the proxy");

    let trusting = Setup { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..Setup::quick() };
    let app = TestApp::with(trusting).await;
    let forwarded =
        |host: &str| Ask::new(&app).header("X-Forwarded-Host", host).header("X-Forwarded-Proto", "https");
    let stream =
        forwarded("a.example").signed_as("https://a.example/functions/v1/twilio-router").stream().await;
    assert_eq!(stream.url, "wss://a.example/functions/v1/twilio-voice-realtime");
    // A port that Twilio left out of what it signed, and one that it put in.
    forwarded("a.example:8443").signed_as("https://a.example/functions/v1/twilio-router").stream().await;
    forwarded("a.example").signed_as("https://a.example:443/functions/v1/twilio-router").stream().await;
    let host = Ask::new(&app).header("X-Forwarded-Proto", "https").header("Host", "b.example");
    host.signed_as("https://b.example/functions/v1/twilio-router").stream().await;
    assert_eq!(
        forwarded("a.example").signed_as("https://c.example/functions/v1/twilio-router").status().await,
        403
    );
}

/// T1: a request that is not signed costs no work: with a database that never answers it is refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_looked_up_for_a_stranger() {
    let app = TestApp::with(Setup::quick()).await;
    app.outage.set(Road::Stalled);
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(Ask::new(&app).token(None).status().await, 403);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // The same request with a signature does wait for the database, and even so the caller hears something
    // before Twilio gives up (15 s).
    let began = Instant::now();
    let text = Ask::new(&app).spoken().await;
    assert!(text.contains("cannot take your call"), "{text}");
    assert!(Duration::from_secs(3) < began.elapsed() && began.elapsed() < Duration::from_secs(12));
}

/// T2: no database at all.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_callers_hear_an_apology() {
    let nowhere = "http://127.0.0.1:9/v1".parse().unwrap();
    let (address, _drain, _receptionist) =
        launch(&Setup::quick(), unreachable_database().await, &nowhere).await;
    let ask = || Ask::at(Url::parse(&format!("http://{address}{PATH}")).unwrap());
    assert_eq!(ask().token(None).status().await, 403);
    let text = ask().spoken().await;
    assert!(text.contains("cannot take your call"), "{text}");
}

/// T2, B5, B6: a known number, however it is written, opens a stream with everything in parameters.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_number_is_connected_however_it_is_written() {
    let app = TestApp::with(Setup::quick()).await;
    for to in [
        NUMBER,
        "2025550123",
        "12025550123",
        "0012025550123",
        "(202) 555-0123",
        "tel:+1-202-555-0123",
        "sip:+12025550123@pstn.example.com;user=phone",
        "SIP:2025550123@10.0.0.1",
    ] {
        let stream = Ask::new(&app).with("To", to).stream().await;
        assert_eq!(parameter(&stream, "to"), Some(NUMBER), "{to}");
        assert_eq!(parameter(&stream, "phoneNumber"), Some(NUMBER), "{to}");
        assert_eq!(parameter(&stream, "from"), Some("+12025550199"));
        assert_eq!(parameter(&stream, "businessName"), Some("Marigold Hair Studio"));
        assert_eq!(parameter(&stream, "greeting"), Some(GREETING));
        assert!(!stream.url.contains('?'), "{}", stream.url);
        assert!(stream.url.ends_with("/functions/v1/twilio-voice-realtime"), "{}", stream.url);
    }
    // `Called` is the same thing under another name; an anonymous caller is a caller.
    let stream = Ask::new(&app).without("To").and("Called", NUMBER).with("From", "anonymous").stream().await;
    assert_eq!(parameter(&stream, "from"), Some("anonymous"));
}

/// A stream URL from the configuration is used as it is, but for the query string, which Twilio refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_configured_stream_url_loses_its_query() {
    let configured = "wss://media.example.com/streams/in?tenant_id=1#x".parse().unwrap();
    let app = TestApp::with(Setup { stream_url: Some(configured), ..Setup::quick() }).await;
    assert_eq!(Ask::new(&app).stream().await.url, "wss://media.example.com/streams/in");
}

/// T2: callers whom nobody can answer are told so.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_cannot_be_placed_get_a_spoken_answer() {
    let app = TestApp::with(Setup::quick()).await;
    let ask = || Ask::new(&app);
    let long = "9".repeat(10_000);
    for (what, request) in [
        ("unknown number", ask().with("To", "+12025550124")),
        ("no number", ask().without("To")),
        ("empty number", ask().with("To", "")),
        ("no digits", ask().with("To", "anonymous")),
        ("too many digits", ask().with("To", &long)),
        ("control characters", ask().with("To", "\u{0}\u{1b}[31m")),
        ("no CallSid", ask().without("CallSid")),
        ("empty CallSid", ask().with("CallSid", "")),
        ("hostile CallSid", ask().with("CallSid", "CA1'; drop table receptionist.calls; --")),
        ("markup in the CallSid", ask().with("CallSid", "\"/><Hangup/>")),
        ("NUL in the CallSid", ask().with("CallSid", "CA1\u{0}")),
        ("long CallSid", ask().with("CallSid", &format!("CA{long}"))),
        ("no parameters", { Ask { form: Vec::new(), ..ask() } }),
    ] {
        let text = request.spoken().await;
        assert!(text.contains("not in service"), "{what}: {text}");
    }
    let calls: i64 =
        app.owner.query_one("select count(*) from receptionist.calls", &[]).await.unwrap().get(0);
    assert_eq!(calls, 0);
}

/// T2, B5: what owners and callers write stays inside its attribute, whole up to Twilio's limit.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_long_texts_are_valid_twiml() {
    let app = TestApp::with(Setup::quick()).await;
    let name = r#"A&B <"Salon's"> ]]> <!-- é 💇"#;
    let greeting = format!("<Hangup/>&\"'\u{1}\u{8}\u{1f}\t\n{}", "ü".repeat(600));
    app.owner.execute("update receptionist.tenants set name = $1", &[&name]).await.unwrap();
    app.owner.execute("update receptionist.agents set greeting = $1", &[&greeting]).await.unwrap();
    let from = format!("sip:\"<Dial>+1</Dial>\u{2}&'{}", "x".repeat(10_000));
    let stream = Ask::new(&app).with("From", &from).and("Extra", &"y".repeat(10_000)).stream().await;
    assert_eq!(parameter(&stream, "businessName"), Some(name));
    let said = parameter(&stream, "greeting").unwrap();
    assert!(said.starts_with("<Hangup/>&\"'") && said.ends_with("üü"), "{said}");
    for (name, value) in &stream.parameters {
        assert!(name.chars().count() + value.chars().count() <= 500, "{name} is too long");
    }
    // The apology is read out by Twilio: as hostile, and longer.
    let apology = format!("<Dial>+19005550100</Dial> & \"so\" 'on' \u{7}{}", "ö".repeat(900));
    app.owner
        .execute("update receptionist.agents set apology = $1, enabled = false", &[&apology])
        .await
        .unwrap();
    let text = Ask::new(&app).spoken().await;
    assert!(text.starts_with("<Dial>+19005550100</Dial> & \"so\" 'on' ö"), "{text}");
}

/// T2: an agent that is switched off gives way to a person.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_agent_forwards() {
    let app = TestApp::with(Setup::quick()).await;
    app.owner.execute("update receptionist.agents set enabled = false", &[]).await.unwrap();
    let text = Ask::new(&app).spoken().await;
    assert!(text.contains("cannot take your call"), "{text}");
    app.set_agent(None, Some("+12025550177")).await;
    let document = Ask::new(&app).twiml().await;
    assert_eq!(document.verbs, [Verb::Dial { number: "+12025550177".into() }, Verb::Hangup]);
    // A number whose agent was never set up is answered too.
    app.owner.execute("delete from receptionist.agents", &[]).await.unwrap();
    Ask::new(&app).spoken().await;
}

/// Strangers cost nothing: a body without a signature is not even read, a huge one is refused with one.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_bodies_are_not_read() {
    let app = TestApp::with(Setup::quick()).await;
    let body: String = (0..60_000).map(|i| format!("p{i}&")).collect();
    let post = |signature: &'static str| {
        reqwest::Client::new()
            .post(app.webhook())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-twilio-signature", signature)
            .body(body.clone())
            .send()
    };
    assert_eq!(post("").await.unwrap().status(), 403);
    assert_eq!(post("nonsense").await.unwrap().status(), 403);
    assert_eq!(post("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").await.unwrap().status(), 413);
}

/// A database that stalls after the number was found: the caller still gets to the tenant's person.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_database_still_forwards() {
    let app = TestApp::with(Setup::quick()).await;
    app.set_agent(None, Some("+12025550177")).await;
    app.owner.batch_execute("begin; lock table receptionist.calls in access exclusive mode").await.unwrap();
    let document = Ask::new(&app).twiml().await;
    app.owner.batch_execute("rollback").await.unwrap();
    assert!(matches!(document.verbs[0], Verb::Say { .. }), "{document:?}");
    assert_eq!(document.verbs[1], Verb::Dial { number: "+12025550177".into() });
}

/// T2: one number, one tenant; and a call stays with the tenant that it came to.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_and_a_call_belong_to_one_tenant() {
    let app = TestApp::with(Setup::quick()).await;
    let other: uuid::Uuid = app
        .owner
        .query_one(
            "insert into receptionist.tenants (name, slug) values ('Other', 'other') returning id",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let claim = "insert into receptionist.numbers (e164, tenant_id) values ($1, $2)";
    let refused = app.owner.execute(claim, &[&NUMBER, &other]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23505");
    app.owner.execute(claim, &[&"+12025550124", &other]).await.unwrap();
    app.owner.execute("insert into receptionist.agents (tenant_id) values ($1)", &[&other]).await.unwrap();

    Ask::new(&app).with("CallSid", CALL_SID).stream().await;
    let text = Ask::new(&app).with("CallSid", CALL_SID).with("To", "+12025550124").spoken().await;
    assert!(text.contains("cannot take your call"), "a call cannot change its tenant: {text}");
    let stream = Ask::new(&app).with("To", "+12025550124").stream().await;
    assert_eq!(parameter(&stream, "tenantId"), Some(other.to_string().as_str()));
}

/// B16: what the request says about the tenant is not asked; a number that is not found has none.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_database_says_whose_call_it_is() {
    let app = TestApp::with(Setup::quick()).await;
    let foreign = "00000000-0000-0000-0000-000000000001";
    let claimed = |ask: Ask| {
        ask.and("tenantId", foreign)
            .and("tenant_id", foreign)
            .and("businessName", "Mallory's")
            .and("greeting", "Give me your card number.")
            .and("voiceId", "mallory")
            .and("phoneNumber", "+12025550124")
            .and("token", "mine")
    };
    let stream = claimed(Ask::new(&app)).stream().await;
    let tenant: uuid::Uuid =
        app.owner.query_one("select id from receptionist.tenants", &[]).await.unwrap().get(0);
    assert_eq!(parameter(&stream, "tenantId"), Some(tenant.to_string().as_str()));
    assert_eq!(parameter(&stream, "businessName"), Some("Marigold Hair Studio"));
    assert_eq!(parameter(&stream, "greeting"), Some(GREETING));
    assert_eq!(parameter(&stream, "voiceId"), Some("marin"));
    assert_eq!(parameter(&stream, "phoneNumber"), Some(NUMBER));
    assert_ne!(parameter(&stream, "token"), Some("mine"));
    assert_eq!(stream.parameters.iter().filter(|(name, _)| name == "token").count(), 1);

    let text = claimed(Ask::new(&app).with("To", "+12025550124")).spoken().await;
    assert!(text.contains("not in service"), "{text}");
    // An agent without a greeting has none, whatever the request would like it to say.
    app.set_agent(None, None).await;
    let stream = claimed(Ask::new(&app)).stream().await;
    assert_eq!(parameter(&stream, "greeting"), None);
}

/// No line is free: forwarded where there is somebody, else told to call again.
#[tokio::test(flavor = "multi_thread")]
async fn busy_lines_forward_or_apologise() {
    let app = TestApp::with(Setup { max_calls: 0, ..Setup::quick() }).await;
    let text = Ask::new(&app).spoken().await;
    assert!(text.contains("cannot take your call right now"), "{text}");
    app.owner.execute("update receptionist.agents set apology = 'We are all at lunch.'", &[]).await.unwrap();
    assert_eq!(Ask::new(&app).spoken().await, "We are all at lunch.");
    app.set_agent(None, Some("+12025550177")).await;
    let document = Ask::new(&app).twiml().await;
    let [Verb::Say { .. }, Verb::Dial { number }, Verb::Hangup] = &document.verbs[..] else {
        panic!("{document:?}")
    };
    assert_eq!(number, "+12025550177");
}

/// A server that is going away has the caller wait for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_asks_for_a_moment() {
    let app = TestApp::with(Setup::quick()).await;
    app.drain.begin(Duration::from_secs(20));
    for _ in 0..5 {
        let document = Ask::new(&app).with("CallSid", CALL_SID).twiml().await;
        let [Verb::Say { .. }, Verb::Pause { seconds: 1..=5 }, Verb::Redirect { url, .. }] =
            &document.verbs[..]
        else {
            panic!("{document:?}")
        };
        assert_eq!(url, app.webhook().as_str());
    }
    // Waiting has not used up the call's attempts: the next server answers.
    let (address, _drain, _receptionist) = app.second(Setup::quick()).await;
    let next = Ask::at(Url::parse(&format!("http://{address}{PATH}")).unwrap());
    next.with("CallSid", CALL_SID).stream().await;
}

/// Who has said goodbye, or asked for a person, does not wait for the next server.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_still_ends_and_transfers_calls() {
    let app = TestApp::with(Setup::quick()).await;
    app.set_agent(None, Some("+12025550177")).await;
    let ask = || Ask::new(&app).with("CallSid", CALL_SID);
    ask().stream().await;
    app.drain.begin(Duration::from_secs(20));
    for (outcome, expected) in [
        ("transferred", vec![Verb::Dial { number: "+12025550177".into() }, Verb::Hangup]),
        ("agent_ended", vec![Verb::Hangup]),
    ] {
        let end = "update receptionist.calls set status = 'completed', outcome = $1";
        app.owner.execute(end, &[&outcome]).await.unwrap();
        let (status, _, body) = ask().send().await;
        assert_eq!(status, 200);
        assert_eq!(twiml::parse(&body).unwrap().verbs, expected, "{outcome}");
    }
    // A call that is handed over does wait.
    app.owner
        .execute("update receptionist.calls set status = 'interrupted', outcome = 'handed_over'", &[])
        .await
        .unwrap();
    let document = ask().twiml().await;
    assert!(matches!(document.verbs[..], [.., Verb::Redirect { .. }]), "{document:?}");
}

/// A stream that never opens is not announced for ever: somebody is on the line, hearing nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_stream_reaches_is_given_up() {
    let app = TestApp::with(Setup::quick()).await;
    let ask = || Ask::new(&app).with("CallSid", CALL_SID);
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let stream = ask().stream().await;
        tokens.push(parameter(&stream, "token").unwrap().to_owned());
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "each stream has a token of its own");
    let text = ask().spoken().await;
    assert!(text.contains("cannot take your call"), "{text}");
}
