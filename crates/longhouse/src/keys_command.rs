//! `longhouse keys`: what tokens are signed with, and the API keys of pages and servers.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use longhouse_config::Config;
use longhouse_database::{Database, DatabaseOptions};
use longhouse_identity::service::{KeyStatus, Rotated, SigningAlgorithm, SigningKey};
use longhouse_identity::{ApiKey, ApiKeyKind, ProjectKeys};
use miette::{IntoDiagnostic, Result, miette};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use crate::db::Session;
use crate::settings::SettingsArgs;

/// Clocks that may differ between servers: a token is accepted that much longer.
const LEEWAY: Duration = Duration::from_secs(30);

/// Bytes of a file of keys that are read; 32 keys of the largest kind have fewer.
const MOST_FILE: u64 = 256 * 1024;

#[derive(Args)]
#[command(after_help = "\
Examples:
  longhouse keys list
  longhouse keys create-api-key --kind secret --name \"nightly job\"
  longhouse keys rotate                  publishes a new signing key
  longhouse keys rotate                  ten minutes later: signs with it
  longhouse keys import signing_keys.json
  longhouse keys revoke 4f1c             ends a key; the first characters of its id suffice

The keys of `longhouse status` are apart from these: they are in keys.json of the data folder, or configured. Servers
follow changes within three seconds. Without DATABASE_URL or database.url, the commands work on the running server
of the data folder, or start its Postgres for as long as they take.")]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show API keys and signing keys, without their secrets
    #[command(after_help = "Example:\n  longhouse keys list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an API key; it is shown this once
    #[command(
        after_help = "Example:\n  longhouse keys create-api-key --kind publishable --name \"web shop\""
    )]
    CreateApiKey {
        /// What it may do: `publishable` acts as anon, `secret` as service_role
        #[arg(long, value_enum)]
        kind: Kind,
        /// Who uses it
        #[arg(long)]
        name: String,
    },
    /// Make a signing key that waits on standby, published for everybody who verifies tokens
    #[command(after_help = "Example:\n  longhouse keys create --algorithm es256")]
    Create {
        /// How it signs
        #[arg(long, value_enum, default_value = "es256")]
        algorithm: Algorithm,
    },
    /// Sign with the standby key from now on; without one, make one, for the next rotation
    #[command(
        after_help = "Example:\n  longhouse keys rotate\n\nNobody is logged out: what earlier keys signed stays good until they are revoked."
    )]
    Rotate {
        /// How a new key signs, if there is none on standby
        #[arg(long, value_enum, default_value = "es256")]
        algorithm: Algorithm,
        /// Do not wait until everybody knows the new key
        #[arg(long)]
        now: bool,
    },
    /// Take over signing keys that were made elsewhere, as `supabase gen signing-key` writes them
    #[command(
        after_help = "Example:\n  longhouse keys import supabase/signing_keys.json\n\nThe first key of the file with a private part signs from now on; the others, and public keys, verify what they signed. Keys that are here already stay as they are."
    )]
    Import {
        /// A JSON Web Key, a list of them, or a set
        file: PathBuf,
    },
    /// End an API key or signing key
    #[command(after_help = "Example:\n  longhouse keys revoke 4f1c2a")]
    Revoke {
        /// Its id, or the first characters of it
        id: String,
        /// Do not wait until the tokens that it signed have expired
        #[arg(long)]
        now: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Publishable,
    Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    Es256,
    Rs256,
    Hs256,
}

impl Algorithm {
    fn signing(self) -> SigningAlgorithm {
        match self {
            Self::Es256 => SigningAlgorithm::Es256,
            Self::Rs256 => SigningAlgorithm::Rs256,
            Self::Hs256 => SigningAlgorithm::Hs256,
        }
    }
}

/// Runs `longhouse keys …`.
pub(crate) async fn run(args: KeysArgs) -> Result<ExitCode> {
    let config = args.settings.load()?.config;
    if config.supabase.url.is_some() {
        return Err(miette!("a hosted project keeps its own keys: manage them in its dashboard"));
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
        let database = Database::connect(&options).await.into_diagnostic()?;
        execute(args.command, &config, &database).await
    };
    let done = Box::pin(done).await;
    let closed = session.close().await;
    done.and(closed).map(|()| ExitCode::SUCCESS)
}

async fn execute(command: Command, config: &Config, database: &Database) -> Result<()> {
    match command {
        Command::List { json } => {
            let api_keys = ApiKey::list(database).await.into_diagnostic()?;
            let signing_keys = SigningKey::list(database).await.into_diagnostic()?;
            match json {
                true => println!("{}", as_json(&api_keys, &signing_keys)),
                false => print_lists(&api_keys, &signing_keys),
            }
        }
        Command::CreateApiKey { kind, name } => {
            let kind = match kind {
                Kind::Publishable => ApiKeyKind::Publishable,
                Kind::Secret => ApiKeyKind::Secret,
            };
            let (kept, key) = ApiKey::create(database, kind, &name).await.into_diagnostic()?;
            // Alone on its stream, so that it can be piped into a file.
            println!("{}", key.expose_secret());
            eprintln!(
                "key {} for `{}`, role {}: it is not shown again",
                short(kept.id),
                kept.name,
                kind.role()
            );
        }
        Command::Create { algorithm } => {
            let secret = ProjectKeys::load_or_create(config).into_diagnostic()?.jwt_secret;
            let key = SigningKey::create(database, &secret, algorithm.signing()).await.into_diagnostic()?;
            println!("{}", waits(&key));
        }
        Command::Rotate { algorithm, now } => {
            let secret = ProjectKeys::load_or_create(config).into_diagnostic()?.jwt_secret;
            let rotated = SigningKey::rotate(database, &secret, algorithm.signing(), now);
            match rotated.await.into_diagnostic()? {
                Rotated::Published(key) => println!("{}", waits(&key)),
                Rotated::InUse(id) => println!(
                    "key {} signs from now on; what the key before it signed stays good until you revoke that one",
                    short(id)
                ),
            }
        }
        Command::Import { file } => import(config, database, &file).await?,
        Command::Revoke { id, now } => revoke(config, database, &id, now).await?,
    }
    Ok(())
}

async fn import(config: &Config, database: &Database, file: &Path) -> Result<()> {
    let unreadable = |reason: &dyn Display| miette!("{} cannot be read: {reason}", file.display());
    let opened = File::open(file).map_err(|error| unreadable(&error))?;
    let mut document = String::new();
    opened.take(MOST_FILE + 1).read_to_string(&mut document).map_err(|error| unreadable(&error))?;
    if document.len() as u64 > MOST_FILE {
        return Err(unreadable(&"a file of keys has at most 256 KiB"));
    }
    let secret = ProjectKeys::load_or_create(config).into_diagnostic()?.jwt_secret;
    for key in SigningKey::import(database, &secret, &document).await.into_diagnostic()? {
        let what = match key.status {
            KeyStatus::Current => "signs from now on",
            KeyStatus::Standby => "is on standby: `longhouse keys rotate` signs with it",
            KeyStatus::Previous => "signs nothing; what it signed is good until you revoke it",
            KeyStatus::Revoked => "was revoked here, and stays so",
        };
        println!("key {} ({}) {what}", short(key.id), key.algorithm.name());
    }
    Ok(())
}

async fn revoke(config: &Config, database: &Database, id: &str, now: bool) -> Result<()> {
    let api_keys = ApiKey::list(database).await.into_diagnostic()?;
    let signing_keys = SigningKey::list(database).await.into_diagnostic()?;
    let ids: Vec<_> =
        api_keys.iter().map(|key| key.id).chain(signing_keys.iter().map(|key| key.id)).collect();
    let found = named(&ids, id)?;
    match api_keys.iter().find(|key| key.id == found) {
        Some(key) => {
            let ended = ApiKey::revoke(database, found).await.into_diagnostic()?;
            let what = if ended { "opens nothing any more" } else { "was revoked before" };
            println!("key {} for `{}` {what}", short(found), key.name);
        }
        None => {
            let longest = config.auth.token_expiry + LEEWAY;
            SigningKey::revoke(database, found, longest, now).await.into_diagnostic()?;
            println!("key {} is revoked: tokens that it signed are refused", short(found));
        }
    }
    Ok(())
}

/// The one id that begins like that.
fn named(ids: &[Uuid], beginning: &str) -> Result<Uuid> {
    let beginning = beginning.to_ascii_lowercase();
    let mut matching =
        ids.iter().filter(|id| !beginning.is_empty() && id.to_string().starts_with(&beginning));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(miette!("several keys begin with {beginning}: write more of the id")),
        (None, _) => Err(miette!("there is no key {beginning}: `longhouse keys list` shows them all")),
    }
}

fn short(id: Uuid) -> String {
    id.to_string().chars().take(8).collect()
}

fn waits(key: &SigningKey) -> String {
    format!(
        "key {} ({}) is published and waits; in ten minutes everybody knows it: `longhouse keys rotate` then signs with it",
        short(key.id),
        key.algorithm.name()
    )
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M").to_string()
}

fn print_lists(api_keys: &[ApiKey], signing_keys: &[SigningKey]) {
    match api_keys {
        [] => println!(
            "no API keys besides those of `longhouse status`; `longhouse keys create-api-key` makes one"
        ),
        keys => {
            let mut table = table(&["id", "name", "kind", "begins with", "made", "last used", "state"]);
            for key in keys {
                table.add_row([
                    short(key.id),
                    key.name.clone(),
                    key.kind.name().to_owned(),
                    format!("{}…", key.prefix),
                    time(key.created_at),
                    key.last_used_at.map_or_else(|| "never".to_owned(), time),
                    key.revoked_at.map_or_else(|| "in use".to_owned(), |at| format!("revoked {}", time(at))),
                ]);
            }
            println!("{table}");
        }
    }
    println!();
    match signing_keys {
        [] => println!(
            "tokens are signed with the JWT secret (HS256); `longhouse keys rotate` begins to use a key of their own"
        ),
        keys => {
            let mut table = table(&["id", "algorithm", "state", "made", "since", "next"]);
            for key in keys {
                table.add_row([
                    short(key.id),
                    key.algorithm.name().to_owned(),
                    key.status.name().to_owned(),
                    time(key.created_at),
                    time(key.changed_at),
                    next(key.status).to_owned(),
                ]);
            }
            println!("{table}");
        }
    }
}

/// What can be done about a key.
fn next(status: KeyStatus) -> &'static str {
    match status {
        KeyStatus::Standby => "longhouse keys rotate",
        KeyStatus::Current => "",
        KeyStatus::Previous => "longhouse keys revoke, once its tokens have expired",
        KeyStatus::Revoked => "",
    }
}

fn as_json(api_keys: &[ApiKey], signing_keys: &[SigningKey]) -> serde_json::Value {
    let api_keys: Vec<_> = api_keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id, "name": key.name, "kind": key.kind.name(), "prefix": key.prefix,
                "created_at": key.created_at, "last_used_at": key.last_used_at, "revoked_at": key.revoked_at,
            })
        })
        .collect();
    let signing_keys: Vec<_> = signing_keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id, "algorithm": key.algorithm.name(), "status": key.status.name(),
                "created_at": key.created_at, "changed_at": key.changed_at,
            })
        })
        .collect();
    json!({ "api_keys": api_keys, "signing_keys": signing_keys })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("4f1c", Some(0))]
    #[case("4F1C2A", Some(0))]
    #[case("9", Some(1))]
    #[case("4", None)]
    #[case("", None)]
    #[case("5", None)]
    fn the_beginning_of_an_id_suffices(#[case] beginning: &str, #[case] found: Option<usize>) {
        let ids = [
            Uuid::from_u128(0x4f1c_2a00 << 96),
            Uuid::from_u128(0x9000_0000 << 96),
            Uuid::from_u128(0x4000_0000 << 96),
        ];
        assert_eq!(named(&ids, beginning).ok(), found.map(|index| ids[index]));
    }
}
