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
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Reads the names off the source of the structs, so that a new field without a key is noticed.
    fn fields_of_settings() -> BTreeSet<String> {
        let (mut section, mut names) = (None, BTreeSet::new());
        for line in include_str!("settings.rs").lines() {
            if let Some(name) = line.strip_prefix("pub struct ") {
                section = Some(name.trim_end_matches(" {").to_ascii_lowercase());
            } else if line == "}" {
                section = None;
            } else if let (Some(section), Some(field)) = (&section, line.strip_prefix("    pub ")) {
                let (field, kind) = field.split_once(": ").unwrap();
                match section.as_str() {
                    "config" if SECTIONS.iter().any(|(name, _)| *name == field) => {}
                    "config" => _ = names.insert(field.to_owned()),
                    section => _ = names.insert(format!("{section}.{field}")),
                }
                assert!(!kind.is_empty());
            }
        }
        names
    }

    #[test]
    fn every_setting_has_exactly_one_key() {
        let keys: BTreeSet<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(keys.len(), KEYS.len(), "a key is listed twice");
        assert_eq!(keys, fields_of_settings());
    }

    #[test]
    fn no_variable_means_two_keys() {
        let mut seen = BTreeSet::new();
        for key in KEYS {
            assert!(seen.insert(key.own_variable()), "{}", key.name);
            for name in key.env {
                assert!(seen.insert((*name).to_owned()), "{name}");
            }
        }
    }

    #[test]
    fn a_key_without_default_says_what_happens() {
        let defaults = Config::default();
        for key in KEYS {
            assert!((key.show)(&defaults).is_some() == key.unset.is_empty(), "{}", key.name);
            assert!(SECTIONS.iter().any(|(name, _)| *name == key.section()), "{}", key.name);
        }
    }

    #[test]
    fn defaults_satisfy_their_own_forms() {
        let defaults = Config::default();
        for key in KEYS {
            if let Some(shown) = (key.show)(&defaults) {
                let mut config = Config::default();
                assert!((key.set)(&mut config, &Raw::Text(shown.clone())).is_ok(), "{} = {shown}", key.name);
                assert_eq!((key.show)(&config), Some(shown), "{}", key.name);
            }
        }
    }

    #[test]
    fn suggestions_are_close_or_none() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("server.prot", names()), Some("server.port"));
        assert_eq!(nearest("database.pool-size", names()), Some("database.pool_size"));
        assert_eq!(nearest("frobnicate", names()), None);
    }
}
