//! The figures, as people and programs read them.

use longhouse_benches::figures::{Bar, Spread, Stamp, table};
use serde::Serialize;

use crate::Settings;

/// Connections that do nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) connections: u32,
    pub(crate) bytes_each: f64,
    pub(crate) resident_mib: f64,
    pub(crate) connected_per_second: f64,
}

/// One window of messages to many.
#[derive(Debug, Serialize)]
pub(crate) struct Fanout {
    pub(crate) deliveries_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) samples: u64,
    pub(crate) server_cpu_us_each: f64,
}

impl Fanout {
    pub(crate) fn line(&self) -> String {
        format!(
            "{:.0} deliveries/s, p50 {:.2} p95 {:.2} p99 {:.2} ms, {:.2} µs of the server each",
            self.deliveries_per_second, self.p50_ms, self.p95_ms, self.p99_ms, self.server_cpu_us_each
        )
    }
}

/// Changes of the database.
#[derive(Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) followers: u32,
    pub(crate) changes_per_second: f64,
    pub(crate) decided_per_second: f64,
    pub(crate) missing: u64,
    pub(crate) behind_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) server_cpu_us_each: f64,
}

impl Changes {
    pub(crate) fn line(&self) -> String {
        format!(
            "{} followers, {:.0} changes/s, p50 {:.1} p95 {:.1} ms, {} missing, {:.0} ms behind at the end, {:.0} µs of the server each",
            self.followers,
            self.changes_per_second,
            self.p50_ms,
            self.p95_ms,
            self.missing,
            self.behind_ms,
            self.server_cpu_us_each
        )
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    stamp: Stamp,
    members: u32,
    deliveries: u64,
    changes_wanted: u64,
    pub(crate) idle: Option<Idle>,
    pub(crate) fanout: Vec<Fanout>,
    pub(crate) latency: Vec<Fanout>,
    pub(crate) changes: Option<Changes>,
    bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(stamp: Stamp, settings: &Settings) -> Self {
        Self {
            stamp,
            members: settings.members,
            deliveries: settings.deliveries,
            changes_wanted: settings.changes,
            idle: None,
            fanout: Vec::new(),
            latency: Vec::new(),
            changes: None,
            bars: Vec::new(),
        }
    }

    /// Compares with what is promised.
    pub(crate) fn judge(&mut self) {
        let mut bars = Vec::new();
        if let Some(idle) = &self.idle {
            let what = format!("KiB of each of {} connections", idle.connections);
            bars.push(Bar::at_most(what, 20.0, idle.bytes_each / 1_024.0));
        }
        if let Some(spread) = Spread::of(self.fanout.iter().map(|window| window.deliveries_per_second)) {
            bars.push(Bar::at_least("deliveries/s", 300_000.0, spread.median));
        }
        if let Some(spread) = Spread::of(self.latency.iter().map(|window| window.p95_ms)) {
            bars.push(Bar::at_most(
                format!("p95 ms at {} deliveries/s", self.deliveries),
                28.0,
                spread.median,
            ));
            let rate = Spread::of(self.latency.iter().map(|window| window.deliveries_per_second));
            let wanted = self.deliveries as f64 * 0.99;
            bars.push(Bar::at_least("deliveries/s meanwhile", wanted, rate.map_or(0.0, |rate| rate.median)));
        }
        if let Some(changes) = &self.changes {
            let wanted = self.changes_wanted as f64 * 0.98;
            let what = format!("changes/s to {} followers under RLS", changes.followers);
            bars.push(Bar::at_least(what, wanted, changes.changes_per_second));
            bars.push(Bar::at_most("changes that did not come", 0.0, changes.missing as f64));
            bars.push(Bar::at_most("ms until the last change has come", 1_000.0, changes.behind_ms));
        }
        self.bars = bars;
    }

    pub(crate) fn all_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }

    pub(crate) fn text(&self) -> String {
        let mut figures = table(&["what", "median (least–most)"], 1);
        let mut add = |what: String, value: String| {
            figures.add_row([what, value]);
        };
        if let Some(idle) = &self.idle {
            add(
                format!("{} idle connections: bytes each", idle.connections),
                format!("{:.0}", idle.bytes_each),
            );
            add("resident memory then, MiB".into(), format!("{:.0}", idle.resident_mib));
            add(
                "connections and joins a second, one after the other".into(),
                format!("{:.0}", idle.connected_per_second),
            );
        }
        let spread = |windows: &[Fanout], of: fn(&Fanout) -> f64, digits| {
            Spread::show(Spread::of(windows.iter().map(of)), digits)
        };
        if !self.fanout.is_empty() {
            add(
                format!("deliveries/s to {} members", self.members),
                spread(&self.fanout, |w| w.deliveries_per_second, 0),
            );
            add("µs of the server for each".into(), spread(&self.fanout, |w| w.server_cpu_us_each, 2));
        }
        if !self.latency.is_empty() {
            add(
                format!("p50 ms at {} deliveries/s", self.deliveries),
                spread(&self.latency, |w| w.p50_ms, 2),
            );
            add("p95 ms".into(), spread(&self.latency, |w| w.p95_ms, 2));
            add("p99 ms".into(), spread(&self.latency, |w| w.p99_ms, 2));
            add("µs of the server for each".into(), spread(&self.latency, |w| w.server_cpu_us_each, 2));
        }
        if let Some(changes) = &self.changes {
            add(
                format!("changes/s to {} followers, each its own rows", changes.followers),
                format!("{:.0}", changes.changes_per_second),
            );
            add(
                "p50 / p95 ms from the statement to the client".into(),
                format!("{:.1} / {:.1}", changes.p50_ms, changes.p95_ms),
            );
            add("µs of the server for each change".into(), format!("{:.0}", changes.server_cpu_us_each));
        }
        format!("{}\n\n{figures}\n\n{}", self.stamp, Bar::table(&self.bars))
    }
}
