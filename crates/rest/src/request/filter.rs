//! `operator.value`: the right side of filters.

use super::names::{delimiter, identifier, quoted_element};
use super::parser::{Parsed, Parser};
use super::{FullTextOperator, IsValue, Operation, QuantifiedOperator, Quantifier, SimpleOperator};

/// A parser of single values: to the end of a parameter, or to the end of a member of `and=(…)`.
pub(crate) type ValueParser = fn(&mut Parser<'_>) -> Parsed<String>;

/// `not.operator.value`: whether negated, and what.
pub(crate) fn operation(p: &mut Parser<'_>, value: ValueParser) -> Parsed<(bool, Operation)> {
    // The operator of most filters needs none of the attempts below.
    if p.takes("eq.") {
        return Ok((false, Operation::Quantified(QuantifiedOperator::Equal, None, value(p)?)));
    }
    let negated = p.either(
        |p| {
            p.attempt(|p| {
                p.string("not")?;
                delimiter(p)
            })
            .map(|()| true)
        },
        |_| Ok(false),
    )?;
    let operation = p.label("operator (eq, gt, ...)", |p| {
        p.either(list, |p| {
            p.either(is, |p| {
                p.either(
                    |p| is_distinct(p, value),
                    |p| {
                        p.either(
                            |p| p.attempt(|p| full_text(p, value)),
                            |p| {
                                p.either(
                                    |p| p.attempt(|p| simple(p, value)),
                                    |p| p.attempt(|p| quantified(p, value)),
                                )
                            },
                        )
                    },
                )
            })
        })
    })?;
    Ok((negated, operation))
}

fn head(p: &mut Parser<'_>, word: &'static str) -> Parsed<()> {
    p.attempt(|p| {
        p.string(word)?;
        delimiter(p)
    })
}

fn list(p: &mut Parser<'_>) -> Parsed<Operation> {
    head(p, "in")?;
    p.lexeme(|p| p.char('('))?;
    let elements = p.separated1(
        |p| {
            p.either(
                |p| p.attempt(quoted_element),
                |p| Ok(p.take_while(|c| c != ',' && c != ')', &[]).to_owned()),
            )
        },
        |p| p.char(',').map(drop),
    )?;
    p.lexeme(|p| p.char(')'))?;
    Ok(Operation::In(elements))
}

fn is(p: &mut Parser<'_>) -> Parsed<Operation> {
    const VALUES: [(&str, IsValue); 5] = [
        ("null", IsValue::Null),
        ("not_null", IsValue::NotNull),
        ("true", IsValue::True),
        ("false", IsValue::False),
        ("unknown", IsValue::Unknown),
    ];
    head(p, "is")?;
    p.label("isVal: (null, not_null, true, false, unknown)", |p| {
        for (word, value) in VALUES {
            let found = p.optional(|p| {
                p.attempt(|p| {
                    for c in word.chars() {
                        p.either(|p| p.char(c), |p| p.char(c.to_ascii_uppercase()))?;
                    }
                    Ok(())
                })
            })?;
            if found.is_some() {
                return Ok(Operation::Is(value));
            }
        }
        p.refuse()
    })
}

fn is_distinct(p: &mut Parser<'_>, value: ValueParser) -> Parsed<Operation> {
    head(p, "isdistinct")?;
    value(p).map(Operation::IsDistinct)
}

fn full_text(p: &mut Parser<'_>, value: ValueParser) -> Parsed<Operation> {
    let operator = p.keywords(&[
        ("fts", FullTextOperator::Plain),
        ("plfts", FullTextOperator::Words),
        ("phfts", FullTextOperator::Phrase),
        ("wfts", FullTextOperator::Web),
    ])?;
    let language = p.optional(|p| {
        p.attempt(|p| {
            p.char('(')?;
            let language = identifier(p)?;
            p.char(')')?;
            Ok(language)
        })
    })?;
    delimiter(p)?;
    Ok(Operation::FullText(operator, language, value(p)?))
}

const OPERATOR: &str = "unknown single value operator";

fn simple(p: &mut Parser<'_>, value: ValueParser) -> Parsed<Operation> {
    let operator = p.label(OPERATOR, |p| {
        p.keywords(&[
            ("neq", SimpleOperator::NotEqual),
            ("cs", SimpleOperator::Contains),
            ("cd", SimpleOperator::Contained),
            ("ov", SimpleOperator::Overlaps),
            ("sl", SimpleOperator::StrictlyLeft),
            ("sr", SimpleOperator::StrictlyRight),
            ("nxr", SimpleOperator::NotExtendsRight),
            ("nxl", SimpleOperator::NotExtendsLeft),
            ("adj", SimpleOperator::Adjacent),
        ])
    })?;
    delimiter(p)?;
    Ok(Operation::Simple(operator, value(p)?))
}

fn quantified(p: &mut Parser<'_>, value: ValueParser) -> Parsed<Operation> {
    let operator = p.label(OPERATOR, |p| {
        p.keywords(&[
            ("eq", QuantifiedOperator::Equal),
            ("gte", QuantifiedOperator::GreaterOrEqual),
            ("gt", QuantifiedOperator::Greater),
            ("lte", QuantifiedOperator::LessOrEqual),
            ("lt", QuantifiedOperator::Less),
            ("like", QuantifiedOperator::Like),
            ("ilike", QuantifiedOperator::ILike),
            ("match", QuantifiedOperator::Match),
            ("imatch", QuantifiedOperator::IMatch),
        ])
    })?;
    let quantifier = p.optional(|p| {
        p.attempt(|p| {
            p.char('(')?;
            let quantifier = p.keywords(&[("any", Quantifier::Any), ("all", Quantifier::All)])?;
            p.char(')')?;
            Ok(quantifier)
        })
    })?;
    delimiter(p)?;
    Ok(Operation::Quantified(operator, quantifier, value(p)?))
}

/// The rest of a parameter.
pub(crate) fn whole_value(p: &mut Parser<'_>) -> Parsed<String> {
    Ok(p.take_while(|_| true, &[]).to_owned())
}
