//! Twilio's Messages API, as far as sending one message goes: strict about what it is sent, and it remembers.
//!
//! Facts: <https://www.twilio.com/docs/messaging/api/message-resource> and Twilio's error dictionary.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

/// Messages that are remembered.
const MOST_MESSAGES: usize = 10_000;
/// Largest request.
const MOST_BYTES: usize = 64 * 1024;
/// Twilio's limit, in characters.
const MOST_BODY: usize = 1_600;

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Its id: `SM…`.
    pub sid: String,
    /// Receiver, as it was sent: `+…` or `whatsapp:+…`.
    pub to: String,
    /// Sender: number or messaging service.
    pub from: String,
    /// Text.
    pub body: String,
}

/// What goes wrong with the next messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// 429 for that many requests.
    TooMany(usize),
    /// Accepted, but with status `failed`.
    Failed,
    /// 500.
    Broken,
}

/// A running server. It stops when dropped.
#[derive(Debug)]
pub struct MessagesServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    changed: watch::Receiver<usize>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    account: String,
    token: String,
    messages: Mutex<VecDeque<SentMessage>>,
    fault: Mutex<Fault>,
    requests: watch::Sender<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl MessagesServer {
    /// Listens on a free local port, for one account.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(account_sid: &str, auth_token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (requests, changed) = watch::channel(0);
        let shared = Arc::new(Shared {
            account: account_sid.to_owned(),
            token: auth_token.to_owned(),
            messages: Mutex::default(),
            fault: Mutex::default(),
            requests,
        });
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/2010-04-01/Accounts/{account}/Messages.json", post(create))
            .with_state(Arc::clone(&shared));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Ok(Self { address, shared, changed, stop })
    }

    /// Base address, in place of `https://api.twilio.com`.
    #[must_use]
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).expect("a socket address makes a valid URL")
    }

    /// All accepted messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<SentMessage> {
        lock(&self.shared.messages).iter().cloned().collect()
    }

    /// How many requests have come, accepted or not.
    #[must_use]
    pub fn requests(&self) -> usize {
        *self.changed.borrow()
    }

    /// Changes what goes wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }
}

impl Drop for MessagesServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    Path(account): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    shared.requests.send_modify(|count| *count += 1);
    match try_create(&shared, &account, &headers, request).await {
        Ok(answer) => (StatusCode::CREATED, Json(answer)).into_response(),
        Err((status, code, message)) => {
            let more = format!("https://www.twilio.com/docs/errors/{code}");
            let body =
                json!({ "code": code, "message": message, "more_info": more, "status": status.as_u16() });
            (status, Json(body)).into_response()
        }
    }
}

type Refusal = (StatusCode, u32, String);

async fn try_create(
    shared: &Shared,
    account: &str,
    headers: &HeaderMap,
    request: Request,
) -> Result<Value, Refusal> {
    let bad = |code, message: &str| (StatusCode::BAD_REQUEST, code, message.to_owned());
    let login = format!("Basic {}", STANDARD.encode(format!("{}:{}", shared.account, shared.token)));
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(&login) {
        return Err((StatusCode::UNAUTHORIZED, 20003, "Authenticate".into()));
    }
    if account != shared.account {
        let message = format!("The requested resource /Accounts/{account}/Messages.json was not found");
        return Err((StatusCode::NOT_FOUND, 20404, message));
    }
    let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !form.is_some_and(|form| form.starts_with("application/x-www-form-urlencoded")) {
        let message = "Unsupported Content-Type: send application/x-www-form-urlencoded";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, 20422, message.into()));
    }
    let fault = {
        let mut fault = lock(&shared.fault);
        let now = *fault;
        if let Fault::TooMany(left) = now {
            *fault = if left > 1 { Fault::TooMany(left - 1) } else { Fault::None };
        }
        now
    };
    match fault {
        Fault::TooMany(_) => return Err((StatusCode::TOO_MANY_REQUESTS, 20429, "Too Many Requests".into())),
        Fault::Broken => {
            return Err((StatusCode::INTERNAL_SERVER_ERROR, 20500, "Internal Server Error".into()));
        }
        Fault::None | Fault::Failed => {}
    }
    let bytes = axum::body::to_bytes(request.into_body(), MOST_BYTES).await;
    let bytes = bytes.map_err(|_| bad(21617, "The request is too large"))?;
    let parameter = |wanted: &str| {
        let found = url::form_urlencoded::parse(&bytes).find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
    };
    let to = parameter("To").ok_or_else(|| bad(21604, "A 'To' phone number is required."))?;
    let from = parameter("MessagingServiceSid").or_else(|| parameter("From"));
    let from = from.ok_or_else(|| bad(21603, "A 'From' phone number is required."))?;
    let body = parameter("Body").ok_or_else(|| bad(21602, "Message body is required."))?;
    if !is_address(&to) {
        return Err(bad(21211, &format!("Invalid 'To' Phone Number: {to}")));
    }
    let service = parameter("MessagingServiceSid").is_some();
    if service && !(from.starts_with("MG") && from.len() == 34) {
        return Err(bad(21705, "The Messaging Service Sid is invalid"));
    }
    if !service && !is_address(&from) {
        return Err(bad(21212, &format!("Invalid From Number: {from}")));
    }
    if to.starts_with("whatsapp:") != from.starts_with("whatsapp:") && !service {
        return Err(bad(63007, "Twilio could not find a Channel with the specified From address"));
    }
    if body.chars().count() > MOST_BODY {
        let message = "The concatenated message body exceeds the 1600 character limit";
        return Err(bad(21617, message));
    }
    let sid = format!("SM{}", Uuid::new_v4().simple());
    let failed = fault == Fault::Failed;
    let answer = json!({
        "sid": sid,
        "account_sid": account,
        "to": to,
        "from": if service { Value::Null } else { json!(from) },
        "messaging_service_sid": if service { json!(from) } else { Value::Null },
        "body": body,
        "status": if failed { "failed" } else { "queued" },
        "error_code": if failed { json!(30003) } else { Value::Null },
        "error_message": if failed { json!("Unreachable destination handset") } else { Value::Null },
        "num_segments": "1",
        "direction": "outbound-api",
        "api_version": "2010-04-01",
        "uri": format!("/2010-04-01/Accounts/{account}/Messages/{sid}.json"),
    });
    if !failed {
        let mut messages = lock(&shared.messages);
        if messages.len() == MOST_MESSAGES {
            messages.pop_front();
        }
        messages.push_back(SentMessage { sid, to, from, body });
    }
    Ok(answer)
}

/// E.164, also as a WhatsApp address.
fn is_address(address: &str) -> bool {
    let digits = address.strip_prefix("whatsapp:").unwrap_or(address).strip_prefix('+').unwrap_or_default();
    (2..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: (&str, &str) = ("To", "+12025550199");
    const FROM: (&str, &str) = ("From", "+12025550100");
    const BODY: (&str, &str) = ("Body", "Hello");

    async fn send(server: &MessagesServer, token: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}2010-04-01/Accounts/AC1/Messages.json", server.url());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.post(url).basic_auth("AC1", Some(token)).form(form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    #[tokio::test]
    async fn refuses_what_twilio_refuses() {
        let server = MessagesServer::start("AC1", "secret").await.unwrap();
        let long = "x".repeat(1_601);
        type Form<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Form<'_>, u64); 8] = [
            ("wrong", &[TO, FROM, BODY], 20003),
            ("secret", &[FROM, BODY], 21604),
            ("secret", &[TO, BODY], 21603),
            ("secret", &[TO, FROM], 21602),
            ("secret", &[("To", "12025550199"), FROM, BODY], 21211),
            ("secret", &[TO, ("From", "MG0123"), BODY], 21212),
            ("secret", &[TO, ("MessagingServiceSid", "MG0123"), BODY], 21705),
            ("secret", &[TO, FROM, ("Body", &long)], 21617),
        ];
        for (token, form, code) in cases {
            let (status, answer) = send(&server, token, form).await;
            assert!((400..500).contains(&status));
            assert_eq!(answer["code"], code, "{form:?}");
        }
        assert!(server.messages().is_empty());
        assert_eq!(server.requests(), 8);
    }

    #[tokio::test]
    async fn remembers_what_it_accepted() {
        let server = MessagesServer::start("AC1", "secret").await.unwrap();
        server.set_fault(Fault::TooMany(1));
        assert_eq!(send(&server, "secret", &[TO, FROM, BODY]).await.0, 429);
        let (status, answer) = send(&server, "secret", &[TO, FROM, BODY]).await;
        assert_eq!((status, &answer["status"]), (201, &json!("queued")));
        let sent = server.messages();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].to.as_str(), sent[0].body.as_str()), ("+12025550199", "Hello"));
        assert_eq!(answer["sid"], sent[0].sid);
    }
}
