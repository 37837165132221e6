//! `/mailbox`: mail that nobody can send, shown to whoever develops the app.

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use longhouse_server::ClientIp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::credential;
use crate::service::AuthService;
use crate::service::error::AuthApiError;
use crate::service::mail::OutboxMail;
use crate::service::pages::protect;
use crate::service::store;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Headers that only a proxy adds.
const OF_PROXIES: [HeaderName; 3] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// To be served at the root, and nested nowhere.
pub(crate) fn router() -> Router<AuthService> {
    Router::new()
        .route("/mailbox", get(list))
        .route("/mailbox/messages", get(messages))
        .route("/mailbox/{id}", get(show))
        .route("/mailbox/{id}/html", get(html))
}

/// Somebody who may read all mail: at this machine, or with the service key.
struct Reader;

impl FromRequestParts<AuthService> for Reader {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, AuthApiError> {
        if !service.options.mailbox {
            return Err(AuthApiError::not_found(
                "feature_disabled",
                "Mail is sent by a mail server: there is no mailbox",
            ));
        }
        if is_here(parts) || has_service_key(&parts.headers, service) {
            return Ok(Self);
        }
        let message = "The mailbox is shown at http://localhost of this machine, or to requests with the service key as Bearer token";
        Err(AuthApiError::forbidden("not_admin", message))
    }
}

/// Whether a browser or program of this machine asks by itself: not another machine behind a proxy, not a name that
/// somebody made lead here, not a page of another site.
fn is_here(parts: &Parts) -> bool {
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let near = parts.extensions.get::<ClientIp>().is_some_and(|client| client.0.is_loopback());
    let direct = !OF_PROXIES.iter().any(|name| parts.headers.contains_key(name));
    let host = text(&HOST).or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
    let named = host.is_some_and(is_loopback_host);
    // A page of another origin may link here, but not read.
    let own = match text(&SEC_FETCH_SITE) {
        None | Some("none" | "same-origin") => true,
        Some(_) => text(&SEC_FETCH_MODE) == Some("navigate"),
    };
    near && direct && named && own
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn has_service_key(headers: &HeaderMap, service: &AuthService) -> bool {
    let Ok(Some(token)) = credential(headers) else { return false };
    let Ok(claims) = service.verifier.verify(token) else { return false };
    let claims: Value = serde_json::from_str(claims.json()).unwrap_or_default();
    claims.get("role").and_then(Value::as_str) == Some("service_role")
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    to: Option<String>,
}

async fn list(
    _: Reader,
    State(service): State<AuthService>,
    Query(filter): Query<Filter>,
) -> Result<Response, AuthApiError> {
    let mails = newest(&service, &filter).await?;
    let variables = json!({ "title": "Mailbox", "wide": true, "mails": mails, "to": filter.to });
    Ok(service.pages.page(StatusCode::OK, "mailbox.html", &variables, &[]))
}

async fn messages(
    _: Reader,
    State(service): State<AuthService>,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, AuthApiError> {
    Ok(Json(Value::Array(newest(&service, &filter).await?)))
}

async fn show(
    _: Reader,
    State(service): State<AuthService>,
    Path(id): Path<i64>,
) -> Result<Response, AuthApiError> {
    let mail = describe(&service, &find(&service, id).await?);
    let title = mail["subject"].clone();
    let variables = json!({ "title": title, "wide": true, "mail": mail });
    Ok(service.pages.page(StatusCode::OK, "mail.html", &variables, &[]))
}

/// The mail itself, for the frame: it can open links in new windows and nothing else.
async fn html(
    _: Reader,
    State(service): State<AuthService>,
    Path(id): Path<i64>,
) -> Result<Response, AuthApiError> {
    let mail = find(&service, id).await?;
    let rendered = service.mailer.render(&mail.kind, &mail.variables);
    let html =
        rendered.map_err(|error| AuthApiError::not_found("validation_failed", error.to_string()))?.html;
    let html = html.replacen("<head>", "<head><base target=\"_blank\">", 1);
    let mut response = Html(html).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox";
    protect(response.headers_mut(), policy);
    Ok(response)
}

async fn newest(service: &AuthService, filter: &Filter) -> Result<Vec<Value>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let mails = OutboxMail::newest(&tx, filter.to.as_deref()).await?;
    tx.commit().await?;
    Ok(mails.iter().map(|mail| describe(service, mail)).collect())
}

async fn find(service: &AuthService, id: i64) -> Result<OutboxMail, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let mail = OutboxMail::find(&tx, id).await?;
    tx.commit().await?;
    mail.ok_or_else(|| AuthApiError::not_found("validation_failed", "There is no such mail (any more)"))
}

/// A mail as the page and tests see it.
fn describe(service: &AuthService, mail: &OutboxMail) -> Value {
    let variable = |name: &str| mail.variables.get(name).and_then(Value::as_str).unwrap_or_default();
    let (subject, html, text, error) = match service.mailer.render(&mail.kind, &mail.variables) {
        Ok(rendered) => (rendered.subject, rendered.html, rendered.text, mail.error.clone()),
        Err(error) => (mail.kind.clone(), String::new(), String::new(), Some(error.to_string())),
    };
    let has_link = mail.kind != "reauthentication";
    json!({
        "id": mail.id, "kind": mail.kind, "to": mail.recipient, "subject": subject, "html": html, "text": text,
        "code": variable("Token"), "link": if has_link { variable("ConfirmationURL") } else { "" },
        "created_at": mail.created_at, "created": mail.created_at.format("%-d %B %Y, %H:%M:%S UTC").to_string(),
        "sent_at": mail.sent_at, "error": error,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1", "localhost:8000", &[], true)]
    #[case("127.0.0.1", "127.0.0.1:8000", &[("sec-fetch-site", "same-origin")], true)]
    #[case("::1", "[::1]:8000", &[("sec-fetch-site", "none")], true)]
    #[case::link_from_elsewhere("127.0.0.1", "localhost", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true)]
    #[case::script_of_elsewhere("127.0.0.1", "localhost", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], false)]
    #[case::other_machine("192.0.2.1", "localhost:8000", &[], false)]
    #[case::behind_a_proxy("127.0.0.1", "localhost:8000", &[("x-forwarded-for", "192.0.2.1")], false)]
    #[case::rebound_name("127.0.0.1", "evil.example:8000", &[], false)]
    #[case::proxied_name("127.0.0.1", "api.example.com", &[], false)]
    fn only_this_machine_reads(
        #[case] ip: &str,
        #[case] host: &str,
        #[case] headers: &[(&str, &str)],
        #[case] expected: bool,
    ) {
        let mut request = http::Request::builder().uri("/mailbox").header(HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.extension(ClientIp(ip.parse().unwrap())).body(()).unwrap();
        assert_eq!(is_here(&request.into_parts().0), expected);
    }
}
