//! `longhouse rest`: the REST API alone, over any Postgres, configured as PostgREST is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use longhouse_config::{Log, LogFormat};
use longhouse_database::{Database, DatabaseOptions, Lifetimes};
use longhouse_operations::logs;
use longhouse_operations::metrics::Metrics;
use longhouse_rest::admin::Admin;
use longhouse_rest::api::{RestApi, by_token};
use longhouse_rest::openapi::Place;
use longhouse_rest::reload::{ReloadError, ReloadOptions, Reloader, Source};
use longhouse_rest::standalone::{LogLevel, Standalone, listen_host};
use longhouse_server::{Drain, Listener};
use miette::{IntoDiagnostic, WrapErr};

use crate::build;
use crate::signals::Signals;

/// First and longest pause between attempts to reach the database.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

#[derive(Args)]
#[command(
    after_help = "Examples:\n  longhouse rest postgrest.conf\n  PGRST_DB_URI=postgres://authenticator@localhost/app PGRST_DB_ANON_ROLE=web_anon longhouse rest\n\nReads PostgREST's configuration keys and PGRST_* variables."
)]
pub(crate) struct RestArgs {
    /// Configuration file; PGRST_* variables stand above it
    #[arg(value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) async fn run(args: RestArgs) -> miette::Result<ExitCode> {
    let (options, _) = Standalone::load(args.config.as_deref(), std::env::vars()).into_diagnostic()?;
    // Nobody looks at this server's latest entries.
    let _ = logs::init(&Log { filter: filter(options.log_level).into(), format: LogFormat::Auto })
        .into_diagnostic()?;
    // Before the database is waited for, so that a busy port is told at once.
    let listener = Listener::bind(address("server-host", &options.host, options.port).await?).await;
    let listener = listener.into_diagnostic()?;
    let admin = match options.admin_port {
        Some(port) => {
            let address = address("admin-server-host", &options.admin_host, port).await?;
            Some((
                Listener::bind(address).await.into_diagnostic()?,
                Metrics::install(build::VERSION, &build::id()),
            ))
        }
        None => None,
    };
    let mut signals = Signals::new()?;
    let reload = ReloadOptions {
        database: database_options(&options),
        channel: options.channel_enabled.then(|| options.channel.clone()),
        signals: true,
        source: Source::Standalone { file: args.config, environment: std::env::vars().collect() },
    };
    let reloader = tokio::select! {
        started = start(&reload, options.automatic_recovery) => started?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let lifetimes =
        Lifetimes { longest: Some(options.pool_max_lifetime), idle: Some(options.pool_max_idletime) };
    let database = Database::connect(&reload.database).await.into_diagnostic()?.with_lifetimes(lifetimes);
    let place = Place {
        scheme: "http".into(),
        host: options.host.clone(),
        port: listener.local_addr().port(),
        path: "/".into(),
    };
    let api_address = listener.local_addr();
    let drain = Drain::new();
    let admin = match admin {
        Some((listener, metrics)) => {
            let metrics = metrics.into_diagnostic()?;
            let upkeep = metrics.spawn_upkeep();
            let (database, cache) = (database.clone(), reloader.cache());
            let admin =
                Admin { database, cache, api: api_address, metrics: Arc::new(move || metrics.render()) };
            println!("admin server on http://{}", listener.local_addr());
            Some((tokio::spawn(longhouse_server::serve(listener, admin.router(), drain.clone())), upkeep))
        }
        None => None,
    };
    let api = RestApi::new(database, reloader.cache(), reloader.current(), by_token()).with_place(place);
    println!("REST API on http://{api_address}");
    let serving = tokio::spawn(longhouse_server::serve(listener, api.router(), drain.clone()));
    signals.next().await;
    drain.stop();
    serving.await.into_diagnostic()?;
    if let Some((serving, upkeep)) = admin {
        serving.await.into_diagnostic()?;
        upkeep.abort();
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads configuration and schema cache, and keeps trying where the database may still be on its way up.
async fn start(options: &ReloadOptions, patient: bool) -> miette::Result<Reloader> {
    let (mut pause, longest) = PAUSES;
    loop {
        match Reloader::start(options.clone()).await {
            Ok(reloader) => return Ok(reloader),
            Err(ReloadError::Database(error)) if patient && error.is_transient() => {
                tracing::warn!(%error, ?pause, "the database cannot be reached; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            Err(error) => return Err(error).into_diagnostic().wrap_err("the REST API cannot start"),
        }
    }
}

async fn address(option: &str, host: &str, port: u16) -> miette::Result<SocketAddr> {
    let host = listen_host(host);
    tokio::net::lookup_host((host, port))
        .await
        .into_diagnostic()
        .wrap_err_with(|| format!("{option} {host} cannot be resolved"))?
        .next()
        .ok_or_else(|| miette::miette!("{option} {host} has no address"))
}

fn database_options(options: &Standalone) -> DatabaseOptions {
    DatabaseOptions {
        url: options.db_uri.clone(),
        pool_size: options.pool_size,
        pool_timeout: options.pool_acquisition_timeout,
        ca_file: None,
    }
}

fn filter(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Crit | LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "info,longhouse_rest=debug,longhouse_database=debug",
    }
}
