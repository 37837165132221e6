//! One connection to Postgres for whole batches: each leaves in one write and ends in one `Sync`, so
//! Postgres answers in one write too. tokio-postgres, which serves everything else, ends each statement in a `Sync` of
//! its own and reads in a task of its own, which costs a transaction of four statements four answers and as many
//! switches between tasks.

mod connect;
mod introduce;
mod message;
mod replication;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio_postgres::types::Oid;

pub(super) use connect::Connector;
use connect::Transport;
use message::HEADER;
pub use message::{Param, Refusal, Row};
pub use replication::{Message, Replication, ReplicationStream};

use super::{Error, MOST_PREPARED};

/// What is kept of the buffers between batches, so that a large one does not stay large.
const BUFFER: usize = 16 * 1024;
/// Most that is read at once of a large value.
const CHUNK: usize = 64 * 1024;

/// A statement of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command<'c> {
    pub(super) sql: &'c str,
    pub(super) params: &'c [Param],
    /// A row longer than this is not awaited. Commands behind such a one must give no rows.
    pub(super) large: Option<usize>,
}

/// What a batch gave.
pub(super) enum Answer {
    /// The rows of each command.
    Rows(Vec<Vec<Row>>),
    /// The same up to a row whose last column is large. So many bytes of it wait to be taken with [`Wire::chunk`];
    /// then [`Wire::finish`] must follow.
    Large(Vec<Vec<Row>>, usize),
}

/// A connection that is logged in.
pub(super) struct Wire {
    transport: Box<dyn Transport>,
    incoming: BytesMut,
    outgoing: BytesMut,
    prepared: HashMap<Box<str>, Prepared>,
    /// Statements that were ever prepared here: their names are numbers.
    named: u64,
    born: Instant,
    /// Nothing is under way, and no transaction is open.
    idle: bool,
}

#[derive(Debug, Clone)]
struct Prepared {
    name: Arc<str>,
    types: Arc<[Oid]>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Wire")
            .field("prepared", &self.prepared.len())
            .field("idle", &self.idle)
            .finish()
    }
}

/// Where the answers to a batch have got to.
struct Reading {
    rows: Vec<Vec<Row>>,
    /// Name and columns of each command's statement; the columns of a new one come with its answer.
    statements: Vec<Prepared>,
    /// The command that is being answered.
    current: usize,
    refusal: Option<Refusal>,
}

enum Next {
    Row(Row),
    Large(Row, usize),
    /// The whole batch is answered; the letter tells in what state that leaves the transaction.
    Ready(u8),
    Nothing,
}

impl Wire {
    fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            incoming: BytesMut::with_capacity(BUFFER),
            outgoing: BytesMut::with_capacity(BUFFER),
            prepared: HashMap::new(),
            named: 0,
            born: Instant::now(),
            idle: true,
        }
    }

    fn into_transport(self) -> Box<dyn Transport> {
        self.transport
    }

    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// Whether the next batch may use this connection.
    pub(super) fn is_idle(&self) -> bool {
        self.idle
    }

    /// Whether the server has closed the connection, or said something that announces it, while nobody listened.
    pub(super) fn is_lost(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        match std::pin::Pin::new(&mut self.transport).poll_read(&mut context, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
            // Parameters and notices come unasked; an error does only before the end.
            Poll::Ready(Ok(())) => match buffer.filled() {
                [kind @ (b'S' | b'N' | b'A')] => {
                    self.incoming.extend_from_slice(&[*kind]);
                    false
                }
                _ => true,
            },
        }
    }

    /// Runs a batch. An error of Postgres ends it, and with it the transaction that the batch began.
    ///
    /// If `prepare` is unset, every statement is parsed anew.
    ///
    /// # Errors
    /// [`Error::Refused`], after which the connection is as good as before; [`Error::Lost`] and others, after which it
    /// is not: see [`Self::is_idle`].
    pub(super) async fn run(&mut self, batch: &[Command<'_>], prepare: bool) -> Result<Answer, Error> {
        let mut reading = self.write(batch, prepare)?;
        self.idle = false;
        self.send().await?;
        loop {
            match self.next(batch, prepare, &mut reading).await? {
                Next::Row(row) => reading.rows[reading.current].push(row),
                Next::Large(row, length) => {
                    reading.rows[reading.current].push(row);
                    return Ok(Answer::Large(reading.rows, length));
                }
                Next::Ready(state) => {
                    let refusal = reading.refusal.take();
                    self.settle(state, refusal.is_some()).await?;
                    return match refusal {
                        None => Ok(Answer::Rows(reading.rows)),
                        Some(refusal) => Err(Error::Refused(Box::new(refusal))),
                    };
                }
                Next::Nothing => {}
            }
        }
    }

    /// Takes the next part of a large value, of which `remaining` bytes are left.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub(super) async fn chunk(&mut self, remaining: usize) -> Result<Bytes, Error> {
        if self.incoming.is_empty() {
            self.incoming.reserve(CHUNK.min(remaining));
            self.fill().await?;
        }
        let length = self.incoming.len().min(remaining).min(CHUNK);
        Ok(self.incoming.split_to(length).freeze())
    }

    /// Awaits the end of a batch whose large value has been taken.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let mut reading = Reading { rows: Vec::new(), statements: Vec::new(), current: 0, refusal: None };
        loop {
            if let Next::Ready(state) = self.next(&[], false, &mut reading).await? {
                let refusal = reading.refusal.take();
                self.settle(state, refusal.is_some()).await?;
                return refusal.map_or(Ok(()), |refusal| Err(Error::Refused(Box::new(refusal))));
            }
        }
    }

    /// Forgets a prepared statement, because what it depends on has changed.
    pub(super) fn forget(&mut self, sql: &str) {
        if let Some(prepared) = self.prepared.remove(sql) {
            // Sent with the next batch. It fits: a name is short.
            let _ = message::close(&mut self.outgoing, &prepared.name);
        }
    }

    async fn is_read_only(&mut self) -> Result<bool, Error> {
        let ask = Command { sql: "show transaction_read_only", params: &[], large: None };
        match self.run(&[ask], false).await? {
            Answer::Rows(rows) | Answer::Large(rows, _) => {
                Ok(rows[0].first().and_then(|row| row.text(0)).as_deref() == Some("on"))
            }
        }
    }

    /// After an error a transaction is still open, of which nothing but the end is left to say.
    async fn settle(&mut self, state: u8, refused: bool) -> Result<(), Error> {
        self.shrink();
        if state == b'I' || !refused {
            // Within a transaction without an error: the caller will end it.
            self.idle = state == b'I';
            return Ok(());
        }
        let rollback = [Command { sql: "rollback", params: &[], large: None }];
        let mut reading = self.write(&rollback, false)?;
        self.send().await?;
        loop {
            if let Next::Ready(state) = self.next(&rollback, false, &mut reading).await? {
                self.idle = state == b'I';
                return Ok(());
            }
        }
    }

    fn shrink(&mut self) {
        if self.outgoing.capacity() > BUFFER * 8 && self.outgoing.is_empty() {
            self.outgoing = BytesMut::with_capacity(BUFFER);
        }
        if self.incoming.capacity() > BUFFER * 8 && self.incoming.is_empty() {
            self.incoming = BytesMut::with_capacity(BUFFER);
        }
    }

    fn write(&mut self, batch: &[Command<'_>], prepare: bool) -> Result<Reading, Error> {
        if self.prepared.len() > MOST_PREPARED {
            for (_, prepared) in self.prepared.drain() {
                message::close(&mut self.outgoing, &prepared.name)?;
            }
        }
        let unnamed = Prepared { name: "".into(), types: Arc::default() };
        let mut statements = Vec::with_capacity(batch.len());
        for command in batch {
            let known = if prepare { self.prepared.get(command.sql).cloned() } else { None };
            let statement = match known {
                Some(known) => known,
                None => {
                    let mut statement = unnamed.clone();
                    if prepare {
                        self.named += 1;
                        statement.name = format!("s{}", self.named).into();
                    }
                    message::parse_and_describe(&mut self.outgoing, &statement.name, command.sql)?;
                    statement
                }
            };
            message::bind_and_execute(&mut self.outgoing, &statement.name, command.params)?;
            statements.push(statement);
        }
        message::sync(&mut self.outgoing)?;
        let rows = batch.iter().map(|_| Vec::new()).collect();
        Ok(Reading { rows, statements, current: 0, refusal: None })
    }

    async fn send(&mut self) -> Result<(), Error> {
        let sent = self.transport.write_all(&self.outgoing).await;
        self.outgoing.clear();
        sent.map_err(Error::Lost)?;
        self.transport.flush().await.map_err(Error::Lost)
    }

    /// Reads and understands the next message.
    async fn next(
        &mut self,
        batch: &[Command<'_>],
        prepare: bool,
        reading: &mut Reading,
    ) -> Result<Next, Error> {
        while self.incoming.len() < HEADER {
            self.incoming.reserve(BUFFER);
            self.fill_or(reading).await?;
        }
        let kind = self.incoming[0];
        let length =
            u32::from_be_bytes([self.incoming[1], self.incoming[2], self.incoming[3], self.incoming[4]]);
        let length = (length as usize).checked_sub(4).ok_or_else(|| unexpected(kind))?;
        let large = batch.get(reading.current).and_then(|command| command.large);
        if kind == b'D' && large.is_some_and(|large| length > large) {
            return self.large(reading).await;
        }
        while self.incoming.len() < HEADER + length {
            self.incoming.reserve(HEADER + length - self.incoming.len());
            self.fill_or(reading).await?;
        }
        self.incoming.advance(HEADER);
        let body = self.incoming.split_to(length);
        match kind {
            b'D' => {
                let types = reading.statements.get(reading.current).map(|statement| statement.types.clone());
                return Ok(Next::Row(Row::new(body.freeze(), types.unwrap_or_default())));
            }
            // The statement's columns, or that it has none: it is prepared from here on.
            b'T' | b'n' => {
                let types = if kind == b'T' {
                    message::column_types(&body).ok_or_else(|| unexpected(kind))?
                } else {
                    Arc::default()
                };
                if let (Some(statement), Some(command)) =
                    (reading.statements.get_mut(reading.current), batch.get(reading.current))
                {
                    statement.types = types;
                    if prepare {
                        self.prepared.insert(command.sql.into(), statement.clone());
                    }
                }
            }
            b'C' | b'I' => reading.current += 1,
            b'E' => reading.refusal = Some(Refusal::read(&body)),
            b'Z' => return Ok(Next::Ready(body.first().copied().unwrap_or(0))),
            // Parsed, parameters, bound, closed; a setting, a notice, a notification.
            b'1' | b't' | b'2' | b'3' | b'S' | b'N' | b'A' => {}
            _ => return Err(unexpected(kind)),
        }
        Ok(Next::Nothing)
    }

    /// Reads a row up to its last column.
    async fn large(&mut self, reading: &mut Reading) -> Result<Next, Error> {
        self.incoming.advance(HEADER);
        let types = reading.statements.get(reading.current).map(|statement| statement.types.clone());
        let types = types.unwrap_or_default();
        let (head, length) = loop {
            if let Some(found) = last_column(&self.incoming) {
                break found;
            }
            self.incoming.reserve(BUFFER);
            self.fill_or(reading).await?;
        };
        let head = self.incoming.split_to(head).freeze();
        let mut length = length;
        if types.last() == Some(&message::JSONB) && length > 0 {
            while self.incoming.is_empty() {
                self.incoming.reserve(BUFFER);
                self.fill_or(reading).await?;
            }
            self.incoming.advance(1);
            length -= 1;
        }
        Ok(Next::Large(Row::new(head, types), length))
    }

    /// As [`Self::fill`]; a server that says why it closes the connection is believed.
    async fn fill_or(&mut self, reading: &mut Reading) -> Result<(), Error> {
        match self.fill().await {
            Err(lost) => Err(match reading.refusal.take() {
                Some(refusal) => Error::Refused(Box::new(refusal)),
                None => lost,
            }),
            filled => filled,
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match self.transport.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Error::Lost(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Lost(error)),
        }
    }
}

/// Length of a row's beginning up to the value of its last column, and the length of that; none if it is not there yet.
fn last_column(row: &[u8]) -> Option<(usize, usize)> {
    let mut rest = row;
    let columns = rest.try_get_i16().ok()?;
    for column in 0..columns {
        let length = usize::try_from(rest.try_get_i32().ok()?).unwrap_or(0);
        if column + 1 == columns {
            return Some((row.len() - rest.len(), length));
        }
        rest = rest.get(length..)?;
    }
    None
}

fn unexpected(kind: u8) -> Error {
    let what = format!("a message of kind {:?} that no statement asked for", char::from(kind));
    Error::Lost(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
}
