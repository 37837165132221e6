//! API keys, tokens and the claims that requests act under.
//!
//! A project has two keys a client may hold, each in two forms: the anon key (a JWT) or the publishable key for
//! pages and apps, the service role key (a JWT) or the secret key for servers. Users' tokens are JWTs signed
//! with the same secret. [`Verifier`] turns any of them into [`longhouse_database::Claims`].

mod error;
mod keys;
mod request;
pub mod service;
mod verifier;

pub use error::{AuthError, KeysError};
pub use keys::{ISSUER, ProjectKeys};
pub use request::{Authenticated, credential, verify_headers};
pub use verifier::Verifier;
