//! The settings themselves: one struct a section of `longhouse.toml`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// Every setting of a Longhouse process, checked and ready to use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for the managed cluster, local files, keys and run state. Default `.longhouse`.
    pub data: PathBuf,
    /// Whether provider emulators stand in for providers without a key.
    pub offline: Offline,
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[supabase]`: a hosted project, where one is used.
    pub supabase: Supabase,
    /// `[openai]`
    pub openai: OpenAi,
    /// `[twilio]`
    pub twilio: Twilio,
    /// `[receptionist]`
    pub receptionist: Receptionist,
    /// `[log]`
    pub log: Log,
}

/// When provider emulators are started inside the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offline {
    /// For each provider that has no key (the default); OpenAI only together with Twilio, so that real callers never
    /// reach an emulator.
    Auto,
    /// For every provider, keys or not.
    Always,
    /// Never: a provider without a key is unavailable (`--no-offline`).
    Never,
}

/// `[server]`: the HTTP listener and its limits.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address to listen on. Default `127.0.0.1`.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one. Default 54321, as the Supabase command line uses. Environment: `PORT`.
    pub port: u16,
    /// Origin under which the outside world reaches this server, e.g. `https://api.example.com`.
    /// Webhook signatures are checked against it. Unset: taken from each request's `Host`.
    pub public_url: Option<Url>,
    /// Origins allowed by CORS; `*` alone allows any. Default `["*"]`.
    pub cors_origins: Vec<String>,
    /// Largest request body in bytes outside of uploads. Default 1 MiB.
    pub body_limit: usize,
    /// Longest time a plain (not WebSocket) request may take. Default 30 s.
    pub request_timeout: Duration,
    /// How long SIGTERM waits for calls to end by themselves before handing them over. Default 20 s,
    /// below the 30 s that Render, Railway and Kubernetes allow by default.
    pub drain_timeout: Duration,
    /// Requests a second that one client address may make, on average; 0 turns the limit off. Default 100.
    pub rate_limit_per_second: u32,
    /// Requests that one client address may make at once. Default 400.
    pub rate_limit_burst: u32,
    /// Proxies (addresses) whose `X-Forwarded-For`, `-Proto` and `-Host` are believed. Default none.
    pub trusted_proxies: Vec<IpAddr>,
}

/// `[database]`: an external Postgres, or how to run our own.
#[derive(Debug, Clone)]
pub struct Database {
    /// External Postgres 14 to 18; unset: Longhouse runs its own cluster. Environment: `DATABASE_URL`.
    pub url: Option<SecretString>,
    /// Port of the managed cluster. Unset: 54322, or the next free one.
    pub port: Option<u16>,
    /// Folder with `initdb` and `postgres`; unset: found (`PATH`, the usual folders, else downloaded).
    pub bin_dir: Option<PathBuf>,
    /// Connections in the request pool. Default 10.
    pub pool_size: usize,
    /// Longest wait for a connection from the pool. Default 5 s.
    pub pool_timeout: Duration,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Folder of the project's migrations. Default `supabase/migrations`.
    pub migrations: PathBuf,
    /// File that `longhouse db reset` loads after the migrations. Default `supabase/seed.sql`.
    pub seed: PathBuf,
}

/// `[supabase]`: a hosted project and the keys of this one.
#[derive(Debug, Clone, Default)]
pub struct Supabase {
    /// `SUPABASE_URL`
    pub url: Option<Url>,
    /// `SUPABASE_ANON_KEY`; unset: generated and kept in the data folder.
    pub anon_key: Option<SecretString>,
    /// `SUPABASE_SERVICE_ROLE_KEY` (also `SERVICE_ROLE_KEY`); unset: generated.
    pub service_role_key: Option<SecretString>,
    /// `SUPABASE_JWT_SECRET`, at least 32 characters; unset: generated.
    pub jwt_secret: Option<SecretString>,
}

/// `[openai]`
#[derive(Debug, Clone)]
pub struct OpenAi {
    /// `OPENAI_API_KEY`
    pub api_key: Option<SecretString>,
    /// Realtime endpoint. Default `wss://api.openai.com/v1/realtime`.
    pub realtime_url: Url,
    /// Speech-to-speech model. Default `gpt-realtime-2.1`.
    pub realtime_model: String,
    /// Model that writes down what callers say. Default `gpt-transcribe`.
    pub transcription_model: String,
    /// Longest life of one realtime session; a new one takes over before it ends. Default 60 min.
    pub session_cap: Duration,
}

/// `[twilio]`
#[derive(Debug, Clone)]
pub struct Twilio {
    /// `TWILIO_ACCOUNT_SID`
    pub account_sid: Option<String>,
    /// `TWILIO_AUTH_TOKEN`: signs webhooks. Unset with emulators: generated; unset without: webhooks are refused.
    pub auth_token: Option<SecretString>,
    /// `TWILIO_AUTH_TOKEN_PREVIOUS`: also accepted while tokens rotate.
    pub auth_token_previous: Option<SecretString>,
    /// `TWILIO_STREAM_URL`: `wss://` address of the media stream when another host serves it.
    pub stream_url: Option<Url>,
}

/// `[receptionist]`
#[derive(Debug, Clone)]
pub struct Receptionist {
    /// Whether the application is served. Default true.
    pub enabled: bool,
    /// Calls at once in this process; above it callers are forwarded or told that lines are busy. Default 1000.
    pub max_calls: usize,
    /// Longest call. Default 4 h.
    pub max_call_duration: Duration,
    /// Longest wait for Twilio's `start` message after the socket opens. Default 5 s.
    pub start_timeout: Duration,
    /// Longest run of one tool. Default 8 s.
    pub tool_timeout: Duration,
    /// Secret behind the one-time stream tokens; unset: derived from the JWT secret.
    pub stream_secret: Option<SecretString>,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// `tracing` filter, e.g. `info,longhouse_voice=debug`. Default `info`. Environment: `LONGHOUSE_LOG`, `RUST_LOG`.
    pub filter: String,
    /// Default `auto`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Readable text.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: ".longhouse".into(),
            offline: Offline::Auto,
            server: Server::default(),
            database: Database::default(),
            supabase: Supabase::default(),
            openai: OpenAi::default(),
            twilio: Twilio {
                account_sid: None,
                auth_token: None,
                auth_token_previous: None,
                stream_url: None,
            },
            receptionist: Receptionist::default(),
            log: Log { filter: "info".into(), format: LogFormat::Auto },
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 54321,
            public_url: None,
            cors_origins: vec!["*".into()],
            body_limit: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            rate_limit_per_second: 100,
            rate_limit_burst: 400,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            port: None,
            bin_dir: None,
            pool_size: 10,
            pool_timeout: Duration::from_secs(5),
            ca_file: None,
            migrations: "supabase/migrations".into(),
            seed: "supabase/seed.sql".into(),
        }
    }
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            api_key: None,
            realtime_url: Url::parse("wss://api.openai.com/v1/realtime").expect("constant URL"),
            realtime_model: "gpt-realtime-2.1".into(),
            transcription_model: "gpt-transcribe".into(),
            session_cap: Duration::from_secs(60 * 60),
        }
    }
}

impl Default for Receptionist {
    fn default() -> Self {
        Self {
            enabled: true,
            max_calls: 1000,
            max_call_duration: Duration::from_secs(4 * 60 * 60),
            start_timeout: Duration::from_secs(5),
            tool_timeout: Duration::from_secs(8),
            stream_secret: None,
        }
    }
}
