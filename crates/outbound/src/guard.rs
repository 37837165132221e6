//! Judging URLs and the addresses that their names lead to.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use url::{Host, Url};

use crate::is_public;

/// Where requests may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Public addresses, over https.
    Public,
    /// Anywhere, this machine and its networks included, also over http: the operator says so.
    Anywhere,
}

/// A URL that must not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url} is not a public https address: correct it, or let the operator allow private addresses")]
pub struct Forbidden {
    /// The URL without its query and credentials.
    pub url: String,
}

/// Whether a URL may be asked at all. Names are judged again when they are resolved.
///
/// # Errors
/// [`Forbidden`] for other schemes, credentials in the URL, and literal addresses that are not public.
pub fn permit(url: &Url, reach: Reach) -> Result<(), Forbidden> {
    let anywhere = reach == Reach::Anywhere;
    let literal = match url.host() {
        Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(Host::Domain(_)) => None,
        None => return Err(Forbidden { url: bare(url) }),
    };
    let scheme =
        matches!(url.scheme(), "https" | "wss") || (anywhere && matches!(url.scheme(), "http" | "ws"));
    let public = anywhere || literal.is_none_or(is_public);
    if scheme && public && url.username().is_empty() && url.password().is_none() {
        Ok(())
    } else {
        Err(Forbidden { url: bare(url) })
    }
}

/// A client builder whose connections stay within `reach`: names are resolved by the guard, no proxy resolves them
/// behind its back, and redirects are not followed. Callers [`permit`] the URL first and add their deadlines.
pub fn client(reach: Reach) -> ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("longhouse/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Guard { reach })
}

/// Follows up to `most` redirects, each judged like the first URL.
///
/// Only for requests without secrets in headers of their own: those would travel along to another host.
#[must_use]
pub fn rechecked_redirects(reach: Reach, most: usize) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > most {
            return attempt.error("too many redirects");
        }
        match permit(attempt.url(), reach) {
            Ok(()) => attempt.follow(),
            Err(forbidden) => attempt.error(forbidden),
        }
    })
}

/// Resolves names and hides addresses out of reach.
struct Guard {
    reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let anywhere = self.reach == Reach::Anywhere;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| anywhere || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("{} leads to no public address", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A URL without what may be secret in it: query, fragment, credentials.
#[must_use]
pub fn bare(url: &Url) -> String {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let _ = bare.set_password(None);
    let _ = bare.set_username("");
    bare.into()
}

/// The cause that says something: reqwest's own message is only "error sending request".
#[must_use]
pub fn innermost(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut last = None;
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[rstest]
    #[case("https://accounts.example.com/x", false, true)]
    #[case("https://8.8.8.8/", false, true)]
    #[case("http://accounts.example.com/", false, false)]
    #[case("https://127.0.0.1/", false, false)]
    #[case("https://[::1]/", false, false)]
    #[case("https://2130706433/", false, false)]
    #[case("https://0x7f.1/", false, false)]
    #[case("https://user@example.com/", false, false)]
    #[case("ftp://example.com/", true, false)]
    #[case("file:///etc/passwd", true, false)]
    #[case("http://127.0.0.1:9/", true, true)]
    #[case("wss://api.example.com/", false, true)]
    #[case("ws://api.example.com/", false, false)]
    fn asks_public_https_addresses_only(#[case] url: Url, #[case] anywhere: bool, #[case] allowed: bool) {
        let reach = if anywhere { Reach::Anywhere } else { Reach::Public };
        assert_eq!(permit(&url, reach).is_ok(), allowed);
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused() {
        let error =
            client(Reach::Public).build().unwrap().get("https://localhost/").send().await.unwrap_err();
        assert!(innermost(&error).unwrap().contains("no public address"), "{error:?}");
    }

    #[tokio::test]
    async fn a_redirect_out_of_reach_is_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            let answer = b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        });
        let client = client(Reach::Anywhere).redirect(rechecked_redirects(Reach::Public, 3)).build().unwrap();
        let error = client.get(format!("http://{address}/")).send().await.unwrap_err();
        server.await.unwrap();
        assert!(innermost(&error).unwrap().contains("is not a public https address"), "{error:?}");
    }
}
