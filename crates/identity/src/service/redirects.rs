//! Where people may be sent: the site itself, and what the operator's patterns allow.
//!
//! A pattern is compared with the address as it was written, without its fragment: `*` matches within a host label or
//! path segment, `**` across them, `?` one character, `[a-z]` and `[!a-z]` a set, `{a,b}` alternatives, `\` takes the
//! next character as it is. What browsers read differently than it is written never gets so far.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::header::REFERER;
use http::request::Parts;
use regex::Regex;
use url::{Host, Url};

use super::AuthService;

const REDIRECT_TO: &str = "redirect_to";
/// Longest address.
const MOST_LENGTH: usize = 2048;
/// Schemes that run or read something on the person's machine instead of leading somewhere.
const NEVER: [&str; 7] = ["javascript", "data", "vbscript", "file", "blob", "filesystem", "about"];

/// The rules of a project.
#[derive(Debug)]
pub(crate) struct RedirectRules {
    site: Url,
    site_text: String,
    patterns: Vec<Pattern>,
}

/// A compiled pattern.
#[derive(Debug)]
struct Pattern {
    /// Unset where a wildcard stands for it: http or https then.
    scheme: Option<String>,
    /// Host and port, after `//`.
    authority: Option<Regex>,
    /// What follows; without an authority, all after the scheme's colon.
    rest: Regex,
}

/// An address, cut where a pattern is cut.
struct Parsed<'a> {
    scheme: String,
    authority: Option<&'a str>,
    rest: &'a str,
    url: Url,
}

impl RedirectRules {
    /// Rules for a site; patterns that mean nothing are logged and allow nothing.
    pub(crate) fn new(site: &Url, patterns: &[String]) -> Self {
        let compile = |pattern: &String| {
            let compiled = Pattern::compile(pattern);
            if compiled.is_none() {
                tracing::warn!(
                    pattern,
                    "a pattern of auth.redirect_allow_list is not valid: it allows nothing"
                );
            }
            compiled
        };
        let text = site.as_str();
        let site_text =
            if site.path() == "/" && site.query().is_none() { text.trim_end_matches('/') } else { text };
        Self {
            site: site.clone(),
            site_text: site_text.to_owned(),
            patterns: patterns.iter().filter_map(compile).collect(),
        }
    }

    /// Whether people may be sent there.
    pub(crate) fn allows(&self, address: &str) -> bool {
        let Some(parsed) = parse(address) else { return false };
        let site = &self.site;
        let same_host = site.scheme() == parsed.url.scheme() && site.host() == parsed.url.host();
        // Native apps listen on whatever port is free (RFC 8252 §7.3).
        let same_port = site.port_or_known_default() == parsed.url.port_or_known_default();
        if site.host().is_some() && same_host && (same_port || is_loopback(&parsed.url)) {
            return true;
        }
        has_plain_host(&parsed) && self.patterns.iter().any(|pattern| pattern.matches(&parsed))
    }

    /// The first allowed one, else the site.
    pub(crate) fn choose<'a>(&self, wishes: impl IntoIterator<Item = &'a str>) -> String {
        let allowed = wishes.into_iter().find(|address| self.allows(address));
        allowed.unwrap_or(&self.site_text).to_owned()
    }
}

/// Cuts an address up; `None` when it is no absolute one, or browsers and we could disagree about what it means.
fn parse(address: &str) -> Option<Parsed<'_>> {
    // Browsers drop tabs and line ends, trim spaces, and take `\` for `/`.
    let clean = address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !clean || address.len() > MOST_LENGTH {
        return None;
    }
    let url = Url::parse(address).ok()?;
    if NEVER.contains(&url.scheme()) || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let plain = address.split('#').next().unwrap_or_default();
    let (scheme, rest) = plain.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, rest) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        // Browsers read `https:host` and `https:/host` as addresses of that host.
        None if url.has_host() => return None,
        None => (None, rest),
    };
    if authority.is_some_and(|authority| authority.contains(['@', '%'])) {
        return None;
    }
    Some(Parsed { scheme, authority, rest, url })
}

/// Whether a host that only a pattern allows is a name, or this machine: addresses in digits hide where they lead.
fn has_plain_host(parsed: &Parsed<'_>) -> bool {
    let Some(authority) = parsed.authority else { return true };
    let web = matches!(parsed.scheme.as_str(), "http" | "https");
    let written = match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if let Ok(ip) = written.parse::<IpAddr>() {
        return ip.is_loopback();
    }
    if !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    if !web {
        return true;
    }
    let bytes = written.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let name = ends
        .is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte));
    // `0x7f.1` parses as an IPv4 address though it is written as a name.
    name && matches!(parsed.url.host(), Some(Host::Domain(domain)) if domain.eq_ignore_ascii_case(written))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

impl Pattern {
    fn compile(pattern: &str) -> Option<Self> {
        let anything = Some(Self { scheme: None, authority: None, rest: glob("**")? });
        if pattern == "**" {
            return anything;
        }
        let (scheme, rest) = pattern.split_once(':')?;
        let literal =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let scheme = match scheme {
            scheme if literal(scheme) && !scheme.is_empty() => Some(scheme.to_ascii_lowercase()),
            "*" | "**" | "http*" | "http{s,}" | "http{,s}" => None,
            _ => return None,
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return Some(Self { scheme, authority: None, rest: glob(rest)? });
        };
        // Cut as addresses are, so that a wildcard for hosts cannot reach into the path and let in other hosts.
        let (authority, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let open_end = rest.is_empty() && authority.ends_with("**");
        Some(Self {
            scheme,
            authority: Some(glob(authority)?),
            rest: glob(if open_end { "**" } else { rest })?,
        })
    }

    fn matches(&self, parsed: &Parsed<'_>) -> bool {
        let scheme = match &self.scheme {
            Some(scheme) => *scheme == parsed.scheme,
            None => matches!(parsed.scheme.as_str(), "http" | "https"),
        };
        let authority = match (&self.authority, parsed.authority) {
            (Some(pattern), Some(authority)) => pattern.is_match(authority),
            // `scheme:**` allows every address of that scheme.
            (None, Some(_)) => self.rest.as_str() == ANYTHING,
            (None, None) => true,
            (Some(_), None) => false,
        };
        scheme && authority && self.rest.is_match(parsed.rest)
    }
}

const ANYTHING: &str = r"^(?s:.*)$";

/// A glob with the separators `.` and `/`, as an expression that matches in linear time.
fn glob(pattern: &str) -> Option<Regex> {
    let mut expression = String::from("^");
    let mut characters = pattern.chars().peekable();
    let mut depth = 0usize;
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.peek() == Some(&'*') => {
                while characters.next_if_eq(&'*').is_some() {}
                expression.push_str("(?s:.*)");
            }
            '*' => expression.push_str("[^./]*"),
            '?' => expression.push_str("[^./]"),
            '{' => {
                depth += 1;
                expression.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                expression.push(')');
            }
            ',' if depth > 0 => expression.push('|'),
            '[' => {
                let negated = characters.next_if_eq(&'!').is_some();
                expression.push_str(if negated { "[^" } else { "[" });
                let mut empty = true;
                loop {
                    match characters.next()? {
                        ']' if !empty => break,
                        '-' => expression.push('-'),
                        inner => expression.push_str(&regex::escape(&inner.to_string())),
                    }
                    empty = false;
                }
                expression.push(']');
            }
            '\\' => expression.push_str(&regex::escape(&characters.next()?.to_string())),
            literal => expression.push_str(&regex::escape(&literal.to_string())),
        }
    }
    expression.push('$');
    if depth > 0 {
        return None;
    }
    Regex::new(&expression).ok()
}

/// Extractor: where the request wants people to land, if that is allowed; else the site.
#[derive(Debug, Clone)]
pub(crate) struct RedirectTo(pub(crate) String);

impl FromRequestParts<AuthService> for RedirectTo {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let query = url::form_urlencoded::parse(query).find(|(name, _)| name == REDIRECT_TO);
        let query = query.map(|(_, value)| value.into_owned());
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        // As GoTrue has it: header, else query, else the page that asks.
        let wish = header(REDIRECT_TO).filter(|wish| !wish.is_empty()).or(query.as_deref());
        Ok(Self(service.redirects.choose(wish.into_iter().chain(header(REFERER.as_str())))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn rules(site: &str, patterns: &[&str]) -> RedirectRules {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        RedirectRules::new(&Url::parse(site).unwrap(), &patterns)
    }

    #[rstest]
    #[case("https://example.com", "https://example.com", true)]
    #[case("https://example.com", "https://example.com/deep/path?x=1#part", true)]
    #[case("https://example.com", "https://EXAMPLE.com/", true)]
    #[case("https://example.com", "http://example.com/", false)]
    #[case("https://example.com", "https://example.com:8443/", false)]
    #[case("https://example.com", "https://sub.example.com/", false)]
    #[case("https://example.com", "https://example.com.evil.org/", false)]
    #[case("https://example.com", "https://example.com@evil.org/", false)]
    #[case("https://example.com", "https://evil.org#@example.com/", false)]
    #[case("https://example.com", "https://evil.org\\@example.com/", false)]
    #[case("https://example.com", "https:example.com", false)]
    #[case("https://example.com", "https:/evil.org", false)]
    #[case("https://example.com", "https:\\\\evil.org", false)]
    #[case("https://example.com", "//example.com/", false)]
    #[case("https://example.com", "/path", false)]
    #[case("https://example.com", "https://exam\tple.com/", false)]
    #[case("https://example.com", " https://example.com/", false)]
    #[case("https://example.com", "https://example.com/\u{0}", false)]
    #[case("https://example.com", "", false)]
    #[case("http://localhost:3000", "http://localhost:8080/callback", true)]
    #[case("http://127.0.0.1:3000", "http://127.0.0.1/x", true)]
    #[case("http://localhost:3000", "https://localhost:3000/", false)]
    fn the_site_itself(#[case] site: &str, #[case] address: &str, #[case] allowed: bool) {
        assert_eq!(rules(site, &[]).allows(address), allowed);
    }

    #[rstest]
    #[case("http://localhost:8000/*", "http://localhost:8000/path", true)]
    #[case("http://localhost:8000/*", "http://localhost:8000/path?a=1", true)]
    #[case("http://localhost:8000/*", "http://localhost:8000/path#part.of/it", true)]
    #[case("http://localhost:8000/*", "http://localhost:8000/path/deeper", false)]
    #[case("http://localhost:8000/*", "http://localhost:8000", false)]
    #[case("http://localhost:8000/**", "http://localhost:8000/path/deeper", true)]
    #[case("https://*.example.com/**", "https://a.example.com/x", true)]
    #[case("https://*.example.com/**", "https://a.b.example.com/x", false)]
    #[case("https://*.example.com/**", "https://example.com/x", false)]
    #[case("https://**.example.com/**", "https://a.b.example.com/x", true)]
    #[case("https://**.example.com/**", "https://evil.org/.example.com/x", false)]
    #[case("https://*.example.com/**", "https://evil?.example.com/x", false)]
    #[case("https://*.example.com/**", "https://evil#.example.com/x", false)]
    #[case("https://*.example.com/**", "http://a.example.com/x", false)]
    #[case("https://preview-?.example.com", "https://preview-1.example.com", true)]
    #[case("https://preview-?.example.com", "https://preview-12.example.com", false)]
    #[case("https://preview-[0-9].example.com", "https://preview-7.example.com", true)]
    #[case("https://preview-[!0-9].example.com", "https://preview-7.example.com", false)]
    #[case("https://{a,b}.example.com/cb", "https://b.example.com/cb", true)]
    #[case("https://{a,b}.example.com/cb", "https://c.example.com/cb", false)]
    #[case("https://example.com/a.b", "https://example.com/aXb", false)]
    #[case("https://example.com/**", "https://user@example.com/", false)]
    #[case("http://*:12345/*", "http://123/path", false)]
    #[case("http://*:12345/*", "http://2130706433:12345/path", false)]
    #[case("http://**:12345/*", "http://127.0.0.1:12345/path", true)]
    #[case("http://**:12345/*", "http://[::1]:12345/path", true)]
    #[case("http://**:12345/*", "http://10.0.0.1:12345/path", false)]
    #[case("http://**:12345/*", "http://0x7f.1:12345/path", false)]
    #[case("http://**", "http://any.example.org/where?ever=1", true)]
    #[case("http*://localhost:3000/**", "https://localhost:3000/x", true)]
    #[case("**", "https://any.example.org/where", true)]
    #[case("**", "javascript:alert(1)", false)]
    #[case("**", "com.app://callback", false)]
    #[case("javascript:**", "javascript:alert(1)", false)]
    #[case("com.app://callback", "com.app://callback", true)]
    #[case("com.app://**", "com.app://callback/deep?x", true)]
    #[case("com.app:/cb", "com.app:/cb", true)]
    #[case("com.app://*", "com.other://callback", false)]
    #[case("exp://*:8081/**", "exp://192.168.0.7:8081/--/cb", false)]
    #[case("not a pattern", "https://not", false)]
    #[case("https://[", "https://[", false)]
    fn patterns(#[case] pattern: &str, #[case] address: &str, #[case] allowed: bool) {
        assert_eq!(rules("https://site.example", &[pattern]).allows(address), allowed);
    }

    #[test]
    fn the_first_allowed_wish_counts_and_the_site_is_the_last() {
        let rules = rules("https://site.example", &["https://other.example/**"]);
        assert_eq!(rules.choose(["https://evil.org/", "https://other.example/x"]), "https://other.example/x");
        assert_eq!(rules.choose(["https://evil.org/"]), "https://site.example");
        assert_eq!(rules.choose([]), "https://site.example");
    }

    proptest! {
        /// Whatever is written: when a browser would go to another host than the patterns name, it is refused.
        #[test]
        fn only_hosts_of_the_patterns_are_reached(
            before in r"[a-z0-9./:@\\?#%\[\]\t -]{0,12}",
            after in r"[a-z0-9./:@\\?#%\[\]\t -]{0,12}",
        ) {
            let rules = rules("https://site.example", &["https://*.good.example/**", "https://**.fine.example/**"]);
            for host in ["a.good.example", "fine.example", "site.example"] {
                let address = format!("https://{before}{host}{after}");
                if rules.allows(&address) {
                    let url = Url::parse(&address).unwrap();
                    let reached = url.host_str().unwrap();
                    prop_assert!(
                        reached == "site.example" || reached.ends_with(".good.example") || reached.ends_with(".fine.example"),
                        "{address} leads to {reached}"
                    );
                }
            }
        }
    }
}
