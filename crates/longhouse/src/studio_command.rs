//! `longhouse studio`: who may use the Studio.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use longhouse_database::{DatabaseOptions, connect_client};
use longhouse_studio::operators;
use miette::{IntoDiagnostic, Result, miette};

use crate::db::Session;
use crate::settings::SettingsArgs;

#[derive(Args)]
#[command(after_help = "\
Examples:
  longhouse studio grant ada@example.com
  longhouse studio operators
  longhouse studio revoke ada@example.com

An operator sees and changes everything in the project: all rows, accounts and files. The right is
`app_metadata.longhouse_operator` of the account, which no user can write. Without DATABASE_URL or database.url, the
commands work on the running server of the data folder, or start its Postgres for as long as they take.")]
pub(crate) struct StudioArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an account an operator's
    #[command(
        after_help = "Example:\n  longhouse studio grant ada@example.com\n\nThe account must exist: sign up on the Studio's page first."
    )]
    Grant {
        /// Address of the account
        email: String,
    },
    /// Take the right away, at once
    #[command(after_help = "Example:\n  longhouse studio revoke ada@example.com")]
    Revoke {
        /// Address of the account
        email: String,
    },
    /// List the operators
    #[command(after_help = "Example:\n  longhouse studio operators")]
    Operators,
}

/// Runs `longhouse studio …`.
pub(crate) async fn run(args: StudioArgs) -> Result<ExitCode> {
    let config = args.settings.load()?.config;
    if config.supabase.url.is_some() {
        return Err(miette!("a hosted project has its own dashboard: the Studio is not served beside it"));
    }
    if config.database.url.is_none() && !config.data.join("postgres").exists() {
        return Err(miette!(
            "{} holds no database: start `longhouse serve` once, name the data folder with --data, or set DATABASE_URL",
            config.data.display()
        ));
    }
    let session = Box::pin(Session::open(&config, false)).await?;
    let done = async {
        let options = DatabaseOptions {
            url: session.url.clone(),
            pool_size: 1,
            pool_timeout: config.database.pool_timeout,
            ca_file: config.database.ca_file.clone(),
        };
        let owner = connect_client(&options).await.into_diagnostic()?;
        match args.command {
            Command::Grant { email } => {
                match operators::grant(&owner, email.trim()).await.into_diagnostic()? {
                    Some(account) => println!(
                        "{} is an operator now. If the page is open there, press “Check again” on it.",
                        account.email
                    ),
                    None => {
                        return Err(miette!(
                            "no account has the address {email}: sign up on the Studio's page first"
                        ));
                    }
                }
            }
            Command::Revoke { email } => {
                match operators::revoke(&owner, email.trim()).await.into_diagnostic()? {
                    Some(account) => println!("{} is no operator any more.", account.email),
                    None => {
                        return Err(miette!(
                            "{email} is not an operator: `longhouse studio operators` lists them"
                        ));
                    }
                }
            }
            Command::Operators => {
                let operators = operators::list(&owner).await.into_diagnostic()?;
                if operators.is_empty() {
                    eprintln!("nobody yet: longhouse studio grant EMAIL");
                }
                for operator in operators {
                    println!("{}", operator.email);
                }
            }
        }
        Ok(())
    };
    let done = Box::pin(done).await;
    let closed = session.close().await;
    done.and(closed).map(|()| ExitCode::SUCCESS)
}
