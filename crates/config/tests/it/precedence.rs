use std::time::Duration;

use longhouse_config::{Config, Offline, Sources};
use rstest::rstest;
use secrecy::ExposeSecret;

#[test]
fn nothing_set_gives_the_defaults() {
    let loaded = Config::load(&Sources::default()).unwrap();
    assert_eq!(loaded.config.server.port, 54321);
    assert_eq!(loaded.config.offline, Offline::Auto);
    assert!(loaded.report().iter().all(|line| line.default && line.origin == "default"));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let (_folder, path) = crate::file("[server]\nport = 1001\nhost = \"0.0.0.0\"\nbody_limit = \"2MiB\"\n");
    let file = Sources::default().file(&path);
    let at = |sources: &Sources| {
        let loaded = Config::load(sources).unwrap();
        (loaded.config.server.port, loaded.origins.get("server.port").to_string())
    };
    assert_eq!(at(&file), (1001, format!("{}:2", path.display())));
    let env = file.env([("PORT", "1002")]);
    assert_eq!(at(&env), (1002, "environment PORT".into()));
    let own = env.env([("LONGHOUSE_SERVER__PORT", "1003")]);
    assert_eq!(at(&own), (1003, "environment LONGHOUSE_SERVER__PORT".into()));
    let flag = own.flag("server.port", "1004");
    assert_eq!(at(&flag), (1004, "flag --port".into()));

    let server = Config::load(&flag).unwrap().config.server;
    assert_eq!((server.host.to_string().as_str(), server.body_limit), ("0.0.0.0", 2 * 1024 * 1024));
}

#[test]
fn an_empty_variable_is_unset() {
    let (_folder, path) = crate::file("[server]\nport = 1001\n[openai]\napi_key = \"\"\n");
    let sources =
        Sources::default().file(path).env([("PORT", ""), ("DATABASE_URL", "  "), ("LONGHOUSE_TYPO", "")]);
    let config = Config::load(&sources).unwrap().config;
    assert_eq!(config.server.port, 1001);
    assert!(config.database.url.is_none() && config.openai.api_key.is_none());
}

#[rstest]
#[case("SUPABASE_ANON_KEY", "anon", |c: &Config| c.supabase.anon_key.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("SUPABASE_SERVICE_ROLE_KEY", "srv", |c: &Config| c.supabase.service_role_key.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("SERVICE_ROLE_KEY", "srv", |c: &Config| c.supabase.service_role_key.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("SUPABASE_JWT_SECRET", "an-example-secret-of-32-characters", |c: &Config| c.supabase.jwt_secret.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("DATABASE_URL", "postgres://u:p@h:1/db", |c: &Config| c.database.url.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("OPENAI_API_KEY", "sk-1", |c: &Config| c.openai.api_key.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("PORT", "8080", |c: &Config| Some(c.server.port.to_string()))]
#[case("TWILIO_ACCOUNT_SID", "AC00112233445566778899aabbccddeeff", |c: &Config| c.twilio.account_sid.clone())]
#[case("TWILIO_AUTH_TOKEN", "t1", |c: &Config| c.twilio.auth_token.as_ref().map(|s| s.expose_secret().to_owned()))]
#[case("TWILIO_STREAM_URL", "wss://v.example.com/s", |c: &Config| c.twilio.stream_url.as_ref().map(ToString::to_string))]
#[case("RUST_LOG", "debug", |c: &Config| Some(c.log.filter.clone()))]
#[case("LONGHOUSE_LOG", "trace", |c: &Config| Some(c.log.filter.clone()))]
fn the_seeds_names_are_honoured(
    #[case] name: &str,
    #[case] value: &str,
    #[case] read: fn(&Config) -> Option<String>,
) {
    // Surrounding white space is what `$(cat file)` and editors leave behind.
    let config = Config::load(&Sources::default().env([(name, format!(" {value}\n"))])).unwrap().config;
    assert_eq!(read(&config).as_deref(), Some(value));
}

#[test]
fn every_key_of_the_report_is_settable_by_its_own_variable() {
    let defaults = Config::load(&Sources::default()).unwrap().report();
    for line in defaults.iter().filter(|line| !line.value.starts_with('(')) {
        let name = format!("LONGHOUSE_{}", line.key.replace('.', "__").to_uppercase());
        let loaded = Config::load(&Sources::default().env([(&name, &line.value)])).unwrap();
        assert_eq!(loaded.origins.get(line.key).to_string(), format!("environment {name}"));
    }
}

#[test]
fn the_file_of_the_working_folder_is_optional_and_a_named_one_is_not() {
    let (folder, path) = crate::file("offline = \"never\"\n");
    let sources = Sources { folder: Some(folder.path().into()), ..Sources::default() };
    let loaded = Config::load(&sources).unwrap();
    assert_eq!((loaded.config.offline, loaded.file), (Offline::Never, Some(path.clone())));

    let by_variable = Sources::default().env([("LONGHOUSE_CONFIG", path.display().to_string())]);
    assert_eq!(Config::load(&by_variable).unwrap().config.offline, Offline::Never);

    std::fs::remove_file(&path).unwrap();
    assert_eq!(Config::load(&sources).unwrap().config.offline, Offline::Auto);
    let said = crate::errors(&Sources::default().file(&path)).to_string();
    assert!(said.contains("cannot be read") && said.contains("Check the path"), "{said}");
}

#[test]
fn values_of_every_form_are_read() {
    let text = r#"
        data = "/srv/longhouse"
        offline = false
        [server]
        trusted_proxies = ["10.0.0.1", "::1"]
        cors_origins = ["https://app.example.com/", "http://localhost:3000"]
        drain_timeout = "1m30s"
        body_limit = 65536
        port = 0x1F90
        [receptionist]
        enabled = false
        [log]
        format = "json"
    "#;
    let (_folder, path) = crate::file(text);
    let config = Config::load(&Sources::default().file(path)).unwrap().config;
    assert_eq!(config.data.to_str(), Some("/srv/longhouse"));
    assert_eq!(config.offline, Offline::Never);
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert_eq!(config.server.cors_origins, ["https://app.example.com", "http://localhost:3000"]);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(90));
    assert_eq!((config.server.body_limit, config.server.port), (65536, 8080));
    assert!(!config.receptionist.enabled);
}
