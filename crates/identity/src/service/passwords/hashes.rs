//! The kinds of password hashes that projects bring along: bcrypt, Argon2 (PHC strings) and Firebase's scrypt.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use constant_time_eq::constant_time_eq;

use crate::service::options::PasswordHash;

/// OWASP's parameters for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Costs beyond which a stored hash is refused, so that a dump cannot stall the server.
const MOST_BCRYPT_COST: u32 = 16;
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 20;
const MOST_LANES: u32 = 16;
const MOST_SCRYPT_LOG_N: u8 = 20;

/// Why a hash cannot be made or compared. No message repeats the hash.
#[derive(Debug, thiserror::Error)]
pub(super) enum HashError {
    #[error("a stored password hash is neither bcrypt, argon2i, argon2id nor fbscrypt: reset that password")]
    Unknown,
    #[error("a stored {0} hash is damaged or of a version that is not supported: reset that password")]
    Damaged(&'static str),
    #[error("a stored {0} hash costs more than this server allows: reset that password")]
    TooExpensive(&'static str),
    #[error("hashing failed: {0}")]
    Failed(String),
}

/// A new hash.
pub(super) fn hash(kind: PasswordHash, password: &str) -> Result<String, HashError> {
    match kind {
        PasswordHash::Bcrypt(cost) => {
            let hash = bcrypt::hash_with_result(password, cost);
            let hash = hash.map_err(|error| HashError::Failed(error.to_string()))?;
            // The only name that pgcrypto knows: projects compare passwords with `crypt` in functions of theirs.
            Ok(hash.format_for_version(bcrypt::Version::TwoA))
        }
        PasswordHash::Argon2id => {
            let salt = rand::random::<[u8; SALT_BYTES]>();
            let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES));
            let params = params.map_err(|error| HashError::Failed(error.to_string()))?;
            let mut hash = [0; HASH_BYTES];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.as_bytes(), &salt, &mut hash)
                .map_err(|error| HashError::Failed(error.to_string()))?;
            let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
            Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"))
        }
    }
}

/// Whether a password is the one that was hashed.
pub(super) fn verify(stored: &str, password: &str) -> Result<bool, HashError> {
    if stored.starts_with("$2") {
        match bcrypt_cost(stored) {
            None => Err(HashError::Damaged("bcrypt")),
            Some(cost) if cost > MOST_BCRYPT_COST => Err(HashError::TooExpensive("bcrypt")),
            Some(_) => bcrypt::verify(password, stored).map_err(|_| HashError::Damaged("bcrypt")),
        }
    } else if stored.starts_with("$argon2") {
        let argon2 = Argon2Hash::parse(stored).ok_or(HashError::Damaged("argon2"))?;
        argon2.verify(password)
    } else if let Some(parts) = stored.strip_prefix("$fbscrypt$") {
        let scrypt = FirebaseHash::parse(parts).ok_or(HashError::Damaged("fbscrypt"))?;
        scrypt.verify(password)
    } else {
        Err(HashError::Unknown)
    }
}

/// Whether a hash is of a kind that can be verified, and whole.
pub(super) fn is_supported(stored: &str) -> bool {
    if stored.starts_with("$2") {
        return stored.len() == 60
            && bcrypt_cost(stored).is_some_and(|cost| (4..=MOST_BCRYPT_COST).contains(&cost));
    }
    match stored.strip_prefix("$fbscrypt$") {
        Some(parts) => FirebaseHash::parse(parts).is_some(),
        None => Argon2Hash::parse(stored).is_some(),
    }
}

/// Whether a stored hash is of that kind, but was made at less cost.
pub(super) fn is_cheaper(stored: &str, than: PasswordHash) -> bool {
    match than {
        PasswordHash::Bcrypt(cost) => bcrypt_cost(stored).is_some_and(|stored| stored < cost),
        PasswordHash::Argon2id => Argon2Hash::parse(stored)
            .is_some_and(|stored| stored.memory_kib < MEMORY_KIB || stored.passes < PASSES),
    }
}

fn bcrypt_cost(stored: &str) -> Option<u32> {
    stored.strip_prefix("$2").and_then(|rest| rest.split('$').nth(1)).and_then(|cost| cost.parse().ok())
}

/// `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
struct Argon2Hash {
    algorithm: Algorithm,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Argon2Hash {
    fn parse(stored: &str) -> Option<Self> {
        let mut parts = stored.strip_prefix('$')?.split('$');
        let algorithm = match parts.next()? {
            "argon2id" => Algorithm::Argon2id,
            "argon2i" => Algorithm::Argon2i,
            _ => return None,
        };
        let (version, costs) = (parts.next()?, parts.next()?);
        let cost = |name| number(costs, name);
        let parsed = Self {
            algorithm,
            memory_kib: cost("m")?,
            passes: cost("t")?,
            lanes: cost("p")?,
            salt: STANDARD_NO_PAD.decode(parts.next()?).ok()?,
            hash: STANDARD_NO_PAD.decode(parts.next()?).ok()?,
        };
        (version == "v=19" && parts.next().is_none() && parsed.hash.len() >= 4).then_some(parsed)
    }

    fn verify(&self, password: &str) -> Result<bool, HashError> {
        if self.memory_kib > MOST_MEMORY_KIB || self.passes > MOST_PASSES || self.lanes > MOST_LANES {
            return Err(HashError::TooExpensive("argon2"));
        }
        let damaged = |_| HashError::Damaged("argon2");
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(self.hash.len()));
        let mut made = vec![0; self.hash.len()];
        Argon2::new(self.algorithm, Version::V0x13, params.map_err(damaged)?)
            .hash_password_into(password.as_bytes(), &self.salt, &mut made)
            .map_err(damaged)?;
        Ok(constant_time_eq(&made, &self.hash))
    }
}

/// `v=1,n=…,r=…,p=…,ss=…,sk=…$salt$hash`: scrypt makes a key that encrypts the project's signer key.
struct FirebaseHash {
    log_n: u8,
    rounds: u32,
    parallel: u32,
    salt: Vec<u8>,
    signer_key: Vec<u8>,
    hash: Vec<u8>,
}

impl FirebaseHash {
    fn parse(parts: &str) -> Option<Self> {
        let mut parts = parts.split('$');
        let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = |text: &str| STANDARD.decode(text).ok();
        let mut salt = bytes(salt)?;
        salt.extend(bytes(text(costs, "ss").unwrap_or_default())?);
        let parsed = Self {
            log_n: u8::try_from(number(costs, "n")?).ok()?,
            rounds: number(costs, "r")?,
            parallel: number(costs, "p")?,
            salt,
            signer_key: bytes(text(costs, "sk").unwrap_or_default())?,
            hash: bytes(hash)?,
        };
        (number(costs, "v") == Some(1) && parts.next().is_none() && !parsed.hash.is_empty()).then_some(parsed)
    }

    fn verify(&self, password: &str) -> Result<bool, HashError> {
        if self.log_n > MOST_SCRYPT_LOG_N || self.rounds > 32 || self.parallel > MOST_LANES {
            return Err(HashError::TooExpensive("fbscrypt"));
        }
        let params = scrypt::Params::new(self.log_n, self.rounds, self.parallel)
            .map_err(|_| HashError::Damaged("fbscrypt"))?;
        let mut key = [0; 32];
        scrypt::scrypt(password.as_bytes(), &self.salt, &params, &mut key)
            .map_err(|error| HashError::Failed(error.to_string()))?;
        // Each hash has a key of its own, so the counter may start at zero, as Firebase's does.
        let failed = |_| HashError::Failed("AES-CTR".into());
        let key = UnboundCipherKey::new(&AES_256, &key).and_then(EncryptingKey::ctr).map_err(failed)?;
        let mut made = self.signer_key.clone();
        key.less_safe_encrypt(&mut made, EncryptionContext::Iv128([0; 16].into())).map_err(failed)?;
        Ok(constant_time_eq(&made, &self.hash))
    }
}

/// The value of `name=…` in a list with commas.
fn text<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn number(list: &str, name: &str) -> Option<u32> {
    text(list, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(PasswordHash::Bcrypt(4), "$2a$04$")]
    #[case(PasswordHash::Argon2id, "$argon2id$v=19$m=19456,t=2,p=1$")]
    fn what_is_hashed_verifies(#[case] kind: PasswordHash, #[case] prefix: &str) {
        let stored = hash(kind, "pässword").unwrap();
        assert!(stored.starts_with(prefix), "{stored}");
        assert!(verify(&stored, "pässword").unwrap());
        assert!(!verify(&stored, "password").unwrap());
        assert_ne!(stored, hash(kind, "pässword").unwrap(), "salted");
    }

    /// Made by other software: crypt(3), Python's argon2, Firebase's own example.
    #[rstest]
    #[case("$2a$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", "correct horse", true)]
    #[case(
        "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
        "password",
        true
    )]
    #[case(
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "password",
        true
    )]
    #[case(
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "passwort",
        false
    )]
    #[case(
        "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
        "user1password",
        true
    )]
    #[case(
        "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
        "user2password",
        false
    )]
    fn hashes_of_others_verify(#[case] stored: &str, #[case] password: &str, #[case] matches: bool) {
        assert_eq!(verify(stored, password).unwrap(), matches);
    }

    #[rstest]
    #[case("2a")]
    #[case("2b")]
    #[case("2y")]
    fn all_names_of_bcrypt_are_known(#[case] name: &str) {
        let stored = hash(PasswordHash::Bcrypt(4), "password").unwrap().replacen("2a", name, 1);
        assert!(verify(&stored, "password").unwrap());
    }

    #[rstest]
    #[case("password")]
    #[case("$1$abc$def")]
    #[case("$2b$")]
    #[case("$2b$31$abcdefghijklmnopqrstuuxyzabcdefghijklmnopqrstuvwxyzabcd")]
    #[case("$argon2d$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA")]
    #[case("$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA")]
    #[case("$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA")]
    #[case("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$")]
    #[case("$fbscrypt$v=2,n=14,r=8,p=1$42xEC+ixf3L2lw==$lSrfV15cpx95")]
    #[case("$fbscrypt$v=1,n=40,r=8,p=1$42xEC+ixf3L2lw==$lSrfV15cpx95")]
    fn unusable_hashes_are_errors_not_mismatches(#[case] stored: &str) {
        let error = verify(stored, "password").unwrap_err().to_string();
        assert!(error.ends_with("reset that password"), "{error}");
    }
}
