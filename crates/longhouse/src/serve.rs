//! `longhouse serve`: everything in order up, and in reverse order down.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use longhouse_config::{Config, Offline};
use longhouse_database::cluster::Cluster;
use longhouse_emulators::openai;
use longhouse_identity::service::Signer;
use longhouse_identity::{External, KeyRing, ProjectKeys, Verifier};
use longhouse_operations::logs::{self, RecentLogs};
use longhouse_operations::metrics::Metrics;
use longhouse_server::{Drain, Listener};
use longhouse_studio::Options;
use miette::IntoDiagnostic;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::ai_v1::{self, AiV1};
use crate::applications::Applications;
use crate::auth_v1::AuthV1;
use crate::banner::{Secrets, greeting};
use crate::composition::Services;
use crate::offline::Emulated;
use crate::platform::Platform;
use crate::realtime_v1::{self, RealtimeV1};
use crate::rest_v1::RestV1;
use crate::run_state::{RunState, process_start};
use crate::settings::{ServerArgs, SettingsArgs};
use crate::signals::Signals;
use crate::storage_v1::{self, StorageV1};
use crate::{auth_v1, build, checks, composition, emulate, studio};

/// Exit code of a process that a second signal ended, as shells report an interrupt.
const INTERRUPTED: u8 = 130;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  longhouse serve\n  longhouse serve --data /var/lib/longhouse --host 0.0.0.0 --port 8080\n  OPENAI_API_KEY=sk-… longhouse serve --no-offline"
)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: ServeArgs) -> miette::Result<ExitCode> {
    let started = Instant::now();
    let mut config = args.settings.load_with(&args.server)?.config;
    let recent = logs::init(&config.log).into_diagnostic()?;
    make_private(&config.data)?;
    if let Some(other) = RunState::of_running(&config.data)? {
        return Err(miette::miette!(
            "a Longhouse already runs on {} (process {}, {}): use it, stop it with `longhouse stop`, or give this one another folder with --data",
            config.data.display(),
            other.pid,
            other.api_url
        ));
    }
    raise_open_files();
    let mut signals = Signals::new()?;
    let running = tokio::select! {
        running = Box::pin(start(&mut config, started, recent)) => running?,
        // While it starts there is nobody to drain; a database left running is adopted by the next start.
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    signals.next().await;
    let code = tokio::select! {
        stopped = Box::pin(running.stop(config.server.drain_timeout)) => stopped.map(|()| ExitCode::SUCCESS),
        () = signals.next() => {
            tracing::warn!("stopping at once");
            Ok(ExitCode::from(INTERRUPTED))
        }
    };
    RunState::remove(&config.data);
    code
}

/// A server that answers.
struct Running {
    cluster: Option<Cluster>,
    openai: Option<openai::Server>,
    drain: Drain,
    serving: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    following: JoinHandle<()>,
    rest: RestV1,
    auth: Option<AuthV1>,
    storage: Option<StorageV1>,
    realtime: Option<RealtimeV1>,
    ai: Option<AiV1>,
}

async fn start(config: &mut Config, started: Instant, recent: RecentLogs) -> miette::Result<Running> {
    // Before anything that takes time, so that a busy port is told at once.
    let listener =
        Listener::bind(SocketAddr::new(config.server.host, config.server.port)).await.into_diagnostic()?;
    // Sockets of realtime are many, and must leave room for everything else.
    let listener = listener.max_connections(20_000.max(config.realtime.max_connections + 2_000));
    let keys = ProjectKeys::load_or_create(config).into_diagnostic()?;
    let emulated = Emulated::of(config);
    if emulated.twilio {
        config.twilio.auth_token = Some(keys.twilio_auth_token.clone());
    }
    let openai = match emulated.openai {
        true => Some(emulate_openai(config).await?),
        false => None,
    };
    let metrics = Metrics::install(build::VERSION, &build::id()).into_diagnostic()?;
    let platform = Platform::start(config, emulated).await?;
    let drain = Drain::new();
    let applications = Applications::start(config, &keys, &platform.database, &drain)?;
    let rest = Box::pin(RestV1::start(config, &platform)).await?;
    let (ring, following) = follow_keys(config, &keys, &platform).await?;
    let verifier = Verifier::of(&keys, &ring);
    let address = reachable(listener.local_addr());
    let auth =
        auth_v1::start(config, &platform.database, address, verifier.clone(), Signer::of(&ring), &drain)?;
    let storage = storage_v1::start(config, &platform.database, &keys, verifier.clone(), &drain).await?;
    let realtime = realtime_v1::start(config, &platform, verifier.clone(), &drain).await?;
    let ai = ai_v1::start(config, emulated, &platform.database, verifier.clone()).await?;
    let health = checks::health(config, &platform.database, emulated, &applications, ai.as_ref(), &drain);
    if let Some(version) = &platform.migration_version {
        health.set_migration_version(version.clone());
    }
    let studio = studio::start(config, auth.as_ref(), |auth| Options {
        database: platform.database.clone(),
        verifier: verifier.clone(),
        health: health.clone(),
        logs: recent,
        version: build::VERSION,
        public_url: config.server.public_url.clone(),
        exposed_schemas: rest.exposed_schemas(),
        publishable_key: keys.publishable_key.expose_secret().to_owned(),
        anon_key: keys.anon_key.expose_secret().to_owned(),
        service_key: keys.service_role_key.clone(),
        auth: auth.router(),
        storage: storage.as_ref().map(|running| running.storage.router()),
        mailbox: auth_v1::has_mailbox(config).then(|| auth.mailbox_router()),
    });
    let operator = match &studio {
        Some(studio) => studio::prepare(config, &platform.database, studio, auth.as_ref(), &keys).await?,
        None => None,
    };
    let services = Services {
        applications: &applications,
        rest: &rest,
        auth: auth.as_ref().map(|running| &running.service),
        storage: storage.as_ref().map(|running| &running.storage),
        realtime: realtime.as_ref().map(|running| &running.realtime),
        ai: ai.as_ref().map(|running| &running.routes),
        studio: studio.as_ref(),
    };
    let router = composition::router(config, &services, &health, &metrics, &verifier);
    let mut state = run_state(config, &keys, &platform, emulated, listener.local_addr());
    if ai.as_ref().is_some_and(|ai| !ai.has_keys) && config.offline != Offline::Never {
        state.emulated.push("model calls (by the provider `offline`)".to_owned());
    }
    state.studio_url = studio.is_some().then(|| format!("{}/studio", state.api_url));
    state.operator = operator;
    state.write(&config.data)?;

    let upkeep = metrics.spawn_upkeep();
    let serving = tokio::spawn(longhouse_server::serve(listener, router, drain.clone()));
    let unanswered = emulated.leaves_callers_unanswered(config);
    let milliseconds = started.elapsed().as_millis();
    println!("{}", greeting(&state, Secrets::for_output(&state), unanswered, milliseconds));
    if unanswered {
        tracing::warn!("OPENAI_API_KEY is not set: no model answers calls, callers hear an apology");
    }
    tracing::info!(address = state.api_url, emulated = ?state.emulated, "ready in {milliseconds} ms");
    Ok(Running {
        cluster: platform.cluster,
        openai,
        drain,
        serving,
        upkeep,
        following,
        rest,
        auth,
        storage,
        realtime,
        ai,
    })
}

impl Running {
    /// Lets sessions end, closes the door, then stops what the requests needed.
    async fn stop(self, patience: Duration) -> miette::Result<()> {
        tracing::info!(
            sessions = self.drain.sessions(),
            ?patience,
            "draining; a second signal stops at once"
        );
        let cut_off = self.drain.run(patience).await;
        if cut_off > 0 {
            tracing::warn!(cut_off, "sessions were still open at the deadline");
        }
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener failed");
        }
        self.upkeep.abort();
        self.following.abort();
        drop(self.rest);
        if let Some(auth) = self.auth
            && let Err(error) = auth.mailing.await
        {
            tracing::error!(%error, "the task that sends mail failed");
        }
        if let Some(realtime) = self.realtime {
            realtime.stop().await;
        }
        if let Some(ai) = self.ai {
            ai.stop().await;
        }
        // Its round ends before the database does.
        if let Some(storage) = self.storage
            && let Err(error) = storage.sweeping.await
        {
            tracing::error!(%error, "the sweeper of files failed");
        }
        if let Some(openai) = self.openai {
            openai.stop().await;
        }
        match self.cluster {
            Some(cluster) => cluster.stop().await.into_diagnostic(),
            None => Ok(()),
        }
    }
}

/// The keys of tokens: in our own database, or as a hosted project publishes them.
async fn follow_keys(
    config: &Config,
    keys: &ProjectKeys,
    platform: &Platform,
) -> miette::Result<(KeyRing, JoinHandle<()>)> {
    let ring = KeyRing::new(keys);
    let ring = match &config.supabase.url {
        Some(project) => ring.with_external(External::of_project(project).into_diagnostic()?),
        None => ring.with_database(platform.database.clone()),
    };
    match ring.refresh().await {
        Ok(()) => {}
        // The project may be away for a moment; its keys are fetched when the first token names one.
        Err(error) if config.supabase.url.is_some() => {
            tracing::warn!(%error, "no keys of the hosted project yet");
        }
        Err(error) => return Err(error).into_diagnostic(),
    }
    let following = ring.follow();
    Ok((ring, following))
}

/// Runs the emulator on a port of its own and points the configuration at it.
async fn emulate_openai(config: &mut Config) -> miette::Result<openai::Server> {
    let options = openai::Options { session_cap: config.openai.session_cap, ..openai::Options::default() };
    let server = emulate::start(options).await?;
    config.openai.realtime_url = server.url();
    config.openai.api_key = Some("emulated".into());
    Ok(server)
}

fn run_state(
    config: &Config,
    keys: &ProjectKeys,
    platform: &Platform,
    emulated: Emulated,
    address: SocketAddr,
) -> RunState {
    let text = |secret: &secrecy::SecretString| secret.expose_secret().to_owned();
    RunState {
        pid: std::process::id(),
        process_start: process_start(std::process::id()),
        started_at: now(),
        version: build::VERSION.to_owned(),
        api_url: format!("http://{}", reachable(address)),
        database_url: platform.shown_url.clone(),
        studio_url: None,
        operator: None,
        mailbox_url: auth_v1::has_mailbox(config).then(|| format!("http://{}/mailbox", reachable(address))),
        anon_key: text(&keys.anon_key),
        service_role_key: text(&keys.service_role_key),
        publishable_key: text(&keys.publishable_key),
        secret_key: text(&keys.secret_key),
        jwt_secret: text(&keys.jwt_secret),
        twilio_auth_token: config.twilio.auth_token.as_ref().map(text),
        demo_number: platform.prepared.demo_number.clone(),
        emulated: emulated.names(),
    }
}

/// An address to connect to: one that listens everywhere is reached on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, address.port())
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The data folder holds keys and the database: it is its owner's alone. Root's managed Postgres runs as another
/// user, who must be able to pass through (not to look); every file in it has a mode of its own.
fn make_private(data: &Path) -> miette::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let made = match fs::metadata(data) {
        Ok(meta) => claim(data, &meta).and_then(|claim| match claim {
            Claim::Ours => fs::set_permissions(data, fs::Permissions::from_mode(mode)),
            Claim::Neighbours => Ok(()),
            Claim::Shared => Err(io::Error::other(
                "others may write to it; name a folder inside it, or make it private (chmod 0700 and no sticky bit) if it is yours alone",
            )),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(mode).create(data)
        }
        Err(error) => Err(error),
    };
    made.map_err(|error| {
        miette::miette!(
            "cannot use the data folder {}: {error}; choose another with --data, or run as its owner",
            data.display()
        )
    })
}

/// What an existing folder is to us.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// Its mode is ours to set.
    Ours,
    /// Something else lives in it: usable, but its mode stays.
    Neighbours,
    /// Others may put files into it.
    Shared,
}

fn claim(data: &Path, meta: &fs::Metadata) -> io::Result<Claim> {
    let us = rustix::process::geteuid().as_raw();
    let holds_ours = ["keys.json", "run.json", "postgres/credentials.json"].iter().any(|name| {
        // Anybody can plant a file of that name in a shared folder, but not one of ours.
        fs::symlink_metadata(data.join(name))
            .is_ok_and(|file| file.is_file() && (file.uid() == us || file.uid() == meta.uid()))
    });
    // The sticky bit marks a place such as /tmp, whatever an earlier run left in it.
    if meta.mode() & 0o1000 != 0 || (meta.mode() & 0o022 != 0 && !holds_ours) {
        return Ok(Claim::Shared);
    }
    let free = || fs::read_dir(data).map(|mut entries| meta.uid() == us && entries.next().is_none());
    Ok(if holds_ours || free()? { Claim::Ours } else { Claim::Neighbours })
}

/// A call holds two sockets; the usual soft limit of 1024 files would end the service at 500 calls.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, current = ?limit.current, "the open-file limit stays low; raise it with ulimit -n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_our_own_change_their_mode() {
        let parent = tempfile::tempdir().unwrap();
        let after = |name: &str, mode: u32, holds: Option<&str>| {
            let data = parent.path().join(name);
            fs::create_dir(&data).unwrap();
            if let Some(file) = holds {
                fs::write(data.join(file), "").unwrap();
            }
            fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
            let made = make_private(&data).map_err(|error| error.to_string());
            (made, fs::metadata(&data).unwrap().mode() & 0o7777)
        };
        let private = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        assert_eq!(after("empty", 0o755, None), (Ok(()), private));
        assert_eq!(after("used", 0o755, Some("keys.json")), (Ok(()), private));
        assert_eq!(after("opened", 0o775, Some("run.json")), (Ok(()), private));
        assert_eq!(after("project", 0o755, Some("README")), (Ok(()), 0o755));
        for (name, mode, holds) in
            [("tmp", 0o1777, None), ("group", 0o775, None), ("loot", 0o1777, Some("keys.json"))]
        {
            let (made, left) = after(name, mode, holds);
            assert!(made.unwrap_err().contains("others may write to it"), "{name}");
            assert_eq!(left, mode, "{name}");
        }
        let new = parent.path().join("a/b");
        make_private(&new).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, private);
    }

    #[test]
    fn a_server_that_listens_everywhere_is_reached_here() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.1.2.3:80".parse().unwrap()).to_string(), "10.1.2.3:80");
    }
}
