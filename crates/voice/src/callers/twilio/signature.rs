//! `X-Twilio-Signature`: proof that a webhook or a stream comes from Twilio.
//!
//! Source: Twilio, "Webhooks security" (HMAC-SHA1 over the URL and the sorted form parameters).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use url::Url;

/// What was signed besides the URL.
#[derive(Debug, Clone, Copy)]
pub enum Signed<'a> {
    /// Nothing: a GET, or a WebSocket upgrade.
    UrlOnly,
    /// The decoded parameters of a form POST.
    Form(&'a [(String, String)]),
    /// A body of another type: the query carries its SHA-256 as `bodySHA256`.
    Body(&'a [u8]),
}

/// Checks signatures with the account's auth tokens (two while a token is being rotated).
#[derive(Debug, Clone)]
pub struct Verifier {
    tokens: Vec<SecretString>,
}

impl Verifier {
    /// A verifier that accepts any of the given tokens. Without tokens it accepts nothing.
    pub fn new(tokens: impl IntoIterator<Item = SecretString>) -> Self {
        Self { tokens: tokens.into_iter().filter(|t| !t.expose_secret().is_empty()).collect() }
    }

    /// Whether there is a token to check with.
    pub fn is_configured(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether `signature` fits the URL as Twilio requested it. Runs in constant time for a given URL.
    ///
    /// Twilio is not consistent about default ports and trailing slashes, so the variants with and without are tried.
    pub fn verify(&self, url: &Url, signed: Signed<'_>, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
        if let Signed::Body(body) = signed {
            let expected =
                url.query_pairs().find(|(name, _)| name == "bodySHA256").map(|(_, v)| v.into_owned());
            let digest = hex::encode(Sha256::digest(body));
            if expected.is_none_or(|e| !e.eq_ignore_ascii_case(&digest)) {
                return false;
            }
        }
        let parameters = match signed {
            Signed::Form(form) => canonical_form(form),
            Signed::UrlOnly | Signed::Body(_) => String::new(),
        };
        let mut valid = false;
        for url in url_variants(url) {
            for token in &self.tokens {
                let mut mac = hmac(token);
                mac.update(url.as_bytes());
                mac.update(parameters.as_bytes());
                valid |= mac.verify_slice(&signature).is_ok();
            }
        }
        valid
    }
}

/// The signature that Twilio would send: for our own requests to `<Redirect>`ed deployments and for tests.
pub fn sign(token: &SecretString, url: &str, form: &[(String, String)]) -> String {
    let mut mac = hmac(token);
    mac.update(url.as_bytes());
    mac.update(canonical_form(form).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn hmac(token: &SecretString) -> Hmac<Sha1> {
    Hmac::new_from_slice(token.expose_secret().as_bytes()).expect("HMAC takes keys of any length")
}

/// Each distinct name with each of its distinct values, sorted: a name is repeated before every value.
fn canonical_form(form: &[(String, String)]) -> String {
    let pairs: BTreeSet<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut text = String::new();
    for (name, value) in pairs {
        text.push_str(name);
        text.push_str(value);
    }
    text
}

fn url_variants(url: &Url) -> Vec<String> {
    let plain = url.as_str().to_owned();
    let mut variants = vec![plain.clone()];
    let default_port = match url.scheme() {
        "https" | "wss" => 443,
        _ => 80,
    };
    if url.port().is_none() {
        // `Url` drops default ports; insert it after the authority.
        let authority = plain.find("://").map_or(0, |i| i + 3);
        let end = plain[authority..].find(['/', '?', '#']).map_or(plain.len(), |i| authority + i);
        let (head, tail) = plain.split_at(end);
        variants.push(format!("{head}:{default_port}{tail}"));
    } else {
        let mut bare = url.clone();
        if bare.set_port(None).is_ok() {
            variants.push(bare.into());
        }
    }
    if url.query().is_none() {
        let slashed: Vec<String> = variants
            .iter()
            .map(|v| v.strip_suffix('/').map_or_else(|| format!("{v}/"), str::to_owned))
            .collect();
        variants.extend(slashed);
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn verifier() -> Verifier {
        Verifier::new(["old-token".to_owned().into(), "12345".to_owned().into()])
    }

    #[test]
    fn accepts_what_was_signed_and_nothing_else() {
        let url = Url::parse("https://example.com/twilio/voice?x=1").unwrap();
        let parameters = form(&[("To", "+15550100123"), ("From", "+15550100999"), ("CallSid", "CA1")]);
        let signature = sign(&"12345".to_owned().into(), url.as_str(), &parameters);
        assert!(verifier().verify(&url, Signed::Form(&parameters), &signature));

        let tampered = form(&[("To", "+15550100124"), ("From", "+15550100999"), ("CallSid", "CA1")]);
        assert!(!verifier().verify(&url, Signed::Form(&tampered), &signature));
        assert!(!verifier().verify(&url, Signed::UrlOnly, &signature));
        assert!(!verifier().verify(&url, Signed::Form(&parameters), "not base64!"));
        assert!(!verifier().verify(&url, Signed::Form(&parameters), ""));
        let other = Url::parse("https://example.org/twilio/voice?x=1").unwrap();
        assert!(!verifier().verify(&other, Signed::Form(&parameters), &signature));
        assert!(!Verifier::new([]).verify(&url, Signed::Form(&parameters), &signature));
    }

    #[test]
    fn either_token_is_good_during_rotation() {
        let url = Url::parse("https://example.com/v").unwrap();
        for token in ["old-token", "12345"] {
            let signature = sign(&token.to_owned().into(), url.as_str(), &[]);
            assert!(verifier().verify(&url, Signed::UrlOnly, &signature), "{token}");
        }
    }

    #[test]
    fn default_ports_and_trailing_slashes_may_differ() {
        let token: SecretString = "12345".to_owned().into();
        for signed in ["wss://example.com/s", "wss://example.com:443/s", "wss://example.com/s/"] {
            let signature = sign(&token, signed, &[]);
            let seen = Url::parse("wss://example.com/s").unwrap();
            assert!(verifier().verify(&seen, Signed::UrlOnly, &signature), "{signed}");
        }
        // The host is the authority, not its first occurrence in the text.
        let signature = sign(&token, "wss://s:443/s", &[]);
        assert!(verifier().verify(&Url::parse("wss://s/s").unwrap(), Signed::UrlOnly, &signature));
    }

    #[test]
    fn repeated_parameters_are_sorted_and_distinct() {
        assert_eq!(canonical_form(&form(&[("b", "2"), ("a", "z"), ("b", "1"), ("b", "2")])), "azb1b2");
    }

    #[test]
    fn a_json_body_is_checked_by_its_hash() {
        let body = br#"{"a":1}"#;
        let hash = hex::encode(Sha256::digest(body));
        let url = Url::parse(&format!("https://example.com/v?bodySHA256={hash}")).unwrap();
        let signature = sign(&"12345".to_owned().into(), url.as_str(), &[]);
        assert!(verifier().verify(&url, Signed::Body(body), &signature));
        assert!(!verifier().verify(&url, Signed::Body(b"{}"), &signature));
    }
}
