//! Who a transaction acts as: the Postgres role and the token's claims that policies read.

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The verified identity behind a request. Policies see it as `current_user` and `request.jwt.claims`.
///
/// Only `identity` makes these from tokens; system set-up makes [`Claims::agent`] for a service principal.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    role: String,
    json: String,
}

impl Claims {
    /// Claims of a visitor without a session.
    pub fn anon() -> Self {
        Self::new("anon", Map::new())
    }

    /// Claims of a signed-in user.
    pub fn user(id: Uuid) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".into(), json!(id));
        Self::new("authenticated", claims)
    }

    /// Claims of a service principal that RLS confines (e.g. the voice agent of one tenant).
    pub fn agent(role: &str, claims: Map<String, Value>) -> Self {
        Self::new(role, claims)
    }

    /// Claims of a verified token. `role` is put into the claims too, as PostgREST does.
    pub fn new(role: &str, mut claims: Map<String, Value>) -> Self {
        claims.insert("role".into(), json!(role));
        Self { role: role.to_owned(), json: Value::Object(claims).to_string() }
    }

    /// Postgres role to act as.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The claims as JSON text, as `request.jwt.claims` carries them.
    pub fn json(&self) -> &str {
        &self.json
    }
}
