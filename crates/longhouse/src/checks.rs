//! What is asked when somebody asks how the server is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhouse_config::Config;
use longhouse_database::Database;
use longhouse_gateway::Gateway;
use longhouse_operations::health::{About, Check, Health, Outcome, check, check_every};
use longhouse_server::Drain;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use url::Url;

use crate::ai_v1::AiV1;
use crate::applications::Applications;
use crate::build;
use crate::offline::Emulated;

/// The registry of a serving process.
pub(crate) fn health(
    config: &Config,
    database: &Database,
    emulated: Emulated,
    applications: &Applications,
    ai: Option<&AiV1>,
    drain: &Drain,
) -> Health {
    let (applications, draining) = (applications.clone(), drain.clone());
    let mut builder = Health::builder(about())
        .check(postgres(database.clone()))
        .check(storage(config.data.clone()))
        .capacity(move || applications.capacity())
        .draining(move || draining.is_draining());
    if let Some(ai) = ai {
        builder = builder.check(models(ai.gateway.clone(), ai.has_keys));
    }
    if config.receptionist.enabled {
        builder = builder.check(openai(config, emulated.openai));
    }
    builder.build()
}

/// What is true of this binary wherever it runs.
pub(crate) fn about() -> About {
    About { version: build::VERSION, build_id: build::id(), storage: "local", auth_enabled: true }
}

fn postgres(database: Database) -> Arc<dyn Check> {
    check("database", move || {
        let database = database.clone();
        async move {
            match database.ping().await {
                Ok(()) => Outcome::ok(),
                Err(error) => {
                    // The full reason names hosts and users: that is for the log.
                    tracing::warn!(%error, "the database does not answer");
                    Outcome::failed("the database does not answer; the server's log says why")
                }
            }
        }
    })
}

fn storage(data: PathBuf) -> Arc<dyn Check> {
    check_every("storage", Duration::from_secs(30), move || {
        let probe = data.join(format!("probe.{}.tmp", std::process::id()));
        async move {
            let written = async {
                tokio::fs::write(&probe, b"probe").await?;
                tokio::fs::remove_file(&probe).await
            };
            match written.await {
                Ok(()) => Outcome::ok(),
                Err(error) => Outcome::failed(format!("the data folder cannot be written: {}", error.kind())),
            }
        }
    })
}

/// Providers as model calls found them lately; nothing is asked for the check's sake.
fn models(gateway: Gateway, has_keys: bool) -> Arc<dyn Check> {
    check("models", move || {
        let health = gateway.health();
        async move {
            let ill: Vec<String> = health.into_iter().filter(|of| !of.well).map(|of| of.provider).collect();
            match (ill.is_empty(), has_keys) {
                (true, true) => Outcome::ok(),
                (true, false) => Outcome::ok().because("no provider's key is set"),
                (false, _) => {
                    Outcome::degraded(format!("failing just now: {}; other models take over", ill.join(", ")))
                }
            }
        }
    })
}

fn openai(config: &Config, emulated: bool) -> Arc<dyn Check> {
    let url = config.openai.realtime_url.clone();
    if emulated {
        return check("openai", move || {
            let address = (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port_or_known_default());
            async move {
                match TcpStream::connect((address.0, address.1.unwrap_or(80))).await {
                    Ok(_) => Outcome::ok().because("emulated"),
                    Err(error) => Outcome::failed(format!("the emulator does not answer: {}", error.kind())),
                }
            }
        });
    }
    let Some(key) = config.openai.api_key.clone() else {
        return check("openai", || async {
            Outcome::degraded("no OPENAI_API_KEY: calls are not answered by a model")
        });
    };
    let (client, models) = (reqwest::Client::new(), models_url(&url));
    check_every("openai", Duration::from_secs(60), move || {
        ask_openai(client.clone(), models.clone(), key.clone())
    })
}

/// Lists models: costs nothing, and proves address, network and key.
async fn ask_openai(client: reqwest::Client, models: Url, key: SecretString) -> Outcome {
    match client.get(models).bearer_auth(key.expose_secret()).send().await {
        Ok(response) if matches!(response.status().as_u16(), 401 | 403) => {
            Outcome::failed("OPENAI_API_KEY is refused; make a new one at platform.openai.com")
        }
        Ok(response) if response.status().is_server_error() => {
            Outcome::failed(format!("OpenAI answers {}", response.status().as_u16()))
        }
        Ok(_) => Outcome::ok(),
        Err(error) => {
            tracing::warn!(error = %error.without_url(), "OpenAI cannot be reached");
            Outcome::failed("OpenAI cannot be reached from here; check the network and openai.realtime_url")
        }
    }
}

fn models_url(realtime: &Url) -> Url {
    let mut url = realtime.clone();
    let scheme = if realtime.scheme() == "ws" || realtime.scheme() == "http" { "http" } else { "https" };
    // `set_scheme` refuses some changes, so the text is changed and parsed again.
    if let Some((_, rest)) = realtime.as_str().split_once("://")
        && let Ok(changed) = Url::parse(&format!("{scheme}://{rest}"))
    {
        url = changed;
    }
    url.set_path("/v1/models");
    url.set_query(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_list_is_beside_the_realtime_endpoint() {
        let of = |url: &str| models_url(&Url::parse(url).unwrap()).to_string();
        assert_eq!(of("wss://api.openai.com/v1/realtime?model=x"), "https://api.openai.com/v1/models");
        assert_eq!(of("ws://127.0.0.1:9000/v1/realtime"), "http://127.0.0.1:9000/v1/models");
    }
}
