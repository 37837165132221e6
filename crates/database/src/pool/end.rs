//! How a transaction ends whose statements are all sent at once.

/// The end of a transaction when its statements succeeded; `R` is what their rows are.
pub enum End<'p, R = tokio_postgres::Row> {
    /// Commit.
    Commit,
    /// Check deferred constraints, then roll back.
    Rollback,
    /// Wait for the rows of every statement, which costs a round trip, and commit if this says so.
    CommitIf(&'p (dyn Fn(&[Vec<R>]) -> bool + Send + Sync)),
}

// By hand: a derive would ask the same of `R`, which is only looked at.
impl<R> Clone for End<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for End<'_, R> {}

impl<R> std::fmt::Debug for End<'_, R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Commit => "Commit",
            Self::Rollback => "Rollback",
            Self::CommitIf(_) => "CommitIf",
        })
    }
}
