//! `longhouse config`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};

use crate::settings::{ServerArgs, SettingsArgs};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  longhouse config\n  longhouse config --changed\n  PORT=8000 longhouse config --config production.toml"
)]
pub(crate) struct ConfigArgs {
    /// Only what differs from the defaults
    #[arg(long)]
    changed: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: ConfigArgs) -> miette::Result<ExitCode> {
    let loaded = args.settings.load_with(&args.server)?;
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["key", "value", "from"]);
    for line in loaded.report() {
        if !(args.changed && line.default) {
            table.add_row([line.key, &line.value, &line.origin]);
        }
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
