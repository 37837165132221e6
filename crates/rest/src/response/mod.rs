//! From results to answers.

pub mod cors;
pub mod headers;
#[cfg(test)]
mod tests;
