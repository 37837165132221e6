//! Small stories about whom and what the prompt names, in five languages.

use super::words::{hash, words};

/// Whether a story is wanted.
pub(super) fn is_asked(system: &str, user: &str) -> bool {
    const STORY: &[&str] = &[
        "story",
        "storyteller",
        "bedtime",
        "tale",
        "cuento",
        "histoire",
        "conte",
        "geschichte",
        "storia",
        "fiaba",
    ];
    let asked = |text: &str| words(text).any(|word| STORY.contains(&word.as_str()));
    asked(user) || (asked(system) && user.split_whitespace().count() > 2)
}

struct Voice {
    code: &'static str,
    /// Language names by which prompts ask for it.
    names: &'static [&'static str],
    hero: &'static str,
    premise: &'static str,
    beginnings: &'static [&'static str],
    middles: &'static [&'static str],
    ends: &'static [&'static str],
}

const VOICES: &[Voice] = &[
    Voice {
        code: "en",
        names: &["english"],
        hero: "Luna",
        premise: "a walk in the garden",
        beginnings: &[
            "One warm evening {hero} and a good friend, a small brown bear, set out together. They had one thing in mind: {premise}.",
            "{hero} and a cheerful hedgehog sat together under a bright lamp and spoke of {premise}.",
        ],
        middles: &[
            "Along the way golden fireflies showed them the path, and every flower nodded hello.",
            "A kind owl joined them and told them the names of the stars.",
            "Whenever one of them was unsure, the others took their hand, and the next step was easy.",
            "They shared a little cake with honey, and there was enough for everybody.",
        ],
        ends: &[
            "At last they came home, curled up side by side under a soft blanket, and slept. Good night, {hero}.",
            "With happy hearts and sleepy eyes the friends said good night, and {hero} dreamt of tomorrow.",
        ],
    },
    Voice {
        code: "es",
        names: &["spanish", "español", "espanol"],
        hero: "Luna",
        premise: "un paseo por el jardín",
        beginnings: &[
            "Una tarde cálida, {hero} y su buen amigo, un osito pardo, salieron juntos. Pensaban en una sola cosa: {premise}.",
        ],
        middles: &[
            "Por el camino, unas luciérnagas doradas les mostraban la senda y cada flor los saludaba.",
            "Una lechuza amable se unió a ellos y les contó los nombres de las estrellas.",
            "Compartieron un pastelito de miel, y hubo suficiente para todos.",
        ],
        ends: &[
            "Al fin volvieron a casa, se acurrucaron juntos bajo una manta suave y se durmieron. Buenas noches, {hero}.",
        ],
    },
    Voice {
        code: "fr",
        names: &["french", "français", "francais"],
        hero: "Luna",
        premise: "une promenade au jardin",
        beginnings: &[
            "Un soir tiède, {hero} et son ami, un petit ours brun, partirent ensemble. Ils ne pensaient qu'à une chose : {premise}.",
        ],
        middles: &[
            "En chemin, des lucioles dorées leur montraient le sentier et chaque fleur les saluait.",
            "Une gentille chouette se joignit à eux et leur apprit le nom des étoiles.",
            "Ils partagèrent un petit gâteau au miel, et il y en eut assez pour tous.",
        ],
        ends: &[
            "Enfin ils rentrèrent, se blottirent côte à côte sous une douce couverture et s'endormirent. Bonne nuit, {hero}.",
        ],
    },
    Voice {
        code: "de",
        names: &["german", "deutsch"],
        hero: "Luna",
        premise: "ein Spaziergang im Garten",
        beginnings: &[
            "An einem warmen Abend zogen {hero} und ein guter Freund, ein kleiner Braunbär, gemeinsam los. Sie dachten nur an eines: {premise}.",
        ],
        middles: &[
            "Unterwegs zeigten ihnen goldene Glühwürmchen den Pfad, und jede Blume nickte ihnen zu.",
            "Eine freundliche Eule kam mit und nannte ihnen die Namen der Sterne.",
            "Sie teilten sich einen kleinen Honigkuchen, und er reichte für alle.",
        ],
        ends: &[
            "Endlich kamen sie heim, kuschelten sich Seite an Seite unter eine weiche Decke und schliefen ein. Gute Nacht, {hero}.",
        ],
    },
    Voice {
        code: "it",
        names: &["italian", "italiano"],
        hero: "Luna",
        premise: "una passeggiata in giardino",
        beginnings: &[
            "Una sera tiepida {hero} e un buon amico, un orsetto bruno, partirono insieme. Pensavano a una cosa sola: {premise}.",
        ],
        middles: &[
            "Lungo la strada lucciole dorate mostravano loro il sentiero, e ogni fiore salutava.",
            "Un gufo gentile si unì a loro e raccontò i nomi delle stelle.",
            "Divisero un dolcetto al miele, e ce ne fu abbastanza per tutti.",
        ],
        ends: &[
            "Infine tornarono a casa, si rannicchiarono insieme sotto una coperta morbida e si addormentarono. Buona notte, {hero}.",
        ],
    },
];

/// Tells one. The same prompt gets the same story.
pub(super) fn tell(system: &str, user: &str) -> String {
    let voice = voice(system, user);
    let hero = hero(user).unwrap_or(voice.hero);
    let premise = premise(user).unwrap_or(voice.premise);
    let seed = hash(user) ^ hash(system).rotate_left(17);
    let pick = |list: &'static [&'static str], turn: u32| {
        list[(seed.rotate_left(turn) % list.len() as u64) as usize]
    };
    let length = wanted_sentences(user);
    let mut parts = vec![pick(voice.beginnings, 3)];
    for turn in 0..length {
        let index = (seed.rotate_left(11) as usize).wrapping_add(turn) % voice.middles.len();
        parts.push(voice.middles[index]);
    }
    parts.push(pick(voice.ends, 7));
    parts.join(" ").replace("{hero}", hero).replace("{premise}", premise)
}

fn voice(system: &str, user: &str) -> &'static Voice {
    let text = format!("{system} {user}").to_lowercase();
    let named =
        VOICES.iter().find(|voice| voice.code != "en" && voice.names.iter().any(|name| text.contains(name)));
    let coded = || {
        let at = text.find("language")?;
        let code = words(&text[at + "language".len()..]).next()?;
        VOICES.iter().find(|voice| voice.code == code)
    };
    named.or_else(coded).unwrap_or(&VOICES[0])
}

/// "hero: Mila", "a hero named Mila", "about Mila the brave".
fn hero(user: &str) -> Option<&str> {
    let lower = user.to_lowercase();
    let marks = [
        "hero name:",
        "hero:",
        "name:",
        " named ",
        " called ",
        "about ",
        "llamada ",
        "llamado ",
        "sobre ",
        "nommée ",
        "nommé ",
        "namens ",
        "über ",
        "di nome ",
    ];
    marks.iter().find_map(|mark| {
        // Lower case may change lengths beyond ASCII: then the position means nothing.
        let at = lower.find(mark)? + mark.len();
        let rest = user.get(at..)?.trim_start();
        let name = rest.split(|c: char| !c.is_alphabetic() && c != '-').next()?;
        let proper = name.chars().next().is_some_and(char::is_uppercase);
        (proper && name.chars().count() > 1).then_some(name)
    })
}

fn premise(user: &str) -> Option<&str> {
    let lower = user.to_lowercase();
    let marks = ["premise:", "event:", "theme:", "who discovers", "who finds", "who learns"];
    marks.iter().find_map(|mark| {
        let at = lower.find(mark)?;
        let start = if mark.ends_with(':') { at + mark.len() } else { at + "who ".len() };
        let rest = user.get(start..)?.trim_start();
        let end = rest.find(['.', '\n', '!', '?']).unwrap_or(rest.len());
        let premise = rest.get(..end)?.trim();
        (!premise.is_empty() && premise.len() <= 200).then_some(premise)
    })
}

/// From a wanted number of words or minutes, about twenty words a sentence.
fn wanted_sentences(user: &str) -> usize {
    let tokens: Vec<&str> = user.split_whitespace().collect();
    let wanted = tokens.windows(2).find_map(|pair| {
        let number: usize =
            pair[0].trim_matches(|c: char| !c.is_ascii_digit()).split(['-', '–']).next()?.parse().ok()?;
        let unit = pair[1].to_lowercase();
        if unit.starts_with("word") {
            Some(number / 20)
        } else if unit.starts_with("minute") {
            Some(number * 8)
        } else if unit.starts_with("second") {
            Some(number / 8)
        } else {
            None
        }
    });
    wanted.unwrap_or(3).clamp(2, 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::{Action, Policy, judge};

    #[test]
    fn it_is_about_the_hero_and_safe_for_children() {
        for (language, user) in [
            ("English", "Write a bedtime story about Mila, who discovers a hidden door. 100 words."),
            ("German", "Erzähle eine Geschichte über Mila."),
            ("French", "Raconte une histoire. Hero: Mila"),
            ("Spanish", "Cuenta un cuento sobre Mila"),
            ("Italian", "Racconta una storia. name: Mila"),
        ] {
            let story = tell(&format!("You tell bedtime stories in {language}."), user);
            assert!(story.contains("Mila"), "{story}");
            let verdict = judge(&story, &Policy::children());
            assert_eq!(verdict.action, Action::Allow, "{story} {verdict:?}");
        }
        let story = tell("", "Write a bedtime story about Mila, who discovers a hidden door. 100 words.");
        assert!(story.contains("discovers a hidden door"), "{story}");
    }

    #[test]
    fn length_follows_the_wish() {
        let words = |user| tell("", user).split_whitespace().count();
        assert!(words("a story of 600 words") > 2 * words("a story of 100 words"));
    }
}
