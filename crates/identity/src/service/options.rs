//! How the auth service behaves; made from the `[auth]` section of the settings by the binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// Every choice an operator has. [`AuthOptions::new`] gives Supabase's defaults.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// Where the service is reached from outside, with its path: `https://api.example.com/auth/v1`.
    pub external_url: Url,
    /// The application's own page, where people land who come with no (allowed) `redirect_to`.
    pub site_url: Url,
    /// Patterns of further addresses that people may be sent to: `*` within a path segment or host label, `**` across.
    pub redirect_allow_list: Vec<String>,
    /// Whether nobody may sign up by themselves.
    pub disable_signup: bool,
    /// Life of an access token.
    pub token_expiry: Duration,
    /// Accounts by e-mail.
    pub email: EmailOptions,
    /// Accounts by telephone number.
    pub phone: PhoneOptions,
    /// Whether visitors may get an account without a name.
    pub anonymous: bool,
    /// Whether signed-in people may link further identities by themselves.
    pub manual_linking: bool,
    /// Rules for passwords.
    pub password: PasswordOptions,
    /// Limits of sessions.
    pub sessions: SessionOptions,
    /// Second factors and passkeys.
    pub mfa: MfaOptions,
    /// Sites that people may sign in with, by name (`google`, `github`, `apple`, `azure`, `discord`, or a name of its
    /// own for any OpenID Connect issuer).
    pub providers: BTreeMap<String, ProviderOptions>,
    /// Postgres function `schema.name(event jsonb) returns jsonb` that may change the claims of access tokens.
    pub access_token_hook: Option<String>,
    /// How often things may be asked for.
    pub limits: LimitOptions,
    /// Folder with mail templates that replace the built-in ones.
    pub templates: Option<PathBuf>,
    /// Whether mail that cannot be sent (no server configured) is shown on the mailbox page.
    pub mailbox: bool,
    /// Mail server.
    pub smtp: Option<SmtpOptions>,
    /// Text message service.
    pub sms: Option<TwilioSms>,
    /// Whether providers and avatars may be fetched from private addresses (development and tests).
    pub allow_private_addresses: bool,
}

/// Accounts by e-mail.
#[derive(Debug, Clone)]
pub struct EmailOptions {
    /// Whether people may sign in by e-mail.
    pub enabled: bool,
    /// Whether addresses count as confirmed without a mail.
    pub autoconfirm: bool,
    /// Whether a change of address is confirmed at both addresses.
    pub secure_change: bool,
    /// Digits of a one-time code, 6 to 10.
    pub otp_length: usize,
    /// Life of links and codes.
    pub otp_expiry: Duration,
    /// Shortest time between two mails to one account.
    pub max_frequency: Duration,
}

/// Accounts by telephone number.
#[derive(Debug, Clone)]
pub struct PhoneOptions {
    /// Whether people may sign in by telephone number.
    pub enabled: bool,
    /// Whether numbers count as confirmed without a message.
    pub autoconfirm: bool,
    /// Digits of a one-time code.
    pub otp_length: usize,
    /// Life of a code.
    pub otp_expiry: Duration,
    /// Shortest time between two messages to one account.
    pub max_frequency: Duration,
    /// Text of the message; `{{ .Code }}` stands for the code.
    pub template: String,
    /// Numbers that get no message and always have this code, for reviews of app stores.
    pub test_otps: BTreeMap<String, String>,
}

/// Rules for passwords.
#[derive(Debug, Clone)]
pub struct PasswordOptions {
    /// Shortest allowed, in characters.
    pub min_length: usize,
    /// Sets of characters of each of which at least one is needed.
    pub required_characters: Vec<String>,
    /// How new passwords are hashed.
    pub hash: PasswordHash,
    /// Whether changing it needs a recent sign-in or a nonce sent by mail.
    pub require_reauthentication: bool,
    /// Whether changing it needs the current one, except after a recovery.
    pub require_current_password: bool,
}

/// How new passwords are hashed. Both kinds are always verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordHash {
    /// bcrypt with this cost.
    Bcrypt(u32),
    /// Argon2id with OWASP's parameters.
    Argon2id,
}

/// Limits of sessions.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Longest life of a session, from sign-in.
    pub timebox: Option<Duration>,
    /// Longest time without a refresh.
    pub inactivity: Option<Duration>,
    /// Whether a new sign-in ends the account's other sessions.
    pub single_per_user: bool,
    /// Whether using a refresh token twice ends the session.
    pub rotation: bool,
    /// How long a used refresh token is still answered, because clients race with themselves.
    pub reuse_interval: Duration,
}

/// Second factors and passkeys.
#[derive(Debug, Clone)]
pub struct MfaOptions {
    /// Codes of an authenticator app.
    pub totp: bool,
    /// Codes by text message.
    pub phone: bool,
    /// Security keys as a second factor.
    pub webauthn: bool,
    /// Passkeys instead of a password.
    pub passkeys: bool,
    /// Most factors of one account.
    pub max_factors: usize,
    /// Life of a challenge.
    pub challenge_expiry: Duration,
    /// Name of this service as authenticators show it.
    pub issuer: String,
    /// WebAuthn relying party id (a domain); unset: the host of `site_url`.
    pub rp_id: Option<String>,
    /// Origins of pages that may use security keys; empty: that of `site_url`.
    pub rp_origins: Vec<Url>,
}

/// A site that people may sign in with.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// Client id there, and further ones (of mobile apps) whose ID tokens are accepted.
    pub client_ids: Vec<String>,
    /// Client secret there.
    pub secret: Option<SecretString>,
    /// The issuer (or base address) where it is not the well-known one: a tenant, a GitHub Enterprise host, an OIDC
    /// issuer.
    pub url: Option<Url>,
    /// Callback address registered there; unset: `{external_url}/callback`.
    pub redirect_uri: Option<Url>,
    /// Whether an account may come without an e-mail address.
    pub email_optional: bool,
    /// Whether ID tokens of native apps are accepted without a nonce.
    pub skip_nonce_check: bool,
}

/// Mail server.
#[derive(Debug, Clone)]
pub struct SmtpOptions {
    /// Host name.
    pub host: String,
    /// Port: 465 is TLS from the first byte, others use STARTTLS where offered.
    pub port: u16,
    /// Login, if it needs one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// Address of the sender.
    pub from: String,
    /// Name of the sender.
    pub from_name: Option<String>,
    /// PEM file with a certificate authority that is trusted besides the system's.
    pub ca_certificate: Option<PathBuf>,
}

/// Twilio as text message service.
#[derive(Debug, Clone)]
pub struct TwilioSms {
    /// API address; a test server's or `https://api.twilio.com`.
    pub url: Url,
    /// Account.
    pub account_sid: String,
    /// Its token.
    pub auth_token: SecretString,
    /// Sender: number or messaging service id (`MG…`).
    pub from: String,
}

/// How often things may be asked for, per client address unless said otherwise. Zero: no limit.
#[derive(Debug, Clone)]
pub struct LimitOptions {
    /// Mails an hour, of the whole project.
    pub emails_per_hour: u32,
    /// Text messages an hour, of the whole project.
    pub sms_per_hour: u32,
    /// Sign-ups, one-time codes, recoveries: per 5 minutes.
    pub otp: u32,
    /// Verifications of links and codes: per 5 minutes.
    pub verify: u32,
    /// Refreshes and sign-ins: per 5 minutes.
    pub token: u32,
    /// Anonymous sign-ins: per hour.
    pub anonymous: u32,
    /// Attempts at a second factor: per minute.
    pub mfa: u32,
    /// Failed sign-ins of one account (whoever tries): per 5 minutes.
    pub failures_per_account: u32,
}

impl AuthOptions {
    /// Supabase's defaults for a project at these addresses.
    pub fn new(external_url: Url, site_url: Url) -> Self {
        let second = Duration::from_secs(1);
        Self {
            external_url,
            site_url,
            redirect_allow_list: Vec::new(),
            disable_signup: false,
            token_expiry: 3600 * second,
            email: EmailOptions {
                enabled: true,
                autoconfirm: false,
                secure_change: true,
                otp_length: 6,
                otp_expiry: 3600 * second,
                max_frequency: 60 * second,
            },
            phone: PhoneOptions {
                enabled: false,
                autoconfirm: false,
                otp_length: 6,
                otp_expiry: 60 * second,
                max_frequency: 60 * second,
                template: "Your code is {{ .Code }}".into(),
                test_otps: BTreeMap::new(),
            },
            anonymous: false,
            manual_linking: false,
            password: PasswordOptions {
                min_length: 6,
                required_characters: Vec::new(),
                hash: PasswordHash::Bcrypt(10),
                require_reauthentication: false,
                require_current_password: false,
            },
            sessions: SessionOptions {
                timebox: None,
                inactivity: None,
                single_per_user: false,
                rotation: true,
                reuse_interval: 10 * second,
            },
            mfa: MfaOptions {
                totp: true,
                phone: false,
                webauthn: true,
                passkeys: true,
                max_factors: 10,
                challenge_expiry: 300 * second,
                issuer: "Longhouse".into(),
                rp_id: None,
                rp_origins: Vec::new(),
            },
            providers: BTreeMap::new(),
            access_token_hook: None,
            limits: LimitOptions {
                emails_per_hour: 30,
                sms_per_hour: 30,
                otp: 30,
                verify: 30,
                token: 150,
                anonymous: 30,
                mfa: 15,
                failures_per_account: 20,
            },
            templates: None,
            mailbox: true,
            smtp: None,
            sms: None,
            allow_private_addresses: false,
        }
    }
}
