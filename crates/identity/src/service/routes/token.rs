//! `POST /token`: a session for a password, a refresh token, a code, or an ID token.

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::Utc;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use crate::service::AuthService;
use crate::service::accounts::Name;
use crate::service::body::{JsonBody, QueryParams};
use crate::service::caller::{Caller, SignedIn};
use crate::service::codes::{is_expired, verify_challenge};
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::refresh::refresh;
use crate::service::store::{self, Action, FlowState, User, UserChange, audit};
use crate::service::tokens::TokenResponse;

/// How long a code may be exchanged.
const CODE_LIFE: std::time::Duration = std::time::Duration::from_secs(300);

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/token", post(token))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Grant {
    grant_type: String,
}

async fn token(
    State(service): State<AuthService>,
    QueryParams(Grant { grant_type }): QueryParams<Grant>,
    request: Request,
) -> Result<Response, AuthApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::of(&parts);
    service.limits.take(Limit::Token, &caller)?;
    // Linking by ID token needs to know who asks.
    let signed_in = match grant_type.as_str() {
        "id_token" => SignedIn::from_request_parts(&mut parts, &service).await.ok(),
        _ => None,
    };
    let request = Request::from_parts(parts, body);
    let session = match grant_type.as_str() {
        "password" => password(&service, &caller, body_of(request).await?).await?,
        "refresh_token" => {
            let RefreshParams { refresh_token } = body_of(request).await?;
            refresh(&service, &caller, &refresh_token).await?
        }
        "pkce" => exchange(&service, &caller, body_of(request).await?).await?,
        "id_token" => {
            let params = body_of(request).await?;
            Box::pin(super::id_token::grant(&service, &caller, signed_in, params)).await?
        }
        "web3" => return Err(no_wallets(&body_of::<Web3Params>(request).await?)),
        _ => return Err(AuthApiError::bad_request("invalid_credentials", "unsupported_grant_type")),
    };
    let mut response = Json(session).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn body_of<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, AuthApiError> {
    JsonBody::<T>::from_request(request, &()).await.map(|JsonBody(params)| params)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Web3Params {
    chain: String,
}

/// Sign-in by a wallet is not offered; clients tell that from a grant that nobody knows.
fn no_wallets(params: &Web3Params) -> AuthApiError {
    match params.chain.as_str() {
        "ethereum" | "solana" => {
            AuthApiError::unprocessable("web3_provider_disabled", "Web3 provider is disabled")
        }
        _ => AuthApiError::bad_request("web3_unsupported_chain", "Unsupported chain"),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefreshParams {
    refresh_token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PasswordParams {
    email: String,
    phone: String,
    password: String,
}

async fn password(
    service: &AuthService,
    caller: &Caller,
    params: PasswordParams,
) -> Result<TokenResponse, AuthApiError> {
    let both = "Only an email address or phone number should be provided on login.";
    if !params.email.is_empty() && !params.phone.is_empty() {
        return Err(AuthApiError::invalid(both));
    }
    if params.email.is_empty() && params.phone.is_empty() {
        return Err(AuthApiError::invalid("missing email or phone"));
    }
    // Whatever can be no name is nobody's.
    let name = Name::parse(&params.email, &params.phone, both).ok().flatten();
    if let Some(name) = &name {
        service.check_enabled(name, "logins", AuthApiError::unprocessable)?;
    }
    let identity = name.as_ref().map_or("", Name::as_str).to_owned();
    service.limits.attempt(&identity)?;
    let user = match &name {
        Some(name) => {
            let tx = store::begin(&service.database).await?;
            let user = name.find(&tx).await?;
            tx.commit().await?;
            user
        }
        None => None,
    };
    // No connection is held meanwhile.
    let stored = user.as_ref().and_then(|user| user.encrypted_password.as_deref());
    let verdict = service.passwords.verify(stored, &params.password).await?;
    let (Some(name), Some(user), true) = (name, user, verdict.matches) else {
        return Err(AuthApiError::bad_request("invalid_credentials", "Invalid login credentials"));
    };
    service.limits.succeeded(&identity);
    if user.is_banned(Utc::now()) {
        return Err(AuthApiError::bad_request("user_banned", "User is banned"));
    }
    if !name.is_confirmed(&user) {
        return Err(match name {
            Name::Email(_) => AuthApiError::bad_request("email_not_confirmed", "Email not confirmed"),
            Name::Phone(_) => AuthApiError::bad_request("phone_not_confirmed", "Phone not confirmed"),
        });
    }
    let rehashed = match verdict.outdated {
        true => Some(service.passwords.hash(&params.password).await?),
        false => None,
    };
    let weak = service.passwords.check(&params.password).err();
    let tx = store::begin(&service.database).await?;
    // Meanwhile the password may have been changed: the proof must still hold.
    let user =
        User::lock(&tx, user.id).await?.filter(|now| now.encrypted_password == user.encrypted_password);
    let Some(user) = user else {
        return Err(AuthApiError::bad_request("invalid_credentials", "Invalid login credentials"));
    };
    if let Some(hash) = rehashed {
        let change = UserChange { encrypted_password: Some(hash), ..UserChange::default() };
        User::change(&tx, user.id, &change).await?;
    }
    audit(&tx, caller, &user, Action::Login, json!({ "provider": name.provider() })).await?;
    let mut session = service.sign_in(&tx, caller, &user, "password").await?;
    tx.commit().await?;
    session.weak_password =
        weak.and_then(|error| Some(json!({ "message": error.message(), "reasons": error.weak_reasons()? })));
    Ok(session)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExchangeParams {
    auth_code: String,
    code_verifier: String,
}

async fn exchange(
    service: &AuthService,
    caller: &Caller,
    params: ExchangeParams,
) -> Result<TokenResponse, AuthApiError> {
    if params.auth_code.is_empty() || params.code_verifier.is_empty() {
        let message = "invalid request: both auth code and code verifier should be non-empty";
        return Err(AuthApiError::invalid(message));
    }
    let missing = || {
        let message = "invalid flow state, no valid flow state found";
        AuthApiError::not_found("flow_state_not_found", message)
    };
    let tx = store::begin(&service.database).await?;
    let flow = FlowState::by_code(&tx, &params.auth_code).await?.ok_or_else(missing)?;
    let user = flow.user_id.ok_or_else(missing)?;
    // Counted from when the code was handed out: mails are read late.
    let issued = flow.auth_code_issued_at.ok_or_else(missing)?;
    if is_expired(issued, CODE_LIFE, Utc::now()) {
        FlowState::delete(&tx, flow.id).await?;
        tx.commit().await?;
        let message = "invalid flow state, flow state has expired";
        return Err(AuthApiError::unprocessable("flow_state_expired", message));
    }
    let method = flow.code_challenge_method.as_deref().unwrap_or_default();
    let challenge = flow.code_challenge.as_deref().unwrap_or_default();
    verify_challenge(method, challenge, &params.code_verifier)?;
    let user = User::find(&tx, user).await?.ok_or_else(missing)?;
    if !FlowState::delete(&tx, flow.id).await? {
        return Err(missing());
    }
    audit(&tx, caller, &user, Action::Login, json!({ "provider_type": flow.provider_type })).await?;
    let mut session = service.sign_in(&tx, caller, &user, &flow.authentication_method).await?;
    tx.commit().await?;
    session.provider_token = flow.provider_access_token.filter(|token| !token.is_empty());
    session.provider_refresh_token = flow.provider_refresh_token.filter(|token| !token.is_empty());
    Ok(session)
}
