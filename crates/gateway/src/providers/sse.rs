//! Server-sent events, decoded from bytes that arrive in any pieces (WHATWG HTML, section 9.2).

/// Largest event. The largest real ones carry a whole answer or a picture preview.
const MOST_BYTES: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event` field; empty if there was none.
    pub(crate) kind: String,
    /// The `data` fields, joined by line feeds.
    pub(crate) data: String,
}

/// An event larger than any that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Oversized;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Bytes of lines that are not complete yet.
    buffer: Vec<u8>,
    /// How much of `buffer` has been read.
    read: usize,
    kind: String,
    data: String,
    has_data: bool,
    started: bool,
}

impl Decoder {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Oversized> {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        if self.buffer.len() + self.data.len() + bytes.len() > MOST_BYTES {
            return Err(Oversized);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                if std::mem::take(&mut self.has_data) {
                    return Some(Event { kind, data });
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.kind),
                "data" => {
                    if self.has_data {
                        self.data.push('\n');
                    }
                    self.has_data = true;
                    self.data.push_str(value);
                }
                // Comments (`: keep-alive`), `id`, `retry` and fields to come say nothing to us.
                _ => {}
            }
        }
        None
    }

    /// The next complete line without its end: CR, LF or both.
    fn line(&mut self) -> Option<String> {
        let rest = &self.buffer[self.read..];
        let end = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r')?;
        let mut skip = 1;
        if rest[end] == b'\r' {
            match rest.get(end + 1) {
                Some(b'\n') => skip = 2,
                Some(_) => {}
                // Whether a line feed follows decides whether the next line is empty: wait for it.
                None => return None,
            }
        }
        let mut line = &rest[..end];
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let line = String::from_utf8_lossy(line).into_owned();
        self.read += end + skip;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<(String, String)> {
        std::iter::from_fn(|| decoder.next()).map(|event| (event.kind, event.data)).collect()
    }

    #[rstest]
    #[case("data: a\n\n", &[("", "a")])]
    #[case("\u{feff}data: a\n\n", &[("", "a")])]
    #[case("event: x\ndata:a\ndata: b\n\n", &[("x", "a\nb")])]
    #[case("event: x\n\ndata: b\n\n", &[("", "b")])]
    #[case("data: a\r\n\r\ndata: b\r\n\r\n", &[("", "a"), ("", "b")])]
    #[case(": ping\n\nid: 1\ndata\n\n", &[("", "")])]
    #[case("data: a: b\n\n", &[("", "a: b")])]
    #[case("data: a\n", &[])]
    fn events(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let mut decoder = Decoder::default();
        decoder.push(text.as_bytes()).unwrap();
        let expected: Vec<_> = expected.iter().map(|(k, d)| ((*k).to_owned(), (*d).to_owned())).collect();
        assert_eq!(all(&mut decoder), expected);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = [b'x'; 1 << 20];
        let refused = (0..16).any(|_| {
            let refused = decoder.push(&chunk).is_err();
            assert!(decoder.next().is_none());
            refused
        });
        assert!(refused);
    }

    proptest! {
        /// Where the network cuts the bytes must not matter.
        #[test]
        fn pieces_do_not_matter(
            lines in prop::collection::vec("(data|event|: c)?(: ?)?[a-zß☃]{0,6}", 0..20),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\n\n"]), 20),
            cuts in prop::collection::vec(1_usize..7, 1..50),
        ) {
            let mut text: String = lines.iter().zip(&ends).map(|(line, end)| format!("{line}{end}")).collect();
            text.push_str("\n\n");
            let mut whole = Decoder::default();
            whole.push(text.as_bytes()).unwrap();
            let mut pieces = Decoder::default();
            let mut found = Vec::new();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let cut = (*cuts.next().unwrap()).min(rest.len());
                pieces.push(&rest[..cut]).unwrap();
                found.extend(all(&mut pieces));
                rest = &rest[cut..];
            }
            prop_assert_eq!(found, all(&mut whole));
        }
    }
}
