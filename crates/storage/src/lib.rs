//! `/storage/v1`: buckets and objects as rows in Postgres, whose policies decide, and their bytes in a folder or an
//! S3-compatible store.
//!
//! | folder | what lives there |
//! |---|---|
//! | [`blobs`] | bytes under random versions; the only part that knows where they are |
//! | [`buckets`] | `/bucket`: rows, limits |
//! | [`objects`] | `/object`: upload, download, list, move, copy, delete, signed URLs |
//! | `s3` | `/s3`: the S3 protocol over the same objects |
//! | [`transform`] | `/render/image`: images in other sizes and formats |
//! | `tus` | `/upload/resumable`: uploads in pieces, which survive their server |
//! | [`ledger`] | bytes without a row: uploads on their way, the sweeper |
//!
//! An upload: permission is tried as the caller and rolled back → the ledger enters a new version as pending → the
//! stream is stored durably, hashed and counted → one transaction, as the caller, writes the object's row and strikes
//! out the entry. A row's version never changes its bytes, so replacing and deleting are changes of rows; a trigger
//! enters what lost its row into the ledger, and the sweeper deletes it later.

pub mod blobs;
pub mod buckets;
pub mod check;
mod error;
mod extract;
pub mod failpoints;
pub mod ledger;
mod leftover;
pub mod limits;
pub mod names;
pub mod objects;
mod routes;
mod s3;
pub mod signing;
mod storage;
pub mod transform;
mod tus;

pub use error::Error;
pub use s3::S3Keys;
pub use storage::{Authenticate, Caller, Options, Storage};
