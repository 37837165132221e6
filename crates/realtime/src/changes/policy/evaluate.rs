//! Evaluates an [`Expression`] as Postgres does, with SQL's three truths.

use std::borrow::Cow;

use serde_json::Value as Json;
use uuid::Uuid;

use super::{Comparison, Expression, Type, Value};

/// Postgres may have to say: a cast that may fail, or a value that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsure;

/// What policies ask of the claims, worked out once.
#[derive(Debug)]
pub(crate) struct Claimed {
    jwt: Json,
    uid: Result<Option<u128>, Unsure>,
}

impl Claimed {
    /// Of claims in JSON.
    pub(crate) fn new(claims: &str) -> Self {
        let jwt: Json = serde_json::from_str(claims).unwrap_or(Json::Null);
        let uid = match member_text(&jwt, "sub") {
            Ok(None) => Ok(None),
            Ok(Some(Value::Text(text))) => uuid(&text).map(Some),
            _ => Err(Unsure),
        };
        Self { jwt, uid }
    }
}

/// A value, or null, of a row's column.
pub(crate) type Column<'v> = Result<Option<Value<'v>>, Unsure>;

impl Value<'_> {
    /// A column's value from Postgres' text format.
    pub(crate) fn of_column(text: Option<&str>, of: Type) -> Column<'_> {
        let Some(text) = text else { return Ok(None) };
        match of {
            Type::Bool => Ok(Some(Value::Bool(text == "t"))),
            Type::Int => text.parse().map(|int| Some(Value::Int(int))).map_err(|_| Unsure),
            Type::Text => Ok(Some(Value::Text(Cow::Borrowed(text)))),
            Type::Uuid => uuid(text).map(|uuid| Some(Value::Uuid(uuid))),
            Type::Json => Err(Unsure),
        }
    }
}

impl Expression {
    /// Whether a row is visible by this policy. `column` gives the row's values.
    ///
    /// # Errors
    /// [`Unsure`]: ask Postgres.
    pub(crate) fn allows<'v>(
        &'v self,
        column: &impl Fn(usize) -> Column<'v>,
        claimed: &'v Claimed,
    ) -> Result<bool, Unsure> {
        Ok(self.value(column, claimed)? == Some(Value::Bool(true)))
    }

    /// Every part is evaluated, also where the others decide: an error in one of them is one for Postgres, too.
    fn value<'v>(&'v self, column: &impl Fn(usize) -> Column<'v>, claimed: &'v Claimed) -> Column<'v> {
        Ok(Some(match self {
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Null => return Ok(None),
            Self::Column(index) => return column(*index),
            Self::Uid => return claimed.uid.map(|uid| uid.map(Value::Uuid)),
            Self::Role => return member_text(&claimed.jwt, "role"),
            Self::Email => return member_text(&claimed.jwt, "email"),
            Self::Jwt => Value::Json(&claimed.jwt),
            Self::Get(of, key, text) => match of.value(column, claimed)? {
                Some(Value::Json(json)) if *text => return member_text(json, key),
                Some(Value::Json(json)) => return Ok(member(json, key).map(Value::Json)),
                None => return Ok(None),
                Some(_) => return Err(Unsure),
            },
            Self::Not(of) => match truth(of.value(column, claimed)?)? {
                Some(truth) => Value::Bool(!truth),
                None => return Ok(None),
            },
            Self::IsNull(of) => Value::Bool(of.value(column, claimed)?.is_none()),
            Self::Or(parts) => return all(parts, true, column, claimed),
            Self::And(parts) => return all(parts, false, column, claimed),
            Self::Compare(a, comparison, b) => {
                let (a, b) = (a.value(column, claimed)?, b.value(column, claimed)?);
                match (a, b) {
                    (Some(a), Some(b)) => Value::Bool(compare(&a, *comparison, &b)?),
                    _ => return Ok(None),
                }
            }
            Self::Any(one, of) => {
                let one = one.value(column, claimed)?;
                let (mut found, mut null) = (false, one.is_none());
                for candidate in of {
                    match (&one, candidate.value(column, claimed)?) {
                        (Some(one), Some(candidate)) => found |= compare(one, Comparison::Eq, &candidate)?,
                        _ => null = true,
                    }
                }
                match (found, null) {
                    (true, _) => Value::Bool(true),
                    (false, true) => return Ok(None),
                    (false, false) => Value::Bool(false),
                }
            }
            Self::Cast(of, to) => match of.value(column, claimed)? {
                Some(value) => cast(value, *to)?,
                None => return Ok(None),
            },
        }))
    }
}

/// `or` (`decides` true) and `and` (`decides` false).
fn all<'v>(
    parts: &'v [Expression],
    decides: bool,
    column: &impl Fn(usize) -> Column<'v>,
    claimed: &'v Claimed,
) -> Column<'v> {
    let (mut decided, mut null) = (false, false);
    for part in parts {
        match truth(part.value(column, claimed)?)? {
            None => null = true,
            Some(truth) => decided |= truth == decides,
        }
    }
    Ok(match (decided, null) {
        (true, _) => Some(Value::Bool(decides)),
        (false, true) => None,
        (false, false) => Some(Value::Bool(!decides)),
    })
}

fn truth(value: Option<Value<'_>>) -> Result<Option<bool>, Unsure> {
    match value {
        None => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(truth)),
        Some(_) => Err(Unsure),
    }
}

fn compare(a: &Value<'_>, comparison: Comparison, b: &Value<'_>) -> Result<bool, Unsure> {
    let ordering = match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        _ => return Err(Unsure),
    };
    Ok(match comparison {
        Comparison::Eq => ordering.is_eq(),
        Comparison::Ne => ordering.is_ne(),
        Comparison::Lt => ordering.is_lt(),
        Comparison::Le => ordering.is_le(),
        Comparison::Gt => ordering.is_gt(),
        Comparison::Ge => ordering.is_ge(),
    })
}

fn cast(value: Value<'_>, to: Type) -> Result<Value<'_>, Unsure> {
    match (value, to) {
        (Value::Text(text), Type::Uuid) => uuid(&text).map(Value::Uuid),
        (Value::Text(text), Type::Int) => {
            // Only what both of us read alike, and what fits any integer type.
            text.parse::<i32>().map(|int| Value::Int(int.into())).map_err(|_| Unsure)
        }
        (Value::Text(text), Type::Bool) => match text.as_ref() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Unsure),
        },
        (Value::Uuid(uuid), Type::Text) => {
            Ok(Value::Text(Cow::Owned(Uuid::from_u128(uuid).hyphenated().to_string())))
        }
        (Value::Int(int), Type::Text) => Ok(Value::Text(Cow::Owned(int.to_string()))),
        (Value::Bool(bool), Type::Text) => {
            Ok(Value::Text(Cow::Borrowed(if bool { "true" } else { "false" })))
        }
        _ => Err(Unsure),
    }
}

/// In the form that everybody writes; Postgres reads others, too.
fn uuid(text: &str) -> Result<u128, Unsure> {
    if text.len() != 36 {
        return Err(Unsure);
    }
    Uuid::try_parse(text).map(|uuid| uuid.as_u128()).map_err(|_| Unsure)
}

/// `->`
fn member<'v>(json: &'v Json, key: &str) -> Option<&'v Json> {
    json.as_object().and_then(|object| object.get(key))
}

/// `->>`
fn member_text<'v>(json: &'v Json, key: &str) -> Column<'v> {
    match member(json, key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(Value::Text(Cow::Borrowed(text)))),
        Some(Json::Bool(bool)) => Ok(Some(Value::Text(Cow::Borrowed(if *bool { "true" } else { "false" })))),
        Some(Json::Number(number)) => match number.as_i64() {
            Some(int) => Ok(Some(Value::Text(Cow::Owned(int.to_string())))),
            None => Err(Unsure),
        },
        Some(Json::Array(_) | Json::Object(_)) => Err(Unsure),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::parse;
    use super::*;

    const ADA: &str = "00000000-0000-0000-0000-00000000000a";

    fn allows(policy: &str, owner: Option<&str>, name: Option<&str>, claims: &str) -> Result<bool, Unsure> {
        let types = [("owner".to_owned(), Some(Type::Uuid)), ("name".to_owned(), Some(Type::Text))];
        let values = [owner, name];
        let expression = parse(policy, &types).unwrap();
        let column = |index: usize| Value::of_column(values[index], types[index].1.unwrap());
        expression.allows(&column, &Claimed::new(claims))
    }

    #[rstest]
    #[case("(owner = auth.uid())", Some(ADA), None, Ok(true))]
    #[case("(owner = auth.uid())", Some("00000000-0000-0000-0000-00000000000b"), None, Ok(false))]
    #[case("(owner = auth.uid())", None, None, Ok(false))]
    #[case("(NOT (owner = auth.uid()))", None, None, Ok(false))]
    #[case("((owner IS NULL) OR (owner = auth.uid()))", None, None, Ok(true))]
    #[case("(name = (auth.jwt() ->> 'org'::text))", None, Some("acme"), Ok(true))]
    #[case("(name = (auth.jwt() ->> 'n'::text))", None, Some("5"), Ok(true))]
    #[case("(name = (auth.jwt() ->> 'gone'::text))", None, Some("5"), Ok(false))]
    #[case("(name = (auth.jwt() ->> 'float'::text))", None, Some("1.50"), Err(Unsure))]
    #[case("(((auth.jwt() ->> 'org'::text))::uuid = owner)", Some(ADA), None, Err(Unsure))]
    #[case("(true OR (((auth.jwt() ->> 'org'::text))::uuid = owner))", Some(ADA), None, Err(Unsure))]
    #[case("(((auth.jwt() -> 'app'::text) ->> 'admin'::text))::boolean", None, None, Ok(true))]
    #[case("(name = ANY (ARRAY['a'::text, 'b'::text]))", None, Some("b"), Ok(true))]
    #[case("((auth.role() = 'authenticated'::text) AND (auth.uid() = owner))", Some(ADA), None, Ok(true))]
    fn policies_hold_as_in_postgres(
        #[case] policy: &str,
        #[case] owner: Option<&str>,
        #[case] name: Option<&str>,
        #[case] expected: Result<bool, Unsure>,
    ) {
        let claims = format!(
            r#"{{"sub": "{ADA}", "role": "authenticated", "org": "acme", "n": 5, "float": 1.50, "app": {{"admin": true}}}}"#
        );
        assert_eq!(allows(policy, owner, name, &claims), expected);
    }

    #[test]
    fn an_id_that_is_no_uuid_is_an_error_in_postgres() {
        assert_eq!(allows("(owner = auth.uid())", Some(ADA), None, r#"{"sub": "ada"}"#), Err(Unsure));
        assert_eq!(allows("(owner = auth.uid())", Some(ADA), None, r#"{"role": "anon"}"#), Ok(false));
    }
}
