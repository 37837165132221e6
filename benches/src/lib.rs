//! What the benchmark programs share. Each program is `src/bin/bench-<area>` and runs by `cargo xtask bench <area>`.

pub mod figures;
pub mod machine;
pub mod server;
