//! What models cost: a table with dates, and the arithmetic.
//!
//! Three tables lie above each other: those that come with Longhouse (`prices.toml`), the operator's in the
//! configuration, and the operator's in the database (`ai.prices`). Later ones win as a whole, model by model: whoever
//! writes down one price of a model writes all of it.
//!
//! ```
//! use longhouse_gateway::prices::PriceTable;
//! use longhouse_gateway::{ModelRef, Usage};
//!
//! let day = "2026-11-21".parse()?;
//! let usage = Usage { input_tokens: 1_000, output_tokens: 500, ..Usage::default() };
//! let cost = PriceTable::known().cost(&ModelRef::new("openai", "gpt-5-mini"), &usage, day).unwrap();
//! assert_eq!(cost.to_string(), "$0.001250000");
//! # Ok::<(), chrono::ParseError>(())
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use chrono::{DateTime, NaiveDate, Utc};
use longhouse_database::{Claims, Database};
use serde::{Deserialize, Deserializer, de};

use crate::ledger::Entry;
use crate::model::ModelRef;
use crate::usage::Usage;
use crate::{Error, schema};

/// 10⁻⁹ US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// From dollars; what is finer than 10⁻⁹ is rounded, what is no amount is nothing.
    #[must_use]
    pub fn from_usd(usd: f64) -> Self {
        // Casting from floating point saturates, and makes nothing of NaN.
        Self((usd * 1e9).round() as u64)
    }

    /// In dollars.
    #[must_use]
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// As Postgres stores it.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Prices of one model from one day on; `None`: not charged for, or at the rate it is a part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// A million tokens of the prompt, in dollars.
    pub input: Option<f64>,
    /// Of those, read from the provider's cache. Unset: as `input`.
    pub cached_input: Option<f64>,
    /// Of those, written to it. Unset: as `input`.
    pub cache_write: Option<f64>,
    /// Of those, audio. Unset: as `input`.
    pub input_audio: Option<f64>,
    /// A million tokens of the answer.
    pub output: Option<f64>,
    /// Of those, audio or pictures. Unset: as `output`.
    pub output_media: Option<f64>,
    /// A minute of audio.
    pub audio_minute: Option<f64>,
    /// A million characters.
    pub characters: Option<f64>,
    /// A picture.
    pub image: Option<f64>,
}

impl Rates {
    /// What an amount costs.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let million = |count: u64, rate: Option<f64>| scaled(count, rate.unwrap_or_default(), 1_000_000);
        let special = usage.cached_input_tokens + usage.cache_write_tokens + usage.input_audio_tokens;
        let parts = [
            million(usage.input_tokens.saturating_sub(special), self.input),
            million(usage.cached_input_tokens, self.cached_input.or(self.input)),
            million(usage.cache_write_tokens, self.cache_write.or(self.input)),
            million(usage.input_audio_tokens, self.input_audio.or(self.input)),
            million(usage.output_tokens.saturating_sub(usage.output_media_tokens), self.output),
            million(usage.output_media_tokens, self.output_media.or(self.output)),
            scaled(usage.audio_ms, self.audio_minute.unwrap_or_default(), 60_000),
            million(usage.characters, self.characters),
            scaled(usage.images, self.image.unwrap_or_default(), 1),
        ];
        // In millionths of a nanodollar, so that nothing is lost before the sum; a part of one counts whole.
        let sum: u128 = parts.iter().sum();
        NanoUsd(u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    fn is_sane(&self) -> bool {
        let all = [
            self.input,
            self.cached_input,
            self.cache_write,
            self.input_audio,
            self.output,
            self.output_media,
            self.audio_minute,
            self.characters,
            self.image,
        ];
        all.into_iter().flatten().all(|rate| (0.0..=1e6).contains(&rate))
    }
}

/// `count` units at `rate` dollars for `per` of them, in millionths of a nanodollar.
fn scaled(count: u64, rate: f64, per: u128) -> u128 {
    let rate = u128::from(NanoUsd::from_usd(rate).0);
    u128::from(count) * rate * 1_000_000 / per
}

/// One entry of a table of prices.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Price {
    /// `provider/model`; `provider/*` for all that have no entry of their own.
    pub model: String,
    /// The first day.
    #[serde(deserialize_with = "day")]
    pub from: NaiveDate,
    /// What it costs.
    #[serde(flatten)]
    pub rates: Rates,
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NaiveDate, D::Error> {
    let written = toml::value::Datetime::deserialize(deserializer)?;
    written.to_string().parse().map_err(|_| de::Error::custom("write a day, such as 2026-11-21"))
}

#[derive(Deserialize)]
struct File {
    price: Vec<Price>,
}

/// Prices by model, each with its days.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceTable {
    /// Sorted by day within a model.
    models: HashMap<String, Vec<(NaiveDate, Rates)>>,
}

impl PriceTable {
    /// The prices that come with Longhouse.
    #[must_use]
    pub fn known() -> Self {
        let file: File = toml::from_str(include_str!("prices.toml")).expect("a test reads the file");
        Self::default().with(file.price).expect("a test reads the file")
    }

    /// These prices above the ones that are there: a model that is named loses those it had.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn with(mut self, prices: Vec<Price>) -> Result<Self, String> {
        let mut above: HashMap<String, Vec<(NaiveDate, Rates)>> = HashMap::new();
        for price in prices {
            if !price
                .model
                .split_once('/')
                .is_some_and(|(provider, model)| !provider.is_empty() && !model.is_empty())
            {
                return Err(format!("prices: `{}` names no model: write provider/model", price.model));
            }
            if !price.rates.is_sane() {
                return Err(format!(
                    "prices: {} has a price that is none: write dollars from 0",
                    price.model
                ));
            }
            let days = above.entry(price.model).or_default();
            let place = days.partition_point(|(day, _)| *day < price.from);
            days.insert(place, (price.from, price.rates));
        }
        self.models.extend(above);
        Ok(self)
    }

    /// The rates of a model on a day. A snapshot with a date in its name has those of its model.
    #[must_use]
    pub fn rates(&self, model: &ModelRef, day: NaiveDate) -> Option<Rates> {
        let name = model.to_string();
        let any = format!("{}/*", model.provider);
        [name.as_str(), undated(&name), any.as_str()].into_iter().find_map(|name| {
            let days = self.models.get(name)?;
            let next = days.partition_point(|(from, _)| *from <= day);
            Some(days.get(next.checked_sub(1)?)?.1)
        })
    }

    /// What an amount costs; `None` where no price is known.
    #[must_use]
    pub fn cost(&self, model: &ModelRef, usage: &Usage, day: NaiveDate) -> Option<NanoUsd> {
        Some(self.rates(model, day)?.cost(usage))
    }
}

/// Without `-2026-04-14` or `-20260414` at the end.
fn undated(name: &str) -> &str {
    let cut = |length: usize, dashes: &[usize]| {
        let at = name.len().checked_sub(length)?;
        let (start, date) = (name.get(..at)?, name.get(at..)?);
        let fits = date.bytes().enumerate().all(|(i, b)| match dashes.contains(&i) {
            true => b == b'-',
            false => b.is_ascii_digit(),
        });
        fits.then_some(start)
    };
    cut(11, &[0, 5, 8]).or_else(|| cut(9, &[0])).unwrap_or(name)
}

/// The table in force, shared by everything that counts money. Clones share it.
#[derive(Debug, Clone)]
pub struct Prices {
    /// What is below the database's.
    base: Arc<PriceTable>,
    current: Arc<RwLock<Arc<PriceTable>>>,
}

const READ: &str = "
    select model, valid_from, input::float8, cached_input::float8, cache_write::float8, input_audio::float8,
      output::float8, output_media::float8, audio_minute::float8, characters::float8, image::float8
    from ai.prices order by model, valid_from limit 10000";

impl Prices {
    /// These, until the database says otherwise.
    #[must_use]
    pub fn new(base: PriceTable) -> Self {
        let base = Arc::new(base);
        Self { current: Arc::new(RwLock::new(Arc::clone(&base))), base }
    }

    /// The table now.
    #[must_use]
    pub fn table(&self) -> Arc<PriceTable> {
        Arc::clone(&self.current.read().expect("no code panics while it holds this lock"))
    }

    /// What a call cost; `None` where no price is known. An answer from the cache, and a call that reached no model,
    /// cost nothing.
    #[must_use]
    pub fn of(&self, entry: &Entry, at: DateTime<Utc>) -> Option<NanoUsd> {
        match &entry.model {
            _ if entry.cached => Some(NanoUsd(0)),
            None => Some(NanoUsd(0)),
            Some(model) => self.table().cost(model, &entry.usage, at.date_naive()),
        }
    }

    /// Reads the operator's prices from the database.
    ///
    /// # Errors
    /// [`Error::Records`]; the table in force stays.
    pub async fn refresh(&self, database: &Database) -> Result<(), Error> {
        let claims: Claims = schema::claims();
        let rows = database.as_role(&claims).query(READ, &[]).await.map_err(schema::records)?;
        let prices = rows.iter().map(|row| Price {
            model: row.get(0),
            from: row.get(1),
            rates: Rates {
                input: row.get(2),
                cached_input: row.get(3),
                cache_write: row.get(4),
                input_audio: row.get(5),
                output: row.get(6),
                output_media: row.get(7),
                audio_minute: row.get(8),
                characters: row.get(9),
                image: row.get(10),
            },
        });
        let table = PriceTable::clone(&self.base).with(prices.collect()).map_err(Error::Records)?;
        *self.current.write().expect("no code panics while it holds this lock") = Arc::new(table);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn price(model: &str, from: &str, input: f64) -> Price {
        Price {
            model: model.into(),
            from: day(from),
            rates: Rates { input: Some(input), ..Rates::default() },
        }
    }

    #[test]
    fn known_prices_are_readable_and_cover_the_defaults() {
        let table = PriceTable::known();
        for model in ["openai/gpt-5-mini", "anthropic/claude-sonnet-5-5", "offline/rules", "offline/espeak"] {
            assert!(table.rates(&model.parse().unwrap(), day("2026-11-21")).is_some(), "{model}");
        }
        assert!(table.rates(&"openai/unheard-of".parse().unwrap(), day("2026-11-21")).is_none());
    }

    #[test]
    fn every_unit_counts_once() {
        let rates = Rates {
            input: Some(2.0),
            cached_input: Some(0.2),
            cache_write: Some(2.5),
            input_audio: Some(10.0),
            output: Some(8.0),
            output_media: Some(20.0),
            audio_minute: Some(0.006),
            characters: Some(15.0),
            image: Some(0.04),
        };
        let usage = Usage {
            input_tokens: 1_000_000,
            cached_input_tokens: 200_000,
            cache_write_tokens: 100_000,
            input_audio_tokens: 100_000,
            output_tokens: 500_000,
            output_media_tokens: 100_000,
            audio_ms: 90_000,
            characters: 2_000,
            images: 3,
            ..Usage::default()
        };
        // 0.6 M × 2 + 0.2 M × 0.2 + 0.1 M × 2.5 + 0.1 M × 10 + 0.4 M × 8 + 0.1 M × 20 + 1.5 min + 2 k chars + 3 images
        let expected = 1.2 + 0.04 + 0.25 + 1.0 + 3.2 + 2.0 + 0.009 + 0.03 + 0.12;
        assert_eq!(rates.cost(&usage), NanoUsd::from_usd(expected));
    }

    #[test]
    fn a_fraction_of_a_nanodollar_counts_whole() {
        let rates = Rates { input: Some(0.0005), ..Rates::default() };
        assert_eq!(rates.cost(&Usage { input_tokens: 1, ..Usage::default() }), NanoUsd(1));
    }

    #[rstest]
    #[case("2026-01-31", Some(1.0))]
    #[case("2026-02-01", Some(2.0))]
    #[case("2027-01-01", Some(2.0))]
    #[case("2025-12-31", None)]
    fn a_price_holds_from_its_day(#[case] on: &str, #[case] expected: Option<f64>) {
        let prices = vec![price("p/m", "2026-02-01", 2.0), price("p/m", "2026-01-01", 1.0)];
        let table = PriceTable::default().with(prices).unwrap();
        assert_eq!(table.rates(&ModelRef::new("p", "m"), day(on)).and_then(|rates| rates.input), expected);
    }

    #[rstest]
    #[case("gpt-5-mini-2025-08-07", Some(0.25))]
    #[case("gpt-5-mini-20250807", Some(0.25))]
    #[case("gpt-5-mini-x", None)]
    #[case("gpt-5-mini", Some(0.25))]
    fn a_snapshot_costs_what_its_model_costs(#[case] model: &str, #[case] expected: Option<f64>) {
        let rates = PriceTable::known().rates(&ModelRef::new("openai", model), day("2026-11-21"));
        assert_eq!(rates.and_then(|rates| rates.input), expected);
    }

    #[test]
    fn an_operators_price_replaces_the_whole_model() {
        let table = PriceTable::known().with(vec![price("openai/gpt-5-mini", "2026-01-01", 9.0)]).unwrap();
        let rates = table.rates(&ModelRef::new("openai", "gpt-5-mini"), day("2026-11-21")).unwrap();
        assert_eq!((rates.input, rates.output), (Some(9.0), None));
        assert!(PriceTable::known().with(vec![price("nameless", "2026-01-01", 1.0)]).is_err());
        assert!(PriceTable::known().with(vec![price("p/m", "2026-01-01", -1.0)]).is_err());
    }
}
