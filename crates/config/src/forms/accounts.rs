//! Forms of the sections about accounts: pages, patterns of addresses, mail and providers.

use url::Url;

use super::{Form, Raw, read_word};
use crate::error::Problem;
use crate::settings::PasswordHashing;

/// A page of the application: `https://app.example.com/welcome`, or an app's own scheme.
pub(crate) struct PageUrl;
impl Form for PageUrl {
    type Value = Url;
    fn wanted() -> String {
        "`https://HOST[:PORT][/PATH]` or `SCHEME://…` of an app".into()
    }
    fn read(raw: &Raw) -> Result<Url, Problem> {
        let text = raw.text()?;
        let scripted = |url: &Url| matches!(url.scheme(), "javascript" | "data" | "blob" | "file" | "about");
        match Url::parse(&text) {
            Ok(url) if !scripted(&url) && url.username().is_empty() && url.password().is_none() => Ok(url),
            _ => Err(Problem::new(
                format!("`{}` is not the address of a page", text.escape_debug()),
                "Write it whole, such as `https://app.example.com` or `com.example.app://sign-in`.",
            )),
        }
    }
    fn show(value: &Url) -> Option<String> {
        Some(value.to_string())
    }
}

/// An address in which `*` and `**` stand for other characters.
pub(crate) struct PagePattern;
impl Form for PagePattern {
    type Value = String;
    fn wanted() -> String {
        "address; `*` stands for a part of a name, `**` for anything".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let plain = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        if plain(scheme)
            && !rest.is_empty()
            && text.len() <= 500
            && text.chars().all(|c| c.is_ascii_graphic())
        {
            return Ok(text);
        }
        Err(Problem::new(
            format!("`{}` is not an address that people may be sent to", text.escape_debug()),
            "Write the scheme in full: `https://*.example.com/**`, `com.example.app://**`.",
        ))
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

/// An address of a service: `https://HOST[:PORT][/PATH]`.
pub(crate) struct ServiceUrl;
impl Form for ServiceUrl {
    type Value = Url;
    fn wanted() -> String {
        "`https://HOST[:PORT][/PATH]`".into()
    }
    fn read(raw: &Raw) -> Result<Url, Problem> {
        let text = raw.text()?;
        match Url::parse(&text) {
            Ok(url)
                if matches!(url.scheme(), "https" | "http")
                    && url.has_host()
                    && url.username().is_empty() =>
            {
                Ok(url)
            }
            _ => Err(Problem::new(
                format!("`{}` is not an address of a service", text.escape_debug()),
                "Write it whole: `https://login.example.com/realms/main`.",
            )),
        }
    }
    fn show(value: &Url) -> Option<String> {
        Some(value.to_string())
    }
}

/// One line of text.
pub(crate) struct Line;
impl Form for Line {
    type Value = String;
    fn wanted() -> String {
        "text".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        if text.trim().is_empty() || text.len() > 500 || text.chars().any(char::is_control) {
            return Err(Problem::new(
                "is not one line of text",
                "Give 1 to 500 characters without line breaks.",
            ));
        }
        Ok(text)
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

/// `schema.function` of the database.
pub(crate) struct FunctionName;
impl Form for FunctionName {
    type Value = String;
    fn wanted() -> String {
        "`SCHEMA.FUNCTION` or `pg-functions://postgres/SCHEMA/FUNCTION`".into()
    }
    fn read(raw: &Raw) -> Result<String, Problem> {
        let text = raw.text()?;
        let name = match text.strip_prefix("pg-functions://postgres/") {
            Some(path) => path.replacen('/', ".", 1),
            None => text.clone(),
        };
        let part = |part: &str| {
            !part.is_empty() && part.len() <= 63 && part.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        match name.split_once('.') {
            Some((schema, function)) if part(schema) && part(function) => Ok(name),
            _ => Err(Problem::new(
                format!("`{}` is not a function of the database", text.escape_debug()),
                "Name its schema too: `public.custom_access_token`.",
            )),
        }
    }
    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

pub(crate) struct Hashing;
impl Form for Hashing {
    type Value = PasswordHashing;
    fn wanted() -> String {
        "`bcrypt` or `argon2id`".into()
    }
    fn read(raw: &Raw) -> Result<PasswordHashing, Problem> {
        read_word(raw, "a way to hash passwords", "Write `bcrypt` or `argon2id`.", |word| match word {
            "bcrypt" => Some(PasswordHashing::Bcrypt),
            "argon2id" => Some(PasswordHashing::Argon2id),
            _ => None,
        })
    }
    fn show(value: &PasswordHashing) -> Option<String> {
        let word = match value {
            PasswordHashing::Bcrypt => "bcrypt",
            PasswordHashing::Argon2id => "argon2id",
        };
        Some(word.into())
    }
}

/// `NUMBER=CODE`: a telephone number that gets no message.
pub(crate) struct TestOtp;
impl Form for TestOtp {
    type Value = (String, String);
    fn wanted() -> String {
        "`NUMBER=CODE`".into()
    }
    fn read(raw: &Raw) -> Result<(String, String), Problem> {
        let text = raw.text()?;
        let digits = |text: &str, most: usize| {
            (4..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        match text.split_once('=').map(|(number, code)| (number.trim_start_matches('+'), code)) {
            Some((number, code)) if digits(number, 15) && digits(code, 10) => {
                Ok((number.into(), code.into()))
            }
            _ => Err(Problem::new(
                "is not a number with its code",
                "Write `4915112345678=123456`: digits only, the number with its country code.",
            )),
        }
    }
    fn show(value: &(String, String)) -> Option<String> {
        Some(format!("{}={}", value.0, value.1))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read<F: Form>(text: &str) -> Option<F::Value> {
        F::read(&Raw::Text(text.to_owned())).ok()
    }

    #[rstest]
    #[case("https://app.example.com/welcome", true)]
    #[case("com.example.app://sign-in", true)]
    #[case("javascript:alert(1)", false)]
    #[case("https://me:secret@example.com", false)]
    #[case("app.example.com", false)]
    fn pages_are_whole_and_harmless(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(read::<PageUrl>(text).is_some(), fine);
    }

    #[rstest]
    #[case("https://*.example.com/**", true)]
    #[case("app://**", true)]
    #[case("**", false)]
    #[case("*://example.com", false)]
    fn patterns_name_their_scheme(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(read::<PagePattern>(text).is_some(), fine);
    }

    #[rstest]
    #[case("public.claims", Some("public.claims"))]
    #[case("pg-functions://postgres/public/claims", Some("public.claims"))]
    #[case("claims", None)]
    #[case("public.claims; drop table x", None)]
    fn functions_have_a_schema(#[case] text: &str, #[case] name: Option<&str>) {
        assert_eq!(read::<FunctionName>(text).as_deref(), name);
    }

    #[test]
    fn test_codes_are_digits() {
        assert_eq!(read::<TestOtp>("+491511=123456"), Some(("491511".into(), "123456".into())));
        assert_eq!(read::<TestOtp>("491511=abc"), None);
    }
}
