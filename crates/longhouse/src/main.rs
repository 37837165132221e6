//! `longhouse`: the server and its chores in one binary.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command line

mod ai_v1;
mod applications;
mod auth_v1;
mod banner;
mod build;
mod call;
mod checks;
mod composition;
mod config_command;
mod db;
mod emulate;
mod keys_command;
mod models_command;
mod offline;
mod openapi;
mod platform;
mod realtime_v1;
mod rest;
mod rest_v1;
mod run_state;
mod serve;
mod settings;
mod signals;
mod status;
mod stop;
mod storage;
mod storage_v1;
mod studio;
mod studio_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A request makes some hundred small allocations, freed by whichever thread goes on with it: this allocator takes a
/// third of the time of glibc's for them, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The backend for AI apps that talk: Postgres, sign-in, files, realtime and phone calls under one roof.
#[derive(Parser)]
#[command(
    name = "longhouse",
    version = build::VERSION,
    arg_required_else_help = true,
    after_help = "Examples:\n  longhouse serve\n  longhouse call --say \"What are your opening hours?\"\n  longhouse status\n  longhouse stop"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until it is stopped
    Serve(serve::ServeArgs),
    /// Print addresses and keys of the running server, and what is healthy
    Status(status::StatusArgs),
    /// Stop the running server, letting its calls end
    Stop(stop::StopArgs),
    /// Serve the REST API alone, over any Postgres, with PostgREST's configuration
    Rest(rest::RestArgs),
    /// Migrations: push, reset, list, new, repair
    Db(db::DbArgs),
    /// Files: compare rows with bytes
    Storage(storage::StorageArgs),
    /// Who may use the Studio: grant, revoke, operators
    Studio(studio_command::StudioArgs),
    /// API keys, and the keys that tokens are signed with: list, create-api-key, create, rotate, revoke
    Keys(keys_command::KeysArgs),
    /// Model calls: what serves which task; bring keys over from other systems
    Models(models_command::ModelsArgs),
    /// Phone a deployment and print the conversation
    Call(Box<call::CallArgs>),
    /// Run the providers' stand-ins by themselves
    Emulate(emulate::EmulateArgs),
    /// Print every setting, where it comes from, and nothing secret
    Config(config_command::ConfigArgs),
    /// Print the OpenAPI description of the server's own endpoints
    Openapi(openapi::OpenapiArgs),
    /// Print version and build
    #[command(after_help = "Example:\n  longhouse version")]
    Version,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for the whole tree; whoever builds a client takes it from here.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        unreachable!("nothing has run before main");
    }
    let result = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => {
            Err(miette::miette!("cannot start the runtime: {error}; raise the process's limits (ulimit -a)"))
        }
    };
    result.unwrap_or_else(|report| {
        eprintln!("{report:?}");
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> miette::Result<ExitCode> {
    match command {
        Command::Serve(args) => Box::pin(serve::run(args)).await,
        Command::Status(args) => status::run(args).await,
        Command::Stop(args) => stop::run(args).await,
        Command::Rest(args) => Box::pin(rest::run(args)).await,
        Command::Db(args) => Box::pin(db::run(args)).await.map(|()| ExitCode::SUCCESS),
        Command::Storage(args) => Box::pin(storage::run(args)).await,
        Command::Studio(args) => Box::pin(studio_command::run(args)).await,
        Command::Keys(args) => Box::pin(keys_command::run(args)).await,
        Command::Models(args) => models_command::run(args).await,
        Command::Call(args) => Box::pin(call::run(*args)).await.map(|()| ExitCode::SUCCESS),
        Command::Emulate(args) => emulate::run(args).await,
        Command::Config(args) => config_command::run(args),
        Command::Openapi(args) => openapi::run(args),
        Command::Version => {
            println!("longhouse {} ({})", build::VERSION, build::id());
            Ok(ExitCode::SUCCESS)
        }
    }
}
