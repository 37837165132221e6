//! `ban_duration`, in Go's notation: `24h`, `1h30m`, `1.5h`, or `none`.

use chrono::Duration;

use crate::service::error::AuthApiError;

/// Beyond, dates end.
const LONGEST_SECONDS: f64 = 1000.0 * 365.0 * 24.0 * 3600.0;

/// How long somebody shall be banned; zero lifts a ban.
///
/// # Errors
/// `validation_failed`.
pub(super) fn parse(text: &str) -> Result<Duration, AuthApiError> {
    if text == "none" {
        return Ok(Duration::zero());
    }
    let invalid = || {
        AuthApiError::invalid(format!(
            "invalid format for ban duration: {text:?} is neither `none` nor like `24h` or `1h30m`"
        ))
    };
    let seconds =
        seconds(text).filter(|seconds| (0.0..=LONGEST_SECONDS).contains(seconds)).ok_or_else(invalid)?;
    Ok(Duration::milliseconds((seconds * 1000.0) as i64))
}

fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += value.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("none", Some(0))]
    #[case("0", Some(0))]
    #[case("24h", Some(86_400))]
    #[case("1h30m", Some(5_400))]
    #[case("1.5h", Some(5_400))]
    #[case("+300s", Some(300))]
    #[case("1500ms", Some(1))]
    #[case("876000h", Some(876_000 * 3600))]
    #[case("", None)]
    #[case("24", None)]
    #[case("h", None)]
    #[case("1d", None)]
    #[case("-1h", None)]
    #[case("1..5h", None)]
    #[case("99999999999h", None)]
    fn durations(#[case] text: &str, #[case] expected: Option<i64>) {
        assert_eq!(parse(text).ok().map(|duration| duration.num_seconds()), expected);
    }
}
