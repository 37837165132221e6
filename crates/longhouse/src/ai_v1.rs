//! `/ai/v1`: model calls, over the project's own database.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhouse_config::{Config, Offline};
use longhouse_database::Database;
use longhouse_database::tokio_postgres::Client;
use longhouse_gateway::configuration::Standard;
use longhouse_gateway::jobs::{ChatWork, Jobs, Work, Workers, WorkersOptions};
use longhouse_gateway::keys::envelope::MasterKeys;
use longhouse_gateway::keys::{PostgresKeys, StaticKeys};
use longhouse_gateway::ledger::{LedgerOptions, PostgresLedger};
use longhouse_gateway::prices::{PriceTable, Prices};
use longhouse_gateway::quotas::PostgresQuotas;
use longhouse_gateway::routes;
use longhouse_gateway::safety::PostgresReviews;
use longhouse_gateway::{Configuration, Gateway, MIGRATIONS, SCHEMA};
use longhouse_identity::Verifier;
use miette::{IntoDiagnostic, WrapErr, miette};
use secrecy::SecretString;
use uuid::Uuid;

use crate::offline::Emulated;

/// Read when no file is named and it exists in the working folder.
const DEFAULT_FILE: &str = "models.toml";
/// No file of models is larger; something else is being read.
const LARGEST: u64 = 1024 * 1024;

/// The gateway of a serving process.
pub(crate) struct AiV1 {
    pub(crate) gateway: Gateway,
    pub(crate) routes: routes::Options,
    ledger: Arc<PostgresLedger>,
    workers: Workers,
    /// Whether the platform has a key of any provider.
    pub(crate) has_keys: bool,
}

impl AiV1 {
    /// Waits until every call is settled and in the ledger. The listener must be closed.
    pub(crate) async fn stop(self) {
        self.workers.close().await;
        self.gateway.close().await;
        self.ledger.close().await;
    }
}

/// Brings the gateway's schema up to date.
pub(crate) async fn prepare(config: &Config, owner: &mut Client) -> miette::Result<()> {
    if config.gateway.enabled {
        Box::pin(longhouse_database::migrations::app(owner, SCHEMA, MIGRATIONS)).await.into_diagnostic()?;
    }
    Ok(())
}

/// The gateway, unless it is switched off.
pub(crate) async fn start(
    config: &Config,
    emulated: Emulated,
    database: &Database,
    verifier: Verifier,
) -> miette::Result<Option<AiV1>> {
    if !config.gateway.enabled {
        return Ok(None);
    }
    let (configuration, platform) = configuration(config, emulated)?;
    let has_keys = !platform.is_empty();
    let table =
        PriceTable::known().with(configuration.prices.clone()).map_err(|mistake| miette!("{mistake}"))?;
    let prices = Prices::new(table);
    if let Err(error) = prices.refresh(database).await {
        tracing::warn!(%error, "the operator's prices could not be read yet");
    }
    let masters = master_keys(config)?;
    let keys = PostgresKeys::new(database.clone(), masters, platform);
    let rewrapped =
        keys.rotate().await.into_diagnostic().wrap_err("wrapping stored keys with the master key")?;
    if rewrapped > 0 {
        tracing::info!(rewrapped, "stored keys are under the new master key");
    }
    let quotas = PostgresQuotas::new(database.clone(), configuration.clone(), prices.clone());
    let keep_months = i32::try_from(config.gateway.keep_months).unwrap_or(i32::MAX);
    let options = LedgerOptions { keep_months, ..LedgerOptions::default() };
    let ledger = Arc::new(PostgresLedger::start(database.clone(), prices, options));
    let gateway = Gateway::new(
        configuration,
        Arc::new(keys.clone()),
        Arc::new(quotas.clone()),
        Arc::clone(&ledger) as _,
        config.gateway.allow_private_addresses,
    )
    .into_diagnostic()?
    .with_reviews(Arc::new(PostgresReviews::new(database.clone())));
    let jobs = Jobs::new(database.clone());
    let works: HashMap<&'static str, Arc<dyn Work>> =
        HashMap::from([("chat", Arc::new(ChatWork(gateway.clone())) as Arc<dyn Work>)]);
    let workers = Workers::start(&jobs, works, WorkersOptions::default());
    let routes = routes::Options {
        gateway: gateway.clone(),
        keys,
        quotas,
        jobs,
        database: database.clone(),
        verifier,
        body_limit: config.server.body_limit,
    };
    Ok(Some(AiV1 { gateway, routes, ledger, workers, has_keys }))
}

/// Providers and tasks of the file, the standard ones beside them, and the platform's keys from the environment.
pub(crate) fn configuration(
    config: &Config,
    emulated: Emulated,
) -> miette::Result<(Configuration, StaticKeys)> {
    let written = match file(config) {
        None => Configuration::default_providers(),
        Some(path) => {
            let text = read(&path).wrap_err_with(|| format!("reading {}", path.display()))?;
            Configuration::parse(&text).map_err(|mistakes| miette!("{}:\n{mistakes}", path.display()))?
        }
    };
    let mut keys = StaticKeys::default();
    if config.offline != Offline::Always {
        for (name, settings) in &written.providers {
            let variable = settings.key_variable.as_deref().and_then(|name| std::env::var(name).ok());
            let variable = variable.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
            // The file's key is one too, but not the emulator's.
            let configured =
                config.openai.api_key.clone().filter(|_| name.as_str() == "openai" && !emulated.openai);
            if let Some(secret) = variable.map(SecretString::from).or(configured) {
                keys = keys.with(name.as_str(), secret);
            }
        }
    }
    let standard = match config.offline {
        Offline::Auto => Standard::Auto,
        Offline::Always => Standard::Offline,
        Offline::Never => Standard::Vendors,
    };
    let whole = written.with_standard_tasks(standard, |provider| keys.has(provider));
    Ok((whole, keys))
}

fn file(config: &Config) -> Option<PathBuf> {
    let usual = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
    config.gateway.models.clone().or_else(usual)
}

fn read(path: &Path) -> miette::Result<String> {
    let size = fs::metadata(path).into_diagnostic()?.len();
    if size > LARGEST {
        return Err(miette!("it is larger than 1 MiB: check that it is the file of models"));
    }
    fs::read_to_string(path).into_diagnostic()
}

/// The configured master key, else the one in the data folder, which is made on first use.
pub(crate) fn master_keys(config: &Config) -> miette::Result<MasterKeys> {
    let previous = config.gateway.master_key_previous.as_ref();
    if let Some(current) = &config.gateway.master_key {
        return Ok(MasterKeys::new(current, previous));
    }
    let path = config.data.join("gateway.key");
    let kept =
        kept_key(&path).into_diagnostic().wrap_err_with(|| format!("keeping a key in {}", path.display()))?;
    Ok(MasterKeys::new(&kept, previous))
}

fn kept_key(path: &Path) -> std::io::Result<SecretString> {
    let read = || -> std::io::Result<SecretString> {
        let text = fs::read_to_string(path)?;
        if text.trim().len() < 32 {
            let message =
                "it holds no key; restore it from a backup, or remove it (stored keys are then lost)";
            return Err(std::io::Error::other(message));
        }
        Ok(text.trim().into())
    };
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Two random ids have 244 bits of chance.
            let made = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            writeln!(file, "{made}")?;
            file.sync_all()?;
            // Whoever was first keeps theirs.
            let linked = fs::hard_link(&temporary, path);
            fs::remove_file(&temporary)?;
            match linked {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                _ => read(),
            }
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.key");
        let made = kept_key(&path).unwrap();
        assert_eq!(made.expose_secret().len(), 64);
        assert_eq!(kept_key(&path).unwrap().expose_secret(), made.expose_secret());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(kept_key(&path).unwrap_err().to_string().contains("restore it"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "short", "nothing is overwritten");
    }
}
