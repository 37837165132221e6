//! From the text of `pg_get_expr` to an [`Expression`] whose types fit.

use super::{Comparison, Expression, Type};
use crate::changes::values::oid;

/// Nested deeper, Postgres is asked.
const DEEPEST: u8 = 40;

/// The columns that an expression may name: name and, where it is understood, type.
pub(crate) type Types<'t> = &'t [(String, Option<Type>)];

impl Type {
    /// Of a column; none if it is not understood. `deterministic`: texts are equal only if their bytes are.
    pub(crate) fn of_column(type_oid: u32, deterministic: bool) -> Option<Self> {
        match type_oid {
            oid::BOOL => Some(Self::Bool),
            oid::INT2 | oid::INT4 | oid::INT8 => Some(Self::Int),
            oid::TEXT | oid::VARCHAR if deterministic => Some(Self::Text),
            oid::UUID => Some(Self::Uuid),
            _ => None,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "boolean" => Some(Self::Bool),
            "integer" | "bigint" => Some(Self::Int),
            "text" | "character varying" => Some(Self::Text),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }
}

/// Reads an expression; none if there is anything in it that is not understood.
pub(crate) fn parse(text: &str, types: Types<'_>) -> Option<Expression> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, types, depth: 0 };
    let (expression, of) = parser.or()?;
    (parser.tokens.is_empty() && matches!(of, Type::Bool)).then_some(expression)
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// Unquoted, lower case.
    Word(String),
    /// In double quotes.
    Quoted(String),
    Text(String),
    Number(i64),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 15] =
    ["->>", "->", "::", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", "."];

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut rest = text.trim_start();
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (value, after) = quoted(&rest[1..], '\'')?;
            // With a backslash it may mean something else.
            if value.contains('\\') {
                return None;
            }
            tokens.push(Token::Text(value));
            rest = after;
        } else if first == '"' {
            let (value, after) = quoted(&rest[1..], '"')?;
            tokens.push(Token::Quoted(value));
            rest = after;
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            if rest[end..].starts_with(['.', 'e', 'E', '_', 'x']) {
                return None;
            }
            tokens.push(Token::Number(rest[..end].parse().ok()?));
            rest = &rest[end..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'))
                .unwrap_or(rest.len());
            // E'…', B'…' and the like.
            if rest[end..].starts_with('\'') {
                return None;
            }
            tokens.push(Token::Word(rest[..end].to_ascii_lowercase()));
            rest = &rest[end..];
        } else {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol))?;
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
            // `=` in `=>`, `<` in `<@`: an operator that is not known.
            if !matches!(symbol, "(" | ")" | "[" | "]" | "," | "." | "::")
                && rest.starts_with([
                    '<', '>', '=', '@', '#', '&', '|', '~', '!', '%', '^', '*', '/', '+', '-', '?',
                ])
            {
                return None;
            }
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

fn quoted(text: &str, mark: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        if c != mark {
            value.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == mark) {
            chars.next();
            value.push(mark);
        } else {
            return Some((value, &text[index + mark.len_utf8()..]));
        }
    }
    None
}

struct Parser<'t> {
    tokens: &'t [Token],
    types: Types<'t>,
    depth: u8,
}

type Typed = (Expression, Type);

impl Parser<'_> {
    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Symbol(found)) if *found == symbol);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(found)) if found == word);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn or(&mut self) -> Option<Typed> {
        self.chain("or", Self::and, Expression::Or)
    }

    fn and(&mut self) -> Option<Typed> {
        self.chain("and", Self::not, Expression::And)
    }

    fn chain(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Option<Typed>,
        make: fn(Vec<Expression>) -> Expression,
    ) -> Option<Typed> {
        let (first, of) = part(self)?;
        if !self.word(word) {
            return Some((first, of));
        }
        let mut parts = vec![boolean((first, of))?];
        loop {
            parts.push(boolean(part(self)?)?);
            if !self.word(word) {
                return Some((make(parts), Type::Bool));
            }
        }
    }

    fn not(&mut self) -> Option<Typed> {
        if !self.word("not") {
            return self.comparison();
        }
        let inner = boolean(self.not()?)?;
        Some((Expression::Not(Box::new(inner)), Type::Bool))
    }

    fn comparison(&mut self) -> Option<Typed> {
        let (left, of) = self.postfix()?;
        if self.word("is") {
            let not = self.word("not");
            if !self.word("null") {
                return None;
            }
            let null = Expression::IsNull(Box::new(left));
            return Some((if not { Expression::Not(Box::new(null)) } else { null }, Type::Bool));
        }
        let comparison = [
            ("=", Comparison::Eq),
            ("<>", Comparison::Ne),
            ("<=", Comparison::Le),
            (">=", Comparison::Ge),
            ("<", Comparison::Lt),
            (">", Comparison::Gt),
        ];
        let Some((_, comparison)) = comparison.into_iter().find(|(symbol, _)| self.symbol(symbol)) else {
            return Some((left, of));
        };
        if comparison == Comparison::Eq && self.word("any") {
            return self.any(left, of);
        }
        let (right, other) = self.postfix()?;
        // The order of texts is their collation's.
        let ordered = !matches!(comparison, Comparison::Eq | Comparison::Ne);
        if of != other || of == Type::Json || (ordered && of == Type::Text) {
            return None;
        }
        Some((Expression::Compare(Box::new(left), comparison, Box::new(right)), Type::Bool))
    }

    /// After `= any`: `(array['a'::text, …])`.
    fn any(&mut self, left: Expression, of: Type) -> Option<Typed> {
        if !(self.symbol("(") && self.word("array") && self.symbol("[")) || of == Type::Json {
            return None;
        }
        let mut values = Vec::new();
        loop {
            let (value, other) = self.or()?;
            if other != of {
                return None;
            }
            values.push(value);
            if self.symbol("]") {
                break;
            }
            if !self.symbol(",") {
                return None;
            }
        }
        self.symbol(")").then_some((Expression::Any(Box::new(left), values), Type::Bool))
    }

    /// A value with casts and members behind it.
    fn postfix(&mut self) -> Option<Typed> {
        let mut value = self.primary()?;
        loop {
            if self.symbol("::") {
                value = cast(value, self.type_name()?)?;
            } else if value.1 == Type::Json {
                let text = if self.symbol("->>") {
                    true
                } else if self.symbol("->") {
                    false
                } else {
                    return Some(value);
                };
                let Some((Token::Text(key), after)) = self.tokens.split_first() else { return None };
                self.tokens = after;
                if !(self.symbol("::") && self.type_name()? == Type::Text) {
                    return None;
                }
                let of = if text { Type::Text } else { Type::Json };
                value = (Expression::Get(Box::new(value.0), key.clone(), text), of);
            } else {
                return Some(value);
            }
        }
    }

    fn type_name(&mut self) -> Option<Type> {
        let Some((Token::Word(first), after)) = self.tokens.split_first() else { return None };
        self.tokens = after;
        let named = match first.as_str() {
            "character" if self.word("varying") => Type::named("character varying"),
            name => Type::named(name),
        };
        // With a length, or as an array, it is another type.
        match self.tokens.first() {
            Some(Token::Symbol("(" | "[")) => None,
            _ => named,
        }
    }

    fn primary(&mut self) -> Option<Typed> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let value = self.value();
        self.depth -= 1;
        value
    }

    fn value(&mut self) -> Option<Typed> {
        if self.symbol("(") {
            // `( SELECT auth.uid() AS uid)` without a table is what it selects.
            if self.word("select") {
                let value = self.or()?;
                if self.word("as") {
                    let Some((Token::Word(_) | Token::Quoted(_), after)) = self.tokens.split_first() else {
                        return None;
                    };
                    self.tokens = after;
                }
                return self.symbol(")").then_some(value);
            }
            let value = self.or()?;
            return self.symbol(")").then_some(value);
        }
        let (first, after) = self.tokens.split_first()?;
        let name = match first {
            // A literal without a type is none that Postgres would write.
            Token::Text(text) => {
                self.tokens = after;
                if !self.symbol("::") {
                    return None;
                }
                return cast((Expression::Text(text.clone()), Type::Text), self.type_name()?);
            }
            Token::Number(number) => {
                self.tokens = after;
                return Some((Expression::Int(*number), Type::Int));
            }
            Token::Symbol(_) => return None,
            Token::Quoted(name) => name,
            Token::Word(word) => match word.as_str() {
                "true" | "false" => {
                    self.tokens = after;
                    return Some((Expression::Bool(word == "true"), Type::Bool));
                }
                "null" => {
                    self.tokens = after;
                    if !self.symbol("::") {
                        return None;
                    }
                    return Some((Expression::Null, self.type_name()?));
                }
                "auth" if matches!(after.first(), Some(Token::Symbol("."))) => return self.function(),
                name => name,
            },
        };
        self.tokens = after;
        if matches!(self.tokens.first(), Some(Token::Symbol("." | "(" | "["))) {
            return None;
        }
        let index = self.types.iter().position(|(column, _)| column == name)?;
        Some((Expression::Column(index), self.types[index].1?))
    }

    fn function(&mut self) -> Option<Typed> {
        if !(self.word("auth") && self.symbol(".")) {
            return None;
        }
        let (Token::Word(name), after) = self.tokens.split_first()? else { return None };
        self.tokens = after;
        let value = match name.as_str() {
            "uid" => (Expression::Uid, Type::Uuid),
            "role" => (Expression::Role, Type::Text),
            "email" => (Expression::Email, Type::Text),
            "jwt" => (Expression::Jwt, Type::Json),
            _ => return None,
        };
        (self.symbol("(") && self.symbol(")")).then_some(value)
    }
}

fn boolean((expression, of): Typed) -> Option<Expression> {
    (of == Type::Bool).then_some(expression)
}

fn cast((expression, from): Typed, to: Type) -> Option<Typed> {
    if from == to {
        return Some((expression, to));
    }
    match (from, to) {
        // Literals are turned now; one that does not fit is Postgres' business.
        (Type::Text, Type::Int) => match &expression {
            Expression::Text(text) => Some((Expression::Int(text.parse().ok()?), to)),
            _ => Some((Expression::Cast(Box::new(expression), to), to)),
        },
        (Type::Text, Type::Uuid | Type::Bool) | (Type::Uuid | Type::Int | Type::Bool, Type::Text) => {
            Some((Expression::Cast(Box::new(expression), to), to))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn columns() -> Vec<(String, Option<Type>)> {
        [
            ("id", Some(Type::Int)),
            ("owner", Some(Type::Uuid)),
            ("name", Some(Type::Text)),
            ("Open", Some(Type::Bool)),
            ("data", None),
        ]
        .map(|(name, of)| (name.to_owned(), of))
        .to_vec()
    }

    #[rstest]
    #[case("true")]
    #[case("(owner = auth.uid())")]
    #[case("(( SELECT auth.uid() AS uid) = owner)")]
    #[case("(name = ( SELECT (auth.jwt() ->> 'org'::text)))")]
    #[case("((owner = auth.uid()) OR \"Open\")")]
    #[case("(name = ((auth.jwt() -> 'app_metadata'::text) ->> 'org'::text))")]
    #[case("((( SELECT auth.jwt() AS jwt) ->> 'sub'::text) = (owner)::text)")]
    #[case("(((name)::text = ANY (ARRAY['a'::text, 'b'::text])) AND (id > 5))")]
    #[case("((NOT \"Open\") AND (name IS NOT NULL))")]
    #[case("(((auth.jwt() ->> 'org'::text))::uuid = owner)")]
    #[case("(name = 'it''s'::text)")]
    fn common_policies_are_understood(#[case] text: &str) {
        assert!(parse(text, &columns()).is_some(), "{text}");
    }

    #[rstest]
    #[case("(EXISTS ( SELECT 1 FROM members m WHERE (m.user_id = auth.uid())))")]
    #[case("(owner = public.current_owner())")]
    #[case("(data = '{}'::jsonb)")]
    #[case("(name > 'a'::text)")]
    #[case("(name ~~ 'a%'::text)")]
    #[case("(owner = 'x'::text)")]
    #[case("(id = 1.5)")]
    #[case("((name)::character varying(3) = 'a'::text)")]
    #[case("(notes.owner = auth.uid())")]
    #[case("owner")]
    #[case("(name = E'a\\\\b'::text)")]
    #[case("(owner = auth.uid()) extra")]
    #[case("")]
    #[case("((((")]
    fn everything_else_is_left_to_postgres(#[case] text: &str) {
        assert_eq!(parse(text, &columns()), None, "{text}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse(&text, &columns());
        }
    }
}
