//! `multipart/form-data`, as far as uploads of the vendor's clients go.

use super::reply::Asked;

/// The fields of a form.
pub(super) struct Form<'a> {
    fields: Vec<(String, bool, &'a [u8])>,
}

impl<'a> Form<'a> {
    /// The error says what is wrong; the vendor words it.
    pub(super) fn read(asked: &'a Asked<'_>) -> Result<Self, String> {
        let invalid = |why: &str| format!("Could not parse multipart form: {why}.");
        let mime = asked.header("content-type").unwrap_or_default();
        let boundary = mime
            .strip_prefix("multipart/form-data")
            .and_then(|rest| rest.split("boundary=").nth(1))
            .map(|rest| rest.split(';').next().unwrap_or(rest).trim_matches('"'))
            .ok_or_else(|| invalid("the content type must be multipart/form-data with a boundary"))?;
        let delimiter = format!("--{boundary}");
        let mut fields = Vec::new();
        let mut rest = asked
            .body
            .strip_prefix(delimiter.as_bytes())
            .ok_or_else(|| invalid("it does not begin with the boundary"))?;
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let end = find(part, format!("\r\n{delimiter}").as_bytes())
                .ok_or_else(|| invalid("a part does not end"))?;
            let (part, after) = (&part[..end], &part[end + 2 + delimiter.len()..]);
            let split = find(part, b"\r\n\r\n").ok_or_else(|| invalid("a part has no header"))?;
            let header = String::from_utf8_lossy(&part[..split]);
            let attribute = |name: &str| {
                let at = header.find(&format!("; {name}=\""))? + name.len() + 4;
                header[at..].split('"').next().map(str::to_owned)
            };
            let name = attribute("name").ok_or_else(|| invalid("a part has no name"))?;
            fields.push((name, attribute("filename").is_some(), &part[split + 4..]));
            rest = after;
        }
        if rest.starts_with(b"--") { Ok(Self { fields }) } else { Err(invalid("it does not end")) }
    }

    /// The first field that is not among these.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.fields.iter().map(|(name, ..)| name.as_str()).find(|name| !known.contains(name))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (.., value) = self.fields.iter().find(|(found, file, _)| found == name && !file)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub(super) fn file(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|(found, file, _)| found == name && *file).map(|(.., value)| *value)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
