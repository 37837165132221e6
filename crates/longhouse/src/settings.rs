//! From flags to a configuration: what every command shares.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use longhouse_config::{Config, Loaded, Sources};

/// Where settings come from.
#[derive(Args, Clone, Default)]
pub(crate) struct SettingsArgs {
    /// Configuration file [default: longhouse.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the database, files and keys [default: .longhouse]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What `serve` may be told besides.
#[derive(Args, Clone, Default)]
pub(crate) struct ServerArgs {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 54321]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Emulate every provider, also those that have a key
    #[arg(long, conflicts_with = "no_offline")]
    offline: bool,
    /// Emulate no provider: without its key it is unavailable
    #[arg(long)]
    no_offline: bool,
}

impl SettingsArgs {
    /// File, environment and these flags.
    pub(crate) fn load(&self) -> miette::Result<Loaded> {
        load(self.sources())
    }

    /// The same with the server's flags.
    pub(crate) fn load_with(&self, server: &ServerArgs) -> miette::Result<Loaded> {
        let mut sources = self.sources();
        if let Some(host) = server.host {
            sources = sources.flag("server.host", host.to_string());
        }
        if let Some(port) = server.port {
            sources = sources.flag("server.port", port.to_string());
        }
        if server.offline {
            sources = sources.flag("offline", "always");
        }
        if server.no_offline {
            sources = sources.flag("offline", "never");
        }
        load(sources)
    }

    /// The data folder alone: a mistake elsewhere in the configuration must not keep a server from being stopped.
    pub(crate) fn data(&self) -> miette::Result<PathBuf> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Ok(self.load()?.config.data),
        }
    }

    fn sources(&self) -> Sources {
        let mut sources = Sources::process();
        if let Some(file) = &self.config {
            sources = sources.file(file);
        }
        if let Some(data) = &self.data {
            sources = sources.flag("data", data.display().to_string());
        }
        sources
    }
}

fn load(sources: Sources) -> miette::Result<Loaded> {
    Config::load(&sources).map_err(|mistakes| miette::miette!("{mistakes}"))
}
