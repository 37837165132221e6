//! Where the words of a sentence lie in its audio.

use super::language::normalised;

/// A word of a sentence, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// As written, with its punctuation.
    pub(super) text: String,
    /// Start and end in samples from the beginning of the utterance, where the synthesiser told.
    pub(super) time: Option<(u64, u64)>,
}

/// The words of a sentence with their times, exact or estimated.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) all: Vec<Token>,
    /// The next token that a told word may belong to.
    next: usize,
    /// Letters of that token that were told already, and where they began.
    partial: Option<(String, u64)>,
}

impl Tokens {
    pub(super) fn new(text: &str) -> Self {
        let mut all: Vec<Token> = Vec::new();
        for word in text.split_whitespace() {
            match all.last_mut() {
                // French writes `va ?`: what makes no sound belongs to the word before it.
                Some(last) if !word.chars().any(char::is_alphanumeric) => {
                    last.text.push(' ');
                    last.text.push_str(word);
                }
                _ => all.push(Token { text: word.to_owned(), time: None }),
            }
        }
        Self { all, next: 0, partial: None }
    }

    /// Takes times that the synthesiser told, in its own spelling of the words.
    pub(super) fn told(&mut self, words: &[(String, u64, u64)]) {
        for (text, start, end) in words {
            self.told_one(&normalised(text).concat(), *start, *end);
        }
    }

    fn told_one(&mut self, word: &str, start: u64, end: u64) {
        if word.is_empty() {
            return;
        }
        let (mut letters, began) = self.partial.take().unwrap_or_default();
        let began = if letters.is_empty() { start } else { began };
        letters.push_str(word);
        // Spelt as we do, in one piece or several; or a little later, after words that it spoke differently.
        for ahead in 0..4 {
            let Some(token) = self.all.get(self.next + ahead) else { break };
            let spelt = normalised(&token.text).concat();
            let (letters, began) = if ahead == 0 { (letters.as_str(), began) } else { (word, start) };
            if spelt == letters {
                let index = self.next + ahead;
                self.all[index].time = Some((began, end));
                self.next = index + 1;
                return;
            }
            if ahead == 0 && spelt.starts_with(letters) {
                self.partial = Some((letters.to_owned(), began));
                return;
            }
        }
        // "$5" is spoken as two words: they belong to no token by spelling, and the next match fills the gap.
    }

    /// How many words end within the first `heard` samples. `length`: samples of the whole utterance, if it is
    /// complete; `pace`: samples that a letter takes, for what nobody tells; `None` where the synthesiser does tell:
    /// then a word of which nothing was told yet has not been spoken. `fading`: samples at a word's end without which
    /// it is understood all the same.
    pub(super) fn heard(&self, heard: u64, length: Option<u64>, pace: Option<f64>, fading: u64) -> usize {
        if heard == 0 {
            return 0;
        }
        let times = self.times(length, pace);
        times
            .iter()
            .take_while(|&&(start, end)| end <= heard.saturating_add(fading.min((end - start) / 4)))
            .count()
    }

    /// Start and end of every word, told or estimated from its neighbours, its length and the pace.
    pub(super) fn times(&self, length: Option<u64>, pace: Option<f64>) -> Vec<(u64, u64)> {
        let mut times = Vec::with_capacity(self.all.len());
        let mut index = 0;
        let mut from = 0;
        while index < self.all.len() {
            if let Some(time) = self.all[index].time {
                times.push(time);
                from = time.1;
                index += 1;
                continue;
            }
            let known = self.all[index..].iter().position(|t| t.time.is_some()).map(|n| index + n);
            let upto = known.unwrap_or(self.all.len());
            let weights: Vec<f64> = self.all[index..upto].iter().map(|t| weight(&t.text)).collect();
            let total: f64 = weights.iter().sum();
            let next = known.and_then(|k| self.all[k].time).map(|(start, _)| start).or(length);
            let room = match (next, pace) {
                (Some(end), _) => end.saturating_sub(from) as f64,
                (None, Some(pace)) => total * pace,
                (None, None) => {
                    times.resize(self.all.len(), (from, u64::MAX));
                    return times;
                }
            };
            let mut passed = 0.0;
            for weight in weights {
                let start = from + (passed / total * room) as u64;
                passed += weight;
                times.push((start, from + (passed / total * room).ceil().min(room) as u64));
            }
            from += room as u64;
            index = upto;
        }
        times
    }

    /// The first `count` words.
    pub(super) fn text(&self, count: usize) -> String {
        let words: Vec<&str> = self.all.iter().take(count).map(|t| t.text.as_str()).collect();
        words.join(" ")
    }

    /// How many letters it has, as far as pace is concerned.
    pub(super) fn weight(&self) -> f64 {
        self.all.iter().map(|t| weight(&t.text)).sum()
    }

    /// Keeps the first `count` words and returns the others, with times relative to `origin`.
    pub(super) fn split(&mut self, count: usize, origin: u64) -> Self {
        let mut rest = self.all.split_off(count);
        for token in &mut rest {
            token.time = token.time.map(|(s, e)| (s.saturating_sub(origin), e.saturating_sub(origin)));
        }
        let next = self.next.saturating_sub(count);
        self.next = self.next.min(count);
        let partial = self.partial.take().map(|(letters, at)| (letters, at.saturating_sub(origin)));
        Self { all: rest, next, partial }
    }
}

/// How long a word takes to say, in letters: digits are whole words, and sentences pause at their ends.
fn weight(word: &str) -> f64 {
    let letters: f64 = word
        .chars()
        .map(|c| match c {
            _ if c.is_ascii_digit() => 4.0,
            _ if c.is_alphabetic() => 1.0,
            '.' | '!' | '?' => 3.0,
            ',' | ';' | ':' => 2.0,
            _ => 0.2,
        })
        .sum();
    letters + 1.2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, words: &[(&str, u64, u64)]) -> Tokens {
        let mut tokens = Tokens::new(text);
        let words: Vec<_> = words.iter().map(|&(w, s, e)| (w.to_owned(), s, e)).collect();
        tokens.told(&words);
        tokens
    }

    #[test]
    fn told_times_are_exact() {
        let tokens = told("Hello there, friend.", &[("Hello", 0, 10), ("there", 12, 20), ("friend", 22, 40)]);
        for (heard, count) in [(0, 0), (9, 0), (10, 1), (39, 2), (40, 3), (99, 3)] {
            assert_eq!(tokens.heard(heard, Some(50), None, 0), count, "{heard}");
        }
        assert_eq!(tokens.text(2), "Hello there,");
    }

    #[test]
    fn words_spoken_in_pieces_or_in_other_words_are_placed() {
        let tokens = told(
            "It's well-known at $5 today.",
            &[
                ("It's", 0, 5),
                ("well", 5, 10),
                ("known", 10, 20),
                ("at", 20, 25),
                ("five", 25, 30),
                ("dollars", 30, 40),
                ("today", 40, 50),
            ],
        );
        assert_eq!(
            tokens.all.iter().map(|t| t.time.map(|t| t.1)).collect::<Vec<_>>(),
            [Some(5), Some(20), Some(25), None, Some(50)]
        );
        assert_eq!(tokens.heard(39, None, Some(1.0), 0), 3);
        assert_eq!(tokens.heard(40, None, Some(1.0), 0), 4);
    }

    #[test]
    fn without_times_words_share_the_audio_by_their_length() {
        let tokens = Tokens::new("one two three four");
        assert_eq!(tokens.heard(0, Some(1_000), Some(1.0), 0), 0);
        assert_eq!(tokens.heard(500, Some(1_000), Some(1.0), 0), 2);
        assert_eq!(tokens.heard(1_000, Some(1_000), Some(1.0), 0), 4);
        assert_eq!(tokens.heard(9, None, Some(2.0), 0), 1);
    }

    #[test]
    fn a_split_keeps_times() {
        let mut tokens = told("a b c", &[("a", 0, 10), ("b", 10, 20), ("c", 20, 30)]);
        let rest = tokens.split(1, 10);
        assert_eq!(
            (tokens.all.len(), rest.all[0].time, rest.all[1].time),
            (1, Some((0, 10)), Some((10, 20)))
        );
    }

    #[test]
    fn a_lone_question_mark_belongs_to_the_word_before() {
        assert_eq!(Tokens::new("Ça va ?").all.len(), 2);
    }
}
