//! `longhouse openapi`.

use std::process::ExitCode;

use clap::Args;
use longhouse_operations::health::Health;
use miette::IntoDiagnostic;

use crate::{checks, composition};

#[derive(Args)]
#[command(after_help = "Example:\n  longhouse openapi > openapi.json")]
pub(crate) struct OpenapiArgs {}

pub(crate) fn run(_: OpenapiArgs) -> miette::Result<ExitCode> {
    let health = Health::builder(checks::about()).build();
    let mut document = composition::described(&health).into_openapi();
    document.merge(longhouse_receptionist::openapi());
    document.merge(longhouse_gateway::routes::openapi());
    document.merge(longhouse_studio::openapi());
    println!("{}", document.to_pretty_json().into_diagnostic()?);
    Ok(ExitCode::SUCCESS)
}
