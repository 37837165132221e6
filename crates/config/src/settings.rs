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
    /// `[auth]`
    pub auth: Auth,
    /// `[mail]`
    pub mail: Mail,
    /// `[providers]`
    pub providers: Providers,
    /// `[storage]`: buckets and objects.
    pub storage: Storage,
    /// `[realtime]`
    pub realtime: Realtime,
    /// `[gateway]`: model calls.
    pub gateway: Gateway,
    /// `[studio]`
    pub studio: Studio,
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

/// `[auth]`: accounts, sessions and second factors.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Whether the service runs. Not with a hosted project, which has its own.
    pub enabled: bool,
    /// The application's page, where people land after a mail without an allowed address.
    pub site_url: Url,
    /// Further addresses that people may be sent to.
    pub redirect_urls: Vec<String>,
    /// Whether nobody may sign up by themselves.
    pub disable_signup: bool,
    /// Life of an access token.
    pub token_expiry: Duration,
    /// Postgres function that may change the claims of access tokens.
    pub access_token_hook: Option<String>,
    /// Sign-in by e-mail.
    pub email_enabled: bool,
    /// Whether addresses count as confirmed at once; unset: while nothing can send mail and only this machine is served.
    pub email_autoconfirm: Option<bool>,
    /// Whether a change of address is confirmed at both.
    pub email_secure_change: bool,
    /// Shortest time between two mails to one account.
    pub email_max_frequency: Duration,
    /// Digits of a one-time code.
    pub otp_length: usize,
    /// Life of links and codes sent by mail.
    pub otp_expiry: Duration,
    /// Sign-in by telephone number.
    pub phone_enabled: bool,
    /// Whether numbers count as confirmed at once.
    pub phone_autoconfirm: bool,
    /// Sender of text messages.
    pub sms_from: Option<String>,
    /// Text of the message.
    pub sms_template: String,
    /// Life of a code sent by text message.
    pub sms_otp_expiry: Duration,
    /// Shortest time between two text messages to one account.
    pub sms_max_frequency: Duration,
    /// Numbers that get no message and always have the same code.
    pub sms_test_otps: Vec<(String, String)>,
    /// Accounts without a name.
    pub anonymous_enabled: bool,
    /// Whether people may link further identities to their account.
    pub manual_linking: bool,
    /// Shortest password.
    pub password_min_length: usize,
    /// Sets of characters of which a password needs at least one each.
    pub password_required_characters: Vec<String>,
    /// How new passwords are hashed.
    pub password_hash: PasswordHashing,
    /// Whether a new password needs a recent sign-in or a code.
    pub password_reauthentication: bool,
    /// Whether a new password needs the current one.
    pub password_current_required: bool,
    /// Longest life of a session.
    pub session_timebox: Option<Duration>,
    /// Longest time a session goes without a refresh.
    pub session_inactivity: Option<Duration>,
    /// Whether a new sign-in ends the account's other sessions.
    pub single_session: bool,
    /// Whether using a refresh token twice ends its session.
    pub refresh_token_rotation: bool,
    /// How long a used refresh token is still answered.
    pub refresh_token_reuse_interval: Duration,
    /// Authenticator apps.
    pub mfa_totp: bool,
    /// Second factor by text message.
    pub mfa_phone: bool,
    /// Security keys as second factor.
    pub mfa_webauthn: bool,
    /// Most factors of one account.
    pub mfa_max_factors: usize,
    /// Life of a challenge.
    pub mfa_challenge_expiry: Duration,
    /// Name of the service that authenticators show.
    pub mfa_issuer: String,
    /// Passkeys instead of a password.
    pub passkeys: bool,
    /// WebAuthn relying party id.
    pub webauthn_rp_id: Option<String>,
    /// Origins of pages that may use security keys.
    pub webauthn_rp_origins: Vec<Url>,
    /// Mails an hour, of the whole project.
    pub limit_emails_per_hour: u32,
    /// Text messages an hour, of the whole project.
    pub limit_sms_per_hour: u32,
    /// Sign-ups, codes and recoveries of one address in five minutes.
    pub limit_otp: u32,
    /// Verifications of one address in five minutes.
    pub limit_verify: u32,
    /// Sign-ins and refreshes of one address in five minutes.
    pub limit_token: u32,
    /// Anonymous sign-ins of one address in an hour.
    pub limit_anonymous: u32,
    /// Attempts at a second factor in a minute.
    pub limit_mfa: u32,
    /// Failed sign-ins of one account in five minutes.
    pub limit_failures: u32,
    /// Whether providers may be on private addresses.
    pub allow_private_addresses: bool,
}

/// How new passwords are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordHashing {
    /// bcrypt, cost 10, as Supabase.
    Bcrypt,
    /// Argon2id with OWASP's parameters.
    Argon2id,
}

/// `[mail]`: how the auth service sends mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Mail server. Unset: mail is shown on the mailbox page.
    pub smtp_host: Option<String>,
    /// Its port.
    pub smtp_port: u16,
    /// Login there.
    pub smtp_user: Option<String>,
    /// Password there.
    pub smtp_password: Option<SecretString>,
    /// Address of the sender.
    pub from: String,
    /// Name of the sender.
    pub from_name: Option<String>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Folder with templates.
    pub templates: Option<PathBuf>,
}

/// `[providers]`: sites that people may sign in with.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    /// Google client ids, the web one first.
    pub google_client_id: Vec<String>,
    /// Google client secret.
    pub google_secret: Option<SecretString>,
    /// Google's issuer, for tests.
    pub google_url: Option<Url>,
    /// GitHub client id.
    pub github_client_id: Vec<String>,
    /// GitHub client secret.
    pub github_secret: Option<SecretString>,
    /// GitHub Enterprise host.
    pub github_url: Option<Url>,
    /// Apple service id, then bundle ids of apps.
    pub apple_client_id: Vec<String>,
    /// Apple client secret (a signed JWT).
    pub apple_secret: Option<SecretString>,
    /// Apple's issuer, for tests.
    pub apple_url: Option<Url>,
    /// Azure application id.
    pub azure_client_id: Vec<String>,
    /// Azure client secret.
    pub azure_secret: Option<SecretString>,
    /// Azure tenant.
    pub azure_url: Option<Url>,
    /// Discord client id.
    pub discord_client_id: Vec<String>,
    /// Discord client secret.
    pub discord_secret: Option<SecretString>,
    /// Discord's address, for tests.
    pub discord_url: Option<Url>,
    /// Name under which the OpenID Connect issuer is offered.
    pub oidc_name: String,
    /// Its client id.
    pub oidc_client_id: Vec<String>,
    /// Its client secret.
    pub oidc_secret: Option<SecretString>,
    /// Its issuer.
    pub oidc_url: Option<Url>,
}

/// `[storage]`: the service at `/storage/v1`, and where it keeps bytes.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Whether it is served. Default true. A hosted project has its own.
    pub enabled: bool,
    /// Folder of the bytes. Unset: `storage` in the data folder. Not used with a bucket.
    pub folder: Option<PathBuf>,
    /// Largest file of any bucket, in bytes. Default 5 GiB.
    pub file_size_limit: usize,
    /// Longest wait for the next piece of an upload. Default 60 s.
    pub idle_timeout: Duration,
    /// How long bytes stay after their object is gone, for downloads in progress. Default 10 min.
    pub grace: Duration,
    /// Bucket of an S3-compatible store that holds the bytes instead of the folder.
    pub s3_bucket: Option<String>,
    /// Address of that store. Unset: AWS. Environment: `AWS_ENDPOINT_URL_S3`.
    pub s3_endpoint: Option<Url>,
    /// Its region. Default `us-east-1`. Environment: `AWS_REGION`.
    pub s3_region: String,
    /// Folder within the bucket. Default none.
    pub s3_prefix: Option<String>,
    /// Access key; unset: from the machine's role. Environment: `AWS_ACCESS_KEY_ID`.
    pub s3_access_key_id: Option<SecretString>,
    /// Its secret. Environment: `AWS_SECRET_ACCESS_KEY`.
    pub s3_secret_access_key: Option<SecretString>,
    /// `https://host/bucket/…` instead of `https://bucket.host/…`. Default true, as stores other than AWS want it.
    pub s3_path_style: bool,
    /// Access key with which S3 clients reach every object here. Environment: `S3_PROTOCOL_ACCESS_KEY_ID`.
    pub s3_protocol_access_key_id: Option<SecretString>,
    /// Its secret. Environment: `S3_PROTOCOL_ACCESS_KEY_SECRET`.
    pub s3_protocol_secret_access_key: Option<SecretString>,
}

/// `[studio]`: the pages at `/studio`, and who may use them.
#[derive(Debug, Clone)]
pub struct Studio {
    /// Whether they are served. Default true. A hosted project has its own.
    pub enabled: bool,
    /// Whether a server that only this machine reaches makes itself an operator's account. Default false;
    /// `cargo xtask dev` sets it.
    pub local_operator: bool,
}

/// `[realtime]`: the service at `/realtime/v1`, its bounds, and how servers of one project reach each other.
#[derive(Debug, Clone)]
pub struct Realtime {
    /// Whether it is served. Default true. A hosted project has its own.
    pub enabled: bool,
    /// Whether clients can follow changes of the database. Default true.
    pub changes: bool,
    /// NATS between the servers of one project; unset: this server is alone. Environment: `NATS_URL`.
    pub nats_url: Option<SecretString>,
    /// Begins the project's subjects on NATS. Default `longhouse`.
    pub nats_prefix: String,
    /// Most sockets of this server. Default 10 000.
    pub max_connections: usize,
    /// Most channels of one socket. Default 100.
    pub max_channels: usize,
    /// Most joins a second, all sockets together. Default 1 000.
    pub joins_per_second: u32,
    /// Most messages a second from one socket, on average over ten. Default 500.
    pub messages_per_second: u32,
    /// Largest payload of a broadcast or a presence, in bytes. Default 3 MB.
    pub max_payload: usize,
    /// Most presence events a second, all channels together. Default 1 000.
    pub presence_per_second: u32,
    /// Most presence events of one channel of one socket in 30 seconds. Default 50.
    pub presence_per_channel: u32,
    /// Most bytes that wait for one socket; a client that reads more slowly is cut. Default 4 MiB.
    pub max_waiting: usize,
    /// Longest silence of a client. Default 60 s.
    pub idle_timeout: Duration,
}

/// `[gateway]`: model calls, and the service at `/ai/v1`.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Whether it is served. Default true.
    pub enabled: bool,
    /// File with providers, tasks, limits and prices. Unset: `models.toml` of the working folder, if there is one.
    pub models: Option<PathBuf>,
    /// Secret that seals the keys which people bring; the same on every server of a deployment. Unset: made and kept in
    /// the data folder.
    pub master_key: Option<SecretString>,
    /// The one before: what it sealed still opens, while keys rotate.
    pub master_key_previous: Option<SecretString>,
    /// Months of the ledger that stay in `ai.calls`; 0: all. Default 13.
    pub keep_months: u32,
    /// Whether servers that people name with their keys may be on private addresses. Default false.
    pub allow_private_addresses: bool,
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
    /// `TWILIO_API_URL`: REST API. Default `https://api.twilio.com`.
    pub api_url: Url,
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
            auth: Auth::default(),
            mail: Mail::default(),
            providers: Providers { oidc_name: "oidc".into(), ..Providers::default() },
            storage: Storage::default(),
            realtime: Realtime::default(),
            gateway: Gateway::default(),
            studio: Studio::default(),
            openai: OpenAi::default(),
            twilio: Twilio {
                account_sid: None,
                auth_token: None,
                auth_token_previous: None,
                api_url: Url::parse("https://api.twilio.com").expect("constant URL"),
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

impl Default for Auth {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            enabled: true,
            site_url: Url::parse("http://127.0.0.1:3000").expect("constant URL"),
            redirect_urls: Vec::new(),
            disable_signup: false,
            token_expiry: 3600 * second,
            access_token_hook: None,
            email_enabled: true,
            email_autoconfirm: None,
            email_secure_change: true,
            email_max_frequency: second,
            otp_length: 6,
            otp_expiry: 3600 * second,
            phone_enabled: false,
            phone_autoconfirm: false,
            sms_from: None,
            sms_template: "Your code is {{ .Code }}".into(),
            sms_otp_expiry: 60 * second,
            sms_max_frequency: 60 * second,
            sms_test_otps: Vec::new(),
            anonymous_enabled: false,
            manual_linking: false,
            password_min_length: 6,
            password_required_characters: Vec::new(),
            password_hash: PasswordHashing::Bcrypt,
            password_reauthentication: false,
            password_current_required: false,
            session_timebox: None,
            session_inactivity: None,
            single_session: false,
            refresh_token_rotation: true,
            refresh_token_reuse_interval: 10 * second,
            mfa_totp: true,
            mfa_phone: false,
            mfa_webauthn: true,
            mfa_max_factors: 10,
            mfa_challenge_expiry: 300 * second,
            mfa_issuer: "Longhouse".into(),
            passkeys: true,
            webauthn_rp_id: None,
            webauthn_rp_origins: Vec::new(),
            limit_emails_per_hour: 30,
            limit_sms_per_hour: 30,
            limit_otp: 30,
            limit_verify: 30,
            limit_token: 150,
            limit_anonymous: 30,
            limit_mfa: 15,
            limit_failures: 20,
            allow_private_addresses: false,
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            smtp_host: None,
            smtp_port: 587,
            smtp_user: None,
            smtp_password: None,
            from: "noreply@localhost".into(),
            from_name: None,
            ca_file: None,
            templates: None,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            enabled: true,
            folder: None,
            file_size_limit: 5 << 30,
            idle_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10 * 60),
            s3_bucket: None,
            s3_endpoint: None,
            s3_region: "us-east-1".into(),
            s3_prefix: None,
            s3_access_key_id: None,
            s3_secret_access_key: None,
            s3_path_style: true,
            s3_protocol_access_key_id: None,
            s3_protocol_secret_access_key: None,
        }
    }
}

impl Default for Studio {
    fn default() -> Self {
        Self { enabled: true, local_operator: false }
    }
}

impl Default for Realtime {
    fn default() -> Self {
        Self {
            enabled: true,
            changes: true,
            nats_url: None,
            nats_prefix: "longhouse".into(),
            max_connections: 10_000,
            max_channels: 100,
            joins_per_second: 1_000,
            messages_per_second: 500,
            max_payload: 3_000_000,
            presence_per_second: 1_000,
            presence_per_channel: 50,
            max_waiting: 4 << 20,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            enabled: true,
            models: None,
            master_key: None,
            master_key_previous: None,
            keep_months: 13,
            allow_private_addresses: false,
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
