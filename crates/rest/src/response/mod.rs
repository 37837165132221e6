//! Pieces of answers: headers, and the policy for other origins.

pub mod cors;
pub mod headers;
#[cfg(test)]
mod tests;
