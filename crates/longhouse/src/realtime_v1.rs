//! `/realtime/v1`: channels, under the project's own keys and policies.

use std::sync::Arc;

use longhouse_config::Config;
use longhouse_database::DatabaseOptions;
use longhouse_identity::{AuthError, Verifier};
use longhouse_realtime::bus::{EventBus, Local, Nats, NatsOptions};
use longhouse_realtime::changes::{Changes, ChangesOptions};
use longhouse_realtime::{Limits, Options, Realtime, TokenError, Verify};
use longhouse_server::Drain;
use miette::{IntoDiagnostic, WrapErr};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::platform::Platform;

/// Where it is served.
pub(crate) const PATH: &str = "/realtime/v1";

/// A running service, and what it does by itself until the process stops.
pub(crate) struct RealtimeV1 {
    pub(crate) realtime: Realtime,
    running: JoinHandle<()>,
    changes: Option<Arc<Changes>>,
}

impl RealtimeV1 {
    /// Waits until nothing of it runs any more. The process must be stopping.
    pub(crate) async fn stop(self) {
        if let Some(changes) = self.changes {
            changes.stop().await;
        }
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the task that joins realtime with other servers failed");
        }
    }
}

/// The service, unless it is switched off or a hosted project has its own.
pub(crate) async fn start(
    config: &Config,
    platform: &Platform,
    verifier: Verifier,
    drain: &Drain,
) -> miette::Result<Option<RealtimeV1>> {
    if !config.realtime.enabled || config.supabase.url.is_some() {
        return Ok(None);
    }
    let bus = bus(config).await?;
    let database = platform.database.clone();
    let realtime = Realtime::new(Options {
        database: database.clone(),
        verify: verify(verifier),
        bus: Arc::clone(&bus),
        limits: limits(&config.realtime),
    });
    let changes = config.realtime.changes.then(|| {
        let options = ChangesOptions::new(replication(config, platform));
        let changes = Changes::start(options, database, bus, realtime.sink());
        realtime.follow(Arc::clone(&changes) as _);
        changes
    });
    let running = tokio::spawn(realtime.run(drain.clone()));
    Ok(Some(RealtimeV1 { realtime, running, changes }))
}

/// The owner replicates: the role of requests may not.
fn replication(config: &Config, platform: &Platform) -> DatabaseOptions {
    DatabaseOptions {
        url: platform.owner_url.clone(),
        pool_size: config.database.pool_size,
        ..platform.requests.clone()
    }
}

async fn bus(config: &Config) -> miette::Result<Arc<dyn EventBus>> {
    let Some(url) = &config.realtime.nats_url else { return Ok(Arc::new(Local::default().join())) };
    let options = NatsOptions {
        servers: url.expose_secret().to_owned(),
        prefix: format!("{}.realtime", config.realtime.nats_prefix),
    };
    let nats = Nats::connect(&options).await.into_diagnostic().wrap_err("setting up realtime.nats_url")?;
    Ok(Arc::new(nats))
}

fn limits(settings: &longhouse_config::Realtime) -> Limits {
    Limits {
        connections: settings.max_connections,
        channels: settings.max_channels,
        joins_per_second: settings.joins_per_second,
        messages_per_second: settings.messages_per_second,
        payload: settings.max_payload,
        presence_per_second: settings.presence_per_second,
        presence_per_channel: settings.presence_per_channel,
        outgoing: settings.max_waiting,
        idle: settings.idle_timeout,
    }
}

/// The project's keys and tokens, refused in the words that Realtime's clients know.
fn verify(verifier: Verifier) -> Verify {
    Arc::new(move |token| {
        verifier.verify(token).map_err(|error| match error {
            AuthError::Expired => TokenError::expired(token),
            AuthError::Signature => TokenError::Signature,
            AuthError::NoExpiry | AuthError::Role => TokenError::MissingClaims,
            AuthError::Malformed | AuthError::Scheme | AuthError::Missing => TokenError::Malformed,
            AuthError::UnknownKey | AuthError::Algorithm | AuthError::NotYetValid | AuthError::Audience => {
                TokenError::Refused(error.to_string())
            }
        })
    })
}
