//! `GET` and `POST /verify`: proves an address or number by a link or code, and signs in.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use constant_time_eq::constant_time_eq;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::service::AuthService;
use crate::service::accounts::{Name, change_user, confirm_email, confirm_phone, take_email, take_phone};
use crate::service::addresses::{normalise_email, normalise_phone};
use crate::service::body::{JsonBody, QueryParams};
use crate::service::caller::Caller;
use crate::service::codes::{PKCE_PREFIX, is_expired, is_same_hash, token_hash};
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::providers::with_providers;
use crate::service::redirects::RedirectTo;
use crate::service::store::{self, Action, FlowState, OneTimeToken, TokenKind, Tx, User, UserChange, audit};
use crate::service::tokens::TokenResponse;

/// Said when the other address of a change has still to confirm.
const ONE_OF_TWO: &str = "Confirmation link accepted. Please proceed to confirm link sent to the other email";

pub(super) fn router() -> Router<AuthService> {
    // Not for HEAD, which `get` alone would answer too: scanners of mail use it, and a link works once.
    let head = async || StatusCode::METHOD_NOT_ALLOWED;
    Router::new().route("/verify", get(by_link).head(head).post(by_body))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    #[serde(rename = "type")]
    kind: String,
    token: String,
    token_hash: String,
    email: String,
    phone: String,
    redirect_to: String,
}

/// What is to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signup,
    Invite,
    Recovery,
    MagicLink,
    /// Sign-up or magic link, whichever was sent.
    Email,
    EmailChange,
    Sms,
    PhoneChange,
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "signup" => Self::Signup,
            "invite" => Self::Invite,
            "recovery" => Self::Recovery,
            "magiclink" => Self::MagicLink,
            "email" => Self::Email,
            "email_change" => Self::EmailChange,
            "sms" => Self::Sms,
            "phone_change" => Self::PhoneChange,
            _ => return None,
        })
    }

    /// What a token may be that proves it.
    fn tokens(self) -> &'static [TokenKind] {
        match self {
            Self::Signup | Self::Invite | Self::Sms => &[TokenKind::Confirmation],
            Self::Recovery | Self::MagicLink => &[TokenKind::Recovery],
            Self::Email => &[TokenKind::Confirmation, TokenKind::Recovery],
            Self::EmailChange => &[TokenKind::EmailChangeCurrent, TokenKind::EmailChangeNew],
            Self::PhoneChange => &[TokenKind::PhoneChange],
        }
    }

    fn is_phone(self) -> bool {
        matches!(self, Self::Sms | Self::PhoneChange)
    }

    /// The method that a sign-in by code exchange was begun with.
    fn exchange_method(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Recovery => "recovery",
            Self::MagicLink => "magiclink",
            Self::EmailChange => "email_change",
            Self::Signup | Self::Email | Self::Sms | Self::PhoneChange => "email/signup",
        }
    }
}

/// What somebody holds out as proof.
enum Proof {
    /// The hash of a link.
    Hash(String),
    /// A code that was typed in, and where it was sent.
    Code(Name, String),
}

/// What came of it.
enum Verified {
    Account(Box<User>),
    /// The other address of a change has still to confirm.
    OneOfTwo,
}

async fn by_body(
    State(service): State<AuthService>,
    caller: Caller,
    JsonBody(params): JsonBody<Params>,
) -> Result<Response, AuthApiError> {
    service.limits.take(Limit::Verify, &caller)?;
    let kind = kind(&params)?;
    let proof = proof(&params)?;
    let guessed = match &proof {
        Proof::Code(name, _) => Some(name.as_str().to_owned()),
        Proof::Hash(_) => None,
    };
    if let Some(identity) = &guessed {
        service.limits.attempt(identity)?;
    }
    let tx = store::begin(&service.database).await?;
    let answer = match verify(&service, &caller, &tx, kind, &proof).await? {
        (_, Verified::Account(user)) => {
            Json(service.sign_in(&tx, &caller, &user, "otp").await?).into_response()
        }
        (_, Verified::OneOfTwo) => Json(json!({ "msg": ONE_OF_TWO, "code": "200" })).into_response(),
    };
    tx.commit().await?;
    if let Some(identity) = &guessed {
        service.limits.succeeded(identity);
    }
    Ok(answer)
}

async fn by_link(
    State(service): State<AuthService>,
    caller: Caller,
    RedirectTo(redirect_to): RedirectTo,
    QueryParams(params): QueryParams<Params>,
) -> Result<Response, AuthApiError> {
    service.limits.take(Limit::Verify, &caller)?;
    let token = if params.token.is_empty() { params.token_hash } else { params.token };
    if params.kind.is_empty() {
        return Err(AuthApiError::invalid("Verify requires a verification type"));
    }
    if token.is_empty() {
        return Err(AuthApiError::invalid("Verify requires a token or a token hash"));
    }
    let exchange = token.starts_with(PKCE_PREFIX);
    let end = Landing { redirect_to: &redirect_to, exchange };
    let followed = follow(&service, &caller, &params.kind, token, exchange).await;
    Ok(see_other(&match followed {
        Ok(Followed::Session(session)) => end.with_session(&session, &params.kind),
        Ok(Followed::Code(code)) => end.with_code(&code),
        Ok(Followed::OneOfTwo) => end.with_message(ONE_OF_TWO),
        Err(error) => end.with_error(&error),
    }))
}

enum Followed {
    Session(Box<TokenResponse>),
    Code(String),
    OneOfTwo,
}

async fn follow(
    service: &AuthService,
    caller: &Caller,
    kind: &str,
    token: String,
    exchange: bool,
) -> Result<Followed, AuthApiError> {
    let kind = Kind::parse(kind).filter(|kind| !kind.is_phone()).ok_or_else(unsupported)?;
    let tx = store::begin(&service.database).await?;
    let followed = match verify(service, caller, &tx, kind, &Proof::Hash(token)).await? {
        (_, Verified::OneOfTwo) => Followed::OneOfTwo,
        (kind, Verified::Account(user)) if exchange => {
            let missing = || {
                let message = "No associated flow state found. No valid flow state found for user.";
                AuthApiError::bad_request("flow_state_not_found", message)
            };
            let flow = FlowState::of_user(&tx, user.id, kind.exchange_method()).await?.ok_or_else(missing)?;
            flow.complete(&tx).await?;
            Followed::Code(flow.auth_code.ok_or_else(missing)?)
        }
        (_, Verified::Account(user)) => {
            Followed::Session(Box::new(service.sign_in(&tx, caller, &user, "otp").await?))
        }
    };
    tx.commit().await?;
    Ok(followed)
}

fn kind(params: &Params) -> Result<Kind, AuthApiError> {
    if params.kind.is_empty() {
        return Err(AuthApiError::invalid("Verify requires a verification type"));
    }
    Kind::parse(&params.kind).ok_or_else(unsupported)
}

fn unsupported() -> AuthApiError {
    AuthApiError::invalid("Unsupported verification type")
}

fn proof(params: &Params) -> Result<Proof, AuthApiError> {
    match (params.token.is_empty(), params.token_hash.is_empty()) {
        (true, false) => {
            if !params.email.is_empty() || !params.phone.is_empty() || !params.redirect_to.is_empty() {
                return Err(AuthApiError::invalid("Only the token_hash and type should be provided"));
            }
            if params.kind == "sms" || params.kind == "phone_change" {
                return Err(AuthApiError::invalid("Invalid email verification type"));
            }
            Ok(Proof::Hash(params.token_hash.clone()))
        }
        (false, true) => {
            let name =
                match (params.email.is_empty(), params.phone.is_empty()) {
                    (true, false) => Name::Phone(normalise_phone(&params.phone)?),
                    (false, true) => Name::Email(normalise_email(&params.email).map_err(|_| {
                        AuthApiError::unprocessable("validation_failed", "Invalid email format")
                    })?),
                    _ => {
                        let message = "Only an email address or phone number should be provided on verify";
                        return Err(AuthApiError::invalid(message));
                    }
                };
            Ok(Proof::Code(name, params.token.clone()))
        }
        _ => Err(AuthApiError::invalid("Verify requires either a token or a token hash")),
    }
}

/// Uses up the token and does what it is for. Returns also which kind it turned out to be.
async fn verify(
    service: &AuthService,
    caller: &Caller,
    tx: &Tx,
    kind: Kind,
    proof: &Proof,
) -> Result<(Kind, Verified), AuthApiError> {
    let (user, token) = match proof {
        Proof::Hash(hash) => {
            let invalid = || AuthApiError::forbidden("otp_expired", "Email link is invalid or has expired");
            let token = OneTimeToken::find(tx, hash, kind.tokens()).await?.ok_or_else(invalid)?;
            let user = User::lock(tx, token.user_id).await?.ok_or_else(invalid)?;
            let usable = !is_expired(token.created_at, service.options.email.otp_expiry, Utc::now());
            if user.is_banned(Utc::now()) {
                return Err(AuthApiError::forbidden("user_banned", "User is banned"));
            }
            if !usable || !token.take(tx).await? {
                return Err(invalid());
            }
            (user, Some(token.kind))
        }
        Proof::Code(name, code) => by_code(service, tx, kind, name, code).await?,
    };
    let kind = match (kind, token) {
        (Kind::Email, Some(TokenKind::Confirmation)) => Kind::Signup,
        (Kind::Email, _) => Kind::MagicLink,
        (kind, _) => kind,
    };
    let verified = match kind {
        Kind::Signup | Kind::Invite | Kind::Email => {
            audit(tx, caller, &user, Action::UserSignedUp, json!({ "provider": "email" })).await?;
            confirm_email(tx, &user).await?
        }
        Kind::Recovery | Kind::MagicLink if user.email_confirmed_at.is_none() => {
            audit(tx, caller, &user, Action::UserSignedUp, json!({ "provider": "email" })).await?;
            confirm_email(tx, &user).await?
        }
        Kind::Recovery | Kind::MagicLink => {
            audit(tx, caller, &user, Action::Login, Value::Null).await?;
            OneTimeToken::clear_all(tx, user.id).await?;
            user
        }
        Kind::EmailChange => {
            let options = &service.options.email;
            let both = options.secure_change && !options.autoconfirm && !user.email.is_empty();
            if both && user.email_change_confirm_status == 0 {
                let change = UserChange { email_change_confirm_status: Some(1), ..UserChange::default() };
                change_user(tx, user.id, &change).await?;
                return Ok((kind, Verified::OneOfTwo));
            }
            audit(tx, caller, &user, Action::UserModified, Value::Null).await?;
            let email = user.email_change.clone();
            take_email(tx, &user, &email).await?
        }
        Kind::Sms => {
            audit(tx, caller, &user, Action::UserSignedUp, json!({ "provider": "phone" })).await?;
            confirm_phone(tx, &user).await?
        }
        Kind::PhoneChange => {
            audit(tx, caller, &user, Action::UserModified, Value::Null).await?;
            let phone = user.phone_change.clone();
            take_phone(tx, &user, &phone).await?
        }
    };
    Ok((kind, Verified::Account(Box::new(with_providers(tx, &verified).await?))))
}

/// The account whose code that is, and which code it was. Codes of test numbers need not have been sent.
async fn by_code(
    service: &AuthService,
    tx: &Tx,
    kind: Kind,
    name: &Name,
    code: &str,
) -> Result<(User, Option<TokenKind>), AuthApiError> {
    let invalid = || AuthApiError::forbidden("otp_expired", "Token has expired or is invalid");
    let life = match name {
        Name::Email(_) => service.options.email.otp_expiry,
        Name::Phone(_) => service.options.phone.otp_expiry,
    };
    let hash = token_hash(name.as_str(), code);
    let candidates = match (kind, name) {
        (Kind::PhoneChange, Name::Phone(phone)) => User::by_phone_change(tx, phone).await?,
        (Kind::EmailChange, Name::Email(_)) => {
            let mut found = None;
            for stored in [hash.clone(), format!("{PKCE_PREFIX}{hash}")] {
                if let Some(token) = OneTimeToken::find(tx, &stored, kind.tokens()).await? {
                    found = User::find(tx, token.user_id).await?;
                }
            }
            found.into_iter().collect()
        }
        (kind, Name::Phone(_)) if !kind.is_phone() => Vec::new(),
        (kind, Name::Email(_)) if kind.is_phone() => Vec::new(),
        _ => name.find(tx).await?.into_iter().collect(),
    };
    for candidate in candidates {
        let user = User::lock(tx, candidate.id).await?.ok_or_else(invalid)?;
        if user.is_banned(Utc::now()) {
            return Err(AuthApiError::forbidden("user_banned", "User is banned"));
        }
        if kind.is_phone()
            && let Some(fixed) = service.test_code(name.as_str())
            && constant_time_eq(fixed.as_bytes(), code.as_bytes())
        {
            return Ok((user, None));
        }
        for &token in kind.tokens() {
            let Some(stored) = OneTimeToken::of(tx, user.id, token).await? else { continue };
            if stored.relates_to == name.as_str()
                && is_same_hash(&stored.hash, &hash)
                && !is_expired(stored.created_at, life, Utc::now())
                && stored.take(tx).await?
            {
                return Ok((user, Some(token)));
            }
        }
    }
    Err(invalid())
}

/// Where a link ends.
struct Landing<'a> {
    redirect_to: &'a str,
    /// Whether the page exchanges a code, and reads the query; else the fragment.
    exchange: bool,
}

impl Landing<'_> {
    fn with_session(&self, session: &TokenResponse, kind: &str) -> String {
        let mut fragment = url::form_urlencoded::Serializer::new(String::new());
        fragment
            .append_pair("access_token", &session.access_token)
            .append_pair("expires_at", &session.expires_at.to_string())
            .append_pair("expires_in", &session.expires_in.to_string())
            .append_pair("refresh_token", &session.refresh_token)
            .append_pair("sb", "")
            .append_pair("token_type", session.token_type)
            .append_pair("type", kind);
        format!("{}#{}", self.redirect_to, fragment.finish())
    }

    fn with_code(&self, code: &str) -> String {
        self.with_query(&[("code", code)], None)
    }

    fn with_message(&self, message: &str) -> String {
        let query: &[_] = if self.exchange { &[("message", message)] } else { &[] };
        self.with_query(query, Some(&[("message", message), ("sb", "")]))
    }

    fn with_error(&self, error: &AuthApiError) -> String {
        let name = match error.status() {
            StatusCode::BAD_REQUEST => Some("invalid_request"),
            StatusCode::UNAUTHORIZED => Some("unauthorized_client"),
            StatusCode::FORBIDDEN => Some("access_denied"),
            StatusCode::INTERNAL_SERVER_ERROR => Some("server_error"),
            StatusCode::SERVICE_UNAVAILABLE => Some("temporarily_unavailable"),
            _ => None,
        };
        let mut pairs: Vec<_> = name.map(|name| ("error", name)).into_iter().collect();
        pairs.extend([("error_code", error.code()), ("error_description", error.message())]);
        let mut fragment = pairs.clone();
        fragment.push(("sb", ""));
        self.with_query(if self.exchange { &pairs } else { &[] }, Some(&fragment))
    }

    /// The address with members of its query replaced, and perhaps its fragment.
    fn with_query(&self, pairs: &[(&str, &str)], fragment: Option<&[(&str, &str)]>) -> String {
        let (address, old_fragment) = match self.redirect_to.split_once('#') {
            Some((address, fragment)) => (address, Some(fragment)),
            None => (self.redirect_to, None),
        };
        let mut written = address.to_owned();
        if !pairs.is_empty() {
            let (path, query) = address.split_once('?').unwrap_or((address, ""));
            let mut all = url::form_urlencoded::Serializer::new(String::new());
            let old = url::form_urlencoded::parse(query.as_bytes());
            all.extend_pairs(old.filter(|(name, _)| pairs.iter().all(|(new, _)| name != new)));
            all.extend_pairs(pairs);
            written = format!("{path}?{}", all.finish());
        }
        match fragment {
            Some(pairs) => {
                let mut all = url::form_urlencoded::Serializer::new(String::new());
                format!("{written}#{}", all.extend_pairs(pairs).finish())
            }
            None => old_fragment.map_or(written.clone(), |fragment| format!("{written}#{fragment}")),
        }
    }
}

fn see_other(address: &str) -> Response {
    let mut response = Redirect::to(address).into_response();
    let no_store = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    response
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://app.example", true, "https://app.example?code=c")]
    #[case("https://app.example/a?x=1&code=old#here", true, "https://app.example/a?x=1&code=c#here")]
    #[case("com.app://callback", true, "com.app://callback?code=c")]
    fn codes_land_in_the_query(#[case] to: &str, #[case] exchange: bool, #[case] expected: &str) {
        assert_eq!(Landing { redirect_to: to, exchange }.with_code("c"), expected);
    }

    #[rstest]
    #[case(
        "https://app.example/a?x=1#here",
        false,
        "https://app.example/a?x=1#error=access_denied&error_code=otp_expired&error_description=Too+late&sb="
    )]
    #[case(
        "https://app.example/a?x=1",
        true,
        "https://app.example/a?x=1&error=access_denied&error_code=otp_expired&error_description=Too+late#error=access_denied&error_code=otp_expired&error_description=Too+late&sb="
    )]
    fn errors_land_in_the_fragment_and_for_exchanges_in_the_query(
        #[case] to: &str,
        #[case] exchange: bool,
        #[case] expected: &str,
    ) {
        let error = AuthApiError::forbidden("otp_expired", "Too late");
        assert_eq!(Landing { redirect_to: to, exchange }.with_error(&error), expected);
    }
}
