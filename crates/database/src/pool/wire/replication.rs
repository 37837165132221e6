//! Logical replication: a connection on which Postgres streams what is committed.
//! <https://www.postgresql.org/docs/current/protocol-replication.html>
//!
//! On the connection that batches use too, so that TLS, channel binding and `sslmode` are the same everywhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect::{Purpose, Transport};
use super::message::{HEADER, Refusal};
use super::{BUFFER, Connector, unexpected};
use crate::pool::{DatabaseOptions, Error, parse};

/// Postgres counts microseconds from here: 2000-01-01.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// Values come in one format whatever the server's settings are, and a client that is gone is noticed soon.
const SETTINGS: &str = "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 \
    -c bytea_output=hex -c wal_sender_timeout=20s -c statement_timeout=0 -c lock_timeout=0";

/// More of one message is not kept: see [`Message::Data`].
const LARGEST: usize = 32 * 1024 * 1024;

/// A connection that may stream. Until then it answers simple queries and the commands of replication.
#[derive(Debug)]
pub struct Replication {
    link: Link,
}

struct Link {
    transport: Box<dyn Transport>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Bytes of a message that is too large which are still to come, and are thrown away.
    skip: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Link").field("incoming", &self.incoming.len()).finish_non_exhaustive()
    }
}

impl Replication {
    /// Opens a connection. The login needs the attribute `replication`; a pooler in between will not do.
    ///
    /// # Errors
    /// As [`crate::Database::connect`].
    pub async fn connect(options: &DatabaseOptions) -> Result<Self, Error> {
        let (mut config, tls) = parse(options)?;
        let own = config.get_options().map(|own| format!("{own} {SETTINGS}"));
        config.options(own.unwrap_or_else(|| SETTINGS.to_owned()));
        config.keepalives(true).keepalives_idle(Duration::from_secs(30));
        let connector = Connector::new(config, tls);
        let opened = tokio::time::timeout(options.pool_timeout, connector.open(Purpose::Replication));
        let transport = opened.await.map_err(|_| Error::Busy("opening one took too long".into()))??;
        let buffer = || BytesMut::with_capacity(BUFFER);
        Ok(Self { link: Link { transport, incoming: buffer(), outgoing: buffer(), skip: 0 } })
    }

    /// Runs a command, or SQL, and returns its rows as text. Dropped half-way, the connection is of no more use.
    ///
    /// # Errors
    /// [`Error::Refused`], after which the connection is as good as before; [`Error::Lost`].
    pub async fn query(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.link.ask(command).await?;
        let (mut rows, mut refusal) = (Vec::new(), None);
        loop {
            let (kind, mut body, _) = self.link.message().await?;
            match kind {
                b'D' => rows.push(columns(&mut body).ok_or_else(|| unexpected(kind))?),
                b'E' => refusal = Some(Refusal::read(&body)),
                b'Z' => return refusal.map_or(Ok(rows), |refusal| Err(Error::Refused(Box::new(refusal)))),
                b'T' | b'C' | b'I' | b'S' | b'N' | b'A' => {}
                _ => return Err(unexpected(kind)),
            }
        }
    }

    /// Starts streaming by `start_replication …`.
    ///
    /// # Errors
    /// [`Error::Refused`], say since another connection uses the slot; [`Error::Lost`].
    pub async fn start(mut self, command: &str) -> Result<ReplicationStream, Error> {
        self.link.ask(command).await?;
        loop {
            let (kind, body, _) = self.link.message().await?;
            match kind {
                b'W' => return Ok(ReplicationStream { link: self.link }),
                b'E' => return Err(Error::Refused(Box::new(Refusal::read(&body)))),
                b'S' | b'N' | b'A' => {}
                _ => return Err(unexpected(kind)),
            }
        }
    }
}

/// What Postgres streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A message of the slot's plugin.
    Data {
        /// Where in the log it comes from.
        at: u64,
        /// The message, or the first 32 MB of it.
        data: Bytes,
        /// Whether that is not all.
        cut: bool,
    },
    /// That nothing has happened.
    Alive {
        /// Everything before this place has been sent.
        end: u64,
        /// Postgres wants [`ReplicationStream::confirm`] now, or it will take us for dead.
        reply: bool,
    },
}

/// A connection that streams.
#[derive(Debug)]
pub struct ReplicationStream {
    link: Link,
}

impl ReplicationStream {
    /// The next message. May be dropped and called again.
    ///
    /// # Errors
    /// [`Error::Refused`] with what went wrong on the server, or [`Error::Lost`]: the stream has ended.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let (kind, mut body, cut) = self.link.message().await?;
            match kind {
                b'd' => match (body.first(), body.len()) {
                    (Some(b'w'), 25..) => {
                        body.advance(1);
                        let at = body.get_u64();
                        body.advance(16);
                        return Ok(Message::Data { at, data: body, cut });
                    }
                    (Some(b'k'), 18..) => {
                        body.advance(1);
                        let end = body.get_u64();
                        body.advance(8);
                        return Ok(Message::Alive { end, reply: body.get_u8() == 1 });
                    }
                    _ => return Err(unexpected(kind)),
                },
                b'E' => return Err(Error::Refused(Box::new(Refusal::read(&body)))),
                b'S' | b'N' | b'A' => {}
                // The server ends the stream.
                b'c' | b'C' | b'Z' => return Err(Error::Lost(std::io::ErrorKind::UnexpectedEof.into())),
                _ => return Err(unexpected(kind)),
            }
        }
    }

    /// Whether a message, or the beginning of one, has come already: [`Self::next`] is likely not to wait.
    pub fn has_more(&self) -> bool {
        !self.link.incoming.is_empty()
    }

    /// Says that everything before a place may be forgotten.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn confirm(&mut self, place: u64) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
        let out = &mut self.link.outgoing;
        out.put_u8(b'd');
        out.put_u32(4 + 34);
        out.put_u8(b'r');
        for position in [place; 3] {
            out.put_u64(position);
        }
        out.put_u64(u64::try_from(now.as_micros()).unwrap_or_default());
        out.put_u8(0);
        self.link.send().await
    }

    /// Ends the stream and the connection. Postgres frees the slot when it has seen that, which is awaited.
    pub async fn close(mut self) {
        let out = &mut self.link.outgoing;
        out.put_slice(b"c\0\0\0\x04X\0\0\0\x04");
        if self.link.send().await.is_ok() {
            // Whatever is under way, up to the end of the connection.
            while matches!(self.link.message().await, Ok((kind, ..)) if kind != b'E') {}
        }
    }
}

impl Link {
    async fn ask(&mut self, command: &str) -> Result<(), Error> {
        let command = command.split('\0').next().unwrap_or_default();
        let length = u32::try_from(command.len() + 5).map_err(|_| Error::TooLarge)?;
        self.outgoing.put_u8(b'Q');
        self.outgoing.put_u32(length);
        self.outgoing.put_slice(command.as_bytes());
        self.outgoing.put_u8(0);
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Error> {
        // In pieces that a dropped future does not lose: what was written is taken off at once.
        while !self.outgoing.is_empty() {
            let written = self.transport.write(&self.outgoing).await.map_err(Error::Lost)?;
            if written == 0 {
                return Err(Error::Lost(std::io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        self.transport.flush().await.map_err(Error::Lost)
    }

    /// Kind, body, and whether the body was longer.
    async fn message(&mut self) -> Result<(u8, Bytes, bool), Error> {
        while self.skip > 0 {
            if self.incoming.is_empty() {
                self.fill(BUFFER).await?;
            }
            let count = self.skip.min(self.incoming.len());
            self.incoming.advance(count);
            self.skip -= count;
        }
        while self.incoming.len() < HEADER {
            self.fill(BUFFER).await?;
        }
        let kind = self.incoming[0];
        let length = [self.incoming[1], self.incoming[2], self.incoming[3], self.incoming[4]];
        let length = (u32::from_be_bytes(length) as usize).checked_sub(4).ok_or_else(|| unexpected(kind))?;
        let kept = length.min(LARGEST);
        while self.incoming.len() < HEADER + kept {
            self.fill(HEADER + kept - self.incoming.len()).await?;
        }
        self.incoming.advance(HEADER);
        let body = self.incoming.split_to(kept).freeze();
        self.skip = length - kept;
        Ok((kind, body, length > kept))
    }

    async fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        self.incoming.reserve(wanted.max(BUFFER));
        match self.transport.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Error::Lost(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Lost(error)),
        }
    }
}

/// The columns of a row in text.
fn columns(body: &mut Bytes) -> Option<Vec<Option<String>>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        columns.push(match usize::try_from(body.try_get_i32().ok()?) {
            Err(_) => None,
            Ok(length) if length <= body.len() => {
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            }
            Ok(_) => return None,
        });
    }
    Some(columns)
}
