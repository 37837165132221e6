//! Durations (`1h30m`) and sizes (`64kB`), read and written.

use std::time::Duration;

/// Longest unit first: a duration lists its units in this order.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZES: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
    ("", 1),
];

/// Reads `30s`, `5m`, `1h30m`, `250ms`, `2d`; `None` for anything else, a bare number included.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0_u64;
    let mut units = TIMES.iter();
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        // The iterator is never rewound, so a unit that repeats or climbs is refused.
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(*scale)?)?;
        rest = after;
    }
    (!text.trim().is_empty()).then(|| Duration::from_millis(total))
}

/// Writes a duration as [`parse_duration`] reads it.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, scale) in TIMES {
        if rest >= scale {
            text.push_str(&format!("{}{unit}", rest / scale));
            rest %= scale;
        }
    }
    text
}

/// Reads `1MiB`, `64kB`, `512` (bytes); units in any case, k = 1000, Ki = 1024.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let unit = unit.trim_start();
    let (_, scale) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*scale)
}

/// Writes a size in the largest unit that divides it, binary units first.
pub(crate) fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    let exact = |(_, scale): &&(&str, u64)| bytes.is_multiple_of(*scale) && bytes >= *scale;
    let (unit, scale) = SIZES.iter().find(exact).expect("one byte divides every size");
    format!("{}{unit}", bytes / scale)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("30s", Some(30_000))]
    #[case("5m", Some(300_000))]
    #[case("1h30m", Some(5_400_000))]
    #[case("250ms", Some(250))]
    #[case("1d2h3m4s5ms", Some(93_784_005))]
    #[case(" 20s ", Some(20_000))]
    #[case("0", Some(0))]
    #[case("0s", Some(0))]
    #[case("30", None)]
    #[case("", None)]
    #[case("s", None)]
    #[case("-5s", None)]
    #[case("1.5h", None)]
    #[case("30m1h", None)]
    #[case("1h1h", None)]
    #[case("5 m", None)]
    #[case("5min", None)]
    #[case("99999999999999999999s", None)]
    #[case("9999999999999999d", None)]
    fn durations(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text:?}");
    }

    #[rstest]
    #[case("1MiB", Some(1_048_576))]
    #[case("64kB", Some(64_000))]
    #[case("64KB", Some(64_000))]
    #[case("64kib", Some(65_536))]
    #[case("512", Some(512))]
    #[case("2 GB", Some(2_000_000_000))]
    #[case("1.5MiB", None)]
    #[case("MiB", None)]
    #[case("1TB", None)]
    #[case("99999999999GiB", None)]
    fn sizes(#[case] text: &str, #[case] bytes: Option<u64>) {
        assert_eq!(parse_size(text), bytes, "{text:?}");
    }

    #[test]
    fn sizes_are_written_in_the_unit_people_chose() {
        assert_eq!(format_size(1024 * 1024), "1MiB");
        assert_eq!(format_size(64_000), "64kB");
        assert_eq!(format_size(1), "1B");
        assert_eq!(format_duration(Duration::from_secs(5400)), "1h30m");
    }

    proptest! {
        #[test]
        fn durations_survive_a_round_trip(millis in 0_u64..1 << 53) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn sizes_survive_a_round_trip(bytes in 0_u64..1 << 53) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
