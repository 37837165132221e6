//! Benchmark programs and peers; run by cargo xtask bench.
