//! Values of rows: from Postgres' text format to JSON, as `to_jsonb` writes them.

use serde_json::value::RawValue;

/// Oids of the types that are built in.
pub(super) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
}

/// How a type's values become JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    Text,
    Bool,
    /// A number, but for `NaN` and infinities.
    Number,
    Json,
    /// With a `T` between date and time.
    Timestamp,
    /// The same with minutes in its offset.
    TimestampTz,
    /// Elements and what stands between them.
    Array(Box<Kind>, char),
    /// Fields with their names.
    Composite(Vec<(String, Kind)>),
}

impl Kind {
    /// Of a type that is built in and not made of others.
    pub(super) fn of(type_oid: u32) -> Self {
        match type_oid {
            oid::BOOL => Self::Bool,
            oid::INT8 | oid::INT2 | oid::INT4 | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC => Self::Number,
            oid::JSON | oid::JSONB => Self::Json,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::TimestampTz,
            _ => Self::Text,
        }
    }

    /// Appends a value as JSON.
    pub(super) fn write(&self, text: &str, out: &mut String) {
        match self {
            Self::Text => write_string(text, out),
            Self::Bool => out.push_str(if text.starts_with('t') { "true" } else { "false" }),
            Self::Number => match text.as_bytes().last() {
                Some(b'0'..=b'9') => out.push_str(text),
                _ => write_string(text, out),
            },
            // Postgres has checked it. What it allows beyond our reader is still a string to a client.
            Self::Json => match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) => out.push_str(raw.get()),
                Err(_) => write_string(text, out),
            },
            Self::Timestamp => write_string(&text.replacen(' ', "T", 1), out),
            Self::TimestampTz => {
                let mut value = text.replacen(' ', "T", 1);
                let (moment, era) = match value.strip_suffix(" BC") {
                    Some(moment) => (moment.len(), " BC"),
                    None => (value.len(), ""),
                };
                value.truncate(moment);
                if matches!(value.as_bytes(), [.., b'+' | b'-', b'0'..=b'9', b'0'..=b'9']) {
                    value.push_str(":00");
                }
                value.push_str(era);
                write_string(&value, out);
            }
            Self::Array(element, delimiter) => {
                let start = out.len();
                if write_array(text, element, *delimiter, out).is_none() {
                    out.truncate(start);
                    write_string(text, out);
                }
            }
            Self::Composite(fields) => {
                let start = out.len();
                if write_composite(text, fields, out).is_none() {
                    out.truncate(start);
                    write_string(text, out);
                }
            }
        }
    }
}

/// Appends a JSON string.
pub(super) fn write_string(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(json) => out.push_str(&json),
        Err(_) => out.push_str("null"),
    }
}

/// `{1,2,NULL,"a \"b\""}`, nested for more dimensions, with bounds in front where they are not 1.
fn write_array(text: &str, element: &Kind, delimiter: char, out: &mut String) -> Option<()> {
    let body = match text.strip_prefix('[') {
        Some(_) => text.split_once('=')?.1,
        None => text,
    };
    let mut rest = body;
    array_level(&mut rest, element, delimiter, out, 0)?;
    rest.is_empty().then_some(())
}

fn array_level(rest: &mut &str, element: &Kind, delimiter: char, out: &mut String, depth: u8) -> Option<()> {
    // Postgres has six dimensions.
    if depth > 6 {
        return None;
    }
    *rest = rest.strip_prefix('{')?;
    out.push('[');
    if let Some(after) = rest.strip_prefix('}') {
        *rest = after;
        out.push(']');
        return Some(());
    }
    loop {
        if rest.starts_with('{') {
            array_level(rest, element, delimiter, out, depth + 1)?;
        } else {
            let (value, quoted) = item(rest, |c| c == delimiter || c == '}')?;
            match value.as_str() {
                "NULL" if !quoted => out.push_str("null"),
                value => element.write(value, out),
            }
        }
        if let Some(after) = rest.strip_prefix(delimiter) {
            *rest = after;
            out.push(',');
        } else {
            *rest = rest.strip_prefix('}')?;
            out.push(']');
            return Some(());
        }
    }
}

/// `(1,,"a ""b""")`: nothing between two commas is null.
fn write_composite(text: &str, fields: &[(String, Kind)], out: &mut String) -> Option<()> {
    let mut rest = text.strip_prefix('(')?;
    out.push('{');
    for (index, (name, kind)) in fields.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(',')?;
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        if rest.starts_with([',', ')']) {
            out.push_str("null");
        } else {
            let (value, _) = item(&mut rest, |c| c == ',' || c == ')')?;
            kind.write(&value, out);
        }
    }
    out.push('}');
    (rest == ")").then_some(())
}

/// A value up to its end, without quotes and escapes, and whether it was quoted.
fn item(rest: &mut &str, ends: impl Fn(char) -> bool) -> Option<(String, bool)> {
    let mut value = String::new();
    let (mut inside, mut quoted) = (false, false);
    let mut chars = rest.char_indices().peekable();
    loop {
        let (index, c) = chars.next()?;
        match c {
            '\\' => value.push(chars.next()?.1),
            '"' if inside && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                chars.next();
                value.push('"');
            }
            '"' => {
                inside = !inside;
                quoted = true;
            }
            c if !inside && ends(c) => {
                *rest = &rest[index..];
                return Some((value, quoted));
            }
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn array(of: Kind) -> Kind {
        Kind::Array(Box::new(of), ',')
    }

    #[rstest]
    #[case(Kind::Bool, "t", "true")]
    #[case(Kind::Number, "-1.50", "-1.50")]
    #[case(Kind::Number, "1e+20", "1e+20")]
    #[case(Kind::Number, "NaN", "\"NaN\"")]
    #[case(Kind::Number, "-Infinity", "\"-Infinity\"")]
    #[case(Kind::Json, "{\"a\": [1, null]}", "{\"a\": [1, null]}")]
    #[case(Kind::Text, "a \"b\"\n", "\"a \\\"b\\\"\\n\"")]
    #[case(Kind::Timestamp, "2026-01-02 03:04:05.6", "\"2026-01-02T03:04:05.6\"")]
    #[case(Kind::TimestampTz, "2026-01-02 03:04:05+00", "\"2026-01-02T03:04:05+00:00\"")]
    #[case(Kind::TimestampTz, "0044-03-15 12:00:00+00 BC", "\"0044-03-15T12:00:00+00:00 BC\"")]
    #[case(Kind::TimestampTz, "infinity", "\"infinity\"")]
    #[case(array(Kind::Number), "{}", "[]")]
    #[case(array(Kind::Number), "{{1,2},{3,NULL}}", "[[1,2],[3,null]]")]
    #[case(array(Kind::Number), "[0:1]={1,2}", "[1,2]")]
    #[case(array(Kind::Text), r#"{a,"b,c","NULL",NULL,"d\"\\"}"#, r#"["a","b,c","NULL",null,"d\"\\"]"#)]
    #[case(array(Kind::Json), r#"{"{\"a\": 1}"}"#, r#"[{"a": 1}]"#)]
    #[case(array(Kind::Number), "{1,2", "\"{1,2\"")]
    fn values_become_json(#[case] kind: Kind, #[case] text: &str, #[case] expected: &str) {
        let mut out = String::new();
        kind.write(text, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn composites_become_objects() {
        let kind = Kind::Composite(vec![
            ("n".into(), Kind::Number),
            ("nothing".into(), Kind::Text),
            ("t".into(), array(Kind::Text)),
        ]);
        let mut out = String::new();
        kind.write(r#"(1,,"{a,""b c""}")"#, &mut out);
        assert_eq!(out, r#"{"n":1,"nothing":null,"t":["a","b c"]}"#);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_valid_json(text in ".*") {
            for kind in [Kind::Text, Kind::Json, Kind::TimestampTz, array(Kind::Text), array(array(Kind::Json))] {
                let mut out = String::new();
                kind.write(&text, &mut out);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
            }
        }
    }
}
