//! Forms of values: how each is written, read, checked and shown.
//!
//! A form is a type without values; the table of keys names one a key.

mod accounts;

use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::address;
use crate::error::Problem;
use crate::quantity::{format_duration, format_size, parse_duration, parse_size};
use crate::settings::{LogFormat, Offline};

pub(crate) use accounts::*;

/// A value as it was written. No `Debug`: it may be a secret.
pub(crate) enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    /// Anything else, by what it is called.
    Other(&'static str),
}

impl Raw {
    /// The value as text where it is one word: text itself, a number, true or false.
    fn word(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.trim().to_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Boolean(value) => Some(value.to_string()),
            Self::List(_) | Self::Other(_) => None,
        }
    }

    /// Names the kind of value, never the value.
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }

    fn text(&self) -> Result<String, Problem> {
        match self {
            Self::Text(text) => Ok(text.trim().to_owned()),
            other => Err(Problem::new(format!("is {}, not text", other.kind()), "Put the value in quotes.")),
        }
    }
}

/// How one kind of value is written, read and shown.
pub(crate) trait Form {
    type Value;
    /// What to write, for the documentation.
    fn wanted() -> String;
    fn read(raw: &Raw) -> Result<Self::Value, Problem>;
    /// The value for `longhouse config`: never a secret. `None` when unset.
    fn show(value: &Self::Value) -> Option<String>;
}

/// A key that may be left unset.
pub(crate) struct Optional<F>(PhantomData<F>);

impl<F: Form> Form for Optional<F> {
    type Value = Option<F::Value>;
    fn wanted() -> String {
        F::wanted()
    }
    fn read(raw: &Raw) -> Result<Self::Value, Problem> {
        F::read(raw).map(Some)
    }
    fn show(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(F::show)
    }
}

/// Reads a word with `parse`; a value that does not parse is shown.
fn read_word<T>(
    raw: &Raw,
    what: &str,
    remedy: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Problem> {
    let Some(word) = raw.word() else {
        return Err(Problem::new(format!("is {}, not {what}", raw.kind()), remedy));
    };
    parse(&word).ok_or_else(|| Problem::new(format!("`{word}` is not {what}"), remedy))
}

pub(crate) struct Port;
impl Form for Port {
    type Value = u16;
    fn wanted() -> String {
        "port, 0–65535".into()
    }
    fn read(raw: &Raw) -> Result<u16, Problem> {
        read_word(raw, "a port", "Give a number from 0 to 65535; 0 takes a free port.", |word| {
            word.parse().ok()
        })
    }
    fn show(value: &u16) -> Option<String> {
        Some(value.to_string())
    }
}

pub(crate) struct Ip;
impl Form for Ip {
    type Value = IpAddr;
    fn wanted() -> String {
        "IP address".into()
    }
    fn read(raw: &Raw) -> Result<IpAddr, Problem> {
        let remedy = "Give one such as `127.0.0.1` (this machine only), `0.0.0.0` (every interface) or `::`.";
        // `localhost` is what people type; it has one meaning here.
        let parse = |word: &str| {
            if word == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { word.parse().ok() }
        };
        read_word(raw, "an IP address", remedy, parse)
    }
    fn show(value: &IpAddr) -> Option<String> {
        Some(value.to_string())
    }
}

/// A whole number from `MIN` to `MAX`.
pub(crate) struct Count<T, const MIN: u64, const MAX: u64>(PhantomData<T>);
impl<T, const MIN: u64, const MAX: u64> Form for Count<T, MIN, MAX>
where
    T: TryFrom<u64> + ToString,
{
    type Value = T;
    fn wanted() -> String {
        format!("number, {MIN}–{MAX}")
    }
    fn read(raw: &Raw) -> Result<T, Problem> {
        let within = |word: &str| {
            let number = word.parse::<u64>().ok().filter(|n| (MIN..=MAX).contains(n))?;
            T::try_from(number).ok()
        };
        let what = format!("a number from {MIN} to {MAX}");
        read_word(raw, &what, "Give a whole number in that range, without separators.", within)
    }
    fn show(value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// A duration from `MIN` to `MAX` milliseconds.
pub(crate) struct Time<const MIN: u64, const MAX: u64>;
impl<const MIN: u64, const MAX: u64> Form for Time<MIN, MAX> {
    type Value = Duration;
    fn wanted() -> String {
        let [min, max] = [MIN, MAX].map(|ms| format_duration(Duration::from_millis(ms)));
        format!("duration, {min}–{max}")
    }
    fn read(raw: &Raw) -> Result<Duration, Problem> {
        let [min, max] = [MIN, MAX].map(|ms| format_duration(Duration::from_millis(ms)));
        if let Raw::Integer(number) = raw {
            let remedy = format!("Add the unit, in quotes: `\"{number}s\"`, `\"{number}m\"`.");
            return Err(Problem::new(format!("`{number}` has no unit"), remedy));
        }
        let remedy = "Write it as `30s`, `5m`, `1h30m` or `250ms`.";
        let duration = read_word(raw, "a duration", remedy, parse_duration)?;
        if (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&duration) {
            return Ok(duration);
        }
        let shown = format_duration(duration);
        let side = if duration.as_millis() < u128::from(MIN) { "short" } else { "long" };
        Err(Problem::new(format!("`{shown}` is too {side}"), format!("Give a duration from {min} to {max}.")))
    }
    fn show(value: &Duration) -> Option<String> {
        Some(format_duration(*value))
    }
}

/// A size from `MIN` to `MAX` bytes.
pub(crate) struct Size<const MIN: u64, const MAX: u64>;
impl<const MIN: u64, const MAX: u64> Form for Size<MIN, MAX> {
    type Value = usize;
    fn wanted() -> String {
        format!("size, {}–{}", format_size(MIN), format_size(MAX))
    }
    fn read(raw: &Raw) -> Result<usize, Problem> {
        let remedy = "Write it as `1MiB`, `64kB`, or in bytes: `65536`.";
        let bytes = read_word(raw, "a size", remedy, parse_size)?;
        match usize::try_from(bytes) {
            Ok(size) if (MIN..=MAX).contains(&bytes) => Ok(size),
            _ => Err(Problem::new(
                format!("`{}` is out of range", format_size(bytes)),
                format!("Give a size from {} to {}.", format_size(MIN), format_size(MAX)),
            )),
        }
    }
    fn show(value: &usize) -> Option<String> {
        Some(format_size(u64::try_from(*value).unwrap_or(u64::MAX)))
    }
}

pub(crate) struct Flag;
impl Form for Flag {
    type Value = bool;
    fn wanted() -> String {
        "`true` or `false`".into()
    }
    fn read(raw: &Raw) -> Result<bool, Problem> {
        read_word(raw, "true or false", "Write `true` or `false`.", |word| {
            match word.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            }
        })
    }
    fn show(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

pub(crate) struct Path;
impl Form for Path {
    type Value = PathBuf;
    fn wanted() -> String {
        "path".into()
    }
    fn read(raw: &Raw) -> Result<PathBuf, Problem> {
        let text = raw.text()?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Problem::new(
                "is not a path",
                "Give a path, relative to the working folder or absolute.",
            ));
        }
        Ok(text.into())
    }
    fn show(value: &PathBuf) -> Option<String> {
        Some(value.display().to_string())
    }
}

/// A name without spaces: a model, for instance.
pub(crate) struct Name;
impl Form for Name {
    type Value = String;
    fn wanted() -> String {
        "name".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        if text.is_empty() || text.len() > 200 || !text.chars().all(|c| c.is_ascii_graphic()) {
            let remedy =
                "Give the provider's name for it: 1 to 200 letters, digits and punctuation, without spaces.";
            return Err(Problem::new(format!("`{}` is not a name", text.escape_debug()), remedy));
        }
        Ok(text)
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

pub(crate) struct AccountSid;
impl Form for AccountSid {
    type Value = String;
    fn wanted() -> String {
        "`AC` and 32 hexadecimal digits".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        match text.strip_prefix("AC") {
            Some(id) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(text),
            // What stands here by mistake is often the auth token: it is not shown.
            _ => Err(Problem::new(
                "is not an account SID",
                "Copy it from Twilio's console: `AC` and 32 hexadecimal digits. The auth token has its own key.",
            )),
        }
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

pub(crate) struct WebOrigin;
impl Form for WebOrigin {
    type Value = Url;
    fn wanted() -> String {
        "`https://HOST[:PORT]`".into()
    }
    fn read(raw: &Raw) -> Result<Url, Problem> {
        address::parse(&raw.text()?, &address::WEB_ORIGIN)
    }
    fn show(value: &Url) -> Option<String> {
        Some(value.origin().ascii_serialization())
    }
}

pub(crate) struct StreamUrl;
impl Form for StreamUrl {
    type Value = Url;
    fn wanted() -> String {
        "`wss://…` (`ws://` for this machine only), no query".into()
    }
    fn read(raw: &Raw) -> Result<Url, Problem> {
        address::parse(&raw.text()?, &address::STREAM)
    }
    fn show(value: &Url) -> Option<String> {
        Some(value.to_string())
    }
}

pub(crate) struct RealtimeUrl;
impl Form for RealtimeUrl {
    type Value = Url;
    fn wanted() -> String {
        StreamUrl::wanted()
    }
    fn read(raw: &Raw) -> Result<Url, Problem> {
        address::parse(&raw.text()?, &address::REALTIME)
    }
    fn show(value: &Url) -> Option<String> {
        Some(value.to_string())
    }
}

/// A secret of at least `MIN` characters. Nothing of it is ever shown but its length.
pub(crate) struct Secret<const MIN: usize>;
impl<const MIN: usize> Form for Secret<MIN> {
    type Value = SecretString;
    fn wanted() -> String {
        if MIN > 1 { format!("secret, {MIN} characters or more") } else { "secret".into() }
    }
    fn read(raw: &Raw) -> Result<SecretString, Problem> {
        let text = raw.text()?;
        if text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
            let remedy = "Copy it again, as one line of plain text.";
            return Err(Problem::new("contains a line break or unprintable character", remedy));
        }
        let length = text.chars().count();
        if length < MIN {
            let remedy = format!("Use at least {MIN}, e.g. from `openssl rand -hex 32`.");
            return Err(Problem::new(format!("has only {length} characters"), remedy));
        }
        Ok(text.into())
    }
    fn show(value: &SecretString) -> Option<String> {
        Some(format!("set, {} characters", value.expose_secret().chars().count()))
    }
}

/// A key or token that travels in HTTP headers.
pub(crate) struct ApiKey;
impl Form for ApiKey {
    type Value = SecretString;
    fn wanted() -> String {
        "secret".into()
    }
    fn read(raw: &Raw) -> Result<SecretString, Problem> {
        let text = raw.text()?;
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            let remedy = "Copy it again: it is one word of letters, digits and punctuation.";
            return Err(Problem::new("contains a space or another character that no key has", remedy));
        }
        Ok(text.into())
    }
    fn show(value: &SecretString) -> Option<String> {
        Secret::<1>::show(value)
    }
}

pub(crate) struct DatabaseUrl;
impl Form for DatabaseUrl {
    type Value = SecretString;
    fn wanted() -> String {
        "`postgresql://USER:PASSWORD@HOST:PORT/DATABASE`".into()
    }
    fn read(raw: &Raw) -> Result<SecretString, Problem> {
        let text = raw.text()?;
        address::check_database(&text)?;
        Ok(text.into())
    }
    fn show(value: &SecretString) -> Option<String> {
        Some(address::masked_database(value.expose_secret()))
    }
}

/// A list: an array in the file, separated by commas elsewhere.
pub(crate) struct List<F>(PhantomData<F>);
impl<F: Form> Form for List<F> {
    type Value = Vec<F::Value>;
    fn wanted() -> String {
        format!("list of: {}", F::wanted())
    }
    fn read(raw: &Raw) -> Result<Self::Value, Problem> {
        match raw {
            Raw::List(items) => items.iter().map(F::read).collect(),
            Raw::Text(text) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                words.map(|word| F::read(&Raw::Text(word.to_owned()))).collect()
            }
            other => Err(Problem::new(
                format!("is {}, not a list", other.kind()),
                "Write `[\"a\", \"b\"]` in the file, `a,b` in the environment.",
            )),
        }
    }
    fn show(value: &Self::Value) -> Option<String> {
        (!value.is_empty()).then(|| value.iter().filter_map(F::show).collect::<Vec<_>>().join(","))
    }
}

pub(crate) struct CorsOrigin;
impl Form for CorsOrigin {
    type Value = String;
    fn wanted() -> String {
        "`*` or `https://HOST[:PORT]`".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        if text == "*" {
            return Ok(text);
        }
        // Browsers send the origin in exactly this spelling, and it is compared as text.
        address::parse(&text, &address::WEB_ORIGIN).map(|url| url.origin().ascii_serialization())
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

pub(crate) struct OfflineMode;
impl Form for OfflineMode {
    type Value = Offline;
    fn wanted() -> String {
        "`auto`, `always` or `never`".into()
    }
    fn read(raw: &Raw) -> Result<Offline, Problem> {
        let remedy = "Write `auto` (emulate providers without a key), `always` or `never`.";
        read_word(raw, "an offline mode", remedy, |word| match word {
            "auto" => Some(Offline::Auto),
            "always" | "true" => Some(Offline::Always),
            "never" | "false" => Some(Offline::Never),
            _ => None,
        })
    }
    fn show(value: &Offline) -> Option<String> {
        let word = match value {
            Offline::Auto => "auto",
            Offline::Always => "always",
            Offline::Never => "never",
        };
        Some(word.into())
    }
}

pub(crate) struct LogLook;
impl Form for LogLook {
    type Value = LogFormat;
    fn wanted() -> String {
        "`auto`, `json` or `text`".into()
    }
    fn read(raw: &Raw) -> Result<LogFormat, Problem> {
        let remedy = "Write `auto` (readable on a terminal, JSON elsewhere), `json` or `text`.";
        read_word(raw, "a log format", remedy, |word| match word {
            "auto" => Some(LogFormat::Auto),
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            _ => None,
        })
    }
    fn show(value: &LogFormat) -> Option<String> {
        let word = match value {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        Some(word.into())
    }
}

pub(crate) struct LogFilter;
impl Form for LogFilter {
    type Value = String;
    fn wanted() -> String {
        "`LEVEL` or `TARGET=LEVEL`, separated by commas".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let remedy =
            "Write levels (error, warn, info, debug, trace, off), e.g. `info,longhouse_voice=debug`.";
        read_word(raw, "a log filter", remedy, |word| {
            let level = |text: &str| {
                let names = ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"];
                names.contains(&text.to_ascii_lowercase().as_str())
            };
            let directive = |part: &str| match part.rsplit_once('=') {
                Some((target, name)) => !target.is_empty() && level(name),
                None => !part.is_empty(),
            };
            // Span filters (`target[span{field=value}]`) have commas of their own; `tracing` judges those.
            (word.contains('[') || word.split(',').map(str::trim).all(directive)).then(|| word.to_owned())
        })
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn text(value: &str) -> Raw {
        Raw::Text(value.into())
    }

    fn problem<F: Form>(raw: &Raw) -> String {
        match F::read(raw) {
            Ok(_) => panic!("accepted"),
            Err(problem) => format!("{} | {}", problem.wrong, problem.remedy),
        }
    }

    #[test]
    fn ports_end_at_65535() {
        assert_eq!(Port::read(&Raw::Integer(0)).ok(), Some(0));
        assert_eq!(Port::read(&text("65535")).ok(), Some(65535));
        assert!(problem::<Port>(&Raw::Integer(65536)).starts_with("`65536` is not a port"));
        assert!(problem::<Port>(&text("tcp://10.0.0.1:80")).contains("0 takes a free port"));
        assert!(problem::<Port>(&Raw::List(Vec::new())).starts_with("is a list, not a port"));
    }

    #[test]
    fn a_duration_without_unit_is_answered_with_the_unit() {
        assert!(problem::<Time<0, 1000>>(&Raw::Integer(30)).contains("`\"30s\"`"));
        assert!(problem::<Time<1000, 2000>>(&text("5m")).contains("too long"));
        assert!(problem::<Time<1000, 2000>>(&text("5ms")).contains("too short"));
    }

    #[rstest]
    #[case("info", true)]
    #[case("info,longhouse_voice=debug", true)]
    #[case("WARN", true)]
    #[case("hyper=off, debug", true)]
    #[case("longhouse[call{sid=CA1}]=trace", true)]
    #[case("longhouse_voice=loud", false)]
    #[case("info,,debug", false)]
    #[case("=debug", false)]
    fn log_filters(#[case] filter: &str, #[case] accepted: bool) {
        assert_eq!(LogFilter::read(&text(filter)).is_ok(), accepted, "{filter}");
    }

    #[test]
    fn lists_come_as_arrays_or_with_commas() {
        let array = Raw::List(vec![text("10.0.0.1"), text("::1")]);
        assert_eq!(List::<Ip>::read(&array).ok(), List::<Ip>::read(&text("10.0.0.1, ::1")).ok());
        assert!(problem::<List<Ip>>(&text("10.0.0.0/8")).contains("`10.0.0.0/8` is not an IP address"));
    }

    #[test]
    fn cors_origins_are_kept_as_browsers_send_them() {
        assert_eq!(
            CorsOrigin::read(&text("https://App.Example.com:443/")).ok().unwrap(),
            "https://app.example.com"
        );
    }

    #[test]
    fn secrets_show_their_length_alone() {
        assert!(problem::<Secret<32>>(&text("too-short-marker")).starts_with("has only 16 characters"));
        assert!(!problem::<Secret<32>>(&text("too-short-marker")).contains("marker"));
        assert!(!problem::<ApiKey>(&text("sk marker")).contains("marker"));
        assert!(!problem::<AccountSid>(&text("marker")).contains("marker"));
        let secret = ApiKey::read(&text("sk-12345")).ok().unwrap();
        assert_eq!(ApiKey::show(&secret).unwrap(), "set, 8 characters");
    }
}
