//! The WebSocket of a media stream, raw: for tests that misbehave on purpose, and for the caller.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;

use super::Error;
use super::signature::sign;
use super::webhook::authority;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How the upgrade request is signed.
#[derive(Debug, Clone)]
pub enum Signature {
    /// As Twilio signs it, with this auth token.
    Token(String),
    /// Exactly this header value.
    Exactly(String),
    /// Not at all.
    Missing,
}

/// What a [`StreamClient`] received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message, which Twilio would log as a protocol violation.
    Binary(Vec<u8>),
    /// The answer to a ping.
    Pong,
    /// The server's close frame, with its code if it has one.
    Close(Option<u16>),
    /// The connection is gone.
    Ended,
}

/// A WebSocket to a stream URL on which a test may send anything.
pub struct StreamClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    unflushed: u32,
}

impl std::fmt::Debug for StreamClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamClient").finish_non_exhaustive()
    }
}

impl StreamClient {
    /// Opens the WebSocket. `url` is the stream URL as the TwiML names it, which is what is
    /// signed (in its `wss://` form); `address` is where to connect when that differs.
    ///
    /// # Errors
    /// [`Error::Refused`] with the status when the server answers anything but 101,
    /// [`Error::Unreachable`] when there is no answer.
    pub async fn connect(url: &Url, address: Option<&Url>, signature: &Signature) -> Result<Self, Error> {
        let address = address.unwrap_or(url);
        timeout(CONNECT_TIMEOUT, Self::open(url, address, signature)).await.unwrap_or_else(|_| {
            Err(Error::Unreachable { url: address.to_string(), reason: "no answer within 10 s".to_owned() })
        })
    }

    async fn open(url: &Url, address: &Url, signature: &Signature) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable { url: address.to_string(), reason };
        let host = address.host_str().ok_or_else(|| unreachable("the URL has no host".to_owned()))?;
        let port = address.port_or_known_default().unwrap_or(443);
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        tcp.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        let mut request = Request::builder()
            .uri(address.as_str())
            .header("Host", authority(url))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key())
            .header("User-Agent", "Twilio.TmeWs/1.0");
        match signature {
            Signature::Token(token) => {
                request = request.header("X-Twilio-Signature", sign(&signed_form(url), &[], token));
            }
            Signature::Exactly(value) => request = request.header("X-Twilio-Signature", value),
            Signature::Missing => {}
        }
        let request = request.body(()).map_err(|e| unreachable(e.to_string()))?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        match client_async_tls_with_config(request, tcp, Some(config), None).await {
            Ok((socket, _)) => Ok(Self { socket, unflushed: 0 }),
            Err(WsError::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(&body[..body.len().min(2048)]).into_owned();
                Err(Error::Refused { url: address.to_string(), status: response.status().as_u16(), body })
            }
            Err(e) => Err(unreachable(e.to_string())),
        }
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), Error> {
        self.socket.send(Message::text(text.into())).await.map_err(lost)
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_binary(&mut self, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        self.socket.send(Message::binary(bytes.into())).await.map_err(lost)
    }

    /// Sends several text messages in one write: the far side gets them in one packet.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_together(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), Error> {
        for text in texts {
            self.socket.feed(Message::text(text)).await.map_err(lost)?;
        }
        self.socket.flush().await.map_err(lost)
    }

    /// Sends a ping: its pong shows that the server has read everything before it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.socket.send(Message::Ping(bytes::Bytes::new())).await.map_err(lost)
    }

    /// The next message, or [`Received::Ended`]. Cancelling loses nothing.
    pub async fn receive(&mut self) -> Received {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => Received::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes.to_vec()),
                Some(Ok(Message::Pong(_))) => Received::Pong,
                Some(Ok(Message::Close(frame))) => Received::Close(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Err(_)) | None => Received::Ended,
            };
        }
    }

    /// Closes with a code and waits at most a second for the far side.
    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        let goodbye = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while !matches!(self.receive().await, Received::Ended) {}
            }
        };
        // A server that does not answer the close is left with a dropped connection.
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }

    /// Drops the connection with a TCP reset, as a failing network path does.
    pub fn abort(self) {
        if let MaybeTlsStream::Plain(tcp) = self.socket.get_ref() {
            // Where it cannot be set the drop is a FIN without a close frame: abrupt enough.
            let _ = tcp.set_zero_linger();
        }
    }

    /// Queues a message if the server keeps up; false when it has not read for `most` messages.
    pub(crate) fn offer(&mut self, text: String, most: u32) -> bool {
        if self.unflushed >= most {
            self.push_out();
            if self.unflushed >= most {
                return false;
            }
        }
        match self.socket.feed(Message::text(text)).now_or_never() {
            Some(Ok(())) => {
                self.unflushed += 1;
                true
            }
            // A closed socket is noticed by the reader: that is not slowness.
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Writes what was offered, as far as the server reads it.
    pub(crate) fn push_out(&mut self) {
        if let Some(Ok(())) = self.socket.flush().now_or_never() {
            self.unflushed = 0;
        }
    }
}

/// Twilio signs the upgrade over the `wss://` form of the URL.
fn signed_form(url: &Url) -> String {
    let text = url.as_str();
    text.strip_prefix("ws://").map_or_else(|| text.to_owned(), |rest| format!("wss://{rest}"))
}

fn lost(error: WsError) -> Error {
    Error::Lost(error.to_string())
}
