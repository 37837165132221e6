//! The rule layer: word lists and patterns, blind to case, accents, invisible characters and common disguises.

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

use super::lexicon::{self, Language};
use super::{Category, Finding, Layer};

/// Most findings of one text; more would say nothing new.
const MOST_FINDINGS: usize = 64;

struct Pattern {
    category: Category,
    severity: f32,
    regex: Regex,
}

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let lists = Language::ALL.into_iter().flat_map(lexicon::of).map(|terms| {
        let words: Vec<String> = terms.words.iter().map(|word| expression(word)).collect();
        (terms.category, terms.severity, format!(r"\b(?:{})\b", words.join("|")))
    });
    lists
        .map(|(category, severity, text)| {
            let regex =
                RegexBuilder::new(&text).size_limit(32 << 20).build().expect("lists make valid patterns");
            Pattern { category, severity, regex }
        })
        .collect()
});

/// Mail addresses, telephone numbers, cards and accounts, as people write them: no letters are taken for others here.
static PERSONAL: LazyLock<Vec<(f32, Regex)>> = LazyLock::new(|| {
    const PATTERNS: &[(f32, &str)] = &[
        (0.8, r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"),
        (0.7, r"\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}\b"),
        (0.7, r"\b\d{3}[ .-]\d{3}[ .-]\d{4}\b"),
        (0.8, r"\b(?:\d{4}[ -]){3}\d{4}\b"),
        (0.8, r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"),
    ];
    let compile = |text: &str| Regex::new(text).expect("the patterns are valid");
    PATTERNS.iter().map(|(severity, text)| (*severity, compile(text))).collect()
});

fn expression(word: &str) -> String {
    let (stem, open) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
    let stem = stem.split(' ').map(regex::escape).collect::<Vec<_>>().join(r"[\s'’_-]+");
    if open { format!(r"{stem}[a-z]*") } else { stem }
}

/// Everything that the lists know in a text, in all languages at once.
#[must_use]
pub fn find(text: &str) -> Vec<Finding> {
    let plain = Plain::new(text);
    let mut findings = Vec::new();
    for pattern in PATTERNS.iter() {
        for found in pattern.regex.find_iter(&plain.text) {
            let evidence = plain.original(text, found.start(), found.end());
            let known =
                |finding: &Finding| finding.category == pattern.category && finding.evidence == evidence;
            if !findings.iter().any(known) {
                findings.push(Finding {
                    category: pattern.category,
                    layer: Layer::Rules,
                    evidence,
                    severity: pattern.severity,
                });
            }
            if findings.len() == MOST_FINDINGS {
                return findings;
            }
        }
    }
    for (severity, pattern) in PERSONAL.iter() {
        let room = MOST_FINDINGS.saturating_sub(findings.len());
        findings.extend(pattern.find_iter(text).take(room).map(|found| Finding {
            category: Category::PersonalData,
            layer: Layer::Rules,
            evidence: found.as_str().to_owned(),
            severity: *severity,
        }));
    }
    findings
}

/// A text without case, accents and disguises, and where each of its bytes came from.
struct Plain {
    text: String,
    /// For each byte of `text`, the byte of the original at which its character begins.
    from: Vec<usize>,
}

impl Plain {
    fn new(original: &str) -> Self {
        let mut plain = Self { text: String::with_capacity(original.len()), from: Vec::new() };
        let characters: Vec<(usize, char)> = original.char_indices().collect();
        for (index, &(at, c)) in characters.iter().enumerate() {
            if is_invisible(c) {
                continue;
            }
            let letter_near = |offset: Option<usize>| {
                offset.and_then(|i| characters.get(i)).is_some_and(|(_, near)| near.is_alphabetic())
            };
            // Digits and signs count as letters only between letters: "k1ll", not "1 kill".
            let inside = letter_near(index.checked_sub(1)) && letter_near(Some(index + 1));
            let disguised = match c {
                '0' => Some('o'),
                '1' | '!' => Some('i'),
                '3' => Some('e'),
                '4' | '@' => Some('a'),
                '5' | '$' => Some('s'),
                '7' => Some('t'),
                _ => None,
            };
            match disguised.filter(|_| inside) {
                Some(letter) => plain.push(letter, at),
                None => unaccented(c).for_each(|letter| plain.push(letter, at)),
            }
        }
        plain.from.push(original.len());
        plain
    }

    fn push(&mut self, letter: char, at: usize) {
        self.text.push(letter);
        self.from.extend(std::iter::repeat_n(at, letter.len_utf8()));
    }

    fn original(&self, original: &str, start: usize, end: usize) -> String {
        // The character after the last one tells where that one ends.
        let (from, to) = (self.from[start], self.from[end]);
        original.get(from..to).unwrap_or_default().trim().chars().take(80).collect()
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
        || ('\u{300}'..='\u{36f}').contains(&c)
}

/// Lower case without accents; letters of full width and of look-alike alphabets as the Latin ones.
fn unaccented(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        'á' | 'à' | 'â' | 'ä' | 'ã' | 'å' | 'Á' | 'À' | 'Â' | 'Ä' | 'Ã' | 'Å' | 'а' | 'А' => {
            'a'
        }
        'é' | 'è' | 'ê' | 'ë' | 'É' | 'È' | 'Ê' | 'Ë' | 'е' | 'Е' => 'e',
        'í' | 'ì' | 'î' | 'ï' | 'Í' | 'Ì' | 'Î' | 'Ï' | 'і' | 'І' => 'i',
        'ó' | 'ò' | 'ô' | 'ö' | 'õ' | 'Ó' | 'Ò' | 'Ô' | 'Ö' | 'Õ' | 'о' | 'О' => 'o',
        'ú' | 'ù' | 'û' | 'ü' | 'Ú' | 'Ù' | 'Û' | 'Ü' => 'u',
        'ç' | 'Ç' | 'с' | 'С' => 'c',
        'ñ' | 'Ñ' => 'n',
        'р' | 'Р' => 'p',
        'х' | 'Х' => 'x',
        'у' | 'У' => 'y',
        'к' | 'К' => 'k',
        '\u{ff21}'..='\u{ff3a}' => char::from_u32(c as u32 - 0xff21 + 0x61).unwrap_or(c),
        '\u{ff41}'..='\u{ff5a}' => char::from_u32(c as u32 - 0xff41 + 0x61).unwrap_or(c),
        'ß' => return Two::new('s', 's'),
        'œ' | 'Œ' => return Two::new('o', 'e'),
        'æ' | 'Æ' => return Two::new('a', 'e'),
        _ => c.to_lowercase().next().unwrap_or(c),
    };
    Two { first: Some(plain), second: None }
}

struct Two {
    first: Option<char>,
    second: Option<char>,
}

impl Two {
    fn new(first: char, second: char) -> Self {
        Self { first: Some(first), second: Some(second) }
    }
}

impl Iterator for Two {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.first.take().or_else(|| self.second.take())
    }
}

static PERSON: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(?:child|boy|girl|kid|hero|heroine|princess|prince|",
        r"nino|nina|heroe|princesa|principe|enfant|garcon|fille|heros|princesse|prince|",
        r"(?:das|ein|dem|des|jedes|kleine|kleines) kind|(?:der|ein|den|dem) held|",
        r"junge|madchen|heldin|prinzessin|prinz|",
        r"bambino|bambina|ragazzo|ragazza|eroe|principessa)\b",
    ))
    .expect("it is a valid pattern")
});

static COMPANY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(?:friends?|companions?|family|together|mother|father|mum|mom|dad|brothers?|sisters?|with|helpers?|buddy|",
        r"amig[oa]s?|familia|junt[oa]s?|con|mama|papa|herman[oa]s?|madre|padre|",
        r"amie?s?|famille|ensemble|avec|maman|freres?|soeurs?|mere|pere|",
        r"freund\w*|familie|zusammen|gemeinsam|mit|mutter|vater|geschwister|bruder|schwester|",
        r"amic[oaih]\w*|famiglia|insieme|mamma|babbo|fratell\w*|sorell\w*)\b",
    ))
    .expect("it is a valid pattern")
});

/// The person of a text in which nobody keeps them company.
#[must_use]
pub fn companionless(text: &str) -> Option<String> {
    let plain = Plain::new(text);
    let person = PERSON.find(&plain.text)?;
    (!COMPANY.is_match(&plain.text)).then(|| plain.original(text, person.start(), person.end()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("They MURDERED him", Category::Violence, "MURDERED")]
    #[case("m\u{200b}urder", Category::Violence, "m\u{200b}urder")]
    #[case("k1ll them", Category::Violence, "k1ll")]
    #[case("le petit était tout seul.", Category::Isolation, "tout seul")]
    #[case("Das Mädchen war ganz allein", Category::Isolation, "ganz allein")]
    #[case("una pesadilla", Category::Fear, "pesadilla")]
    #[case("voglio morire", Category::SelfHarm, "voglio morire")]
    #[case("écrivez à ann@example.com", Category::PersonalData, "ann@example.com")]
    #[case("call +49 170 123 4567", Category::PersonalData, "+49 170 123 4567")]
    fn is_found(#[case] text: &str, #[case] category: Category, #[case] evidence: &str) {
        let found = find(text);
        assert!(found.iter().any(|f| f.category == category && f.evidence == evidence), "{found:?}");
    }

    #[rstest]
    #[case("The skilled painter used a warm palette.")]
    #[case("We can meet at 10:30 on 2026-11-21.")]
    #[case("She put the assignment in the class folder.")]
    #[case("Scunthorpe is in Lincolnshire.")]
    #[case("Ein warmer Kuchen mit Sahne.")]
    #[case("Un canard et son copain.")]
    fn is_not_found(#[case] text: &str) {
        assert_eq!(find(text), []);
    }

    #[rstest]
    #[case("The girl walked into the wood.", Some("girl"))]
    #[case("The girl and her friend walked into the wood.", None)]
    #[case("Das Mädchen ging in den Wald.", Some("Mädchen"))]
    #[case("Das Mädchen ging mit dem Fuchs in den Wald.", None)]
    #[case("Rain fell.", None)]
    fn company(#[case] text: &str, #[case] alone: Option<&str>) {
        assert_eq!(companionless(text).as_deref(), alone);
    }

    proptest! {
        #[test]
        fn any_text_can_be_judged(text in "\\PC{0,200}") {
            for finding in find(&text) {
                prop_assert!(!finding.evidence.is_empty() && finding.evidence.len() <= 400);
            }
            let _ = companionless(&text);
        }
    }
}
