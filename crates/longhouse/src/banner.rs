//! What `serve` prints when it is ready, and `status` afterwards: addresses, keys, what to try.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

#[cfg(test)]
use crate::run_state::LocalOperator;
use crate::run_state::RunState;

/// Whether secrets are printed in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// Somebody asked for them, or looks at their own terminal.
    Shown,
    /// The output goes to a log.
    Masked,
}

impl Secrets {
    /// Shown on a terminal, for a server that only this machine reaches.
    pub(crate) fn for_output(state: &RunState) -> Self {
        let local = state.api_url.contains("//127.0.0.1") || state.api_url.contains("//[::1]");
        if stdout().is_terminal() && local { Self::Shown } else { Self::Masked }
    }

    fn render(self, secret: &str) -> String {
        match self {
            Self::Shown => secret.to_owned(),
            Self::Masked => {
                let start: String =
                    secret.chars().take(if secret.starts_with("sb_") { 12 } else { 4 }).collect();
                format!("{start}… ({} characters; `longhouse status` prints it)", secret.chars().count())
            }
        }
    }
}

/// The table that users of `supabase status` know.
pub(crate) fn table(state: &RunState, secrets: Secrets) -> String {
    let database_url = match (secrets, state.database_url.split_once('@')) {
        (Secrets::Masked, Some((login, rest))) => {
            let scheme_and_user = login.rsplit_once(':').map_or(login, |(start, _)| start);
            format!("{scheme_and_user}:…@{rest}")
        }
        _ => state.database_url.clone(),
    };
    let sign_in = state.operator.as_ref().map_or_else(String::new, |operator| {
        format!("{}   password: {}", operator.email, secrets.render(&operator.password))
    });
    let rows = [
        ("API URL", state.api_url.clone()),
        ("DB URL", database_url),
        ("Studio URL", state.studio_url.clone().unwrap_or_default()),
        ("Studio sign-in", sign_in),
        // With a mail server there is none.
        ("Mailbox URL", state.mailbox_url.clone().unwrap_or_default()),
        ("Publishable key", state.publishable_key.clone()),
        ("Secret key", secrets.render(&state.secret_key)),
        ("anon key", state.anon_key.clone()),
        ("service_role key", secrets.render(&state.service_role_key)),
        ("JWT secret", secrets.render(&state.jwt_secret)),
    ];
    rows.iter().filter(|(_, value)| !value.is_empty()).fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:>17}: {value}");
        text
    })
}

/// The greeting of `serve`; `unanswered`: no model answers calls, for want of a key.
pub(crate) fn greeting(state: &RunState, secrets: Secrets, unanswered: bool, milliseconds: u128) -> String {
    let mut text = format!("\nLonghouse {} is ready ({milliseconds} ms).\n\n", state.version);
    text.push_str(&table(state, secrets));
    text.push('\n');
    if !state.emulated.is_empty() {
        let _ = writeln!(
            text,
            "Emulated here, as no key is set or --offline is: {}. Set OPENAI_API_KEY and TWILIO_AUTH_TOKEN for the real ones.",
            state.emulated.join(", ")
        );
    }
    if unanswered {
        text.push_str(
            "WARNING: OPENAI_API_KEY is not set, so no model answers: callers hear an apology, and /ready says degraded. Set it and start again.\n",
        );
    }
    let _ =
        writeln!(text, "Health: {}/health   API description: {}/openapi.json", state.api_url, state.api_url);
    if state.demo_number.is_some() {
        text.push_str("Try:    longhouse call --say \"What are your opening hours?\"\n");
    }
    text.push_str("Stop:   Ctrl+C, or longhouse stop\n");
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn state() -> RunState {
        RunState {
            pid: 1,
            process_start: None,
            started_at: "2026-11-21T10:00:00Z".into(),
            version: "0.1.0".into(),
            api_url: "http://127.0.0.1:54321".into(),
            database_url: "postgres://postgres:planted-db-password@127.0.0.1:54322/postgres".into(),
            studio_url: Some("http://127.0.0.1:54321/studio".into()),
            operator: Some(LocalOperator {
                email: "operator@longhouse.local".into(),
                password: "zzzz-planted-password".into(),
            }),
            mailbox_url: None,
            anon_key: "anon-jwt".into(),
            service_role_key: "eyJ-planted-service-role".into(),
            publishable_key: "sb_publishable_x".into(),
            secret_key: "sb_secret_planted-secret-key".into(),
            jwt_secret: "planted-jwt-secret".into(),
            twilio_auth_token: Some("planted-twilio-token".into()),
            demo_number: Some("+15550100".into()),
            emulated: vec!["OpenAI Realtime".into(), "Twilio".into()],
        }
    }

    #[test]
    fn logs_get_no_secrets() {
        let text = greeting(&state(), Secrets::Masked, false, 12);
        assert!(!text.contains("WARNING"), "{text}");
        assert!(!text.contains("planted"), "{text}");
        assert!(text.contains("anon-jwt") && text.contains("sb_publishable_x"), "{text}");
        assert!(text.contains("OpenAI Realtime, Twilio") && text.contains("longhouse call"), "{text}");
    }

    #[test]
    fn a_missing_model_is_said_clearly() {
        let text = greeting(&state(), Secrets::Masked, true, 12);
        assert!(text.contains("OPENAI_API_KEY is not set") && text.contains("apology"), "{text}");
    }

    #[test]
    fn people_get_all_of_them() {
        let text = table(&state(), Secrets::Shown);
        for part in [
            "planted-db-password",
            "planted-service-role",
            "planted-secret-key",
            "planted-jwt-secret",
            "operator@longhouse.local   password: zzzz-planted-password",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("planted-twilio-token"));
    }
}
