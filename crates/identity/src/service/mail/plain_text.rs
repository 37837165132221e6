//! The text part of a mail, made of its HTML part.

/// Elements whose content is not for readers.
const SILENT: &[&str] = &["head", "style", "script", "title", "template"];
/// Elements that begin a line of their own.
const BLOCKS: &[&str] = &[
    "p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "tr", "section", "header", "footer",
    "hr", "main",
];

/// Readable text with the same words and links.
pub(super) fn of_html(html: &str) -> String {
    let mut out = Text::default();
    let mut rest = html;
    let mut silent: Option<String> = None;
    let mut links: Vec<(String, usize)> = Vec::new();
    while let Some(start) = rest.find('<') {
        let (text, tagged) = rest.split_at(start);
        if silent.is_none() {
            out.words(&decoded(text));
        }
        if let Some(comment) = tagged.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some(end) = tag_end(tagged) else {
            rest = "";
            break;
        };
        let tag = &tagged[1..end];
        rest = &tagged[end + 1..];
        let closing = tag.starts_with('/');
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        if let Some(until) = &silent {
            if closing && *until == name {
                silent = None;
            }
            continue;
        }
        match name.as_str() {
            name if SILENT.contains(&name) && !closing && !tag.ends_with('/') => {
                silent = Some(name.to_owned());
            }
            name if BLOCKS.contains(&name) => out.lines(2),
            "br" => out.lines(1),
            "li" if !closing => {
                out.lines(1);
                out.words("- ");
            }
            "a" if closing => {
                if let Some((target, from)) = links.pop()
                    && !target.is_empty()
                    && out.since(from).trim() != target
                {
                    out.words(&format!(" ({target})"));
                }
            }
            "a" => links.push((attribute(tag, "href").unwrap_or_default(), out.length())),
            _ => {}
        }
    }
    if silent.is_none() {
        out.words(&decoded(rest));
    }
    out.finish()
}

/// Text whose white space means as little as in HTML.
#[derive(Default)]
struct Text {
    out: String,
    /// Line ends that are due before the next word.
    due: usize,
    space: bool,
}

impl Text {
    fn words(&mut self, text: &str) {
        for (index, word) in text.split_whitespace().enumerate() {
            let spaced = index > 0 || self.space || text.starts_with(char::is_whitespace);
            if self.due > 0 {
                if !self.out.is_empty() {
                    self.out.push_str(&"\n".repeat(self.due));
                }
                self.due = 0;
            } else if spaced && !self.out.is_empty() && !self.out.ends_with([' ', '\n']) {
                self.out.push(' ');
            }
            self.out.push_str(word);
            self.space = false;
        }
        self.space |= text.ends_with(char::is_whitespace);
    }

    fn lines(&mut self, count: usize) {
        self.due = self.due.max(count);
        self.space = false;
    }

    fn length(&self) -> usize {
        self.out.len()
    }

    fn since(&self, from: usize) -> &str {
        self.out.get(from..).unwrap_or_default()
    }

    fn finish(self) -> String {
        format!("{}\n", self.out.trim_end())
    }
}

/// Where a tag ends: `>` in quotes is none.
fn tag_end(tagged: &str) -> Option<usize> {
    let mut quote = None;
    tagged.char_indices().find_map(|(index, character)| {
        match (quote, character) {
            (None, '>') => return Some(index),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        None
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let at = lower.find(&format!(" {name}="))? + name.len() + 2;
    let value = tag.get(at..)?;
    let value = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split(|c: char| c.is_whitespace() || c == '>').next()?,
    };
    Some(decoded(value))
}

/// Character references, as far as templates use them.
fn decoded(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        let reference = &rest[start + 1..];
        let name = reference.split(';').next().unwrap_or_default();
        let character = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some(' '),
            "copy" => Some('©'),
            "mdash" => Some('—'),
            "ndash" => Some('–'),
            "hellip" => Some('…'),
            _ => name.strip_prefix('#').and_then(|number| {
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                code.ok().and_then(char::from_u32)
            }),
        };
        match character.filter(|_| reference.len() > name.len()) {
            Some(character) => {
                out.push(character);
                rest = &reference[name.len() + 1..];
            }
            None => {
                out.push('&');
                rest = reference;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("<p>One</p>\n<p>Two  three</p>", "One\n\nTwo three\n")]
    #[case("a<br>b<br/>c", "a\nb\nc\n")]
    #[case("<head><title>No</title><style>p{}</style></head><p>Yes</p>", "Yes\n")]
    #[case("Go <a href=\"https://a.b/?x=1&amp;y=2\">there</a>.", "Go there (https://a.b/?x=1&y=2).\n")]
    #[case("<a href='https://a.b'>https://a.b</a>", "https://a.b\n")]
    #[case("<a href=\"https:&#x2f;&#x2f;a.b\">x</a>", "x (https://a.b)\n")]
    #[case("<ul><li>one</li><li>two</li></ul>", "- one\n- two\n")]
    #[case("5 &lt; 6 &amp;&nbsp;7 &unknown; AT&T", "5 < 6 & 7 &unknown; AT&T\n")]
    #[case("a<!-- <p>no</p> -->b", "ab\n")]
    #[case("<img alt=\">\">x", "x\n")]
    #[case("unfinished <a", "unfinished\n")]
    #[case("<b>Bold</b> and <i>so</i>on", "Bold and soon\n")]
    fn reads_like_the_page(#[case] html: &str, #[case] expected: &str) {
        assert_eq!(of_html(html), expected);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(html in "[<>/a-z\"'=& ;#!\\-é]{0,60}") {
            let _ = of_html(&html);
        }
    }
}
