use longhouse_config::Sources;
use rstest::rstest;

#[test]
fn all_mistakes_come_at_once_with_place_and_remedy() {
    let (_folder, path) = crate::file(
        "colour = 1\n[server]\nprot = 80\nport = 80800\nrequest_timeout = 30\n[databse]\nurl = \"x\"\n[database]\npool_size = 501\n",
    );
    let sources = Sources::default()
        .file(&path)
        .env([
            ("LONGHOUSE_SERVER_PORT", "1"),
            ("TWILIO_STREAM_URL", "https://voice.example.com/s"),
            ("SUPABASE_JWT_SECRET", "short"),
        ])
        .flag("server.bodylimit", "1")
        .flag("log.format", "xml");
    let errors = crate::errors(&sources);
    let file = path.display();
    let expected = [
        format!("colour ({file}:1): unknown key"),
        format!("server.prot ({file}:3): unknown key\n    Did you mean `server.port`?"),
        format!("databse ({file}:6): unknown section\n    Did you mean `[database]`?"),
        "LONGHOUSE_SERVER_PORT (environment LONGHOUSE_SERVER_PORT): unknown variable\n    Did you mean `LONGHOUSE_SERVER__PORT`?".into(),
        "server.bodylimit (flag --set server.bodylimit): unknown key\n    Did you mean `server.body_limit`?".into(),
        format!("server.port ({file}:4): `80800` is not a port\n    Give a number from 0 to 65535; 0 takes a free port."),
        format!("server.request_timeout ({file}:5): `30` has no unit\n    Add the unit, in quotes: `\"30s\"`"),
        format!("database.pool_size ({file}:9): `501` is not a number from 1 to 500"),
        "supabase.jwt_secret (environment SUPABASE_JWT_SECRET): has only 5 characters\n    Use at least 32".into(),
        "twilio.stream_url (environment TWILIO_STREAM_URL): `https://voice.example.com/s` starts with `https:`, not `wss://`".into(),
        "log.format (flag --set log.format): `xml` is not a log format".into(),
    ];
    let said = errors.to_string();
    for part in &expected {
        assert!(said.contains(part.as_str()), "missing {part:?} in:\n{said}");
    }
    assert_eq!(errors.mistakes().len(), expected.len(), "{said}");
    assert!(said.starts_with("11 mistakes in the configuration:"), "{said}");
}

#[test]
fn a_syntax_error_is_reported_alone_with_its_line() {
    let (_folder, path) = crate::file("[server]\nport = = 1\nhost = 5\n");
    let errors = crate::errors(&Sources::default().file(&path).env([("PORT", "x")]));
    assert!(errors.mistakes().iter().all(|mistake| mistake.problem.starts_with("syntax error")), "{errors}");
    assert!(errors.to_string().contains(&format!("({}:2)", path.display())), "{errors}");
}

#[test]
fn a_key_outside_its_section_is_sent_there() {
    let (_folder, path) = crate::file("port = 80\nserver = 1\n");
    let said = crate::errors(&Sources::default().file(path)).to_string();
    assert!(said.contains("Did you mean `server.port`? Write it below `[server]`."), "{said}");
    assert!(said.contains("server") && said.contains("is a section, not a key"), "{said}");
}

#[test]
fn a_value_that_is_overridden_is_not_judged() {
    let sources = Sources::default().env([("PORT", "tcp://10.0.0.1:80")]).flag("server.port", "80");
    assert_eq!(longhouse_config::Config::load(&sources).unwrap().config.server.port, 80);
}

const URL: (&str, &str) = ("SUPABASE_URL", "https://abc.supabase.co");

#[rstest]
#[case(&[URL], &["SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL"])]
#[case(&[URL, ("SUPABASE_ANON_KEY", "a"), ("SERVICE_ROLE_KEY", "s")], &["DATABASE_URL"])]
#[case(&[("SUPABASE_ANON_KEY", "sb_secret_1")], &["bypass row-level security"])]
#[case(&[("SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_1")], &["no service rights"])]
#[case(&[("SUPABASE_ANON_KEY", "k"), ("SERVICE_ROLE_KEY", "k")], &["is the same as"])]
#[case(&[("LONGHOUSE_SERVER__CORS_ORIGINS", "*,https://a.example.com")], &["lists `*` among others"])]
#[case(&[("LONGHOUSE_SERVER__RATE_LIMIT_PER_SECOND", "500")], &["400 is less than"])]
#[case(&[("LONGHOUSE_DATABASE__PORT", "54321")], &["is also `server.port`"])]
#[case(&[("TWILIO_AUTH_TOKEN_PREVIOUS", "t")], &["without `twilio.auth_token`"])]
#[case(
    &[("LONGHOUSE_OFFLINE", "never"), ("TWILIO_ACCOUNT_SID", "AC00112233445566778899aabbccddeeff")],
    &["no webhook can be verified"]
)]
#[case(&[("LONGHOUSE_SERVER__DRAIN_TIMEOUT", "2h")], &["`2h` is too long"])]
fn settings_that_do_not_go_together(#[case] env: &[(&str, &str)], #[case] parts: &[&str]) {
    let errors = crate::errors(&Sources::default().env(env.iter().copied()));
    assert_eq!(errors.mistakes().len(), parts.len(), "{errors}");
    for (mistake, part) in errors.mistakes().iter().zip(parts) {
        assert!(mistake.to_string().contains(part), "{part:?} in {mistake}");
    }
}

#[test]
fn a_broken_value_is_not_called_missing_too() {
    let env = [URL, ("SUPABASE_ANON_KEY", "a"), ("SERVICE_ROLE_KEY", "s"), ("DATABASE_URL", "mysql://h/db")];
    let errors = crate::errors(&Sources::default().env(env));
    assert_eq!(errors.mistakes().len(), 1, "{errors}");
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let (_folder, path) = crate::file("");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(crate::errors(&Sources::default().file(&path)).to_string().contains("not UTF-8"));
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(crate::errors(&Sources::default().file(&path)).to_string().contains("larger than 1 MiB"));
}
