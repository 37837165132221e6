//! `longhouse emulate`: the providers' stand-ins by themselves, for other programs to talk to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use longhouse_emulators::openai::{Options, Server};

use crate::signals::Signals;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  longhouse emulate\n  longhouse emulate --openai-port 9100 --session-cap 60 --latency-ms 500\n\nPoint any OpenAI Realtime client at the printed address; any bearer token is accepted unless --api-key is given."
)]
pub(crate) struct EmulateArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port of the OpenAI Realtime API; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 54330)]
    openai_port: u16,
    /// The only key to accept
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Longest session, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    session_cap: u64,
    /// How long the model thinks before it speaks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    latency_ms: u64,
}

pub(crate) async fn run(args: EmulateArgs) -> miette::Result<ExitCode> {
    let listen = SocketAddr::new(args.host, args.openai_port);
    let options = Options {
        listen,
        api_key: args.api_key,
        session_cap: Duration::from_secs(args.session_cap),
        first_audio_latency: Duration::from_millis(args.latency_ms),
        ..Options::default()
    };
    let mut signals = Signals::new()?;
    let server = start(options).await?;
    println!("OpenAI Realtime: {}", server.url());
    println!(
        "Use it:          LONGHOUSE_OPENAI__REALTIME_URL={} OPENAI_API_KEY=any longhouse serve",
        server.url()
    );
    println!("Stop:            Ctrl+C");
    signals.next().await;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Starts the emulator, or says what is in its way.
pub(crate) async fn start(options: Options) -> miette::Result<Server> {
    let listen = options.listen;
    Server::start(options).await.map_err(|error| {
        miette::miette!(
            "cannot run the OpenAI emulator on {listen}: {error}; choose another port with --openai-port N"
        )
    })
}
