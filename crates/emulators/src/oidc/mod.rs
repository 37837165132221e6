//! A strict OAuth 2 and OpenID Connect provider, with real keys.
//!
//! One server plays several sites, each at its own base address: a plain issuer ([`Server::issuer`]), tenants of
//! Azure ([`Server::azure`]), Apple ([`Server::apple`]), GitHub and Discord ([`Server::url`]). A browser gets a small
//! page to choose a person on; `login_hint` with a person's address or id skips it. Sources: RFC 6749, 6750, 7517, 7636,
//! 9207, OpenID Connect Core and Discovery 1.0, and the sites' own references as of November 2026.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use longhouse_emulators::oidc::{Client, Options, Person, Server};
//! let server = Server::start(Options {
//!     clients: vec![Client::new("app", "secret", "http://127.0.0.1:8000/auth/v1/callback")],
//!     people: vec![Person::new("1", "Ada Lovelace", "ada@example.com")],
//!     ..Options::default()
//! })
//! .await?;
//! println!("{}", server.issuer());
//! # Ok(()) }
//! ```

mod api;
mod authorize;
mod client;
mod keys;
mod page;
mod site;
mod state;
mod token;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use client::{Client, Secret};
pub use keys::Algorithm;
use keys::KeyRing;
use state::Ledger;

/// Largest body.
const MOST_BYTES: usize = 64 * 1024;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Registered applications.
    pub clients: Vec<Client>,
    /// Who has an account here.
    pub people: Vec<Person>,
    /// What ID tokens are signed with.
    pub algorithm: Algorithm,
    /// Life of a code: RFC 6749 allows ten minutes at most.
    pub code_life: Duration,
    /// Life of access and ID tokens.
    pub token_life: Duration,
    /// Whether the plain issuer and Azure want PKCE.
    pub require_pkce: bool,
    /// Whether the plain issuer tells addresses only at its user info endpoint.
    pub lean_id_tokens: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clients: Vec::new(),
            people: Vec::new(),
            algorithm: Algorithm::Rs256,
            code_life: Duration::from_secs(60),
            token_life: Duration::from_secs(3600),
            require_pkce: true,
            lean_id_tokens: false,
        }
    }
}

/// A person with an account.
#[derive(Debug, Clone)]
pub struct Person {
    /// Their id; a number where GitHub and Discord need one.
    pub sub: String,
    /// Full name.
    pub name: String,
    /// Primary address.
    pub email: String,
    /// Whether it is verified.
    pub email_verified: bool,
    /// Further addresses (GitHub), and whether each is verified.
    pub further_emails: Vec<(String, bool)>,
    /// Further claims of ID tokens; they win over ours.
    pub claims: Map<String, Value>,
}

impl Person {
    /// Somebody with a verified address.
    #[must_use]
    pub fn new(sub: &str, name: &str, email: &str) -> Self {
        Self {
            sub: sub.into(),
            name: name.into(),
            email: email.into(),
            email_verified: true,
            further_emails: Vec::new(),
            claims: Map::new(),
        }
    }

    /// The same person without a verified address.
    #[must_use]
    pub fn unverified(self) -> Self {
        Self { email_verified: false, ..self }
    }

    fn user_name(&self) -> &str {
        self.email.split('@').next().unwrap_or_default()
    }
}

/// A running server. It stops when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Shared {
    base: String,
    options: Options,
    keys: Mutex<KeyRing>,
    people: Mutex<Vec<Person>>,
    ledger: Mutex<Ledger>,
    hits: Mutex<HashMap<String, usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl Shared {
    fn person(&self, sub: &str) -> Option<Person> {
        lock(&self.people).iter().find(|person| person.sub == sub).cloned()
    }

    fn client(&self, id: &str) -> Option<&Client> {
        self.options.clients.iter().find(|client| client.id == id)
    }
}

impl Server {
    /// Makes keys, listens and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            base: format!("http://{address}"),
            keys: Mutex::new(KeyRing::new(options.algorithm)),
            people: Mutex::new(options.people.clone()),
            ledger: Mutex::default(),
            hits: Mutex::default(),
            options,
        });
        let stop = CancellationToken::new();
        let serve = axum::serve(listener, router(Arc::clone(&shared)))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::warn!(%error, "the OpenID Connect emulator stopped");
            }
        });
        Ok(Self { address, shared, stop })
    }

    /// Base address: what GitHub's and Discord's `url` setting wants.
    #[must_use]
    pub fn url(&self) -> Url {
        self.below("")
    }

    /// The plain issuer.
    #[must_use]
    pub fn issuer(&self) -> Url {
        self.below("/plain")
    }

    /// A tenant of Azure (`common`: any); its issuer is this and `/v2.0`.
    #[must_use]
    pub fn azure(&self, tenant: &str) -> Url {
        self.below(&format!("/azure/{tenant}"))
    }

    /// Apple's issuer.
    #[must_use]
    pub fn apple(&self) -> Url {
        self.below("/apple")
    }

    fn below(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.shared.base)).expect("a socket address makes a valid URL")
    }

    /// Changes who has an account; whoever is signed in stays so.
    pub fn set_people(&self, people: Vec<Person>) {
        *lock(&self.shared.people) = people;
    }

    /// Signs from now on with a new key; `keep` says whether the old one stays published.
    pub fn rotate_keys(&self, keep: bool) {
        lock(&self.shared.keys).rotate(keep);
    }

    /// A token with exactly these claims, signed with the current key.
    #[must_use]
    pub fn mint(&self, claims: &Value) -> String {
        lock(&self.shared.keys).sign(claims)
    }

    /// A token with these claims, signed with a key that is not published but claims the current one's id.
    #[must_use]
    pub fn forge(&self, claims: &Value) -> String {
        lock(&self.shared.keys).forge(claims)
    }

    /// An ID token of the plain issuer as an app on a telephone gets it.
    #[must_use]
    pub fn id_token(
        &self,
        sub: &str,
        client: &str,
        nonce: Option<&str>,
        access_token: Option<&str>,
    ) -> String {
        let Some(person) = self.shared.person(sub) else { return String::new() };
        let grant = state::Grant {
            client: client.to_owned(),
            sub: sub.to_owned(),
            scopes: vec!["openid".into(), "email".into(), "profile".into()],
            nonce: nonce.map(str::to_owned),
            offline: false,
        };
        let site = site::Site::Plain;
        let claims = token::id_claims(&self.shared, &site, &person, &grant, access_token);
        self.mint(&claims)
    }

    /// How many requests a path got.
    #[must_use]
    pub fn hits(&self, path: &str) -> usize {
        lock(&self.shared.hits).get(path).copied().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let oidc = |router: Router<Arc<Shared>>, base: &str| {
        router
            .route(&format!("{base}/.well-known/openid-configuration"), get(site::discovery))
            .route(&format!("{base}/authorize"), get(authorize::begin).post(authorize::decide))
            .route(&format!("{base}/token"), post(token::exchange))
            .route(&format!("{base}/userinfo"), get(api::userinfo).post(api::userinfo))
    };
    let mut router = Router::new().route("/jwks.json", get(jwks));
    for base in ["/plain", "/azure/{tenant}/v2.0", "/apple"] {
        router = oidc(router, base);
    }
    router
        .route("/login/oauth/authorize", get(authorize::begin).post(authorize::decide))
        .route("/login/oauth/access_token", post(token::exchange))
        .route("/api/v3/user", get(api::github_user))
        .route("/api/v3/user/emails", get(api::github_emails))
        .route("/api/oauth2/authorize", get(authorize::begin).post(authorize::decide))
        .route("/api/oauth2/token", post(token::exchange))
        .route("/api/users/@me", get(api::discord_user))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), count))
        .with_state(shared)
}

async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    *lock(&shared.hits).entry(request.uri().path().to_owned()).or_default() += 1;
    next.run(request).await
}

async fn jwks(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    axum::Json(json!({ "keys": lock(&shared.keys).published() }))
}
