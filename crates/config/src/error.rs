//! Mistakes: what is wrong, where it was written, what to do.

use std::fmt;

use crate::load::Origin;

/// Everything that is wrong with the configuration, found in one pass.
///
/// Neither `Display` nor `Debug` contains the value of a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigErrors {
    pub(crate) mistakes: Vec<Mistake>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, e.g. `server.port`, or the unknown name as it was written; the file's path when the file itself is at fault.
    pub key: String,
    /// Where the value was given; [`Origin::Default`] when a value that should be there is not.
    pub origin: Origin,
    /// What is wrong, with the value unless it is secret.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a form says about a value it refuses; the loader adds key and origin.
///
/// Whoever makes one decides what of the value may be shown: nothing of a secret.
pub(crate) struct Problem {
    pub(crate) wrong: String,
    pub(crate) remedy: String,
}

impl Problem {
    pub(crate) fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), remedy: remedy.into() }
    }

    pub(crate) fn at(self, key: &str, origin: Origin) -> Mistake {
        Mistake { key: key.to_owned(), origin, problem: self.wrong, remedy: self.remedy }
    }
}

impl ConfigErrors {
    /// The mistakes, those of the file first, each list in the order of `docs/configuration.md`.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => write!(f, "1 mistake in the configuration:")?,
            n => write!(f, "{n} mistakes in the configuration:")?,
        }
        for mistake in &self.mistakes {
            write!(f, "\n\n  {mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if self.origin != Origin::Default {
            write!(f, " ({})", self.origin)?;
        }
        write!(f, ": {}\n    {}", self.problem, self.remedy)
    }
}
