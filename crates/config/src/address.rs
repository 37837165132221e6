//! URLs: schemes, the classic mistakes, and what of a URL may be shown.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::Problem;

/// What one kind of address must look like.
pub(crate) struct Rule {
    /// Schemes accepted from anywhere, the one to propose first.
    pub(crate) schemes: &'static [&'static str],
    /// Further schemes accepted when the host is this machine.
    pub(crate) local_schemes: &'static [&'static str],
    /// Whether only an origin is wanted: scheme, host and port without a path.
    pub(crate) origin_only: bool,
    /// A correct one, to show.
    pub(crate) example: &'static str,
}

pub(crate) const WEB_ORIGIN: Rule = Rule {
    schemes: &["https", "http"],
    local_schemes: &[],
    origin_only: true,
    example: "https://api.example.com",
};

pub(crate) const STREAM: Rule = Rule {
    schemes: &["wss"],
    local_schemes: &["ws"],
    origin_only: false,
    example: "wss://voice.example.com/twilio/stream",
};

pub(crate) const REALTIME: Rule = Rule {
    schemes: &["wss"],
    local_schemes: &["ws"],
    origin_only: false,
    example: "wss://api.openai.com/v1/realtime",
};

/// Reads an address that holds no secret: user information and queries are refused, so it may be shown afterwards.
pub(crate) fn parse(text: &str, rule: &Rule) -> Result<Url, Problem> {
    let example = || format!("Write it as `{}`.", rule.example);
    let shown = masked(text);
    if !text.contains("://") {
        // Without a scheme it may be anything, a key pasted into the wrong place included: it is not shown.
        return Err(Problem::new(
            "has no scheme",
            format!("Start it with `{}://`. {}", rule.schemes[0], example()),
        ));
    }
    let Ok(url) = Url::parse(text) else {
        return Err(Problem::new(format!("`{shown}` is not a URL"), example()));
    };
    check_scheme(&url, &shown, rule)?;
    if url.host().is_none() {
        return Err(Problem::new(format!("`{shown}` names no host"), example()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new(
            format!("`{shown}` contains a user name or password"),
            "Remove everything between `//` and `@`; keys have settings of their own.",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new(
            format!("`{shown}` has a query or fragment"),
            "Remove everything from `?` or `#` on; parameters travel inside the connection.",
        ));
    }
    if rule.origin_only && url.path() != "/" {
        return Err(Problem::new(
            format!("`{shown}` has a path"),
            format!("Give only scheme, host and port: `{}`.", url.origin().ascii_serialization()),
        ));
    }
    Ok(url)
}

fn check_scheme(url: &Url, shown: &str, rule: &Rule) -> Result<(), Problem> {
    let scheme = url.scheme();
    if rule.schemes.contains(&scheme) {
        return Ok(());
    }
    if rule.local_schemes.contains(&scheme) {
        return if is_loopback(url) {
            Ok(())
        } else {
            Err(Problem::new(
                format!("`{shown}` is not encrypted: `{scheme}://` is accepted for this machine only"),
                format!("Start it with `{}://`.", rule.schemes[0]),
            ))
        };
    }
    let wanted = rule.schemes.iter().map(|s| format!("`{s}://`")).collect::<Vec<_>>().join(" or ");
    let remedy = match (scheme, rule.schemes[0]) {
        ("https" | "http", "wss") => {
            "A media stream is a WebSocket: write `wss://` in place of what stands before `://`.".to_owned()
        }
        ("ws" | "wss", "https") => {
            "This is a web address: write `https://` in place of the WebSocket scheme.".to_owned()
        }
        ("postgres" | "postgresql", _) => {
            "That is the database's connection string: it belongs in `database.url` (`DATABASE_URL`)."
                .to_owned()
        }
        _ => format!("Write it as `{}`.", rule.example),
    };
    Err(Problem::new(format!("`{shown}` starts with `{scheme}:`, not {wanted}"), remedy))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Hides whatever a URL, or what was meant as one, may hold in confidence: user information, query and fragment.
pub(crate) fn masked(text: &str) -> String {
    let (before, after) = text.split_at(text.find("://").map_or(0, |at| at + 3));
    let hidden = match after.rfind('@') {
        Some(at) => format!("{before}***@{}", &after[at + 1..]),
        None => format!("{before}{after}"),
    };
    match hidden.find(['?', '#']) {
        Some(at) => format!("{}***", &hidden[..=at]),
        None => hidden,
    }
}

const DATABASE_EXAMPLE: &str = "Write it as `postgresql://USER:PASSWORD@HOST:5432/DATABASE`.";

/// Checks a Postgres connection string. Says nothing of its content: a broken one cannot be masked with certainty.
pub(crate) fn check_database(text: &str) -> Result<(), Problem> {
    let wrong = |what: &str, remedy: &str| Err(Problem::new(what, format!("{remedy} {DATABASE_EXAMPLE}")));
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("has no scheme", "Start it with `postgresql://`.");
    };
    match scheme {
        "postgres" | "postgresql" => {}
        "http" | "https" => {
            return wrong(
                "is a web address, not a connection string",
                "Take the connection string from the project's database settings; its web address is `SUPABASE_URL`.",
            );
        }
        _ if scheme.starts_with("jdbc:") || scheme.contains('+') => {
            return wrong("has the scheme of another driver", "Start it with plain `postgresql://`.");
        }
        _ => return wrong("does not start with `postgresql://`", "Use that scheme."),
    }
    if rest.to_ascii_lowercase().contains("[your-password]") {
        return wrong(
            "still has the placeholder `[YOUR-PASSWORD]`",
            "Put the database password in its place.",
        );
    }
    if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong(
            "contains a space or line break",
            "Remove it, or write it as `%20` if the password has one.",
        );
    }
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (user_info, hosts) = match authority.rsplit_once('@') {
        Some((user_info, hosts)) => (Some(user_info), hosts),
        None => (None, authority),
    };
    // `user:pa/ss@host` ends its authority inside the password, which then reads as a port.
    if user_info.is_none() && rest.contains('@') && hosts.contains(':') {
        return wrong(
            "has a `/`, `?` or `#` in the password",
            "Write those as `%2F`, `%3F` and `%23` in the password.",
        );
    }
    if user_info.is_some_and(|user_info| user_info.contains('@')) {
        return wrong("has an `@` in the password", "Write it as `%40` in the password.");
    }
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((name, rest)) => {
                    if name.parse::<IpAddr>().is_err() {
                        return wrong(
                            "has brackets around something that is no IPv6 address",
                            "Correct the host.",
                        );
                    }
                    (name, rest.strip_prefix(':'))
                }
                None => return wrong("has a `[` without its `]` in the host", "Correct the host."),
            },
            None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
        };
        if name.is_empty() && port.is_some() {
            return wrong("names no host before the port", "Add the host.");
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return wrong(
                "has a port that is not a number from 1 to 65535",
                "Correct what follows the host's `:`.",
            );
        }
    }
    Ok(())
}

/// Shows a checked connection string with its passwords hidden.
pub(crate) fn masked_database(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return "***".into() };
    let (address, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
    let address = match address.rsplit_once('@') {
        Some((user_info, place)) => match user_info.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => format!("{user_info}@{place}"),
        },
        None => address.to_owned(),
    };
    let query = query.map_or_else(String::new, |query| {
        let shown = query.split('&').map(|pair| match pair.split_once('=') {
            // Only what is known to be harmless is shown: a misspelt `pasword=` stays hidden.
            Some((name, _)) if !HARMLESS.contains(&name) => format!("{name}=***"),
            Some(_) => pair.to_owned(),
            None => "***".to_owned(),
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{address}{query}")
}

const HARMLESS: [&str; 10] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "port",
    "sslmode",
    "target_session_attrs",
    "user",
    "pgbouncer",
];

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("wss://voice.example.com/twilio/stream", Ok(()))]
    #[case("ws://127.0.0.1:8080/s", Ok(()))]
    #[case("ws://[::1]:8080/s", Ok(()))]
    #[case("ws://localhost/s", Ok(()))]
    #[case("ws://voice.example.com/s", Err("is not encrypted"))]
    #[case("https://voice.example.com/s", Err("write `wss://`"))]
    #[case("http://voice.example.com/s", Err("write `wss://`"))]
    #[case("voice.example.com/s", Err("has no scheme"))]
    #[case("wss://voice.example.com/s?token=1", Err("has a query"))]
    #[case("wss://u:p@voice.example.com/s", Err("user name or password"))]
    #[case("wss://", Err("is not a URL"))]
    #[case("wss://host:99999/", Err("is not a URL"))]
    fn stream_addresses(#[case] text: &str, #[case] expected: Result<(), &str>) {
        match (parse(text, &STREAM), expected) {
            (Ok(_), Ok(())) => {}
            (Err(problem), Err(part)) => {
                let said = format!("{} {}", problem.wrong, problem.remedy);
                assert!(said.contains(part), "{text}: {said}");
            }
            (Ok(_), Err(_)) => panic!("{text} was accepted"),
            (Err(problem), Ok(())) => panic!("{text} was refused: {}", problem.wrong),
        }
    }

    #[test]
    fn an_origin_with_a_path_is_answered_with_the_origin() {
        let problem = parse("https://api.example.com/rest/v1", &WEB_ORIGIN).err().unwrap();
        assert!(problem.remedy.contains("`https://api.example.com`"), "{}", problem.remedy);
    }

    #[rstest]
    #[case("postgresql://postgres:s3cret@db.example.com:5432/postgres", None)]
    #[case("postgres://localhost/app", None)]
    #[case("postgres:///app?host=/var/run/postgresql", None)]
    #[case("postgres://%2Frun%2Fpg/app", None)]
    #[case("postgres://u:p@[::1]:5432/app", None)]
    #[case("postgres://u:p@a:5432,b:5433/app?target_session_attrs=read-write", None)]
    #[case("postgres://u:p@host/db?application_name=me@home", None)]
    #[case("host=localhost user=me", Some("no scheme"))]
    #[case("https://abc.supabase.co", Some("web address"))]
    #[case("postgresql+psycopg2://u:p@h/db", Some("another driver"))]
    #[case("jdbc:postgresql://h/db", Some("another driver"))]
    #[case("mysql://u:p@h/db", Some("does not start"))]
    #[case("postgres://u:[YOUR-PASSWORD]@h/db", Some("placeholder"))]
    #[case("postgres://u:p@h:99999/db", Some("port"))]
    #[case("postgres://u:p@h:0/db", Some("port"))]
    #[case("postgres://u:p@h:abc/db", Some("port"))]
    #[case("postgres://u:a/b@h:5432/db", Some("`/`"))]
    #[case("postgres://u:a@b@h:5432/db", Some("`@`"))]
    #[case("postgres://u:p q@h/db", Some("space"))]
    fn connection_strings(#[case] text: &str, #[case] wrong: Option<&str>) {
        match (check_database(text), wrong) {
            (Ok(()), None) => {}
            (Err(problem), Some(part)) => assert!(problem.wrong.contains(part), "{text}: {}", problem.wrong),
            (Ok(()), Some(_)) => panic!("{text} was accepted"),
            (Err(problem), None) => panic!("{text} was refused: {}", problem.wrong),
        }
    }

    #[rstest]
    #[case("postgres://u:p@h:1/db", "postgres://u:***@h:1/db")]
    #[case("postgres://u@h/db", "postgres://u@h/db")]
    #[case("postgres://h/db?password=p&sslmode=require", "postgres://h/db?password=***&sslmode=require")]
    fn database_masks(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(masked_database(text), shown);
    }

    #[rstest]
    #[case("https://h/p", "https://h/p")]
    #[case("postgres://u:p@h/db", "postgres://***@h/db")]
    #[case("wss://h/p?token=1", "wss://h/p?***")]
    #[case("u:p@h", "***@h")]
    fn masks(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(masked(text), shown);
    }
}
