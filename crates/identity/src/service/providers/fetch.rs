//! Requests to providers: bounded in time and size, without redirects, and not into private networks.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use longhouse_outbound::{Reach, bare, innermost, permit};
use reqwest::{Client, Request};
use serde::de::DeserializeOwned;
use url::Url;

/// Longest time that one request may take, from name resolution to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer. Key sets and profiles are a few kilobytes.
const MOST_BYTES: usize = 512 * 1024;

/// Why a request to a provider failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    /// No client could be set up.
    #[error("cannot make requests to the outside: {0}; install the system's certificate authorities")]
    Client(String),
    /// The address must not be asked.
    #[error("{0} is not a public https address: correct the provider's `url`, or allow private addresses")]
    Forbidden(String),
    /// No answer.
    #[error("{url} does not answer: {reason}; check the network and the provider's `url`")]
    Unreachable { url: String, reason: String },
    /// A refusal.
    #[error("{url} answered {status}: check the provider's settings")]
    Refused { url: String, status: u16 },
    /// Not what it should be.
    #[error("{url} sent what cannot be used: {reason}; check the provider's `url`")]
    Unusable { url: String, reason: String },
}

/// The one way out.
pub(crate) struct Outbound {
    client: Result<Client, String>,
    reach: Reach,
}

impl Outbound {
    pub(crate) fn new(allow_private: bool) -> Self {
        let reach = if allow_private { Reach::Anywhere } else { Reach::Public };
        let client = longhouse_outbound::client(reach)
            .timeout(DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .build()
            .map_err(|error| error.to_string());
        Self { client, reach }
    }

    /// A JSON document, with an access token if given.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        url: &Url,
        token: Option<&str>,
    ) -> Result<T, FetchError> {
        let mut request = Request::new(reqwest::Method::GET, url.clone());
        request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let mut value = http::HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| unusable(url, "a token that fits into no header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(FetchError::Refused { url: bare(url), status: response.status().as_u16() });
        }
        serde_json::from_slice(response.body()).map_err(|error| unusable(url, error))
    }

    /// Any request; statuses are the caller's to judge.
    pub(crate) async fn send(&self, request: Request) -> Result<http::Response<Vec<u8>>, FetchError> {
        let url = request.url().clone();
        let client = self.client.as_ref().map_err(|error| FetchError::Client(error.clone()))?;
        permit(&url, self.reach).map_err(|forbidden| FetchError::Forbidden(forbidden.url))?;
        let unreachable = |error: &reqwest::Error| FetchError::Unreachable {
            url: bare(&url),
            reason: innermost(error).unwrap_or_else(|| "no reason given".to_owned()),
        };
        let mut response = client.execute(request).await.map_err(|error| unreachable(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(unusable(&url, format!("more than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

fn unusable(url: &Url, reason: impl std::fmt::Display) -> FetchError {
    FetchError::Unusable { url: bare(url), reason: reason.to_string() }
}

/// Requests by the `oauth2` crate.
pub(super) async fn for_oauth2(
    outbound: Arc<Outbound>,
    request: oauth2::HttpRequest,
) -> Result<oauth2::HttpResponse, FetchError> {
    let url = request.uri().to_string();
    let request = Request::try_from(request)
        .map_err(|error| FetchError::Unusable { url, reason: error.to_string() })?;
    outbound.send(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused() {
        let error = Outbound::new(false)
            .get_json::<serde_json::Value>(&"https://localhost/".parse().unwrap(), None)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no public address"), "{error}");
    }
}
