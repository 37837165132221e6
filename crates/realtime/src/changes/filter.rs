//! Filters of subscriptions: `column=operator.value`, several joined by commas, each of which must hold.
//!
//! Values are compared as Postgres compares them. Where that is simple (numbers, booleans, uuids, moments, equality
//! of texts) it is done here, on texts that Postgres has brought into their canonical form; the rest Postgres is asked.

use std::cmp::Ordering;

use super::values::oid;

/// Most conditions of one filter.
const MOST_CONDITIONS: usize = 25;
/// Longest filter, in bytes.
const LONGEST: usize = 8 * 1024;
/// Most values of `in`.
pub(super) const MOST_VALUES: usize = 100;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Like,
    Ilike,
    Is,
    Match,
    Imatch,
    IsDistinct,
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Self::Eq,
            "neq" => Self::Neq,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "in" => Self::In,
            "like" => Self::Like,
            "ilike" => Self::Ilike,
            "is" => Self::Is,
            "match" => Self::Match,
            "imatch" => Self::Imatch,
            "isdistinct" => Self::IsDistinct,
            _ => return None,
        })
    }

    /// In SQL, before the value.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Neq => "<>",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::In => "= any",
            Self::Like => "like",
            Self::Ilike => "ilike",
            Self::Match => "~",
            Self::Imatch => "~*",
            Self::Is => "is",
            Self::IsDistinct => "is distinct from",
        }
    }
}

/// One condition, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) column: String,
    pub(super) operator: Operator,
    /// The value; for `in` an array literal.
    pub(super) value: String,
    pub(super) negate: bool,
}

/// Reads a filter.
///
/// # Errors
/// What is wrong, for the client.
pub(super) fn parse(filter: &str) -> Result<Vec<Condition>, String> {
    let filter = filter.trim();
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    if filter.len() > LONGEST || filter.contains('\0') {
        return Err(format!("a filter has at most {LONGEST} bytes, and none of them is zero"));
    }
    let segments = split(filter);
    if segments.len() > MOST_CONDITIONS {
        return Err(format!("a filter has at most {MOST_CONDITIONS} conditions"));
    }
    segments.into_iter().map(condition).collect()
}

/// At commas that stand neither in parentheses nor in quotes.
fn split(filter: &str) -> Vec<&str> {
    let (mut segments, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    let (mut quoted, mut before) = (false, '\0');
    let mut chars = filter.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            '"' if quoted => quoted = false,
            _ if quoted => {}
            '"' if matches!(before, '.' | '(' | ',') => quoted = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                segments.push(&filter[start..index]);
                start = index + 1;
            }
            _ => {}
        }
        before = c;
    }
    segments.push(&filter[start..]);
    segments
}

fn condition(segment: &str) -> Result<Condition, String> {
    let segment = segment.trim();
    if segment.is_empty() {
        return Err("filter must not contain empty segments (check for extra commas)".into());
    }
    let wrong = || format!("[{segment:?}]: expected column=operator.value, say id=eq.5");
    let (column, rest) = segment.split_once('=').ok_or_else(wrong)?;
    let (negate, rest) = match rest.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (name, value) = rest.split_once('.').ok_or_else(wrong)?;
    let operator = Operator::parse(name).ok_or_else(|| {
        format!(
            "[{name:?}, {value:?}]: no such operator; there are eq, neq, lt, lte, gt, gte, in, like, ilike, is, \
             match, imatch and isdistinct"
        )
    })?;
    let value = match operator {
        Operator::In => {
            let inner = value.strip_prefix('(').and_then(|value| value.strip_suffix(')'));
            format!("{{{}}}", inner.ok_or("`in` filter value must be wrapped by parentheses")?)
        }
        _ => unquote(value),
    };
    if operator == Operator::Is && !matches!(value.as_str(), "null" | "true" | "false" | "unknown") {
        return Err("invalid value for is filter: must be null, true, false, or unknown".into());
    }
    Ok(Condition { column: column.trim().to_owned(), operator, value, negate })
}

/// Takes quotes off that stand around the whole value.
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let (mut out, mut chars) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => return value.to_owned(),
            '\\' => match chars.next() {
                Some(c) => out.push(c),
                None => return value.to_owned(),
            },
            c => out.push(c),
        }
    }
    out
}

/// How values of a type compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    Int,
    Numeric,
    Float,
    Bool,
    /// Texts that are equal if their bytes are, and whose order Postgres knows.
    Text,
    /// Uuids: texts whose order is that of their bytes.
    Uuid,
    /// Dates and timestamps.
    Moment,
    /// Only Postgres knows.
    Other,
}

impl Family {
    /// Of a type that is no domain. `enumeration`: its values are labels.
    pub(super) fn of(type_oid: u32, enumeration: bool, deterministic: bool) -> Self {
        match type_oid {
            oid::INT2 | oid::INT4 | oid::INT8 => Self::Int,
            oid::NUMERIC => Self::Numeric,
            oid::FLOAT4 | oid::FLOAT8 => Self::Float,
            oid::BOOL => Self::Bool,
            oid::UUID => Self::Uuid,
            oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ => Self::Moment,
            oid::TEXT | oid::VARCHAR if deterministic => Self::Text,
            _ if enumeration => Self::Text,
            _ => Self::Other,
        }
    }
}

/// A condition on a column of a certain type, with values in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compiled {
    pub(super) condition: Condition,
    /// Index among the table's columns.
    pub(super) column: usize,
    pub(super) family: Family,
    /// The values; null ones only with `in`.
    pub(super) values: Vec<Option<String>>,
}

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// Only Postgres knows.
    Ask,
}

impl Compiled {
    /// Whether a value, null or in Postgres' text format, fulfils the condition.
    pub(super) fn check(&self, value: Option<&str>) -> Verdict {
        match self.holds(value) {
            None => Verdict::Ask,
            // As in `where`: what is unknown does not hold, negated or not.
            Some(None) => Verdict::No,
            Some(Some(holds)) if holds != self.condition.negate => Verdict::Yes,
            Some(Some(_)) => Verdict::No,
        }
    }

    /// None: only Postgres knows; else SQL's true, false and unknown.
    fn holds(&self, value: Option<&str>) -> Option<Option<bool>> {
        let operator = self.condition.operator;
        if operator == Operator::Is {
            return Some(Some(match self.condition.value.as_str() {
                "true" => value == Some("t"),
                "false" => value == Some("f"),
                _ => value.is_none(),
            }));
        }
        let Some(value) = value else {
            return Some((operator == Operator::IsDistinct).then_some(true));
        };
        let first = || self.values.first().and_then(Option::as_deref);
        let ordered = |wanted: fn(Ordering) -> bool| Some(Some(wanted(self.compare(value, first()?)?)));
        match operator {
            Operator::Eq => Some(Some(self.equal(value, first()?)?)),
            Operator::Neq | Operator::IsDistinct => Some(Some(!self.equal(value, first()?)?)),
            Operator::Lt => ordered(Ordering::is_lt),
            Operator::Lte => ordered(Ordering::is_le),
            Operator::Gt => ordered(Ordering::is_gt),
            Operator::Gte => ordered(Ordering::is_ge),
            Operator::In => {
                let mut null = false;
                for candidate in &self.values {
                    match candidate {
                        None => null = true,
                        Some(candidate) if self.equal(value, candidate)? => return Some(Some(true)),
                        Some(_) => {}
                    }
                }
                Some((!null).then_some(false))
            }
            Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch | Operator::Is => None,
        }
    }

    fn equal(&self, a: &str, b: &str) -> Option<bool> {
        match self.family {
            Family::Text | Family::Uuid | Family::Bool => Some(a == b),
            _ => self.compare(a, b).map(Ordering::is_eq),
        }
    }

    fn compare(&self, a: &str, b: &str) -> Option<Ordering> {
        match self.family {
            Family::Int => Some(a.parse::<i64>().ok()?.cmp(&b.parse::<i64>().ok()?)),
            Family::Numeric => decimals(a, b),
            Family::Float => floats(a, b),
            Family::Bool | Family::Uuid => Some(a.cmp(b)),
            Family::Moment => Some(moment(a)?.cmp(&moment(b)?)),
            Family::Text | Family::Other => None,
        }
    }
}

/// Compares numerics; `NaN` is equal to itself and above all else.
fn decimals(a: &str, b: &str) -> Option<Ordering> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Class {
        Below,
        Finite,
        Above,
        NaN,
    }
    let class = |text: &str| match text {
        "NaN" => Class::NaN,
        "Infinity" => Class::Above,
        "-Infinity" => Class::Below,
        _ => Class::Finite,
    };
    let (of_a, of_b) = (class(a), class(b));
    if of_a != Class::Finite || of_b != Class::Finite {
        return Some(of_a.cmp(&of_b));
    }
    let parts = |text: &str| -> Option<(bool, String, String)> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        // Zero has no sign.
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some((negative, whole.to_owned(), fraction.to_owned()))
    };
    let ((a_negative, a_whole, a_fraction), (b_negative, b_whole, b_fraction)) = (parts(a)?, parts(b)?);
    if a_negative != b_negative {
        return Some(if a_negative { Ordering::Less } else { Ordering::Greater });
    }
    let size = a_whole
        .len()
        .cmp(&b_whole.len())
        .then_with(|| a_whole.cmp(&b_whole))
        .then_with(|| a_fraction.cmp(&b_fraction));
    Some(if a_negative { size.reverse() } else { size })
}

fn floats(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (a.parse::<f64>().ok()?, b.parse::<f64>().ok()?);
    Some(match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b)?,
        (a, b) => a.cmp(&b),
    })
}

/// What dates and timestamps in ISO format are ordered by: whether finite, year, and the rest as text.
fn moment(text: &str) -> Option<(i8, i64, &str)> {
    match text {
        "infinity" => return Some((1, 0, "")),
        "-infinity" => return Some((-1, 0, "")),
        _ => {}
    }
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    // All come in UTC.
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (year, rest) = text.split_once('-')?;
    let year = year.parse::<i64>().ok()?;
    Some((0, if before_christ { 1 - year } else { year }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn parsed(filter: &str) -> Result<Vec<(String, Operator, String, bool)>, String> {
        let conditions = parse(filter)?;
        Ok(conditions.into_iter().map(|c| (c.column, c.operator, c.value, c.negate)).collect())
    }

    #[rstest]
    #[case("id=eq.5", &[("id", Operator::Eq, "5", false)])]
    #[case("", &[])]
    #[case(" body=not.like.a% ", &[("body", Operator::Like, "a%", true)])]
    #[case("id=gt.0,id=lt.100", &[("id", Operator::Gt, "0", false), ("id", Operator::Lt, "100", false)])]
    #[case("name=in.(a,\"b,)c\",d),id=eq.1", &[("name", Operator::In, "{a,\"b,)c\",d}", false), ("id", Operator::Eq, "1", false)])]
    #[case("at=gte.2026-01-01 10:00:00", &[("at", Operator::Gte, "2026-01-01 10:00:00", false)])]
    #[case("body=eq.\"a,b \\\" c\"", &[("body", Operator::Eq, "a,b \" c", false)])]
    #[case("body=eq.a=b.c", &[("body", Operator::Eq, "a=b.c", false)])]
    #[case("body=eq.", &[("body", Operator::Eq, "", false)])]
    fn filters_are_read(#[case] filter: &str, #[case] expected: &[(&str, Operator, &str, bool)]) {
        let expected: Vec<_> =
            expected.iter().map(|&(c, o, v, n)| (c.to_owned(), o, v.to_owned(), n)).collect();
        assert_eq!(parsed(filter).unwrap(), expected);
    }

    #[rstest]
    #[case("undefined", "expected column=operator.value")]
    #[case("subject=foo.hey", "no such operator")]
    #[case("id=eq.1,,id=eq.2", "empty segments")]
    #[case("id=in.1,2", "parentheses")]
    #[case("id=is.5", "must be null")]
    #[case("a=eq.\0", "none of them is zero")]
    fn mistakes_are_named(#[case] filter: &str, #[case] expected: &str) {
        let message = parse(filter).unwrap_err();
        assert!(message.contains(expected), "{message}");
        assert!(parse(&"a=eq.1,".repeat(30)).unwrap_err().contains("25"));
    }

    fn verdict(family: Family, filter: &str, values: &[Option<&str>], value: Option<&str>) -> Verdict {
        let condition = parse(filter).unwrap().remove(0);
        let values = values.iter().map(|value| value.map(str::to_owned)).collect();
        Compiled { condition, column: 0, family, values }.check(value)
    }

    #[rstest]
    #[case(Family::Int, "c=lt.x", "10", "9", Verdict::Yes)]
    #[case(Family::Int, "c=gte.x", "9", "10", Verdict::Yes)]
    #[case(Family::Int, "c=neq.x", "9", "9", Verdict::No)]
    #[case(Family::Numeric, "c=eq.x", "1.50", "1.5", Verdict::Yes)]
    #[case(Family::Numeric, "c=gt.x", "-10.5", "-9", Verdict::Yes)]
    #[case(Family::Numeric, "c=lt.x", "NaN", "Infinity", Verdict::Yes)]
    #[case(Family::Numeric, "c=eq.x", "0", "-0.00", Verdict::Yes)]
    #[case(Family::Float, "c=eq.x", "NaN", "NaN", Verdict::Yes)]
    #[case(Family::Float, "c=lt.x", "1e+20", "99", Verdict::Yes)]
    #[case(Family::Bool, "c=gt.x", "f", "t", Verdict::Yes)]
    #[case(Family::Text, "c=eq.x", "a", "A", Verdict::No)]
    #[case(Family::Text, "c=gt.x", "a", "b", Verdict::Ask)]
    #[case(Family::Moment, "c=gt.x", "2026-01-01 00:00:00+00", "2026-01-01 00:00:00.5+00", Verdict::Yes)]
    #[case(Family::Moment, "c=lt.x", "0001-01-01", "0044-03-15 BC", Verdict::Yes)]
    #[case(Family::Moment, "c=lt.x", "10000-01-01", "9999-12-31", Verdict::Yes)]
    #[case(Family::Moment, "c=lt.x", "infinity", "9999-12-31", Verdict::Yes)]
    #[case(Family::Other, "c=eq.x", "a", "a", Verdict::Ask)]
    #[case(Family::Text, "c=like.x", "a", "a", Verdict::Ask)]
    #[case(Family::Text, "c=not.eq.x", "a", "b", Verdict::Yes)]
    fn values_compare_as_in_postgres(
        #[case] family: Family,
        #[case] filter: &str,
        #[case] wanted: &str,
        #[case] value: &str,
        #[case] expected: Verdict,
    ) {
        assert_eq!(verdict(family, filter, &[Some(wanted)], Some(value)), expected);
    }

    #[rstest]
    #[case("c=eq.1", &[Some("1")], None, Verdict::No)]
    #[case("c=not.eq.1", &[Some("1")], None, Verdict::No)]
    #[case("c=isdistinct.1", &[Some("1")], None, Verdict::Yes)]
    #[case("c=not.isdistinct.1", &[Some("1")], Some("1"), Verdict::Yes)]
    #[case("c=is.null", &[], None, Verdict::Yes)]
    #[case("c=not.is.null", &[], None, Verdict::No)]
    #[case("c=in.(1,null)", &[Some("1"), None], Some("1"), Verdict::Yes)]
    #[case("c=not.in.(1,null)", &[Some("1"), None], Some("2"), Verdict::No)]
    #[case("c=not.in.(1,3)", &[Some("1"), Some("3")], Some("2"), Verdict::Yes)]
    fn nothing_is_equal_to_null(
        #[case] filter: &str,
        #[case] values: &[Option<&str>],
        #[case] value: Option<&str>,
        #[case] expected: Verdict,
    ) {
        assert_eq!(verdict(Family::Int, filter, values, value), expected);
    }

    proptest! {
        #[test]
        fn decimals_are_ordered_as_integers_are(a: i64, b: i64, zeros in 0_usize..4) {
            let b_text = format!("{b}.{}", "0".repeat(zeros));
            prop_assert_eq!(decimals(&a.to_string(), &b_text), Some(a.cmp(&b)));
        }

        #[test]
        fn no_filter_panics(filter in ".*") {
            let _ = parse(&filter);
        }
    }
}
