//! A marker is planted as every secret; nothing that can be printed may contain it.

use longhouse_config::{Config, Sources};

const MARKER: &str = "MARKERMARKERMARKERMARKERMARKERMARKER";

fn planted() -> Vec<(String, String)> {
    let mut env: Vec<_> = [
        "SUPABASE_ANON_KEY",
        "SUPABASE_SERVICE_ROLE_KEY",
        "SUPABASE_JWT_SECRET",
        "OPENAI_API_KEY",
        "TWILIO_AUTH_TOKEN",
        "TWILIO_AUTH_TOKEN_PREVIOUS",
        "LONGHOUSE_RECEPTIONIST__STREAM_SECRET",
    ]
    .iter()
    .enumerate()
    .map(|(i, name)| ((*name).to_owned(), format!("{MARKER}{i}")))
    .collect();
    let url = format!(
        "postgresql://postgres:{MARKER}@db.example.com:5432/app?sslpassword={MARKER}&sslmode=require"
    );
    env.push(("DATABASE_URL".into(), url));
    env
}

fn assert_hidden(printed: &str) {
    assert!(!printed.contains("MARKER"), "a secret shows in: {printed}");
}

#[test]
fn an_accepted_secret_never_shows() {
    let sources = Sources::default().env(planted());
    assert_hidden(&format!("{sources:?}"));
    let loaded = Config::load(&sources).unwrap();
    assert_hidden(&format!("{loaded:?} {loaded:#?}"));
    let report = loaded.report();
    assert_hidden(&format!("{report:?}"));
    let value = |key: &str| report.iter().find(|line| line.key == key).unwrap().value.clone();
    assert_eq!(value("openai.api_key"), "set, 37 characters");
    assert_eq!(
        value("database.url"),
        "postgresql://postgres:***@db.example.com:5432/app?sslpassword=***&sslmode=require"
    );
}

#[test]
fn a_refused_secret_never_shows() {
    let broken = [
        format!("postgres://u:{MARKER}@host:99999/db"),
        format!("postgres://u:{MARKER}@host:port/db"),
        format!("postgres://u:{MARKER}/{MARKER}@host:5432/db"),
        format!("postgres://u:{MARKER}@{MARKER}@host/db"),
        format!("postgres://u:{MARKER} {MARKER}@host/db"),
        format!("postgres://u:{MARKER}@[::1/db"),
        format!("u:{MARKER}@host/db"),
        format!("https://u:{MARKER}@host/db"),
        format!("host=h password={MARKER}"),
        MARKER.to_owned(),
        format!("{MARKER}\n{MARKER}"),
        format!("{MARKER}\u{fffd} x"),
    ];
    let plain_addresses = ["SUPABASE_URL", "TWILIO_STREAM_URL", "LONGHOUSE_OPENAI__REALTIME_URL"];
    for value in &broken {
        for (name, _) in planted() {
            let sources = Sources::default().env([(name.as_str(), value.as_str()), ("PORT", "x")]);
            let errors = crate::errors(&sources);
            assert_hidden(&format!("{errors} {errors:?} {errors:#?}"));
        }
        // A secret in a place where none belongs: it is hidden all the same.
        for name in plain_addresses {
            let errors = crate::errors(&Sources::default().env([(name, value)]));
            assert_hidden(&format!("{errors} {errors:?}"));
        }
    }
    let errors =
        crate::errors(&Sources::default().env([("TWILIO_STREAM_URL", format!("wss://h/s?token={MARKER}"))]));
    assert_hidden(&format!("{errors} {errors:?}"));
    let errors = crate::errors(&Sources::default().env([("TWILIO_ACCOUNT_SID", MARKER)]));
    assert_hidden(&format!("{errors} {errors:?}"));
}

#[test]
fn a_file_with_mistakes_keeps_its_secrets() {
    let lines = [
        format!("api_key = {MARKER}"),
        format!("api_key = \"{MARKER}"),
        format!("api_key = '{MARKER}' {MARKER}"),
        format!("api_key = [\"{MARKER}\""),
        format!("api_key = \"{MARKER}\\q\""),
        format!("api_key: \"{MARKER}\""),
        format!("api_key = \"a\"\napi_key = \"{MARKER}\""),
        format!("api_key = [\"{MARKER}\"]"),
        format!("api_key = {{ value = \"{MARKER}\" }}"),
        format!("api_kee = \"{MARKER}\""),
        format!("api_key = \"{MARKER} \\n {MARKER}\""),
    ];
    for line in lines {
        let (_folder, path) = crate::file(&format!("[openai]\n{line}\n"));
        let errors = crate::errors(&Sources::default().file(path));
        assert_hidden(&format!("{errors} {errors:?}"));
        assert!(!errors.mistakes().is_empty());
    }
}

#[test]
fn the_report_names_every_origin() {
    let (_folder, path) = crate::file("[openai]\nrealtime_model = \"gpt-realtime-mini\"\n");
    let sources = Sources::default().file(&path).env([("PORT", "8080")]).flag("data", "/tmp/data");
    let report = Config::load(&sources).unwrap().report();
    let origin = |key: &str| {
        let line = report.iter().find(|line| line.key == key).unwrap();
        (line.origin.clone(), line.default)
    };
    assert_eq!(origin("openai.realtime_model"), (format!("{}:2", path.display()), false));
    assert_eq!(origin("server.port"), ("environment PORT".into(), false));
    assert_eq!(origin("data"), ("flag --data".into(), false));
    assert_eq!(origin("server.host"), ("default".into(), true));
}
