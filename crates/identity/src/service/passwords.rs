//! Passwords: rules for new ones, and hashing that cannot crowd out other requests.

mod hashes;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::error::AuthApiError;
use super::options::{PasswordHash, PasswordOptions};

/// Longest password that is looked at, in bytes.
const MOST_BYTES: usize = 1024;
/// bcrypt reads no further.
const MOST_BCRYPT_BYTES: usize = 72;
/// Sign-ins that may wait for a core, for each core: some seconds' worth.
const MOST_WAITING_PER_CORE: usize = 128;

/// What verifying a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) matches: bool,
    /// The stored hash is of the configured kind but cheaper: store a new one.
    pub(crate) outdated: bool,
}

/// Hashes and verifies, as many at once as there are cores, on threads of their own. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    options: Arc<PasswordOptions>,
    running: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// Hash that accounts without a password are compared with.
    decoy: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn new(options: &PasswordOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            options: Arc::new(options.clone()),
            running: Arc::new(Semaphore::new(cores)),
            queue: Arc::new(Semaphore::new(cores * (MOST_WAITING_PER_CORE + 1))),
            decoy: Arc::default(),
        }
    }

    /// Checks a new password against the project's rules.
    ///
    /// # Errors
    /// `validation_failed` when it is too long, `weak_password` with the reasons.
    pub(crate) fn check(&self, password: &str) -> Result<(), AuthApiError> {
        check(&self.options, password)
    }

    /// Whether a hash that somebody brings along can be compared with.
    pub(crate) fn can_verify(&self, hash: &str) -> bool {
        hashes::is_supported(hash)
    }

    /// Hashes a new password as the options say.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, AuthApiError> {
        let (password, kind) = (password.to_owned(), self.options.hash);
        self.run(move || hashes::hash(kind, &password)).await?.map_err(AuthApiError::internal)
    }

    /// Compares a password with a stored hash. Without one it takes as long, and does not match.
    ///
    /// # Errors
    /// 429 when too many wait already; 500 when the stored hash is of no kind that we know.
    pub(crate) async fn verify(&self, stored: Option<&str>, password: &str) -> Result<Verdict, AuthApiError> {
        let no_match = Verdict { matches: false, outdated: false };
        let (kind, decoy) = (self.options.hash, self.decoy.clone());
        let stored = stored.filter(|hash| !hash.is_empty()).map(str::to_owned);
        if password.len() > MOST_BYTES {
            return Ok(no_match);
        }
        let password = password.to_owned();
        let verify = move || match stored {
            Some(stored) => {
                let matches = hashes::verify(&stored, &password)?;
                Ok(Verdict { matches, outdated: matches && hashes::is_cheaper(&stored, kind) })
            }
            None => {
                let decoy = decoy.get_or_init(|| hashes::hash(kind, "nobody's password").unwrap_or_default());
                hashes::verify(decoy, &password).map(|_| no_match)
            }
        };
        self.run(verify).await?.map_err(AuthApiError::internal)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthApiError> {
        let place = self.queue.clone().try_acquire_owned().map_err(|_| {
            let message = "Too many sign-ins at once, please try again in a moment";
            AuthApiError::too_many("over_request_rate_limit", message, Duration::from_secs(1))
        })?;
        let turn = self.running.clone().acquire_owned().await.map_err(AuthApiError::internal)?;
        // The turn goes along: a request that gives up leaves its work running.
        let work = move || {
            let result = work();
            drop((turn, place));
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(AuthApiError::internal)
    }
}

fn check(options: &PasswordOptions, password: &str) -> Result<(), AuthApiError> {
    let most = match options.hash {
        PasswordHash::Bcrypt(_) => MOST_BCRYPT_BYTES,
        PasswordHash::Argon2id => MOST_BYTES,
    };
    if password.len() > most {
        return Err(AuthApiError::invalid(format!("Password cannot be longer than {most} characters")));
    }
    let (mut messages, mut reasons) = (Vec::new(), Vec::new());
    if password.chars().count() < options.min_length {
        reasons.push("length");
        messages.push(format!("Password should be at least {} characters.", options.min_length));
    }
    let sets = &options.required_characters;
    if sets.iter().any(|set| !set.is_empty() && !password.contains(|c| set.contains(c))) {
        reasons.push("characters");
        messages
            .push(format!("Password should contain at least one character of each: {}.", sets.join(", ")));
    }
    if reasons.is_empty() { Ok(()) } else { Err(AuthApiError::weak_password(messages.join(" "), reasons)) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn options(hash: PasswordHash, required: &[&str]) -> PasswordOptions {
        PasswordOptions {
            min_length: 6,
            required_characters: required.iter().map(|&set| set.to_owned()).collect(),
            hash,
            require_reauthentication: false,
            require_current_password: false,
        }
    }

    #[rstest]
    #[case("correct", &[], "")]
    #[case("short", &[], "Password should be at least 6 characters.")]
    #[case("ünïcö", &[], "Password should be at least 6 characters.")]
    #[case("letters", &["abc", "012"], "Password should contain at least one character of each: abc, 012.")]
    #[case("abc012", &["abc", "012", ""], "")]
    #[case("x", &["012"], "Password should be at least 6 characters. Password should contain at least one character of each: 012.")]
    fn rules(#[case] password: &str, #[case] required: &[&str], #[case] message: &str) {
        let result = check(&options(PasswordHash::Bcrypt(4), required), password);
        assert_eq!(result.as_ref().map_or_else(AuthApiError::message, |()| ""), message);
        assert!(result.is_ok() || result.is_err_and(|error| error.code() == "weak_password"));
    }

    #[test]
    fn bcrypt_would_ignore_what_is_beyond_72_bytes() {
        let long = "x".repeat(73);
        assert_eq!(
            check(&options(PasswordHash::Bcrypt(4), &[]), &long).unwrap_err().code(),
            "validation_failed"
        );
        check(&options(PasswordHash::Argon2id, &[]), &long).unwrap();
    }

    #[tokio::test]
    async fn a_hash_of_less_cost_is_outdated_but_another_kind_is_not() {
        let stored = Passwords::new(&options(PasswordHash::Bcrypt(4), &[])).hash("correct").await.unwrap();
        for (hash, outdated) in [
            (PasswordHash::Bcrypt(4), false),
            (PasswordHash::Bcrypt(5), true),
            (PasswordHash::Argon2id, false),
        ] {
            let passwords = Passwords::new(&options(hash, &[]));
            let verdict = passwords.verify(Some(&stored), "correct").await.unwrap();
            assert_eq!(verdict, Verdict { matches: true, outdated });
            let verdict = passwords.verify(Some(&stored), "wrong").await.unwrap();
            assert_eq!(verdict, Verdict { matches: false, outdated: false });
        }
    }

    #[tokio::test]
    async fn nobody_has_the_decoys_password() {
        let passwords = Passwords::new(&options(PasswordHash::Bcrypt(4), &[]));
        for stored in [None, Some("")] {
            assert!(!passwords.verify(stored, "nobody's password").await.unwrap().matches);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_than_can_wait_are_sent_away() {
        let passwords = Passwords::new(&options(PasswordHash::Bcrypt(8), &[]));
        let places = passwords.queue.available_permits();
        let attempts: Vec<_> = (0..places + 10)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify(None, "x").await })
            })
            .collect();
        let mut refused = 0;
        for attempt in attempts {
            if let Err(error) = attempt.await.unwrap() {
                assert_eq!(error.code(), "over_request_rate_limit");
                refused += 1;
            }
        }
        assert!((1..=10).contains(&refused), "{refused}");
        assert_eq!(passwords.queue.available_permits(), places, "all places are free again");
    }
}
