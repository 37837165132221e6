//! The sites that the server plays, and how they differ.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Site {
    Plain,
    Azure { tenant: String },
    Apple,
    GitHub,
    Discord,
}

/// The tenant of people who come through Azure's shared address.
const HOME_TENANT: &str = "9a1cde0f-0000-4000-8000-000000000001";

impl Site {
    /// Whose path it is.
    pub(super) fn of(uri: &Uri) -> Self {
        let mut parts = uri.path().trim_start_matches('/').split('/');
        match (parts.next(), parts.next()) {
            (Some("plain"), _) => Self::Plain,
            (Some("azure"), Some(tenant)) => Self::Azure { tenant: tenant.to_owned() },
            (Some("apple"), _) => Self::Apple,
            (Some("login"), _) => Self::GitHub,
            _ => Self::Discord,
        }
    }

    pub(super) fn is_oidc(&self) -> bool {
        !matches!(self, Self::GitHub | Self::Discord)
    }

    /// Path that its endpoints are below.
    pub(super) fn base(&self) -> String {
        match self {
            Self::Plain => "/plain".into(),
            Self::Azure { tenant } => format!("/azure/{tenant}/v2.0"),
            Self::Apple => "/apple".into(),
            Self::GitHub => "/login/oauth".into(),
            Self::Discord => "/api/oauth2".into(),
        }
    }

    /// Azure's tenant of a person.
    pub(super) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Azure { tenant } if tenant == "common" => Some(HOME_TENANT),
            Self::Azure { tenant } => Some(tenant),
            _ => None,
        }
    }

    /// `iss` of its ID tokens.
    pub(super) fn issuer(&self, base: &str) -> String {
        match self.tenant() {
            Some(tenant) => format!("{base}/azure/{tenant}/v2.0"),
            None => format!("{base}{}", self.base()),
        }
    }

    pub(super) fn takes_basic(&self) -> bool {
        matches!(self, Self::Plain | Self::Discord)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Plain => "Test issuer",
            Self::Azure { .. } => "Azure (emulated)",
            Self::Apple => "Apple (emulated)",
            Self::GitHub => "GitHub (emulated)",
            Self::Discord => "Discord (emulated)",
        }
    }
}

/// OpenID Connect Discovery 1.0 §3.
pub(super) async fn discovery(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let site = Site::of(&uri);
    if !site.is_oidc() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let base = &shared.base;
    let below = |path: &str| format!("{base}{}{path}", site.base());
    let issuer = match &site {
        // As Microsoft publishes it for tenants that are known only later.
        Site::Azure { tenant } if tenant == "common" => format!("{base}/azure/{{tenantid}}/v2.0"),
        _ => site.issuer(base),
    };
    let methods =
        if site.takes_basic() { json!(["client_secret_basic"]) } else { json!(["client_secret_post"]) };
    let algorithm = match shared.options.algorithm {
        super::Algorithm::Rs256 => "RS256",
        super::Algorithm::Es256 => "ES256",
    };
    axum::Json(json!({
        "issuer": issuer,
        "authorization_endpoint": below("/authorize"),
        "token_endpoint": below("/token"),
        "userinfo_endpoint": below("/userinfo"),
        "jwks_uri": format!("{base}/jwks.json"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
        "scopes_supported": ["openid", "email", "profile", "offline_access"],
        "token_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
    .into_response()
}
