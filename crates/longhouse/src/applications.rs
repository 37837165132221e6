//! The applications that are switched on: their schemas, their start, their routes.

use std::sync::Arc;

use longhouse_config::Config;
use longhouse_database::tokio_postgres::Client;
use longhouse_database::{Database, migrations};
use longhouse_identity::ProjectKeys;
use longhouse_operations::health::Capacity;
use longhouse_receptionist::{Options, Receptionist, StreamTokens, demo};
use longhouse_server::Drain;
use longhouse_voice::callers::twilio::signature;
use longhouse_voice::session::Settings;
use longhouse_voice::upstreams::realtime::Connector;
use miette::{IntoDiagnostic, WrapErr};
use secrecy::SecretString;
use utoipa_axum::router::OpenApiRouter;

use crate::offline::Emulated;

/// What the applications' schemas hold after they were brought up to date.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepared {
    /// A number that can be called at once.
    pub(crate) demo_number: Option<String>,
}

/// Brings the schemas up to date, and makes something to try where nothing is and callers are emulated.
pub(crate) async fn prepare(
    config: &Config,
    emulated: Emulated,
    owner: &mut Client,
) -> miette::Result<Prepared> {
    let mut prepared = Prepared::default();
    if config.receptionist.enabled {
        Box::pin(migrations::app(owner, longhouse_receptionist::SCHEMA, longhouse_receptionist::MIGRATIONS))
            .await
            .into_diagnostic()?;
        if emulated.twilio {
            let number =
                demo::ensure(owner).await.into_diagnostic().wrap_err("making the demonstration business")?;
            prepared.demo_number = number.map(str::to_owned);
        }
    }
    Ok(prepared)
}

/// The applications of a serving process.
#[derive(Clone)]
pub(crate) struct Applications {
    receptionist: Option<Arc<Receptionist>>,
}

impl Applications {
    /// Starts what is switched on.
    pub(crate) fn start(
        config: &Config,
        keys: &ProjectKeys,
        database: &Database,
        drain: &Drain,
    ) -> miette::Result<Self> {
        let receptionist =
            config.receptionist.enabled.then(|| receptionist(config, keys, database, drain)).transpose()?;
        Ok(Self { receptionist: receptionist.map(Arc::new) })
    }

    /// All their routes.
    pub(crate) fn router(&self) -> OpenApiRouter {
        self.receptionist.as_ref().map_or_else(OpenApiRouter::new, |receptionist| receptionist.router())
    }

    /// Routes that providers call: exempt from per-client limits.
    pub(crate) fn webhooks() -> impl Iterator<Item = &'static str> {
        longhouse_receptionist::WEBHOOKS.iter().copied()
    }

    /// Calls now and at most.
    pub(crate) fn capacity(&self) -> Capacity {
        match &self.receptionist {
            Some(receptionist) => {
                let (active, max) = receptionist.capacity();
                Capacity { active, max }
            }
            None => Capacity { active: 0, max: usize::MAX },
        }
    }
}

fn receptionist(
    config: &Config,
    keys: &ProjectKeys,
    database: &Database,
    drain: &Drain,
) -> miette::Result<Receptionist> {
    let session = Settings {
        start_timeout: config.receptionist.start_timeout,
        tool_timeout: config.receptionist.tool_timeout,
        max_duration: config.receptionist.max_call_duration,
        session_cap: config.openai.session_cap,
        ..Settings::default()
    };
    // Without a key the service refuses, and callers hear the apology that every outage of it has.
    let api_key = config.openai.api_key.clone().unwrap_or_else(|| SecretString::from(""));
    let connector = Connector::new(
        &config.openai.realtime_url,
        &config.openai.realtime_model,
        api_key,
        session.ready_timeout,
    )
    .into_diagnostic()
    .wrap_err("setting up TLS to openai.realtime_url")?;
    let tokens = [&config.twilio.auth_token, &config.twilio.auth_token_previous];
    Ok(Receptionist::start(Options {
        database: database.clone(),
        connector,
        transcription_model: config.openai.transcription_model.clone(),
        session,
        verifier: signature::Verifier::new(tokens.into_iter().flatten().cloned()),
        account_sid: config.twilio.account_sid.clone(),
        tokens: match &config.receptionist.stream_secret {
            Some(secret) => StreamTokens::new(secret.clone()),
            None => StreamTokens::derived(&keys.jwt_secret),
        },
        stream_url: config.twilio.stream_url.clone(),
        max_calls: config.receptionist.max_calls,
        drain: drain.clone(),
    }))
}
