//! The query string: which parameter is what, and its canonical form.

use std::borrow::Cow;
use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::filter::{operation, whole_value};
use super::logic::{logic_path, logic_tree};
use super::names::{columns, tree_path};
use super::order::order_list;
use super::parser::{Parser, parse};
use super::ranges::RequestedRanges;
use super::select::select_list;
use super::{EmbedPath, Filter, Logic, Query};
use crate::error::Error;

/// What stays as it is in a canonical query string and in a `Location`.
pub(crate) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One decoded parameter; no value when there was no `=`.
type Parameter<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

/// Splits and decodes `a=b&c=d`; what is not UTF-8 is replaced, as Postgres could not take it either.
pub(crate) fn parameters(query: &str) -> Vec<Parameter<'_>> {
    query
        .split(['&', ';'])
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) => (decode_form(key), Some(decode_form(value))),
            None => (decode_form(part), None),
        })
        .collect()
}

fn decode_form(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
}

/// What a parameter is, by the last word of its key.
enum Kind {
    Reserved,
    Order,
    Limit,
    Offset,
    Logic,
    Filter,
}

fn kind(key: &str) -> Kind {
    match key {
        "select" | "columns" | "on_conflict" => Kind::Reserved,
        _ => match key.rsplit('.').next().unwrap_or(key) {
            "order" => Kind::Order,
            "limit" => Kind::Limit,
            "offset" => Kind::Offset,
            "and" | "or" => Kind::Logic,
            _ => Kind::Filter,
        },
    }
}

impl Query {
    /// Parses a query string. When `arguments_allowed` (functions called by `GET`), what has no operator is an
    /// argument; otherwise it is an error.
    ///
    /// # Errors
    /// PGRST100 with the position of the first mistake, PGRST103 for limits of embeds below zero.
    pub fn parse(query: &str, arguments_allowed: bool) -> Result<(Self, RequestedRanges), Error> {
        let parameters = parameters(query);
        let mut parsed = Self { canonical: canonical(&parameters), ..Self::default() };
        let valued = || parameters.iter().filter_map(|(key, value)| Some((&**key, &**value.as_ref()?)));
        let first = |name: &str| {
            parameters.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
        };

        for (key, value) in valued().filter(|(key, _)| matches!(kind(key), Kind::Order)) {
            let (path, _) = path_of(key)?;
            let terms = parse(value, || format!("failed to parse order ({value})"), order_list)?;
            parsed.order.push((path, terms));
        }
        let mut conditions: Vec<(usize, EmbedPath, Logic)> = Vec::new();
        for (index, (key, value)) in valued().enumerate() {
            if matches!(kind(key), Kind::Logic) {
                let (path, operator) =
                    parse(key, || format!("failed to parse logic path ({key})"), logic_path)?;
                let tree = parse(
                    &format!("{operator}{value}"),
                    || format!("failed to parse logic tree ({value})"),
                    logic_tree,
                )?;
                conditions.push((index, path, tree));
            }
        }
        if let Some(list) = first("columns") {
            let names = parse(list, || format!("failed to parse columns parameter ({list})"), columns)?;
            parsed.columns = Some(names.into_iter().collect());
        }
        let select = first("select").unwrap_or("*");
        parsed.select =
            parse(select, || format!("failed to parse select parameter ({select})"), select_list)?;
        for (index, (key, value)) in valued().enumerate() {
            if !matches!(kind(key), Kind::Filter) {
                continue;
            }
            let (path, field) = path_of(key)?;
            parsed.filter_fields.insert(key.to_owned());
            let grammar = |p: &mut Parser<'_>| {
                if arguments_allowed {
                    p.optional(|p| operation(p, whole_value))
                } else {
                    operation(p, whole_value).map(Some)
                }
            };
            match parse(value, || format!("failed to parse filter ({value})"), grammar)? {
                Some((negated, operation)) => {
                    conditions.push((index, path, Logic::Filter(Filter { field, negated, operation })));
                }
                None => parsed.arguments.push((field.name, value.to_owned())),
            }
        }
        conditions.sort_by_key(|(index, ..)| *index);
        parsed.filters = conditions.into_iter().map(|(_, path, logic)| (path, logic)).collect();
        if let Some(list) = first("on_conflict") {
            parsed.on_conflict =
                Some(parse(list, || format!("failed to parse on_conflict parameter ({list})"), columns)?);
        }

        let mut ranges = RequestedRanges::default();
        for (key, value) in valued() {
            match kind(key) {
                Kind::Limit => ranges.limit(path_of(key)?.0, value),
                Kind::Offset => ranges.offset(path_of(key)?.0, value),
                _ => {}
            }
        }
        parsed.ranges = ranges.of_embeds()?;
        Ok((parsed, ranges))
    }
}

fn path_of(key: &str) -> Result<(EmbedPath, super::Field), Error> {
    parse(key, || format!("failed to parse tree path ({key})"), tree_path)
}

/// Parameters by name; values of the same name behind the first, with commas.
fn canonical(parameters: &[Parameter<'_>]) -> String {
    let names: BTreeSet<&str> = parameters.iter().map(|(key, _)| &**key).collect();
    let mut text = String::new();
    for name in names {
        if !text.is_empty() {
            text.push('&');
        }
        text.extend(utf8_percent_encode(name, UNRESERVED));
        let values = parameters.iter().filter(|(key, _)| key == name);
        for (index, (_, value)) in values.enumerate() {
            text.push(if index == 0 { '=' } else { ',' });
            text.extend(utf8_percent_encode(value.as_deref().unwrap_or_default(), UNRESERVED));
        }
    }
    text
}
