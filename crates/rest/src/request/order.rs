//! `order=`: columns and columns of related rows, with directions.

use super::OrderTerm;
use super::names::{delimiter, field, field_name};
use super::parser::{Parsed, Parser};

/// `col.desc.nullslast,relation(col)`.
pub(crate) fn order_list(p: &mut Parser<'_>) -> Parsed<Vec<OrderTerm>> {
    p.separated1(
        |p| p.lexeme(|p| p.either(|p| p.attempt(related_term), plain_term)),
        |p| p.char(',').map(drop),
    )
}

fn plain_term(p: &mut Parser<'_>) -> Parsed<OrderTerm> {
    let field = field(p)?;
    let (descending, nulls_first) = modifiers(p)?;
    Ok(OrderTerm { relation: None, field, descending, nulls_first })
}

fn related_term(p: &mut Parser<'_>) -> Parsed<OrderTerm> {
    let relation = field_name(p)?;
    p.char('(')?;
    let field = field(p)?;
    p.char(')')?;
    let (descending, nulls_first) = modifiers(p)?;
    Ok(OrderTerm { relation: Some(relation), field, descending, nulls_first })
}

fn suffix(p: &mut Parser<'_>, word: &'static str) -> Parsed<()> {
    p.attempt(|p| {
        delimiter(p)?;
        p.string(word)
    })
}

fn modifiers(p: &mut Parser<'_>) -> Parsed<(Option<bool>, Option<bool>)> {
    let descending =
        p.optional(|p| p.either(|p| suffix(p, "asc").map(|()| false), |p| suffix(p, "desc").map(|()| true)))?;
    let nulls_first = p.either(
        |p| {
            let nulls = p.optional(|p| {
                p.either(
                    |p| suffix(p, "nullsfirst").map(|()| true),
                    |p| suffix(p, "nullslast").map(|()| false),
                )
            })?;
            term_end(p)?;
            Ok(nulls)
        },
        |p| term_end(p).map(|()| None),
    )?;
    Ok((descending, nulls_first))
}

fn term_end(p: &mut Parser<'_>) -> Parsed<()> {
    p.either(|p| p.attempt(|p| p.look_ahead(|p| p.char(','))).map(drop), |p| p.attempt(Parser::end))
}
