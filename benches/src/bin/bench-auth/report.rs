//! Figures, and whether they are enough.

use longhouse_benches::figures::{Bar, Spread, Stamp, table};
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

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    stamp: Stamp,
    pub(crate) token_checks: Vec<TokenCheck>,
    pub(crate) refreshes: Vec<Refreshes>,
    pub(crate) sign_ins: Vec<SignIns>,
    pub(crate) race: Option<Race>,
    bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            token_checks: Vec::new(),
            refreshes: Vec::new(),
            sign_ins: Vec::new(),
            race: None,
            bars: Vec::new(),
        }
    }

    /// Whether every limit is kept.
    pub(crate) fn all_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }

    /// Compares with the limits.
    pub(crate) fn judge(&mut self) {
        let median = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
        let check = median(self.token_checks.iter().map(|check| check.cached_us).collect());
        let refreshes = median(self.refreshes.iter().map(|window| window.per_second).collect());
        let share = median(self.sign_ins.iter().map(SignIns::ratio).collect());
        self.bars = vec![
            Bar::at_most("token checked again, µs", CHECK_BAR_US, check),
            Bar::at_least("refreshes a second", REFRESH_BAR, refreshes),
            Bar::at_least("sign-ins, as a share of the machine's rate of hashing", SIGN_IN_BAR, share),
        ];
        if let Some(race) = self.race {
            let what = |what: &str| format!("{} uses of one token at once: {what}", race.uses);
            self.bars.extend([
                Bar::at_least(what("answered"), race.uses as f64, race.answered as f64),
                Bar::at_most(what("different answers"), 1.0, race.distinct as f64),
                Bar::at_least(what("live chains"), 1.0, race.live as f64),
            ]);
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut table = table(&["", "median (least–most)"], 1);
        let mut row = |name: &str, values: Vec<f64>, digits: usize| {
            table.add_row([name.to_owned(), Spread::show(Spread::of(values), digits)]);
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
        let bars = Bar::table(&self.bars);
        format!("{}\n\n{table}\n\n{bars}\n", self.stamp)
    }
}
