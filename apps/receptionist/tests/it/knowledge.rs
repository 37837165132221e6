//! B13 to B15: questions find their answer however they are put; nothing found, failure and other tenants' answers
//! are three different things.

use longhouse_emulators::openai::{Match, Rule, Then, ToolCall};
use longhouse_emulators::twilio::{Caller, Step};
use regex::Regex;
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, reply, say};

/// Ways to ask what something costs.
const PRICE: [&str; 13] = [
    "How much is a haircut?",
    "What does it cost?",
    "What are your rates?",
    "pricing",
    "price list",
    "What do you charge for colour?",
    "Are you expensive?",
    "What's the fee for a beard trim?",
    "How many dollars for a cut",
    "what would I have to pay",
    "Can I get a quote please",
    "Could you give me an estimate",
    "is that affordable for a student",
];

fn search(arguments: Value) -> ToolCall {
    ToolCall { name: "search_knowledge".into(), arguments }
}

fn queries(list: &[&str]) -> Vec<ToolCall> {
    list.iter().map(|query| search(json!({ "query": query }))).collect()
}

/// Keeps the model from reading out what it found, which takes time.
fn brief() -> Rule {
    Rule { when: Match::ToolOutput(Regex::new(".").unwrap()), then: Then::Say("Here you are.".into()) }
}

/// Has the model run the tools scripted for a word; returns (arguments, output) of each, in the order of `asked`.
async fn run(app: &TestApp, words: &[&str], asked: &[Value]) -> Vec<(Value, Value)> {
    let mut script = Vec::new();
    for word in words {
        script.extend([say(word), reply()]);
    }
    script.push(Step::Hangup);
    let report = Caller::new(app.quick_call(script)).run().await.unwrap();
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let mut runs: Vec<(Value, Value)> = app
        .owner
        .query(
            "select r.arguments, r.output from receptionist.tool_runs r
             join receptionist.calls c on c.id = r.call_id where c.call_sid = $1 order by r.id",
            &[&report.call_sid],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| {
            let json = |index| serde_json::from_str(row.get::<_, &str>(index)).unwrap();
            (json(0), json(1))
        })
        .collect();
    // Tools of one response run side by side.
    runs.sort_by_key(|(arguments, _)| asked.iter().position(|one| one == arguments));
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn thirteen_ways_to_ask_for_a_price_find_it_and_only_the_tenants_own() {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        brief(),
        Rule::call(&["first"], queries(&PRICE[..7])),
        Rule::call(&["second"], queries(&PRICE[7..])),
    ];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    // Another tenant's answers fit better, and are nobody else's business.
    app.owner
        .batch_execute(
            "with other as (insert into receptionist.tenants (name, slug) values ('Other', 'other') returning id)
             insert into receptionist.knowledge (tenant_id, title, content)
             select id, 'Prices costs rates fees', 'Haircut price: a secret. ' || n from other, generate_series(1, 5) n",
        )
        .await
        .unwrap();
    let asked = PRICE.map(|query| json!({ "query": query }));
    let runs = run(&app, &["first", "second"], &asked).await;
    assert_eq!(runs.len(), PRICE.len(), "{runs:#?}");
    for (asked, (arguments, output)) in PRICE.iter().zip(&runs) {
        assert_eq!(arguments["query"], **asked);
        assert_eq!(output["found"], true, "{asked}: {output}");
        assert!(output.get("error").is_none(), "{asked}: {output}");
        let results = output["results"].as_array().unwrap();
        assert_eq!(results[0]["title"], "Prices", "{asked}: {output}");
        assert!(results[0]["content"].as_str().unwrap().contains("forty-five dollars"), "{asked}");
        assert!(results[0]["score"].as_f64().unwrap() > 0.0);
        assert!(!output.to_string().contains("secret"), "{asked}: another tenant's entry");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_nothing_is_not_a_failure_and_a_failure_is_not_nothing() {
    let mut setup = Setup::quick();
    let asked = [
        json!({ "query": "How much is a haircut?" }),
        json!({ "query": "Do you repair bicycles, zebras & 'quotes' | !(:* \u{0}?" }),
        json!({ "query": "the of and" }),
        json!({ "query": "  " }),
        json!({ "question": "How much is a haircut?" }),
    ];
    setup.upstream.rules = vec![brief(), Rule::call(&["look"], asked.iter().cloned().map(search).collect())];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;

    let found = run(&app, &["look"], &asked).await;
    let kind = |output: &Value| match (output.get("error"), &output["found"]) {
        (Some(_), Value::Null) => "error",
        (None, Value::Bool(true)) => "found",
        (None, Value::Bool(false)) => "nothing",
        _ => panic!("neither: {output}"),
    };
    let kinds = |runs: &[(Value, Value)]| runs.iter().map(|(_, output)| kind(output)).collect::<Vec<_>>();
    assert_eq!(kinds(&found), ["found", "nothing", "nothing", "error", "error"], "{found:#?}");
    assert!(found[1].1["next"].as_str().unwrap().contains("do not have that information"));
    assert!(found[3].1["error"].as_str().unwrap().contains("`query` is missing"));

    app.owner.execute("delete from receptionist.knowledge", &[]).await.unwrap();
    let empty = run(&app, &["look"], &asked).await;
    assert_eq!(kinds(&empty[..1]), ["nothing"], "an empty base is no failure: {empty:#?}");
    assert_eq!(empty[0].1["results"], json!([]));

    let rename = "alter function receptionist.search_knowledge(text, integer) rename to gone";
    app.owner.batch_execute(rename).await.unwrap();
    let failed = run(&app, &["look"], &asked).await;
    assert_eq!(kinds(&failed[..1]), ["error"], "{failed:#?}");
    let text = failed[0].1.to_string();
    assert!(text.contains("the search failed") && !text.contains("receptionist."), "internals leak: {text}");
}
