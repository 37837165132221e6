//! `longhouse db`: the project's migrations, compatible with `supabase db` and `supabase migration`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use longhouse_config::{Config, Sources};
use longhouse_database::bootstrap::{self, Passwords};
use longhouse_database::cluster::{Cluster, ClusterOptions, Login, Port};
use longhouse_database::migrations::{self, Progress, PushOptions, PushReport, SeedOutcome, Source, State};
use longhouse_database::tokio_postgres::Client;
use longhouse_database::{DatabaseOptions, connect_client};
use miette::{IntoDiagnostic as _, Result, miette};
use secrecy::{ExposeSecret as _, SecretString};

/// Arguments of `longhouse db`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  longhouse db new create_profiles     makes supabase/migrations/20260101120000_create_profiles.sql
  longhouse db push --dry-run          says what would be applied
  longhouse db push                    applies it

Without --db-url, DATABASE_URL or database.url, the commands work on the running managed server of the data folder,
or start its Postgres for as long as they take.")]
pub(crate) struct DbArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Place {
    /// Database to work on, as the role that owns the schema
    #[arg(long, global = true, value_name = "URL")]
    db_url: Option<SecretString>,
    /// Data folder of the managed server [default: .longhouse]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the migrations [default: supabase/migrations]
    #[arg(long, global = true, value_name = "DIR")]
    migrations: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply pending migrations
    #[command(
        after_help = "Example:\n  longhouse db push --db-url postgres://postgres:…@db.example.com/postgres"
    )]
    Push {
        /// Only print the plan
        #[arg(long)]
        dry_run: bool,
        /// Also apply migrations that are older than the newest applied one
        #[arg(long)]
        include_all: bool,
        /// Also load the seed file, unless it was loaded before
        #[arg(long)]
        include_seed: bool,
        /// Seed file [default: supabase/seed.sql]
        #[arg(long, value_name = "FILE")]
        seed: Option<PathBuf>,
    },
    /// Drop everything the project made, apply all migrations and load the seed
    #[command(after_help = "Example:\n  longhouse db reset --yes")]
    Reset {
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
        /// Reset a database that Longhouse does not manage
        #[arg(long)]
        force: bool,
        /// Leave the seed out
        #[arg(long)]
        no_seed: bool,
        /// Seed file [default: supabase/seed.sql]
        #[arg(long, value_name = "FILE")]
        seed: Option<PathBuf>,
    },
    /// Show every migration and its state
    #[command(after_help = "Example:\n  longhouse db list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create an empty migration file
    #[command(after_help = "Example:\n  longhouse db new create_profiles")]
    New {
        /// What the migration does, e.g. `create_profiles`
        name: String,
    },
    /// Correct the record of what is applied, without running anything
    #[command(after_help = "Example:\n  longhouse db repair --status applied 20260101120000")]
    Repair {
        /// What the versions shall be recorded as
        #[arg(long, value_enum)]
        status: Recorded,
        /// Versions, as `longhouse db list` shows them
        #[arg(required = true)]
        versions: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Recorded {
    Applied,
    Reverted,
}

/// Runs `longhouse db …`.
///
/// # Errors
/// What went wrong, with what to do next.
pub(crate) async fn run(args: DbArgs) -> Result<()> {
    let config = args.place.config(&args.command)?;
    let folder = config.database.migrations.clone();
    if let Command::New { name } = &args.command {
        let path = migrations::new(&folder, name, SystemTime::now()).into_diagnostic()?;
        println!("{}", path.display());
        return Ok(());
    }
    if let Command::Reset { yes: false, .. } = &args.command
        && !std::io::stdin().is_terminal()
    {
        return Err(miette!("this drops data and there is no terminal to ask on; add --yes if you mean it"));
    }

    let mut session = Session::open(&config, args.place.data.is_none()).await?;
    let source = Source::Folder(folder);
    let result = session.run(args.command, &source, &config).await;
    let closed = session.close().await;
    result.and(closed)
}

impl Place {
    /// File, environment and our flags, as every command reads them.
    fn config(&self, command: &Command) -> Result<Config> {
        let mut sources = Sources::process();
        if let Some(url) = &self.db_url {
            sources = sources.flag("database.url", url.expose_secret());
        }
        if let Some(data) = &self.data {
            sources = sources.flag("data", data.display().to_string());
        }
        if let Some(migrations) = &self.migrations {
            sources = sources.flag("database.migrations", migrations.display().to_string());
        }
        let seed = match command {
            Command::Push { seed, .. } | Command::Reset { seed, .. } => seed.as_deref(),
            _ => None,
        };
        // As `supabase/seed.sql` lies beside `supabase/migrations`.
        let beside = self.migrations.as_deref().and_then(Path::parent).map(|parent| parent.join("seed.sql"));
        if let Some(seed) = seed.or(beside.as_deref()) {
            sources = sources.flag("database.seed", seed.display().to_string());
        }
        Ok(Config::load(&sources).into_diagnostic()?.config)
    }
}

/// A connection as the migration owner, and the cluster if it runs only for us.
pub(crate) struct Session {
    client: Client,
    cluster: Option<Cluster>,
    /// Whether Longhouse manages this Postgres.
    managed: bool,
    pub(crate) url: SecretString,
    /// What to call the database in messages, without secrets.
    label: String,
}

impl Session {
    /// The configured database, else that of the running server, else the data folder's, started for as long as this
    /// lives. `announce`: say so when that makes a new one.
    pub(crate) async fn open(config: &Config, announce: bool) -> Result<Self> {
        let running = running_server(&config.data);
        if let Some(url) = &config.database.url {
            let managed = running.as_ref().is_some_and(|own| own.expose_secret() == url.expose_secret());
            let client = connect(config, url).await?;
            return Ok(Self { client, cluster: None, managed, url: url.clone(), label: label(url) });
        }
        if let Some(url) = running {
            match connect(config, &url).await {
                Ok(client) => {
                    let label = label(&url);
                    return Ok(Self { client, cluster: None, managed: true, url, label });
                }
                // Left by a server that was killed.
                Err(error) => tracing::debug!(%error, "the server of run.json does not answer"),
            }
        }
        Self::start_cluster(config, announce).await
    }

    async fn start_cluster(config: &Config, announce: bool) -> Result<Self> {
        let mut options = ClusterOptions::new(config.data.join("postgres"));
        options.bin_dir.clone_from(&config.database.bin_dir);
        if let Some(port) = config.database.port {
            options.port = Port::Exactly(port);
        }
        if announce && !options.dir.exists() {
            eprintln!("making a Postgres in {} (set DATABASE_URL to use another)", options.dir.display());
        }
        let cluster = Box::pin(Cluster::start(options)).await.into_diagnostic()?;
        let opened = async {
            let passwords = Passwords {
                owner: cluster.password(Login::Owner),
                authenticator: cluster.password(Login::Authenticator),
            };
            let mut superuser = connect(config, &cluster.url(Login::Superuser)).await?;
            bootstrap::apply(&mut superuser, Some(&passwords)).await.into_diagnostic()?;
            connect(config, &cluster.url(Login::Owner)).await
        };
        match opened.await {
            Ok(client) => {
                let url = cluster.url(Login::Owner);
                let label = label(&url);
                Ok(Self { client, cluster: Some(cluster), managed: true, url, label })
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = cluster.stop().await;
                Err(error)
            }
        }
    }

    /// The owner's connection.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(crate) async fn close(self) -> Result<()> {
        drop(self.client);
        match self.cluster {
            Some(cluster) => cluster.stop().await.into_diagnostic(),
            None => Ok(()),
        }
    }

    async fn run(&mut self, command: Command, source: &Source, config: &Config) -> Result<()> {
        let seed = config.database.seed.as_path();
        match command {
            Command::Push { dry_run, include_all, include_seed, .. } => {
                let options = PushOptions {
                    dry_run,
                    include_all,
                    include_seed: include_seed.then(|| seed.to_owned()),
                    progress: &show,
                    ..PushOptions::default()
                };
                if !dry_run {
                    self.bootstrap(config).await?;
                }
                let report = migrations::push(&mut self.client, source, options).await.into_diagnostic()?;
                print_report(&report, &self.label, dry_run);
            }
            Command::Reset { yes, force, no_seed, seed: named, .. } => {
                if !self.managed && !force {
                    return Err(miette!(
                        "{} is not managed by Longhouse: a reset would drop all of its data. \
                         Add --force if that is what you want",
                        self.label
                    ));
                }
                if !yes && !confirmed(&self.label)? {
                    println!("nothing was changed");
                    return Ok(());
                }
                self.bootstrap(config).await?;
                // The usual file may be missing; one that was named must be there.
                let include_seed = (!no_seed && (named.is_some() || seed.exists())).then(|| seed.to_owned());
                let options = PushOptions { include_seed, progress: &show, ..PushOptions::default() };
                let report = migrations::reset(&mut self.client, source, options).await.into_diagnostic()?;
                print_report(&report, &self.label, false);
            }
            Command::List { json } => {
                let status = migrations::status(&self.client, source).await.into_diagnostic()?;
                print_status(&status, json);
            }
            Command::Repair { status, versions } => {
                self.bootstrap(config).await?;
                let applied = status == Recorded::Applied;
                migrations::repair(&mut self.client, source, applied, &versions).await.into_diagnostic()?;
                let word = if applied { "applied" } else { "not applied" };
                println!("recorded as {word}: {}", versions.join(", "));
            }
            // Needs no database; see `run`.
            Command::New { .. } => {}
        }
        Ok(())
    }

    /// Only before commands that write: looking at somebody's database must not change it.
    async fn bootstrap(&mut self, config: &Config) -> Result<()> {
        let report = bootstrap::apply(&mut self.client, None).await.into_diagnostic()?;
        if !report.applied.is_empty() {
            // The search path that it has set applies to new sessions.
            self.client = connect(config, &self.url).await?;
        }
        Ok(())
    }
}

/// The database of a running managed server, as it says in `run.json`.
fn running_server(data: &Path) -> Option<SecretString> {
    #[derive(serde::Deserialize)]
    struct Running {
        database_url: SecretString,
    }
    let text = std::fs::read(data.join("run.json")).ok()?;
    serde_json::from_slice::<Running>(&text).ok().map(|running| running.database_url)
}

async fn connect(config: &Config, url: &SecretString) -> Result<Client> {
    let options = DatabaseOptions {
        url: url.clone(),
        pool_size: 1,
        pool_timeout: config.database.pool_timeout,
        ca_file: config.database.ca_file.clone(),
    };
    connect_client(&options).await.into_diagnostic()
}

/// Host and database of a URL, for messages.
fn label(url: &SecretString) -> String {
    match url::Url::parse(url.expose_secret()) {
        Ok(url) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port}{}", url.host_str().unwrap_or("localhost"), url.path())
        }
        Err(_) => "the database".into(),
    }
}

fn confirmed(label: &str) -> Result<bool> {
    print!(
        "This drops everything that the project made in {label}, with all data and accounts. Go on? [y/N] "
    );
    std::io::stdout().flush().into_diagnostic()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).into_diagnostic()?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn show(progress: Progress<'_>) {
    match progress {
        Progress::Waiting => {}
        Progress::Applying { file, number, total } => eprintln!("applying {number}/{total} {file}"),
        Progress::Seeding { file } => eprintln!("loading {file}"),
    }
}

fn print_report(report: &PushReport, label: &str, dry_run: bool) {
    for file in &report.ignored {
        eprintln!("ignored {file}: the name of a migration is <version>_<name>.sql");
    }
    for entry in &report.edited {
        eprintln!(
            "warning: {}_{} was changed after it was applied; the database has its old version. \
             Put the change into a new migration (or, if it is of no consequence, run \
             `longhouse db repair --status applied {}`)",
            entry.version, entry.name, entry.version
        );
    }
    if report.applied.is_empty() {
        println!("{label} is up to date");
    } else {
        println!("{} {label}:", if dry_run { "would be applied to" } else { "applied to" });
        let mut table = table(&["version", "name"]);
        for entry in &report.applied {
            table.add_row([&entry.version, &entry.name]);
        }
        println!("{table}");
    }
    match report.seed {
        SeedOutcome::NotAsked => {}
        SeedOutcome::Loaded if dry_run => println!("the seed would be loaded"),
        SeedOutcome::Loaded => println!("the seed is loaded"),
        SeedOutcome::Unchanged => println!("the seed was loaded before"),
        SeedOutcome::Changed => {
            println!("the seed was loaded before, in another version; `longhouse db reset` loads it anew");
        }
    }
}

fn print_status(status: &migrations::Status, json: bool) {
    if json {
        let entries: Vec<serde_json::Value> = status
            .entries
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "version": entry.version, "name": entry.name, "state": entry.state.as_str(),
                })
            })
            .collect();
        println!("{}", serde_json::Value::Array(entries));
        return;
    }
    for file in &status.ignored {
        eprintln!("ignored {file}: the name of a migration is <version>_<name>.sql");
    }
    let mut table = table(&["version", "name", "state", "next"]);
    for entry in &status.entries {
        let next = match entry.state {
            State::Pending => "longhouse db push",
            State::Applied => "",
            State::AppliedElsewhere => "applied by another tool; content not compared",
            State::MissingLocally => "get the file, or repair --status reverted",
            State::EditedAfterApply => "put the change into a new migration",
        };
        table.add_row([entry.version.as_str(), entry.name.as_str(), entry.state.as_str(), next]);
    }
    match status.entries.is_empty() {
        true => println!("no migrations yet; `longhouse db new <name>` makes the first"),
        false => println!("{table}"),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_shows_no_password() {
        let table = [
            ("postgres://postgres:secret@127.0.0.1:54322/postgres", "127.0.0.1:54322/postgres"),
            ("postgresql://u:secret@db.example.com/app?sslmode=require", "db.example.com/app"),
            ("host=localhost password=secret", "the database"),
        ];
        for (url, expected) in table {
            assert_eq!(label(&url.to_owned().into()), expected);
        }
    }

    #[test]
    fn the_running_server_is_found_by_its_file() {
        let data = tempfile::tempdir().unwrap();
        assert!(running_server(data.path()).is_none());
        std::fs::write(data.path().join("run.json"), r#"{"api_url": "x", "database_url": "postgres://h/d"}"#)
            .unwrap();
        assert_eq!(running_server(data.path()).unwrap().expose_secret(), "postgres://h/d");
    }
}
