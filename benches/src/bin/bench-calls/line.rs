//! Putting calls through: webhook, stream and the speech model's session, up to where audio flows.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use longhouse_emulators::twilio::twiml::{self, Stream, Verb};
use longhouse_emulators::twilio::{frames, sign};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::Url;

use crate::Error;
use crate::websocket::{self, PING, PONG, Role, TEXT};

/// Longest wait for any step of putting a call through.
const PATIENCE: Duration = Duration::from_secs(15);
const WEBHOOK: &str = "/functions/v1/twilio-router";
const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";

/// What lies between caller and model.
#[derive(Debug, Clone)]
pub(crate) enum Between {
    /// Nothing: the generator talks to itself.
    Nothing,
    /// The bare relay.
    Relay(SocketAddr),
    /// A Longhouse server.
    Longhouse {
        address: SocketAddr,
        /// Signs its webhooks.
        auth_token: String,
        /// The number to call.
        number: String,
    },
}

impl Between {
    /// Whether both sides' protocols are spoken, rather than frames passed on.
    pub(crate) fn speaks(&self) -> bool {
        matches!(self, Self::Longhouse { .. })
    }
}

/// A call that has been put through.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) caller: Peer,
    pub(crate) model: Peer,
    pub(crate) call_sid: String,
    pub(crate) stream_sid: String,
    pub(crate) account_sid: &'static str,
}

/// The model's listening side.
#[derive(Debug)]
pub(crate) struct Exchange {
    address: SocketAddr,
    /// Handshakes, each with its `Sec-WebSocket-Key`.
    accepted: mpsc::Receiver<(Peer, String)>,
}

impl Exchange {
    /// Listens on a free port of the loopback.
    pub(crate) fn open() -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel();
        // Ends with the process: it blocks in `accept`.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(asked) = receive(stream) else { continue };
                if let Some(handshake) = asked
                    && sender.send(handshake).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { address, accepted })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts call `index` through.
    pub(crate) fn connect(&self, between: &Between, index: usize) -> Result<Link, Error> {
        let (call_sid, stream_sid) = (format!("CA{:032x}", fresh(index)), format!("MZ{:032x}", index + 1));
        let link = match between {
            Between::Nothing => {
                let caller = Peer::ask(self.address, "/", &[])?;
                let model = self.answer()?;
                Link { caller: caller.opened()?, model, call_sid, stream_sid, account_sid: ACCOUNT_SID }
            }
            Between::Relay(address) => {
                let caller = Peer::ask(*address, "/", &[])?.opened()?;
                Link { caller, model: self.answer()?, call_sid, stream_sid, account_sid: ACCOUNT_SID }
            }
            Between::Longhouse { address, auth_token, number } => {
                let stream = webhook(*address, auth_token, number, &call_sid, index)?;
                let url = stream.target().map_err(|problem| Error::Protocol(problem.to_string()))?;
                let signed = sign(&url.as_str().replacen("ws://", "wss://", 1), &[], auth_token);
                let mut caller =
                    Peer::ask(*address, url.path(), &[("x-twilio-signature", &signed)])?.opened()?;
                caller.send(&frames::connected())?;
                caller.send(&start(&stream_sid, &call_sid, &stream.parameters))?;
                let mut model = self.answer()?;
                take_session(&mut model, index)?;
                Link { caller, model, call_sid, stream_sid, account_sid: ACCOUNT_SID }
            }
        };
        for peer in [&link.caller, &link.model] {
            peer.stream.set_nonblocking(true)?;
        }
        Ok(link)
    }

    /// Accepts the next connection to the model.
    fn answer(&self) -> Result<Peer, Error> {
        let (mut peer, key) = self.accepted.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::Protocol("nobody connected to the model in time".into()),
            RecvTimeoutError::Disconnected => Error::Protocol("the model's listener has failed".into()),
        })?;
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        peer.stream.write_all(answer.as_bytes())?;
        Ok(peer)
    }
}

/// Reads what a connection to the model asks for. Health checks, which ask for the list of models, are answered.
fn receive(stream: TcpStream) -> Result<Option<(Peer, String)>, Error> {
    let mut peer = Peer::new(stream, Role::Server)?;
    let head = peer.read_head()?;
    if let Some(key) = header(&head, "sec-websocket-key") {
        return Ok(Some((peer, key.to_owned())));
    }
    let body = r#"{"object":"list","data":[]}"#;
    write!(
        peer.stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(None)
}

/// Differs between runs on one database, where a call's row outlives the call.
fn fresh(index: usize) -> u128 {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos());
    (now << 16) | index as u128
}

/// Asks what to do with a call, as Twilio does.
fn webhook(
    address: SocketAddr,
    auth_token: &str,
    number: &str,
    call_sid: &str,
    index: usize,
) -> Result<Stream, Error> {
    let url =
        Url::parse(&format!("http://{address}{WEBHOOK}")).map_err(|e| Error::Protocol(e.to_string()))?;
    let form: Vec<(String, String)> = [
        ("CallSid", call_sid),
        ("AccountSid", ACCOUNT_SID),
        ("From", &format!("+1202555{:04}", index % 10_000)),
        ("To", number),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    let signature = sign(url.as_str(), &form, auth_token);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST {WEBHOOK} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX-Twilio-Signature: {signature}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let refused = |why: &str| Error::Protocol(format!("the webhook {why}: {answer}"));
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(refused("was refused"));
    }
    // A body of known length follows; TwiML is short enough never to be sent in chunks.
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| refused("has no body"))?;
    let document = twiml::parse(body).map_err(|problem| refused(&problem.to_string()))?;
    document
        .verbs
        .into_iter()
        .find_map(|verb| match verb {
            Verb::Connect { stream, .. } => Some(stream),
            _ => None,
        })
        .ok_or_else(|| refused("does not connect the call"))
}

fn start(stream_sid: &str, call_sid: &str, parameters: &[(String, String)]) -> String {
    let parameters: serde_json::Map<String, Value> =
        parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": ACCOUNT_SID, "streamSid": stream_sid, "callSid": call_sid, "tracks": ["inbound"],
            "mediaFormat": { "encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1 },
            "customParameters": parameters,
        },
        "streamSid": stream_sid,
    })
    .to_string()
}

/// Plays the Realtime API up to the moment where the model begins to speak.
fn take_session(model: &mut Peer, index: usize) -> Result<(), Error> {
    let expires = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()) + 3_600;
    let session = json!({ "type": "realtime", "id": format!("sess_{index}"), "expires_at": expires });
    model
        .send(&json!({ "type": "session.created", "event_id": "event_1", "session": session }).to_string())?;
    model.expect("session.update")?;
    model
        .send(&json!({ "type": "session.updated", "event_id": "event_2", "session": session }).to_string())?;
    model.expect("response.create")?;
    let response = json!({ "id": format!("resp_{index}"), "object": "realtime.response", "status": "in_progress", "output": [] });
    model
        .send(&json!({ "type": "response.created", "event_id": "event_3", "response": response }).to_string())
}

/// One end of a WebSocket, blocking until the call is through.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// What was read and not used yet.
    pub(crate) rest: Vec<u8>,
    role: Role,
}

impl Peer {
    fn new(stream: TcpStream, role: Role) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, rest: Vec::new(), role })
    }

    /// Asks for a WebSocket; [`Peer::opened`] reads the answer.
    fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut peer = Self::new(TcpStream::connect(address)?, Role::Client)?;
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        peer.stream.write_all(request.as_bytes())?;
        Ok(peer)
    }

    fn opened(mut self) -> Result<Self, Error> {
        let head = self.read_head()?;
        if head.starts_with("HTTP/1.1 101") {
            Ok(self)
        } else {
            Err(Error::Protocol(format!("the stream was refused: {head}")))
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(Error::Protocol("the connection was closed while a call was put through".into())),
            count => {
                self.rest.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    fn read_head(&mut self) -> Result<String, Error> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.fill()?;
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Error> {
        self.send_frame(TEXT, text.as_bytes())
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Error> {
        let mut frame = Vec::with_capacity(payload.len() + 16);
        websocket::encode(self.role, opcode, payload, &mut frame);
        self.stream.write_all(&frame)?;
        Ok(())
    }

    /// Reads on until a message of this type has come; audio before it is the caller's lead-in.
    fn expect(&mut self, kind: &str) -> Result<(), Error> {
        loop {
            while let Some((frame, taken)) = websocket::decode(&mut self.rest) {
                let (opcode, payload) = (frame.opcode, frame.payload.to_vec());
                self.rest.drain(..taken);
                match opcode {
                    PING => self.send_frame(PONG, &payload)?,
                    TEXT => {
                        let message: Value = serde_json::from_slice(&payload)
                            .map_err(|error| Error::Protocol(format!("not JSON from the server: {error}")))?;
                        if message["type"] == kind {
                            return Ok(());
                        }
                    }
                    _ => return Err(Error::Protocol(format!("the socket was closed before `{kind}`"))),
                }
            }
            self.fill()?;
        }
    }
}

/// Value of a header in a request's or response's head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let head = "GET / HTTP/1.1\r\nHost: x:1\r\nSEC-websocket-KEY:  abc== \r\n\r\n";
        assert_eq!(header(head, "sec-websocket-key"), Some("abc=="));
        assert_eq!(header(head, "upgrade"), None);
    }

    /// A link through nothing carries the handshake of both of our ends.
    #[test]
    fn the_generator_can_call_itself() {
        let exchange = Exchange::open().unwrap();
        let mut link = exchange.connect(&Between::Nothing, 0).unwrap();
        link.caller.send("hello").unwrap();
        link.model.stream.set_nonblocking(false).unwrap();
        link.model.fill().unwrap();
        assert_eq!(websocket::decode(&mut link.model.rest).unwrap().0.payload, b"hello");
    }
}
