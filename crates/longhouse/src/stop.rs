//! `longhouse stop`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use longhouse_database::cluster::{Cluster, ClusterError};
use miette::IntoDiagnostic;

use crate::platform::cluster_dir;
use crate::run_state::RunState;
use crate::settings::SettingsArgs;

#[derive(Args)]
#[command(after_help = "Examples:\n  longhouse stop\n  longhouse stop --data /var/lib/longhouse --wait 120")]
pub(crate) struct StopArgs {
    /// Longest wait for calls to end and the database to stop, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Longest wait for a server that is starting to say how it can be stopped.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The server of a data folder; without one, what a killed server left is stopped.
async fn running_or_tidied(data: &Path) -> miette::Result<Option<RunState>> {
    let asked = Instant::now();
    loop {
        if let Some(state) = RunState::of_running(data)? {
            return Ok(Some(state));
        }
        match Cluster::stop_abandoned(&cluster_dir(data)).await {
            Ok(true) => {
                println!(
                    "No server ran on {}; stopped the database that one had left running.",
                    data.display()
                );
                return Ok(None);
            }
            Ok(false) => {
                println!("Longhouse is not running on {}.", data.display());
                return Ok(None);
            }
            // Somebody holds the folder without a run state: a server that is still starting.
            Err(ClusterError::InUse { .. }) if asked.elapsed() < START_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error).into_diagnostic(),
        }
    }
}

pub(crate) async fn run(args: StopArgs) -> miette::Result<ExitCode> {
    let data = args.settings.data()?;
    let Some(state) = running_or_tidied(&data).await? else { return Ok(ExitCode::SUCCESS) };
    state.terminate().map_err(|error| {
        miette::miette!("cannot stop process {}: {error}; run as the user that started it", state.pid)
    })?;
    let (started, patience) = (Instant::now(), Duration::from_secs(args.wait));
    let mut told = false;
    while state.is_alive() {
        if started.elapsed() > patience {
            return Err(miette::miette!(
                "process {} is still stopping after {} s: calls may be in progress (see /metrics); wait longer with \
                 --wait, or press on with `kill -TERM {}`, which ends them at once",
                state.pid,
                args.wait,
                state.pid
            ));
        }
        if !told && started.elapsed() > Duration::from_secs(2) {
            told = true;
            println!("Waiting for calls to end …");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("Stopped.");
    Ok(ExitCode::SUCCESS)
}
