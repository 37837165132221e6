//! Misfortunes in turn, for every emulator that scripts them.

/// Who suffers what, of requests or connections: the first, the second and so on, then all the rest.
///
/// Counting starts again whenever faults are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults<F> {
    /// Of the first ones, in order.
    pub sequence: Vec<F>,
    /// Of every one after those.
    pub rest: F,
}

impl<F: Clone + Default> Faults<F> {
    /// The first `count` suffer; the rest are fine.
    #[must_use]
    pub fn first(count: usize, fault: F) -> Self {
        Self { sequence: vec![fault; count], rest: F::default() }
    }

    /// Every one suffers.
    #[must_use]
    pub fn all(fault: F) -> Self {
        Self { sequence: Vec::new(), rest: fault }
    }

    pub(crate) fn of(&self, number: usize) -> F {
        self.sequence.get(number).unwrap_or(&self.rest).clone()
    }
}
