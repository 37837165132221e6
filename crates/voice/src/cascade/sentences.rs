//! From streamed text to sentences that can be spoken one by one.

use super::language::Language;

/// A sentence shorter than this waits for the next one, unless it is the first.
const SHORT: usize = 10;
/// The first sentence may end at a clause from here on, so that speech begins soon.
const FIRST_CLAUSE: usize = 60;
/// Later ones from here on.
const CLAUSE: usize = 220;
/// Nothing longer than this is spoken in one piece.
const LONGEST: usize = 400;
/// A stage direction that does not end within this many bytes is none.
const LONGEST_DIRECTION: usize = 240;

/// Cuts streamed text into sentences. Pure: the same text gives the same sentences, however it is chunked, as long as
/// none is longer than a clause may be.
#[derive(Debug, Clone)]
pub struct Sentences {
    language: Language,
    buffer: String,
    first: bool,
}

impl Sentences {
    /// For text of one answer.
    pub fn new(language: Language) -> Self {
        Self { language, buffer: String::new(), first: true }
    }

    /// Takes the next piece and appends complete sentences to `out`.
    pub fn push(&mut self, piece: &str, out: &mut Vec<String>) {
        self.buffer.push_str(piece);
        while let Some(end) = self.boundary() {
            let rest = self.buffer.split_off(end);
            let sentence = std::mem::replace(&mut self.buffer, rest);
            self.emit(&sentence, out);
        }
    }

    /// The text is over: the rest is a sentence, if there is any.
    pub fn finish(&mut self, out: &mut Vec<String>) {
        let rest = std::mem::take(&mut self.buffer);
        self.emit(&rest, out);
    }

    fn emit(&mut self, sentence: &str, out: &mut Vec<String>) {
        let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
        if sentence.chars().any(char::is_alphanumeric) {
            self.first = false;
            out.push(sentence);
        }
    }

    /// Byte position after the first sentence of the buffer.
    fn boundary(&self) -> Option<usize> {
        let text = &self.buffer;
        let from = text.len() - text.trim_start().len();
        let mut last_clause = None;
        let mut last_space = None;
        let mut chars = text.char_indices().skip_while(|(at, _)| *at < from).peekable();
        while let Some((at, c)) = chars.next() {
            let length = at - from;
            let limit = if self.first { FIRST_CLAUSE } else { CLAUSE };
            if length >= limit
                && let Some(clause) = last_clause
            {
                return Some(clause);
            }
            if length >= LONGEST {
                return Some(last_space.unwrap_or(at));
            }
            match c {
                '\n' if length > 0 => return Some(at + 1),
                '.' | '!' | '?' | '…' | ';' => {
                    if let Some(end) = self.sentence_end(from, at, c) {
                        let short = end - from < SHORT && !self.first;
                        if !short {
                            return Some(end);
                        }
                    }
                }
                ',' | ':' | '–' | '—' if chars.peek().is_some_and(|(_, next)| next.is_whitespace()) => {
                    // "um 9, 10 oder 11 Uhr": a number's neighbours stay together.
                    let number = text[from..at].ends_with(|c: char| c.is_ascii_digit());
                    if length + 1 >= SHORT * 2 && !number {
                        last_clause = Some(at + c.len_utf8());
                    }
                }
                c if c.is_whitespace() => last_space = Some(at),
                _ => {}
            }
        }
        None
    }

    /// Where the sentence ends whose terminator is at `at`; `None` when it goes on or more text is needed to tell.
    fn sentence_end(&self, from: usize, at: usize, terminator: char) -> Option<usize> {
        let text = &self.buffer;
        let mut end = at + terminator.len_utf8();
        let mut rest = text[end..].chars();
        let mut next = rest.next()?;
        // Terminators come in groups, and quotes and brackets close after them.
        while matches!(next, '.' | '!' | '?' | '…' | '"' | '\'' | '”' | '’' | '»' | ')' | ']') {
            end += next.len_utf8();
            next = rest.next()?;
        }
        if !next.is_whitespace() {
            return None;
        }
        let follows = text[end..].chars().find(|c| !c.is_whitespace() || *c == '\n');
        if terminator != '.' {
            // French puts a space before these; what closes a quotation comes after another.
            return match follows? {
                '»' | '!' | '?' => None,
                _ => Some(end),
            };
        }
        let follows = follows?;
        if follows == '\n' {
            return Some(end);
        }
        if follows.is_lowercase() {
            return None;
        }
        let before = &text[from..at];
        let word =
            before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '«' | '“' | '¿' | '¡'));
        let word = word.into_iter().next().unwrap_or_default();
        let lower = word.to_lowercase();
        if self.language.titles().contains(&lower.as_str()) {
            return None;
        }
        let mut letters = word.chars();
        if let (Some(initial), None) = (letters.next(), letters.next())
            && initial.is_alphabetic()
        {
            // "J. Smith", but "vitamin C. Then": nobody can tell; speech loses nothing by waiting.
            return None;
        }
        let digits = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
        if digits && self.language == Language::German && word.len() <= 2 {
            return None; // an ordinal: "am 3. Mai"
        }
        if digits && before.trim_end_matches(|c: char| c.is_ascii_digit()).trim().is_empty() {
            return None; // a list's number
        }
        if self.language.endings().contains(&lower.as_str()) && !follows.is_uppercase() {
            return None;
        }
        Some(end)
    }
}

/// Removes from streamed text what is not spoken: stage directions and Markdown.
///
/// `*smiles*` and `(smiles)` go where a sentence or line could begin; emphasis in the middle of one only loses its
/// stars, and brackets there are kept.
#[derive(Debug, Clone)]
pub struct Directions {
    /// Text that may be a direction: held back until it ends.
    held: String,
    /// What ends it.
    until: Option<char>,
    star: bool,
    /// The last visible character that was let through.
    last: Option<char>,
    line_start: bool,
}

impl Default for Directions {
    fn default() -> Self {
        Self { held: String::new(), until: None, star: false, last: None, line_start: true }
    }
}

impl Directions {
    /// Takes the next piece; returns what of it (and of what was held) is to be spoken.
    pub fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        for c in piece.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// The text is over: what was held and never ended was no direction.
    pub fn finish(&mut self) -> String {
        self.star = false;
        self.until = None;
        std::mem::take(&mut self.held)
    }

    fn take(&mut self, c: char, out: &mut String) {
        if let Some(end) = self.until {
            if c == end {
                self.held.clear();
                self.until = None;
            } else if c == '\n' || self.held.len() >= LONGEST_DIRECTION {
                self.until = None;
                if end == ')' {
                    self.emit('(', out);
                }
                for kept in std::mem::take(&mut self.held).chars().chain([c]) {
                    self.emit(kept, out);
                }
            } else {
                self.held.push(c);
            }
            return;
        }
        if std::mem::take(&mut self.star) {
            if c == '*' {
                return; // bold
            }
            // One star: a direction where a sentence may begin, otherwise emphasis.
            if self.at_start() && !c.is_whitespace() {
                self.until = Some('*');
                self.held.push(c);
                return;
            }
        }
        match c {
            '*' => self.star = true,
            '(' if self.at_start() => self.until = Some(')'),
            '`' => {}
            '#' if self.line_start => {}
            _ => self.emit(c, out),
        }
    }

    fn emit(&mut self, c: char, out: &mut String) {
        out.push(c);
        if c == '\n' {
            self.line_start = true;
        } else if !c.is_whitespace() {
            self.line_start = false;
        }
        if !c.is_whitespace() {
            self.last = Some(c);
        }
    }

    fn at_start(&self) -> bool {
        self.line_start
            || matches!(self.last, None | Some('.' | '!' | '?' | '…' | '"' | '”' | '»' | ':' | ';'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(language: Language, text: &str) -> Vec<String> {
        let mut sentences = Sentences::new(language);
        let mut out = Vec::new();
        sentences.push(text, &mut out);
        sentences.finish(&mut out);
        out
    }

    #[test]
    fn sentences_end_where_people_would_end_them() {
        use Language::{English, French, German, Italian, Spanish};
        for (language, text, expected) in [
            (English, "We open at nine. We close at six.", &["We open at nine.", "We close at six."][..]),
            (English, "Ask Dr. Smith about it. He knows.", &["Ask Dr. Smith about it.", "He knows."]),
            (
                English,
                "It is 3.5 miles, e.g. Main St. North. Turn left!",
                &["It is 3.5 miles, e.g. Main St. North.", "Turn left!"],
            ),
            (
                English,
                "Come at 9 a.m. tomorrow. Or at 5 p.m. Tell me which.",
                &["Come at 9 a.m. tomorrow.", "Or at 5 p.m.", "Tell me which."],
            ),
            (English, "\"Really?\" she asked. Yes.", &["\"Really?\"", "she asked.", "Yes."]),
            (
                English,
                "Well... I think so. J. K. Rowling wrote it.",
                &["Well...", "I think so.", "J. K. Rowling wrote it."],
            ),
            (
                Spanish,
                "Hola, Sr. Gómez. ¿Cómo está? ¡Qué bien!",
                &["Hola, Sr. Gómez.", "¿Cómo está?", "¡Qué bien!"],
            ),
            (Spanish, "Son 1.250,50 euros. Gracias.", &["Son 1.250,50 euros.", "Gracias."]),
            (
                French,
                "Bonjour M. Dupont. Vous allez bien ? Oui, très bien !",
                &["Bonjour M. Dupont.", "Vous allez bien ?", "Oui, très bien !"],
            ),
            (
                German,
                "Am 3. Mai um 10 Uhr. Passt das, z. B. bei Dr. Weiß? Gut.",
                &["Am 3. Mai um 10 Uhr.", "Passt das, z. B. bei Dr. Weiß?", "Gut."],
            ),
            (
                Italian,
                "Buongiorno sig. Rossi. Il dott. Bianchi arriva alle 9.30. Va bene?",
                &["Buongiorno sig. Rossi.", "Il dott. Bianchi arriva alle 9.30.", "Va bene?"],
            ),
            (English, "First line\nsecond line", &["First line", "second line"]),
            (English, "  ... ", &[]),
        ] {
            assert_eq!(cut(language, text), expected, "{language:?}: {text}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_clauses_and_spaces() {
        let clauses = "this is a clause that goes on for a while, ".repeat(20);
        let pieces = cut(Language::English, &clauses);
        assert!(pieces[0].len() <= FIRST_CLAUSE + 40 && pieces[0].ends_with(','), "{:?}", pieces[0]);
        assert!(pieces.iter().all(|p| p.len() <= LONGEST));
        let words = "word ".repeat(300);
        assert!(
            cut(Language::English, &words)
                .iter()
                .all(|p| p.len() <= LONGEST && p.split(' ').all(|w| w == "word"))
        );
    }

    #[test]
    fn the_first_sentence_comes_out_as_soon_as_the_next_begins() {
        let mut sentences = Sentences::new(Language::English);
        let mut out = Vec::new();
        sentences.push("Hi! H", &mut out);
        assert_eq!(out, ["Hi!"]);
        sentences.push("ow are you? ", &mut out);
        assert_eq!(out.len(), 1);
        sentences.push("F", &mut out);
        assert_eq!(out[1], "How are you?");
    }

    #[test]
    fn stage_directions_and_markdown_are_not_spoken() {
        for (text, spoken) in [
            ("*smiles* Hello there. (waves) Come in.", " Hello there.  Come in."),
            ("That is *really* good (I think).", "That is really good (I think)."),
            ("**Bold** words and `code`.", "Bold words and code."),
            ("# Title\nText", " Title\nText"),
            ("2 * 3 is 6", "2  3 is 6"),
        ] {
            let mut whole = Directions::default();
            let mut once = whole.push(text);
            once.push_str(&whole.finish());
            assert_eq!(once, spoken, "{text}");
            let mut pieces = Directions::default();
            let mut by_char: String = text.chars().map(|c| pieces.push(c.encode_utf8(&mut [0; 4]))).collect();
            by_char.push_str(&pieces.finish());
            assert_eq!(by_char, once, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_word_is_lost_or_invented(text in "([a-zA-ZäßéÑ0-9]{1,9}[ ,.!?;:\n\"')]{1,3}){0,60}", cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let mut sentences = Sentences::new(Language::English);
            let mut out = Vec::new();
            let chars: Vec<char> = text.chars().collect();
            let (mut at, mut turn) = (0, 0);
            while at < chars.len() {
                let end = (at + cuts[turn % cuts.len()]).min(chars.len());
                sentences.push(&chars[at..end].iter().collect::<String>(), &mut out);
                (at, turn) = (end, turn + 1);
            }
            sentences.finish(&mut out);
            let words = |s: &str| super::super::language::normalised(s);
            let spoken: Vec<String> = out.iter().flat_map(|s| words(s)).collect();
            prop_assert_eq!(spoken, words(&text));
            prop_assert!(out.iter().all(|s| s.len() <= LONGEST + 16));
        }

        #[test]
        fn directions_never_panic(text in "[a-z*()`#\n .]{0,200}") {
            let mut directions = Directions::default();
            let mut out = directions.push(&text);
            out.push_str(&directions.finish());
            prop_assert!(out.len() <= text.len());
        }
    }
}
