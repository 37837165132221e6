//! Named points of no return, at which a test can end the process (feature `failpoints`; otherwise nothing is left of
//! them). `LONGHOUSE_TEST_FAILPOINT=upload.durable` ends the process the first time it comes by,
//! `upload.durable#2` the second time.

/// Every point, in the order in which a request passes them; `upload.pending` and `upload.written` in either order.
pub const POINTS: &[&str] = &[
    "upload.checked",
    "upload.pending",
    "upload.written",
    "upload.staged",
    "upload.renamed",
    "upload.synced",
    "upload.durable",
    "upload.committed",
    "resumable.received",
    "resumable.claimed",
    "resumable.joined",
    "resumable.completed",
    "multipart.received",
    "multipart.completed",
    "copy.pending",
    "copy.durable",
    "copy.committed",
    "move.checked",
    "move.committed",
    "delete.committed",
    "sweep.leased",
    "sweep.deleted",
    "sweep.committed",
];

/// Ends the process here if a test asked for it, as abruptly as a power cut does: nothing is flushed or dropped.
#[cfg(feature = "failpoints")]
pub fn reach(point: &'static str) {
    debug_assert!(POINTS.contains(&point), "{point} is not listed");
    use std::sync::atomic::{AtomicU32, Ordering};
    static WANTED: std::sync::OnceLock<Option<(String, u32)>> = std::sync::OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("LONGHOUSE_TEST_FAILPOINT").ok()?;
        let (point, time) = text.split_once('#').unwrap_or((&text, "1"));
        Some((point.to_owned(), time.parse().expect("a failpoint's # is followed by a number")))
    });
    if let Some((wanted, time)) = wanted
        && wanted == point
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *time
    {
        std::process::abort();
    }
}

/// Nothing, in a build without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_point: &'static str) {}
