//! Bytes on their way in, checked against what the client says about them, and out.

use axum::body::Body as AxumBody;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Extensions, HeaderMap};
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{Body, TrailingHeaders};

use crate::blobs::{BlobError, Content};
use crate::objects::paced;

/// Header and trailer names of the checksums that are checked.
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// What a client says about the bytes it sends.
pub(super) struct Expected {
    hasher: ChecksumHasher,
    md5: Option<Md5>,
    headers: Vec<(&'static str, String)>,
    content_md5: Option<String>,
    trailers: Option<TrailingHeaders>,
}

impl Expected {
    pub(super) fn new(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let given: Vec<_> =
            CHECKSUMS.into_iter().filter_map(|name| text(name).map(|value| (name, value))).collect();
        let trailers = extensions.get::<TrailingHeaders>().cloned();
        // Which checksum the trailer will hold was said in a header that is gone by now; an algorithm's name stays.
        let announced = text("x-amz-sdk-checksum-algorithm").or_else(|| text("x-amz-checksum-algorithm"));
        let wanted = |name: &str| {
            let algorithm = name.trim_start_matches("x-amz-checksum-");
            given.iter().any(|(known, _)| *known == name)
                || trailers.is_some()
                    && announced.as_ref().is_none_or(|announced| announced.eq_ignore_ascii_case(algorithm))
        };
        let hasher = ChecksumHasher {
            crc32: wanted(CHECKSUMS[0]).then(s3s::crypto::Crc32::new),
            crc32c: wanted(CHECKSUMS[1]).then(s3s::crypto::Crc32c::new),
            crc64nvme: wanted(CHECKSUMS[2]).then(s3s::crypto::Crc64Nvme::new),
            sha1: wanted(CHECKSUMS[3]).then(s3s::crypto::Sha1::new),
            sha256: wanted(CHECKSUMS[4]).then(s3s::crypto::Sha256::new),
        };
        let content_md5 = text("content-md5");
        Self {
            hasher,
            md5: content_md5.as_ref().map(|_| Md5::default()),
            headers: given,
            content_md5,
            trailers,
        }
    }

    fn add(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        if let Some(md5) = &mut self.md5 {
            md5.update(chunk);
        }
    }

    fn check(self) -> Result<(), BlobError> {
        let found = self.hasher.finalize();
        let mut expected = self.headers;
        if let Some(trailers) = self.trailers.and_then(|trailers| trailers.take()) {
            for name in CHECKSUMS {
                if let Some(value) = trailers.get(name).and_then(|value| value.to_str().ok()) {
                    expected.push((name, value.to_owned()));
                }
            }
        }
        let differs = |name: &str, value: &str| of(&found, name).is_some_and(|found| found != value);
        let md5 = self.md5.map(|md5| STANDARD.encode(md5.finalize()));
        if expected.iter().any(|(name, value)| differs(name, value)) || md5 != self.content_md5 {
            return Err(BlobError::Malformed(MISMATCH.into()));
        }
        Ok(())
    }
}

/// Which error of the store stands for bytes that are not what was announced.
pub(super) const MISMATCH: &str = "The checksum you specified did not match what we received";

fn of<'c>(checksum: &'c Checksum, name: &str) -> Option<&'c String> {
    match name {
        "x-amz-checksum-crc32" => checksum.checksum_crc32.as_ref(),
        "x-amz-checksum-crc32c" => checksum.checksum_crc32c.as_ref(),
        "x-amz-checksum-crc64nvme" => checksum.checksum_crc64nvme.as_ref(),
        "x-amz-checksum-sha1" => checksum.checksum_sha1.as_ref(),
        "x-amz-checksum-sha256" => checksum.checksum_sha256.as_ref(),
        _ => None,
    }
}

/// A request's bytes; the stream fails at its end when they are not what was announced.
pub(super) fn incoming(body: Option<StreamingBlob>, expected: Expected) -> Content {
    let Some(body) = body else {
        return stream::once(async move { expected.check().map(|()| Bytes::new()) }).boxed();
    };
    stream::unfold((body, Some(expected)), |(mut body, mut expected)| async move {
        let known = expected.as_mut()?;
        match body.next().await {
            Some(Ok(chunk)) => {
                known.add(&chunk);
                Some((Ok(chunk), (body, expected)))
            }
            Some(Err(error)) => Some((Err(broken(&*error)), (body, None))),
            None => {
                let checked = expected.take().map_or(Ok(()), Expected::check);
                Some((checked.map(|()| Bytes::new()), (body, None)))
            }
        }
    })
    .boxed()
}

/// Our own error below those of the signature's check, or that check's.
fn broken(error: &(dyn std::error::Error + 'static)) -> BlobError {
    let mut source = Some(error);
    while let Some(inner) = source {
        match inner.downcast_ref::<BlobError>() {
            Some(BlobError::Stalled(seconds)) => return BlobError::Stalled(*seconds),
            Some(_) => return BlobError::Interrupted,
            None => source = inner.source(),
        }
    }
    let text = error.to_string();
    match text.contains("Incomplete") || text.contains("Underlying") {
        true => BlobError::Interrupted,
        false => BlobError::Malformed(MISMATCH.into()),
    }
}

/// A response's bytes.
pub(super) fn outgoing(content: Content) -> StreamingBlob {
    StreamingBlob::from(Body::http_body_unsync(AxumBody::from_stream(paced(content))))
}
