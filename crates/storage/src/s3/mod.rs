//! `/s3`: the S3 protocol (path style, signature version 4), over the same buckets, objects and policies.
//!
//! Parsing, signatures and XML are the crate `s3s`'s. It runs twice: the first service checks the signature over the
//! URL as the client signed it, prefix and all; the second one reads the request relative to `/s3` and calls
//! [`operations`].
//!
//! | credentials | act as |
//! |---|---|
//! | the operator's access key | `service_role` |
//! | any access key id, the project's anon key as secret, a user's token as session token | that user, under policies |

mod access;
mod body;
mod buckets;
mod error;
mod front;
mod listing;
mod multipart;
mod objects;
mod operations;
mod store;

pub(crate) use front::router;

use secrecy::SecretString;

/// Who may speak S3, and how. Without any key, nobody may.
#[derive(Debug, Clone, Default)]
pub struct S3Keys {
    /// An access key id and its secret, with which everything may be done.
    pub operator: Option<(String, SecretString)>,
    /// The secret of sessions: the project's anon key. It is public; what a session may do, its token says.
    pub session_secret: Option<SecretString>,
    /// What clients are told when they ask for the region; any region is accepted in signatures.
    pub region: String,
}
