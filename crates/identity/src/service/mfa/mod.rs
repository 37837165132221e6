//! Second factors and passkeys: what may be enrolled, and how each kind is proved.

pub(crate) mod recovery;
mod text_message;
pub(crate) mod totp;
pub(crate) mod webauthn;

use super::error::AuthApiError;
use super::options::MfaOptions;
use super::store::{Aal, Factor, FactorType, Session};

/// Whether an account may begin to enrol another factor.
///
/// # Errors
/// Its name is taken, there are too many, or the session has not proved a factor that the account has.
pub(crate) fn may_enrol(
    factors: &[Factor],
    name: &str,
    options: &MfaOptions,
    session: &Session,
) -> Result<(), AuthApiError> {
    if factors.iter().any(|factor| factor.friendly_name.as_deref().unwrap_or_default() == name) {
        return Err(AuthApiError::unprocessable(
            "mfa_factor_name_conflict",
            format!("A factor with the friendly name {name:?} for this user already exists"),
        ));
    }
    if factors.len() >= options.max_factors {
        let message = "Maximum number of verified factors reached, unenroll to continue";
        return Err(AuthApiError::unprocessable("too_many_enrolled_mfa_factors", message));
    }
    if factors.iter().any(Factor::is_verified) && session.aal < Aal::Aal2 {
        return Err(AuthApiError::forbidden("insufficient_aal", "AAL2 required to enroll a new factor"));
    }
    Ok(())
}

/// Whether a session may change passkeys or recovery codes: whoever has a second factor must have proved it.
///
/// # Errors
/// 403 `insufficient_aal`.
pub(crate) fn may_manage(
    factors: &[Factor],
    session: Option<&Session>,
    what: &'static str,
) -> Result<(), AuthApiError> {
    let proved = session.is_some_and(|session| session.aal >= Aal::Aal2);
    match factors.iter().any(Factor::is_verified) && !proved {
        true => Err(AuthApiError::forbidden("insufficient_aal", what)),
        false => Ok(()),
    }
}

/// What an operation on a factor is for, in the names of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Enrol,
    Verify,
}

/// Whether a kind of factor is switched on.
///
/// # Errors
/// 422, e.g. `mfa_phone_enroll_not_enabled`.
pub(crate) fn enabled(options: &MfaOptions, kind: FactorType, step: Step) -> Result<(), AuthApiError> {
    let (on, name, enrol, verify) = match kind {
        FactorType::Totp => {
            (options.totp, "TOTP", "mfa_totp_enroll_not_enabled", "mfa_totp_verify_not_enabled")
        }
        FactorType::Phone => {
            (options.phone, "Phone", "mfa_phone_enroll_not_enabled", "mfa_phone_verify_not_enabled")
        }
        FactorType::Webauthn => (
            options.webauthn,
            "WebAuthn",
            "mfa_webauthn_enroll_not_enabled",
            "mfa_webauthn_verify_not_enabled",
        ),
    };
    match (on, step) {
        (true, _) => Ok(()),
        (false, Step::Enrol) => {
            Err(AuthApiError::unprocessable(enrol, format!("MFA enroll is disabled for {name}")))
        }
        (false, Step::Verify) => {
            Err(AuthApiError::unprocessable(verify, format!("MFA verification is disabled for {name}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rstest::rstest;
    use url::Url;
    use uuid::Uuid;

    use super::super::options::AuthOptions;
    use super::super::store::FactorStatus;
    use super::*;

    fn factor(name: &str, status: FactorStatus) -> Factor {
        Factor {
            id: Uuid::nil(),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            status,
            friendly_name: (!name.is_empty()).then(|| name.to_owned()),
            factor_type: FactorType::Totp,
            phone: None,
            last_challenged_at: None,
        }
    }

    fn session(aal: Aal) -> Session {
        Session {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            created_at: DateTime::UNIX_EPOCH,
            aal,
            not_after: None,
            refreshed_at: None,
            amr: Vec::new(),
        }
    }

    #[rstest]
    #[case::first(&[], Aal::Aal1, "")]
    #[case::another(&[("a", FactorStatus::Unverified)], Aal::Aal1, "")]
    #[case::nameless_twice(&[("", FactorStatus::Unverified)], Aal::Aal1, "mfa_factor_name_conflict")]
    #[case::proved(&[("a", FactorStatus::Verified)], Aal::Aal2, "")]
    #[case::not_proved(&[("a", FactorStatus::Verified)], Aal::Aal1, "insufficient_aal")]
    #[case::full(&[("a", FactorStatus::Verified), ("b", FactorStatus::Unverified)], Aal::Aal2, "too_many_enrolled_mfa_factors")]
    fn enrolment(#[case] factors: &[(&str, FactorStatus)], #[case] aal: Aal, #[case] refusal: &str) {
        let site = Url::parse("http://localhost").unwrap();
        let mut options = AuthOptions::new(site.clone(), site).mfa;
        options.max_factors = 2;
        let factors: Vec<_> = factors.iter().map(|(name, status)| factor(name, *status)).collect();
        let result = may_enrol(&factors, "", &options, &session(aal));
        assert_eq!(result.as_ref().err().map_or("", AuthApiError::code), refusal);
    }

    #[rstest]
    #[case::no_factor(None, None, true)]
    #[case::unverified(Some(FactorStatus::Unverified), Some(Aal::Aal1), true)]
    #[case::not_proved(Some(FactorStatus::Verified), Some(Aal::Aal1), false)]
    #[case::no_session(Some(FactorStatus::Verified), None, false)]
    #[case::proved(Some(FactorStatus::Verified), Some(Aal::Aal2), true)]
    fn management(#[case] status: Option<FactorStatus>, #[case] aal: Option<Aal>, #[case] allowed: bool) {
        let factors: Vec<_> = status.map(|status| factor("a", status)).into_iter().collect();
        let session = aal.map(session);
        assert_eq!(may_manage(&factors, session.as_ref(), "prove it").is_ok(), allowed);
    }
}
