//! The Studio's own endpoints, one file each.

pub(crate) mod audit;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod overview;
pub(crate) mod project;
pub(crate) mod rows;
pub(crate) mod tables;
pub(crate) mod usage;
