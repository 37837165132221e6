//! Commands that need no server.

use std::fs;

use rstest::rstest;
use serde_json::Value;

use crate::project::Project;
use crate::{longhouse, stderr, stdout};

#[rstest]
#[case("serve")]
#[case("status")]
#[case("stop")]
#[case("config")]
#[case("db")]
#[case("keys")]
#[case("models")]
#[case("call")]
#[case("emulate")]
#[case("openapi")]
#[case("version")]
fn every_command_has_help_with_an_example(#[case] command: &str) {
    let output = longhouse(&[command, "--help"]).output().unwrap();
    assert!(output.status.success());
    let help = stdout(&output);
    assert!(help.contains("Example"), "{help}");
    assert!(help.contains(&format!("longhouse {command}")), "{help}");
}

#[rstest]
#[case(&["frobnicate"])]
#[case(&["serve", "--port", "seventy"])]
#[case(&["serve", "--offline", "--no-offline"])]
#[case(&[])]
fn usage_mistakes_exit_with_2(#[case] arguments: &[&str]) {
    assert_eq!(longhouse(arguments).output().unwrap().status.code(), Some(2));
}

#[test]
fn version_names_the_build() {
    let output = longhouse(&["version"]).output().unwrap();
    assert!(stdout(&output).starts_with(&format!("longhouse {} (", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn config_shows_values_and_origins_but_no_secret() {
    let project = Project::new();
    fs::write(project.path("longhouse.toml"), "[server]\nport = 6000\nbody_limit = \"2 MiB\"\n").unwrap();
    let mut command = project.command(&["config", "--changed", "--host", "0.0.0.0"]);
    let output =
        command.env("PORT", "7000").env("OPENAI_API_KEY", "sk-planted-key-0123456789").output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["7000", "environment PORT", "longhouse.toml:3", "0.0.0.0", "flag --host", "openai.api_key"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("planted"), "{text}");
    assert!(!text.contains("pool_size"), "only what was changed:\n{text}");
    assert!(stdout(&project.run(&["config"])).contains("database.pool_size"));
}

#[test]
fn every_configuration_mistake_is_reported_at_once() {
    let project = Project::new();
    fs::write(project.path("longhouse.toml"), "[server]\nport = 70000\nhots = \"x\"\n").unwrap();
    let output = project.command(&["serve"]).env("SUPABASE_JWT_SECRET", "planted").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    for part in ["3 mistakes", "server.port", "hots", "supabase.jwt_secret", "32"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("planted"), "{text}");
}

#[test]
fn openapi_describes_the_servers_own_endpoints() {
    let output = longhouse(&["openapi"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    for path in ["/health", "/ready", "/api/v1/health", "/twilio/health"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn without_a_server_status_exits_with_3_and_stop_has_nothing_to_do() {
    let project = Project::new();
    let output = project.run(&["status"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).contains("longhouse serve"));
    let output = project.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["RUNNING"], false);
    assert!(project.run(&["stop"]).status.success());
}

#[test]
fn a_stale_run_state_is_not_a_server() {
    let project = Project::new();
    fs::create_dir(project.path(".longhouse")).unwrap();
    // A process id that is somebody else's by now.
    let mut state: Value = serde_json::from_str(include_str!("run.json")).unwrap();
    state["pid"] = std::process::id().into();
    fs::write(project.path(".longhouse/run.json"), state.to_string()).unwrap();
    assert_eq!(project.run(&["status"]).status.code(), Some(3));
    assert!(project.run(&["stop"]).status.success(), "and this test is still alive");
}

#[test]
fn a_busy_port_is_told_before_anything_is_made() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let project = Project::new();
    let output = project.run(&["serve", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&format!("port {port}")) && text.contains("--port N"), "{text}");
    assert!(!project.path(".longhouse/postgres").exists());
}
