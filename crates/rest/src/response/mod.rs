//! Pieces of answers: headers, and the policy for other origins.

pub mod cors;
pub mod headers;
pub(crate) mod large;
#[cfg(test)]
mod tests;
