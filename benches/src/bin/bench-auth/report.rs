//! Figures, and whether they are enough.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use longhouse_benches::machine::Machine;
use serde::Serialize;

/// Most time for a token that was checked before, in microseconds.
const CHECK_BAR_US: f64 = 10.0;
/// Least refreshes a second.
const REFRESH_BAR: f64 = 2_000.0;
/// Least sign-ins, as a share of the hashes that the machine checks.
const SIGN_IN_BAR: f64 = 0.8;

/// What a check costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct TokenCheck {
    pub(crate) cached_us: f64,
    pub(crate) new_us: f64,
}

/// A window of refreshes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Refreshes {
    pub(crate) per_second: f64,
    /// Processor time each, without Postgres.
    pub(crate) server_us: f64,
    pub(crate) generator_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Refreshes {
    pub(crate) fn line(&self) -> String {
        format!(
            "{:.0} refreshes/s, server {:.0} µs and generator {:.0} µs each, p50 {:.1} ms, p99 {:.1} ms",
            self.per_second, self.server_us, self.generator_us, self.p50_ms, self.p99_ms
        )
    }
}

/// A window of sign-ins beside one of bare hashing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct SignIns {
    pub(crate) hashes_per_second: f64,
    pub(crate) per_second: f64,
}

impl SignIns {
    fn ratio(&self) -> f64 {
        self.per_second / self.hashes_per_second
    }

    pub(crate) fn line(&self) -> String {
        format!("{:.1} sign-ins/s beside {:.1} hashes/s", self.per_second, self.hashes_per_second)
    }
}

/// What many uses of one refresh token left.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Race {
    pub(crate) uses: u64,
    pub(crate) answered: u64,
    pub(crate) distinct: u64,
    pub(crate) live: u64,
    pub(crate) seconds: f64,
}

/// A limit, and whether it is kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) met: bool,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    date: String,
    machine: Machine,
    pub(crate) token_checks: Vec<TokenCheck>,
    pub(crate) refreshes: Vec<Refreshes>,
    pub(crate) sign_ins: Vec<SignIns>,
    pub(crate) race: Option<Race>,
    pub(crate) bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            date: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            machine,
            token_checks: Vec::new(),
            refreshes: Vec::new(),
            sign_ins: Vec::new(),
            race: None,
            bars: Vec::new(),
        }
    }

    /// Compares with the limits.
    pub(crate) fn judge(&mut self) {
        let check = median(self.token_checks.iter().map(|check| check.cached_us));
        let refreshes = median(self.refreshes.iter().map(|window| window.per_second));
        let share = median(self.sign_ins.iter().map(SignIns::ratio));
        let mut bar = |what: String, met: bool| self.bars.push(Bar { what, met });
        bar(format!("token checked again in {check:.2} µs (at most {CHECK_BAR_US})"), check < CHECK_BAR_US);
        bar(format!("{refreshes:.0} refreshes/s (at least {REFRESH_BAR})"), refreshes >= REFRESH_BAR);
        bar(
            format!("sign-ins at {share:.2} of the machine's rate of hashing (at least {SIGN_IN_BAR})"),
            share >= SIGN_IN_BAR,
        );
        if let Some(race) = self.race {
            let met = race.answered == race.uses && race.distinct == 1 && race.live == 1;
            bar(
                format!(
                    "{} uses of one token at once: {} answered in {:.1} s, {} live chain(s)",
                    race.uses, race.answered, race.seconds, race.live
                ),
                met,
            );
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["", "median", "least", "most"]);
        let mut row = |name: &str, values: Vec<f64>, digits: usize| {
            let shown = |value: f64| format!("{value:.digits$}");
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            table.add_row([name.to_owned(), shown(median(values.into_iter())), shown(least), shown(most)]);
        };
        row("token checked again, µs", self.token_checks.iter().map(|check| check.cached_us).collect(), 2);
        row("new token checked, µs", self.token_checks.iter().map(|check| check.new_us).collect(), 1);
        row("refreshes a second", self.refreshes.iter().map(|window| window.per_second).collect(), 0);
        row("p50 of a refresh, ms", self.refreshes.iter().map(|window| window.p50_ms).collect(), 1);
        row("p99 of a refresh, ms", self.refreshes.iter().map(|window| window.p99_ms).collect(), 1);
        row(
            "server's processor a refresh, µs",
            self.refreshes.iter().map(|window| window.server_us).collect(),
            0,
        );
        row("sign-ins a second", self.sign_ins.iter().map(|window| window.per_second).collect(), 1);
        row(
            "bare bcrypt checks a second",
            self.sign_ins.iter().map(|window| window.hashes_per_second).collect(),
            1,
        );
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let bars = self.bars.iter().map(|bar| format!("{} {}\n", if bar.met { "✓" } else { "✗" }, bar.what));
        format!("{table}\n{}", bars.collect::<String>())
    }
}

/// The middle value; zero of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A percentile of sorted times, in milliseconds.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
