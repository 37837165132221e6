//! A request's body, cut into pieces that are durable one after the other.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Mutex, Notify};

use super::checksum::Checksum;
use super::error::Refusal;
use super::store::Upload;
use crate::Storage;
use crate::blobs::{BlobError, Content};
use crate::storage::Caller;

/// First size of a piece: what a killed server may lose of an upload, at most.
const PIECE: u64 = 16 * 1024 * 1024;
/// Pieces of one size; the next as many are larger, so that there are never too many of them.
const PIECES_OF_A_SIZE: u64 = 512;

/// What a request brings.
pub(super) struct Incoming {
    pub(super) offset: u64,
    /// The upload's length, where it was unknown before.
    pub(super) length: Option<u64>,
    /// Bytes, where the client says beforehand.
    pub(super) announced: Option<u64>,
    pub(super) checksum: Option<Checksum>,
    pub(super) content: Content,
}

impl Storage {
    /// Takes what a request brings, and completes the upload when that was the last of it. Returns the new offset.
    ///
    /// It goes on when the client is gone, with what has arrived: nothing that was received is sent twice.
    pub(super) async fn receive_pieces(
        &self,
        caller: Caller,
        upload: Upload,
        incoming: Incoming,
    ) -> Result<u64, Refusal> {
        let storage = self.clone();
        detached(async move { storage.receive_all(&caller, upload, incoming).await }).await
    }

    /// The same for what comes with an upload's creation. Where it breaks off, nobody has learnt the upload's URL: it
    /// is forgotten.
    pub(super) async fn receive_first(
        &self,
        caller: Caller,
        upload: Upload,
        incoming: Incoming,
    ) -> Result<u64, Refusal> {
        let storage = self.clone();
        let work = async move {
            let received = storage.receive_all(&caller, upload.clone(), incoming).await;
            if received.is_err()
                && let Err(error) = storage.delete_upload(&upload).await
            {
                tracing::debug!(%error, "the beginning of an upload stays until it expires");
            }
            received
        };
        detached(work).await
    }

    async fn receive_all(
        &self,
        caller: &Caller,
        mut upload: Upload,
        incoming: Incoming,
    ) -> Result<u64, Refusal> {
        if incoming.offset != upload.received {
            return Err(Refusal::Offset(upload.received));
        }
        upload.length = upload.length.or(incoming.length);
        let rules = self.rules(&upload.id.bucket).await?;
        let most = self.size_limit_of(&rules, &upload.id.name);
        let end = upload.length.unwrap_or(most);
        let announced = incoming.announced.unwrap_or(0);
        if upload.length.is_some_and(|length| length > most)
            || incoming.offset.saturating_add(announced) > end
        {
            return Err(Refusal::TooLarge);
        }
        let writer = self.take_over(&upload, incoming.offset, incoming.length).await?;

        let writing = self.writers.begin(upload.id.id);
        let verified = incoming.checksum.is_some();
        let stop = Arc::clone(&writing.stop);
        let body = Arc::new(Mutex::new(Body::new(incoming.content, incoming.checksum, stop)));
        let mut offset = incoming.offset;
        let (mut held, mut arrived) = (Vec::new(), 0);
        while body.lock().await.has_more().await {
            let room = end - offset - arrived;
            if room == 0 {
                return Err(Refusal::TooLarge);
            }
            let piece = self.receive(piece_of(&body, room.min(piece_size(offset + arrived)))).await?;
            arrived += piece.written.size;
            held.push(piece);
            // With a checksum nothing counts before all of it does.
            if !verified {
                offset = self.append(&upload, writer, offset, std::mem::take(&mut held)).await?;
                arrived = 0;
            }
        }
        let (broken, checksum) = body.lock().await.finish();
        match broken {
            Some(Broken::Stopped) => return Err(Refusal::Locked),
            Some(Broken::By(error)) => return Err(crate::Error::from(error).into()),
            None => {}
        }
        if checksum.is_some_and(|checksum| !checksum.matches()) {
            return Err(Refusal::Checksum);
        }
        if !held.is_empty() {
            offset = self.append(&upload, writer, offset, held).await?;
        }
        upload.received = offset;
        if upload.length == Some(offset) {
            self.join_pieces(caller, &upload).await?;
        }
        Ok(offset)
    }
}

/// Runs to its end whether the client waits or not.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    use tracing::Instrument;
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(Refusal::Locked),
        },
    }
}

/// 16 MiB for the first 8 GiB, and twice as much for each twice as long.
fn piece_size(offset: u64) -> u64 {
    let (mut size, mut end) = (PIECE, PIECE * PIECES_OF_A_SIZE);
    while offset >= end && size < 1 << 40 {
        size *= 2;
        end += size * PIECES_OF_A_SIZE;
    }
    size
}

/// Why a body ended before its end.
enum Broken {
    By(BlobError),
    /// A newer request wants to write.
    Stopped,
}

/// A body from which pieces are taken.
struct Body {
    content: Content,
    stop: Arc<Notify>,
    rest: Option<Bytes>,
    ended: bool,
    broken: Option<Broken>,
    checksum: Option<Checksum>,
}

impl Body {
    fn new(content: Content, checksum: Option<Checksum>, stop: Arc<Notify>) -> Self {
        Self { content, stop, rest: None, ended: false, broken: None, checksum }
    }

    /// Waits until there is something, or the end.
    async fn has_more(&mut self) -> bool {
        while self.rest.is_none() && !self.ended {
            let next = tokio::select! {
                biased;
                () = self.stop.notified() => {
                    self.broken = Some(Broken::Stopped);
                    self.ended = true;
                    break;
                }
                next = self.content.next() => next,
            };
            match next {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    if let Some(checksum) = &mut self.checksum {
                        checksum.add(&chunk);
                    }
                    self.rest = Some(chunk);
                }
                Some(Err(error)) => {
                    // What came before it counts, unless there is a checksum of the whole.
                    self.broken = Some(Broken::By(error));
                    self.ended = true;
                }
                None => self.ended = true,
            }
        }
        self.rest.is_some()
    }

    fn take(&mut self, most: u64) -> Option<Bytes> {
        let mut chunk = self.rest.take()?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if chunk.len() > most {
            self.rest = Some(chunk.split_off(most));
        }
        Some(chunk)
    }

    fn finish(&mut self) -> (Option<Broken>, Option<Checksum>) {
        (self.broken.take(), self.checksum.take())
    }
}

/// The next bytes of a body, at most so many.
fn piece_of(body: &Arc<Mutex<Body>>, size: u64) -> Content {
    stream::unfold((Arc::clone(body), size), |(body, left)| {
        async move {
            if left == 0 {
                return None;
            }
            let chunk = {
                let mut body = body.lock().await;
                if !body.has_more().await {
                    return None;
                }
                body.take(left)?
            };
            let left = left - chunk.len() as u64;
            Some((Ok(chunk), (body, left)))
        }
        .boxed()
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn pieces_make_the_body_until_it_breaks() {
        let chunks = vec![
            Ok(Bytes::from_static(b"hello ")),
            Ok(Bytes::new()),
            Ok(Bytes::from_static(b"world")),
            Err(BlobError::Interrupted),
            Ok(Bytes::from_static(b"never")),
        ];
        let body = Arc::new(Mutex::new(Body::new(stream::iter(chunks).boxed(), None, Arc::default())));
        let mut pieces = Vec::new();
        while body.lock().await.has_more().await {
            let piece: Vec<Bytes> = piece_of(&body, 4).try_collect().await.unwrap();
            pieces.push(String::from_utf8(piece.concat()).unwrap());
        }
        assert_eq!(pieces, ["hell", "o wo", "rld"]);
        assert!(matches!(body.lock().await.finish().0, Some(Broken::By(BlobError::Interrupted))));
    }

    #[test]
    fn pieces_grow_with_the_upload() {
        assert_eq!(piece_size(0), PIECE);
        assert_eq!(piece_size((8 << 30) - 1), PIECE);
        assert_eq!(piece_size(8 << 30), 2 * PIECE);
        assert_eq!(piece_size(u64::MAX / 2) % PIECE, 0);
    }
}
