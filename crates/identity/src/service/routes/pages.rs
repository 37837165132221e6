//! `/sign-in`, `/sign-up`, `/recover` and the result of a link, for projects without such pages of their own.
//!
//! Their forms are turned into requests to the endpoints that apps use, so that the same rules and limits hold.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Form, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use constant_time_eq::constant_time_eq;
use http::header::{CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use longhouse_server::ClientIp;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use url::Url;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::authorize::redirect;
use crate::service::AuthService;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::store::{self, FlowState, Session};

/// Largest form.
const MOST_BYTES: usize = 16 * 1024;
/// Largest answer of an endpoint.
const MOST_ANSWER: usize = 1 << 20;
const CSRF_COOKIE: &str = "longhouse_auth_csrf";

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-up", get(sign_up_page).post(sign_up))
        .route("/recover", get(recover_page))
        .route("/recover/form", post(recover))
        .route("/verify/result", get(result_page))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
}

/// What a page is called with and hands on to its form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Carried {
    redirect_to: String,
    code_challenge: String,
    code_challenge_method: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    csrf: String,
    email: String,
    password: String,
    /// `password` or `link`.
    by: String,
    redirect_to: String,
    code_challenge: String,
    code_challenge_method: String,
}

impl Fields {
    fn carried(&self) -> Carried {
        Carried {
            redirect_to: self.redirect_to.clone(),
            code_challenge: self.code_challenge.clone(),
            code_challenge_method: self.code_challenge_method.clone(),
        }
    }
}

impl Carried {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        [
            ("redirect_to", self.redirect_to.as_str()),
            ("code_challenge", &self.code_challenge),
            ("code_challenge_method", &self.code_challenge_method),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }

    /// Where the person ends, checked.
    fn target(&self, service: &AuthService) -> String {
        service.redirects.choose([self.redirect_to.as_str()])
    }
}

/// One of the pages with a form.
#[derive(Debug, Clone, Copy)]
enum Page {
    SignIn,
    SignUp,
    Recover,
}

impl Page {
    fn template_and_title(self) -> (&'static str, &'static str) {
        match self {
            Self::SignIn => ("sign_in.html", "Sign in"),
            Self::SignUp => ("sign_up.html", "Create an account"),
            Self::Recover => ("recover.html", "Forgot your password?"),
        }
    }
}

async fn sign_in_page(
    State(service): State<AuthService>,
    parts: Parts,
    Query(carried): Query<Carried>,
) -> Response {
    show(&service, &parts.headers, Page::SignIn, StatusCode::OK, &carried, "", None)
}

async fn sign_up_page(
    State(service): State<AuthService>,
    parts: Parts,
    Query(carried): Query<Carried>,
) -> Response {
    show(&service, &parts.headers, Page::SignUp, StatusCode::OK, &carried, "", None)
}

async fn recover_page(
    State(service): State<AuthService>,
    parts: Parts,
    Query(carried): Query<Carried>,
) -> Response {
    show(&service, &parts.headers, Page::Recover, StatusCode::OK, &carried, "", None)
}

async fn sign_in(State(service): State<AuthService>, parts: Parts, Form(fields): Form<Fields>) -> Response {
    let carried = fields.carried();
    let again = |status, problem: &str| {
        show(&service, &parts.headers, Page::SignIn, status, &carried, &fields.email, Some(problem))
    };
    if let Err(problem) = check_csrf(&service, &parts.headers, &fields.csrf) {
        return again(StatusCode::FORBIDDEN, problem);
    }
    if fields.by == "link" {
        let body = json!({
            "email": fields.email, "create_user": false, "code_challenge": fields.code_challenge,
            "code_challenge_method": fields.code_challenge_method,
        });
        return match call(&service, &parts, "/otp", &carried, body).await {
            // Whether there is such an account is nobody's business.
            Ok(_) => sent(&service, "sign-in link"),
            Err((_, code, _)) if is_about_accounts(&code) => sent(&service, "sign-in link"),
            Err((status, _, problem)) => again(status, &problem),
        };
    }
    let body = json!({ "email": fields.email, "password": fields.password });
    match call(&service, &parts, "/token?grant_type=password", &carried, body).await {
        Ok(session) => match land(&service, &carried, &session).await {
            Ok(location) => redirect(StatusCode::SEE_OTHER, &location),
            Err(error) => again(error.status(), error.message()),
        },
        Err((status, _, problem)) => again(status, &problem),
    }
}

async fn sign_up(State(service): State<AuthService>, parts: Parts, Form(fields): Form<Fields>) -> Response {
    let carried = fields.carried();
    let again = |status, problem: &str| {
        show(&service, &parts.headers, Page::SignUp, status, &carried, &fields.email, Some(problem))
    };
    if let Err(problem) = check_csrf(&service, &parts.headers, &fields.csrf) {
        return again(StatusCode::FORBIDDEN, problem);
    }
    let body = json!({
        "email": fields.email, "password": fields.password, "code_challenge": fields.code_challenge,
        "code_challenge_method": fields.code_challenge_method,
    });
    match call(&service, &parts, "/signup", &carried, body).await {
        Ok(session) if session.get("access_token").is_some() => {
            match land(&service, &carried, &session).await {
                Ok(location) => redirect(StatusCode::SEE_OTHER, &location),
                Err(error) => again(error.status(), error.message()),
            }
        }
        Ok(_) => sent(&service, "confirmation link"),
        Err((status, _, problem)) => again(status, &problem),
    }
}

async fn recover(State(service): State<AuthService>, parts: Parts, Form(fields): Form<Fields>) -> Response {
    let carried = fields.carried();
    let again = |status, problem: &str| {
        show(&service, &parts.headers, Page::Recover, status, &carried, &fields.email, Some(problem))
    };
    if let Err(problem) = check_csrf(&service, &parts.headers, &fields.csrf) {
        return again(StatusCode::FORBIDDEN, problem);
    }
    let body = json!({
        "email": fields.email, "code_challenge": fields.code_challenge,
        "code_challenge_method": fields.code_challenge_method,
    });
    match call(&service, &parts, "/recover", &carried, body).await {
        Ok(_) => sent(&service, "link for a new password"),
        Err((status, _, problem)) => again(status, &problem),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    error: String,
    error_code: String,
}

/// Says how a link ended. Knows codes only: what an address says must not become our words.
async fn result_page(State(service): State<AuthService>, Query(outcome): Query<Outcome>) -> Response {
    let next = Some(("Continue", service.options.site_url.as_str()));
    if outcome.error.is_empty() && outcome.error_code.is_empty() {
        return service.pages.message(StatusCode::OK, "Done", "That worked. You can go on now.", next);
    }
    let message = match outcome.error_code.as_str() {
        "otp_expired" => "This link has expired or was used already. Ask for a new one.",
        "user_banned" => "This account is closed at the moment.",
        "signup_disabled" => "New accounts are not given out here at the moment.",
        "provider_email_needs_verification" => {
            "The address of your account there is not verified. We have sent you a mail: follow the link in it."
        }
        "identity_already_exists" => "This identity belongs to an account already.",
        _ => "That did not work. Go back and try again.",
    };
    service.pages.message(StatusCode::OK, "That did not work", message, next)
}

/// Shows a page with its form.
fn show(
    service: &AuthService,
    headers: &HeaderMap,
    page: Page,
    status: StatusCode,
    carried: &Carried,
    email: &str,
    problem: Option<&str>,
) -> Response {
    let base = service.options.external_url.path().trim_end_matches('/').to_owned();
    let target = carried.target(service);
    let (template, title) = page.template_and_title();
    let (csrf, is_new) = match cookie(headers) {
        Some(token) => (token.to_owned(), false),
        None => (URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>()), true),
    };
    let query = Serializer::new(String::new()).extend_pairs(carried.pairs()).finish();
    let link =
        |path: &str| if query.is_empty() { format!("{base}{path}") } else { format!("{base}{path}?{query}") };
    let providers: Vec<Value> = service
        .providers
        .all()
        .map(|provider| {
            let mut query = Serializer::new(String::new());
            query.append_pair("provider", provider.name()).extend_pairs(carried.pairs());
            json!({ "title": provider.title(), "href": format!("{base}/authorize?{}", query.finish()) })
        })
        .collect();
    let variables = json!({
        "title": title, "problem": problem, "base": base, "csrf": csrf, "carried": carried.pairs(), "email": email,
        "providers": providers, "email_enabled": service.options.email.enabled,
        "signup_enabled": !service.options.disable_signup, "min_length": service.options.password.min_length,
        "links": { "sign_in": link("/sign-in"), "sign_up": link("/sign-up"), "recover": link("/recover") },
    });
    let mut response = service.pages.page(status, template, &variables, &form_target(&target));
    if is_new {
        let secure = if service.options.external_url.scheme() == "https" { "; Secure" } else { "" };
        let path = if base.is_empty() { "/" } else { &base };
        let cookie =
            format!("{CSRF_COOKIE}={csrf}; Path={path}; HttpOnly; SameSite=Strict; Max-Age=86400{secure}");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
    response
}

/// Browsers apply `form-action` to where a form's answer redirects, too.
fn form_target(address: &str) -> Vec<String> {
    let Ok(url) = Url::parse(address) else { return Vec::new() };
    let origin = url.origin();
    vec![if origin.is_tuple() { origin.ascii_serialization() } else { format!("{}:", url.scheme()) }]
}

fn sent(service: &AuthService, what: &str) -> Response {
    let message = format!(
        "If the address is right, a {what} is on its way to it. Look into your mail, also among the unwanted."
    );
    service.pages.message(StatusCode::OK, "Check your mail", &message, None)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let token = pairs.find(|(name, _)| *name == CSRF_COOKIE)?.1;
    let fits =
        token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    fits.then_some(token)
}

/// A form must come from our own page: other sites cannot read the cookie, nor send it.
fn check_csrf(service: &AuthService, headers: &HeaderMap, field: &str) -> Result<(), &'static str> {
    let expired = "This page was open for too long, or your browser keeps no cookies. Try again.";
    let own = service.options.external_url.origin().ascii_serialization();
    let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
    // Without a referrer, browsers may name no origin.
    if origin.is_some_and(|origin| origin != own && origin != "null") {
        return Err("This form came from another site.");
    }
    match cookie(headers) {
        Some(token) if constant_time_eq(token.as_bytes(), field.as_bytes()) => Ok(()),
        _ => Err(expired),
    }
}

/// Whether an error tells that there is (no) such account.
fn is_about_accounts(code: &str) -> bool {
    matches!(code, "otp_disabled" | "user_not_found" | "signup_disabled" | "email_not_confirmed")
}

/// Asks an endpoint of ours as an app would; an error is status, code and the sentence for people.
async fn call(
    service: &AuthService,
    parts: &Parts,
    path: &str,
    carried: &Carried,
    mut body: Value,
) -> Result<Value, (StatusCode, String, String)> {
    let failed = |error: AuthApiError| (error.status(), error.code().to_owned(), error.message().to_owned());
    if let Value::Object(map) = &mut body {
        map.retain(|_, value| value.as_str() != Some(""));
    }
    let target = carried.target(service);
    let query = Serializer::new(String::new()).append_pair("redirect_to", &target).finish();
    let uri = format!("{path}{}{query}", if path.contains('?') { '&' } else { '?' });
    let mut request =
        Request::builder().method(Method::POST).uri(uri).header(CONTENT_TYPE, "application/json");
    if let Some(agent) = parts.headers.get(USER_AGENT) {
        request = request.header(USER_AGENT, agent);
    }
    if let Some(client) = parts.extensions.get::<ClientIp>() {
        request = request.extension(*client);
    }
    let request =
        request.body(Body::from(body.to_string())).map_err(|error| failed(AuthApiError::internal(error)))?;
    let router: Router = super::router().with_state(service.clone());
    let Ok(response) = router.oneshot(request).await;
    let status = response.status();
    let bytes = to_bytes(response.into_body(), MOST_ANSWER)
        .await
        .map_err(|error| failed(AuthApiError::internal(error)))?;
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status.is_success() {
        return Ok(answer);
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    let message = text("msg").or_else(|| text("error_description"));
    let code = text("error_code").or_else(|| text("error")).unwrap_or_default();
    Err((status, code, message.unwrap_or_else(|| "That did not work. Try again in a moment.".to_owned())))
}

/// Where a signed-in person goes: with the session in the fragment, or with a code if the app sent a challenge.
async fn land(service: &AuthService, carried: &Carried, session: &Value) -> Result<String, AuthApiError> {
    let target = carried.target(service);
    let Some(challenge) = CodeChallenge::parse(&carried.code_challenge_method, &carried.code_challenge)?
    else {
        let mut fragment = Serializer::new(String::new());
        for name in ["access_token", "expires_at", "expires_in", "refresh_token", "token_type"] {
            let value = session.get(name).cloned().unwrap_or_default();
            fragment.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let bare = target.split('#').next().unwrap_or_default();
        return Ok(format!("{bare}#{}", fragment.append_pair("sb", "").finish()));
    };
    // The exchange of the code opens the session that counts.
    let token = session.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let claims = service.verifier.verify(token).map_err(AuthApiError::internal)?;
    let claims: Value = serde_json::from_str(claims.json()).map_err(AuthApiError::internal)?;
    let id = |name: &str| claims.get(name).and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok());
    let code = Uuid::new_v4().to_string();
    let flow = FlowState {
        id: Uuid::new_v4(),
        user_id: id("sub"),
        auth_code: Some(code.clone()),
        code_challenge_method: Some(challenge.method.name().to_owned()),
        code_challenge: Some(challenge.challenge),
        provider_type: "email".to_owned(),
        authentication_method: "password".to_owned(),
        auth_code_issued_at: Some(chrono::Utc::now()),
        ..FlowState::default()
    };
    let tx = store::begin(&service.database).await?;
    if let Some(session) = id("session_id") {
        Session::delete(&tx, session).await?;
    }
    flow.insert(&tx).await?;
    tx.commit().await?;
    let mut url = Url::parse(&target).map_err(AuthApiError::internal)?;
    url.query_pairs_mut().append_pair("code", &code);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://app.example.com/in?x=1", "https://app.example.com")]
    #[case("http://localhost:3000/", "http://localhost:3000")]
    #[case("com.example.app://in", "com.example.app:")]
    fn forms_may_end_at_the_app(#[case] address: &str, #[case] expected: &str) {
        assert_eq!(form_target(address), [expected]);
    }

    #[rstest]
    #[case("longhouse_auth_csrf=abcdefghijklmnopqrstuvwxyz012345", true)]
    #[case("a=b; longhouse_auth_csrf=abcdefghijklmnopqrstuvwxyz-_2345; c=d", true)]
    #[case("longhouse_auth_csrf=short", false)]
    #[case("other=abcdefghijklmnopqrstuvwxyz012345", false)]
    fn cookies(#[case] header: &str, #[case] found: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(header).unwrap());
        assert_eq!(cookie(&headers).is_some(), found);
    }
}
