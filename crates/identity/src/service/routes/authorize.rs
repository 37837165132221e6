//! `GET /authorize`: sends a person to a provider.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::service::AuthService;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::pages::wants_html;
use crate::service::providers::{Request, new_verifier};
use crate::service::redirects::RedirectTo;
use crate::service::store::{self, FlowState, OAuthClientState, OneTimeToken, TokenKind};

/// Parameters in their order; names may repeat, then the first counts.
pub(super) type Parameters = Query<Vec<(String, String)>>;

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/authorize", get(authorize))
}

async fn authorize(
    State(service): State<AuthService>,
    RedirectTo(redirect_to): RedirectTo,
    headers: HeaderMap,
    Query(parameters): Parameters,
) -> Result<Response, AuthApiError> {
    let begun = begin(&service, &parameters, redirect_to, None).await;
    match begun {
        // A person looks at it, and there is nowhere to send them.
        Err(error) if wants_html(&headers) => {
            let next = Some(("Back", service.options.site_url.as_str()));
            let title = "Signing in is not possible this way";
            Ok(service.pages.message(error.status(), title, error.message(), next))
        }
        begun => begun,
    }
}

/// Begins a sign-in at a provider; with `linking_target`, for an account that gets the identity.
pub(super) async fn begin(
    service: &AuthService,
    parameters: &[(String, String)],
    redirect_to: String,
    linking_target: Option<Uuid>,
) -> Result<Response, AuthApiError> {
    let parameter =
        |name: &str| parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let name = parameter("provider");
    let provider = service.providers.get(name).ok_or_else(|| {
        AuthApiError::invalid(format!(
            "Unsupported provider: Provider {name} could not be found or is not enabled"
        ))
    })?;
    let challenge = CodeChallenge::parse(parameter("code_challenge_method"), parameter("code_challenge"))?;
    let verifier = new_verifier();
    let invite_token = Some(parameter("invite_token")).filter(|token| !token.is_empty());
    let mut flow = FlowState {
        id: Uuid::new_v4(),
        auth_code: challenge.as_ref().map(|_| Uuid::new_v4().to_string()),
        code_challenge_method: challenge.as_ref().map(|challenge| challenge.method.name().to_owned()),
        code_challenge: challenge.map(|challenge| challenge.challenge),
        provider_type: provider.name().to_owned(),
        authentication_method: "oauth".to_owned(),
        invite_token: invite_token.map(str::to_owned),
        referrer: Some(redirect_to),
        linking_target_id: linking_target,
        email_optional: provider.options.email_optional,
        ..FlowState::default()
    };
    let state = flow.id.to_string();
    let request = Request { state: &state, verifier: &verifier, scopes: parameter("scopes"), parameters };
    // May fetch the issuer's document, so before a connection to the database is taken.
    let url = service.providers.authorization_url(provider, &request).await.map_err(|error| {
        tracing::warn!(provider = provider.name(), %error, "a sign-in could not begin");
        let message = format!("Unable to reach the provider {}: try again later", provider.title());
        AuthApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message)
    })?;
    let tx = store::begin(&service.database).await?;
    if let Some(token) = invite_token
        && OneTimeToken::find(&tx, token, &[TokenKind::Confirmation]).await?.is_none()
    {
        return Err(AuthApiError::not_found("user_not_found", "User identified by token not found"));
    }
    flow.oauth_client_state_id = Some(OAuthClientState::insert(&tx, provider.name(), &verifier).await?);
    flow.insert(&tx).await?;
    tx.commit().await?;
    if parameter("skip_http_redirect") == "true" {
        return Ok(([(CACHE_CONTROL, "no-store")], Json(json!({ "url": url }))).into_response());
    }
    Ok(redirect(StatusCode::FOUND, url.as_str()))
}

/// Sends the browser elsewhere; nobody may keep the answer, which belongs to one person.
pub(super) fn redirect(status: StatusCode, location: &str) -> Response {
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (status, headers).into_response()
        }
        Err(_) => AuthApiError::internal("an address to redirect to fits into no header").into_response(),
    }
}
