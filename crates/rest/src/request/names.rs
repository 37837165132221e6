//! Names, quoted values, JSON paths and fields: the words of the query grammar.

use super::parser::{Parsed, Parser};
use super::{Field, JsonOperand, JsonStep};

/// `.`
pub(crate) fn delimiter(p: &mut Parser<'_>) -> Parsed<()> {
    p.label("delimiter (.)", |p| p.char('.')).map(drop)
}

/// Letters, digits, `_`, `$` and inner blanks.
pub(crate) fn identifier(p: &mut Parser<'_>) -> Parsed<String> {
    let accepts = |c: char| c.is_alphabetic() || c.is_ascii_digit() || matches!(c, '_' | ' ' | '$');
    Ok(p.take_while1(accepts, &["letter", "digit"])?.trim().to_owned())
}

/// `"…"`, where a backslash takes the next character literally.
pub(crate) fn quoted(p: &mut Parser<'_>) -> Parsed<String> {
    p.char('"')?;
    let mut text = String::new();
    loop {
        text.push_str(p.take_while(|c| c != '"' && c != '\\', &[]));
        let escaped = p.optional(|p| {
            p.char('\\')?;
            p.satisfy(|_| true, &[])
        })?;
        match escaped {
            Some(c) => text.push(c),
            None => break,
        }
    }
    p.char('"')?;
    Ok(text)
}

/// A quoted value that ends where a list element ends.
pub(crate) fn quoted_element(p: &mut Parser<'_>) -> Parsed<String> {
    let text = quoted(p)?;
    p.not_followed_by(|p| p.satisfy(|c| c != ',' && c != ')', &[]))?;
    Ok(text)
}

/// Parts joined by dashes that do not begin an arrow.
fn dashed(p: &mut Parser<'_>, part: impl Fn(&mut Parser<'_>) -> Parsed<String>) -> Parsed<String> {
    let parts = p.separated1(part, |p| {
        p.attempt(|p| {
            p.char('-')?;
            p.not_followed_by(|p| p.char('>'))
        })
    })?;
    Ok(parts.join("-"))
}

/// A name of a column, relation, alias or hint.
pub(crate) fn field_name(p: &mut Parser<'_>) -> Parsed<String> {
    // Blanks and dashes may belong to a name; what comes here cannot.
    let ends = |next: Option<u8>| matches!(next, None | Some(b',' | b'(' | b')' | b'.' | b':' | b'!'));
    if let Some(word) = p.word_before(ends) {
        return Ok(word.to_owned());
    }
    p.label("field name (* or [a..z0..9_$])", |p| p.either(quoted, |p| dashed(p, identifier)))
}

fn json_key(p: &mut Parser<'_>) -> Parsed<String> {
    p.label("any non reserved character different from: .,>()", |p| {
        p.either(quoted, |p| {
            dashed(p, |p| {
                let accepts = |c: char| !matches!(c, '(' | '-' | ':' | '.' | ',' | '>' | ')');
                Ok(p.take_while1(accepts, &[])?.trim().to_owned())
            })
        })
    })
}

fn json_index(p: &mut Parser<'_>) -> Parsed<String> {
    let sign = p.optional(|p| p.char('-'))?;
    let digits = p.take_while1(|c| c.is_ascii_digit(), &["digit"])?;
    let index = if sign.is_some() { format!("-{digits}") } else { digits.to_owned() };
    fn before(p: &mut Parser<'_>, text: &'static str) -> Parsed<()> {
        p.attempt(|p| p.look_ahead(|p| p.string(text)))
    }
    p.either(
        |p| before(p, "->"),
        |p| {
            p.either(
                |p| before(p, "::"),
                |p| {
                    p.either(|p| before(p, "."), |p| p.either(|p| before(p, ","), |p| p.attempt(Parser::end)))
                },
            )
        },
    )?;
    Ok(index)
}

/// `->key->>0…`, perhaps empty.
pub(crate) fn json_path(p: &mut Parser<'_>) -> Parsed<Vec<JsonStep>> {
    p.many(|p| {
        let as_text = p.keywords(&[("->>", true), ("->", false)])?;
        let operand = p.either(
            |p| p.attempt(json_index).map(JsonOperand::Index),
            |p| p.attempt(json_key).map(JsonOperand::Key),
        )?;
        Ok(JsonStep { as_text, operand })
    })
}

/// A column and a path into it.
pub(crate) fn field(p: &mut Parser<'_>) -> Parsed<Field> {
    p.lexeme(|p| Ok(Field { name: field_name(p)?, json_path: json_path(p)? }))
}

/// `embed.embed.column->path`: the key of a filter, order or limit.
pub(crate) fn tree_path(p: &mut Parser<'_>) -> Parsed<(Vec<String>, Field)> {
    let mut names = p.separated1(field_name, delimiter)?;
    let json_path = json_path(p)?;
    let name = names.pop().unwrap_or_default();
    Ok((names, Field { name, json_path }))
}

/// `a,b,c` of `columns` and `on_conflict`.
pub(crate) fn columns(p: &mut Parser<'_>) -> Parsed<Vec<String>> {
    p.separated1(field_name, comma)
}

/// `,` with blanks around it.
pub(crate) fn comma(p: &mut Parser<'_>) -> Parsed<()> {
    p.lexeme(|p| p.char(',')).map(drop)
}
