//! Which models serve which tasks, in which order; which providers there are.
//!
//! ```
//! use longhouse_gateway::Configuration;
//!
//! let configuration = Configuration::parse(r#"
//!     [providers.local]
//!     protocol = "openai-compatible"
//!     base_url = "http://127.0.0.1:11434/v1"
//!
//!     [tasks.npc_reply]
//!     modality = "chat"
//!     models = ["local/llama3.2", "offline/rules"]
//!     deadline_ms = 20000
//! "#)?;
//! assert_eq!(configuration.tasks.len(), 1);
//!
//! let mistakes = Configuration::parse("[tasks.x]\nmodality = \"chat\"\nmodels = [\"nobody/y\"]").unwrap_err();
//! assert!(mistakes.to_string().contains("`nobody` is no provider"));
//! # Ok::<(), longhouse_gateway::configuration::Mistakes>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::capability::{Protocol, shutdown};
use crate::model::{Modality, ModelRef, ProviderName, Task};
use crate::prices::{Price, PriceTable};
use crate::quotas::{Limit, WrittenLimit};

/// Providers and tasks, checked.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// Every provider that tasks may name. Vendors are there without being written down.
    pub providers: BTreeMap<ProviderName, ProviderSettings>,
    /// Every task.
    pub tasks: BTreeMap<Task, TaskSettings>,
    /// What owners may consume.
    pub limits: Vec<Limit>,
    /// The operator's prices, above those that are known.
    pub prices: Vec<Price>,
}

/// One provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub base_url: Url,
    /// The environment variable with its key; unset: none is sent.
    pub key_variable: Option<String>,
    /// Most requests at once with one key; more wait.
    pub concurrency: usize,
    /// Most requests that wait for a place; more fail as busy.
    pub queue: usize,
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSettings {
    /// What it is.
    pub modality: Modality,
    /// The models that may serve it, best first.
    pub models: Vec<ModelRef>,
    /// Longest time for the whole call, all attempts together.
    pub deadline: Duration,
    /// Longest wait for the first byte of one attempt.
    pub first_byte: Duration,
    /// Longest silence within an answer.
    pub idle: Duration,
    /// Most requests to one model before the next one's turn.
    pub attempts: u32,
    /// Whether an answer may begin anew with another model after parts of it were handed on.
    pub restart: bool,
    /// When the first model has not answered after this time, the next one is asked as well, and who is first serves:
    /// faster, and dearer. Unset: never.
    pub hedge: Option<Duration>,
    /// How long an answer may be given again to the same request; zero: never.
    pub cache: Duration,
    /// Whether it may be given to others too: their requests hold nothing personal.
    pub cache_public: bool,
    /// Whether people may ask for it themselves, at `/ai/v1/chat`, and not only applications.
    pub api: bool,
    /// What users write and models answer is judged by; `None`: nothing is.
    pub safety: Option<SafetyRules>,
    /// The task whose models judge the same besides the rules; answers are then handed on when they are whole.
    pub moderation: Option<Task>,
}

/// Rules of a task, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyRules {
    /// For grown-ups.
    General,
    /// For children at bedtime.
    Children,
}

/// What serves tasks that nobody configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// Vendors; where the platform has no key for any of them, the offline provider behind them.
    Auto,
    /// The offline provider alone.
    Offline,
    /// Vendors alone.
    Vendors,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    providers: BTreeMap<String, WrittenProvider>,
    #[serde(default)]
    tasks: BTreeMap<String, WrittenTask>,
    #[serde(default)]
    limits: Vec<WrittenLimit>,
    #[serde(default)]
    prices: Vec<Price>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProvider {
    protocol: Option<Protocol>,
    base_url: Option<Url>,
    key_variable: Option<String>,
    concurrency: Option<usize>,
    queue: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTask {
    modality: Modality,
    models: Vec<String>,
    deadline_ms: Option<u64>,
    first_byte_ms: Option<u64>,
    idle_ms: Option<u64>,
    attempts: Option<u32>,
    #[serde(default)]
    restart: bool,
    hedge_ms: Option<u64>,
    #[serde(default)]
    cache_seconds: u64,
    #[serde(default)]
    cache_public: bool,
    #[serde(default)]
    api: bool,
    safety: Option<SafetyRules>,
    moderation: Option<String>,
}

/// Requests at once with one key.
const CONCURRENCY: usize = 64;
/// Requests that wait.
const QUEUE: usize = 256;
/// No call may take longer; long work is a job.
const MOST_DEADLINE: Duration = Duration::from_secs(3_600);

/// No answer is worth keeping longer.
const MOST_CACHE: Duration = Duration::from_secs(31 * 86_400);

/// Tasks that are there without being written down: name, kind, vendors' models, the offline one.
const STANDARD: &[(&str, Modality, &[&str], Option<&str>)] = &[
    (
        "chat",
        Modality::Chat,
        &["openai/gpt-5-mini", "anthropic/claude-sonnet-5-5", "gemini/gemini-2.5-flash"],
        Some("offline/rules"),
    ),
    ("speech", Modality::Speech, &["deepgram/aura-2-thalia-en"], Some("offline/espeak")),
    ("transcription", Modality::Transcription, &["openai/gpt-transcribe", "deepgram/nova-3"], None),
    (
        "images",
        Modality::Images,
        &["openai/gpt-image-1", "replicate/black-forest-labs/flux-schnell"],
        Some("offline/pictures"),
    ),
    // One model alone: vectors of different ones do not compare.
    ("embeddings", Modality::Embeddings, &["openai/text-embedding-3-small"], Some("offline/hashes")),
    ("moderation", Modality::Moderation, &["openai/omni-moderation-latest"], Some("offline/lists")),
];

impl Configuration {
    /// The vendors, and no tasks: what an empty file says.
    #[must_use]
    pub fn default_providers() -> Self {
        Self { providers: vendors(), ..Self::default() }
    }

    /// Adds the tasks that are there without being written down, where this has none of their name: `chat`, `speech`,
    /// `transcription`, `images`, `embeddings`, `moderation`. `has_key` says for which vendors the platform has a key.
    #[must_use]
    pub fn with_standard_tasks(
        mut self,
        standard: Standard,
        has_key: impl Fn(&ProviderName) -> bool,
    ) -> Self {
        for (name, modality, vendors, offline) in STANDARD {
            let task = Task::new(name);
            if self.tasks.contains_key(&task) {
                continue;
            }
            let vendors = vendors.iter().filter_map(|model| model.parse::<ModelRef>().ok());
            let mut models: Vec<ModelRef> =
                if standard == Standard::Offline { Vec::new() } else { vendors.collect() };
            let served = models.iter().any(|model| has_key(&model.provider));
            if standard != Standard::Vendors
                && !served
                && let Some(Ok(offline)) = offline.map(str::parse)
            {
                if *modality == Modality::Embeddings {
                    models.clear();
                }
                models.push(offline);
            }
            let written = WrittenTask {
                modality: *modality,
                models: models.iter().map(ToString::to_string).collect(),
                deadline_ms: None,
                first_byte_ms: None,
                idle_ms: None,
                attempts: None,
                restart: false,
                hedge_ms: None,
                cache_seconds: 0,
                cache_public: false,
                api: true,
                safety: None,
                moderation: None,
            };
            // Nobody can serve transcription offline.
            if let Ok(settings) = self.task(name, written) {
                self.tasks.insert(task, settings);
            }
        }
        self
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// [`Mistakes`], all at once.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let written: Written = toml::from_str(text).map_err(|error| Mistakes(vec![error.to_string()]))?;
        let mut mistakes = Vec::new();
        let mut whole = Self { providers: vendors(), ..Self::default() };
        for (name, provider) in written.providers {
            match whole.provider(&name, provider) {
                Ok(settings) => {
                    whole.providers.insert(ProviderName::new(&name), settings);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        for (name, task) in written.tasks {
            match whole.task(&name, task) {
                Ok(settings) => {
                    whole.tasks.insert(Task::new(&name), settings);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        for limit in written.limits {
            match limit.read() {
                Ok(limits) => whole.limits.extend(limits),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        mistakes.extend(whole.misnamed_limits());
        if let Err(mistake) = PriceTable::default().with(written.prices.clone()) {
            mistakes.push(mistake);
        }
        whole.prices = written.prices;
        if mistakes.is_empty() { Ok(whole) } else { Err(Mistakes(mistakes)) }
    }

    /// Names that stand for two limits, and tasks of limits that nobody configured: they would never be reached.
    fn misnamed_limits(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, limit) in self.limits.iter().enumerate() {
            if self.limits[..index].iter().any(|other| (&other.name, other.unit) == (&limit.name, limit.unit))
            {
                found.push(format!(
                    "limits.{}: another limit has this name: choose a different one",
                    limit.name
                ));
            }
            for task in limit.tasks.iter().filter(|task| !self.tasks.contains_key(task)) {
                found.push(format!(
                    "limits.{}: there is no task `{task}`: add [tasks.{task}], or correct it",
                    limit.name
                ));
            }
        }
        found
    }

    fn provider(&self, name: &str, written: WrittenProvider) -> Result<ProviderSettings, String> {
        let known = self.providers.get(&ProviderName::new(name));
        let protocol = written.protocol.or(known.map(|known| known.protocol)).ok_or_else(|| {
            let all: Vec<_> = Protocol::ALL.iter().map(|protocol| protocol.as_str()).collect();
            format!("providers.{name}: add `protocol`, one of {}", all.join(", "))
        })?;
        let vendor = protocol.base_url().and_then(|url| Url::parse(url).ok());
        let base_url = written
            .base_url
            .or(vendor)
            .ok_or_else(|| format!("providers.{name}: add `base_url`, such as http://127.0.0.1:11434/v1"))?;
        if !matches!(base_url.scheme(), "http" | "https") || base_url.host().is_none() {
            return Err(format!("providers.{name}: `{base_url}` is no http or https address"));
        }
        let concurrency = written.concurrency.unwrap_or(CONCURRENCY);
        if concurrency == 0 {
            return Err(format!("providers.{name}: `concurrency` must be at least 1"));
        }
        Ok(ProviderSettings {
            protocol,
            base_url,
            key_variable: written.key_variable.or(protocol.key_variable().map(str::to_owned)),
            concurrency,
            queue: written.queue.unwrap_or(QUEUE),
        })
    }

    fn task(&self, name: &str, written: WrittenTask) -> Result<TaskSettings, String> {
        if written.models.is_empty() {
            return Err(format!("tasks.{name}: name at least one model, such as offline/rules"));
        }
        let mut models = Vec::new();
        for model in &written.models {
            let model: ModelRef = model.parse().map_err(|error| format!("tasks.{name}: {error}"))?;
            let Some(provider) = self.providers.get(&model.provider) else {
                return Err(format!(
                    "tasks.{name}: `{}` is no provider: add [providers.{}], or use one of {}",
                    model.provider,
                    model.provider,
                    self.providers.keys().map(ProviderName::as_str).collect::<Vec<_>>().join(", ")
                ));
            };
            if !provider.protocol.capabilities().modalities.contains(&written.modality) {
                return Err(format!("tasks.{name}: {model} cannot serve {}", written.modality));
            }
            models.push(model);
        }
        let (deadline, first_byte) = default_times(written.modality);
        let time = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
        let settings = TaskSettings {
            modality: written.modality,
            models,
            deadline: time(written.deadline_ms, deadline),
            first_byte: time(written.first_byte_ms, first_byte),
            idle: time(written.idle_ms, Duration::from_secs(30)),
            attempts: written.attempts.unwrap_or(2),
            restart: written.restart,
            hedge: written.hedge_ms.map(Duration::from_millis),
            cache: Duration::from_secs(written.cache_seconds),
            cache_public: written.cache_public,
            api: written.api,
            safety: written.safety,
            moderation: written.moderation.as_deref().map(Task::new),
        };
        if settings.moderation.is_some() && settings.safety.is_none() {
            return Err(format!(
                "tasks.{name}: `moderation` needs `safety`: say by which rules, general or children"
            ));
        }
        if settings.cache > MOST_CACHE {
            return Err(format!("tasks.{name}: `cache_seconds` must be at most {}", MOST_CACHE.as_secs()));
        }
        if settings.deadline.is_zero() || settings.deadline > MOST_DEADLINE {
            return Err(format!("tasks.{name}: `deadline_ms` must be between 1 and 3600000"));
        }
        if settings.hedge.is_some() && settings.models.len() < 2 {
            return Err(format!("tasks.{name}: `hedge_ms` needs a second model to ask"));
        }
        if settings.hedge.is_some_and(|hedge| hedge.is_zero() || hedge >= settings.deadline) {
            return Err(format!("tasks.{name}: `hedge_ms` must be at least 1 and less than the deadline"));
        }
        if !(1..=5).contains(&settings.attempts) {
            return Err(format!("tasks.{name}: `attempts` must be between 1 and 5"));
        }
        Ok(settings)
    }

    /// What is worth telling the operator: models whose end is announced.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (task, settings) in &self.tasks {
            if let Some(judge) = &settings.moderation
                && self.tasks.get(judge).is_none_or(|judge| judge.modality != Modality::Moderation)
            {
                found.push(format!(
                    "tasks.{task}: `{judge}` is no task for moderation, so that everything is blocked: add [tasks.{judge}]"
                ));
            }
            for model in &settings.models {
                let protocol = self.providers.get(&model.provider).map(|provider| provider.protocol);
                if let Some(day) = protocol.and_then(|protocol| shutdown(protocol, &model.model)) {
                    found.push(format!(
                        "tasks.{task}: {model} will be switched off on {day}: configure its successor"
                    ));
                }
            }
        }
        found
    }
}

fn default_times(modality: Modality) -> (Duration, Duration) {
    let seconds = Duration::from_secs;
    match modality {
        Modality::Chat => (seconds(120), seconds(30)),
        Modality::Speech => (seconds(60), seconds(15)),
        Modality::Transcription => (seconds(120), seconds(60)),
        Modality::Images => (seconds(180), seconds(120)),
        Modality::Embeddings | Modality::Moderation => (seconds(20), seconds(10)),
        // The deadline is for opening; a session lives as long as it is used.
        Modality::Realtime => (seconds(20), seconds(5)),
    }
}

/// The vendors, each under its protocol's name.
fn vendors() -> BTreeMap<ProviderName, ProviderSettings> {
    let vendor = |name: &str, protocol: Protocol, base_url: &str, key: Option<&str>| {
        let settings = ProviderSettings {
            protocol,
            base_url: Url::parse(base_url).expect("vendors' addresses are valid"),
            key_variable: key.map(str::to_owned),
            concurrency: CONCURRENCY,
            queue: QUEUE,
        };
        (ProviderName::new(name), settings)
    };
    let own = Protocol::ALL.into_iter().filter_map(|protocol| {
        Some(vendor(protocol.as_str(), protocol, protocol.base_url()?, protocol.key_variable()))
    });
    let compatible = [
        ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    ];
    let compatible = compatible
        .into_iter()
        .map(|(name, url, key)| vendor(name, Protocol::OpenaiCompatible, url, Some(key)));
    own.chain(compatible).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("[providers.x]\nbase_url = \"http://h/\"", "add `protocol`")]
    #[case("[providers.x]\nprotocol = \"openai-compatible\"", "add `base_url`")]
    #[case("[providers.openai]\nbase_url = \"ftp://h/\"", "no http or https")]
    #[case("[providers.openai]\nconcurrency = 0", "at least 1")]
    #[case("[tasks.t]\nmodality = \"chat\"\nmodels = []", "at least one model")]
    #[case("[tasks.t]\nmodality = \"chat\"\nmodels = [\"deepgram/nova-3\"]", "cannot serve chat")]
    #[case("[tasks.t]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\nattempts = 9", "between 1 and 5")]
    #[case("[tasks.t]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\nretries = 9", "unknown field")]
    #[case("[tasks.t]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\nhedge_ms = 9", "second model")]
    fn mistakes_say_what_to_do(#[case] text: &str, #[case] expected: &str) {
        let mistakes = Configuration::parse(text).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{mistakes}");
    }

    #[rstest]
    #[case(
        Standard::Auto,
        "",
        "openai/gpt-5-mini, anthropic/claude-sonnet-5-5, gemini/gemini-2.5-flash, offline/rules"
    )]
    #[case(
        Standard::Auto,
        "gemini",
        "openai/gpt-5-mini, anthropic/claude-sonnet-5-5, gemini/gemini-2.5-flash"
    )]
    #[case(Standard::Offline, "gemini", "offline/rules")]
    #[case(Standard::Vendors, "", "openai/gpt-5-mini, anthropic/claude-sonnet-5-5, gemini/gemini-2.5-flash")]
    fn tasks_are_there_without_being_written_down(
        #[case] standard: Standard,
        #[case] key: &str,
        #[case] expected: &str,
    ) {
        let whole =
            Configuration::parse("").unwrap().with_standard_tasks(standard, |name| name.as_str() == key);
        let models = &whole.tasks[&Task::new("chat")].models;
        assert_eq!(models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), expected);
        assert_eq!(whole.tasks[&Task::new("embeddings")].models.len(), 1);
        assert_eq!(whole.tasks.contains_key(&Task::new("transcription")), standard != Standard::Offline);
        assert_eq!(whole.warnings(), Vec::<String>::new(), "none whose end is announced");
    }

    #[test]
    fn a_written_task_stands_above_the_one_that_is_there() {
        let text = "[tasks.chat]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]";
        let whole = Configuration::parse(text).unwrap().with_standard_tasks(Standard::Auto, |_| true);
        let chat = &whole.tasks[&Task::new("chat")];
        assert_eq!((chat.models.len(), chat.api), (1, false));
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let text = "[providers.x]\nbase_url = \"http://h/\"\n[tasks.t]\nmodality = \"chat\"\nmodels = []";
        assert_eq!(Configuration::parse(text).unwrap_err().0.len(), 2);
    }

    #[test]
    fn a_model_with_an_announced_end_is_warned_about() {
        let text =
            "[tasks.narration]\nmodality = \"speech\"\nmodels = [\"openai/tts-1-hd\", \"offline/espeak\"]";
        let warnings = Configuration::parse(text).unwrap().warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("2027-01-06"), "{warnings:?}");
    }
}
