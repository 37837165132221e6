//! Sessions and their tokens: what every way of signing in ends with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::AuthService;
use super::caller::Caller;
use super::error::AuthApiError;
use super::store::{Aal, RefreshToken, Session, Tx, User, UserChange};

/// Random bytes of a refresh token: 128 bits.
const REFRESH_TOKEN_BYTES: usize = 16;

/// The answer to a successful sign-in or refresh (RFC 6749 §5.1 and Supabase's additions).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenResponse {
    pub(crate) access_token: String,
    pub(crate) token_type: &'static str,
    /// Seconds.
    pub(crate) expires_in: i64,
    /// Seconds since 1970.
    pub(crate) expires_at: i64,
    pub(crate) refresh_token: String,
    pub(crate) user: User,
    /// Access token of the site that the person signed in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider_refresh_token: Option<String>,
    /// Says that the password that was just accepted breaks today's rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weak_password: Option<Value>,
}

impl AuthService {
    /// Opens a session for an account that has just proved itself by `method` (named as `amr` of access tokens names it).
    /// Checks nothing but a ban.
    pub(crate) async fn sign_in(
        &self,
        tx: &Tx,
        caller: &Caller,
        user: &User,
        method: &str,
    ) -> Result<TokenResponse, AuthApiError> {
        if user.is_banned(Utc::now()) {
            return Err(AuthApiError::bad_request("user_banned", "User is banned"));
        }
        let not_after = self.options.sessions.timebox.map(|timebox| Utc::now() + timebox);
        let session = Session::insert(tx, caller, user.id, method, not_after).await?;
        if self.options.sessions.single_per_user {
            Session::delete_of_user(tx, user.id, Some(session.id)).await?;
        }
        let change = UserChange { last_sign_in_at: Some(Some(Utc::now())), ..UserChange::default() };
        let user = User::change(tx, user.id, &change).await?.ok_or_else(gone)?;
        self.extend(tx, user, session, method, None).await
    }

    /// Raises a session to `aal2` after its holder proved to have a second factor, and gives it new tokens.
    pub(crate) async fn step_up(
        &self,
        tx: &Tx,
        user: &User,
        session: &Session,
        factor: Option<uuid::Uuid>,
        method: &str,
    ) -> Result<TokenResponse, AuthApiError> {
        Session::add_amr(tx, session.id, method).await?;
        Session::set_aal(tx, session.id, Aal::Aal2, factor).await?;
        let session = Session::lock(tx, session.id).await?.ok_or_else(gone)?;
        let user = User::find(tx, user.id).await?.ok_or_else(gone)?;
        let before = RefreshToken::active(tx, session.id).await?;
        if let Some(before) = &before {
            RefreshToken::revoke(tx, before.id).await?;
        }
        self.extend(tx, user, session, method, before.as_ref().map(|token| token.token.as_str())).await
    }

    /// Adds a refresh token to a session's chain and signs an access token.
    pub(crate) async fn extend(
        &self,
        tx: &Tx,
        user: User,
        session: Session,
        method: &str,
        parent: Option<&str>,
    ) -> Result<TokenResponse, AuthApiError> {
        let refresh_token = new_refresh_token();
        RefreshToken::insert(tx, user.id, session.id, &refresh_token, parent).await?;
        self.respond(tx, user, &session, method, refresh_token).await
    }

    /// The answer with a fresh access token and a refresh token that the session has.
    pub(crate) async fn respond(
        &self,
        tx: &Tx,
        user: User,
        session: &Session,
        method: &str,
        refresh_token: String,
    ) -> Result<TokenResponse, AuthApiError> {
        let (access_token, expires_at) = self.access_token(tx, &user, session, method).await?;
        Ok(TokenResponse::new(access_token, expires_at, refresh_token, user))
    }

    /// Signs an access token of a session; the project's hook may change its claims. Returns it and its expiry.
    async fn access_token(
        &self,
        tx: &Tx,
        user: &User,
        session: &Session,
        method: &str,
    ) -> Result<(String, i64), AuthApiError> {
        let (claims, expires) = self.claims(user, session);
        let claims = self.hooked(tx, user, method, claims).await?;
        Ok((self.signer.sign(&claims)?, expires))
    }

    /// The claims of a session's access token now, and when it expires (seconds since 1970).
    pub(crate) fn claims(&self, user: &User, session: &Session) -> (Map<String, Value>, i64) {
        let now = Utc::now();
        let mut expires = now + self.options.token_expiry;
        if let Some(end) = session.not_after {
            expires = expires.min(end);
        }
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| _ = claims.insert(name.to_owned(), value);
        set("iss", json!(self.options.external_url.as_str().trim_end_matches('/')));
        set("sub", json!(user.id));
        set("aud", json!(user.aud));
        set("exp", json!(expires.timestamp()));
        set("iat", json!(now.timestamp()));
        set("email", json!(user.email));
        set("phone", json!(user.phone));
        set("app_metadata", Value::Object(user.app_metadata.clone()));
        set("user_metadata", Value::Object(user.user_metadata.clone()));
        set("role", json!(user.role));
        set("aal", json!(session.aal.name()));
        set("amr", json!(session.amr));
        set("session_id", json!(session.id));
        set("is_anonymous", json!(user.is_anonymous));
        (claims, expires.timestamp())
    }
}

impl TokenResponse {
    /// The answer with these tokens.
    pub(crate) fn new(access_token: String, expires_at: i64, refresh_token: String, user: User) -> Self {
        Self {
            access_token,
            token_type: "bearer",
            expires_in: (expires_at - Utc::now().timestamp()).max(0),
            expires_at,
            refresh_token,
            user,
            provider_token: None,
            provider_refresh_token: None,
            weak_password: None,
        }
    }
}

/// A random refresh token.
pub(crate) fn new_refresh_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; REFRESH_TOKEN_BYTES]>())
}

/// The account or session was deleted while we worked on it.
pub(crate) fn gone() -> AuthApiError {
    AuthApiError::forbidden("session_not_found", "This session has ended: sign in again")
}
