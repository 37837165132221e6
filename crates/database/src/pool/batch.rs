//! A whole transaction as one batch of messages, for the requests that come by the thousand. Parameters are text whose
//! types Postgres infers, rows are as they came; for typed ones there is [`super::Acting::pipeline`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::requests::Lease;
use super::wire::{self, Answer};
pub use super::wire::{Param, Refusal, Row};
use super::{Database, Error};

/// Parts of a large value that wait for their reader.
const PARTS: usize = 4;
/// A large value holds its connection while it is read. Whoever takes nothing for so long does not get the rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a [`Batch`] ends.
pub type End<'p> = super::End<'p, Row>;

/// One statement of a [`Batch`].
#[derive(Debug, Clone, Copy)]
pub struct Command<'p> {
    /// Its text.
    pub sql: &'p str,
    /// Its parameters.
    pub params: &'p [Param],
}

/// A transaction: `begin`, commands, end. All of it leaves before the first answer is awaited, statements included that
/// the connection has not prepared yet.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'p> {
    /// `begin` with its modes.
    pub begin: &'p str,
    /// Statements.
    pub commands: &'p [Command<'p>],
    /// Whether to keep the statements prepared. Otherwise Postgres parses them anew each time.
    pub prepared: bool,
    /// The end.
    pub end: End<'p>,
    /// A row of the last command that is longer than this, in bytes, is not collected: its last column comes as a
    /// [`LargeValue`]. Only for a last command that gives one row, and [`End::Commit`] of a transaction that only reads, since
    /// the end is not awaited either.
    pub large: Option<usize>,
}

/// What a [`Batch`] gave.
#[derive(Debug)]
pub struct Results {
    /// Rows of each command.
    pub rows: Vec<Vec<Row>>,
    /// The last column of the last row, where it is large. That row lacks it.
    pub large: Option<LargeValue>,
}

/// A value that comes in parts, at the speed of its reader: what is not read waits in Postgres. An error means that
/// the rest does not come.
#[derive(Debug)]
pub struct LargeValue {
    length: u64,
    parts: mpsc::Receiver<Result<Bytes, Error>>,
}

impl LargeValue {
    /// All its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Stream for LargeValue {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.poll_recv(context)
    }
}

impl Database {
    /// Runs a transaction and returns the rows of each command. Dropping the future while it runs rolls back, or, once
    /// Postgres has come to its end, lets it stand unseen.
    ///
    /// # Errors
    /// The first refusal of Postgres (nothing is changed then), or why there is no connection.
    pub async fn batch(&self, batch: &Batch<'_>) -> Result<Results, Error> {
        let mut lease = self.requests.lease().await?;
        let answer = match run(&mut lease, batch).await {
            Err(error) if batch.prepared && error.is_stale_plan() => {
                // A migration changed a table under a prepared statement; the transaction did nothing.
                for command in batch.commands {
                    lease.wire().forget(command.sql);
                }
                run(&mut lease, batch).await?
            }
            answer => answer?,
        };
        Ok(match answer {
            Answer::Rows(rows) => Results { rows, large: None },
            Answer::Large(rows, length) => {
                let (sender, parts) = mpsc::channel(PARTS);
                tokio::spawn(pass_on(lease, length, sender));
                Results { rows, large: Some(LargeValue { length: length as u64, parts }) }
            }
        })
    }
}

const fn bare(sql: &str) -> wire::Command<'_> {
    wire::Command { sql, params: &[], large: None }
}

async fn run(lease: &mut Lease, batch: &Batch<'_>) -> Result<Answer, Error> {
    let wire = lease.wire();
    let mut all = Vec::with_capacity(batch.commands.len() + 3);
    all.push(bare(batch.begin));
    all.extend(batch.commands.iter().map(|&Command { sql, params }| wire::Command {
        sql,
        params,
        large: None,
    }));
    match batch.end {
        End::Commit => {
            if let Some(last) = all.last_mut() {
                last.large = batch.large;
            }
            all.push(bare("commit"));
        }
        End::Rollback => all.extend([bare("set constraints all immediate"), bare("rollback")]),
        End::CommitIf(_) => {}
    }
    let mut answer = wire.run(&all, batch.prepared).await?;
    let (Answer::Rows(rows) | Answer::Large(rows, _)) = &mut answer;
    rows.remove(0);
    rows.truncate(batch.commands.len());
    if let End::CommitIf(decide) = batch.end {
        let end = if decide(rows) { "commit" } else { "rollback" };
        wire.run(&[bare(end)], batch.prepared).await?;
    }
    Ok(answer)
}

/// Reads a large value and the end of its transaction. The last part waits for that end, so that a value which is
/// complete is one that Postgres stands by.
async fn pass_on(mut lease: Lease, mut remaining: usize, parts: mpsc::Sender<Result<Bytes, Error>>) {
    let give = async |part| matches!(tokio::time::timeout(PATIENCE, parts.send(part)).await, Ok(Ok(())));
    let mut last = None;
    while remaining > 0 {
        match lease.wire().chunk(remaining).await {
            Ok(part) => {
                remaining -= part.len();
                if let Some(part) = last.replace(part)
                    && !give(Ok(part)).await
                {
                    // Nobody reads on; the connection is closed with what it still had to say.
                    return;
                }
            }
            Err(error) => {
                give(Err(error)).await;
                return;
            }
        }
    }
    let ended = lease.wire().finish().await;
    drop(lease);
    match (ended, last) {
        (Ok(()), Some(part)) => give(Ok(part)).await,
        (Ok(()), None) => true,
        (Err(error), _) => give(Err(error)).await,
    };
}
