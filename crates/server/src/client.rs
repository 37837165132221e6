//! Who asks, and under which origin they reached us: both pass through proxies that we may or may not believe.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::ConnectInfo;
use http::request::Parts;
use http::uri::Authority;
use http::{Extensions, HeaderMap, header};

use crate::ApiError;

/// Address of the client: the peer's, or what trusted proxies say in `X-Forwarded-For`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// Scheme and host under which the outside world reaches this server, e.g. `https://api.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicOrigin(Arc<str>);

impl PublicOrigin {
    /// The origin, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same origin for WebSockets: `wss://…` or `ws://…`.
    pub fn websocket(&self) -> String {
        self.0.replacen("http", "ws", 1)
    }
}

impl fmt::Display for PublicOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the configuration says about the way to us.
#[derive(Debug)]
pub(crate) struct Edge {
    trusted_proxies: Vec<IpAddr>,
    public_origin: Option<PublicOrigin>,
}

impl Edge {
    pub(crate) fn new(settings: &longhouse_config::Server) -> Self {
        Self {
            trusted_proxies: settings.trusted_proxies.iter().map(IpAddr::to_canonical).collect(),
            public_origin: settings
                .public_url
                .as_ref()
                .map(|url| PublicOrigin(url.origin().ascii_serialization().into())),
        }
    }

    /// The address to hold responsible, and the origin that this request was sent to.
    pub(crate) fn resolve(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
        target: Option<&Authority>,
    ) -> (ClientIp, PublicOrigin) {
        let peer = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip().to_canonical());
        let trusted = self.trusts(peer);
        let client = if trusted { self.forwarded_client(headers).unwrap_or(peer) } else { peer };
        let origin = self.public_origin.clone().unwrap_or_else(|| origin_of(headers, target, trusted));
        (ClientIp(client), origin)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.contains(&address)
    }

    /// Walks `X-Forwarded-For` from the right: the first address that is not one of our proxies was seen
    /// by one of them; everything further left is the client's own claim.
    fn forwarded_client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut nearest = None;
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            for entry in value.to_str().ok()?.rsplit(',') {
                let Some(address) = parse_address(entry.trim()) else { return nearest };
                nearest = Some(address);
                if !self.trusts(address) {
                    return nearest;
                }
            }
        }
        nearest
    }
}

/// Some proxies add the port: `203.0.113.7:4711`, `[2001:db8::1]:4711`.
fn parse_address(entry: &str) -> Option<IpAddr> {
    entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

fn origin_of(headers: &HeaderMap, target: Option<&Authority>, trusted: bool) -> PublicOrigin {
    let forwarded = |name: &str| {
        let value = trusted.then(|| headers.get(name)).flatten()?.to_str().ok()?;
        // A chain of proxies lists the outermost first.
        Some(value.split(',').next().unwrap_or_default().trim().to_owned())
    };
    let scheme = match forwarded("x-forwarded-proto").as_deref() {
        Some("https" | "wss") => "https",
        _ => "http",
    };
    let host = forwarded("x-forwarded-host")
        .filter(|host| is_host(host))
        .or_else(|| Some(headers.get(header::HOST)?.to_str().ok()?.to_owned()).filter(|host| is_host(host)))
        .or_else(|| target.map(|authority| authority.as_str().to_owned()).filter(|host| is_host(host)))
        .unwrap_or_else(|| "localhost".to_owned());
    PublicOrigin(format!("{scheme}://{}", host.to_ascii_lowercase()).into())
}

fn is_host(text: &str) -> bool {
    text.len() <= 255 && !text.contains('@') && text.parse::<Authority>().is_ok()
}

impl<S: Send + Sync> FromRequestParts<S> for ClientIp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a router without the `Stack` gets here with nothing: refuse rather than guess an address.
        parts.extensions.get::<Self>().copied().ok_or_else(ApiError::internal)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PublicOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn resolve(trusted: &[&str], peer: &str, headers: &[(&'static str, &str)]) -> (String, String) {
        let settings = longhouse_config::Server {
            trusted_proxies: trusted.iter().map(|proxy| proxy.parse().unwrap()).collect(),
            ..Default::default()
        };
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let (client, origin) = Edge::new(&settings).resolve(&extensions, &map, None);
        (client.0.to_string(), origin.to_string())
    }

    #[rstest]
    #[case::nobody_trusted(&[], "10.0.0.1", "203.0.113.7", "10.0.0.1")]
    #[case::one_proxy(&["10.0.0.1"], "10.0.0.1", "203.0.113.7", "203.0.113.7")]
    #[case::forged_prefix(&["10.0.0.1"], "10.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7")]
    #[case::two_proxies(&["10.0.0.1", "10.0.0.2"], "10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7")]
    #[case::nonsense(&["10.0.0.1"], "10.0.0.1", "unknown", "10.0.0.1")]
    #[case::with_port(&["10.0.0.1"], "10.0.0.1", "[2001:db8::1]:99", "2001:db8::1")]
    #[case::mapped(&["10.0.0.1"], "::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7")]
    fn client_address(
        #[case] trusted: &[&str],
        #[case] peer: &str,
        #[case] forwarded: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(resolve(trusted, peer, &[("x-forwarded-for", forwarded)]).0, expected);
    }

    #[rstest]
    #[case::host(&[], &[("host", "API.example.com:8000")], "http://api.example.com:8000")]
    #[case::untrusted(&[], &[("host", "a.test"), ("x-forwarded-host", "evil.test")], "http://a.test")]
    #[case::trusted(
        &["10.0.0.1"],
        &[("host", "a.test"), ("x-forwarded-host", "b.test"), ("x-forwarded-proto", "https")],
        "https://b.test"
    )]
    #[case::userinfo(&[], &[("host", "u:p@evil.test")], "http://localhost")]
    #[case::missing(&[], &[], "http://localhost")]
    fn public_origin(
        #[case] trusted: &[&str],
        #[case] headers: &[(&'static str, &str)],
        #[case] expected: &str,
    ) {
        assert_eq!(resolve(trusted, "10.0.0.1", headers).1, expected);
    }
}
