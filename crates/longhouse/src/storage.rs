//! `longhouse storage`: chores around files.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use longhouse_database::{Database, DatabaseOptions};
use longhouse_identity::ProjectKeys;
use longhouse_storage::check::{CheckOptions, Checked, Finding};
use miette::{IntoDiagnostic, miette};

use crate::db::Session;
use crate::settings::SettingsArgs;
use crate::storage_v1;

#[derive(Args)]
pub(crate) struct StorageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List rows without bytes and bytes without a row
    #[command(
        after_help = "Examples:\n  longhouse storage check\n  longhouse storage check --verify\n  longhouse storage check --prune\n\nThe server may be running. Exit code: 0 all belongs together, 1 something was found and is still there"
    )]
    Check {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Remove both
        #[arg(long)]
        prune: bool,
        /// Also read every byte and compare its hash with the one that was uploaded
        #[arg(long)]
        verify: bool,
    },
}

pub(crate) async fn run(args: StorageArgs) -> miette::Result<ExitCode> {
    let Command::Check { settings, prune, verify } = args.command;
    let config = settings.load()?.config;
    if config.supabase.url.is_some() {
        return Err(miette!("a hosted project keeps its own files: there is nothing to check here"));
    }
    if config.database.url.is_none() && !config.data.join("postgres").exists() {
        return Err(miette!(
            "{} holds no database: name the data folder with --data, or set DATABASE_URL",
            config.data.display()
        ));
    }
    let session = Box::pin(Session::open(&config, false)).await?;
    let checked = async {
        let options = DatabaseOptions {
            url: session.url.clone(),
            pool_size: 4,
            pool_timeout: config.database.pool_timeout,
            ca_file: config.database.ca_file.clone(),
        };
        let database = Database::connect(&options).await.into_diagnostic()?;
        let keys = ProjectKeys::load_or_create(&config).into_diagnostic()?;
        let nobody = Arc::new(|_: &_| Ok(None));
        let storage = storage_v1::service(&config, database, &keys.jwt_secret, nobody).await?;
        let options = CheckOptions { verify, prune };
        storage.check(options, &mut |finding| println!("{}", line(finding))).await.into_diagnostic()
    };
    let checked = Box::pin(checked).await;
    session.close().await?;
    let checked = checked?;
    println!("{}", summary(&checked, prune));
    let left = checked.damaged
        + checked.without_bytes.saturating_sub(checked.rows_removed)
        + if prune { 0 } else { checked.without_row };
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(finding: &Finding) -> String {
    match finding {
        Finding::WithoutBytes { bucket, name, version } => {
            let version = version.as_deref().unwrap_or("none");
            format!("row without bytes  {bucket}/{name} (version {version})")
        }
        Finding::Damaged { bucket, name, difference } => {
            format!("damaged            {bucket}/{name}: {difference}")
        }
        Finding::WithoutRow { version, size } => format!("bytes without row  {version} ({size} bytes)"),
    }
}

fn summary(checked: &Checked, prune: bool) -> String {
    let Checked { rows, blobs, without_bytes, damaged, without_row, .. } = checked;
    let found = format!(
        "{rows} objects, {blobs} stored files: {without_bytes} rows without bytes, {without_row} files without a row, {damaged} damaged"
    );
    match prune {
        true => format!("{found}; removed {} rows and {} files", checked.rows_removed, checked.blobs_removed),
        false if without_bytes + without_row > 0 => format!("{found}. Remove them with --prune"),
        false => found,
    }
}
