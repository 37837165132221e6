//! `longhouse status`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::banner::{Secrets, table};
use crate::run_state::RunState;
use crate::settings::SettingsArgs;

/// Exit code when no server runs, so that scripts can tell it from a failure.
const NOT_RUNNING: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Args)]
#[command(
    after_help = "Examples:\n  longhouse status\n  longhouse status --json | jq -r .ANON_KEY\n\nExit code: 0 running, 3 not running"
)]
pub(crate) struct StatusArgs {
    /// Print JSON with the names that `supabase status --output json` uses
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) async fn run(args: StatusArgs) -> miette::Result<ExitCode> {
    let data = args.settings.data()?;
    let Some(state) = RunState::of_running(&data)? else {
        if args.json {
            println!("{}", json!({ "RUNNING": false }));
        } else {
            println!("Longhouse is not running on {}. Start it with: longhouse serve", data.display());
        }
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let health = ask(&state.api_url).await;
    if args.json {
        println!("{:#}", document(&state, &health));
    } else {
        println!(
            "Longhouse {} is running (process {}, since {}).\n",
            state.version, state.pid, state.started_at
        );
        print!("{}", table(&state, Secrets::Shown));
        println!("\n{}", summary(&health));
        if !state.emulated.is_empty() {
            println!("Emulated: {}", state.emulated.join(", "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `/ready` says.
async fn ask(api_url: &str) -> Value {
    let answer = async {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        client.get(format!("{api_url}/ready")).send().await?.json::<Value>().await
    };
    answer.await.unwrap_or_else(|_| json!({ "status": "no answer", "checks": {} }))
}

fn document(state: &RunState, health: &Value) -> Value {
    json!({
        "RUNNING": true,
        "API_URL": state.api_url,
        "DB_URL": state.database_url,
        "STUDIO_URL": state.studio_url,
        "STUDIO_EMAIL": state.operator.as_ref().map(|operator| &operator.email),
        "STUDIO_PASSWORD": state.operator.as_ref().map(|operator| &operator.password),
        "MAILPIT_URL": state.mailbox_url,
        "INBUCKET_URL": state.mailbox_url,
        "PUBLISHABLE_KEY": state.publishable_key,
        "SECRET_KEY": state.secret_key,
        "ANON_KEY": state.anon_key,
        "SERVICE_ROLE_KEY": state.service_role_key,
        "JWT_SECRET": state.jwt_secret,
        "DEMO_NUMBER": state.demo_number,
        "EMULATED": state.emulated,
        "PID": state.pid,
        "STARTED_AT": state.started_at,
        "VERSION": state.version,
        "HEALTH": health,
    })
}

fn summary(health: &Value) -> String {
    let mut text = format!("Health: {}", health["status"].as_str().unwrap_or("unknown"));
    for (name, check) in health["checks"].as_object().into_iter().flatten() {
        let status = check["status"].as_str().unwrap_or("unknown");
        text.push_str(&format!("\n  {name}: {status}"));
        match check["detail"].as_str() {
            Some(detail) => text.push_str(&format!(" ({detail})")),
            None => text.push_str(&format!(" ({} ms)", check["latency_ms"])),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::banner::tests::state;

    #[test]
    fn scripts_find_the_names_of_supabase() {
        let document = document(&state(), &json!({ "status": "ready" }));
        for name in [
            "API_URL",
            "DB_URL",
            "STUDIO_URL",
            "INBUCKET_URL",
            "ANON_KEY",
            "SERVICE_ROLE_KEY",
            "JWT_SECRET",
            "PUBLISHABLE_KEY",
            "SECRET_KEY",
        ] {
            assert!(document.get(name).is_some(), "{name}");
        }
        assert_eq!(document["HEALTH"]["status"], "ready");
    }

    #[test]
    fn people_see_what_is_wrong() {
        let health = json!({ "status": "unready", "checks": {
            "database": { "status": "failed", "detail": "no answer", "latency_ms": 1.0 },
            "storage": { "status": "ok", "latency_ms": 0.2 },
        }});
        assert_eq!(
            summary(&health),
            "Health: unready\n  database: failed (no answer)\n  storage: ok (0.2 ms)"
        );
    }
}
