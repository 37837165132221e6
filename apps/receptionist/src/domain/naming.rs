//! Which of some names somebody means who says one.

/// What a spoken name may mean; indexes into the names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// This one.
    One(usize),
    /// One of these: ask.
    Several(Vec<usize>),
    /// None of them.
    Nothing,
}

/// How alike two names must be, of 1, when a transcription may have misheard one.
const ALIKE: f64 = 0.9;

/// The whole name counts more than some of its words, and words more than likeness.
pub(crate) fn meant<'a>(said: &str, names: impl Iterator<Item = &'a str> + Clone) -> Meant {
    let said = words(said);
    if said.is_empty() {
        return Meant::Nothing;
    }
    let whole = |name: &[String]| name == said.as_slice();
    let some_words = |name: &[String]| {
        let (few, many) =
            if said.len() <= name.len() { (said.as_slice(), name) } else { (name, said.as_slice()) };
        !few.is_empty() && few.iter().all(|word| many.iter().any(|other| same_word(word, other)))
    };
    let alike = |name: &[String]| strsim::jaro_winkler(&name.join(" "), &said.join(" ")) >= ALIKE;
    for fits in [&whole as &dyn Fn(&[String]) -> bool, &some_words, &alike] {
        let found: Vec<usize> = names
            .clone()
            .enumerate()
            .filter(|(_, name)| fits(&words(name)))
            .map(|(index, _)| index)
            .collect();
        match found.as_slice() {
            [] => {}
            [one] => return Meant::One(*one),
            _ => return Meant::Several(found),
        }
    }
    Meant::Nothing
}

/// The same word, in the plural too. Never a part of another: "Ann" is not "Joanna".
fn same_word(one: &str, other: &str) -> bool {
    let stem = |word: &str| word.strip_suffix('s').filter(|stem| stem.len() > 2).unwrap_or(word).to_owned();
    one == other || stem(one) == stem(other)
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SERVICES: [&str; 4] = ["Haircut", "Colour treatment", "Colour correction", "Beard trim"];

    #[rstest]
    #[case("haircut", Meant::One(0))]
    #[case("a haircut please", Meant::One(0))]
    #[case("Haircuts", Meant::One(0))]
    #[case("colour", Meant::Several(vec![1, 2]))]
    #[case("colour correction", Meant::One(2))]
    #[case("beard", Meant::One(3))]
    #[case("hair cut", Meant::One(0))]
    #[case("massage", Meant::Nothing)]
    #[case("  ", Meant::Nothing)]
    #[case("🙂", Meant::Nothing)]
    fn services_are_found(#[case] said: &str, #[case] expected: Meant) {
        assert_eq!(meant(said, SERVICES.into_iter()), expected);
    }

    #[test]
    fn a_name_inside_another_is_not_that_name() {
        assert_eq!(meant("Ann", ["Joanna", "Anna-Lena"].into_iter()), Meant::Nothing);
        assert_eq!(meant("Ana", ["Ana Ruiz", "Bea"].into_iter()), Meant::One(0));
    }
}
