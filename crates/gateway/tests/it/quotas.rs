//! Quotas in Postgres: never exceeded, whatever happens at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use longhouse_database::Claims;
use longhouse_gateway::ledger::Outcome;
use longhouse_gateway::model::Modality;
use longhouse_gateway::prices::{PriceTable, Prices};
use longhouse_gateway::quotas::{Estimate, PostgresQuotas, Quotas as _, Reservation};
use longhouse_gateway::{Configuration, Error, Task, Usage};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use uuid::Uuid;

use crate::database::{ANN, BOB, Store, entry, owner};

const TASK: &str =
    "[tasks.story_text]\nmodality = \"chat\"\nmodels = [\"openai/gpt-5-mini\"]\ndeadline_ms = 60000\n";

fn configuration(limits: &str) -> Configuration {
    Configuration::parse(&format!("{TASK}{limits}")).unwrap()
}

fn quotas(store: &Store, limits: &str) -> PostgresQuotas {
    PostgresQuotas::new(store.database.clone(), configuration(limits), Prices::new(PriceTable::known()))
}

fn estimate(tokens: u64) -> Estimate {
    let usage = Usage { input_tokens: tokens, estimated: true, ..Usage::default() };
    Estimate { task: Task::new("story_text"), modality: Modality::Chat, usage }
}

fn used(tokens: u64) -> Usage {
    Usage { input_tokens: tokens, ..Usage::default() }
}

/// A clock that tests move.
#[derive(Clone)]
struct Hands(Arc<Mutex<DateTime<Utc>>>);

impl Hands {
    fn new() -> Self {
        Self(Arc::new(Mutex::new("2026-11-21T10:30:00Z".parse().unwrap())))
    }

    fn forward(&self, seconds: i64) {
        *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
    }

    fn quotas(&self, store: &Store, limits: &str) -> PostgresQuotas {
        let hands = self.clone();
        let clock = Arc::new(move || Some(*hands.0.lock().unwrap()));
        let prices = Prices::new(PriceTable::known());
        PostgresQuotas::with_clock(store.database.clone(), configuration(limits), prices, clock)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_get_what_there_is_and_not_one_more() {
    let store = Store::new().await;
    let limits = "[[limits]]\nname = \"all\"\nper = \"everyone\"\nperiod = \"day\"\ncalls = 137\n\
                  [[limits]]\nname = \"each\"\nper = \"user\"\nperiod = \"hour\"\ncalls = 90\n";
    let quotas = quotas(&store, limits);
    let users = [ANN, BOB];
    let tries = (0..1_000).map(|i| {
        let quotas = quotas.clone();
        tokio::spawn(async move { (i % 2, quotas.reserve(&owner(users[i % 2]), &estimate(1)).await) })
    });
    let mut held: Vec<(usize, Box<dyn Reservation>)> = Vec::new();
    for done in join_all(tries).await {
        match done.unwrap() {
            (who, Ok(reservation)) => held.push((who, reservation)),
            (_, Err(Error::QuotaExceeded { .. })) => {}
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(held.len(), 137);
    for who in [0, 1] {
        assert!(held.iter().filter(|(user, _)| *user == who).count() <= 90);
    }
    assert_eq!(store.number("select count(*) from ai.quota_holds").await, 2 * 137);
    for (who, reservation) in held {
        reservation.settle(&entry(users[who], "openai/gpt-5-mini", used(1))).await.unwrap();
    }
    assert_eq!(store.number("select used from ai.quota_use where name = 'all'").await, 137);
    assert_eq!(store.number("select sum(used)::bigint from ai.quota_use where name = 'each'").await, 137);
    assert_eq!(store.number("select count(*) from ai.quota_holds").await, 0);
    assert!(quotas.reserve(&owner(ANN), &estimate(1)).await.is_err());
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_reserves_nothing() {
    let store = Store::new().await;
    let hands = Hands::new();
    let limits = "[[limits]]\nname = \"tokens\"\nper = \"user\"\nperiod = \"hour\"\ntokens = 100\n\
                  [[limits]]\nname = \"calls\"\nper = \"user\"\nperiod = \"month\"\ncalls = 50\n";
    let quotas = hands.quotas(&store, limits);
    let first = quotas.reserve(&owner(ANN), &estimate(70)).await.unwrap();
    let standing = first.standing().unwrap();
    assert_eq!((standing.limit.as_str(), standing.allowed, standing.remaining), ("tokens", 100, 30));
    assert_eq!(standing.resets_at, "2026-11-21T11:00:00Z".parse::<DateTime<Utc>>().unwrap());
    match quotas.reserve(&owner(ANN), &estimate(31)).await.map(drop).unwrap_err() {
        Error::QuotaExceeded { limit, retry_after, allowed, remaining } => {
            assert_eq!(
                (limit.as_str(), retry_after.as_secs(), allowed, remaining),
                ("tokens", 1_800, 100, 30)
            );
        }
        error => panic!("{error}"),
    }
    assert_eq!(store.number("select count(*) from ai.quota_holds").await, 2, "the refused one holds nothing");
    // Others are not concerned, and neither is the next hour.
    quotas.reserve(&owner(BOB), &estimate(100)).await.unwrap();
    hands.forward(1_800);
    quotas.reserve(&owner(ANN), &estimate(100)).await.unwrap();
}

#[tokio::test]
async fn what_nobody_settles_expires_and_still_counts_if_settled_late() {
    let store = Store::new().await;
    let hands = Hands::new();
    let quotas =
        hands.quotas(&store, "[[limits]]\nname = \"all\"\nper = \"user\"\nperiod = \"day\"\ncalls = 1\n");
    let dropped = quotas.reserve(&owner(ANN), &estimate(1)).await.unwrap();
    assert!(quotas.reserve(&owner(ANN), &estimate(1)).await.is_err());
    hands.forward(119);
    assert!(quotas.reserve(&owner(ANN), &estimate(1)).await.is_err(), "60 s of the task, and a minute");
    hands.forward(2);
    let second = quotas.reserve(&owner(ANN), &estimate(1)).await.unwrap();
    // It really was made, only late.
    dropped.settle(&entry(ANN, "openai/gpt-5-mini", used(1))).await.unwrap();
    second.settle(&entry(ANN, "openai/gpt-5-mini", used(1))).await.unwrap();
    assert_eq!(store.number("select used from ai.quota_use").await, 2);
}

#[tokio::test]
async fn money_counts_at_list_price_and_only_the_platforms() {
    let store = Store::new().await;
    // A thousand tokens of gpt-5-mini are 0.00025 dollars.
    let quotas =
        quotas(&store, "[[limits]]\nname = \"b\"\nper = \"app\"\nperiod = \"month\"\ncost_usd = 0.001\n");
    let reserve = async || quotas.reserve(&owner(ANN), &estimate(1_000)).await;
    reserve().await.unwrap().settle(&entry(ANN, "openai/gpt-5-mini", used(2_000))).await.unwrap();
    assert_eq!(store.number("select used from ai.quota_use").await, 500_000);
    let mut own = entry(ANN, "openai/gpt-5-mini", used(1_000_000));
    own.own_key = true;
    reserve().await.unwrap().settle(&own).await.unwrap();
    let mut refused = entry(ANN, "openai/gpt-5-mini", Usage::default());
    (refused.outcome, refused.model) = (Outcome::Refused, None);
    reserve().await.unwrap().settle(&refused).await.unwrap();
    let mut cached = entry(ANN, "openai/gpt-5-mini", used(1_000));
    cached.cached = true;
    reserve().await.unwrap().settle(&cached).await.unwrap();
    assert_eq!(store.number("select used from ai.quota_use").await, 500_000);
    let (_first, _second) = (reserve().await.unwrap(), reserve().await.unwrap());
    assert!(reserve().await.is_err(), "the budget is a hard stop");
}

#[tokio::test]
async fn some_have_other_limits() {
    let store = Store::new().await;
    let quotas = quotas(&store, "[[limits]]\nname = \"plan\"\nper = \"user\"\nperiod = \"day\"\ncalls = 1\n");
    let sql = format!(
        "insert into ai.limit_overrides values ('plan', 'calls', '{ANN}', 3), ('plan', 'calls', '{BOB}', 0)"
    );
    store.owner.batch_execute(&sql).await.unwrap();
    for _ in 0..3 {
        let held = quotas.reserve(&owner(ANN), &estimate(1)).await.unwrap();
        held.settle(&entry(ANN, "openai/gpt-5-mini", used(1))).await.unwrap();
    }
    assert!(quotas.reserve(&owner(ANN), &estimate(1)).await.is_err());
    assert!(quotas.reserve(&owner(BOB), &estimate(1)).await.is_err(), "blocked");
    let used = quotas.used(&owner(ANN)).await.unwrap();
    assert_eq!((used[0].allowed, used[0].used), (3, 3));
    let seen = "select used from ai.quota_use union all select allowed from ai.limit_overrides";
    assert_eq!(store.seen(&Claims::user(ANN), seen).await.unwrap(), [json!({"used": 3}), json!({"used": 3})]);
    let raise = "update ai.limit_overrides set allowed = 9";
    assert!(store.database.as_role(&Claims::user(BOB)).execute(raise, &[]).await.is_err());
    let reserve = "select ai.settle_quotas(gen_random_uuid(), 0, 0, 0)";
    assert!(store.database.as_role(&Claims::user(BOB)).execute(reserve, &[]).await.is_err());
}

/// What may happen to reservations, in any order.
#[derive(Debug, Clone)]
enum Step {
    Reserve {
        user: bool,
        tokens: u64,
    },
    /// Which of the open ones, and what it consumed: never more than it reserved.
    Settle {
        which: usize,
        part: f64,
    },
    Forget {
        which: usize,
    },
    Wait {
        seconds: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (any::<bool>(), 1_u64..40).prop_map(|(user, tokens)| Step::Reserve { user, tokens }),
        3 => (any::<usize>(), 0.0..=1.0).prop_map(|(which, part)| Step::Settle { which, part }),
        1 => any::<usize>().prop_map(|which| Step::Forget { which }),
        2 => (1_i64..900).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 1..40)
}

/// One reservation as the model of the test has it.
#[derive(Clone)]
struct Hold {
    user: Uuid,
    tokens: u64,
    hour: i64,
    expires: DateTime<Utc>,
}

const EACH: u64 = 100;
const TOGETHER: u64 = 150;

/// A naive account of the same rules, against which Postgres is compared step by step.
#[derive(Default)]
struct Account {
    used: HashMap<(String, i64), u64>,
    holds: Vec<Hold>,
}

impl Account {
    fn taken(&self, subject: &str, hour: i64, now: DateTime<Utc>) -> u64 {
        let concerns = |hold: &&Hold| {
            hold.hour == hour && hold.expires > now && (subject == "*" || hold.user.to_string() == subject)
        };
        let held: u64 = self.holds.iter().filter(concerns).map(|hold| hold.tokens).sum();
        self.used.get(&(subject.to_owned(), hour)).copied().unwrap_or_default() + held
    }
}

#[test]
fn a_quota_holds_whatever_happens_in_whatever_order() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::new());
    let limits = format!(
        "[[limits]]\nname = \"each\"\nper = \"user\"\nperiod = \"hour\"\ntokens = {EACH}\n\
         [[limits]]\nname = \"all\"\nper = \"everyone\"\nperiod = \"hour\"\ntokens = {TOGETHER}\n"
    );
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let result = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            store.owner.batch_execute("truncate ai.quota_use, ai.quota_holds").await.unwrap();
            check(&store, &limits, steps).await
        })
    });
    result.unwrap();
}

async fn check(store: &Store, limits: &str, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let hands = Hands::new();
    let quotas = hands.quotas(store, limits);
    let mut account = Account::default();
    let mut open: Vec<Box<dyn Reservation>> = Vec::new();
    // Side by side with `open`.
    let mut holds: Vec<Hold> = Vec::new();
    for step in steps {
        let now = *hands.0.lock().unwrap();
        let hour = now.timestamp() / 3_600;
        match step {
            Step::Reserve { user, tokens } => {
                let user = if user { ANN } else { BOB };
                let fits = account.taken(&user.to_string(), hour, now) + tokens <= EACH
                    && account.taken("*", hour, now) + tokens <= TOGETHER;
                let reserved = quotas.reserve(&owner(user), &estimate(tokens)).await;
                prop_assert_eq!(reserved.is_ok(), fits);
                if let Ok(reservation) = reserved {
                    let hold = Hold { user, tokens, hour, expires: now + TimeDelta::seconds(120) };
                    account.holds.push(hold.clone());
                    open.push(reservation);
                    holds.push(hold);
                }
            }
            Step::Settle { which, part } if !open.is_empty() => {
                let at = which % open.len();
                let (reservation, hold) = (open.swap_remove(at), holds.swap_remove(at));
                let tokens = (hold.tokens as f64 * part) as u64;
                reservation.settle(&entry(hold.user, "openai/gpt-5-mini", used(tokens))).await.unwrap();
                let same = |other: &Hold| {
                    (other.user, other.tokens, other.hour, other.expires)
                        == (hold.user, hold.tokens, hold.hour, hold.expires)
                };
                let at = account.holds.iter().position(same).unwrap();
                account.holds.swap_remove(at);
                for subject in [hold.user.to_string(), "*".into()] {
                    *account.used.entry((subject, hold.hour)).or_default() += tokens;
                }
            }
            Step::Forget { which } if !open.is_empty() => {
                let at = which % open.len();
                drop(open.swap_remove(at));
                holds.swap_remove(at);
            }
            Step::Wait { seconds } => hands.forward(seconds),
            Step::Settle { .. } | Step::Forget { .. } => {}
        }
    }
    for ((subject, hour), used) in &account.used {
        let start = DateTime::from_timestamp(hour * 3_600, 0).unwrap();
        let sql = "select used from ai.quota_use where subject = $1 and period_start = $2";
        let found: i64 = store.owner.query_one(sql, &[subject, &start]).await.unwrap().get(0);
        prop_assert_eq!(found as u64, *used);
    }
    Ok(())
}
