//! Figures: what a window gave, what several come to, and whether it is enough.

use longhouse_benches::figures::{Bar, Spread, Stamp, percentile, table};
use serde::Serialize;

use crate::load::Window;
use crate::postgres::Peer;
use crate::workloads::Workload;

/// Least throughput, as a share of pgbench's.
const RATIO_BAR: f64 = 0.4;
/// Most latency at the 99th percentile at half load, in milliseconds.
const P99_BAR_MS: f64 = 5.0;
/// Most growth of memory over all requests but the first tenth, in MB.
const GROWTH_BAR_MB: f64 = 8.0;
/// Most memory for a result of a hundred megabytes, in MB.
const LARGE_BAR_MB: f64 = 16.0;

/// A window of the server under all the load it takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Used {
    pub(crate) per_second: f64,
    /// Processor time per request, in microseconds, by process.
    pub(crate) server_us: f64,
    pub(crate) postgres_us: f64,
    pub(crate) generator_us: f64,
}

/// A window of pgbench.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Pgbench {
    pub(crate) per_second: f64,
    /// Processor time per transaction, in microseconds.
    pub(crate) client_us: f64,
    pub(crate) postgres_us: f64,
}

impl From<Peer> for Pgbench {
    fn from(peer: Peer) -> Self {
        let each = |processors: f64| processors * 1e6 / peer.per_second;
        Self {
            per_second: peer.per_second,
            client_us: each(peer.cpus),
            postgres_us: each(peer.postgres_cpus),
        }
    }
}

/// Both beside each other.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) workload: Workload,
    pub(crate) round: u64,
    pub(crate) longhouse: Used,
    pub(crate) pgbench: Pgbench,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.longhouse.per_second / self.pgbench.per_second
    }

    /// Processor time that pgbench and its Postgres took, as a share of what a request took in all three processes: the
    /// ratio on a machine that has nothing else to do.
    fn cpu_ratio(&self) -> f64 {
        let Used { server_us, postgres_us, generator_us, .. } = self.longhouse;
        (self.pgbench.client_us + self.pgbench.postgres_us) / (server_us + postgres_us + generator_us)
    }

    /// One line while the benchmark goes on.
    pub(crate) fn line(&self) -> String {
        let Used { per_second, server_us, postgres_us, generator_us } = self.longhouse;
        format!(
            "{}, round {}: {per_second:.0}/s (µs: server {server_us:.1}, postgres {postgres_us:.1}, generator {generator_us:.1}), pgbench {:.0}/s (client {:.1}, postgres {:.1}), ratio {:.2}, by processor time {:.2}",
            self.workload.label(),
            self.round + 1,
            self.pgbench.per_second,
            self.pgbench.client_us,
            self.pgbench.postgres_us,
            self.ratio(),
            self.cpu_ratio()
        )
    }
}

/// Latency at half of the most that the server answers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HalfLoad {
    pub(crate) workload: Workload,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl HalfLoad {
    pub(crate) fn of(workload: Workload, rate: f64, window: &Window) -> Self {
        let at = |share| percentile(&window.latencies, share).map_or(f64::NAN, |ns| f64::from(ns) / 1e6);
        Self { workload, per_second: rate, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{} at {:.0}/s: p50 {:.2} ms, p99 {:.2} ms",
            self.workload.label(),
            self.per_second,
            self.p50_ms,
            self.p99_ms
        )
    }
}

/// Memory over many requests.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) requests: u64,
    /// After a tenth of them.
    pub(crate) before_kib: u64,
    /// After each further tenth.
    pub(crate) samples_kib: Vec<u64>,
}

impl Memory {
    fn growth_mb(&self) -> f64 {
        let after = self.samples_kib.last().copied().unwrap_or(self.before_kib);
        after.saturating_sub(self.before_kib) as f64 * 1_024.0 / 1e6
    }
}

/// One large result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Large {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) before_kib: u64,
    pub(crate) peak_kib: u64,
}

/// Everything, as `rest.json` has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
    pub(crate) pool: usize,
    pub(crate) clients: usize,
    pub(crate) rounds: Vec<Round>,
    pub(crate) half_loads: Vec<HalfLoad>,
    pub(crate) memory: Option<Memory>,
    pub(crate) large: Option<Large>,
    pub(crate) bars: Vec<Bar>,
}

impl Report {
    fn of(&self, workload: Workload, figure: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter(|round| round.workload == workload).map(figure))
    }

    pub(crate) fn median_rate(&self, workload: Workload) -> f64 {
        self.of(workload, |round| round.longhouse.per_second).map_or(0.0, |spread| spread.median)
    }

    /// Compares with what was promised.
    pub(crate) fn judge(&mut self) {
        let mut bars = Vec::new();
        for workload in Workload::ALL {
            if let Some(ratio) = self.of(workload, Round::ratio) {
                let what = format!("{}: throughput, times pgbench's", workload.label());
                bars.push(Bar::at_least(what, RATIO_BAR, ratio.median));
            }
        }
        let mut at_most = |what, limit, measured| bars.push(Bar::at_most(what, limit, measured));
        for half in &self.half_loads {
            at_most(format!("{}: p99 at half load, ms", half.workload.label()), P99_BAR_MS, half.p99_ms);
        }
        if let Some(memory) = &self.memory {
            let what = format!("growth of memory over {} requests, MB", memory.requests);
            at_most(what, GROWTH_BAR_MB, memory.growth_mb());
        }
        if let Some(large) = &self.large {
            let grown = (large.peak_kib - large.before_kib) as f64 * 1_024.0 / 1e6;
            at_most(
                format!("memory for a result of {} MB, MB", large.bytes / 1_000_000),
                LARGE_BAR_MB,
                grown,
            );
        }
        self.bars = bars;
    }

    /// The tables for people, in Markdown.
    pub(crate) fn text(&self) -> String {
        let mut throughput = table(
            &[
                "workload",
                "requests/s",
                "pgbench/s",
                "ratio",
                "by CPU",
                "µs server",
                "µs Postgres",
                "µs generator",
                "µs pgbench",
                "µs its Postgres",
                "half load/s",
                "p50 ms",
                "p99 ms",
            ],
            1,
        );
        for workload in Workload::ALL {
            let Some(rate) = self.of(workload, |round| round.longhouse.per_second) else { continue };
            let median = |figure: fn(&Round) -> f64| {
                self.of(workload, figure).map_or_else(String::new, |spread| format!("{:.1}", spread.median))
            };
            let half = self.half_loads.iter().find(|half| half.workload == workload);
            let half = |figure: fn(&HalfLoad) -> f64, digits: usize| {
                half.map_or_else(String::new, |half| format!("{:.digits$}", figure(half)))
            };
            throughput.add_row(vec![
                workload.label().to_owned(),
                Spread::show(Some(rate), 0),
                Spread::show(self.of(workload, |round| round.pgbench.per_second), 0),
                Spread::show(self.of(workload, Round::ratio), 2),
                Spread::show(self.of(workload, Round::cpu_ratio), 2),
                median(|round| round.longhouse.server_us),
                median(|round| round.longhouse.postgres_us),
                median(|round| round.longhouse.generator_us),
                median(|round| round.pgbench.client_us),
                median(|round| round.pgbench.postgres_us),
                half(|half| half.per_second, 0),
                half(|half| half.p50_ms, 2),
                half(|half| half.p99_ms, 2),
            ]);
        }
        let bars = Bar::table(&self.bars);
        let mut notes = String::new();
        if let Some(memory) = &self.memory {
            let samples: Vec<String> =
                memory.samples_kib.iter().map(|kib| format!("{:.1}", *kib as f64 / 976.6)).collect();
            notes += &format!(
                "memory over {} requests, MB: {:.1} after the first tenth, then {}\n",
                memory.requests,
                memory.before_kib as f64 / 976.6,
                samples.join(" ")
            );
        }
        if let Some(large) = &self.large {
            notes += &format!("a result of {} bytes took {:.1} s\n", large.bytes, large.seconds);
        }
        format!(
            "{}\nmedian (least–most) of windows of {} s; {} HTTP connections, {} database connections, {} of pgbench\n\n{throughput}\n\n{bars}\n\n{notes}",
            self.stamp, self.seconds, self.connections, self.pool, self.clients,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let latencies = (1..=200).map(|ms| ms * 1_000_000).collect();
        let window = Window { requests: 200, elapsed: std::time::Duration::from_secs(1), latencies };
        let half = HalfLoad::of(Workload::Read, 200.0, &window);
        assert!((half.p50_ms - 100.0).abs() < 1e-9 && (half.p99_ms - 198.0).abs() < 1e-9);
    }

    #[test]
    fn memory_that_returns_is_flat() {
        let memory = Memory { requests: 10, before_kib: 1_000, samples_kib: vec![9_000, 1_000] };
        assert!(memory.growth_mb() < 0.001);
    }
}
