//! Telephone numbers as Twilio writes them.

/// Brings a called or calling number to E.164 (`+15550100123`), or `None` when it holds no number.
///
/// Takes `sip:user@host` and `tel:` apart, `00` means `+`, ten digits without a prefix are North American.
pub fn normalise(raw: &str) -> Option<String> {
    let mut text = raw.trim();
    for scheme in ["sips:", "sip:", "tel:"] {
        if let Some((head, rest)) = text.split_at_checked(scheme.len())
            && head.eq_ignore_ascii_case(scheme)
        {
            text = rest;
            break;
        }
    }
    let text = text.split(['@', ';', '?']).next().unwrap_or_default();
    let plus = text.trim_start().starts_with('+');
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = match (plus, digits.strip_prefix("00")) {
        (false, Some(international)) => international.to_owned(),
        (false, None) if digits.len() == 10 => format!("1{digits}"),
        _ => digits,
    };
    // E.164 allows 15 digits; shorter than 3 is no number that can be called.
    (3..=15).contains(&digits.len()).then(|| format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn numbers_come_out_as_e164() {
        for (raw, expected) in [
            ("+15550100123", Some("+15550100123")),
            ("(555) 010-0123", Some("+15550100123")),
            ("15550100123", Some("+15550100123")),
            ("0044 20 7946 0000", Some("+442079460000")),
            ("sip:+442079460000@pstn.twilio.com;user=phone", Some("+442079460000")),
            ("SIP:5550100123@10.0.0.1", Some("+15550100123")),
            ("tel:+1-555-010-0123", Some("+15550100123")),
            ("anonymous", None),
            ("", None),
            ("+1", None),
            ("+1234567890123456", None),
        ] {
            assert_eq!(normalise(raw).as_deref(), expected, "{raw:?}");
        }
    }
}
