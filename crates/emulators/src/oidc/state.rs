//! What the server remembers: sign-ins under way, codes, tokens.

use std::collections::HashMap;
use std::time::Instant;

use rand::RngExt;

/// Most of each that are kept; the oldest ones of a full table are forgotten all together.
const MOST: usize = 10_000;

/// What a person has agreed to.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) sub: String,
    pub(super) scopes: Vec<String>,
    pub(super) nonce: Option<String>,
    /// Whether a refresh token was asked for.
    pub(super) offline: bool,
}

/// A request for authorization that was found in order.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) nonce: Option<String>,
    pub(super) challenge: Option<String>,
    pub(super) form_post: bool,
    pub(super) offline: bool,
}

/// A code that was handed out.
pub(super) struct Code {
    pub(super) pending: Pending,
    pub(super) sub: String,
    pub(super) path: String,
    pub(super) issued: Instant,
    /// Tokens that it was exchanged for, to be revoked if it comes again.
    pub(super) used_for: Option<Vec<String>>,
}

/// A token that was handed out.
pub(super) struct Token {
    pub(super) grant: Grant,
    pub(super) issued: Instant,
}

/// Everything.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) pending: HashMap<String, Pending>,
    pub(super) codes: HashMap<String, Code>,
    pub(super) access: HashMap<String, Token>,
    pub(super) refresh: HashMap<String, Token>,
    /// Names of people whom Apple has introduced to a client already.
    pub(super) introduced: HashMap<(String, String), ()>,
}

impl Ledger {
    /// Keeps the tables bounded.
    pub(super) fn tidy(&mut self) {
        if self.pending.len() > MOST {
            self.pending.clear();
        }
        if self.codes.len() > MOST {
            self.codes.clear();
        }
        if self.access.len() > MOST {
            self.access.clear();
            self.refresh.clear();
        }
    }
}

/// Something nobody can guess.
pub(super) fn secret(prefix: &str) -> String {
    let mut random = rand::rng();
    let text: String = (0..32).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
    format!("{prefix}{text}")
}
