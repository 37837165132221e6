//! Figures: what several windows come to, whether that is enough, and how people and programs read it.

use std::fmt;
use std::io;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::machine::Machine;

/// Median with least and most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle, or the mean of both middles.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of any number of values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (&min, &max) = (values.first()?, values.last()?);
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }

    /// `median (min–max)`; nothing of `None`.
    pub fn show(this: Option<Self>, digits: usize) -> String {
        this.map_or_else(String::new, |s| {
            format!("{:.digits$} ({:.digits$}–{:.digits$})", s.median, s.min, s.max)
        })
    }
}

/// The value of ascending ones that this share of them does not exceed.
pub fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Something promised, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What was measured, with its unit.
    pub what: String,
    /// The limit, with `≥` or `≤`.
    pub limit: String,
    /// What came of it.
    pub measured: f64,
    /// Whether that is enough.
    pub met: bool,
}

impl Bar {
    /// More is better.
    pub fn at_least(what: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self { what: what.into(), limit: format!("≥ {limit}"), measured, met: measured >= limit }
    }

    /// Less is better.
    pub fn at_most(what: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self { what: what.into(), limit: format!("≤ {limit}"), measured, met: measured <= limit }
    }

    /// All of them for people.
    pub fn table(bars: &[Self]) -> Table {
        let mut table = table(&["bar", "limit", "measured", ""], 1);
        for bar in bars {
            let verdict = if bar.met { "met" } else { "MISSED" };
            let cells = [&bar.what, &bar.limit, &format!("{:.2}", bar.measured), verdict];
            table.add_row(cells);
        }
        table
    }
}

/// A table in Markdown, whose first columns are words and whose others are numbers.
pub fn table(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What was measured, when and where.
#[derive(Debug, Clone, Serialize)]
pub struct Stamp {
    date: String,
    server: String,
    machine: Machine,
}

impl Stamp {
    /// Now and here, of this program.
    ///
    /// # Errors
    /// When the program does not run.
    pub fn now(program: &Path) -> io::Result<Self> {
        let output = std::process::Command::new(program).arg("version").output()?;
        Ok(Self {
            date: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            server: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            machine: Machine::this(),
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cpus, memory_mib, kernel } = &self.machine;
        write!(f, "{}, {}, {cpus} × {cpu}, {memory_mib} MiB, Linux {kernel}", self.date, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_any_number() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::show(Spread::of([1.0, 3.0]), 1), "2.0 (1.0–3.0)");
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let sorted: Vec<u32> = (1..=200).collect();
        let at = |share| percentile(&sorted, share);
        assert_eq!((at(0.0), at(0.5), at(0.99), at(1.0)), (Some(1), Some(100), Some(198), Some(200)));
        assert_eq!(percentile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn bars_are_met_at_their_limit() {
        assert!(Bar::at_least("a", 2.0, 2.0).met && Bar::at_most("a", 2.0, 2.0).met);
        let bars = [Bar::at_least("a", 2.0, 1.9), Bar::at_most("b", 2.0, 1.9)];
        let text = Bar::table(&bars).to_string();
        assert!(text.contains("≥ 2") && text.contains("MISSED") && text.contains("met"), "{text}");
    }
}
