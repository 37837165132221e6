//! The endpoints, one file each.

mod authorize;
mod callback;
mod factors;
mod health;
mod id_token;
mod identities;
mod jwks;
mod logout;
mod otp;
mod passkeys;
mod reauthenticate;
mod recover;
mod recovery_codes;
mod resend;
mod settings;
mod signup;
mod token;

use axum::Router;

use super::AuthService;

/// All of them.
pub(crate) fn router() -> Router<AuthService> {
    Router::new()
        .merge(authorize::router())
        .merge(callback::router())
        .merge(factors::router())
        .merge(health::router())
        .merge(identities::router())
        .merge(jwks::router())
        .merge(logout::router())
        .merge(otp::router())
        .merge(passkeys::router())
        .merge(reauthenticate::router())
        .merge(recover::router())
        .merge(recovery_codes::router())
        .merge(resend::router())
        .merge(settings::router())
        .merge(signup::router())
        .merge(token::router())
}
