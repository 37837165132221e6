//! `/render/image`: images in another size, quality or format, made when they are asked for.
//!
//! Who may see the object may see it smaller. Every step is bounded: bytes and pixels of the source (the latter read
//! from its header, before anything is decoded), pixels of the outcome, images in work at once, and the bytes of
//! outcomes that are kept. They are kept in memory, by version and parameters: a version's bytes never change, so
//! nothing has to be dropped when an object is replaced, and nothing that is kept can outlive a crash as an orphan.

mod options;
mod render;
mod routes;

pub use options::{Format, Resize, Transform};
pub(crate) use routes::router;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::Semaphore;

use crate::blobs::Version;
use crate::objects::Metadata;
use crate::{Error, Storage};

/// Largest source, in bytes.
const SOURCE_LIMIT: u64 = 25 * 1024 * 1024;
/// Bytes of outcomes that are kept.
const KEPT: u64 = 32 * 1024 * 1024;
/// How long outcomes are kept without being asked for.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Longest wait for another image to be done.
const PATIENCE: Duration = Duration::from_secs(10);

/// An image as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) bytes: Bytes,
    pub(crate) mimetype: &'static str,
}

/// What is kept, under which name.
type Key = (Version, Transform, Option<Format>);

/// Makes images, a few at a time, and keeps what it has made.
#[derive(Clone)]
pub(crate) struct Renderer {
    kept: moka::future::Cache<Key, Rendered>,
    working: Arc<Semaphore>,
}

impl Renderer {
    pub(crate) fn new() -> Self {
        let kept = moka::future::Cache::builder()
            .weigher(|_: &Key, rendered: &Rendered| {
                u32::try_from(rendered.bytes.len() + 200).unwrap_or(u32::MAX)
            })
            .max_capacity(KEPT)
            .time_to_idle(IDLE)
            .build();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { kept, working: Arc::new(Semaphore::new(cores)) }
    }

    /// An object's image, transformed. `format` is what the client prefers over the source's own.
    async fn render(
        &self,
        storage: &Storage,
        version: Version,
        metadata: &Metadata,
        (transform, format): (Transform, Option<Format>),
    ) -> Result<Rendered, Error> {
        if metadata.size > SOURCE_LIMIT {
            return Err(refused("The source image file is too large to process"));
        }
        let size = metadata.size;
        // Of several who ask for the same, one makes it and the others wait.
        let made = self.kept.try_get_with((version, transform, format), async {
            let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.working).acquire_owned());
            let permit = permit.await.map_err(|_| Error::Rendering)?;
            let content = storage.blobs().get(version, 0..size).await?;
            let source: Vec<Bytes> = content.try_collect().await?;
            let working = tokio::task::spawn_blocking(move || {
                let rendered = render::render(&source.concat(), &transform, format);
                // Held by the work, not by who waits for it: it cannot be stopped in the middle.
                drop(permit);
                rendered
            });
            working.await.unwrap_or_else(|error| {
                tracing::error!(%error, "an image could not be rendered");
                Err(refused("The source image is invalid or unsupported for rendering"))
            })
        });
        made.await.map_err(|error| match Arc::try_unwrap(error) {
            Ok(error) => error,
            Err(shared) => Error::InvalidRequest(shared.to_string()),
        })
    }
}

fn refused(text: &str) -> Error {
    Error::InvalidRequest(text.to_owned())
}
