//! Opening the socket: GA handshake, deadline, TLS with the system's roots.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::Url;

/// The socket of one upstream session.
pub type UpstreamSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Largest message we take: the vendor sends audio in pieces far below it.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// Why no session could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer in time.
    #[error("the speech service did not answer within {0:?}")]
    Timeout(Duration),
    /// The service answered the handshake with a refusal.
    #[error("the speech service refused the connection with HTTP {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Start of the answer.
        body: String,
    },
    /// Network or TLS.
    #[error("the speech service cannot be reached: {0}")]
    Network(String),
}

impl ConnectError {
    /// Whether trying again is pointless: wrong key, no access, no such model.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Refused { status: 400 | 401 | 403 | 404, .. })
    }
}

/// Dials realtime sessions of one account and model.
#[derive(Debug, Clone)]
pub struct Connector {
    url: Url,
    api_key: SecretString,
    timeout: Duration,
    tls: Arc<rustls::ClientConfig>,
}

impl Connector {
    /// A connector to `endpoint` (`wss://…/v1/realtime`) for `model`.
    ///
    /// # Errors
    /// When the TLS set-up has no usable protocol version.
    pub fn new(
        endpoint: &Url,
        model: &str,
        api_key: SecretString,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let mut url = endpoint.clone();
        let kept: Vec<(String, String)> =
            url.query_pairs().filter(|(k, _)| k != "model").map(|(k, v)| (k.into(), v.into())).collect();
        url.query_pairs_mut().clear().extend_pairs(kept).append_pair("model", model);
        let mut roots = rustls::RootCertStore::empty();
        if url.scheme() == "wss" {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { url, api_key, timeout, tls: Arc::new(tls) })
    }

    /// The endpoint with its model, without any secret.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`ConnectError`], after at most the timeout.
    pub async fn connect(&self) -> Result<UpstreamSocket, ConnectError> {
        let mut request =
            self.url.as_str().into_client_request().map_err(|e| ConnectError::Network(e.to_string()))?;
        let mut bearer =
            HeaderValue::from_str(&format!("Bearer {}", self.api_key.expose_secret())).map_err(|_| {
                ConnectError::Network("the API key has characters that no header can carry".into())
            })?;
        bearer.set_sensitive(true);
        // No `OpenAI-Beta` header and no subprotocol: both select shapes that the service has removed.
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(1024 * 1024)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        let connector = tokio_tungstenite::Connector::Rustls(self.tls.clone());
        let dial =
            tokio_tungstenite::connect_async_tls_with_config(request, Some(config), true, Some(connector));
        match tokio::time::timeout(self.timeout, dial).await {
            Err(_) => Err(ConnectError::Timeout(self.timeout)),
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(response))) => {
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                Err(ConnectError::Refused {
                    status: response.status().as_u16(),
                    body: body.chars().take(200).collect(),
                })
            }
            Ok(Err(error)) => Err(ConnectError::Network(error.to_string())),
        }
    }
}
