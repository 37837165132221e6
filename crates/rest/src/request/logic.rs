//! `and=(…)`, `or=(…)`: trees of conditions.

use super::filter::operation;
use super::names::{comma, delimiter, field, field_name, quoted_element};
use super::parser::{Parsed, Parser};
use super::{Filter, Logic};

/// A group or a comparison.
pub(crate) fn logic_tree(p: &mut Parser<'_>) -> Parsed<Logic> {
    p.nested(|p| p.either(|p| p.attempt(comparison).map(Logic::Filter), group))
}

fn comparison(p: &mut Parser<'_>) -> Parsed<Filter> {
    let field = field(p)?;
    delimiter(p)?;
    let (negated, operation) = operation(p, member_value)?;
    Ok(Filter { field, negated, operation })
}

fn group(p: &mut Parser<'_>) -> Parsed<Logic> {
    let negated = p.label("negation operator (not)", |p| {
        p.either(
            |p| {
                p.attempt(|p| {
                    p.string("not")?;
                    delimiter(p)
                })
                .map(|()| true)
            },
            |_| Ok(false),
        )
    })?;
    let any = p.label("logic operator (and, or)", |p| {
        p.either(|p| p.attempt(|p| p.string("and")).map(|()| false), |p| p.string("or").map(|()| true))
    })?;
    p.lexeme(|p| p.char('('))?;
    let members = p.separated1(logic_tree, comma)?;
    p.lexeme(|p| p.char(')'))?;
    Ok(Logic::Group { negated, any, members })
}

/// A value inside a group: quoted, an array literal, or up to the next comma or bracket.
fn member_value(p: &mut Parser<'_>) -> Parsed<String> {
    p.either(
        |p| p.attempt(quoted_element),
        |p| {
            p.either(
                |p| p.attempt(array_literal),
                |p| Ok(p.take_while(|c| c != ',' && c != ')', &[]).to_owned()),
            )
        },
    )
}

fn array_literal(p: &mut Parser<'_>) -> Parsed<String> {
    p.string("{")?;
    let inner = p.take_while(|c| c != '{' && c != '}', &[]).to_owned();
    p.string("}")?;
    Ok(format!("{{{inner}}}"))
}

/// `embed.not.or`: the key of a group; gives the embed's path and the operator as a group's head.
pub(crate) fn logic_path(p: &mut Parser<'_>) -> Parsed<(Vec<String>, String)> {
    let mut path = p.separated1(field_name, delimiter)?;
    let negated = path.iter().any(|name| name == "not");
    let operator = path.pop().unwrap_or_default();
    path.retain(|name| name != "not");
    Ok((path, if negated { format!("not.{operator}") } else { operator }))
}
