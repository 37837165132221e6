//! Judging an answer while it is written: what was judged is let through, sentence by sentence. Pure.

use super::{Policy, Verdict, judge};

/// Longest text that waits for the end of its sentence, in bytes.
const LONGEST_SENTENCE: usize = 2_000;

/// Holds back what is not judged yet.
#[derive(Debug, Clone)]
pub struct Gate {
    policy: Policy,
    /// Everything so far, let through or not.
    whole: String,
    /// How much of it was let through, in bytes.
    released: usize,
    /// Where the sentence before the held ones begins: findings may span two.
    context: usize,
    /// Whether nothing passes before the end.
    holding: bool,
}

impl Gate {
    /// A gate that is shut.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, whole: String::new(), released: 0, context: 0, holding: false }
    }

    /// One that lets nothing pass before the end.
    #[must_use]
    pub fn holding(policy: Policy) -> Self {
        Self { holding: true, ..Self::new(policy) }
    }

    /// Takes the next piece; gives what may be let through, which may be nothing yet.
    ///
    /// # Errors
    /// The verdict on what must not pass.
    pub fn push(&mut self, piece: &str) -> Result<String, Verdict> {
        self.whole.push_str(piece);
        if self.holding {
            return Ok(String::new());
        }
        let held = &self.whole[self.released..];
        let end = match last_sentence_end(held) {
            Some(end) => end,
            None if held.len() > LONGEST_SENTENCE => held.len(),
            None => return Ok(String::new()),
        };
        self.release(self.released + end)
    }

    /// The rest, with a verdict on everything: an answer as a whole may lack what none of its sentences can show.
    ///
    /// # Errors
    /// The verdict on what must not pass.
    pub fn finish(&mut self) -> Result<(String, Verdict), Verdict> {
        let rest = self.release(self.whole.len())?;
        let verdict = judge(&self.whole, &self.policy);
        if verdict.action == super::Action::Block { Err(verdict) } else { Ok((rest, verdict)) }
    }

    /// All text so far.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.whole
    }

    fn release(&mut self, end: usize) -> Result<String, Verdict> {
        // Company is looked for in the whole text, at its end.
        let policy = Policy { companions: false, ..self.policy.clone() };
        let verdict = judge(&self.whole[self.context..end], &policy);
        if verdict.action == super::Action::Block {
            return Err(verdict);
        }
        let text = self.whole[self.released..end].to_owned();
        self.context = self.released;
        self.released = end;
        Ok(text)
    }
}

/// Where the last complete sentence ends, the space after it included.
fn last_sentence_end(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().peekable();
    let mut end = None;
    while let Some((at, c)) = characters.next() {
        let closes = matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？');
        let after = at + c.len_utf8();
        match characters.peek() {
            _ if c == '\n' => end = Some(after),
            Some((_, next)) if closes && next.is_whitespace() => end = Some(after + next.len_utf8()),
            _ => {}
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::safety::Action;

    #[test]
    fn what_must_not_pass_does_not_pass_in_any_pieces() {
        let text = "Once a fox met a hen. The fox was all alone in the dark. Then they danced.";
        for size in 1..text.len() {
            let mut gate = Gate::new(Policy::children());
            let mut passed = String::new();
            let mut blocked = None;
            for piece in text.as_bytes().chunks(size) {
                match gate.push(std::str::from_utf8(piece).unwrap()) {
                    Ok(text) => passed.push_str(&text),
                    Err(verdict) => {
                        blocked = Some(verdict);
                        break;
                    }
                }
            }
            let blocked = blocked.or_else(|| gate.finish().err()).unwrap();
            assert_eq!(blocked.action, Action::Block);
            assert!(!passed.contains("alone"), "{size}: {passed}");
        }
    }

    proptest! {
        #[test]
        fn what_may_pass_comes_out_whole(pieces in prop::collection::vec("[a-z .!\\n]{0,30}", 0..40)) {
            let mut gate = Gate::new(Policy::general());
            let mut passed = String::new();
            for piece in &pieces {
                passed.push_str(&gate.push(piece).unwrap());
            }
            passed.push_str(&gate.finish().unwrap().0);
            prop_assert_eq!(passed, pieces.concat());
        }
    }
}
