//! Figures: what a run gave, what many come to, and whether it is enough.

use longhouse_benches::figures::{Bar, Spread, Stamp, percentile, table};
use serde::Serialize;

use crate::load::Window;

/// Most processor time that a server may take, as a multiple of the relay's.
const CPU_RATIO_BAR: f64 = 1.35;
/// Most added latency at the 99th percentile with 200 calls, in milliseconds.
const P99_BAR_MS: f64 = 5.0;
const P99_CALLS: usize = 200;
/// Most memory a call, in KiB.
const MEMORY_BAR_KIB: f64 = 100.0;
/// Longest start with the database up, in milliseconds.
const START_BAR_MS: f64 = 300.0;
/// Most resident memory without calls, in MB.
const IDLE_BAR_MB: f64 = 40.0;
/// Below this share of idle processor time, figures say more about the machine than about the program.
const BUSY_BELOW: f64 = 5.0;
/// Processors that other programs (the database is one) may take before they disturb a measurement.
const DISTURBED_ABOVE: f64 = 0.15;

/// What lies between the callers and the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Nothing,
    Relay,
    Longhouse,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing (generator alone)",
            Self::Relay => "bare relay",
            Self::Longhouse => "longhouse",
        }
    }
}

/// Latency in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of nanoseconds in ascending order.
    pub(crate) fn of(sorted: &[u32]) -> Self {
        let at = |share| percentile(sorted, share).map_or(f64::NAN, |ns| f64::from(ns) / 1e6);
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// One window of one process.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) calls: usize,
    pub(crate) round: usize,
    pub(crate) kind: Kind,
    /// Caller to model.
    pub(crate) to_model: Latency,
    /// Model to caller.
    pub(crate) to_caller: Latency,
    pub(crate) frames: usize,
    pub(crate) frames_lost: u64,
    /// Marks and the like.
    pub(crate) other_messages: u64,
    /// Processor time of the process in milliseconds per call and second; `None` for the generator alone.
    pub(crate) cpu_ms_per_call_second: Option<f64>,
    pub(crate) cpu_system_share: Option<f64>,
    pub(crate) idle_rss_kib: Option<u64>,
    pub(crate) rss_kib: Option<u64>,
    pub(crate) memory_kib_per_call: Option<f64>,
    /// The latest that the generator wrote a frame after its time.
    pub(crate) generator_lateness_ms: f64,
    pub(crate) generator_cpus: f64,
    pub(crate) machine_idle_percent: f64,
    /// Processors that neither the generator nor the process under test used; the database is among them.
    pub(crate) other_programs_cpus: f64,
}

impl Run {
    /// Whether the machine had little else to do.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.other_programs_cpus <= DISTURBED_ABOVE
    }

    pub(crate) fn of(calls: usize, round: usize, kind: Kind, window: &Window) -> Self {
        Self {
            calls,
            round,
            kind,
            to_model: Latency::of(&window.latencies[0]),
            to_caller: Latency::of(&window.latencies[1]),
            frames: window.latencies.iter().map(Vec::len).sum(),
            frames_lost: window.lost,
            other_messages: window.other,
            cpu_ms_per_call_second: None,
            cpu_system_share: None,
            idle_rss_kib: None,
            rss_kib: None,
            memory_kib_per_call: None,
            generator_lateness_ms: window.lateness as f64 / 1e6,
            generator_cpus: 0.0,
            machine_idle_percent: 0.0,
            other_programs_cpus: 0.0,
        }
    }

    /// One line while the benchmark goes on.
    pub(crate) fn line(&self) -> String {
        let cpu = self.cpu_ms_per_call_second.map_or_else(String::new, |cpu| format!(", {cpu:.3} ms/call-s"));
        format!(
            "{} calls, round {}, {}: p50 {:.2}/{:.2} ms, p99 {:.2}/{:.2} ms{cpu}, {} lost, machine {:.0} % idle, others {:.2} processors",
            self.calls,
            self.round + 1,
            self.kind.label(),
            self.to_model.p50,
            self.to_caller.p50,
            self.to_model.p99,
            self.to_caller.p99,
            self.frames_lost,
            self.machine_idle_percent,
            self.other_programs_cpus,
        )
    }
}

/// Start and idleness of the server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Start {
    /// From the start of the process to its first answer on `/ready`, database up.
    pub(crate) with_database_up_ms: Option<Spread>,
    /// The same for the first start of all, which makes the database.
    pub(crate) first_ms: f64,
    pub(crate) idle_rss_mb: f64,
}

/// Everything, as `calls.json` has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) start: Start,
    pub(crate) bars: Vec<Bar>,
    pub(crate) runs: Vec<Run>,
}

impl Report {
    /// The windows of one kind and size that count: those in which the machine was quiet, if there is any.
    fn runs(&self, calls: usize, kind: Kind) -> impl Iterator<Item = &Run> {
        let of = move |run: &&Run| run.calls == calls && run.kind == kind;
        let quiet = self.runs.iter().filter(of).any(Run::is_undisturbed);
        self.runs.iter().filter(of).filter(move |run| run.is_undisturbed() || !quiet)
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.runs.iter().map(|run| run.calls).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn cpu(&self, calls: usize, kind: Kind) -> Option<Spread> {
        Spread::of(self.runs(calls, kind).filter_map(|run| run.cpu_ms_per_call_second))
    }

    /// The server's processor time as a multiple of the relay's, round by round: both saw the same machine.
    fn ratio(&self, calls: usize) -> Option<Spread> {
        let relay =
            |round| self.runs(calls, Kind::Relay).find(|run| run.round == round)?.cpu_ms_per_call_second;
        Spread::of(
            self.runs(calls, Kind::Longhouse)
                .filter_map(|run| Some(run.cpu_ms_per_call_second? / relay(run.round)?)),
        )
    }

    /// Compares with what was promised.
    pub(crate) fn judge(&mut self) {
        let mut bars = Vec::new();
        let mut bar = |what: String, limit: f64, measured: Option<f64>| {
            if let Some(measured) = measured {
                bars.push(Bar::at_most(what, limit, measured));
            }
        };
        for calls in self.sizes() {
            let ratio = self.ratio(calls).map(|s| s.median);
            bar(format!("server CPU at {calls} calls, times the bare relay's"), CPU_RATIO_BAR, ratio);
            let runs = || self.runs(calls, Kind::Longhouse);
            let memory = Spread::of(runs().filter_map(|run| run.memory_kib_per_call)).map(|s| s.median);
            bar(format!("KiB a call at {calls} calls"), MEMORY_BAR_KIB, memory);
            if calls == P99_CALLS {
                let p99 =
                    |of: fn(&Run) -> Latency| Spread::of(runs().map(|run| of(run).p99)).map(|s| s.median);
                bar(format!("p99 caller to model at {calls} calls, ms"), P99_BAR_MS, p99(|run| run.to_model));
                bar(
                    format!("p99 model to caller at {calls} calls, ms"),
                    P99_BAR_MS,
                    p99(|run| run.to_caller),
                );
            }
            // A frame may be late on a busy machine, but never lost.
            let all = self.runs.iter().filter(|run| run.calls == calls && run.kind == Kind::Longhouse);
            let lost: u64 = all.map(|run| run.frames_lost).sum();
            bar(format!("frames lost at {calls} calls"), 0.0, Some(lost as f64));
        }
        let start = self.start.with_database_up_ms.map(|s| s.median);
        bar("start with the database up, ms".into(), START_BAR_MS, start);
        bar("idle server, MB resident".into(), IDLE_BAR_MB, Some(self.start.idle_rss_mb));
        self.bars = bars;
    }

    /// The tables for people, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let mut calls_table = table(
            &[
                "calls",
                "between",
                "to model p50",
                "p99",
                "max",
                "to caller p50",
                "p99",
                "max",
                "CPU ms/call-s",
                "× relay",
                "KiB/call",
                "idle %",
                "others",
            ],
            2,
        );
        for calls in self.sizes() {
            for kind in [Kind::Nothing, Kind::Relay, Kind::Longhouse] {
                let figure =
                    |of: fn(&Run) -> f64| Spread::of(self.runs(calls, kind).map(of)).map(|s| s.median);
                let Some(idle) = figure(|run| run.machine_idle_percent) else { continue };
                let ms = |of| figure(of).map_or_else(String::new, |ms| format!("{ms:.2}"));
                let memory = Spread::of(self.runs(calls, kind).filter_map(|run| run.memory_kib_per_call));
                let ratio = (kind == Kind::Longhouse).then(|| self.ratio(calls)).flatten();
                calls_table.add_row(vec![
                    calls.to_string(),
                    kind.label().to_owned(),
                    ms(|run| run.to_model.p50),
                    ms(|run| run.to_model.p99),
                    ms(|run| run.to_model.max),
                    ms(|run| run.to_caller.p50),
                    ms(|run| run.to_caller.p99),
                    ms(|run| run.to_caller.max),
                    Spread::show(self.cpu(calls, kind), 3),
                    Spread::show(ratio, 2),
                    Spread::show(memory, 0),
                    format!("{idle:.0}"),
                    ms(|run| run.other_programs_cpus),
                ]);
            }
        }
        let bars_table = Bar::table(&self.bars);
        let mut note = String::new();
        let saturated = self.runs.iter().filter(|run| run.machine_idle_percent < BUSY_BELOW).count();
        if saturated > 0 {
            note +=
                &format!("\n{saturated} windows had under {BUSY_BELOW} % idle: the machine was saturated.\n");
        }
        let disturbed = self.runs.iter().filter(|run| !run.is_undisturbed()).count();
        if disturbed > 0 {
            note +=
                &format!("\nOther programs took over {DISTURBED_ABOVE} processors in {disturbed} windows.\n");
        }
        format!("{calls_table}\n\n{bars_table}\n{note}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(calls: usize, round: usize, kind: Kind, cpu: f64) -> Run {
        let latencies = [vec![1_000_000; 100], (1..=100).map(|ms| ms * 1_000_000).collect()];
        let mut run = Run::of(calls, round, kind, &Window { latencies, ..Window::default() });
        run.cpu_ms_per_call_second = Some(cpu);
        run.memory_kib_per_call = Some(50.0);
        run
    }

    fn report(runs: Vec<Run>) -> Report {
        let start = Start { with_database_up_ms: Spread::of([100.0]), first_ms: 900.0, idle_rss_mb: 41.0 };
        let mut report = Report {
            stamp: Stamp::now(std::path::Path::new("true")).unwrap(),
            seconds: 1,
            rounds: 2,
            start,
            bars: Vec::new(),
            runs,
        };
        report.judge();
        report
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let sorted: Vec<u32> = (1..=200).map(|ms| ms * 1_000_000).collect();
        assert_eq!(Latency::of(&sorted), Latency { p50: 100.0, p99: 198.0, max: 200.0 });
        assert!(Latency::of(&[]).p50.is_nan());
    }

    #[test]
    fn disturbed_windows_do_not_count_beside_a_quiet_one() {
        let mut noisy = run(50, 0, Kind::Longhouse, 9.0);
        noisy.other_programs_cpus = 1.0;
        let quiet = run(50, 1, Kind::Longhouse, 2.0);
        let median = |runs| report(runs).cpu(50, Kind::Longhouse).map(|s| s.median);
        assert_eq!(median(vec![noisy.clone(), quiet]), Some(2.0));
        assert_eq!(median(vec![noisy]), Some(9.0));
    }

    #[test]
    fn a_server_is_compared_with_the_relay_of_its_round() {
        let report = report(vec![
            run(200, 0, Kind::Relay, 1.0),
            run(200, 0, Kind::Longhouse, 1.2),
            run(200, 1, Kind::Longhouse, 4.2),
            run(200, 1, Kind::Relay, 3.0),
        ]);
        let ratio = report.ratio(200).unwrap();
        assert!((ratio.min - 1.2).abs() < 1e-9 && (ratio.max - 1.4).abs() < 1e-9);
        let missed: Vec<&str> = report.bars.iter().filter(|b| !b.met).map(|b| b.what.as_str()).collect();
        assert_eq!(missed, ["p99 model to caller at 200 calls, ms", "idle server, MB resident"]);
        let text = report.tables();
        assert!(text.contains("1.30 (1.20–1.40)") && text.contains("MISSED"), "{text}");
    }
}
