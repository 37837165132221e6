//! Which account a person from a provider gets (facts: Supabase Auth's rules for linking).

use uuid::Uuid;

use super::profile::ProviderEmail;

/// What is stored that has to do with the person.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Account that has this very identity.
    pub(super) identity: Option<Uuid>,
    /// Provider and account of identities that have one of the person's trusted addresses.
    pub(super) similar_identities: Vec<(String, Uuid)>,
    /// Accounts that have one of the person's trusted addresses.
    pub(super) similar_users: Vec<Uuid>,
    /// Whether any account or identity has the address that stands for the person.
    pub(super) address_taken: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Sign in to the account that has the identity.
    Exists(Uuid),
    /// Give the identity to that account: both have the same verified address.
    Link(Uuid),
    /// A new account; without its address if somebody else has that.
    Create { with_email: bool },
    /// The address belongs to several accounts: nobody can say whose the identity is.
    Ambiguous,
}

/// Addresses that prove something: verified by the provider, or any where addresses are not verified at all.
pub(super) fn trusted(emails: &[ProviderEmail], autoconfirm: bool) -> Vec<&str> {
    emails.iter().filter(|email| email.verified || autoconfirm).map(|email| email.address.as_str()).collect()
}

/// Decides. `any_trusted` says whether the person has a trusted address.
pub(super) fn decide(known: &Known, any_trusted: bool) -> Decision {
    if let Some(user) = known.identity {
        return Decision::Exists(user);
    }
    if !any_trusted {
        return Decision::Create { with_email: !known.address_taken };
    }
    // Single sign-on of organisations is a world of its own, one per issuer.
    let mut linked = known
        .similar_identities
        .iter()
        .filter(|(provider, _)| !provider.starts_with("sso:"))
        .map(|(_, user)| *user);
    match linked.next() {
        Some(first) if linked.all(|user| user == first) => Decision::Link(first),
        Some(_) => Decision::Ambiguous,
        None => match known.similar_users.as_slice() {
            // Taken where only another address of the person is verified.
            [] => Decision::Create { with_email: !known.address_taken },
            [one] => Decision::Link(*one),
            _ => Decision::Ambiguous,
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn identities(list: &[(&str, Uuid)]) -> Vec<(String, Uuid)> {
        list.iter().map(|(provider, user)| ((*provider).to_owned(), *user)).collect()
    }

    #[rstest]
    #[case::same_identity(Some(A), &[("email", B)], &[B], true, true, Decision::Exists(A))]
    #[case::nobody_yet(None, &[], &[], false, true, Decision::Create { with_email: true })]
    #[case::same_verified_address(None, &[("email", A)], &[A], true, true, Decision::Link(A))]
    #[case::two_identities_one_account(None, &[("email", A), ("github", A)], &[A], true, true, Decision::Link(A))]
    #[case::account_without_identity(None, &[], &[A], true, true, Decision::Link(A))]
    #[case::address_of_two_accounts(None, &[("email", A), ("github", B)], &[A], true, true, Decision::Ambiguous)]
    #[case::two_accounts(None, &[], &[A, B], true, true, Decision::Ambiguous)]
    #[case::organisation_only(None, &[("sso:1", B)], &[], false, true, Decision::Create { with_email: true })]
    #[case::organisation_besides(None, &[("sso:1", B), ("google", A)], &[A], true, true, Decision::Link(A))]
    #[case::primary_unverified_and_taken(None, &[], &[], true, true, Decision::Create { with_email: false })]
    #[case::unverified_and_taken(None, &[], &[], true, false, Decision::Create { with_email: false })]
    #[case::unverified_and_free(None, &[], &[], false, false, Decision::Create { with_email: true })]
    fn decides(
        #[case] identity: Option<Uuid>,
        #[case] similar: &[(&str, Uuid)],
        #[case] users: &[Uuid],
        #[case] address_taken: bool,
        #[case] any_trusted: bool,
        #[case] expected: Decision,
    ) {
        let known = Known {
            identity,
            similar_identities: identities(similar),
            similar_users: users.to_vec(),
            address_taken,
        };
        assert_eq!(decide(&known, any_trusted), expected);
    }

    #[test]
    fn unverified_addresses_are_trusted_only_where_none_are_verified() {
        let email =
            |address: &str, verified| ProviderEmail { address: address.into(), verified, primary: false };
        let emails = [email("a@x.y", true), email("b@x.y", false)];
        assert_eq!(trusted(&emails, false), ["a@x.y"]);
        assert_eq!(trusted(&emails, true), ["a@x.y", "b@x.y"]);
    }
}
