//! Request line in, SQL and parameters out. Expected statements stand in `snapshots/`; review them when they change.

use std::fmt::Write as _;

use longhouse_database::quote_ident;

use super::*;
use crate::config::RestConfig;
use crate::plan::tests::{library, options, request};
use crate::plan::{Plan, plan};

fn statement(line: &str, config: &RestConfig) -> Statement {
    let request = request(line, config).expect("parses");
    match plan(&request, &library(), config).expect("is planned") {
        Plan::Read(plan) => read(&plan, &request.preferences, request.range, config.max_rows),
        Plan::Mutate(plan) => write(&plan, &request.preferences),
        Plan::Call(plan) => call(&plan, &request.preferences, request.range, config.max_rows),
        other => panic!("{line} has no statement: {other:?}"),
    }
}

fn show(param: &Param) -> String {
    match param {
        Param::Text(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Param::Binary(Some(bytes)) => format!("\\x{bytes:?}"),
        Param::Text(None) | Param::Binary(None) => "null".into(),
    }
}

fn show_all(lines: &str) -> String {
    let mut shown = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Statement { sql, params } = statement(line, &options());
        let params: Vec<String> = params.iter().map(show).collect();
        writeln!(shown, "{line}\n  {sql}\n  {params:?}\n").expect("a string takes everything");
    }
    shown
}

#[test]
fn reads() {
    insta::assert_snapshot!(show_all(include_str!("fixtures/reads.txt")));
}

#[test]
fn embeds() {
    insta::assert_snapshot!(show_all(include_str!("fixtures/embeds.txt")));
}

#[test]
fn writes() {
    insta::assert_snapshot!(show_all(include_str!("fixtures/writes.txt")));
}

#[test]
fn calls() {
    insta::assert_snapshot!(show_all(include_str!("fixtures/calls.txt")));
}

#[test]
fn names_cannot_leave_their_quotes() {
    for (name, quoted) in [
        ("plain", "\"plain\""),
        ("with \"quotes\"", "\"with \"\"quotes\"\"\""),
        ("\"; drop table x; --", "\"\"\"; drop table x; --\""),
        ("cut\0off", "\"cut\""),
        ("", "\"\""),
    ] {
        assert_eq!(quote_ident(name), quoted);
    }
}

#[test]
fn values_are_never_part_of_the_statement() {
    let hostile = "%27%3B+drop+table+x%3B--";
    for line in [
        format!("GET /authors?name=eq.{hostile}"),
        format!("GET /authors?name=in.({hostile})"),
        format!("GET /authors?name=like.{hostile}"),
        format!("GET /authors?data->>key=is.null&select=data->>%22{hostile}%22"),
        format!("GET /books?text=fts({hostile}).{hostile}"),
        format!("GET /authors?or=(name.eq.%22{hostile}%22,id.gt.{hostile})"),
        format!("GET /rpc/add?a={hostile}"),
        format!("GET /rpc/total?v={hostile}"),
    ] {
        let Ok(_) = request(&line, &options()) else { continue };
        let sql = statement(&line, &options()).sql;
        assert!(!sql.replace("as \"'; drop table x;--\"", "").contains("drop table"), "{line}: {sql}");
    }
}

#[test]
fn casts_take_words_only() {
    let sql = statement("GET /authors?select=id::text", &options()).sql;
    assert!(sql.contains("cast(\"api\".\"authors\".\"id\" as text)"), "{sql}");
}

#[test]
fn one_shape_is_one_statement() {
    let one = statement("GET /authors?id=in.(1,2,3)&limit=1&offset=2", &options()).sql;
    let other = statement("GET /authors?id=in.(4)&limit=50&offset=0", &options()).sql;
    assert_eq!(one, other);
}

/// The body is the last column, behind which nothing waits; `EXPLAIN` shows the columns in PostgREST's order.
#[test]
fn columns_stand_in_their_order() {
    const COLUMNS: [&str; 7] = [
        " as total_result_set",
        " as page_total",
        " as location",
        " as response_headers",
        " as response_status",
        " as response_inserted",
        " as body",
    ];
    let config = RestConfig { plan: true, ..options() };
    let order = |line: &str| {
        let sql = statement(line, &config).sql;
        let mut found: Vec<usize> = (0..COLUMNS.len()).collect();
        found.sort_by_key(|&column| sql.find(COLUMNS[column]).expect("is there"));
        found
    };
    let plan = "Accept: application/vnd.pgrst.plan+json";
    for (line, explained) in
        [("GET /books?id=eq.1", [0, 1, 6, 3, 4, 5, 2]), ("PATCH /books?id=eq.1", [0, 1, 2, 6, 3, 4, 5])]
    {
        let body = if line.starts_with("GET") { "" } else { r#"{"title": "x"}"# };
        assert_eq!(order(&format!("{line} | x: y | {body}")), [0, 1, 2, 3, 4, 5, 6], "{line}");
        assert_eq!(order(&format!("{line} | {plan} | {body}")), explained, "{line}");
    }
}
