//! What a bucket takes: how large, and of which types.

use crate::Error;

/// Reads `20GB`, `5mb`, `30KB`, `3B` (powers of a thousand), with at most a fraction.
///
/// # Errors
/// [`Error::InvalidSizeLimit`].
pub fn parse_size(text: &str) -> Result<i64, Error> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(Error::InvalidSizeLimit)?;
    let (number, unit) = text.split_at(end);
    let scale: f64 = match unit.to_ascii_lowercase().as_str() {
        "gb" => 1e9,
        "mb" => 1e6,
        "kb" => 1e3,
        "b" => 1.0,
        _ => return Err(Error::InvalidSizeLimit),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && number.starts_with(|c: char| c.is_ascii_digit())
        && number.ends_with(|c: char| c.is_ascii_digit());
    let number: f64 = match digits {
        true => number.parse().map_err(|_| Error::InvalidSizeLimit)?,
        false => return Err(Error::InvalidSizeLimit),
    };
    let bytes = (number * scale).round();
    // Exact in a double, and far above any file.
    if bytes <= 9e15 { Ok(bytes as i64) } else { Err(Error::TooLarge("object")) }
}

/// Checks a list of allowed types: `type/subtype`, `type/*`, or `*`.
///
/// # Errors
/// [`Error::InvalidMimeType`] with the first that is none.
pub fn check_allowed_types(types: &[String]) -> Result<(), Error> {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte))
    };
    for entry in types {
        let essence = entry.split(';').next().unwrap_or_default().trim_end();
        let parameters = &entry[essence.len()..];
        let fits = entry == "*"
            || essence.split_once('/').is_some_and(|(kind, sub)| {
                token(kind) && (token(sub) || (sub == "*" && parameters.is_empty()))
            });
        let charset = parameters.trim_start_matches([';', ' ']);
        let parameters_fit = parameters.is_empty() || charset.strip_prefix("charset=").is_some_and(token);
        if entry.len() > 1000 || !fits || !parameters_fit {
            return Err(Error::InvalidMimeType(shown(entry)));
        }
    }
    Ok(())
}

/// Whether a type is one of the allowed; none listed allows all.
///
/// # Errors
/// [`Error::InvalidMimeType`].
pub fn check_type(mime: &str, allowed: &[String]) -> Result<(), Error> {
    if allowed.is_empty() {
        return Ok(());
    }
    let parts = |text: &str| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.split_once('/').map(|(kind, sub)| (kind.to_ascii_lowercase(), sub.to_ascii_lowercase()))
    };
    let refused = || Error::InvalidMimeType(shown(mime));
    let (kind, sub) = parts(mime).ok_or_else(refused)?;
    let matches = |entry: &String| {
        entry == "*" || parts(entry).is_some_and(|(k, s)| (k == kind || k == "*") && (s == "*" || s == sub))
    };
    if allowed.iter().any(matches) { Ok(()) } else { Err(refused()) }
}

fn shown(text: &str) -> String {
    text.chars().take(200).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("20GB", Some(20_000_000_000))]
    #[case("5mb", Some(5_000_000))]
    #[case("1.5KB", Some(1500))]
    #[case("3B", Some(3))]
    #[case("0b", Some(0))]
    #[case("5", None)]
    #[case("-5MB", None)]
    #[case("5 MB", None)]
    #[case("5MiB", None)]
    #[case(".5MB", None)]
    #[case("1.2.3MB", None)]
    #[case("mb", None)]
    #[case("", None)]
    #[case("99999999999GB", None)]
    fn sizes(#[case] text: &str, #[case] bytes: Option<i64>) {
        assert_eq!(parse_size(text).ok(), bytes);
    }

    #[rstest]
    #[case("image/png", &[], true)]
    #[case("image/png", &["image/*"], true)]
    #[case("IMAGE/PNG", &["image/png"], true)]
    #[case("text/plain; charset=utf-8", &["text/plain"], true)]
    #[case("text/html", &["text/plain", "image/*"], false)]
    #[case("image", &["image/*"], false)]
    #[case("video/mp4", &["*"], true)]
    #[case("nonsense", &["*"], false)]
    #[case("", &["*"], false)]
    fn types(#[case] mime: &str, #[case] allowed: &[&str], #[case] accepted: bool) {
        let allowed: Vec<String> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        assert_eq!(check_type(mime, &allowed).is_ok(), accepted);
    }

    #[rstest]
    #[case("image/png", true)]
    #[case("image/*", true)]
    #[case("*", true)]
    #[case("text/plain; charset=utf-8", true)]
    #[case("application/vnd.ms-excel+xml", true)]
    #[case("image", false)]
    #[case("image/", false)]
    #[case("*/*/", false)]
    #[case("image/png; drop table", false)]
    #[case("ima ge/png", false)]
    fn lists_of_types(#[case] entry: &str, #[case] accepted: bool) {
        assert_eq!(check_allowed_types(&[entry.to_owned()]).is_ok(), accepted, "{entry}");
    }
}
