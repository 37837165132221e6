//! The table of keys. Reading, showing, documentation and the completeness test all come from it.

use crate::error::Problem;
use crate::forms::*;
use crate::settings::Config;

/// One key of the configuration.
pub(crate) struct Key {
    /// `section.name`, or the name alone at the top level.
    pub(crate) name: &'static str,
    /// Environment variables besides `LONGHOUSE_<SECTION>__<KEY>`, which goes before them; the first that is set counts.
    pub(crate) env: &'static [&'static str],
    pub(crate) wanted: fn() -> String,
    pub(crate) meaning: &'static str,
    /// What happens when it is unset, for keys without a default value.
    pub(crate) unset: &'static str,
    pub(crate) set: fn(&mut Config, &Raw) -> Result<(), Problem>,
    pub(crate) show: fn(&Config) -> Option<String>,
}

impl Key {
    pub(crate) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// `LONGHOUSE_SERVER__PORT` for `server.port`.
    pub(crate) fn own_variable(&self) -> String {
        format!("LONGHOUSE_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }

    /// The command-line flag by which people know this key, where there is one.
    pub(crate) fn flag(&self) -> Option<&'static str> {
        match self.name {
            "data" => Some("--data"),
            "server.host" => Some("--host"),
            "server.port" => Some("--port"),
            "offline" => Some("--no-offline"),
            _ => None,
        }
    }
}

/// Sections in the order of the documentation, with what each is about.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("", "Keys before the first section."),
    ("server", "The HTTP listener and its limits."),
    ("database", "An external Postgres (14 to 18), or how to run the managed one."),
    ("supabase", "A hosted Supabase project, where one is used, and the keys of this server."),
    ("auth", "Accounts, sessions and second factors: the service at `/auth/v1`."),
    ("mail", "How the auth service sends mail."),
    ("providers", "Sites that people may sign in with."),
    ("storage", "Files: the service at `/storage/v1`, and where it keeps bytes."),
    ("realtime", "Channels: the service at `/realtime/v1`, its bounds, and other servers of the project."),
    ("gateway", "Model calls: the service at `/ai/v1` (see models.md)."),
    ("studio", "The pages at `/studio`, and who may use them."),
    ("openai", "Speech-to-speech and transcription."),
    ("twilio", "Phone calls."),
    ("receptionist", "The phone receptionist."),
    ("log", "What is logged, and how it looks."),
];

macro_rules! key {
    ($first:ident $(. $second:ident)?, $form:ty, [$($env:literal),*], $meaning:literal $(, unset: $unset:literal)?) => {
        Key {
            name: concat!(stringify!($first) $(, ".", stringify!($second))?),
            env: &[$($env),*],
            wanted: <$form>::wanted,
            meaning: $meaning,
            unset: concat!("" $(, $unset)?),
            set: |config, raw| {
                config.$first$(.$second)? = <$form>::read(raw)?;
                Ok(())
            },
            show: |config| <$form>::show(&config.$first$(.$second)?),
        }
    };
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1024;
const GIB: u64 = 1024 * 1024 * KIB;

pub(crate) static KEYS: &[Key] = &[
    key!(data, Path, [], "Folder for the managed cluster, local files, keys and run state."),
    key!(
        offline,
        OfflineMode,
        [],
        "Whether emulators stand in for providers: for each without a key (OpenAI only together with Twilio), for all, or for none."
    ),
    key!(server.host, Ip, [], "Address to listen on; `0.0.0.0` in a container."),
    key!(server.port, Port, ["PORT"], "Port to listen on; 0 takes a free one."),
    key!(
        server.public_url,
        Optional<WebOrigin>,
        [],
        "Origin under which the outside world reaches this server. Webhook signatures are checked against it.",
        unset: "taken from each request's `Host`"
    ),
    key!(server.cors_origins, List<CorsOrigin>, [], "Origins allowed by CORS; `*` alone allows any."),
    key!(server.body_limit, Size<KIB, GIB>, [], "Largest request body outside of uploads."),
    key!(
        server.request_timeout,
        Time<SECOND, HOUR>,
        [],
        "Longest time a plain request may take; sockets have no limit."
    ),
    key!(
        server.drain_timeout,
        Time<0, HOUR>,
        [],
        "How long SIGTERM waits for calls to end by themselves before it hands them over. Keep it below what the platform allows (30 s on Render, Railway and Kubernetes)."
    ),
    key!(
        server.rate_limit_per_second,
        Count<u32, 0, 1_000_000>,
        [],
        "Requests a second that one client address may make, on average; 0 turns the limit off."
    ),
    key!(server.rate_limit_burst, Count<u32, 1, 1_000_000>, [], "Requests that one client address may make at once."),
    key!(
        server.trusted_proxies,
        List<Ip>,
        [],
        "Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.",
        unset: "none"
    ),
    key!(
        database.url,
        Optional<DatabaseUrl>,
        ["DATABASE_URL"],
        "External Postgres.",
        unset: "Longhouse runs its own cluster in the data folder"
    ),
    key!(database.port, Optional<Port>, [], "Port of the managed cluster.", unset: "54322, or the next free one"),
    key!(
        database.bin_dir,
        Optional<Path>,
        [],
        "Folder with `initdb` and `postgres`.",
        unset: "found on `PATH` or in the usual folders, else downloaded"
    ),
    key!(database.pool_size, Count<usize, 1, 500>, [], "Connections in the request pool."),
    key!(database.pool_timeout, Time<1, { 5 * MINUTE }>, [], "Longest wait for a connection from the pool."),
    key!(
        database.ca_file,
        Optional<Path>,
        [],
        "PEM file of certificate authorities to trust besides the system's.",
        unset: "the system's alone"
    ),
    key!(database.migrations, Path, [], "Folder of the project's migrations."),
    key!(database.seed, Path, [], "File that `longhouse db reset` loads after the migrations."),
    key!(
        supabase.url,
        Optional<WebOrigin>,
        ["SUPABASE_URL"],
        "Address of a hosted project. With it go its two keys and `database.url`.",
        unset: "everything runs here"
    ),
    key!(
        supabase.anon_key,
        Optional<ApiKey>,
        ["SUPABASE_ANON_KEY"],
        "Public key of clients (`anon` or publishable).",
        unset: "generated, kept in the data folder"
    ),
    key!(
        supabase.service_role_key,
        Optional<ApiKey>,
        ["SUPABASE_SERVICE_ROLE_KEY", "SERVICE_ROLE_KEY"],
        "Key that bypasses row-level security (`service_role` or secret).",
        unset: "generated, kept in the data folder"
    ),
    key!(
        supabase.jwt_secret,
        Optional<Secret<32>>,
        ["SUPABASE_JWT_SECRET"],
        "Secret that signs access tokens.",
        unset: "generated, kept in the data folder"
    ),
    key!(
        auth.enabled,
        Flag,
        [],
        "Whether `/auth/v1` is served; never with `supabase.url`, which has its own."
    ),
    key!(
        auth.site_url,
        PageUrl,
        ["SITE_URL", "GOTRUE_SITE_URL"],
        "The application's page: where links in mails lead that ask for no (allowed) address."
    ),
    key!(
        auth.redirect_urls,
        List<PagePattern>,
        ["GOTRUE_URI_ALLOW_LIST"],
        "Further addresses that people may be sent to after signing in.",
        unset: "only `auth.site_url` and pages below it"
    ),
    key!(auth.disable_signup, Flag, ["GOTRUE_DISABLE_SIGNUP"], "Whether nobody may sign up by themselves."),
    key!(auth.token_expiry, Time<{ 10 * SECOND }, { 7 * DAY }>, [], "Life of an access token."),
    key!(
        auth.access_token_hook,
        Optional<FunctionName>,
        ["GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI"],
        "Function `(event jsonb) returns jsonb` that may change the claims of access tokens.",
        unset: "none"
    ),
    key!(auth.email_enabled, Flag, ["GOTRUE_EXTERNAL_EMAIL_ENABLED"], "Sign-in by e-mail."),
    key!(
        auth.email_autoconfirm,
        Optional<Flag>,
        ["GOTRUE_MAILER_AUTOCONFIRM"],
        "Whether addresses count as confirmed without a mail.",
        unset: "true while `mail.smtp_host` is unset and only this machine is served"
    ),
    key!(
        auth.email_secure_change,
        Flag,
        ["GOTRUE_MAILER_SECURE_EMAIL_CHANGE_ENABLED"],
        "Whether a change of address is confirmed at the old and the new one."
    ),
    key!(auth.email_max_frequency, Time<0, DAY>, ["GOTRUE_SMTP_MAX_FREQUENCY"], "Shortest time between two mails to one account."),
    key!(auth.otp_length, Count<usize, 6, 10>, [], "Digits of a one-time code."),
    key!(auth.otp_expiry, Time<{ 10 * SECOND }, DAY>, [], "Life of links and codes sent by mail."),
    key!(
        auth.phone_enabled,
        Flag,
        ["GOTRUE_EXTERNAL_PHONE_ENABLED"],
        "Sign-in by telephone number (sent with the account in `[twilio]`)."
    ),
    key!(
        auth.phone_autoconfirm,
        Flag,
        ["GOTRUE_SMS_AUTOCONFIRM"],
        "Whether numbers count as confirmed without a message."
    ),
    key!(
        auth.sms_from,
        Optional<Name>,
        [],
        "Sender of text messages: a number, or the id of a messaging service.",
        unset: "no text messages"
    ),
    key!(
        auth.sms_template,
        Line,
        ["GOTRUE_SMS_TEMPLATE"],
        "Text of the message; `{{ .Code }}` stands for the code."
    ),
    key!(auth.sms_otp_expiry, Time<{ 10 * SECOND }, HOUR>, [], "Life of a code sent by text message."),
    key!(auth.sms_max_frequency, Time<0, DAY>, ["GOTRUE_SMS_MAX_FREQUENCY"], "Shortest time between two text messages to one account."),
    key!(
        auth.sms_test_otps,
        List<TestOtp>,
        ["GOTRUE_SMS_TEST_OTP"],
        "Numbers that get no message and always have this code, for the reviews of app stores.",
        unset: "none"
    ),
    key!(
        auth.anonymous_enabled,
        Flag,
        ["GOTRUE_EXTERNAL_ANONYMOUS_USERS_ENABLED"],
        "Whether visitors may get an account without a name."
    ),
    key!(
        auth.manual_linking,
        Flag,
        ["GOTRUE_SECURITY_MANUAL_LINKING_ENABLED"],
        "Whether people may link further identities to their account."
    ),
    key!(auth.password_min_length, Count<usize, 6, 64>, ["GOTRUE_PASSWORD_MIN_LENGTH"], "Shortest password, in characters."),
    key!(
        auth.password_required_characters,
        List<Line>,
        [],
        "Sets of characters; a password needs at least one of each.",
        unset: "none"
    ),
    key!(auth.password_hash, Hashing, [], "How new passwords are hashed; both kinds are always accepted."),
    key!(
        auth.password_reauthentication,
        Flag,
        ["GOTRUE_SECURITY_UPDATE_PASSWORD_REQUIRE_REAUTHENTICATION"],
        "Whether a new password needs a sign-in within the last day, or a code sent by mail."
    ),
    key!(
        auth.password_current_required,
        Flag,
        ["GOTRUE_SECURITY_UPDATE_PASSWORD_REQUIRE_CURRENT_PASSWORD"],
        "Whether a new password needs the current one."
    ),
    key!(
        auth.session_timebox,
        Optional<Time<MINUTE, { 365 * DAY }>>,
        ["GOTRUE_SESSIONS_TIMEBOX"],
        "Longest life of a session.",
        unset: "no end"
    ),
    key!(
        auth.session_inactivity,
        Optional<Time<MINUTE, { 365 * DAY }>>,
        ["GOTRUE_SESSIONS_INACTIVITY_TIMEOUT"],
        "Longest time a session goes without a refresh.",
        unset: "no end"
    ),
    key!(
        auth.single_session,
        Flag,
        ["GOTRUE_SESSIONS_SINGLE_PER_USER"],
        "Whether a sign-in ends the account's other sessions."
    ),
    key!(
        auth.refresh_token_rotation,
        Flag,
        ["GOTRUE_SECURITY_REFRESH_TOKEN_ROTATION_ENABLED"],
        "Whether using a refresh token twice ends its session."
    ),
    key!(
        auth.refresh_token_reuse_interval,
        Time<0, HOUR>,
        [],
        "How long a used refresh token is still answered, because clients race with themselves."
    ),
    key!(auth.mfa_totp, Flag, [], "Authenticator apps as second factor."),
    key!(auth.mfa_phone, Flag, [], "Text messages as second factor."),
    key!(auth.mfa_webauthn, Flag, [], "Security keys as second factor."),
    key!(auth.mfa_max_factors, Count<usize, 1, 100>, [], "Most factors of one account."),
    key!(auth.mfa_challenge_expiry, Time<{ 10 * SECOND }, HOUR>, [], "Life of a challenge."),
    key!(auth.mfa_issuer, Line, [], "Name of the service that authenticators show."),
    key!(auth.passkeys, Flag, [], "Passkeys instead of a password."),
    key!(
        auth.webauthn_rp_id,
        Optional<Name>,
        [],
        "Domain that security keys belong to.",
        unset: "the host of `auth.site_url`"
    ),
    key!(
        auth.webauthn_rp_origins,
        List<WebOrigin>,
        [],
        "Origins of pages that may use security keys.",
        unset: "that of `auth.site_url`"
    ),
    key!(auth.limit_emails_per_hour, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_EMAIL_SENT"], "Mails an hour, of the whole project; 0 turns a limit off."),
    key!(auth.limit_sms_per_hour, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_SMS_SENT"], "Text messages an hour, of the whole project."),
    key!(auth.limit_otp, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_OTP"], "Sign-ups, codes and recoveries from one address in five minutes."),
    key!(auth.limit_verify, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_VERIFY"], "Verifications from one address in five minutes."),
    key!(auth.limit_token, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_TOKEN_REFRESH"], "Sign-ins and refreshes from one address in five minutes."),
    key!(auth.limit_anonymous, Count<u32, 0, 1_000_000>, ["GOTRUE_RATE_LIMIT_ANONYMOUS_USERS"], "Anonymous sign-ins from one address in an hour."),
    key!(auth.limit_mfa, Count<u32, 0, 1_000_000>, [], "Attempts at a second factor in a minute."),
    key!(auth.limit_failures, Count<u32, 0, 1_000_000>, [], "Failed sign-ins of one account in five minutes, whoever tries."),
    key!(
        auth.allow_private_addresses,
        Flag,
        [],
        "Whether providers may be on private addresses; for development."
    ),
    key!(
        mail.smtp_host,
        Optional<Name>,
        ["SMTP_HOST", "GOTRUE_SMTP_HOST"],
        "Mail server.",
        unset: "mail is shown on the mailbox page instead"
    ),
    key!(
        mail.smtp_port,
        Port,
        ["SMTP_PORT", "GOTRUE_SMTP_PORT"],
        "Its port; 465 is TLS at once, on others STARTTLS is used where offered."
    ),
    key!(mail.smtp_user, Optional<Name>, ["SMTP_USER", "GOTRUE_SMTP_USER"], "Login at the mail server.", unset: "none"),
    key!(mail.smtp_password, Optional<Secret<1>>, ["SMTP_PASSWORD", "GOTRUE_SMTP_PASS"], "Password at the mail server.", unset: "none"),
    key!(mail.from, Name, ["SMTP_FROM", "GOTRUE_SMTP_ADMIN_EMAIL"], "Address of the sender."),
    key!(mail.from_name, Optional<Line>, ["GOTRUE_SMTP_SENDER_NAME"], "Name of the sender.", unset: "the address alone"),
    key!(
        mail.ca_file,
        Optional<Path>,
        [],
        "PEM file of a certificate authority to trust besides the system's.",
        unset: "the system's alone"
    ),
    key!(
        mail.templates,
        Optional<Path>,
        [],
        "Folder with `confirmation.html`, `recovery.html`, `magic_link.html`, `invite.html`, `email_change.html`, `reauthentication.html`.",
        unset: "the built-in texts"
    ),
    key!(
        providers.google_client_id,
        List<Name>,
        ["GOTRUE_EXTERNAL_GOOGLE_CLIENT_ID"],
        "Google client ids; the first is for pages, ID tokens for the others are accepted too.",
        unset: "not offered"
    ),
    key!(
        providers.google_secret,
        Optional<ApiKey>,
        ["GOTRUE_EXTERNAL_GOOGLE_SECRET"],
        "Google client secret.",
        unset: "none"
    ),
    key!(
        providers.google_url,
        Optional<ServiceUrl>,
        ["GOTRUE_EXTERNAL_GOOGLE_URL"],
        "Where Google is, if not at the usual place: its issuer.",
        unset: "the usual place"
    ),
    key!(
        providers.github_client_id,
        List<Name>,
        ["GOTRUE_EXTERNAL_GITHUB_CLIENT_ID"],
        "GitHub client ids; the first is for pages, ID tokens for the others are accepted too.",
        unset: "not offered"
    ),
    key!(
        providers.github_secret,
        Optional<ApiKey>,
        ["GOTRUE_EXTERNAL_GITHUB_SECRET"],
        "GitHub client secret.",
        unset: "none"
    ),
    key!(
        providers.github_url,
        Optional<ServiceUrl>,
        ["GOTRUE_EXTERNAL_GITHUB_URL"],
        "Where GitHub is, if not at the usual place: a GitHub Enterprise host.",
        unset: "the usual place"
    ),
    key!(
        providers.apple_client_id,
        List<Name>,
        ["GOTRUE_EXTERNAL_APPLE_CLIENT_ID"],
        "Apple client ids; the first is for pages, ID tokens for the others are accepted too.",
        unset: "not offered"
    ),
    key!(
        providers.apple_secret,
        Optional<ApiKey>,
        ["GOTRUE_EXTERNAL_APPLE_SECRET"],
        "Apple client secret.",
        unset: "none"
    ),
    key!(
        providers.apple_url,
        Optional<ServiceUrl>,
        ["GOTRUE_EXTERNAL_APPLE_URL"],
        "Where Apple is, if not at the usual place: its issuer.",
        unset: "the usual place"
    ),
    key!(
        providers.azure_client_id,
        List<Name>,
        ["GOTRUE_EXTERNAL_AZURE_CLIENT_ID"],
        "Azure client ids; the first is for pages, ID tokens for the others are accepted too.",
        unset: "not offered"
    ),
    key!(
        providers.azure_secret,
        Optional<ApiKey>,
        ["GOTRUE_EXTERNAL_AZURE_SECRET"],
        "Azure client secret.",
        unset: "none"
    ),
    key!(
        providers.azure_url,
        Optional<ServiceUrl>,
        ["GOTRUE_EXTERNAL_AZURE_URL"],
        "Where Azure is, if not at the usual place: a tenant: `https://login.microsoftonline.com/TENANT`.",
        unset: "the usual place"
    ),
    key!(
        providers.discord_client_id,
        List<Name>,
        ["GOTRUE_EXTERNAL_DISCORD_CLIENT_ID"],
        "Discord client ids; the first is for pages, ID tokens for the others are accepted too.",
        unset: "not offered"
    ),
    key!(
        providers.discord_secret,
        Optional<ApiKey>,
        ["GOTRUE_EXTERNAL_DISCORD_SECRET"],
        "Discord client secret.",
        unset: "none"
    ),
    key!(
        providers.discord_url,
        Optional<ServiceUrl>,
        ["GOTRUE_EXTERNAL_DISCORD_URL"],
        "Where Discord is, if not at the usual place: its address.",
        unset: "the usual place"
    ),
    key!(
        providers.oidc_name,
        Name,
        [],
        "Name under which an OpenID Connect issuer is offered (`?provider=NAME`)."
    ),
    key!(
        providers.oidc_client_id,
        List<Name>,
        [],
        "Client ids at the OpenID Connect issuer.",
        unset: "not offered"
    ),
    key!(providers.oidc_secret, Optional<ApiKey>, [], "Client secret at the OpenID Connect issuer.", unset: "none"),
    key!(
        providers.oidc_url,
        Optional<ServiceUrl>,
        [],
        "Issuer; its endpoints are found by discovery.",
        unset: "not offered"
    ),
    key!(storage.enabled, Flag, [], "Whether it is served. A hosted project has its own."),
    key!(
        storage.folder,
        Optional<Path>,
        [],
        "Folder of the bytes; several servers of one project must share it. Not used with a bucket.",
        unset: "`storage` in the data folder"
    ),
    key!(
        storage.file_size_limit,
        Size<KIB, { 5 * 1024 * GIB }>,
        [],
        "Largest file of any bucket; buckets may want less."
    ),
    key!(storage.idle_timeout, Time<SECOND, HOUR>, [], "Longest wait for the next piece of an upload."),
    key!(
        storage.grace,
        Time<0, { 24 * HOUR }>,
        [],
        "How long bytes stay after their object is gone, for downloads in progress."
    ),
    key!(
        storage.s3_bucket,
        Optional<Name>,
        [],
        "Bucket of an S3-compatible store that holds the bytes instead of the folder.",
        unset: "the folder holds them"
    ),
    key!(
        storage.s3_endpoint,
        Optional<WebOrigin>,
        ["AWS_ENDPOINT_URL_S3"],
        "Address of that store.",
        unset: "AWS"
    ),
    key!(storage.s3_region, Name, ["AWS_REGION"], "Region of that store."),
    key!(
        storage.s3_prefix,
        Optional<Name>,
        [],
        "Folder within the bucket, where others use it too.",
        unset: "none"
    ),
    key!(
        storage.s3_access_key_id,
        Optional<ApiKey>,
        ["AWS_ACCESS_KEY_ID"],
        "Access key of that store.",
        unset: "the role of the machine"
    ),
    key!(
        storage.s3_secret_access_key,
        Optional<ApiKey>,
        ["AWS_SECRET_ACCESS_KEY"],
        "Its secret.",
        unset: "the role of the machine"
    ),
    key!(
        storage.s3_path_style,
        Flag,
        [],
        "Whether the bucket stands in the path (`https://host/bucket/…`), as stores other than AWS want it."
    ),
    key!(
        storage.s3_protocol_access_key_id,
        Optional<ApiKey>,
        ["S3_PROTOCOL_ACCESS_KEY_ID"],
        "Access key with which S3 clients reach every object at `/storage/v1/s3`, past policies: choose one.",
        unset: "sessions of users alone"
    ),
    key!(
        storage.s3_protocol_secret_access_key,
        Optional<ApiKey>,
        ["S3_PROTOCOL_ACCESS_KEY_SECRET"],
        "Its secret: choose 40 random characters.",
        unset: "sessions of users alone"
    ),
    key!(realtime.enabled, Flag, [], "Whether it is served. A hosted project has its own."),
    key!(
        realtime.changes,
        Flag,
        [],
        "Whether clients can follow changes of the database; an external one needs `wal_level=logical`."
    ),
    key!(
        realtime.nats_url,
        Optional<ApiKey>,
        ["NATS_URL"],
        "NATS between the servers of one project: `nats://user:password@host:4222`, several joined by commas.",
        unset: "this server is alone"
    ),
    key!(realtime.nats_prefix, Name, [], "Begins the subjects on NATS, where several projects share it."),
    key!(
        realtime.max_connections,
        Count<usize, 1, 1_000_000>,
        [],
        "Most sockets of this server; further ones are answered 429."
    ),
    key!(realtime.max_channels, Count<usize, 1, 10_000>, [], "Most channels of one socket."),
    key!(
        realtime.joins_per_second,
        Count<u32, 1, 1_000_000>,
        [],
        "Most joins a second, all sockets of this server together."
    ),
    key!(
        realtime.messages_per_second,
        Count<u32, 1, 100_000>,
        [],
        "Most messages a second from one socket, on average over ten, and in one batch by HTTP."
    ),
    key!(realtime.max_payload, Size<KIB, { GIB / 16 }>, [], "Largest payload of a broadcast or a presence."),
    key!(
        realtime.presence_per_second,
        Count<u32, 1, 1_000_000>,
        [],
        "Most presence events a second, all channels of this server together."
    ),
    key!(
        realtime.presence_per_channel,
        Count<u32, 1, 1_000_000>,
        [],
        "Most presence events of one channel of one socket in 30 seconds."
    ),
    key!(
        realtime.max_waiting,
        Size<{ 64 * KIB }, GIB>,
        [],
        "Most bytes that wait for one socket; a client that reads more slowly is cut."
    ),
    key!(
        realtime.idle_timeout,
        Time<{ 10 * SECOND }, HOUR>,
        [],
        "Longest silence of a client; clients send a heartbeat every 25 seconds."
    ),
    key!(gateway.enabled, Flag, [], "Whether it is served."),
    key!(
        gateway.models,
        Optional<Path>,
        [],
        "File with providers, tasks, limits and prices.",
        unset: "`models.toml` of the working folder, if there is one"
    ),
    key!(
        gateway.master_key,
        Optional<Secret<32>>,
        [],
        "Secret that seals the keys which people bring; the same on every server of a deployment.",
        unset: "made once and kept in the data folder, in `gateway.key`"
    ),
    key!(
        gateway.master_key_previous,
        Optional<Secret<32>>,
        [],
        "What it sealed still opens, while the master key rotates.",
        unset: "one master key"
    ),
    key!(
        gateway.keep_months,
        Count<u32, 0, 1200>,
        [],
        "Months of the ledger that stay in `ai.calls`; older ones move to the schema `ai_archive`. 0 keeps all."
    ),
    key!(
        gateway.allow_private_addresses,
        Flag,
        [],
        "Whether servers that people name with their keys may be on private addresses; for development."
    ),
    key!(studio.enabled, Flag, [], "Whether they are served. A hosted project has its own."),
    key!(
        studio.local_operator,
        Flag,
        [],
        "Whether a server that only this machine reaches makes an operator's account for itself, and keeps its password in `operator.json` of the data folder. `cargo xtask dev` sets it."
    ),
    key!(
        openai.api_key,
        Optional<ApiKey>,
        ["OPENAI_API_KEY"],
        "Key of the OpenAI account.",
        unset: "emulated where Twilio is too; for real callers unavailable (`/ready` says degraded)"
    ),
    key!(openai.realtime_url, RealtimeUrl, [], "Realtime endpoint."),
    key!(openai.realtime_model, Name, [], "Speech-to-speech model."),
    key!(openai.transcription_model, Name, [], "Model that writes down what callers say."),
    key!(
        openai.session_cap,
        Time<SECOND, HOUR>,
        [],
        "Longest life of one realtime session; a new one takes over before it ends."
    ),
    key!(
        twilio.account_sid,
        Optional<AccountSid>,
        ["TWILIO_ACCOUNT_SID"],
        "Account that owns the numbers.",
        unset: "not needed to answer calls"
    ),
    key!(
        twilio.auth_token,
        Optional<ApiKey>,
        ["TWILIO_AUTH_TOKEN"],
        "Token that signs webhooks.",
        unset: "generated for the emulators; without those, webhooks are refused"
    ),
    key!(
        twilio.auth_token_previous,
        Optional<ApiKey>,
        ["TWILIO_AUTH_TOKEN_PREVIOUS"],
        "Also accepted while tokens rotate.",
        unset: "one token"
    ),
    key!(twilio.api_url, ServiceUrl, ["TWILIO_API_URL"], "REST API, for text messages."),
    key!(
        twilio.stream_url,
        Optional<StreamUrl>,
        ["TWILIO_STREAM_URL"],
        "Address of the media stream, when another host serves it.",
        unset: "this server"
    ),
    key!(receptionist.enabled, Flag, [], "Whether the application is served."),
    key!(
        receptionist.max_calls,
        Count<usize, 1, 100_000>,
        [],
        "Calls at once in this process; above it callers are forwarded or told that the lines are busy."
    ),
    key!(receptionist.max_call_duration, Time<MINUTE, { 24 * HOUR }>, [], "Longest call."),
    key!(
        receptionist.start_timeout,
        Time<100, MINUTE>,
        [],
        "Longest wait for Twilio's `start` message after the socket opens."
    ),
    key!(receptionist.tool_timeout, Time<100, MINUTE>, [], "Longest run of one tool."),
    key!(
        receptionist.stream_secret,
        Optional<Secret<32>>,
        [],
        "Secret behind the one-time stream tokens; the same on every server of a deployment.",
        unset: "derived from the JWT secret"
    ),
    key!(
        log.filter,
        LogFilter,
        ["LONGHOUSE_LOG", "RUST_LOG"],
        "`tracing` filter, e.g. `info,longhouse_voice=debug`."
    ),
    key!(
        log.format,
        LogLook,
        [],
        "Look of a line: readable on a terminal and JSON elsewhere, or always one."
    ),
];

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The candidate most like what was typed, when it is alike enough to propose.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(typed, candidate);
    let best = candidates.min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= (typed.chars().count() / 3).max(2)).then_some(best)
}

#[cfg(test)]
mod tests;
