//! One client: a plain socket that shook hands and joined a channel.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::{Value, json};

use crate::Error;

/// Clients of one source address: below the number of ports that the system gives out.
const PER_ADDRESS: u32 = 15_000;

/// Where clients enter.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
}

impl Door {
    /// A client that has joined `realtime:<channel>`, by version 2. `number` decides from which address it comes.
    pub(crate) fn enter(
        &self,
        number: u32,
        channel: &str,
        config: Option<(Value, &str)>,
    ) -> Result<TcpStream, Error> {
        let mut stream = self.connect(number)?;
        let Self { address, key } = self;
        let request = format!(
            "GET /realtime/v1/websocket?vsn=2.0.0&apikey={key} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            return Err(Error::Protocol(String::from_utf8_lossy(&answer).into_owned()));
        }
        let (config, token) = config.unwrap_or((json!({ "presence": { "enabled": false } }), ""));
        let mut payload = json!({ "config": config });
        if !token.is_empty() {
            payload["access_token"] = token.into();
        }
        let join = json!(["1", "1", format!("realtime:{channel}"), "phx_join", payload]).to_string();
        stream.write_all(&masked(0x81, join.as_bytes()))?;
        let reply = read_frame(&mut stream)?;
        if !String::from_utf8_lossy(&reply).contains(r#""status":"ok""#) {
            return Err(Error::Protocol(String::from_utf8_lossy(&reply).into_owned()));
        }
        Ok(stream)
    }

    fn connect(&self, number: u32) -> io::Result<TcpStream> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let source = Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(number / PER_ADDRESS).unwrap_or(u8::MAX));
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        connect(&socket, &self.address)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A client's frame. Masked by zeros, which changes nothing.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The payload of the next frame, whose length is below 65 536.
pub(crate) fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 2];
    stream.read_exact(&mut header)?;
    let length = match header[1] {
        126 => {
            let mut long = [0; 2];
            stream.read_exact(&mut long)?;
            usize::from(u16::from_be_bytes(long))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}
