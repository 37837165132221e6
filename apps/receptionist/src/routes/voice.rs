//! The voice webhook: Twilio asks what to do with a call and gets TwiML.

use std::sync::Arc;

use axum::extract::{Extension, FromRequestParts as _, OriginalUri};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use longhouse_server::{ApiError, PublicOrigin};
use longhouse_voice::callers::twilio::number::normalise;
use longhouse_voice::callers::twilio::signature::Signed;
use longhouse_voice::callers::twilio::twiml;
use url::{Url, form_urlencoded};

use crate::Shared;
use crate::desk::unix_now;
use crate::domain::disposition::{Fallback, Situation, Stream, after_stream, verbs};
use crate::domain::token::Grant;
use crate::store;

/// Twilio's parameters take one or two KiB.
const BODY_LIMIT: usize = 64 * 1024;
/// Twilio sends about thirty.
const PARAMETER_LIMIT: usize = 200;
/// Longest wait for the database before the caller hears an apology; Twilio gives up after 15 s.
const DECISION_LIMIT: std::time::Duration = std::time::Duration::from_secs(4);

/// Answers a call (Twilio voice webhook, POST).
#[utoipa::path(
    post, path = "/functions/v1/twilio-router", tag = "receptionist",
    request_body(content_type = "application/x-www-form-urlencoded", description = "Twilio's call parameters"),
    responses(
        (status = 200, description = "TwiML", content_type = "text/xml"),
        (status = 403, description = "The request is not signed by Twilio"),
    ),
)]
pub(super) async fn seed_post(request: Webhook) -> Response {
    answer(request).await
}

/// Answers a call (Twilio voice webhook, GET).
#[utoipa::path(
    get, path = "/functions/v1/twilio-router", tag = "receptionist",
    responses(
        (status = 200, description = "TwiML", content_type = "text/xml"),
        (status = 403, description = "The request is not signed by Twilio"),
    ),
)]
pub(super) async fn seed_get(request: Webhook) -> Response {
    answer(request).await
}

/// Answers a call (Twilio voice webhook, POST); short alias.
#[utoipa::path(
    post, path = "/twilio/voice", tag = "receptionist",
    request_body(content_type = "application/x-www-form-urlencoded", description = "Twilio's call parameters"),
    responses(
        (status = 200, description = "TwiML", content_type = "text/xml"),
        (status = 403, description = "The request is not signed by Twilio"),
    ),
)]
pub(super) async fn voice_post(request: Webhook) -> Response {
    answer(request).await
}

/// Answers a call (Twilio voice webhook, GET); short alias.
#[utoipa::path(
    get, path = "/twilio/voice", tag = "receptionist",
    responses(
        (status = 200, description = "TwiML", content_type = "text/xml"),
        (status = 403, description = "The request is not signed by Twilio"),
    ),
)]
pub(super) async fn voice_get(request: Webhook) -> Response {
    answer(request).await
}

/// A webhook request whose signature has been checked.
pub(super) struct Webhook {
    shared: Arc<Shared>,
    /// The URL as Twilio requested it.
    url: Url,
    origin: PublicOrigin,
    parameters: Vec<(String, String)>,
}

impl axum::extract::FromRequest<Arc<Shared>> for Webhook {
    type Rejection = Response;

    async fn from_request(
        request: axum::extract::Request,
        shared: &Arc<Shared>,
    ) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        // Before a byte of the body is read: strangers cost nothing.
        presented(shared, &parts.headers).map_err(forbidden)?;
        let Extension(origin) = Extension::<PublicOrigin>::from_request_parts(&mut parts, shared)
            .await
            .map_err(IntoResponse::into_response)?;
        let OriginalUri(uri) =
            parts.extensions.get::<OriginalUri>().cloned().unwrap_or_else(|| OriginalUri(parts.uri.clone()));
        let body = axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|_| {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a webhook's body has at most 64 KiB")
                .into_response()
        })?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let url = Url::parse(&format!("{origin}{path}")).map_err(|_| forbidden("the URL is not valid"))?;
        let is_form = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        let form: Vec<(String, String)> = if is_form {
            form_urlencoded::parse(&body).into_owned().take(PARAMETER_LIMIT + 1).collect()
        } else {
            Vec::new()
        };
        if form.len() > PARAMETER_LIMIT {
            return Err(forbidden("no webhook has that many parameters"));
        }
        let signed = match (is_form, body.is_empty()) {
            (true, _) => Signed::Form(&form),
            (false, true) => Signed::UrlOnly,
            (false, false) => Signed::Body(&body),
        };
        verify(shared, &parts.headers, &url, signed).map_err(forbidden)?;
        let mut parameters = form;
        parameters.extend(url.query_pairs().into_owned());
        Ok(Self { shared: Arc::clone(shared), url, origin, parameters })
    }
}

/// The signature that a request presents, if it can be one at all.
fn presented<'h>(shared: &Shared, headers: &'h HeaderMap) -> Result<&'h str, &'static str> {
    if !shared.verifier.is_configured() {
        return Err("no Twilio auth token is configured (TWILIO_AUTH_TOKEN)");
    }
    let signature = headers.get("x-twilio-signature").and_then(|v| v.to_str().ok()).unwrap_or("").trim();
    match signature.len() {
        0 => Err("the request has no X-Twilio-Signature"),
        // Base64 of an HMAC-SHA1.
        28 => Ok(signature),
        _ => Err("X-Twilio-Signature is not a signature"),
    }
}

/// Why a request is not signed by Twilio; asked before any work is done for it.
pub(super) fn verify(
    shared: &Shared,
    headers: &HeaderMap,
    url: &Url,
    signed: Signed<'_>,
) -> Result<(), &'static str> {
    let signature = presented(shared, headers)?;
    if shared.verifier.verify(url, signed, signature) {
        return Ok(());
    }
    Err(
        "X-Twilio-Signature does not fit this URL; behind a proxy, set server.public_url to the URL that Twilio calls",
    )
}

pub(super) fn forbidden(why: &'static str) -> Response {
    metrics::counter!("longhouse_receptionist_rejected_webhooks_total").increment(1);
    tracing::warn!(why, "webhook refused");
    ApiError::new(StatusCode::FORBIDDEN, "invalid_signature", why).into_response()
}

impl Webhook {
    fn parameter(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.parameters.iter().find(|(n, v)| n == name && !v.is_empty()))
            .map(|(_, value)| value.as_str())
    }
}

/// Whatever happens, the caller hears something: the answer is always 200 with TwiML.
async fn answer(request: Webhook) -> Response {
    // Kept outside of the time limit: what is known of the tenant by then still helps its caller.
    let mut fallback = Fallback::default();
    let decided = tokio::time::timeout(DECISION_LIMIT, decide(&request, &mut fallback)).await;
    let situation = decided.unwrap_or_else(|_| {
        tracing::error!("the database did not answer in time");
        Situation::Unavailable
    });
    metrics::counter!("longhouse_receptionist_webhooks_total", "situation" => name(&situation)).increment(1);
    let document = twiml::document(&verbs(&situation, &fallback, request.url.as_str()));
    ([(header::CONTENT_TYPE, "text/xml; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], document)
        .into_response()
}

async fn decide(request: &Webhook, fallback: &mut Fallback) -> Situation {
    let shared = &request.shared;
    let Some(to) = request.parameter(&["To", "to", "Called"]).and_then(normalise) else {
        return Situation::UnknownNumber;
    };
    let Some(call_sid) = request.parameter(&["CallSid"]).filter(|sid| is_sid(sid)) else {
        return Situation::UnknownNumber;
    };
    let line = match store::find_line(&shared.database, &to).await {
        Ok(Some(line)) => line,
        Ok(None) => {
            tracing::info!(call_sid, "called number belongs to no tenant");
            return Situation::UnknownNumber;
        }
        Err(error) => {
            tracing::error!(call_sid, %error, "the called number cannot be looked up");
            return Situation::Unavailable;
        }
    };
    *fallback = line.fallback;
    let from =
        request.parameter(&["From", "from", "Caller"]).map(|raw| normalise(raw).unwrap_or_else(|| cut(raw)));
    if !line.enabled {
        return Situation::Transferred;
    }
    if shared.drain.is_draining() {
        // A call that is over, or goes to a person, need not wait for the next server.
        let decided = match store::registered_call(&shared.database, line.tenant, call_sid).await {
            Ok(Some(call)) => after_stream(&call.status, call.outcome.as_deref(), call.epoch),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(call_sid, %error, "the call cannot be looked up");
                None
            }
        };
        return decided.unwrap_or(Situation::Stopping);
    }
    let call = match store::register_call(&shared.database, line.tenant, call_sid, from.as_deref(), &to).await
    {
        Ok(call) => call,
        Err(error) => {
            tracing::error!(call_sid, %error, "the call cannot be recorded");
            return Situation::Unavailable;
        }
    };
    if let Some(situation) = after_stream(&call.status, call.outcome.as_deref(), call.epoch) {
        return situation;
    }
    if !shared.has_capacity() {
        tracing::warn!(call_sid, "all lines are busy");
        return Situation::Unavailable;
    }
    let grant = Grant { tenant: line.tenant, epoch: call.epoch };
    let stream = Stream {
        url: shared.stream_url(&request.origin),
        parameters: vec![
            ("token", shared.tokens.issue(call_sid, grant, unix_now())),
            ("phoneNumber", to.clone()),
            ("from", from.unwrap_or_default()),
            ("to", to),
            ("tenantId", line.tenant.to_string()),
            ("businessName", line.business),
            ("voiceId", line.voice),
            ("greeting", line.greeting.unwrap_or_default()),
        ],
    };
    Situation::Connect(stream)
}

fn is_sid(text: &str) -> bool {
    (2..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// `anonymous` and the like are kept as they are, within reason.
fn cut(raw: &str) -> String {
    raw.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn name(situation: &Situation) -> &'static str {
    match situation {
        Situation::UnknownNumber => "unknown_number",
        Situation::Unavailable => "unavailable",
        Situation::Stopping => "stopping",
        Situation::Connect(_) => "connect",
        Situation::Transferred => "transferred",
        Situation::UpstreamFailed => "upstream_failed",
        Situation::Over => "over",
    }
}
