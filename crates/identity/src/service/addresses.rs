//! E-mail addresses and telephone numbers, as accounts store them.

use lettre::Address;

use super::error::AuthApiError;

/// Longest e-mail address: what the column holds.
const MOST_EMAIL: usize = 255;

/// An e-mail address in lower case.
///
/// # Errors
/// `validation_failed` when it is missing, too long or no plain ASCII `local@domain`.
pub(crate) fn normalise_email(email: &str) -> Result<String, AuthApiError> {
    if email.is_empty() {
        return Err(AuthApiError::invalid("An email address is required"));
    }
    if email.len() > MOST_EMAIL {
        return Err(AuthApiError::invalid("An email address is too long"));
    }
    // Quoted names, address literals and letters beyond ASCII are legal in mail, but no form sends them.
    let plain = email.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"[]()<>,;:\\".contains(&byte));
    if !plain || email.parse::<Address>().is_err() {
        return Err(AuthApiError::invalid("Unable to validate email address: invalid format"));
    }
    Ok(email.to_ascii_lowercase())
}

/// The digits of a number in E.164 format, which may be written with `+` and spaces.
///
/// # Errors
/// `validation_failed` when it is no such number.
pub(crate) fn normalise_phone(phone: &str) -> Result<String, AuthApiError> {
    let digits: String = phone.strip_prefix('+').unwrap_or(phone).chars().filter(|&c| c != ' ').collect();
    let valid = (2..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    if valid {
        Ok(digits)
    } else {
        Err(AuthApiError::invalid("Invalid phone number format (E.164 required)"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Ann@Example.COM", Some("ann@example.com"))]
    #[case("a.b+tag@sub.example.org", Some("a.b+tag@sub.example.org"))]
    #[case("o'neil@localhost", Some("o'neil@localhost"))]
    #[case("", None)]
    #[case("ann", None)]
    #[case("ann@", None)]
    #[case("@example.com", None)]
    #[case("ann@@example.com", None)]
    #[case("ann@exa mple.com", None)]
    #[case(" ann@example.com", None)]
    #[case("ann@example.com\r\nBcc: all@example.com", None)]
    #[case("\"ann b\"@example.com", None)]
    #[case("Ann <ann@example.com>", None)]
    #[case("ann@[127.0.0.1]", None)]
    #[case("änn@example.com", None)]
    #[case("ann@exämple.com", None)]
    fn emails(#[case] written: &str, #[case] stored: Option<&str>) {
        assert_eq!(normalise_email(written).ok().as_deref(), stored);
    }

    #[test]
    fn an_email_fits_its_column() {
        let long = format!("a@{}.com", "x".repeat(255));
        assert_eq!(normalise_email(&long).unwrap_err().message(), "An email address is too long");
    }

    #[rstest]
    #[case("+49 170 1234567", Some("491701234567"))]
    #[case("12025550199", Some("12025550199"))]
    #[case("+1", None)]
    #[case("0170 1234567", None)]
    #[case("+49-170-123", None)]
    #[case("1234567890123456", None)]
    #[case("++491701234567", None)]
    #[case("", None)]
    fn phones(#[case] written: &str, #[case] stored: Option<&str>) {
        assert_eq!(normalise_phone(written).ok().as_deref(), stored);
    }
}
