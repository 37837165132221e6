//! No key is ever written down: not in a log line at any level, not in an error, not by `Debug`.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use longhouse_emulators::ai::{Fault as RequestFault, Faults, LiveAction, LiveFault, LiveFaults, Options};
use longhouse_emulators::openai::{Action, After, Fault as SessionFault, Faults as SessionFaults};
use longhouse_gateway::chat::ChatRequest;
use longhouse_gateway::speech::{AudioFormat, SpeechRequest};

use super::harness::Desk;
use super::misfortunes::ALL;
use crate::harness::{Bench, KEY, call, task};

/// All that was logged, by `tracing` and by `log`.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl log::Log for Paper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = writeln!(self.clone(), "log {} {} {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

static PAPER: OnceLock<Paper> = OnceLock::new();

/// Everything that this process logs from now on.
fn paper() -> Paper {
    let paper = Paper::default();
    let writer = paper.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("nothing else in this process logs");
    log::set_logger(PAPER.get_or_init(|| paper.clone())).expect("nothing else in this process logs");
    log::set_max_level(log::LevelFilter::Trace);
    paper
}

#[tokio::test]
async fn a_key_is_written_down_nowhere() {
    let paper = paper();
    log::info!("this is how libraries log");
    let mut shown = Vec::new();
    let mut desk = Desk::new().await;
    (desk.idle, desk.first_byte) = (Duration::from_millis(300), Duration::from_millis(300));
    let actions = [
        None,
        Some(LiveAction::Reset),
        Some(LiveAction::Garble),
        Some(LiveAction::Silence),
        // A vendor that repeats the key in its words.
        Some(LiveAction::Close(1008, format!("the key {KEY} is not valid"))),
    ];
    for action in actions {
        let faults = action.clone().map_or_else(LiveFault::default, |action| LiveFault::at(1, action));
        desk.server.set_live_faults(LiveFaults::all(faults));
        let session = match action {
            None => SessionFault::default(),
            Some(LiveAction::Close(code, reason)) => SessionFault::close(After::Frames(1), code, &reason),
            Some(LiveAction::Garble) => SessionFault::action(After::Frames(1), Action::Garble),
            Some(LiveAction::Silence) => SessionFault::action(After::Frames(1), Action::Silence),
            Some(_) => SessionFault::action(After::Frames(1), Action::Drop),
        };
        desk.server.set_realtime_faults(SessionFaults::all(session));
        for who in ALL {
            let (_, error) = who.work(&desk).await;
            shown.push(format!(
                "{who:?} {error:?} {}",
                error.as_ref().map_or(String::new(), ToString::to_string)
            ));
        }
    }
    for status in [401, 429, 500] {
        desk.server.set_live_faults(LiveFaults::all(LiveFault::refuse(status)));
        desk.server.set_realtime_faults(SessionFaults::all(SessionFault::refuse(status)));
        for who in ALL {
            let (_, error) = who.work(&desk).await;
            shown.push(format!("{error:?}"));
        }
    }
    let attempt = desk.attempt(desk.server.deepgram(), "nova-3");
    shown.push(format!("{attempt:?} {:?}", desk.dialer));
    requests(&mut shown).await;
    let shown = shown.join("\n");
    assert!(!shown.contains(KEY), "{}", line_with(&shown));
    let logged = String::from_utf8_lossy(&paper.0.lock().unwrap()).into_owned();
    // The test can fail: what is logged does arrive here, by either way.
    assert!(logged.contains("TRACE") && logged.contains("log INFO"), "{} bytes", logged.len());
    assert!(!logged.contains(KEY), "{}", line_with(&logged));
}

/// The request/response half of the gateway, well and ill.
async fn requests(shown: &mut Vec<String>) {
    let models =
        ["openai/gpt-5-mini", "local/gpt-4.1", "anthropic/claude-haiku-5-5", "gemini/gemini-3-flash-preview"];
    let speech = ["deepgram/aura-2-thalia-en", "elevenlabs/eleven_flash_v2_5", "cartesia/sonic-3"];
    let tasks = task(&models, "attempts = 1")
        + &format!("[tasks.s]\nmodality = \"speech\"\nmodels = {speech:?}\nattempts = 1\n");
    let bench = Bench::new(Options::default(), &tasks).await;
    for fault in [
        RequestFault::default(),
        RequestFault::status(401),
        RequestFault::status(500),
        RequestFault::cut(10),
        RequestFault { garble_event: Some(0), ..RequestFault::default() },
    ] {
        bench.server.set_faults(Faults::all(fault));
        let chat = bench.gateway.chat(&call(), ChatRequest::new("Be brief.", "hello")).await;
        shown.push(match chat {
            Ok(served) => format!("{:?}", served.value.collect().await),
            Err(error) => format!("{error} {error:?}"),
        });
        let mut speak = call();
        speak.task = longhouse_gateway::Task::new("s");
        let spoken =
            bench.gateway.speak(&speak, SpeechRequest::new("Hello.", AudioFormat::Pcm(24_000))).await;
        shown.push(match spoken {
            Ok(served) => format!("{:?}", served.value.collect(1 << 24).await.map(|(audio, _)| audio.len())),
            Err(error) => format!("{error} {error:?}"),
        });
    }
    shown.push(format!("{:?}", bench.gateway));
    bench.gateway.close().await;
}

fn line_with(text: &str) -> &str {
    text.lines().find(|line| line.contains(KEY)).unwrap_or_default()
}
