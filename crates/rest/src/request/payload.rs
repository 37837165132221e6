//! Bodies: JSON whose rows have equal keys, CSV, forms, and raw values of functions.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::csv::csv_to_json;
use super::query::parameters;
use super::{MediaType, Payload};
use crate::error::Error;

/// What the body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rows of a relation.
    Rows,
    /// Arguments of a function.
    Arguments,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidBody(message.into())
}

/// Reads a body; gives the payload and the names of the columns or arguments that it sets. With `columns` given,
/// JSON is not looked into.
pub(crate) fn parse(
    body: Bytes,
    content_type: &MediaType,
    columns: Option<&BTreeSet<String>>,
    purpose: Purpose,
) -> Result<(Payload, BTreeSet<String>), Error> {
    let payload = match (content_type, purpose) {
        (MediaType::Json, _) => match columns {
            Some(columns) => {
                let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
                Payload::Json { raw: body, keys: columns.clone(), is_array }
            }
            // A function without arguments may be called without a body.
            None if body.is_empty() && purpose == Purpose::Arguments => {
                Payload::Json { raw: body, keys: BTreeSet::new(), is_array: false }
            }
            None => json(body)?,
        },
        (MediaType::Csv, _) => {
            let (raw, keys) = csv_to_json(&body).map_err(invalid)?;
            Payload::Json { raw, keys, is_array: true }
        }
        (MediaType::Form, _) => {
            let text = String::from_utf8_lossy(&body);
            let fields: Vec<(String, String)> = parameters(&text)
                .into_iter()
                .map(|(key, value)| (key.into_owned(), value.unwrap_or_default().into_owned()))
                .collect();
            match purpose {
                Purpose::Arguments => Payload::Form(fields),
                Purpose::Rows => {
                    let row: serde_json::Map<String, serde_json::Value> =
                        fields.into_iter().map(|(key, value)| (key, value.into())).collect();
                    let keys = row.keys().cloned().collect();
                    let raw = serde_json::to_vec(&row).map_err(|error| Error::Internal(error.to_string()))?;
                    Payload::Json { raw: raw.into(), keys, is_array: false }
                }
            }
        }
        (MediaType::Text | MediaType::Xml | MediaType::OctetStream, Purpose::Arguments) => Payload::Raw(body),
        _ => return Err(invalid(format!("Content-Type not acceptable: {content_type}"))),
    };
    let keys = match &payload {
        Payload::Json { keys, .. } => keys.clone(),
        Payload::Form(fields) => fields.iter().map(|(key, _)| key.clone()).collect(),
        Payload::Raw(_) => BTreeSet::new(),
    };
    Ok((payload, keys))
}

/// Checks JSON and collects its keys in one pass, without building it.
fn json(body: Bytes) -> Result<Payload, Error> {
    const MALFORMED: &str = "Empty or invalid json";
    let text = std::str::from_utf8(&body).map_err(|_| invalid(MALFORMED))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document = deserializer.deserialize_any(DocumentVisitor).map_err(|_| invalid(MALFORMED))?;
    deserializer.end().map_err(|_| invalid(MALFORMED))?;
    match document {
        Document::Object(keys) => Ok(Payload::Json { raw: body, keys: keys.into_set(), is_array: false }),
        Document::Array(Some(keys)) => Ok(Payload::Json { raw: body, keys: keys.into_set(), is_array: true }),
        Document::Uneven => Err(invalid("All object keys must match")),
        // Neither an object nor an array counts as no rows.
        Document::Array(None) | Document::Scalar => {
            Ok(Payload::Json { raw: Bytes::from_static(b"[]"), keys: BTreeSet::new(), is_array: true })
        }
    }
}

enum Document {
    Object(Keys),
    Array(Option<Keys>),
    Scalar,
    Uneven,
}

/// Keys of an object in order of appearance.
#[derive(Default)]
struct Keys(Vec<String>);

impl Keys {
    fn into_set(self) -> BTreeSet<String> {
        self.0.into_iter().collect()
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        Ok(Document::Object(first_row(&mut map)?))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Document, A::Error> {
        let mut keys: Option<Keys> = None;
        let mut even = true;
        while let Some(row_fits) = rows.next_element_seed(Row(&mut keys))? {
            even &= row_fits;
        }
        Ok(if even { Document::Array(keys) } else { Document::Uneven })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Document, E> {
        Ok(Document::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Document, E> {
        Ok(Document::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Document, E> {
        Ok(Document::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Document, E> {
        Ok(Document::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Document, E> {
        Ok(Document::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Scalar)
    }
}

fn first_row<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Keys, A::Error> {
    let mut keys = Keys::default();
    while let Some(key) = map.next_key_seed(Key)? {
        keys.0.push(key.into_owned());
        map.next_value::<IgnoredAny>()?;
    }
    Ok(keys)
}

/// One element of an array: whether it is an object with the keys of the first.
struct Row<'k>(&'k mut Option<Keys>);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Some(keys) = self.0 else {
            *self.0 = Some(first_row(&mut map)?);
            return Ok(true);
        };
        // Rows of one producer have their keys in one order; only others are compared as sets.
        let mut at = 0;
        let mut stray: Vec<String> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            if stray.is_empty() && keys.0.get(at).is_some_and(|expected| *expected == key) {
                at += 1;
            } else {
                stray.push(key.into_owned());
            }
            map.next_value::<IgnoredAny>()?;
        }
        if stray.is_empty() && at == keys.0.len() {
            return Ok(true);
        }
        let row: BTreeSet<&str> = keys.0[..at].iter().chain(&stray).map(String::as_str).collect();
        let wanted: BTreeSet<&str> = keys.0.iter().map(String::as_str).collect();
        Ok(row == wanted)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// A key, borrowed from the body unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        check(key)?;
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        check(key)?;
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// Keys become identifiers, which Postgres could not have with a zero in them.
fn check<E: serde::de::Error>(key: &str) -> Result<(), E> {
    if key.contains('\0') { Err(E::custom("zero in a key")) } else { Ok(()) }
}
