//! The one way to providers: bounded in time, size and reach, with failures named alike for all of them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header};
use longhouse_outbound::{Reach, innermost, permit};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::Attempt;
use super::sse::{Decoder, Event};
use crate::chat::{ChatEvent, ChatStream};
use crate::error::{Error, Failure, Fault, Waiting};
use crate::model::ProviderName;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Largest JSON answer; pictures in base64 are the largest.
const MOST_JSON: usize = 64 << 20;
/// Largest streamed answer.
const MOST_STREAM: usize = 64 << 20;
/// Largest error that is read.
const MOST_ERROR: usize = 64 << 10;
/// Most characters of a provider's message that we repeat.
const MOST_MESSAGE: usize = 400;
/// Longest wait that a provider can ask for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// What is read after the end of an answer, so that its connection can be used again.
const MOST_DRAIN: usize = 64 << 10;
const DRAIN: Duration = Duration::from_secs(1);

/// What a provider's error body says: a better fault than its status, if it names one, and its message.
pub(crate) type Explain = fn(StatusCode, &Value) -> (Option<Fault>, String);

/// Connections to providers, shared by all adapters.
#[derive(Debug, Clone)]
pub struct Wire {
    /// For addresses that people named.
    public: Client,
    /// For addresses that the operator vouches for.
    anywhere: Client,
}

impl Wire {
    /// Sets up the clients.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the system has no certificate authorities.
    pub fn new() -> Result<Self, Error> {
        let build = |reach| {
            longhouse_outbound::client(reach)
                .connect_timeout(CONNECT)
                .pool_idle_timeout(Duration::from_secs(60))
                .tcp_nodelay(true)
                .build()
                .map_err(|error| {
                    Error::InvalidRequest(format!(
                        "no requests can be made to providers ({error}): install the system's certificate authorities"
                    ))
                })
        };
        Ok(Self { public: build(Reach::Public)?, anywhere: build(Reach::Anywhere)? })
    }

    /// A request to a path below the attempt's base URL.
    pub(crate) fn request(&self, method: Method, attempt: &Attempt, path: &str) -> RequestBuilder {
        self.request_to(method, attempt, below(&attempt.base_url, path))
    }

    /// A request to a URL that the adapter made from the attempt's base URL.
    pub(crate) fn request_to(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let client = if attempt.trusted_address { &self.anywhere } else { &self.public };
        client.request(method, url)
    }

    /// Sends, and returns an answer with a status of success.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        attempt: &Attempt,
        explain: Explain,
    ) -> Result<Answer, Error> {
        let mut context = Context::of(attempt);
        let (client, request) = request.build_split();
        let request = request.map_err(|error| {
            context.fail(Fault::InvalidRequest, format!("the request cannot be written: {error}"))
        })?;
        let reach = if attempt.trusted_address { Reach::Anywhere } else { Reach::Public };
        permit(request.url(), reach).map_err(|error| context.fail(Fault::ForbiddenAddress, error.url))?;
        let by = attempt.deadline.min(Instant::now() + attempt.first_byte);
        let response = match timeout_at(by, client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(context.transport(&error).into()),
            Err(_) => {
                let waiting = if by == attempt.deadline { Waiting::Deadline } else { Waiting::Answer };
                return Err(context.fail(Fault::TimedOut(waiting), String::new()).into());
            }
        };
        context.request_id = ["x-request-id", "request-id", "dg-request-id", "x-goog-request-id"]
            .iter()
            .find_map(|name| response.headers().get(*name)?.to_str().ok())
            .map(|id| id.chars().take(128).collect());
        let status = response.status();
        let mut answer = Answer {
            response,
            context,
            deadline: attempt.deadline,
            idle: attempt.idle,
            read: 0,
            secret: attempt.key.as_ref().map(|key| key.expose().to_owned()),
        };
        if status.is_success() {
            return Ok(answer);
        }
        Err(answer.refusal(status, explain).await.into())
    }
}

/// A URL below another: paths are appended, the query stays.
pub(crate) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let joined = format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/'));
    url.set_path(&joined);
    url
}

/// The same URL with further query parameters.
pub(crate) fn with_query<K: AsRef<str>, V: AsRef<str>>(
    mut url: Url,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Url {
    for (name, value) in pairs {
        url.query_pairs_mut().append_pair(name.as_ref(), value.as_ref());
    }
    url
}

/// Who is asked, for failures.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) provider: ProviderName,
    pub(crate) model: String,
    pub(crate) request_id: Option<String>,
}

impl Context {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        Self { provider: attempt.provider.clone(), model: attempt.model.to_string(), request_id: None }
    }

    pub(crate) fn fail(&self, fault: Fault, message: impl Into<String>) -> Failure {
        let message: String = message.into();
        Failure {
            provider: self.provider.clone(),
            model: self.model.clone(),
            fault,
            status: None,
            message: message.chars().take(MOST_MESSAGE).collect(),
            retry_after: None,
            request_id: self.request_id.clone(),
            delivered: false,
        }
    }

    fn transport(&self, error: &reqwest::Error) -> Failure {
        let reason = innermost(error).unwrap_or_default();
        let fault = if reason.contains("no public address") {
            Fault::ForbiddenAddress
        } else if error.is_body() || error.is_decode() {
            Fault::Interrupted
        } else {
            Fault::Unreachable
        };
        self.fail(fault, reason)
    }
}

/// An accepted request's answer, whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    context: Context,
    deadline: Instant,
    idle: Duration,
    read: usize,
    secret: Option<String>,
}

impl Answer {
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The media type without parameters.
    pub(crate) fn mime(&self) -> &str {
        let value = self.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }

    /// The next bytes, at most `limit` altogether.
    pub(crate) async fn chunk(&mut self, limit: usize) -> Result<Option<Bytes>, Error> {
        let by = self.deadline.min(Instant::now() + self.idle);
        match timeout_at(by, self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                self.read += bytes.len();
                if self.read > limit {
                    let message = format!("more than {limit} bytes");
                    return Err(self.context.fail(Fault::TooLarge, message).into());
                }
                Ok(Some(bytes))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => {
                let mut failure = self.context.transport(&error);
                failure.fault = Fault::Interrupted;
                Err(failure.into())
            }
            Err(_) => {
                let waiting = if by == self.deadline { Waiting::Deadline } else { Waiting::NextByte };
                Err(self.context.fail(Fault::TimedOut(waiting), String::new()).into())
            }
        }
    }

    /// The whole body.
    pub(crate) async fn bytes(&mut self, limit: usize) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk(limit).await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The whole body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let bytes = self.bytes(MOST_JSON).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.context.fail(Fault::Malformed, error.to_string()).into())
    }

    async fn refusal(&mut self, status: StatusCode, explain: Explain) -> Failure {
        let retry_after = retry_after(self.headers(), SystemTime::now());
        let location = self
            .headers()
            .get(header::LOCATION)
            .filter(|_| status.is_redirection())
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        // An error whose body breaks off or never ends is still that error.
        let body = self.bytes(MOST_ERROR).await.unwrap_or_default();
        let (fault, message) = match serde_json::from_slice(&body) {
            Ok(value) => explain(status, &value),
            Err(_) => (None, String::from_utf8_lossy(&body).trim().to_owned()),
        };
        let message = match location {
            Some(location) => format!("it redirects to {location}: use that as base URL"),
            None => message,
        };
        let message = masked(message, self.secret.as_deref());
        let mut failure = self.context.fail(fault.unwrap_or_else(|| fault_of(status)), message);
        failure.status = Some(status.as_u16());
        failure.retry_after = retry_after;
        failure
    }

    /// Reads the body as server-sent events of a chat.
    pub(crate) async fn chat(mut self, reader: impl ChatReader) -> Result<ChatStream, Error> {
        if self.mime() != "text/event-stream" {
            let found = self.mime().to_owned();
            let start = self.bytes(MOST_ERROR).await.unwrap_or_default();
            let start: String = String::from_utf8_lossy(&start).chars().take(200).collect();
            let message = format!("a stream of events was expected, not {found}: {start}");
            return Err(self.context.fail(Fault::Malformed, message).into());
        }
        let reading = Reading {
            answer: Some(self),
            decoder: Decoder::default(),
            reader,
            ready: VecDeque::new(),
            delivered: false,
            failure: None,
        };
        Ok(ChatStream::new(stream::unfold(reading, async |mut reading| {
            let event = reading.next().await?;
            Some((event, reading))
        })))
    }
}

/// What a stream of events turned out to be instead.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Not the protocol.
    Malformed(String),
    /// The provider reports a failure in the middle.
    Failed { fault: Fault, message: String },
    /// The end came before the answer was complete.
    Incomplete,
}

impl Broken {
    pub(crate) fn into_failure(self, context: &Context) -> Failure {
        match self {
            Self::Malformed(message) => context.fail(Fault::Malformed, message),
            Self::Failed { fault, message } => context.fail(fault, message),
            Self::Incomplete => context.fail(Fault::Interrupted, "it ended before the answer was complete"),
        }
    }
}

impl From<serde_json::Error> for Broken {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Turns one protocol's events into ours. Pure: no socket, no clock.
pub(crate) trait ChatReader: Send + 'static {
    /// Takes the next event; what it means goes to `out`. [`ChatEvent::Finished`] ends the stream.
    fn event(&mut self, event: &Event, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken>;

    /// The provider closed the stream without a failure of transport.
    fn end(&mut self, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken>;
}

struct Reading<R> {
    /// `None` after the end.
    answer: Option<Answer>,
    decoder: Decoder,
    reader: R,
    ready: VecDeque<ChatEvent>,
    delivered: bool,
    /// What is reported when everything before it has been handed on.
    failure: Option<Error>,
}

impl<R: ChatReader> Reading<R> {
    async fn next(&mut self) -> Option<Result<ChatEvent, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.delivered |= event.is_content();
                if matches!(event, ChatEvent::Finished { .. })
                    && let Some(answer) = self.answer.take()
                {
                    answer.drain();
                }
                return Some(Ok(event));
            }
            let Some(answer) = self.answer.as_mut() else { return self.failed().map(Err) };
            let outcome = match answer.chunk(MOST_STREAM).await {
                Err(error) => Err(error),
                Ok(None) => self
                    .reader
                    .end(&mut self.ready)
                    .and_then(|()| {
                        let finished = self.ready.iter().any(|e| matches!(e, ChatEvent::Finished { .. }));
                        if finished { Ok(()) } else { Err(Broken::Incomplete) }
                    })
                    .map_err(|broken| broken.into_failure(&answer.context).into()),
                Ok(Some(bytes)) => self.take(&bytes),
            };
            if let Err(error) = outcome {
                // What was understood before the failure is handed on first; the failure waits its turn.
                self.answer = None;
                self.ready.retain(|event| !matches!(event, ChatEvent::Finished { .. }));
                self.failure = Some(error);
            }
        }
    }

    fn failed(&mut self) -> Option<Error> {
        Some(match self.failure.take()? {
            Error::Provider(mut failure) => {
                failure.delivered = self.delivered;
                Error::Provider(failure)
            }
            other => other,
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(answer) = &self.answer else { return Ok(()) };
        let broken = |broken: Broken| Error::from(broken.into_failure(&answer.context));
        self.decoder.push(bytes).map_err(|_| {
            Error::from(answer.context.fail(Fault::TooLarge, "one event is larger than 8 MiB"))
        })?;
        while let Some(event) = self.decoder.next() {
            self.reader.event(&event, &mut self.ready).map_err(broken)?;
        }
        Ok(())
    }
}

impl Answer {
    /// Reads what little comes after the end of an answer, so that the connection can be used again.
    fn drain(mut self) {
        if let Some(Ok(None)) = self.response.chunk().now_or_never() {
            return;
        }
        tokio::spawn(async move {
            let _ = tokio::time::timeout(DRAIN, async {
                let mut read = 0;
                while let Ok(Some(bytes)) = self.response.chunk().await {
                    read += bytes.len();
                    if read > MOST_DRAIN {
                        return;
                    }
                }
            })
            .await;
        });
    }
}

/// A failure that is found before anything is asked.
pub(crate) fn context_failure(attempt: &Attempt, fault: Fault, message: impl Into<String>) -> Error {
    Context::of(attempt).fail(fault, message).into()
}

/// A provider's words without the key, which some repeat.
pub(crate) fn masked(message: String, secret: Option<&str>) -> String {
    match secret {
        Some(secret) if secret.len() >= 8 => message.replace(secret, "***"),
        _ => message,
    }
}

/// What a status means where the body says nothing better.
pub(crate) fn fault_of(status: StatusCode) -> Fault {
    match status.as_u16() {
        401 => Fault::Unauthorized,
        402 => Fault::Billing,
        403 => Fault::Forbidden,
        300..=399 | 404 | 410 => Fault::NotFound,
        413 => Fault::ContextTooLong,
        408 | 409 | 425 | 503 | 529 => Fault::Overloaded,
        429 => Fault::RateLimited,
        500..=599 => Fault::ServerError,
        _ => Fault::InvalidRequest,
    }
}

/// How long the provider asks to wait: milliseconds, seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok())
        && ms.is_finite()
        && ms >= 0.0
    {
        return Some(Duration::from_secs_f64((ms / 1_000.0).min(MOST_RETRY_AFTER.as_secs_f64())));
    }
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse::<f64>() {
        let valid = seconds.is_finite() && seconds >= 0.0;
        return valid.then(|| Duration::from_secs_f64(seconds.min(MOST_RETRY_AFTER.as_secs_f64())));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(MOST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("retry-after", "7", Some(7_000))]
    #[case("retry-after", "0.5", Some(500))]
    #[case("retry-after-ms", "120", Some(120))]
    #[case("retry-after", "Thu, 01 Jan 1970 00:00:30 GMT", Some(20_000))]
    #[case("retry-after", "Thu, 01 Jan 1970 00:00:01 GMT", Some(0))]
    #[case("retry-after", "99999999999", Some(86_400_000))]
    #[case("retry-after", "-1", None)]
    #[case("retry-after", "soon", None)]
    fn waits_are_understood(#[case] name: &'static str, #[case] value: &str, #[case] ms: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(retry_after(&headers, now), ms.map(Duration::from_millis));
    }

    #[rstest]
    #[case("https://api.openai.com/v1", "/chat/completions", "https://api.openai.com/v1/chat/completions")]
    #[case("http://127.0.0.1:11434/v1/", "models", "http://127.0.0.1:11434/v1/models")]
    #[case("https://x.example/o?api-version=1", "/y", "https://x.example/o/y?api-version=1")]
    fn paths_are_appended(#[case] base: Url, #[case] path: &str, #[case] whole: &str) {
        assert_eq!(below(&base, path).as_str(), whole);
    }

    #[rstest]
    #[case(400, Fault::InvalidRequest)]
    #[case(404, Fault::NotFound)]
    #[case(302, Fault::NotFound)]
    #[case(429, Fault::RateLimited)]
    #[case(500, Fault::ServerError)]
    #[case(529, Fault::Overloaded)]
    fn statuses(#[case] status: u16, #[case] fault: Fault) {
        assert_eq!(fault_of(StatusCode::from_u16(status).unwrap()), fault);
    }
}
