//! `/upload/resumable`: uploads in pieces by TUS 1.0 (<https://tus.io/protocols/resumable-upload>).
//!
//! What arrives is stored in pieces of some megabytes, each a blob of its own; a row in Postgres says how far the upload
//! has come. Any server of the same database can therefore go on where another one died. When all pieces are there
//! they are read once more, hashed and stored as one blob, which gets its row like any other upload.
//!
//! The newest writer wins: it raises the upload's number of writers, and pieces of an older one find no upload to be
//! added to. So a client whose connection hangs need not wait until somebody notices. Within a process the older one is
//! also told to end, and what it brought still counts.

mod checksum;
mod error;
mod id;
mod join;
mod metadata;
mod receive;
mod routes;
mod store;
mod writers;

pub(crate) use routes::router;
pub(crate) use writers::Writers;

use std::time::Duration;

/// The protocol's version.
const VERSION: &str = "1.0.0";

/// What of the protocol is served.
const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,termination,expiration,checksum";

/// How long somebody who joins pieces is believed without a sign of life.
const JOINING: Duration = Duration::from_secs(60);
