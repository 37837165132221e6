//! Codes of authenticator apps (RFC 6238): six digits, every 30 seconds, one step of tolerance each way.

use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use totp_rs::{Algorithm, Builder, Secret, Totp};

use crate::service::error::AuthApiError;

/// 160 bits, as RFC 4226 §4 recommends.
const SECRET_BYTES: usize = 20;
const DIGITS: u8 = 6;
const STEP: u64 = 30;
const SKEW: u16 = 1;
const LONGEST_NAME: usize = 200;
/// Pixels of the code's picture.
const PICTURE: u32 = 200;

/// What an authenticator app needs to be told.
pub(crate) struct Enrolment {
    /// In base 32.
    pub(crate) secret: String,
    /// `otpauth://totp/…`.
    pub(crate) uri: String,
    /// The same as an SVG document. Colours have names: `#` would end a data URI.
    pub(crate) picture: String,
}

/// A new secret for an account.
///
/// # Errors
/// `validation_failed` when issuer or account cannot be written into the address.
pub(crate) fn enrol(issuer: &str, account: &str) -> Result<Enrolment, AuthApiError> {
    let writable = |name: &str| !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains(':');
    if !writable(issuer) || !writable(account) {
        return Err(AuthApiError::invalid(
            "issuer and account name need 1 to 200 characters other than a colon",
        ));
    }
    let mut random = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(AuthApiError::internal)?;
    let totp = builder(Secret::from(random.to_vec()))
        .with_issuer(Some(issuer))
        .with_account_name(account)
        .build()
        .map_err(AuthApiError::internal)?;
    let uri = totp.to_url().map_err(AuthApiError::internal)?;
    let code = QrCode::with_error_correction_level(&uri, EcLevel::M).map_err(AuthApiError::internal)?;
    let picture = code
        .render::<svg::Color<'_>>()
        .min_dimensions(PICTURE, PICTURE)
        .dark_color(svg::Color("black"))
        .light_color(svg::Color("white"))
        .build();
    Ok(Enrolment { secret: Secret::from(random.to_vec()).to_base32(), uri, picture })
}

/// The time step whose code this is, if it is one of now or right beside it, and later than the last that was used:
/// a code that somebody looked at over a shoulder is worth nothing.
///
/// # Errors
/// The stored secret is damaged.
pub(crate) fn accepted_step(
    secret: &str,
    code: &str,
    now: u64,
    last: Option<i64>,
) -> Result<Option<i64>, AuthApiError> {
    let secret = Secret::try_from_base32(secret.trim_end_matches('='))
        .map_err(|_| AuthApiError::internal("the stored secret of a TOTP factor is not base 32"))?;
    let totp = builder(secret).build_noncompliant();
    let step = check(&totp, code, now);
    Ok(step.filter(|step| last.is_none_or(|last| *step > last)))
}

fn check(totp: &Totp, code: &str, now: u64) -> Option<i64> {
    // Later steps first: the same code in two steps shall not be good twice.
    let step = now / STEP;
    (step.saturating_sub(SKEW.into())..=step + u64::from(SKEW)).rev().find_map(|step| {
        let expected = totp.generate(step * STEP);
        let same = constant_time_eq::constant_time_eq(expected.to_string().as_bytes(), code.as_bytes());
        same.then(|| i64::try_from(step).ok()).flatten()
    })
}

fn builder(secret: Secret) -> Builder {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(SKEW)
        .with_step_duration(STEP)
        .with_secret(secret)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// "12345678901234567890", the secret of RFC 6238's test vectors.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[rstest]
    #[case::vector_1("287082", 59, None, Some(1))]
    #[case::vector_2("081804", 1_111_111_109, None, Some(37_037_036))]
    #[case::vector_4("005924", 1_234_567_890, None, Some(41_152_263))]
    #[case::one_step_late("287082", 89, None, Some(1))]
    #[case::two_steps_late("287082", 90, None, None)]
    #[case::one_step_early("287082", 0, None, Some(1))]
    #[case::used("287082", 59, Some(1), None)]
    #[case::older_than_used("287082", 89, Some(2), None)]
    #[case::wrong("287083", 59, None, None)]
    #[case::short("87082", 59, None, None)]
    #[case::long("2870820", 59, None, None)]
    #[case::empty("", 59, None, None)]
    #[case::not_digits("28708²", 59, None, None)]
    fn codes(#[case] code: &str, #[case] now: u64, #[case] last: Option<i64>, #[case] expected: Option<i64>) {
        assert_eq!(accepted_step(SECRET, code, now, last).unwrap(), expected);
    }

    #[test]
    fn an_enrolment_tells_an_app_all_it_needs() {
        let enrolment = enrol("Corner Café", "ann@example.com").unwrap();
        let uri = url::Url::parse(&enrolment.uri).unwrap();
        assert_eq!((uri.scheme(), uri.host_str()), ("otpauth", Some("totp")));
        let parameter =
            |name: &str| uri.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        assert_eq!(parameter("secret").as_deref(), Some(enrolment.secret.as_str()));
        assert_eq!(parameter("issuer").as_deref(), Some("Corner Café"));
        assert_eq!(enrolment.secret.len(), 32);
        assert!(enrolment.picture.contains("<svg") && !enrolment.picture.contains('#'));
        assert_ne!(enrol("A", "b").unwrap().secret, enrol("A", "b").unwrap().secret);
    }

    #[rstest]
    #[case("", "ann")]
    #[case("A:B", "ann")]
    #[case("A", "an:n")]
    #[case(&"x".repeat(201), "ann")]
    fn names_that_an_address_cannot_hold_are_refused(#[case] issuer: &str, #[case] account: &str) {
        assert_eq!(enrol(issuer, account).err().unwrap().code(), "validation_failed");
    }
}
