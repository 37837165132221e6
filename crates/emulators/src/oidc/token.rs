//! The token endpoint (RFC 6749 §4.1.3, §5, §6; RFC 7636 §4.6), and ID tokens (OpenID Connect Core §2).

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::authorize::parameters;
use super::client::authenticate;
use super::site::Site;
use super::state::{Grant, Token, secret};
use super::{Person, Shared, lock};

/// RFC 6749 §5.2.
pub(super) struct Refusal {
    status: u16,
    error: &'static str,
    description: String,
}

impl Refusal {
    pub(super) fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }

    fn grant(description: &str) -> Self {
        Self::new(400, "invalid_grant", description)
    }
}

/// `POST`: a code or a refresh token for tokens.
pub(super) async fn exchange(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let site = Site::of(&uri);
    let result = exchanged(&shared, &site, &headers, &body);
    let (status, answer) = match result {
        Ok(answer) => (StatusCode::OK, answer),
        Err(refusal) => {
            let answer = json!({ "error": refusal.error, "error_description": refusal.description });
            // GitHub reports mistakes with 200.
            let status = if site == Site::GitHub { 200 } else { refusal.status };
            (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), answer)
        }
    };
    let json = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("json"));
    let mut response = if site == Site::GitHub && !json {
        // GitHub's default.
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in answer.as_object().into_iter().flatten() {
            form.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
        }
        let kind = [(CONTENT_TYPE, "application/x-www-form-urlencoded")];
        (status, kind, form.finish()).into_response()
    } else {
        (status, axum::Json(answer)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"token\""));
    }
    response
}

fn exchanged(shared: &Shared, site: &Site, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/x-www-form-urlencoded" {
        return Err(Refusal::new(400, "invalid_request", "the body must be form-encoded"));
    }
    let form = parameters(body).map_err(|message| Refusal::new(400, "invalid_request", message))?;
    let get = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let client = authenticate(shared, site, headers, &get)?;
    let grant = match get("grant_type").as_deref() {
        Some("authorization_code") => by_code(shared, site, &client.id, &get)?,
        Some("refresh_token") => by_refresh_token(shared, &client.id, &get)?,
        // GitHub asks for no grant_type.
        None if *site == Site::GitHub => by_code(shared, site, &client.id, &get)?,
        None => return Err(Refusal::new(400, "invalid_request", "grant_type is missing")),
        Some(_) => {
            return Err(Refusal::new(
                400,
                "unsupported_grant_type",
                "use authorization_code or refresh_token",
            ));
        }
    };
    let (access, refresh) = (secret("access-"), grant.offline.then(|| secret("refresh-")));
    let mut answer =
        json!({ "access_token": access, "token_type": "Bearer", "scope": grant.scopes.join(" ") });
    if *site == Site::GitHub {
        answer["token_type"] = json!("bearer");
        answer["scope"] = json!(grant.scopes.join(","));
    } else {
        answer["expires_in"] = json!(shared.options.token_life.as_secs());
    }
    if site.is_oidc() {
        let person = shared.person(&grant.sub).ok_or_else(|| Refusal::grant("the account is gone"))?;
        let claims = id_claims(shared, site, &person, &grant, Some(&access));
        answer["id_token"] = json!(lock(&shared.keys).sign(&claims));
    }
    let mut ledger = lock(&shared.ledger);
    ledger.tidy();
    let mut handed_out = vec![access.clone()];
    ledger.access.insert(access, Token { grant: grant.clone(), issued: Instant::now() });
    if let Some(refresh) = refresh {
        answer["refresh_token"] = json!(refresh);
        handed_out.push(refresh.clone());
        ledger.refresh.insert(refresh, Token { grant, issued: Instant::now() });
    }
    if let Some(code) = get("code").and_then(|code| ledger.codes.get_mut(&code)) {
        code.used_for = Some(handed_out);
    }
    Ok(answer)
}

fn by_code(
    shared: &Shared,
    site: &Site,
    client: &str,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Grant, Refusal> {
    let given = get("code").ok_or_else(|| Refusal::new(400, "invalid_request", "code is missing"))?;
    let mut ledger = lock(&shared.ledger);
    let code = ledger.codes.get_mut(&given).ok_or_else(|| Refusal::grant("no such code"))?;
    if let Some(tokens) = code.used_for.take() {
        // RFC 6749 §4.1.2: whoever uses a code twice may have stolen it.
        code.used_for = Some(Vec::new());
        for token in tokens {
            ledger.access.remove(&token);
            ledger.refresh.remove(&token);
        }
        return Err(Refusal::grant("the code was used already"));
    }
    // Whatever is wrong below: nobody gets a second try.
    code.used_for = Some(Vec::new());
    let pending = code.pending.clone();
    if pending.client != client || code.path != site.base() {
        return Err(Refusal::grant("the code belongs to another client"));
    }
    if code.issued.elapsed() > shared.options.code_life {
        return Err(Refusal::grant("the code has expired"));
    }
    if get("redirect_uri").as_deref() != Some(pending.redirect_uri.as_str()) {
        return Err(Refusal::grant("redirect_uri differs from that of the authorization request"));
    }
    if *site != Site::Apple {
        match (&pending.challenge, get("code_verifier")) {
            (None, None) => {}
            (None, Some(_)) => return Err(Refusal::grant("code_verifier without code_challenge")),
            (Some(_), None) => return Err(Refusal::grant("code_verifier is missing")),
            (Some(challenge), Some(verifier)) => {
                let length = (43..=128).contains(&verifier.len());
                let made = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
                if !length || made != *challenge {
                    return Err(Refusal::grant("code_verifier is wrong"));
                }
            }
        }
    }
    Ok(Grant {
        client: pending.client,
        sub: code.sub.clone(),
        scopes: pending.scopes,
        nonce: pending.nonce,
        offline: pending.offline,
    })
}

fn by_refresh_token(
    shared: &Shared,
    client: &str,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Grant, Refusal> {
    let given = get("refresh_token")
        .ok_or_else(|| Refusal::new(400, "invalid_request", "refresh_token is missing"))?;
    let mut ledger = lock(&shared.ledger);
    if ledger.refresh.get(&given).is_none_or(|token| token.grant.client != client) {
        return Err(Refusal::grant("no such refresh token"));
    }
    let mut grant = ledger.refresh.remove(&given).expect("it was there a line ago").grant;
    if let Some(wanted) = get("scope") {
        let wanted: Vec<String> = wanted.split_whitespace().map(str::to_owned).collect();
        if wanted.iter().any(|scope| !grant.scopes.contains(scope)) {
            return Err(Refusal::new(400, "invalid_scope", "more than was granted"));
        }
        grant.scopes = wanted;
    }
    grant.nonce = None;
    Ok(grant)
}

/// What an ID token says.
pub(super) fn id_claims(
    shared: &Shared,
    site: &Site,
    person: &Person,
    grant: &Grant,
    access_token: Option<&str>,
) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| _ = claims.insert(name.to_owned(), value);
    set("iss", json!(site.issuer(&shared.base)));
    set("sub", json!(person.sub));
    set("aud", json!(grant.client));
    set("iat", json!(now));
    set("auth_time", json!(now));
    set("exp", json!(now + shared.options.token_life.as_secs()));
    if let Some(nonce) = &grant.nonce {
        set("nonce", json!(nonce));
    }
    if let Some(token) = access_token {
        let hash = digest(&SHA256, token.as_bytes());
        set("at_hash", json!(URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])));
    }
    if let Some(tenant) = site.tenant() {
        set("tid", json!(tenant));
        set("oid", json!(format!("oid-{}", person.sub)));
        set("ver", json!("2.0"));
    }
    if *site != Site::Plain || !shared.options.lean_id_tokens {
        for (name, value) in profile_claims(site, person, &grant.scopes) {
            set(&name, value);
        }
    }
    claims.extend(person.claims.clone());
    Value::Object(claims)
}

/// Claims that the scopes `email` and `profile` stand for (OpenID Connect Core §5.4).
pub(super) fn profile_claims(site: &Site, person: &Person, scopes: &[String]) -> Map<String, Value> {
    let has = |scope: &str| scopes.iter().any(|known| known == scope);
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| _ = claims.insert(name.to_owned(), value);
    if has("email") && !person.email.is_empty() {
        set("email", json!(person.email));
        match site {
            // Azure does not say; Apple says it in words.
            Site::Azure { .. } => {}
            Site::Apple => {
                set("email_verified", json!(person.email_verified.to_string()));
                set(
                    "is_private_email",
                    json!(person.email.ends_with("@privaterelay.appleid.com").to_string()),
                );
            }
            _ => set("email_verified", json!(person.email_verified)),
        }
    }
    if has("profile") {
        set("name", json!(person.name));
        set("preferred_username", json!(person.user_name()));
        set("picture", json!(format!("https://pictures.example.com/{}.png", person.sub)));
    }
    claims
}
