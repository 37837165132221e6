//! Who subscriptions belong to. Visibility is decided once for each identity, however many sockets it has.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use longhouse_database::Claims;
use serde_json::{Map, Value as Json};

use super::policy::Claimed;

/// Claims that differ between sessions of one user, and say nothing about what it may see unless a policy asks.
const OF_SESSIONS: [&str; 7] = ["exp", "iat", "nbf", "jti", "session_id", "amr", "aal"];

/// A role and claims.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) claims: Claims,
    claimed: OnceLock<Claimed>,
}

impl Identity {
    pub(super) fn role(&self) -> &str {
        self.claims.role()
    }

    pub(super) fn claimed(&self) -> &Claimed {
        self.claimed.get_or_init(|| Claimed::new(self.claims.json()))
    }
}

/// The same claims without what differs between sessions.
fn essential(claims: &Claims) -> Claims {
    match serde_json::from_str::<Map<String, Json>>(claims.json()) {
        Ok(mut map) => {
            map.retain(|name, _| !OF_SESSIONS.contains(&name.as_str()));
            Claims::new(claims.role(), map)
        }
        Err(_) => claims.clone(),
    }
}

/// Gives equal claims one identity.
#[derive(Debug, Default)]
pub(super) struct Identities {
    known: HashMap<(String, String), Weak<Identity>>,
    /// When to look for identities that nobody has any more.
    clean_at: usize,
}

impl Identities {
    /// The identity with all claims, and that with only those that matter.
    pub(super) fn of(&mut self, claims: &Claims) -> (Arc<Identity>, Arc<Identity>) {
        (self.intern(claims.clone()), self.intern(essential(claims)))
    }

    fn intern(&mut self, claims: Claims) -> Arc<Identity> {
        let key = (claims.role().to_owned(), claims.json().to_owned());
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.clean_at {
            self.known.retain(|_, identity| identity.strong_count() > 0);
            self.clean_at = (self.known.len() * 2).max(1024);
        }
        let identity = Arc::new(Identity { claims, claimed: OnceLock::new() });
        self.known.insert(key, Arc::downgrade(&identity));
        identity
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(sub: &str, exp: u64) -> Claims {
        let Json::Object(map) = json!({"sub": sub, "exp": exp, "session_id": exp}) else { panic!() };
        Claims::new("authenticated", map)
    }

    #[test]
    fn two_sessions_of_a_user_are_one_identity() {
        let mut identities = Identities::default();
        let (first_all, first) = identities.of(&claims("ada", 1));
        let (second_all, second) = identities.of(&claims("ada", 2));
        let (_, other) = identities.of(&claims("bob", 1));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first_all, &second_all));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(first.claims.json(), r#"{"role":"authenticated","sub":"ada"}"#);
    }

    #[test]
    fn identities_that_are_gone_are_forgotten() {
        let mut identities = Identities::default();
        for number in 0..10_000 {
            identities.of(&claims("ada", number));
        }
        assert!(identities.known.len() <= 2048);
    }
}
