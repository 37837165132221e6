//! How far a download may be ahead of its client. A connection takes what it is given, 400 KiB and more, and keeps it
//! while the client does not read: with a thousand slow clients that is memory for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use futures_util::task::AtomicWaker;
use futures_util::{StreamExt, ready};

use crate::blobs::Content;

/// Pieces of one response that are on their way at once: one goes out while the next is read.
const PIECES: usize = 2;

/// What is on its way to one client.
#[derive(Default)]
struct Way {
    pieces: AtomicUsize,
    arrived: AtomicWaker,
}

/// A piece that tells when the connection is done with it.
struct Piece {
    bytes: Bytes,
    way: Arc<Way>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.way.pieces.fetch_sub(1, Ordering::AcqRel);
        self.way.arrived.wake();
    }
}

/// The same bytes, for a connection: the next piece comes when one of those before it was sent. Whoever keeps pieces
/// instead of sending them waits for ever.
pub(crate) fn paced(mut content: Content) -> Content {
    let way = Arc::new(Way::default());
    stream::poll_fn(move |context| {
        if way.pieces.load(Ordering::Acquire) >= PIECES {
            way.arrived.register(context.waker());
            // One may have been sent in between.
            if way.pieces.load(Ordering::Acquire) >= PIECES {
                return Poll::Pending;
            }
        }
        Poll::Ready(ready!(content.poll_next_unpin(context)).map(|piece| {
            let bytes = piece?;
            way.pieces.fetch_add(1, Ordering::AcqRel);
            Ok(Bytes::from_owner(Piece { bytes, way: Arc::clone(&way) }))
        }))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_next_piece_waits_until_one_was_sent() {
        let pieces = ["a", "b", "c", "d"].map(|text| Ok(Bytes::from_static(text.as_bytes())));
        let mut content = paced(stream::iter(pieces).boxed());
        let first = content.next().await.unwrap().unwrap();
        let second = content.next().await.unwrap().unwrap();
        let part = first.slice(..1);
        drop(first);
        assert!(content.next().now_or_never().is_none(), "a part of the first is still to be sent");
        let waiting = tokio::spawn(async move { (content.next().await.unwrap().unwrap(), content) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(part);
        let (third, mut content) = waiting.await.unwrap();
        assert_eq!((second, third), (Bytes::from_static(b"b"), Bytes::from_static(b"c")));
        assert_eq!(content.next().await.unwrap().unwrap(), "d");
        assert!(content.next().await.is_none());
    }
}
