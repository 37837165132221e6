//! The ledger in Postgres.

use std::time::Duration;

use longhouse_database::Claims;
use longhouse_gateway::Fault;
use longhouse_gateway::ledger::{Ledger as _, LedgerOptions, Outcome, PostgresLedger};
use longhouse_gateway::prices::{PriceTable, Prices};
use longhouse_gateway::{ModelRef, Tried, Usage};
use serde_json::json;

use crate::database::{ANN, BOB, Store, entry};

fn tokens(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, ..Usage::default() }
}

fn ledger(store: &Store, options: LedgerOptions) -> PostgresLedger {
    PostgresLedger::start(store.database.clone(), Prices::new(PriceTable::known()), options)
}

#[tokio::test]
async fn an_orderly_stop_loses_nothing() {
    let store = Store::new().await;
    let ledger = ledger(&store, LedgerOptions { queue: 50, batch: 40, ..LedgerOptions::default() });
    for _ in 0..1_000 {
        ledger.record(entry(ANN, "openai/gpt-5-mini", tokens(1_000, 500))).await.unwrap();
    }
    ledger.close().await;
    assert_eq!(store.number("select count(*) from ai.calls").await, 1_000);
    assert_eq!(store.number("select sum(cost_nano_usd)::bigint from ai.calls").await, 1_000 * 1_250_000);
    assert!(ledger.record(entry(ANN, "offline/rules", tokens(1, 1))).await.is_err(), "nothing after the end");
}

#[tokio::test]
async fn a_row_says_what_became_of_a_call() {
    let store = Store::new().await;
    let ledger = ledger(&store, LedgerOptions::default());
    let mut failed = entry(ANN, "openai/unheard-of", Usage { estimated: true, ..tokens(10, 3) });
    failed.outcome = Outcome::Failed(Fault::Overloaded);
    failed.tried = vec![Tried { model: ModelRef::new("anthropic", "x"), fault: Fault::NoKey, requests: 0 }];
    ledger.record(failed).await.unwrap();
    let mut cached = entry(ANN, "openai/gpt-5-mini", tokens(10, 3));
    cached.cached = true;
    ledger.record(cached).await.unwrap();
    ledger.close().await;
    let sql = "select status, fault, estimated, cached, cost_nano_usd, latency_ms, first_content_ms, tried, provider,
        model, app, user_id, provider_request_id from ai.calls order by status";
    let seen = store.seen(&Claims::user(ANN), sql).await.unwrap();
    assert_eq!(seen[0]["cost_nano_usd"], json!(0), "an answer from the cache costs nothing");
    assert_eq!(seen[0]["cached"], json!(true));
    assert_eq!(
        seen[1],
        json!({
            "status": "failed", "fault": "overloaded", "estimated": true, "cached": false, "cost_nano_usd": null,
            "latency_ms": 250, "first_content_ms": 90, "provider": "openai", "model": "unheard-of", "app": "stories",
            "tried": [{"model": "anthropic/x", "fault": "no_key", "requests": 0}], "user_id": ANN,
            "provider_request_id": "req_1"
        })
    );
}

#[tokio::test]
async fn people_see_their_own_calls_and_write_none() {
    let store = Store::new().await;
    let ledger = ledger(&store, LedgerOptions::default());
    for user in [ANN, ANN, BOB] {
        ledger.record(entry(user, "openai/gpt-5-mini", tokens(1_000, 0))).await.unwrap();
    }
    ledger.close().await;
    let count = "select count(*) as n from ai.calls";
    assert_eq!(store.seen(&Claims::user(ANN), count).await.unwrap(), [json!({"n": 2})]);
    assert_eq!(store.seen(&Claims::user(BOB), count).await.unwrap(), [json!({"n": 1})]);
    assert!(store.seen(&Claims::anon(), count).await.is_err());
    let cost = "select sum(calls) as calls, sum(cost_usd) as usd from ai.usage_by_day";
    assert_eq!(store.seen(&Claims::user(BOB), cost).await.unwrap(), [json!({"calls": 1, "usd": 0.00025})]);
    let by_task = "select task, calls_1h, calls_24h, failed_24h, mean_latency_ms from ai.usage_by_task";
    assert_eq!(
        store.seen(&Claims::user(ANN), by_task).await.unwrap(),
        [
            json!({"task": "story_text", "calls_1h": 2, "calls_24h": 2, "failed_24h": 0, "mean_latency_ms": 250})
        ]
    );
    for write in [
        "insert into ai.calls (id, task, modality, status) values (gen_random_uuid(), 't', 'chat', 'done')",
        "update ai.calls set cost_nano_usd = 0",
        "delete from ai.calls",
        "insert into ai.prices (model, valid_from) values ('a/b', now())",
        "select ai.maintain_calls(1, 1)",
    ] {
        let refused = store.database.as_role(&Claims::user(ANN)).execute(write, &[]).await;
        assert!(refused.unwrap_err().to_string().contains("42501"), "{write}");
    }
}

#[tokio::test]
async fn a_row_that_postgres_refuses_takes_no_other_with_it() {
    let store = Store::new().await;
    let ledger = ledger(&store, LedgerOptions::default());
    for bad in [false, true, false] {
        let mut entry = entry(ANN, "offline/rules", tokens(1, 1));
        // No text of Postgres holds a zero byte.
        entry.provider_request_id = bad.then(|| "\0".to_owned());
        ledger.record(entry).await.unwrap();
    }
    ledger.close().await;
    assert_eq!(store.number("select count(*) from ai.calls").await, 2);
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let store = Store::new().await;
    // The writer waits for this lock.
    let locked = "begin; lock table ai.calls in access exclusive mode";
    store.owner.batch_execute(locked).await.unwrap();
    let patience = Duration::from_millis(50);
    let ledger = ledger(&store, LedgerOptions { queue: 3, batch: 2, patience, ..LedgerOptions::default() });
    let mut refused = 0;
    for _ in 0..12 {
        refused += u32::from(ledger.record(entry(ANN, "offline/rules", tokens(1, 1))).await.is_err());
    }
    assert!(refused >= 5, "{refused}");
    store.owner.batch_execute("rollback").await.unwrap();
    ledger.close().await;
    assert_eq!(store.number("select count(*) from ai.calls").await, i64::from(12 - refused));
}

#[tokio::test]
async fn months_are_made_ahead_and_archived() {
    let store = Store::new().await;
    let at = "'2031-03-15'::timestamptz";
    let maintain = |keep: i32| format!("select made from ai.maintain_calls({keep}, 2, {at})");
    let made: i32 = store.owner.query_one(&maintain(0), &[]).await.unwrap().get(0);
    assert_eq!(made, 3);
    let insert = "insert into ai.calls (id, created_at, task, modality, app, status, provider, model, input_tokens,
        cost_nano_usd, cached) select gen_random_uuid(), '2031-03-31 23:59:59+00', 't', 'chat', 'a', 'done', 'p', 'm',
        5, 7, n = 1 from generate_series(1, 4) n";
    store.owner.execute(insert, &[]).await.unwrap();
    assert_eq!(store.number("select count(*) from ai.calls_2031_03").await, 4);
    let later = "select archived from ai.maintain_calls(2, 0, '2031-06-01')";
    let archived: i32 = store.owner.query_one(later, &[]).await.unwrap().get(0);
    assert!(archived >= 1);
    assert_eq!(store.number("select count(*) from ai.calls").await, 0);
    assert_eq!(store.number("select count(*) from ai_archive.calls_2031_03").await, 4);
    let sums = "select calls * 1000 + cached * 100 + input_tokens + cost_nano_usd from ai.calls_by_month
        where month = '2031-03-01'";
    assert_eq!(store.number(sums).await, 4_000 + 100 + 20 + 28);
    // April and May stay.
    assert_eq!(
        store
            .number(
                "select count(*) from pg_inherits where inhparent = 'ai.calls'::regclass
        and inhrelid::regclass::text ~ '2031'"
            )
            .await,
        3
    );
    assert!(store.seen(&Claims::user(ANN), "select * from ai_archive.calls_2031_03").await.is_err());
}

#[tokio::test]
async fn the_operators_prices_stand_above_the_known_ones() {
    let store = Store::new().await;
    let insert =
        "insert into ai.prices (model, valid_from, input) values ('openai/gpt-5-mini', '2026-01-01', 1000)";
    store.owner.execute(insert, &[]).await.unwrap();
    let prices = Prices::new(PriceTable::known());
    prices.refresh(&store.database).await.unwrap();
    let cost = prices.of(&entry(ANN, "openai/gpt-5-mini", tokens(2, 900)), chrono::Utc::now());
    assert_eq!(cost.unwrap().0, 2_000_000);
}
