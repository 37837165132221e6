//! `select=`: columns with casts, aliases, paths and aggregates, embeds and spreads.

use super::names::{comma, field, field_name, identifier};
use super::parser::{Parsed, Parser};
use super::{Aggregate, Embed, Field, Join, SelectItem};

/// The list of what is selected, perhaps empty.
pub(crate) fn select_list(p: &mut Parser<'_>) -> Parsed<Vec<SelectItem>> {
    p.nested(|p| Ok(p.optional(|p| p.separated1(item, comma))?.unwrap_or_default()))
}

fn item(p: &mut Parser<'_>) -> Parsed<SelectItem> {
    // Most items are bare names.
    if let Some(name) = p.word_before(|next| matches!(next, None | Some(b',' | b')'))) {
        let field = Field { name: name.to_owned(), json_path: Vec::new() };
        return Ok(SelectItem::Column {
            field,
            cast: None,
            alias: None,
            aggregate: None,
            aggregate_cast: None,
        });
    }
    p.either(
        |p| {
            let mut embed = p.attempt(spread)?;
            embed.select = nested_list(p)?;
            Ok(SelectItem::Embed(embed))
        },
        |p| {
            p.either(
                |p| {
                    let mut embed = p.attempt(relation)?;
                    embed.select = nested_list(p)?;
                    Ok(SelectItem::Embed(embed))
                },
                column,
            )
        },
    )
}

fn nested_list(p: &mut Parser<'_>) -> Parsed<Vec<SelectItem>> {
    p.char('(')?;
    let list = select_list(p)?;
    p.char(')')?;
    Ok(list)
}

fn alias(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    p.optional(|p| {
        p.attempt(|p| {
            let name = field_name(p)?;
            p.char(':')?;
            p.not_followed_by(|p| p.char(':'))?;
            Ok(name)
        })
    })
}

fn before_list(p: &mut Parser<'_>) -> Parsed<()> {
    p.attempt(|p| p.look_ahead(|p| p.string("(")))
}

/// `alias:relation!hint!inner` before its list.
pub(crate) fn relation(p: &mut Parser<'_>) -> Parsed<Embed> {
    p.lexeme(|p| {
        let alias = alias(p)?;
        let relation = field_name(p)?;
        // `count()` is the aggregate, never an embed.
        if relation == "count" {
            return p.refuse();
        }
        let (hint, join) = embed_parameters(p)?;
        before_list(p)?;
        Ok(Embed { relation, alias, hint, join, spread: false, select: Vec::new() })
    })
}

/// `...relation!hint!inner` before its list.
pub(crate) fn spread(p: &mut Parser<'_>) -> Parsed<Embed> {
    p.lexeme(|p| {
        p.string("...")?;
        let relation = field_name(p)?;
        let (hint, join) = embed_parameters(p)?;
        before_list(p)?;
        Ok(Embed { relation, alias: None, hint, join, spread: true, select: Vec::new() })
    })
}

enum EmbedParameter {
    Hint(String),
    Join(Join),
}

fn embed_parameters(p: &mut Parser<'_>) -> Parsed<(Option<String>, Option<Join>)> {
    let (mut hint, mut join) = (None, None);
    for _ in 0..2 {
        match p.optional(embed_parameter)? {
            Some(EmbedParameter::Hint(name)) => hint = hint.or(Some(name)),
            Some(EmbedParameter::Join(kind)) => join = join.or(Some(kind)),
            None => {}
        }
    }
    Ok((hint, join))
}

fn embed_parameter(p: &mut Parser<'_>) -> Parsed<EmbedParameter> {
    p.char('!')?;
    p.either(
        |p| p.keywords(&[("left", Join::Left), ("inner", Join::Inner)]).map(EmbedParameter::Join),
        |p| p.attempt(field_name).map(EmbedParameter::Hint),
    )
}

/// End of a column: the next item, the end of the list, or of everything.
fn item_end(p: &mut Parser<'_>) -> Parsed<()> {
    p.either(
        |p| p.attempt(|p| p.look_ahead(|p| p.string(")"))),
        |p| p.either(|p| p.attempt(|p| p.look_ahead(|p| p.string(","))), |p| p.attempt(Parser::end)),
    )
}

fn cast(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    p.optional(|p| {
        p.string("::")?;
        identifier(p)
    })
}

/// A column, `*` or `count()`.
pub(crate) fn column(p: &mut Parser<'_>) -> Parsed<SelectItem> {
    p.lexeme(|p| p.either(|p| p.attempt(star), |p| p.either(|p| p.attempt(count_all), plain_column)))
}

fn star_field() -> Field {
    Field { name: "*".to_owned(), json_path: Vec::new() }
}

fn star(p: &mut Parser<'_>) -> Parsed<SelectItem> {
    p.string("*")?;
    item_end(p)?;
    Ok(SelectItem::Column {
        field: star_field(),
        cast: None,
        alias: None,
        aggregate: None,
        aggregate_cast: None,
    })
}

fn count_all(p: &mut Parser<'_>) -> Parsed<SelectItem> {
    let alias = alias(p)?;
    p.string("count()")?;
    let aggregate_cast = cast(p)?;
    item_end(p)?;
    let aggregate = Some(Aggregate::Count);
    Ok(SelectItem::Column { field: star_field(), cast: None, alias, aggregate, aggregate_cast })
}

fn plain_column(p: &mut Parser<'_>) -> Parsed<SelectItem> {
    let alias = alias(p)?;
    let field = field(p)?;
    let cast_before = cast(p)?;
    let aggregate = p.optional(|p| {
        p.attempt(|p| {
            p.char('.')?;
            let function = p.keywords(&[
                ("sum", Aggregate::Sum),
                ("avg", Aggregate::Avg),
                ("count", Aggregate::Count),
                ("max", Aggregate::Max),
                ("min", Aggregate::Min),
            ])?;
            p.string("()")?;
            Ok(function)
        })
    })?;
    let aggregate_cast = cast(p)?;
    item_end(p)?;
    Ok(SelectItem::Column { field, cast: cast_before, alias, aggregate, aggregate_cast })
}
