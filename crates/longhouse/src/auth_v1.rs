//! `/auth/v1`: the auth service of the server, as the settings want it.

use std::net::SocketAddr;

use longhouse_config::{Config, PasswordHashing};
use longhouse_database::Database;
use longhouse_identity::Verifier;
use longhouse_identity::service::{
    AuthOptions, AuthService, EmailOptions, LimitOptions, MfaOptions, PasswordHash, PasswordOptions,
    PhoneOptions, ProviderOptions, SessionOptions, Signer, SmtpOptions, TwilioSms, check_mail_templates,
};
use longhouse_server::Drain;
use miette::{IntoDiagnostic, WrapErr};
use tokio::task::JoinHandle;
use url::Url;

/// Where it is served.
pub(crate) const PATH: &str = "/auth/v1";

/// The bcrypt cost that Supabase uses.
const BCRYPT_COST: u32 = 10;

/// A running service and the task that sends its mail, which ends when the process drains.
pub(crate) struct AuthV1 {
    pub(crate) service: AuthService,
    pub(crate) mailing: JoinHandle<()>,
}

/// The service, unless it is switched off or a hosted project has its own.
pub(crate) fn start(
    config: &Config,
    database: &Database,
    address: SocketAddr,
    verifier: Verifier,
    signer: Signer,
    drain: &Drain,
) -> miette::Result<Option<AuthV1>> {
    if !serves(config) {
        return Ok(None);
    }
    if let Some(folder) = &config.mail.templates {
        let checked = check_mail_templates(folder).into_diagnostic();
        checked.wrap_err_with(|| format!("reading the mail templates in {}", folder.display()))?;
    }
    let service = AuthService::new(options(config, address), database.clone(), verifier, signer);
    let mailing = tokio::spawn(service.clone().run_mail(drain.clone()));
    Ok(Some(AuthV1 { service, mailing }))
}

/// Whether the service runs here.
fn serves(config: &Config) -> bool {
    config.auth.enabled && config.supabase.url.is_none()
}

/// Whether mail is shown on a page instead of being sent.
pub(crate) fn has_mailbox(config: &Config) -> bool {
    serves(config) && config.mail.smtp_host.is_none()
}

fn options(config: &Config, address: SocketAddr) -> AuthOptions {
    let (auth, mail) = (&config.auth, &config.mail);
    let local = || Url::parse(&format!("http://{address}")).expect("an address makes a URL");
    let public = config.server.public_url.clone().unwrap_or_else(local);
    let external = public.join(PATH).expect("a constant path joins any web origin");
    // Without a mail server nobody could confirm anything; for the outside world that must be decided knowingly.
    let alone =
        mail.smtp_host.is_none() && config.server.host.is_loopback() && config.server.public_url.is_none();
    AuthOptions {
        redirect_allow_list: redirects(config, address, &public),
        disable_signup: auth.disable_signup,
        token_expiry: auth.token_expiry,
        email: EmailOptions {
            enabled: auth.email_enabled,
            autoconfirm: auth.email_autoconfirm.unwrap_or(alone),
            secure_change: auth.email_secure_change,
            otp_length: auth.otp_length,
            otp_expiry: auth.otp_expiry,
            max_frequency: auth.email_max_frequency,
        },
        phone: PhoneOptions {
            enabled: auth.phone_enabled,
            autoconfirm: auth.phone_autoconfirm,
            otp_length: auth.otp_length,
            otp_expiry: auth.sms_otp_expiry,
            max_frequency: auth.sms_max_frequency,
            template: auth.sms_template.clone(),
            test_otps: auth.sms_test_otps.iter().cloned().collect(),
        },
        anonymous: auth.anonymous_enabled,
        manual_linking: auth.manual_linking,
        password: PasswordOptions {
            min_length: auth.password_min_length,
            required_characters: auth.password_required_characters.clone(),
            hash: match auth.password_hash {
                PasswordHashing::Bcrypt => PasswordHash::Bcrypt(BCRYPT_COST),
                PasswordHashing::Argon2id => PasswordHash::Argon2id,
            },
            require_reauthentication: auth.password_reauthentication,
            require_current_password: auth.password_current_required,
        },
        sessions: SessionOptions {
            timebox: auth.session_timebox,
            inactivity: auth.session_inactivity,
            single_per_user: auth.single_session,
            rotation: auth.refresh_token_rotation,
            reuse_interval: auth.refresh_token_reuse_interval,
        },
        mfa: MfaOptions {
            totp: auth.mfa_totp,
            phone: auth.mfa_phone,
            webauthn: auth.mfa_webauthn,
            passkeys: auth.passkeys,
            max_factors: auth.mfa_max_factors,
            challenge_expiry: auth.mfa_challenge_expiry,
            issuer: auth.mfa_issuer.clone(),
            rp_id: auth.webauthn_rp_id.clone(),
            rp_origins: auth.webauthn_rp_origins.clone(),
        },
        providers: providers(config).collect(),
        access_token_hook: auth.access_token_hook.clone(),
        limits: LimitOptions {
            emails_per_hour: auth.limit_emails_per_hour,
            sms_per_hour: auth.limit_sms_per_hour,
            otp: auth.limit_otp,
            verify: auth.limit_verify,
            token: auth.limit_token,
            anonymous: auth.limit_anonymous,
            mfa: auth.limit_mfa,
            failures_per_account: auth.limit_failures,
        },
        templates: mail.templates.clone(),
        mailbox: has_mailbox(config),
        smtp: smtp(config),
        sms: sms(config),
        allow_private_addresses: auth.allow_private_addresses,
        ..AuthOptions::new(external, auth.site_url.clone())
    }
}

/// Where links in mails may lead: where the settings say, and to the Studio, by whichever name of this machine somebody
/// has opened it.
fn redirects(config: &Config, address: SocketAddr, public: &Url) -> Vec<String> {
    let mut allowed = config.auth.redirect_urls.clone();
    if config.studio.enabled {
        let mut origins = vec![public.origin().ascii_serialization()];
        if config.server.public_url.is_none() && address.ip().is_loopback() {
            origins.push(format!("http://localhost:{}", address.port()));
        }
        allowed.extend(
            origins.iter().flat_map(|origin| ["/studio", "/studio/**"].map(|path| format!("{origin}{path}"))),
        );
    }
    allowed
}

fn providers(config: &Config) -> impl Iterator<Item = (String, ProviderOptions)> {
    let of = &config.providers;
    [
        ("google", &of.google_client_id, &of.google_secret, &of.google_url),
        ("github", &of.github_client_id, &of.github_secret, &of.github_url),
        ("apple", &of.apple_client_id, &of.apple_secret, &of.apple_url),
        ("azure", &of.azure_client_id, &of.azure_secret, &of.azure_url),
        ("discord", &of.discord_client_id, &of.discord_secret, &of.discord_url),
        (of.oidc_name.as_str(), &of.oidc_client_id, &of.oidc_secret, &of.oidc_url),
    ]
    .into_iter()
    .filter(|(_, client_ids, ..)| !client_ids.is_empty())
    .map(|(name, client_ids, secret, url)| {
        let options = ProviderOptions {
            client_ids: client_ids.clone(),
            secret: secret.clone(),
            url: url.clone(),
            redirect_uri: None,
            email_optional: false,
            skip_nonce_check: false,
        };
        (name.to_owned(), options)
    })
}

fn smtp(config: &Config) -> Option<SmtpOptions> {
    let mail = &config.mail;
    Some(SmtpOptions {
        host: mail.smtp_host.clone()?,
        port: mail.smtp_port,
        user: mail.smtp_user.clone(),
        password: mail.smtp_password.clone(),
        from: mail.from.clone(),
        from_name: mail.from_name.clone(),
        ca_certificate: mail.ca_file.clone(),
    })
}

fn sms(config: &Config) -> Option<TwilioSms> {
    Some(TwilioSms {
        url: config.twilio.api_url.clone(),
        account_sid: config.twilio.account_sid.clone()?,
        auth_token: config.twilio.auth_token.clone()?,
        from: config.auth.sms_from.clone()?,
    })
}
