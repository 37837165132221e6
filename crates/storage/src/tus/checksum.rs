//! `Upload-Checksum`: the client's hash of one request's body.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::error::Refusal;

/// For `Tus-Checksum-Algorithm`.
pub(super) const ALGORITHMS: &str = "md5,sha1,sha256";

/// A hash as it grows, and what it should become.
pub(super) struct Checksum {
    state: State,
    wanted: Vec<u8>,
}

enum State {
    Md5(Box<Md5>),
    Sha(digest::Context),
}

impl Checksum {
    /// Reads `sha1 <base64>`.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = |text: &str| Refusal::Invalid(format!("Upload-Checksum: {text}"));
        let (algorithm, hash) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| invalid("write an algorithm, a space, a hash in base64"))?;
        let (state, length) = match algorithm {
            "md5" => (State::Md5(Box::default()), 16),
            "sha1" => (State::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)), 20),
            "sha256" => (State::Sha(digest::Context::new(&digest::SHA256)), 32),
            _ => return Err(invalid(&format!("the algorithm must be one of {ALGORITHMS}"))),
        };
        let wanted = STANDARD.decode(hash.trim()).map_err(|_| invalid("the hash is not in base64"))?;
        if wanted.len() != length {
            return Err(invalid("the hash is not as long as the algorithm's"));
        }
        Ok(Self { state, wanted })
    }

    pub(super) fn add(&mut self, chunk: &[u8]) {
        match &mut self.state {
            State::Md5(md5) => md5.update(chunk),
            State::Sha(sha) => sha.update(chunk),
        }
    }

    pub(super) fn matches(self) -> bool {
        match self.state {
            State::Md5(md5) => md5.finalize().as_slice() == self.wanted,
            State::Sha(sha) => sha.finish().as_ref() == self.wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=", Some(true))]
    #[case("md5 XUFAKrxLKna5cZ2REBfFkg==", Some(true))]
    #[case("sha256 LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=", Some(true))]
    #[case("sha1 qvTGHdzF6KLavt4PO0gs2a6pQ01=", None)]
    #[case("sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", Some(false))]
    #[case("sha1 qvTG", None)]
    #[case("crc32 AAAAAA==", None)]
    #[case("sha1", None)]
    fn hashes_of_hello(#[case] header: &str, #[case] matches: Option<bool>) {
        let checksum = Checksum::parse(header).ok().map(|mut checksum| {
            checksum.add(b"hel");
            checksum.add(b"lo");
            checksum.matches()
        });
        assert_eq!(checksum, matches);
    }
}
