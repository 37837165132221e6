//! What the sites tell about whoever an access token stands for (RFC 6750).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::site::Site;
use super::state::Grant;
use super::token::profile_claims;
use super::{Person, Shared, lock};

/// Whom the request's token stands for, and what it may see.
fn holder(shared: &Shared, headers: &HeaderMap) -> Result<(Person, Grant), Box<Response>> {
    let refuse = |status: StatusCode, error: &str| {
        let challenge = [(WWW_AUTHENTICATE, format!("Bearer error=\"{error}\""))];
        Box::new((status, challenge, Json(json!({ "message": "401: Unauthorized" }))).into_response())
    };
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "invalid_request"))?;
    let ledger = lock(&shared.ledger);
    let known = ledger.access.get(token).filter(|known| known.issued.elapsed() < shared.options.token_life);
    let grant = known.ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "invalid_token"))?.grant.clone();
    let person =
        shared.person(&grant.sub).ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "invalid_token"))?;
    Ok((person, grant))
}

fn has(grant: &Grant, scopes: &[&str]) -> bool {
    grant.scopes.iter().any(|scope| scopes.contains(&scope.as_str()))
}

/// OpenID Connect Core §5.3.
pub(super) async fn userinfo(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let (person, grant) = match holder(&shared, &headers) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if !has(&grant, &["openid"]) {
        let challenge = [(WWW_AUTHENTICATE, "Bearer error=\"insufficient_scope\"")];
        return (StatusCode::FORBIDDEN, challenge).into_response();
    }
    let mut claims = profile_claims(&Site::of(&uri), &person, &grant.scopes);
    claims.insert("sub".into(), json!(person.sub));
    Json(Value::Object(claims)).into_response()
}

/// GitHub: `GET /user`. Without a user agent it answers 403.
pub(super) async fn github_user(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !headers.contains_key(USER_AGENT) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match holder(&shared, &headers) {
        Ok((person, _)) => Json(json!({
            "id": person.sub.parse::<u64>().unwrap_or(1),
            "login": person.user_name(),
            "name": person.name,
            // Shown only to those who made their address public.
            "email": null,
            "avatar_url": format!("https://avatars.example.com/u/{}", person.sub),
        }))
        .into_response(),
        Err(refusal) => *refusal,
    }
}

/// GitHub: `GET /user/emails`, for the scopes `user` and `user:email`.
pub(super) async fn github_emails(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match holder(&shared, &headers) {
        Ok((_, grant)) if !has(&grant, &["user", "user:email"]) => {
            (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response()
        }
        Ok((person, _)) => {
            let entry = |email: &str, primary: bool, verified: bool| json!({ "email": email, "primary": primary, "verified": verified, "visibility": null });
            let mut all: Vec<Value> = person
                .further_emails
                .iter()
                .map(|(email, verified)| entry(email, false, *verified))
                .collect();
            if !person.email.is_empty() {
                all.push(entry(&person.email, true, person.email_verified));
            }
            Json(all).into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// Discord: `GET /users/@me`, the address only for the scope `email`.
pub(super) async fn discord_user(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match holder(&shared, &headers) {
        Ok((_, grant)) if !has(&grant, &["identify"]) => StatusCode::UNAUTHORIZED.into_response(),
        Ok((person, grant)) => {
            let mut user = json!({
                "id": person.sub, "username": person.user_name(), "discriminator": "0",
                "global_name": person.name, "avatar": null,
            });
            if has(&grant, &["email"]) {
                user["email"] = json!(person.email);
                user["verified"] = json!(person.email_verified);
            }
            Json(user).into_response()
        }
        Err(refusal) => *refusal,
    }
}
