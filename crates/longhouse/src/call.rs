//! `longhouse call`: phones a deployment as Twilio would, and prints the conversation.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use longhouse_emulators::speech::Speaker;
use longhouse_emulators::twilio::{CallEvent, CallOptions, CallReport, Caller, Outcome, Step, read_8k};
use miette::{Context, IntoDiagnostic, bail, miette};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

const WEBHOOK_PATH: &str = "/functions/v1/twilio-router";
/// A server that is being restarted is back by then; who mistyped an address is told soon.
const PATIENCE: Duration = Duration::from_secs(3);
const DEFAULT_QUESTION: &str = "What are your opening hours?";
const DEFAULT_NUMBER: &str = "+15550100";

/// Calls a number and holds a conversation: waits for the greeting, says each text, waits for each
/// reply, hangs up. No phone and no Twilio account is needed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longhouse call --say \"What are your opening hours?\"\n  \
    longhouse call --to +15550100 --say \"Hello\" --say \"Goodbye\" --record call.wav\n  \
    longhouse call --url https://phone.example/functions/v1/twilio-router --to +15551234567 --wav question.wav")]
pub(crate) struct CallArgs {
    /// The number to call [default: the running server's demo number].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) to: Option<String>,
    /// What the caller says; repeat it for more turns.
    #[arg(long, value_name = "TEXT", conflicts_with = "wav")]
    pub(crate) say: Vec<String>,
    /// What the caller says, as a 16-bit WAV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) wav: Option<PathBuf>,
    /// Writes the call here: left the caller, right the agent.
    #[arg(long, value_name = "OUT.WAV")]
    pub(crate) record: Option<PathBuf>,
    /// The caller's number.
    #[arg(long, value_name = "NUMBER", default_value = "+15550199")]
    pub(crate) from: String,
    /// The number's voice webhook [default: that of the server running on --data].
    #[arg(long, value_name = "WEBHOOK")]
    pub(crate) url: Option<Url>,
    /// The webhook's public URL, when the server checks signatures against another than --url.
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) public_url: Option<Url>,
    /// The data folder of a running server.
    #[arg(long, value_name = "DIR", default_value = ".longhouse")]
    pub(crate) data: PathBuf,
    /// Signs the call as Twilio would [default: the running server's].
    #[arg(long, value_name = "TOKEN", env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    pub(crate) auth_token: Option<SecretString>,
    /// Prints one JSON object at the end instead of the conversation.
    #[arg(long)]
    pub(crate) json: bool,
    /// Hangs up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub(crate) timeout: u64,
}

/// What a running server writes into its data folder; the rest of the file is not ours.
#[derive(Deserialize, Default)]
struct RunFile {
    api_url: Option<Url>,
    twilio_auth_token: Option<String>,
    demo_number: Option<String>,
}

/// Where and how to call, from the arguments and the running server.
struct Target {
    webhook: Url,
    token: SecretString,
    to: String,
}

/// Makes the call.
///
/// # Errors
/// When the call cannot be made, is not answered, or is not connected to an agent.
pub(crate) async fn run(args: CallArgs) -> miette::Result<()> {
    let target = target(&args)?;
    let speaker = Speaker::detect();
    let mut options = CallOptions::new(target.webhook.clone(), target.token.expose_secret());
    options.public_url = args.public_url.clone();
    options.from = args.from.clone();
    options.to = target.to.clone();
    options.script = script(&args)?;
    options.max_duration = Duration::from_secs(args.timeout);
    options.record_limit = if args.record.is_some() { options.max_duration } else { Duration::ZERO };
    options.webhook_patience = PATIENCE;
    options.speaker = speaker.clone();
    if speaker.is_tone() && args.wav.is_none() {
        eprintln!(
            "espeak-ng is not installed: the caller speaks in beeps that only the offline agent understands. \
             Install it (apt install espeak-ng) for a voice."
        );
    }
    let mut caller = Caller::new(options);
    let report = if args.json {
        caller.run().await.into_diagnostic()?
    } else {
        println!("Calling {} at {}", target.to, target.webhook);
        let mut events = caller.events();
        let print = async move {
            let mut transcript = Transcript::new(io::stdout());
            while let Some(event) = events.recv().await {
                transcript.event(&event)?;
            }
            transcript.end()
        };
        let (report, printed) = tokio::join!(Box::pin(caller.run()), print);
        match printed {
            // Who pipes into `head` has seen enough; the call itself counts.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e).into_diagnostic(),
            _ => report.into_diagnostic()?,
        }
    };
    if let Some(path) = &args.record {
        report.write_recording(path).into_diagnostic()?;
    }
    let answered = !matches!(report.outcome, Outcome::ApplicationError { .. } | Outcome::Rejected)
        || report.duration_ms > 0;
    if args.json {
        let json = serde_json::to_string_pretty(&report).into_diagnostic()?;
        println!("{json}");
    } else if answered {
        print!("{}", summary(&report));
        if let Some(path) = &args.record {
            println!("recording   {}", path.display());
        }
    }
    verdict(&report, &target)
}

fn target(args: &CallArgs) -> miette::Result<Target> {
    let file = args.data.join("run.json");
    let running = match read_run_file(&file) {
        Ok(running) => running,
        // Everything that the file would tell has been given.
        Err(_) if args.url.is_some() && args.auth_token.is_some() => RunFile::default(),
        Err(error) => {
            return Err(error.wrap_err(
                "which server to call is unknown: start one (longhouse serve), name its folder (--data DIR), \
                 or give --url and --auth-token",
            ));
        }
    };
    let webhook = match (&args.url, &running.api_url) {
        (Some(url), _) => url.clone(),
        (None, Some(api)) => api.join(WEBHOOK_PATH).into_diagnostic()?,
        (None, None) => bail!("{} names no api_url: give the webhook with --url", file.display()),
    };
    if !matches!(webhook.scheme(), "http" | "https") {
        bail!("--url is {webhook}: a webhook starts with http:// or https://");
    }
    let token =
        args.auth_token.clone().or(running.twilio_auth_token.map(SecretString::from)).ok_or_else(|| {
            miette!(
                "{} names no twilio_auth_token: give --auth-token, or set TWILIO_AUTH_TOKEN",
                file.display()
            )
        })?;
    let to = args.to.clone().or(running.demo_number).unwrap_or_else(|| DEFAULT_NUMBER.to_owned());
    Ok(Target { webhook, token, to })
}

fn read_run_file(file: &Path) -> miette::Result<RunFile> {
    let text = std::fs::read(file)
        .into_diagnostic()
        .wrap_err_with(|| format!("no server is running there: {} cannot be read", file.display()))?;
    serde_json::from_slice(&text)
        .into_diagnostic()
        .wrap_err_with(|| format!("{} is not what a server writes: restart the server", file.display()))
}

fn script(args: &CallArgs) -> miette::Result<Vec<Step>> {
    let mut script = vec![Step::reply()];
    if let Some(path) = &args.wav {
        let bytes = std::fs::read(path)
            .into_diagnostic()
            .wrap_err_with(|| format!("{} cannot be read", path.display()))?;
        let samples = read_8k(&bytes).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
        script.extend([Step::Play(samples), Step::reply()]);
        return Ok(script);
    }
    let texts = if args.say.is_empty() { vec![DEFAULT_QUESTION.to_owned()] } else { args.say.clone() };
    for text in texts {
        if text.trim().is_empty() {
            bail!("--say is empty: give it some words");
        }
        script.extend([Step::Say(text), Step::reply()]);
    }
    Ok(script)
}

/// Prints a conversation as it happens; the agent's words join the line as they are heard.
struct Transcript<W> {
    out: W,
    /// Something has been written on the current line.
    open: bool,
    /// The current line is the agent's.
    agent: bool,
}

impl<W: Write> Transcript<W> {
    fn new(out: W) -> Self {
        Self { out, open: false, agent: false }
    }

    fn line(&mut self, at_ms: u32, who: &str, text: &str) -> io::Result<()> {
        self.end()?;
        self.open = true;
        write!(self.out, "{:>7.2} s  {who:<7}{text}", f64::from(at_ms) / 1000.0)
    }

    fn event(&mut self, event: &CallEvent) -> io::Result<()> {
        match event {
            CallEvent::Ringing { call_sid } => {
                writeln!(self.out, "ringing ({call_sid})")?;
            }
            CallEvent::Answered { ring_ms } => writeln!(self.out, "answered after {ring_ms} ms")?,
            CallEvent::StreamOpened { at_ms, .. } => self.line(*at_ms, "", "connected to the agent")?,
            CallEvent::StreamClosed { at_ms, code } => {
                let code = code.map_or_else(String::new, |code| format!(" (close code {code})"));
                self.line(*at_ms, "", &format!("the agent's side closed the stream{code}"))?;
            }
            CallEvent::CallerSays { at_ms, text } => self.line(*at_ms, "caller", text)?,
            CallEvent::AgentSpeaks { at_ms, latency_ms } => {
                let after = latency_ms.map_or_else(String::new, |ms| format!("[after {ms} ms]"));
                self.line(*at_ms, "agent", &after)?;
                self.agent = true;
            }
            CallEvent::AgentWord { at_ms, text } => {
                if !(self.open && self.agent) {
                    self.line(*at_ms, "agent", "")?;
                    self.agent = true;
                }
                write!(self.out, " {text}")?;
            }
            CallEvent::Announced { at_ms, text } => {
                self.line(*at_ms, "", &format!("announcement: {text}"))?;
            }
            CallEvent::Warning { at_ms, problem } => self.line(*at_ms, "", &format!("warning {problem}"))?,
            CallEvent::Ended { outcome: Outcome::ApplicationError { .. } | Outcome::Rejected, at_ms: 0 } => {}
            CallEvent::Ended { at_ms, .. } => self.line(*at_ms, "", "the call is over")?,
        }
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        self.agent = false;
        if std::mem::take(&mut self.open) {
            writeln!(self.out)?;
        }
        Ok(())
    }
}

fn list(values: &[u32]) -> String {
    if values.is_empty() {
        return "none".to_owned();
    }
    values.iter().map(|ms| format!("{ms} ms")).collect::<Vec<_>>().join(", ")
}

fn summary(report: &CallReport) -> String {
    let mut lines = vec![String::new()];
    let outcome = match &report.outcome {
        Outcome::HungUpByCaller => "the caller hung up".to_owned(),
        Outcome::EndedByServer => "the agent's side ended the call".to_owned(),
        Outcome::Forwarded { to } => format!("forwarded to {to}"),
        Outcome::Rejected => "rejected".to_owned(),
        Outcome::ApplicationError { code, message } => format!("application error {code}: {message}"),
        Outcome::Timeout => "the time was up: --timeout allows more".to_owned(),
    };
    lines.push(format!("outcome     {outcome}"));
    lines.push(format!("greeting    {}", report.greeting_ms.map_or("none".into(), |ms| format!("{ms} ms"))));
    lines.push(format!("replies     {}", list(&report.reply_latencies_ms)));
    if !report.barge_in_stops_ms.is_empty() {
        lines.push(format!("barge-ins   {}", list(&report.barge_in_stops_ms)));
    }
    if !report.gaps_ms.is_empty() {
        lines.push(format!("gaps        {}", list(&report.gaps_ms)));
    }
    let violations = report.violations().count();
    if violations > 0 {
        lines.push(format!("violations  {violations} of Twilio's protocol, listed above and with --json"));
    }
    if report.greeting_ms.is_some() && report.heard_words.is_empty() {
        lines.push(
            "words       only the offline agent's can be printed: listen to them with --record".to_owned(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

fn verdict(report: &CallReport, target: &Target) -> miette::Result<()> {
    match &report.outcome {
        Outcome::ApplicationError { code, message } => {
            let hint = if message.contains("403") {
                "; a 403 means that the signature was not accepted: check --auth-token and --public-url"
            } else {
                ""
            };
            bail!("the call was not answered (Twilio error {code}): {message}{hint}")
        }
        Outcome::Rejected => bail!("{} rejected the call: check the number given with --to", target.to),
        Outcome::Forwarded { .. } => Ok(()),
        _ if !report.streams.iter().any(|stream| stream.opened_at_ms.is_some()) => {
            bail!(
                "the call was answered but not connected to an agent: is {} one of the server's numbers?",
                target.to
            )
        }
        _ if report.greeting_ms.is_none() => {
            bail!("the call was connected but nothing was heard: the server's log tells why")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        call: CallArgs,
    }

    fn args(list: &[&str]) -> CallArgs {
        Cli::try_parse_from(std::iter::once("call").chain(list.iter().copied())).unwrap().call
    }

    fn folder(run: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.json"), run).unwrap();
        folder
    }

    #[test]
    fn the_running_server_tells_where_to_call() {
        let folder = folder(
            r#"{"api_url":"http://127.0.0.1:54321","twilio_auth_token":"t","demo_number":"+15550107","pid":1}"#,
        );
        let data = folder.path().to_str().unwrap();
        let found = target(&args(&["--data", data])).unwrap();
        assert_eq!(found.webhook.as_str(), "http://127.0.0.1:54321/functions/v1/twilio-router");
        assert_eq!(found.token.expose_secret(), "t");
        assert_eq!(found.to, "+15550107");
        let found = target(&args(&["--data", data, "--to", "+1", "--auth-token", "u"])).unwrap();
        assert_eq!((found.to.as_str(), found.token.expose_secret()), ("+1", "u"));
    }

    #[test]
    fn without_a_server_the_remedy_is_named() {
        let error = target(&args(&["--data", "/nowhere"])).err().unwrap();
        assert!(format!("{error}").contains("longhouse serve"), "{error}");
        let complete = ["--data", "/nowhere", "--url", "https://h/x", "--auth-token", "t"];
        assert_eq!(target(&args(&complete)).unwrap().to, DEFAULT_NUMBER);
        let wrong = ["--data", "/nowhere", "--url", "ftp://h/x", "--auth-token", "t"];
        assert!(target(&args(&wrong)).is_err());
    }

    #[test]
    fn the_auth_token_is_not_shown() {
        let args = args(&["--auth-token", "marker-7"]);
        assert!(!format!("{args:?}").contains("marker-7"));
    }

    #[test]
    fn every_text_gets_a_turn() {
        let script = script(&args(&["--say", "one", "--say", "two"])).unwrap();
        let said: Vec<_> = script
            .iter()
            .filter_map(|step| if let Step::Say(text) = step { Some(text.as_str()) } else { None })
            .collect();
        assert_eq!(said, ["one", "two"]);
        assert_eq!(script.len(), 5);
    }

    #[test]
    fn the_conversation_reads_like_one() {
        let mut out = Vec::new();
        let mut transcript = Transcript::new(&mut out);
        let word = |at_ms, text: &str| CallEvent::AgentWord { at_ms, text: text.to_owned() };
        for event in [
            CallEvent::Answered { ring_ms: 12 },
            CallEvent::AgentSpeaks { at_ms: 400, latency_ms: None },
            word(420, "Good"),
            word(700, "morning!"),
            CallEvent::CallerSays { at_ms: 2000, text: "Hello".into() },
            CallEvent::AgentSpeaks { at_ms: 3100, latency_ms: Some(640) },
            word(3120, "Yes?"),
            CallEvent::Ended { at_ms: 5000, outcome: Outcome::HungUpByCaller },
        ] {
            transcript.event(&event).unwrap();
        }
        transcript.end().unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        answered after 12 ms
           0.40 s  agent   Good morning!
           2.00 s  caller Hello
           3.10 s  agent  [after 640 ms] Yes?
           5.00 s         the call is over
        ");
    }
}
