//! `GET` and `POST /callback`: where providers send people back to. Apple posts a form, the others redirect.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Query, State};
use axum::response::Response;
use axum::routing::get;
use chrono::Utc;
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::authorize::redirect;
use crate::service::AuthService;
use crate::service::caller::Caller;
use crate::service::error::AuthApiError;
use crate::service::providers::{Arrival, Exchanged, Provider, accept_invite, arrive, link};
use crate::service::store::{self, FlowState, OAuthClientState};
use crate::service::tokens::TokenResponse;

/// How long a person may take at the provider.
const LIFE: Duration = Duration::from_secs(600);
/// Largest form.
const MOST_BYTES: usize = 64 * 1024;
/// Longest description of a provider's error that is passed on.
const LONGEST_DESCRIPTION: usize = 500;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    state: String,
    code: String,
    error: String,
    error_description: String,
    /// Apple: name of the person, as JSON.
    user: String,
}

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/callback", get(by_query).post(by_form)).layer(DefaultBodyLimit::max(MOST_BYTES))
}

async fn by_query(
    State(service): State<AuthService>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Response {
    callback(&service, &caller, &parameters).await
}

async fn by_form(
    State(service): State<AuthService>,
    caller: Caller,
    Form(parameters): Form<Parameters>,
) -> Response {
    callback(&service, &caller, &parameters).await
}

async fn callback(service: &AuthService, caller: &Caller, parameters: &Parameters) -> Response {
    let (flow, verifier) = match resume(service, &parameters.state).await {
        Ok(resumed) => resumed,
        // Nobody knows where the person came from.
        Err(error) => {
            let failure = Failure::from(error);
            return redirect(StatusCode::SEE_OTHER, &failure.at(service.options.site_url.as_str(), false));
        }
    };
    let referrer = flow.referrer.clone().unwrap_or_else(|| service.options.site_url.to_string());
    // What does not fit in the time of one request is boxed: it holds much.
    match Box::pin(finish(service, caller, parameters, &flow, &verifier)).await {
        Ok(location) => redirect(StatusCode::FOUND, &location),
        Err(failure) => redirect(StatusCode::FOUND, &failure.at(&referrer, true)),
    }
}

/// The sign-in that `state` stands for, and our secret of it, which is used up.
async fn resume(service: &AuthService, state: &str) -> Result<(FlowState, String), AuthApiError> {
    if state.is_empty() {
        return Err(AuthApiError::bad_request("bad_oauth_callback", "OAuth state parameter missing"));
    }
    let bad = |message: &'static str| AuthApiError::bad_request("bad_oauth_state", message);
    let id = Uuid::parse_str(state).map_err(|_| bad("OAuth state parameter is invalid"))?;
    let tx = store::begin(&service.database).await?;
    let flow = FlowState::lock(&tx, id).await?;
    let flow = flow.filter(|flow| flow.oauth_client_state_id.is_some());
    let flow = flow.ok_or_else(|| bad("OAuth state not found or expired"))?;
    let used = || AuthApiError::bad_request("flow_state_already_used", "State has already been used");
    if flow.user_id.is_some() {
        return Err(used());
    }
    if Utc::now() > flow.created_at + LIFE {
        return Err(bad("OAuth state has expired"));
    }
    let secret = flow.oauth_client_state_id.unwrap_or_default();
    let verifier = OAuthClientState::take(&tx, secret, &flow.provider_type).await?.ok_or_else(used)?;
    tx.commit().await?;
    Ok((flow, verifier))
}

/// Ends a sign-in; returns where the person goes.
async fn finish(
    service: &AuthService,
    caller: &Caller,
    parameters: &Parameters,
    flow: &FlowState,
    verifier: &str,
) -> Result<String, Failure> {
    if !parameters.error.is_empty() {
        forget(service, flow.id).await?;
        let bounded = |text: &str| text.chars().take(LONGEST_DESCRIPTION).collect::<String>();
        return Err(Failure::Provider {
            error: bounded(&parameters.error),
            description: bounded(&parameters.error_description),
        });
    }
    if parameters.code.is_empty() {
        let message = "OAuth callback with missing authorization code missing";
        return Err(AuthApiError::bad_request("bad_oauth_callback", message).into());
    }
    let provider = service.providers.get(&flow.provider_type).ok_or_else(|| {
        let message = format!("Unsupported provider: {} is not enabled any more", flow.provider_type);
        AuthApiError::bad_request("oauth_provider_not_supported", message)
    })?;
    let exchanged = exchange(service, provider, parameters, verifier).await?;
    if exchanged.profile.emails.is_empty() && !flow.email_optional {
        let message = "Error getting user email from external provider";
        return Err(
            AuthApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message).into()
        );
    }
    let referrer = flow.referrer.as_deref().unwrap_or(service.options.site_url.as_str());
    let profile = &exchanged.profile;
    let tx = store::begin(&service.database).await?;
    let arrival = match (flow.linking_target_id, &flow.invite_token) {
        (Some(target), _) => link(service, &tx, caller, target, provider.name(), profile).await?,
        (None, Some(token)) => accept_invite(&tx, caller, token, provider.name(), profile).await?,
        (None, None) => arrive(service, &tx, caller, provider.name(), profile, flow.email_optional).await?,
    };
    let user = match arrival {
        Arrival::Account(user) => user,
        Arrival::Refused(refusal) => {
            FlowState::delete(&tx, flow.id).await?;
            tx.commit().await?;
            return Err(refusal.into());
        }
    };
    let location = if let Some(code) = &flow.auth_code {
        let complete = FlowState {
            user_id: Some(user.id),
            provider_access_token: Some(exchanged.access_token.expose_secret().to_owned()),
            provider_refresh_token: exchanged
                .refresh_token
                .as_ref()
                .map(|token| token.expose_secret().to_owned()),
            ..flow.clone()
        };
        complete.complete(&tx).await?;
        with_query(referrer, &[("code", code)])
    } else {
        let session = service.sign_in(&tx, caller, &user, "oauth").await?;
        FlowState::delete(&tx, flow.id).await?;
        with_session(referrer, &session, &exchanged)
    };
    tx.commit().await?;
    Ok(location)
}

async fn exchange(
    service: &AuthService,
    provider: &Provider,
    parameters: &Parameters,
    verifier: &str,
) -> Result<Exchanged, AuthApiError> {
    let mut exchanged =
        service.providers.exchange(provider, &parameters.code, verifier).await.map_err(|error| {
            tracing::warn!(provider = provider.name(), %error, "a code could not be exchanged");
            let start: String = parameters.code.chars().take(4).collect();
            let message = format!("Unable to exchange external code: {start}");
            AuthApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message)
        })?;
    if provider.name() == "apple" && !parameters.user.is_empty() {
        exchanged.profile.name_from_apple(&parameters.user);
    }
    Ok(exchanged)
}

async fn forget(service: &AuthService, flow: Uuid) -> Result<(), AuthApiError> {
    let tx = store::begin(&service.database).await?;
    FlowState::delete(&tx, flow).await?;
    Ok(tx.commit().await?)
}

/// Why a person comes back without a session.
enum Failure {
    Ours(AuthApiError),
    /// The provider's own words.
    Provider {
        error: String,
        description: String,
    },
}

impl<E: Into<AuthApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Ours(error.into())
    }
}

impl Failure {
    /// The address to land at, with the failure in its query and, as older clients want, its fragment.
    fn at(&self, address: &str, fragment: bool) -> String {
        let (error, code, description) = match self {
            Self::Provider { error, description } => (error.as_str(), None, description.as_str()),
            Self::Ours(error) => (oauth_error(error), Some(error.code()), error.message()),
        };
        let mut pairs = vec![("error", error)];
        pairs.extend(code.map(|code| ("error_code", code)));
        pairs.push(("error_description", description));
        let location = with_query(address, &pairs);
        if !fragment {
            return location;
        }
        pairs.push(("sb", ""));
        with_fragment(&location, &pairs)
    }
}

/// RFC 6749 §4.1.2.1's word for a failure.
fn oauth_error(error: &AuthApiError) -> &'static str {
    match error.code() {
        "signup_disabled" | "user_banned" | "provider_email_needs_verification" => "access_denied",
        _ => match error.status().as_u16() {
            400 => "invalid_request",
            401 => "unauthorized_client",
            403 => "access_denied",
            503 => "temporarily_unavailable",
            _ => "server_error",
        },
    }
}

/// Sets parameters of an address' query; others stay.
fn with_query(address: &str, pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse(address) else { return address.to_owned() };
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .into_owned()
        .filter(|(name, _)| !pairs.iter().any(|(key, _)| key == name))
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(pairs);
    url.into()
}

fn with_fragment(address: &str, pairs: &[(&str, &str)]) -> String {
    let bare = address.split('#').next().unwrap_or_default();
    let fragment = Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{bare}#{fragment}")
}

/// The address with a session in its fragment, which servers never see.
fn with_session(address: &str, session: &TokenResponse, exchanged: &Exchanged) -> String {
    let (expires_at, expires_in) = (session.expires_at.to_string(), session.expires_in.to_string());
    let mut pairs = vec![
        ("access_token", session.access_token.as_str()),
        ("expires_at", &expires_at),
        ("expires_in", &expires_in),
        ("provider_token", exchanged.access_token.expose_secret()),
    ];
    if let Some(token) = &exchanged.refresh_token {
        pairs.push(("provider_refresh_token", token.expose_secret()));
    }
    pairs.extend([("refresh_token", session.refresh_token.as_str()), ("sb", ""), ("token_type", "bearer")]);
    with_fragment(address, &pairs)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://app.example.com/", "https://app.example.com/?code=c+1")]
    #[case("https://app.example.com/in?next=%2Fa#part", "https://app.example.com/in?next=%2Fa&code=c+1#part")]
    #[case("https://app.example.com/?code=old", "https://app.example.com/?code=c+1")]
    #[case("com.example.app://in", "com.example.app://in?code=c+1")]
    fn codes_are_added_to_the_query(#[case] address: &str, #[case] expected: &str) {
        assert_eq!(with_query(address, &[("code", "c 1")]), expected);
    }

    #[test]
    fn failures_are_in_query_and_fragment() {
        let failure = Failure::from(AuthApiError::unprocessable("signup_disabled", "No & no"));
        let query = "error=access_denied&error_code=signup_disabled&error_description=No+%26+no";
        assert_eq!(
            failure.at("https://a.b/c?x=1#old", true),
            format!("https://a.b/c?x=1&{query}#{query}&sb=")
        );
        assert_eq!(failure.at("https://a.b/c", false), format!("https://a.b/c?{query}"));
        let failure =
            Failure::Provider { error: "access_denied".into(), description: "The user said no".into() };
        let query = "error=access_denied&error_description=The+user+said+no";
        assert_eq!(failure.at("https://a.b/", true), format!("https://a.b/?{query}#{query}&sb="));
    }
}
