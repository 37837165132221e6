//! A body that Postgres is still sending.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream as _;
use hyper::body::{Body, Frame, SizeHint};
use longhouse_database::Error;
use longhouse_database::batch::LargeValue;

/// Announces its length, so that a client notices when the rest of it does not come.
#[derive(Debug)]
pub(crate) struct LargeBody {
    value: LargeValue,
    remaining: u64,
}

impl LargeBody {
    pub(crate) fn new(value: LargeValue) -> Self {
        Self { remaining: value.length(), value }
    }
}

impl Body for LargeBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.value).poll_next(context).map_ok(|part| {
            self.remaining = self.remaining.saturating_sub(part.len() as u64);
            Frame::data(part)
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
