//! `X-Twilio-Signature`: Base64(HMAC-SHA1(auth token, URL + sorted parameters)).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Signs a request as Twilio does.
///
/// `url` is the full URL as Twilio calls it, query included (for a stream its `wss://` form).
/// `params` are the form parameters of a POST, empty for GET and for a WebSocket upgrade: each
/// distinct name in order, and under it each distinct value in order, appended without separators.
///
/// ```
/// let header = longhouse_emulators::twilio::sign("wss://example.com/stream", &[], "token");
/// assert_eq!(header.len(), 28);
/// ```
pub fn sign(url: &str, params: &[(String, String)], auth_token: &str) -> String {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in params {
        sorted.entry(name).or_default().insert(value);
    }
    let mut mac =
        Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    for (name, values) in sorted {
        for value in values {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// The worked example of Twilio's security documentation.
    #[test]
    fn matches_the_documented_example() {
        let params = pairs(&[
            ("To", "+18005551212"),
            ("Digits", "1234"),
            ("From", "+14158675310"),
            ("Caller", "+14158675310"),
            ("CallSid", "CA1234567890ABCDE"),
        ]);
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(sign(url, &params, "12345"), "GvWf1cFY/Q7PnoempGyD5oXAezc=");
    }

    #[test]
    fn order_and_repetition_do_not_matter_but_every_value_does() {
        let url = "https://example.com/voice";
        let one = sign(url, &pairs(&[("a", "2"), ("b", "x"), ("a", "1")]), "t");
        assert_eq!(one, sign(url, &pairs(&[("b", "x"), ("a", "1"), ("a", "2"), ("a", "1")]), "t"));
        assert_ne!(one, sign(url, &pairs(&[("b", "x"), ("a", "1")]), "t"));
        assert_ne!(one, sign(url, &pairs(&[("a", "2"), ("b", "x"), ("a", "1")]), "u"));
    }
}
