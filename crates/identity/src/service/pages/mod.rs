//! HTML that people see: rendered here, without scripts, readable in both colour schemes and at any width.

use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use minijinja::Environment;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::AuthApiError;

/// All templates, compiled.
pub(crate) struct Pages {
    environment: Environment<'static>,
    /// Source of the one style sheet, as a policy names it.
    style_source: String,
}

const STYLE: &str = include_str!("templates/style.css");

const TEMPLATES: &[(&str, &str)] = &[
    ("layout.html", include_str!("templates/layout.html")),
    ("hidden.html", include_str!("templates/hidden.html")),
    ("providers.html", include_str!("templates/providers.html")),
    ("sign_in.html", include_str!("templates/sign_in.html")),
    ("sign_up.html", include_str!("templates/sign_up.html")),
    ("recover.html", include_str!("templates/recover.html")),
    ("message.html", include_str!("templates/message.html")),
    ("mailbox.html", include_str!("templates/mailbox.html")),
    ("mail.html", include_str!("templates/mail.html")),
];

impl Pages {
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        for (name, source) in TEMPLATES {
            environment.add_template(name, source).expect("built-in templates are right, as tests show");
        }
        environment.add_global("style", STYLE);
        let style_source = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE)));
        Self { environment, style_source }
    }

    /// A page. `form_targets` are further origins that its forms may end at.
    pub(crate) fn page(
        &self,
        status: StatusCode,
        name: &str,
        variables: &Value,
        form_targets: &[String],
    ) -> Response {
        let template = self.environment.get_template(name);
        let rendered = template.and_then(|template| template.render(minijinja::value::Serde(variables)));
        let html = match rendered {
            Ok(html) => html,
            Err(error) => return AuthApiError::internal(format!("page {name}: {error}")).into_response(),
        };
        let policy = format!(
            "default-src 'none'; style-src {}; frame-src 'self'; form-action 'self' {}; base-uri 'none'; frame-ancestors 'none'",
            self.style_source,
            form_targets.join(" ")
        );
        let mut response = (status, Html(html)).into_response();
        protect(response.headers_mut(), &policy);
        response.headers_mut().insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        response
    }

    /// A page that only says something.
    pub(crate) fn message(
        &self,
        status: StatusCode,
        title: &str,
        message: &str,
        next: Option<(&str, &str)>,
    ) -> Response {
        let next = next.map(|(title, href)| json!({ "title": title, "href": href }));
        let variables = json!({ "title": title, "message": message, "next": next });
        self.page(status, "message.html", &variables, &[])
    }
}

/// Nothing of a page may be kept, framed, guessed at or told to the next site.
pub(crate) fn protect(headers: &mut HeaderMap, policy: &str) {
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Whether the client is a browser that shows what it gets.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
