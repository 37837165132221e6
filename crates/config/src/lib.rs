//! Typed settings from file, environment and flags; every mistake reported at once.

mod settings;

pub use settings::*;
