//! `POST /token?grant_type=id_token`: sign-in with an ID token that an app got from a provider itself.

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::service::AuthService;
use crate::service::caller::{Caller, SignedIn};
use crate::service::error::AuthApiError;
use crate::service::providers::{Arrival, Profile, Provider, arrive, link};
use crate::service::store;
use crate::service::tokens::TokenResponse;

/// What the app sends.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    id_token: String,
    /// Checked against the ID token's `at_hash`.
    access_token: String,
    /// Whose SHA-256 in hex the ID token has.
    nonce: String,
    provider: String,
    client_id: String,
    issuer: String,
    /// Whether the identity is to be given to the signed-in account.
    link_identity: bool,
}

/// Signs in. `signed_in` is the holder of the request's access token, which `link_identity` needs.
pub(super) async fn grant(
    service: &AuthService,
    caller: &Caller,
    signed_in: Option<SignedIn>,
    params: Params,
) -> Result<TokenResponse, AuthApiError> {
    let bad = |message: &'static str| AuthApiError::oauth("invalid request", message);
    if params.id_token.is_empty() {
        return Err(bad("id_token required"));
    }
    if params.provider.is_empty() && (params.client_id.is_empty() || params.issuer.is_empty()) {
        return Err(bad("provider or client_id and issuer required"));
    }
    let target = match (params.link_identity, signed_in) {
        (false, _) => None,
        (true, Some(signed_in)) => Some(signed_in.user.id),
        (true, None) => return Err(bad("Linking requires a valid user access token in Authorization")),
    };
    let provider = find(service, &params)?;
    let profile = Box::pin(verify(service, provider, &params)).await?;
    let tx = store::begin(&service.database).await?;
    let arrival = match target {
        Some(target) => link(service, &tx, caller, target, provider.name(), &profile).await?,
        None => {
            let optional = provider.options.email_optional;
            arrive(service, &tx, caller, provider.name(), &profile, optional).await?
        }
    };
    match arrival {
        Arrival::Account(user) => {
            let session = service.sign_in(&tx, caller, &user, "oauth").await?;
            tx.commit().await?;
            Ok(session)
        }
        Arrival::Refused(refusal) => {
            tx.commit().await?;
            Err(refusal)
        }
    }
}

fn find<'a>(service: &'a AuthService, params: &Params) -> Result<&'a Provider, AuthApiError> {
    if params.provider.is_empty() {
        let provider = service.providers.by_issuer(&params.issuer);
        return provider.ok_or_else(|| {
            AuthApiError::invalid(format!("Custom OIDC provider {:?} not allowed", params.issuer))
        });
    }
    let provider = service.providers.get(&params.provider).ok_or_else(|| {
        let message = format!("Provider {:?} is not enabled", params.provider);
        AuthApiError::bad_request("provider_disabled", message)
    })?;
    if !params.issuer.is_empty()
        && service.providers.by_issuer(&params.issuer).is_none_or(|other| other.name() != provider.name())
    {
        return Err(AuthApiError::invalid("Provided issuer does not match ID token issuer"));
    }
    Ok(provider)
}

/// What the provider says, once the token has proved to be the provider's, for this application, and asked for by
/// this sign-in.
async fn verify(
    service: &AuthService,
    provider: &Provider,
    params: &Params,
) -> Result<Profile, AuthApiError> {
    let access_token = Some(params.access_token.as_str()).filter(|token| !token.is_empty());
    let verified = service.providers.verify(provider, &params.id_token, access_token).await;
    let (claims, profile) = verified.map_err(|error| {
        tracing::info!(provider = provider.name(), %error, "an ID token was not accepted");
        let reason = error.to_string();
        // The one reason that an app's developer must see.
        let message =
            if reason.starts_with("Unacceptable audience") { reason } else { "Bad ID token".to_owned() };
        AuthApiError::oauth("invalid request", message)
    })?;
    if !provider.options.skip_nonce_check {
        check_nonce(&claims, &params.nonce)?;
    }
    Ok(profile)
}

/// The token has the hash of the nonce, so that whoever saw the token alone cannot use it.
fn check_nonce(claims: &Map<String, Value>, given: &str) -> Result<(), AuthApiError> {
    let expected = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
    if expected.is_empty() != given.is_empty() {
        let message = "Passed nonce and nonce in id_token should either both exist or not.";
        return Err(AuthApiError::oauth("invalid request", message));
    }
    let hash = hex::encode(Sha256::digest(given));
    if given.is_empty() || constant_time_eq::constant_time_eq(hash.as_bytes(), expected.as_bytes()) {
        Ok(())
    } else {
        Err(AuthApiError::oauth("invalid nonce", "Nonces mismatch"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const SOME_HASH: &str = "0f0baac8fb39fbef85a7bb5a2dd7c88fc5ea3b7c0d8e5f2d7c2b5d2a1a4bd4f5";

    #[rstest]
    #[case::none(json!({}), "", true)]
    #[case::only_given(json!({}), "raw", false)]
    #[case::only_in_token(json!({"nonce": SOME_HASH}), "", false)]
    #[case::unhashed(json!({"nonce": "raw"}), "raw", false)]
    #[case::other(json!({"nonce": hex::encode(Sha256::digest("other"))}), "raw", false)]
    #[case::same(json!({"nonce": hex::encode(Sha256::digest("raw"))}), "raw", true)]
    fn nonces(#[case] claims: Value, #[case] given: &str, #[case] accepted: bool) {
        assert_eq!(check_nonce(claims.as_object().unwrap(), given).is_ok(), accepted);
    }
}
