//! The authorization endpoint (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2).

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawForm, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::site::Site;
use super::state::{Code, Pending, secret};
use super::{Shared, lock, page};

/// Parameters, none of which may repeat (RFC 6749 §3.1). An empty one counts as missing.
pub(super) fn parameters(encoded: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(encoded).into_owned() {
        if found.iter().any(|(known, _)| *known == name) {
            return Err(format!("parameter {name} is repeated"));
        }
        found.push((name, value));
    }
    found.retain(|(_, value)| !value.is_empty());
    Ok(found)
}

/// `GET`: checks the request and asks the person, unless `login_hint` names them.
pub(super) async fn begin(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    let site = Site::of(&uri);
    let parameters = match parameters(query.unwrap_or_default().as_bytes()) {
        Ok(parameters) => parameters,
        Err(message) => return page::refused(&message),
    };
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    // RFC 6749 §4.1.2.1: nothing is sent to an address that does not belong to a known client.
    let Some(client) = get("client_id").and_then(|id| shared.client(&id)) else {
        return page::refused("client_id is missing or unknown");
    };
    let Some(redirect_uri) = get("redirect_uri").filter(|uri| client.redirect_uris.contains(uri)) else {
        return page::refused("redirect_uri is missing or not registered");
    };
    let mut pending = Pending {
        client: client.id.clone(),
        redirect_uri,
        state: get("state"),
        scopes: get("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        nonce: get("nonce"),
        challenge: get("code_challenge"),
        form_post: false,
        offline: false,
    };
    pending.offline = site == Site::Discord
        || pending.scopes.iter().any(|scope| scope == "offline_access")
        || get("access_type").as_deref() == Some("offline");
    match get("response_mode").as_deref() {
        None | Some("query") => {}
        Some("form_post") if site.is_oidc() => pending.form_post = true,
        Some(_) => return fail(&shared, &site, &pending, "invalid_request", "unknown response_mode"),
    }
    if let Err((error, message)) = check(&shared, &site, &pending, &get) {
        return fail(&shared, &site, &pending, error, message);
    }
    let hinted = get("login_hint").and_then(|hint| {
        lock(&shared.people)
            .iter()
            .find(|person| person.email == hint || person.sub == hint)
            .map(|person| person.sub.clone())
    });
    if let Some(sub) = hinted {
        return approve(&shared, &site, &uri, pending, sub);
    }
    if get("prompt").as_deref() == Some("none") {
        return fail(&shared, &site, &pending, "login_required", "nobody is signed in here");
    }
    let ticket = secret("ticket-");
    let people = lock(&shared.people).clone();
    let response = page::choose(site.name(), &pending.client, &pending.scopes, &people, &ticket);
    let mut ledger = lock(&shared.ledger);
    ledger.tidy();
    ledger.pending.insert(ticket, pending);
    response
}

fn check(
    shared: &Shared,
    site: &Site,
    pending: &Pending,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<(), (&'static str, &'static str)> {
    match get("response_type").as_deref() {
        Some("code") => {}
        None if *site == Site::GitHub => {}
        None => return Err(("invalid_request", "response_type is missing")),
        Some(_) => return Err(("unsupported_response_type", "only code is supported")),
    }
    if matches!(site, Site::Plain | Site::Azure { .. })
        && !pending.scopes.iter().any(|scope| scope == "openid")
    {
        return Err(("invalid_scope", "scope openid is missing"));
    }
    if *site == Site::Discord && pending.scopes.is_empty() {
        return Err(("invalid_scope", "scope is missing"));
    }
    if *site == Site::Apple && !pending.scopes.is_empty() && !pending.form_post {
        return Err(("invalid_request", "response_mode must be form_post when name or email is requested"));
    }
    let method = get("code_challenge_method");
    match (&pending.challenge, method.as_deref()) {
        // Apple knows no PKCE and ignores it.
        _ if *site == Site::Apple => {}
        (None, Some(_)) => return Err(("invalid_request", "code_challenge is missing")),
        (None, None) if shared.options.require_pkce && matches!(site, Site::Plain | Site::Azure { .. }) => {
            return Err(("invalid_request", "code_challenge is required"));
        }
        (None, None) => {}
        (Some(challenge), Some("S256")) => {
            let fits = challenge.len() == 43
                && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !fits {
                return Err(("invalid_request", "code_challenge is no SHA-256 in base64url"));
            }
        }
        (Some(_), _) => return Err(("invalid_request", "code_challenge_method must be S256")),
    }
    Ok(())
}

/// `POST`: what the person has chosen on the page.
pub(super) async fn decide(State(shared): State<Arc<Shared>>, uri: Uri, RawForm(form): RawForm) -> Response {
    let site = Site::of(&uri);
    let parameters = match parameters(&form) {
        Ok(parameters) => parameters,
        Err(message) => return page::refused(&message),
    };
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let pending = get("ticket").and_then(|ticket| lock(&shared.ledger).pending.remove(&ticket));
    let Some(pending) = pending else { return page::refused("this page was used already: start again") };
    match get("sub").filter(|sub| shared.person(sub).is_some()) {
        Some(sub) if get("deny").is_none() => approve(&shared, &site, &uri, pending, sub),
        _ => fail(&shared, &site, &pending, "access_denied", "The user has denied your application access."),
    }
}

fn approve(shared: &Shared, site: &Site, uri: &Uri, pending: Pending, sub: String) -> Response {
    let code = secret("code-");
    let mut fields = vec![("code", code.clone())];
    let mut ledger = lock(&shared.ledger);
    // Apple says who somebody is beside the tokens, and only the first time.
    if *site == Site::Apple
        && pending.scopes.iter().any(|scope| scope == "name")
        && let Some(person) = shared.person(&sub)
        && ledger.introduced.insert((pending.client.clone(), sub.clone()), ()).is_none()
    {
        let (first, last) = person.name.split_once(' ').unwrap_or((&person.name, ""));
        let user = json!({ "name": { "firstName": first, "lastName": last }, "email": person.email });
        fields.push(("user", user.to_string()));
    }
    let response = answer(shared, site, &pending, fields);
    ledger.tidy();
    let code_of = Code { pending, sub, path: Site::of(uri).base(), issued: Instant::now(), used_for: None };
    ledger.codes.insert(code, code_of);
    response
}

fn fail(shared: &Shared, site: &Site, pending: &Pending, error: &str, message: &str) -> Response {
    answer(
        shared,
        site,
        pending,
        vec![("error", error.to_owned()), ("error_description", message.to_owned())],
    )
}

/// Sends the person back to the client.
fn answer(shared: &Shared, site: &Site, pending: &Pending, mut fields: Vec<(&str, String)>) -> Response {
    if let Some(state) = &pending.state {
        fields.push(("state", state.clone()));
    }
    if site.is_oidc() {
        fields.push(("iss", site.issuer(&shared.base)));
    }
    if pending.form_post {
        return page::form_post(&pending.redirect_uri, &fields);
    }
    match Url::parse(&pending.redirect_uri) {
        Ok(mut url) => {
            url.query_pairs_mut().extend_pairs(&fields);
            (StatusCode::FOUND, [(LOCATION, url.to_string()), (CACHE_CONTROL, "no-store".into())])
                .into_response()
        }
        Err(_) => page::refused("the registered redirect_uri is no URL"),
    }
}
