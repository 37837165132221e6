//! `GET /settings`: what sign-in pages may offer.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::service::AuthService;

/// Sites that clients expect to be listed, whether or not they are set up.
const SITES: [&str; 23] = [
    "apple",
    "azure",
    "bitbucket",
    "discord",
    "facebook",
    "figma",
    "fly",
    "github",
    "gitlab",
    "google",
    "kakao",
    "keycloak",
    "linkedin",
    "linkedin_oidc",
    "notion",
    "slack",
    "slack_oidc",
    "snapchat",
    "spotify",
    "twitch",
    "twitter",
    "workos",
    "zoom",
];

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/settings", get(settings))
}

async fn settings(State(service): State<AuthService>) -> Json<Value> {
    let options = &service.options;
    let mut external: Map<String, Value> =
        SITES.iter().map(|&site| (site.to_owned(), json!(false))).collect();
    for provider in service.providers.all() {
        external.insert(provider.name().to_owned(), json!(true));
    }
    external.insert("email".into(), json!(options.email.enabled));
    external.insert("phone".into(), json!(options.phone.enabled));
    external.insert("anonymous_users".into(), json!(options.anonymous));
    Json(json!({
        "external": external,
        "disable_signup": options.disable_signup,
        "mailer_autoconfirm": options.email.autoconfirm,
        "phone_autoconfirm": options.phone.autoconfirm,
        "sms_provider": if options.sms.is_some() { "twilio" } else { "" },
        "saml_enabled": false,
        "saml_private_key_next_configured": false,
        "passkeys_enabled": options.mfa.passkeys,
    }))
}
