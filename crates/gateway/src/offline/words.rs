//! Words and sentences.

use std::collections::BTreeSet;

/// Words that say little, in five languages.
const COMMON: &[&str] = &[
    "a", "about", "an", "and", "are", "as", "at", "be", "but", "by", "can", "could", "do", "does", "for",
    "from", "give", "has", "have", "how", "i", "in", "is", "it", "its", "like", "me", "my", "of", "on", "or",
    "our", "please", "so", "some", "tell", "that", "the", "their", "them", "there", "they", "this", "to",
    "us", "want", "was", "we", "what", "when", "where", "which", "who", "why", "will", "with", "would",
    "you", "your", "el", "la", "los", "las", "de", "que", "y", "en", "un", "una", "es", "por", "para", "con",
    "le", "les", "des", "et", "est", "une", "du", "pour", "avec", "der", "die", "das", "und", "ist", "ein",
    "eine", "mit", "von", "zu", "ich", "sie", "il", "lo", "gli", "di", "che", "per", "non",
];

/// The words of a text, in lower case.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// The words that carry a text's meaning, without common endings.
pub(super) fn key_words(text: &str) -> BTreeSet<String> {
    let stem = |word: String| {
        let cut = ["ing", "es", "s", "ed", "en", "e"]
            .iter()
            .find_map(|end| word.strip_suffix(end).filter(|stem| stem.chars().count() >= 3));
        cut.map(str::to_owned).unwrap_or(word)
    };
    words(text).filter(|word| word.len() > 1 && !COMMON.contains(&word.as_str())).map(stem).collect()
}

/// The sentences of a text, lines and list items included.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        let characters: Vec<(usize, char)> = line.char_indices().collect();
        for (index, &(at, c)) in characters.iter().enumerate() {
            let next = characters.get(index + 1).map(|(_, next)| *next);
            if matches!(c, '.' | '!' | '?' | '。')
                && next.is_none_or(|next| next.is_whitespace() || c == '。')
            {
                let end = at + c.len_utf8();
                sentences.push(line[start..end].trim());
                start = end;
            }
        }
        sentences.push(line[start..].trim());
    }
    sentences.retain(|sentence| sentence.chars().any(char::is_alphanumeric));
    sentences
}

/// The sentences of `text` that share most key words with `question`, in their order; none if none shares any.
pub(super) fn relevant<'a>(text: &'a str, question: &str, most: usize) -> Vec<&'a str> {
    let wanted = key_words(question);
    let mut scored: Vec<(usize, usize, &str)> = sentences(text)
        .into_iter()
        .enumerate()
        .map(|(index, sentence)| (key_words(sentence).intersection(&wanted).count(), index, sentence))
        .filter(|(score, ..)| *score > 0)
        .collect();
    scored.sort_by_key(|(score, index, _)| (std::cmp::Reverse(*score), *index));
    let best = scored.first().map_or(0, |(score, ..)| *score);
    scored.retain(|(score, ..)| *score * 2 > best);
    scored.truncate(most);
    scored.sort_by_key(|(_, index, _)| *index);
    scored.into_iter().map(|(.., sentence)| sentence).collect()
}

/// A text in words with the space in front of them.
pub(super) fn with_spaces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end =
            rest.char_indices().skip(1).find(|(_, c)| c.is_whitespace()).map_or(rest.len(), |(at, _)| at);
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// At most `most` bytes of a text, cut between characters, and whether it was cut.
pub(super) fn truncated(text: &str, most: usize) -> (&str, bool) {
    if text.len() <= most {
        return (text, false);
    }
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    (&text[..end], true)
}

/// FNV-1a: the same on every machine, for choices that must not change.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str =
        "The shop opens at nine on weekdays.\n- Parking is free.\nRepairs take three days. We sell bicycles.";

    #[test]
    fn the_sentence_that_answers_is_found() {
        assert_eq!(
            relevant(FACTS, "When do you open on weekdays?", 2),
            ["The shop opens at nine on weekdays."]
        );
        assert_eq!(relevant(FACTS, "Is there parking?", 2), ["- Parking is free."]);
        assert!(relevant(FACTS, "Do you like cheese?", 2).is_empty());
    }

    #[test]
    fn nothing_is_lost_between_words() {
        let text = " One  two\nthree ";
        assert_eq!(with_spaces(text).collect::<String>(), text);
    }
}
