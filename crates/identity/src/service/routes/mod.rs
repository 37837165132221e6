//! The endpoints, one file each.

mod admin;
mod audit;
mod authorize;
mod callback;
mod factors;
mod generate_link;
mod health;
mod id_token;
mod identities;
mod invite;
mod jwks;
mod logout;
mod mailbox;
mod otp;
mod pages;
mod passkeys;
mod reauthenticate;
mod recover;
mod recovery_codes;
mod resend;
mod settings;
mod signup;
mod sso;
mod token;
mod user;
mod verify;

use axum::Router;

use super::AuthService;

pub(crate) use mailbox::router as mailbox;

/// All of them.
pub(crate) fn router() -> Router<AuthService> {
    Router::new()
        .merge(admin::router())
        .merge(audit::router())
        .merge(authorize::router())
        .merge(callback::router())
        .merge(factors::router())
        .merge(generate_link::router())
        .merge(health::router())
        .merge(identities::router())
        .merge(invite::router())
        .merge(jwks::router())
        .merge(logout::router())
        .merge(otp::router())
        .merge(pages::router())
        .merge(passkeys::router())
        .merge(reauthenticate::router())
        .merge(recover::router())
        .merge(recovery_codes::router())
        .merge(resend::router())
        .merge(settings::router())
        .merge(signup::router())
        .merge(sso::router())
        .merge(token::router())
        .merge(user::router())
        .merge(verify::router())
}
