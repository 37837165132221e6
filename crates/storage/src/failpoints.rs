//! Named points of no return, at which a test can end the process (feature `failpoints`; otherwise nothing is left of
//! them). `LONGHOUSE_TEST_FAILPOINT=upload.durable` ends the process the first time it comes by.

/// Every point, in the order in which a request passes them.
pub const POINTS: &[&str] = &[
    "upload.checked",
    "upload.pending",
    "upload.staged",
    "upload.synced",
    "upload.renamed",
    "upload.durable",
    "upload.committed",
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
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("LONGHOUSE_TEST_FAILPOINT").ok());
    if wanted.as_deref() == Some(point) {
        std::process::abort();
    }
}

/// Nothing, in a build without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_point: &'static str) {}
