//! The signed webhook: asks the customer's application what to do with a call.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use tokio::time::Instant;
use url::{Host, Url, form_urlencoded};

use super::signature::sign;
use super::twiml::{self, Method, Problem};
use super::{CallOptions, Error};

/// Twilio waits this long for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_millis(200);
const USER_AGENT: &str = "TwilioProxy/1.1";
/// The largest file that `<Play>` fetches.
const MAX_AUDIO: usize = 16 * 1024 * 1024;

/// Where Twilio believes it calls, and where the emulator connects instead.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    public: Url,
    connect: Url,
}

impl Route {
    pub(crate) fn new(webhook: &Url, public: Option<&Url>) -> Self {
        Self { public: public.unwrap_or(webhook).clone(), connect: webhook.clone() }
    }

    /// The voice URL as Twilio knows it.
    pub(crate) fn voice_url(&self) -> Url {
        self.public.clone()
    }

    /// The address to connect to for a public URL: the same, unless it has the public origin.
    pub(crate) fn address_of(&self, url: &Url) -> Url {
        let same = url.host_str() == self.public.host_str()
            && url.port_or_known_default() == self.public.port_or_known_default();
        let mut address = url.clone();
        if same && self.public.origin() != self.connect.origin() {
            let secure = self.connect.scheme() == "https";
            let scheme = match (url.scheme().starts_with("ws"), secure) {
                (true, true) => "wss",
                (true, false) => "ws",
                (false, _) => self.connect.scheme(),
            };
            let done = address.set_scheme(scheme).is_ok()
                && address.set_host(self.connect.host_str()).is_ok()
                && address.set_port(self.connect.port()).is_ok();
            debug_assert!(done, "http(s) and ws(s) URLs take any scheme, host and port of each other");
        }
        address
    }
}

/// Host and port as a `Host` header carries them.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Asks webhooks on behalf of one call.
pub(crate) struct Webhooks {
    client: reqwest::Client,
    pub(crate) route: Route,
    token: String,
    patience: Duration,
    parameters: Vec<(String, String)>,
}

impl Webhooks {
    pub(crate) fn new(options: &CallOptions, call_sid: &str) -> Result<Self, Error> {
        let local = match options.webhook.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => {
                return Err(Error::Options(
                    "the webhook URL has no host: write http://host:port/path".into(),
                ));
            }
        };
        let client = client(local)?;
        let (from, to) = (options.from.as_str(), options.to.as_str());
        let mut parameters: Vec<(String, String)> = [
            ("CallSid", call_sid),
            ("AccountSid", &options.account_sid),
            ("ApiVersion", "2010-04-01"),
            ("Direction", "inbound"),
            ("From", from),
            ("Caller", from),
            ("To", to),
            ("Called", to),
            ("FromCountry", "US"),
            ("CallerCountry", "US"),
            ("ToCountry", "US"),
            ("CalledCountry", "US"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        // Twilio sends what it does not know as empty parameters, and signs them.
        for party in ["From", "Caller", "To", "Called"] {
            for place in ["City", "State", "Zip"] {
                parameters.push((format!("{party}{place}"), String::new()));
            }
        }
        parameters.extend(options.extra_parameters.iter().cloned());
        Ok(Self {
            client,
            route: Route::new(&options.webhook, options.public_url.as_ref()),
            token: options.auth_token.clone(),
            patience: options.webhook_patience,
            parameters,
        })
    }

    /// Requests TwiML. Refused connections are tried again for the configured patience, as a
    /// number with a fallback URL would.
    pub(crate) async fn ask(&self, url: &Url, method: Method, status: &str) -> Result<String, Problem> {
        let mut parameters = self.parameters.clone();
        parameters.push(("CallStatus".to_owned(), status.to_owned()));
        let give_up = Instant::now() + self.patience;
        loop {
            let error = match self.send(url, method, &parameters).await {
                Ok(response) => return read_twiml(response, url).await,
                Err(error) => error,
            };
            if error.is_timeout() && !error.is_connect() {
                let message = format!("{url} did not answer within {} s", TIMEOUT.as_secs());
                return Err(Problem::new(11205, message));
            }
            if Instant::now() + RETRY_EVERY > give_up {
                let reason = root_cause(&error);
                return Err(Problem::new(
                    11205,
                    format!(
                        "{url} cannot be reached ({reason}): is the server running, and is this its address?"
                    ),
                ));
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    async fn send(
        &self,
        url: &Url,
        method: Method,
        parameters: &[(String, String)],
    ) -> Result<reqwest::Response, reqwest::Error> {
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let address = self.route.address_of(url);
        let request = match method {
            Method::Post => self
                .client
                .post(address)
                .header("X-Twilio-Signature", sign(url.as_str(), parameters, &self.token))
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
                .body(encoded),
            Method::Get => {
                let query = url.query().map_or_else(|| encoded.clone(), |own| format!("{own}&{encoded}"));
                let (mut signed, mut address) = (url.clone(), address);
                signed.set_query(Some(&query));
                address.set_query(Some(&query));
                self.client.get(address).header("X-Twilio-Signature", sign(signed.as_str(), &[], &self.token))
            }
        };
        request.header(HOST, authority(url)).header("Accept", "*/*").timeout(TIMEOUT).send().await
    }

    /// Fetches what `<Play>` names: a WAV file, as 8 kHz samples.
    pub(crate) async fn audio(&self, url: &Url) -> Result<Vec<i16>, Problem> {
        let failed = |reason: String| Problem::new(12400, format!("<Play> of {url} failed: {reason}"));
        let request = self
            .client
            .get(self.route.address_of(url))
            .header("X-Twilio-Signature", sign(url.as_str(), &[], &self.token))
            .header(HOST, authority(url))
            .timeout(TIMEOUT);
        let response = request.send().await.map_err(|e| failed(e.to_string()))?;
        if !response.status().is_success() {
            return Err(failed(format!("HTTP {}", response.status())));
        }
        let body = read_bounded(response, MAX_AUDIO).await.map_err(failed)?;
        super::wav::read_8k(&body).map_err(|e| failed(e.to_string()))
    }
}

/// One client for loopback and one for elsewhere (which heeds proxy settings), shared by all calls:
/// reading the trusted certificates takes longer than a call's webhook.
fn client(local: bool) -> Result<reqwest::Client, Error> {
    static CLIENTS: [OnceLock<reqwest::Client>; 2] = [const { OnceLock::new() }; 2];
    let cell = &CLIENTS[usize::from(local)];
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        // Kept connections would belong to the async runtime of one caller, which may end.
        .pool_max_idle_per_host(0)
        .user_agent(USER_AGENT);
    if local {
        builder = builder.no_proxy();
    }
    let client = builder.build().map_err(|e| Error::Options(format!("no HTTP client: {e}")))?;
    Ok(cell.get_or_init(|| client).clone())
}

/// The innermost reason, such as "Connection refused": what wraps it says nothing more.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

async fn read_twiml(response: reqwest::Response, url: &Url) -> Result<String, Problem> {
    let status = response.status();
    if !status.is_success() {
        return Err(Problem::new(
            11200,
            format!("{url} answered HTTP {status}: a voice webhook answers 200"),
        ));
    }
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let body = read_bounded(response, twiml::MAX_BYTES)
        .await
        .map_err(|reason| Problem::new(11200, format!("the answer of {url} cannot be read: {reason}")))?;
    let media_type = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(media_type, "text/xml" | "application/xml") {
        return Err(Problem::new(
            12300,
            format!("{url} answered with content type {kind:?}: TwiML is text/xml or application/xml"),
        ));
    }
    String::from_utf8(body.to_vec())
        .map_err(|_| Problem::new(12100, format!("the TwiML of {url} is not UTF-8")))
}

async fn read_bounded(mut response: reqwest::Response, most: usize) -> Result<Bytes, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| e.to_string())? {
        if body.len() + chunk.len() > most {
            return Err(format!("it is larger than {most} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://a.example/voice", "http://127.0.0.1:81/voice")]
    #[case("https://a.example:443/next?x=1", "http://127.0.0.1:81/next?x=1")]
    #[case("wss://a.example/stream", "ws://127.0.0.1:81/stream")]
    #[case("wss://other.example/stream", "wss://other.example/stream")]
    fn public_urls_are_reached_at_the_local_address(#[case] url: &str, #[case] address: &str) {
        let webhook = Url::parse("http://127.0.0.1:81/voice").unwrap();
        let public = Url::parse("https://a.example/voice").unwrap();
        let route = Route::new(&webhook, Some(&public));
        assert_eq!(route.address_of(&Url::parse(url).unwrap()).as_str(), address);
    }
}
