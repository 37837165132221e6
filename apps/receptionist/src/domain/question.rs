//! What callers ask, in the words that owners write.

/// Words that ask for the same thing. A question that holds one of a group is searched for all of it.
const SAME_THING: &[&[&str]] = &[
    &[
        "price",
        "prices",
        "pricing",
        "cost",
        "costs",
        "charge",
        "charges",
        "rate",
        "rates",
        "fee",
        "fees",
        "much",
        "expensive",
        "cheap",
        "pay",
        "dollars",
        "quote",
        "estimate",
        "afford",
        "affordable",
    ],
    &[
        "hours", "hour", "open", "opened", "opening", "close", "closed", "closing", "schedule", "today",
        "weekend", "saturday", "sunday", "late", "early",
    ],
    &["where", "address", "location", "located", "directions", "street", "find", "parking", "park"],
    &["appointment", "appointments", "booking", "book", "reserve", "reservation", "slot", "availability"],
    &["cancel", "cancellation", "reschedule", "refund", "deposit"],
    &["services", "service", "offer", "offers", "provide", "treatments", "treatment"],
];

/// Longest question taken from a model.
const LONGEST: usize = 500;

/// The question with the other words for what it asks.
pub(crate) fn widened(question: &str) -> String {
    // Postgres has no NUL in texts.
    let question: String = question.chars().filter(|c| *c != '\0').take(LONGEST).collect();
    let words: Vec<String> = question
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut wide = question;
    for group in SAME_THING {
        if words.iter().any(|word| group.contains(&word.as_str())) {
            for synonym in *group {
                wide.push(' ');
                wide.push_str(synonym);
            }
        }
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::widened;

    #[test]
    fn the_other_words_for_a_thing_are_added() {
        assert!(widened("How much is a haircut?").contains(" price"));
        assert!(widened("Are you open on Sunday").contains(" hours"));
        assert_eq!(widened("Do you sell shampoo?"), "Do you sell shampoo?");
        assert_eq!(widened("a\0b"), "ab");
        assert!(widened(&"é".repeat(9_999)).chars().count() == 500);
    }
}
