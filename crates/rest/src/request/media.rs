//! Media types of `Accept` and `Content-Type`.

use std::fmt;

use super::MediaType;

impl MediaType {
    /// Reads one media type with its parameters.
    pub fn parse(text: &str) -> Self {
        let Some(tokens) = Tokens::parse(text) else { return Self::Other(text.to_lowercase()) };
        let stripped = || tokens.parameter("nulls") == Some("stripped");
        match (tokens.main.as_str(), tokens.sub.as_str()) {
            ("application", "json") => Self::Json,
            ("application", "geo+json") => Self::GeoJson,
            ("text", "csv") => Self::Csv,
            ("text", "plain") => Self::Text,
            ("text", "xml") => Self::Xml,
            ("application", "openapi+json") => Self::OpenApi,
            ("application", "x-www-form-urlencoded") => Self::Form,
            ("application", "octet-stream") => Self::OctetStream,
            ("application", "vnd.pgrst.plan" | "vnd.pgrst.plan+text") => tokens.plan(false),
            ("application", "vnd.pgrst.plan+json") => tokens.plan(true),
            ("application", "vnd.pgrst.object+json" | "vnd.pgrst.object") => {
                Self::Object { strip_nulls: stripped() }
            }
            ("application", "vnd.pgrst.array+json" | "vnd.pgrst.array") if stripped() => Self::ArrayStripped,
            ("application", "vnd.pgrst.array+json" | "vnd.pgrst.array") => Self::Json,
            ("*", "*") => Self::Any,
            _ => Self::Other(text.to_lowercase()),
        }
    }

    /// Reads an `Accept` header, best first; never empty.
    pub fn parse_accept(header: &str) -> Vec<Self> {
        let mut ranked: Vec<(f64, i64, String)> = header
            .split(',')
            .map(|part| {
                let part = part.replace(' ', "");
                let (name, quality) = match part.find(";q=") {
                    Some(at) => {
                        let quality = part[at + 3..].split(';').next().unwrap_or_default();
                        (part[..at].to_owned(), quality.parse().unwrap_or(1.0))
                    }
                    None => (part, 1.0),
                };
                let count = |wanted: char| name.matches(wanted).count() as i64;
                let specificity = count(';') - count('*');
                (quality, specificity, name)
            })
            .collect();
        ranked.sort_by(|one, two| two.0.total_cmp(&one.0).then(two.1.cmp(&one.1)));
        ranked.into_iter().map(|(_, _, name)| Self::parse(&name)).collect()
    }

    /// The type as headers and messages name it.
    pub fn mime(&self) -> String {
        self.to_string()
    }

    /// The value of `Content-Type`: the type, and the character set of those that are text.
    pub fn content_type(&self) -> String {
        match self {
            Self::OctetStream | Self::Other(_) => self.to_string(),
            _ => format!("{self}; charset=utf-8"),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Json => "application/json",
            Self::GeoJson => "application/geo+json",
            Self::Csv => "text/csv",
            Self::Text => "text/plain",
            Self::Xml => "text/xml",
            Self::OpenApi => "application/openapi+json",
            Self::Form => "application/x-www-form-urlencoded",
            Self::OctetStream => "application/octet-stream",
            Self::Any => "*/*",
            Self::Object { strip_nulls: false } => "application/vnd.pgrst.object+json",
            Self::Object { strip_nulls: true } => "application/vnd.pgrst.object+json;nulls=stripped",
            Self::ArrayStripped => "application/vnd.pgrst.array+json;nulls=stripped",
            Self::Other(text) => text,
            Self::Plan { json, of, options } => {
                let format = if *json { "json" } else { "text" };
                write!(formatter, "application/vnd.pgrst.plan+{format}; for=\"{of}\"")?;
                if !options.is_empty() {
                    write!(formatter, "; options={}", options.join("|"))?;
                }
                return Ok(());
            }
        })
    }
}

/// A media type taken apart; names are lower case.
struct Tokens {
    main: String,
    sub: String,
    parameters: Vec<(String, String)>,
}

impl Tokens {
    /// Parameters are read as far as they are well formed.
    fn parse(text: &str) -> Option<Self> {
        let (main, rest) = split_while(text, |c| c.is_alphanumeric() || matches!(c, '.' | '*'));
        let (sub, mut rest) = split_while(rest.strip_prefix('/')?, |c| {
            c.is_alphanumeric() || matches!(c, '.' | '*' | '+' | '-')
        });
        if main.is_empty() || sub.is_empty() {
            return None;
        }
        let mut parameters = Vec::new();
        while let Some((name, value, after)) = parameter(rest) {
            parameters.push((name.to_lowercase(), value.to_owned()));
            rest = after;
        }
        Some(Self { main: main.to_lowercase(), sub: sub.to_lowercase(), parameters })
    }

    /// The last parameter of that name.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn plan(&self, json: bool) -> MediaType {
        const OPTIONS: [&str; 5] = ["analyze", "verbose", "settings", "buffers", "wal"];
        // A plan of a plan is a plan of JSON: nesting would only let a header grow without meaning.
        let of = match self.parameter("for").map(MediaType::parse) {
            None | Some(MediaType::Plan { .. }) => MediaType::Json,
            Some(of) => of,
        };
        let asked: Vec<&str> = self.parameter("options").unwrap_or_default().split('|').collect();
        let options =
            OPTIONS.iter().filter(|option| asked.contains(option)).map(|o| (*o).to_owned()).collect();
        MediaType::Plan { json, of: Box::new(of), options }
    }
}

fn split_while(text: &str, accepts: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !accepts(c)).unwrap_or(text.len()))
}

/// `; name = value`: name, value and what follows.
fn parameter(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start().strip_prefix(';')?.trim_start();
    let (name, rest) = split_while(text, |c| c.is_alphanumeric() || c == '-');
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
    let (value, rest) =
        quoted.unwrap_or_else(|| split_while(rest, |c| c.is_alphanumeric() || matches!(c, '|' | '-')));
    let complete = !name.is_empty() && (quoted.is_some() || !value.is_empty());
    complete.then_some((name, value, rest))
}
