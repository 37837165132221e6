//! `longhouse emulate`: the providers' stand-ins by themselves, for other programs to talk to.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use longhouse_emulators::ai;
use longhouse_emulators::openai::{Options, Server};

use crate::signals::Signals;

#[derive(Args)]
#[command(after_help = "Examples:
  longhouse emulate
  longhouse emulate --port 9100 --realtime-port 9101 --api-key test
  longhouse emulate --session-cap 60 --latency-ms 500 --clock 60

Every vendor is below a path of its own on one port, over HTTP and WebSocket, as strict as the vendor is. Point any
client, the vendors' own SDKs included, at the printed base URLs; any key is accepted unless --api-key is given.
Recognisers understand speech that an emulator has spoken (it carries its words), not speech of people.")]
pub(crate) struct EmulateArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port of all vendors' models; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 54331)]
    port: u16,
    /// Port of the OpenAI Realtime API by itself, as the receptionist expects it; 0 takes a free one
    #[arg(long, visible_alias = "openai-port", value_name = "N", default_value_t = 54330)]
    realtime_port: u16,
    /// The only key to accept
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Longest OpenAI or xAI session, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    session_cap: u64,
    /// How long a model thinks before it speaks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    latency_ms: u64,
    /// How many times faster the other vendors' limits of time pass (60: an hour in a minute)
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = clock)]
    clock: f64,
}

fn clock(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.001..=100_000.0).contains(&factor) => Ok(factor),
        _ => Err("give a number between 0.001 and 100000".to_owned()),
    }
}

pub(crate) async fn run(args: EmulateArgs) -> miette::Result<ExitCode> {
    let latency = Duration::from_millis(args.latency_ms);
    let sessions = Options {
        listen: SocketAddr::new(args.host, args.realtime_port),
        api_key: args.api_key.clone(),
        session_cap: Duration::from_secs(args.session_cap),
        first_audio_latency: latency,
        ..Options::default()
    };
    let listen = SocketAddr::new(args.host, args.port);
    let options = ai::Options {
        listen,
        api_key: args.api_key,
        live: ai::LiveOptions { latency, clock: args.clock, ..ai::LiveOptions::default() },
        realtime: sessions.clone(),
        ..ai::Options::default()
    };
    let mut signals = Signals::new()?;
    let realtime = start(sessions).await?;
    let models = ai::Server::start(options).await.map_err(|error| {
        miette::miette!("cannot run the emulators on {listen}: {error}; choose another port with --port N")
    })?;
    print!("{}", table(&models));
    println!("\nOpenAI Realtime: {}", realtime.url());
    println!(
        "Use it:          LONGHOUSE_OPENAI__REALTIME_URL={} OPENAI_API_KEY=any longhouse serve",
        realtime.url()
    );
    println!("Stop:            Ctrl+C");
    signals.next().await;
    models.stop().await;
    realtime.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Base URLs, as providers of the gateway's configuration and SDKs take them.
fn table(models: &ai::Server) -> String {
    let rows = [
        (
            "openai",
            models.openai(),
            "chat, responses, speech, transcription, images, embeddings, moderation, realtime",
        ),
        ("anthropic", models.anthropic(), "messages"),
        ("gemini", models.gemini(), "content, embeddings, images; Live over WebSocket"),
        ("xai", models.xai(), "voice sessions over WebSocket"),
        ("deepgram", models.deepgram(), "recordings, Aura; Flux, Nova and Aura over WebSocket"),
        ("cartesia", models.cartesia(), "speech, also over WebSocket"),
        ("elevenlabs", models.elevenlabs(), "speech, transcription; multi-stream-input over WebSocket"),
        ("replicate", models.replicate(), "predictions of pictures"),
    ];
    let width = rows.iter().map(|(_, url, _)| url.as_str().len()).max().unwrap_or_default();
    let mut text = String::from("Models, as base URLs:\n");
    for (name, url, serves) in rows {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {name:<10}  {:<width$}  {serves}", url.as_str());
    }
    text
}

/// Starts the emulator, or says what is in its way.
pub(crate) async fn start(options: Options) -> miette::Result<Server> {
    let listen = options.listen;
    Server::start(options).await.map_err(|error| {
        miette::miette!(
            "cannot run the OpenAI emulator on {listen}: {error}; choose another port with --realtime-port N"
        )
    })
}
