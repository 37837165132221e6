//! CSV bodies as the JSON array that the statement reads.

use std::collections::BTreeSet;

use bytes::Bytes;

const UNEVEN: &str = "All lines must have same number of fields";

/// Turns CSV with a header line into an array of objects of strings, where `NULL` is null. Gives the array and
/// its keys.
pub(crate) fn csv_to_json(body: &[u8]) -> Result<(Bytes, BTreeSet<String>), String> {
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("parse error (not UTF-8) at byte {}", error.valid_up_to()))?;
    let mut records = Records { rest: text };
    let header = match records.next() {
        Some(header) => header?,
        None => return Err("parse error (not enough input) at \"\"".to_owned()),
    };
    let names: Vec<String> = header
        .iter()
        .map(|name| serde_json::to_string(name).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let mut json = String::with_capacity(body.len() * 2);
    json.push('[');
    for record in records {
        let record = record?;
        // A blank line is no record.
        if record.len() == 1 && record[0].is_empty() {
            continue;
        }
        if record.len() < header.len() {
            return Err(UNEVEN.to_owned());
        }
        json.push_str(if json.len() > 1 { ",{" } else { "{" });
        for (index, (name, value)) in names.iter().zip(&record).enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(name);
            json.push(':');
            if value == "NULL" {
                json.push_str("null");
            } else {
                json.push_str(&serde_json::to_string(value).map_err(|error| error.to_string())?);
            }
        }
        json.push('}');
    }
    let keys = if json.len() > 1 { header.into_iter().collect() } else { BTreeSet::new() };
    json.push(']');
    Ok((json.into(), keys))
}

/// Records of a text, each a list of fields.
struct Records<'a> {
    rest: &'a str,
}

impl Iterator for Records<'_> {
    type Item = Result<Vec<String>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(error) => {
                    self.rest = "";
                    return Some(Err(error));
                }
            }
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let line_end = ["\r\n", "\n", "\r"].iter().find_map(|end| self.rest.strip_prefix(end));
            if let Some(rest) = line_end.or_else(|| self.rest.is_empty().then_some("")) {
                self.rest = rest;
                return Some(Ok(fields));
            }
            let error = malformed("endOfInput", self.rest);
            self.rest = "";
            return Some(Err(error));
        }
    }
}

impl Records<'_> {
    fn field(&mut self) -> Result<String, String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '"', '\n', '\r']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(field.to_owned());
        };
        let mut field = String::new();
        let mut rest = quoted;
        loop {
            let Some((part, after)) = rest.split_once('"') else {
                return Err(malformed("trailing double quote", ""));
            };
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    rest = after;
                }
                None => {
                    self.rest = after;
                    return Ok(field);
                }
            }
        }
    }
}

fn malformed(what: &str, rest: &str) -> String {
    let near: String = rest.chars().take(40).collect();
    format!("parse error ({what}) at {near:?}")
}
