//! API keys, tokens and the claims that requests act under.
//!
//! A project has two keys a client may hold, each in two forms: the anon key (a JWT) or the publishable key for
//! pages and apps, the service role key (a JWT) or the secret key for servers. More opaque keys and signing keys are
//! in the database; a [`KeyRing`] follows them. [`Verifier`] turns keys and users' tokens into
//! [`longhouse_database::Claims`].

mod api_keys;
mod error;
mod external;
mod jwks;
mod key_ring;
mod keys;
mod request;
pub mod service;
mod verifier;

pub use api_keys::{ApiKey, ApiKeyKind};
pub use error::{AuthError, KeysError};
pub use external::External;
pub use key_ring::KeyRing;
pub use keys::{ISSUER, ProjectKeys};
pub use request::{Authenticated, credential, verify_headers};
pub use verifier::{Verifier, refresh_keys};
