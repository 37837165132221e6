//! Long texts for speech, cut where a speaker would pause.

/// Cuts a text into pieces of at most `most` characters: at ends of paragraphs and sentences, else between words, else
/// anywhere. Nothing but white space at the cuts is lost.
pub(crate) fn pieces(text: &str, most: usize) -> Vec<&str> {
    let most = most.max(1);
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some((limit, _)) = rest.char_indices().nth(most) else {
            pieces.push(rest);
            break;
        };
        let head = &rest[..limit];
        let cut = head
            .rfind("\n\n")
            .or_else(|| sentence_end(head, &rest[limit..]))
            .or_else(|| head.rfind(char::is_whitespace))
            .filter(|&cut| cut > 0)
            .unwrap_or(limit);
        pieces.push(head[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The end of the last whole sentence in `head`, in the second half of it: a short piece sounds chopped.
fn sentence_end(head: &str, after: &str) -> Option<usize> {
    let next = |at: usize| head[at..].chars().next().or_else(|| after.chars().next());
    let end = head
        .char_indices()
        .rev()
        .filter(|(_, c)| matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？'))
        .map(|(at, c)| at + c.len_utf8())
        .find(|&end| next(end).is_none_or(|c| c.is_whitespace() || !c.is_ascii()))?;
    (end >= head.len() / 2).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", 10, &[])]
    #[case("Short.", 10, &["Short."])]
    #[case("One two. Three four. Five.", 21, &["One two. Three four.", "Five."])]
    #[case("One. Two three four five six", 20, &["One. Two three four", "five six"])]
    #[case("Version 1.5 is out. Now", 21, &["Version 1.5 is out.", "Now"])]
    #[case("aaaaaaaaaa", 4, &["aaaa", "aaaa", "aa"])]
    #[case("第一句。第二句。", 5, &["第一句。", "第二句。"])]
    fn cuts(#[case] text: &str, #[case] most: usize, #[case] expected: &[&str]) {
        assert_eq!(pieces(text, most), expected);
    }

    proptest! {
        #[test]
        fn no_word_is_lost(text in "[a-zäé。 .!\n]{0,200}", most in 1_usize..40) {
            let found = pieces(&text, most);
            prop_assert!(found.iter().all(|piece| piece.chars().count() <= most));
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&found.concat()), letters(&text));
        }
    }
}
