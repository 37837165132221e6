//! `queries.txt`: query strings and what they mean, written out.

use std::fmt::Write as _;

use crate::error::Error;
use crate::request::{Embed, Field, Filter, JsonOperand, Logic, Operation, OrderTerm, Query, SelectItem};

const FIXTURES: &str = include_str!("queries.txt");

#[test]
fn queries_mean_what_the_fixtures_say() {
    let mut checked = 0;
    let mut wrong = String::new();
    for block in FIXTURES.split("\n\n") {
        let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with('#')).collect();
        let Some((query, expected)) = lines.split_first() else { continue };
        checked += 1;
        let (query, as_arguments) = match query.strip_prefix("rpc ") {
            Some(query) => (query, true),
            None => (*query, false),
        };
        let actual = outline(query, as_arguments);
        if actual.lines().ne(expected.iter().copied()) {
            write!(wrong, "{query}\n--- expected\n{}\n--- actual\n{actual}\n", expected.join("\n")).unwrap();
        }
    }
    assert!(checked > 75, "only {checked} fixtures were found");
    assert!(wrong.is_empty(), "{wrong}");
}

/// One line for each thing that a query says.
fn outline(query: &str, as_arguments: bool) -> String {
    let query = match Query::parse(query, as_arguments) {
        Ok((query, _)) => query,
        Err(Error::QueryParameter { message, details }) => return format!("error {message}\n  {details}"),
        Err(error) => return format!("error {error}"),
    };
    let mut lines = Vec::new();
    let select = items(&query.select);
    match select.as_str() {
        "" => lines.push("select nothing".to_owned()),
        "*" => {}
        _ => lines.push(format!("select {select}")),
    }
    for (path, logic) in &query.filters {
        lines.push(format!("where {}{}", prefix(path), condition(logic)));
    }
    for (path, terms) in &query.order {
        let terms: Vec<String> = terms.iter().map(term).collect();
        lines.push(format!("order {}{}", prefix(path), terms.join(", ")));
    }
    for (path, range) in &query.ranges {
        let limit = range.limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
        lines.push(format!("range {}{limit} from {}", prefix(path), range.offset));
    }
    if let Some(columns) = &query.columns {
        lines.push(format!("columns {columns:?}"));
    }
    if let Some(columns) = &query.on_conflict {
        lines.push(format!("on_conflict {columns:?}"));
    }
    for (name, value) in &query.arguments {
        lines.push(format!("argument {name} = {value}"));
    }
    lines.join("\n")
}

fn prefix(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("in {}: ", path.join("/")) }
}

fn field(field: &Field) -> String {
    let mut text = format!("<{}>", field.name);
    for step in &field.json_path {
        text.push_str(if step.as_text { "->>" } else { "->" });
        match &step.operand {
            JsonOperand::Key(key) => write!(text, "'{key}'").unwrap(),
            JsonOperand::Index(index) => text.push_str(index),
        }
    }
    text
}

fn items(items: &[SelectItem]) -> String {
    let texts: Vec<String> = items.iter().map(item).collect();
    texts.join(", ")
}

fn item(item: &SelectItem) -> String {
    match item {
        SelectItem::Embed(Embed { relation, alias, hint, join, spread, select }) => {
            let mut text = if *spread { "...".to_owned() } else { String::new() };
            if let Some(alias) = alias {
                write!(text, "{alias} = ").unwrap();
            }
            text.push_str(relation);
            if let Some(hint) = hint {
                write!(text, " by {hint}").unwrap();
            }
            if let Some(join) = join {
                write!(text, " {join:?}").unwrap();
            }
            write!(text, " [{}]", items(select)).unwrap();
            text
        }
        SelectItem::Column { field: of, cast, alias, aggregate, aggregate_cast } => {
            let mut text = if of.name == "*" { "*".to_owned() } else { field(of) };
            if let Some(cast) = cast {
                write!(text, "::{cast}").unwrap();
            }
            if let Some(aggregate) = aggregate {
                text = format!("{aggregate:?}({text})");
            }
            if let Some(cast) = aggregate_cast {
                write!(text, "::{cast}").unwrap();
            }
            alias.as_ref().map_or_else(|| text.clone(), |alias| format!("{alias} = {text}"))
        }
    }
}

fn condition(logic: &Logic) -> String {
    match logic {
        Logic::Group { negated, any, members } => {
            let members: Vec<String> = members.iter().map(condition).collect();
            let word = if *any { "or" } else { "and" };
            format!("{}{word}({})", if *negated { "not " } else { "" }, members.join("; "))
        }
        Logic::Filter(Filter { field: of, negated, operation }) => {
            let right = match operation {
                Operation::Simple(operator, value) => format!("{operator:?} {value:?}"),
                Operation::Quantified(operator, None, value) => format!("{operator:?} {value:?}"),
                Operation::Quantified(operator, Some(quantifier), value) => {
                    format!("{operator:?} {quantifier:?} {value:?}")
                }
                Operation::In(values) => format!("In {values:?}"),
                Operation::Is(value) => format!("Is {value:?}"),
                Operation::IsDistinct(value) => format!("IsDistinct {value:?}"),
                Operation::FullText(operator, language, value) => {
                    format!("FullText {operator:?} {} {value:?}", language.as_deref().unwrap_or("-"))
                }
            };
            format!("{}{} {right}", if *negated { "not " } else { "" }, field(of))
        }
    }
}

fn term(term: &OrderTerm) -> String {
    let mut text = term.relation.as_ref().map(|relation| format!("{relation}: ")).unwrap_or_default();
    text.push_str(&field(&term.field));
    match term.descending {
        Some(true) => text.push_str(" desc"),
        Some(false) => text.push_str(" asc"),
        None => {}
    }
    match term.nulls_first {
        Some(true) => text.push_str(" nulls first"),
        Some(false) => text.push_str(" nulls last"),
        None => {}
    }
    text
}
