//! Why a process cannot be observed.

/// Errors of setting up logs and metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.filter` does not parse.
    #[error(
        "log filter `{filter}` is not understood ({reason}); write e.g. `info` or `info,longhouse_voice=debug`"
    )]
    Filter {
        /// As configured.
        filter: String,
        /// The parser's reason.
        reason: String,
    },
    /// A second initialisation in one process.
    #[error("logs are already set up in this process; call logs::init once, first thing in main")]
    LogsTwice,
    /// A second recorder in one process.
    #[error("metrics are already set up in this process ({0}); call Metrics::install once")]
    MetricsTwice(String),
}
