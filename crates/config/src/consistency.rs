//! Checks between settings: each is fine alone, together they are not.

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Mistake, Problem};
use crate::load::{Origin, Origins};
use crate::settings::{Config, Offline};

/// Judges the whole. A key in `refused` was given but is broken: it is reported already, and not "missing" besides.
pub(crate) fn check(config: &Config, origins: &Origins, refused: &[&str]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut at = |key: &str, wrong: String, remedy: String| {
        mistakes.push(Problem::new(wrong, remedy).at(key, origins.get(key).clone()));
    };

    if config.supabase.url.is_some() {
        let needed = [
            ("supabase.anon_key", config.supabase.anon_key.is_some(), "SUPABASE_ANON_KEY", "API keys page"),
            (
                "supabase.service_role_key",
                config.supabase.service_role_key.is_some(),
                "SUPABASE_SERVICE_ROLE_KEY",
                "API keys page",
            ),
            ("database.url", config.database.url.is_some(), "DATABASE_URL", "database connection page"),
        ];
        for (key, present, variable, page) in needed {
            if !present && !refused.contains(&key) {
                at(
                    key,
                    "is missing, though `supabase.url` names a hosted project".into(),
                    format!(
                        "Set {variable} from the project's {page}, or remove `supabase.url` to run everything here."
                    ),
                );
            }
        }
    }

    let begins = |key: &Option<SecretString>, prefix| {
        key.as_ref().is_some_and(|key| key.expose_secret().starts_with(prefix))
    };
    // Publishing a key that bypasses row-level security is the costliest slip there is.
    if begins(&config.supabase.anon_key, "sb_secret_") {
        at(
            "supabase.anon_key",
            "is a secret key: every client would bypass row-level security".into(),
            "Put the publishable key (`sb_publishable_…` or the `anon` token) here, and rotate the secret one if clients have seen it.".into(),
        );
    }
    if begins(&config.supabase.service_role_key, "sb_publishable_") {
        at(
            "supabase.service_role_key",
            "is a publishable key: it has no service rights".into(),
            "Put the secret key (`sb_secret_…` or the `service_role` token) here.".into(),
        );
    }
    let same = match (&config.supabase.anon_key, &config.supabase.service_role_key) {
        (Some(anon), Some(service)) => anon.expose_secret() == service.expose_secret(),
        _ => false,
    };
    if same {
        at(
            "supabase.anon_key",
            "is the same as `supabase.service_role_key`".into(),
            "Give clients a key of their own: with this one they would bypass row-level security.".into(),
        );
    }

    let server = &config.server;
    if server.cors_origins.len() > 1 && server.cors_origins.iter().any(|origin| origin == "*") {
        at(
            "server.cors_origins",
            "lists `*` among others".into(),
            "Write `*` alone to allow any origin, or leave it out.".into(),
        );
    }
    if server.rate_limit_per_second > server.rate_limit_burst && !refused.contains(&"server.rate_limit_burst")
    {
        at(
            "server.rate_limit_burst",
            format!(
                "{} is less than `server.rate_limit_per_second`, {}",
                server.rate_limit_burst, server.rate_limit_per_second
            ),
            "Raise it to at least that number.".into(),
        );
    }
    if config.database.url.is_none() && server.port != 0 && config.database.port == Some(server.port) {
        at(
            "database.port",
            format!("{} is also `server.port`", server.port),
            "Give the managed cluster another port, or leave it unset.".into(),
        );
    }
    let storage = &config.storage;
    if storage.s3_bucket.is_some()
        && storage.s3_access_key_id.is_some() != storage.s3_secret_access_key.is_some()
        && !refused.iter().any(|key| key.starts_with("storage.s3_"))
    {
        let (missing, variable) = match storage.s3_access_key_id {
            Some(_) => ("storage.s3_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
            None => ("storage.s3_access_key_id", "AWS_ACCESS_KEY_ID"),
        };
        at(
            missing,
            "is missing, though the other half of the store's credentials is set".into(),
            format!("Set {variable}, or neither of both to use the role of the machine."),
        );
    }
    if storage.s3_protocol_access_key_id.is_some() != storage.s3_protocol_secret_access_key.is_some()
        && !refused.iter().any(|key| key.starts_with("storage.s3_protocol_"))
    {
        let missing = match storage.s3_protocol_access_key_id {
            Some(_) => "storage.s3_protocol_secret_access_key",
            None => "storage.s3_protocol_access_key_id",
        };
        at(
            missing,
            "is missing, though the other half of the S3 clients' credentials is set".into(),
            "Set both, or neither to let in sessions of users alone.".into(),
        );
    }
    if storage.s3_bucket.is_none() && *origins.get("storage.s3_prefix") != Origin::Default {
        at(
            "storage.s3_prefix",
            "is set without `storage.s3_bucket`".into(),
            "Name the bucket too, or remove it: files are kept in a folder otherwise.".into(),
        );
    }
    if config.twilio.auth_token_previous.is_some()
        && config.twilio.auth_token.is_none()
        && !refused.contains(&"twilio.auth_token")
    {
        at(
            "twilio.auth_token_previous",
            "is set without `twilio.auth_token`".into(),
            "Set the current token as TWILIO_AUTH_TOKEN; this one is for the time of a rotation.".into(),
        );
    }
    if config.offline == Offline::Never
        && *origins.get("twilio.account_sid") != Origin::Default
        && config.twilio.auth_token.is_none()
        && !refused.contains(&"twilio.auth_token")
    {
        at(
            "twilio.auth_token",
            "is missing, though `twilio.account_sid` is set and `offline = \"never\"`".into(),
            "Set TWILIO_AUTH_TOKEN from Twilio's console: without it no webhook can be verified, and calls are refused.".into(),
        );
    }
    mistakes
}
