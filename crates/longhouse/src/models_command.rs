//! `longhouse models`: what serves which task, and bringing keys over from other systems.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use longhouse_config::Config;
use longhouse_database::{Database, DatabaseOptions};
use longhouse_gateway::keys::{Holder, NewKey, PostgresKeys, StaticKeys, import};
use longhouse_gateway::{MIGRATIONS, ProviderName, SCHEMA};
use miette::{IntoDiagnostic, Result, miette};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::ai_v1;
use crate::db::Session;
use crate::offline::Emulated;
use crate::settings::SettingsArgs;

/// Names the key that sealed what is imported: on a command line, others would see it.
const OLD_KEY: &str = "IMPORT_ENCRYPTION_KEY";
/// Bytes of a file of keys that are read.
const MOST_FILE: u64 = 16 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  longhouse models list
  IMPORT_ENCRYPTION_KEY=… longhouse models import-keys keys.jsonl --sealed-by fernet --dry-run
  IMPORT_ENCRYPTION_KEY=… longhouse models import-keys keys.jsonl --sealed-by fernet

Each line of the file is a JSON object: `provider`, `sealed`, one of `user`, `tenant`, `project` (an id), and if wanted
`app` and `name`. Nothing is stored unless every line opens.")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show tasks, the models that serve each, and what is wrong with the file of models
    #[command(after_help = "Example:\n  longhouse models list")]
    List,
    /// Bring over keys of providers that another system sealed
    #[command(
        after_help = "Example:\n  IMPORT_ENCRYPTION_KEY=… longhouse models import-keys keys.jsonl --sealed-by fernet"
    )]
    ImportKeys {
        /// File with one JSON object a line
        file: PathBuf,
        /// How the secrets are sealed
        #[arg(long, value_enum)]
        sealed_by: SealedBy,
        /// Open everything and store nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SealedBy {
    /// Fernet tokens
    Fernet,
    /// AES-256-GCM, the key made of a password by PBKDF2-SHA256
    AesGcm,
}

pub(crate) async fn run(args: ModelsArgs) -> Result<ExitCode> {
    let config = args.settings.load()?.config;
    match args.command {
        Command::List => list(&config),
        Command::ImportKeys { file, sealed_by, dry_run } => {
            let old = std::env::var(OLD_KEY).ok().filter(|key| !key.trim().is_empty());
            let old = old.ok_or_else(|| miette!("set {OLD_KEY} to the key that sealed these secrets"))?;
            let known = ai_v1::configuration(&config, Emulated::of(&config))?.0;
            let known = |name: &str| known.providers.contains_key(&ProviderName::new(name));
            let keys = opened(&text(&file)?, sealed_by, &old.trim().into(), known)?;
            if dry_run {
                println!("{} keys open; nothing was stored", keys.len());
                return Ok(ExitCode::SUCCESS);
            }
            Box::pin(store(&config, keys)).await
        }
    }
}

fn list(config: &Config) -> Result<ExitCode> {
    let (configuration, keys) = ai_v1::configuration(config, Emulated::of(config))?;
    for (task, settings) in &configuration.tasks {
        println!("{task} ({})", settings.modality);
        for model in &settings.models {
            let provider = configuration.providers.get(&model.provider);
            let keyless =
                provider.is_some_and(|provider| provider.protocol.needs_key()) && !keys.has(&model.provider);
            let note = match provider.and_then(|provider| provider.key_variable.as_deref()) {
                Some(variable) if keyless => {
                    format!("  (no key here: set {variable}, or people bring theirs)")
                }
                _ => String::new(),
            };
            println!("  {model}{note}");
        }
    }
    for warning in configuration.warnings() {
        println!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn text(file: &Path) -> Result<String> {
    let unreadable = |reason: &dyn std::fmt::Display| miette!("{} cannot be read: {reason}", file.display());
    let opened = File::open(file).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    opened.take(MOST_FILE + 1).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    if text.len() as u64 > MOST_FILE {
        return Err(unreadable(&"it is larger than 16 MiB"));
    }
    Ok(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    provider: String,
    /// Text, or an envelope as JSON.
    sealed: Value,
    user: Option<Uuid>,
    tenant: Option<Uuid>,
    project: Option<Uuid>,
    #[serde(default)]
    app: String,
    #[serde(default)]
    name: String,
}

/// Every key of the file, or everything that is wrong with it. Messages name lines, never what they hold.
fn opened(
    text: &str,
    sealed_by: SealedBy,
    old: &SecretString,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<NewKey>> {
    let (mut keys, mut mistakes) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match one(line, sealed_by, old, &known) {
            Ok(key) => keys.push(key),
            Err(mistake) => mistakes.push(format!("line {}: {mistake}", index + 1)),
        }
    }
    match (mistakes.is_empty(), keys.is_empty()) {
        (true, false) => Ok(keys),
        (true, true) => Err(miette!("the file holds no keys")),
        (false, _) => Err(miette!("{}\nnothing was stored", mistakes.join("\n"))),
    }
}

fn one(
    line: &str,
    sealed_by: SealedBy,
    old: &SecretString,
    known: &impl Fn(&str) -> bool,
) -> Result<NewKey, String> {
    // The error's own text may quote the line.
    let line: Line = serde_json::from_str(line).map_err(|error| {
        let place = error.column();
        format!("this is no JSON object of that form (column {place}): see `longhouse models --help`")
    })?;
    let holder = match (line.user, line.tenant, line.project) {
        (Some(user), None, None) => Holder::User(user),
        (None, Some(tenant), None) => Holder::Tenant(tenant),
        (None, None, Some(project)) => Holder::Project(project),
        _ => return Err("say whose key it is, with one of `user`, `tenant`, `project`".into()),
    };
    if !known(&line.provider) {
        return Err(format!("`{}` is no provider here: see `longhouse models list`", line.provider));
    }
    let sealed = match &line.sealed {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let secret = match sealed_by {
        SealedBy::Fernet => import::fernet(&sealed, old),
        SealedBy::AesGcm => import::aes_gcm_pbkdf2(&sealed, old),
    };
    Ok(NewKey {
        holder,
        provider: ProviderName::new(&line.provider),
        app: line.app,
        name: line.name,
        secret: secret.map_err(|error| error.to_string())?,
        base_url: None,
    })
}

async fn store(config: &Config, new: Vec<NewKey>) -> Result<ExitCode> {
    let mut session = Box::pin(Session::open(config, false)).await?;
    let stored = async {
        Box::pin(longhouse_database::migrations::app(session.client(), SCHEMA, MIGRATIONS))
            .await
            .into_diagnostic()?;
        let options = DatabaseOptions {
            url: session.url.clone(),
            pool_size: 2,
            pool_timeout: config.database.pool_timeout,
            ca_file: config.database.ca_file.clone(),
        };
        let database = Database::connect(&options).await.into_diagnostic()?;
        let keys = PostgresKeys::new(database, ai_v1::master_keys(config)?, StaticKeys::default());
        let count = new.len();
        for (index, key) in new.into_iter().enumerate() {
            keys.put(key)
                .await
                .map_err(|error| miette!("{index} of {count} keys were stored, then: {error}"))?;
        }
        println!("{count} keys were stored, each in place of the one that its owner had");
        Ok::<_, miette::Report>(())
    };
    let stored = Box::pin(stored).await;
    session.close().await?;
    stored.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// The specification's own example: `hello`.
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    fn line(more: &str) -> String {
        format!(r#"{{"provider": "openai", "sealed": "{TOKEN}"{more}}}"#)
    }

    fn read(text: &str) -> Result<Vec<NewKey>> {
        opened(text, SealedBy::Fernet, &KEY.into(), |name| name == "openai")
    }

    #[test]
    fn a_file_of_keys_opens() {
        let id = Uuid::from_u128(7);
        let user = line(&format!(r#", "user": "{id}", "name": "old""#));
        let tenant = line(&format!(r#", "tenant": "{id}""#));
        let keys = read(&format!("{user}\n\n{tenant}\n")).unwrap();
        assert_eq!((keys.len(), keys[0].holder, keys[1].holder), (2, Holder::User(id), Holder::Tenant(id)));
        assert_eq!((keys[0].secret.expose_secret(), keys[0].name.as_str()), ("hello", "old"));
    }

    #[test]
    fn one_bad_line_is_named_and_nothing_is_taken() {
        let fine = line(&format!(r#", "user": "{}""#, Uuid::nil()));
        let cases = [
            ("", "holds no keys"),
            ("planted", "line 1: this is no JSON object"),
            (&line(""), "line 1: say whose key"),
            (&format!("{fine}\n{}", fine.replace("openai", "nobody")), "line 2: `nobody` is no provider"),
            (&fine.replace("5CV9", "5CV8"), "line 1: it does not open"),
        ];
        for (text, expected) in cases {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(expected) && !told.contains("planted"), "{told}");
        }
    }
}
