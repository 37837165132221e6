//! What the cascade has to know of the languages it speaks: abbreviations, and the noises of a listener.

/// A language whose sentences and listeners' noises are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Spanish.
    Spanish,
    /// French.
    French,
    /// German.
    German,
    /// Italian.
    Italian,
}

impl Language {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::English, Self::Spanish, Self::French, Self::German, Self::Italian];

    /// By BCP 47 tag, whatever its region; `None` for languages that are not known here.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or(tag);
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// ISO 639-1 code.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Spanish => "es",
            Self::French => "fr",
            Self::German => "de",
            Self::Italian => "it",
        }
    }

    /// Abbreviations after whose full stop a sentence goes on, whatever follows. Without the last stop.
    pub(super) const fn titles(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "mr", "mrs", "ms", "dr", "prof", "st", "gen", "col", "sgt", "capt", "lt", "rev", "hon", "vs",
                "e.g", "i.e", "no", "nos", "approx", "dept", "est", "fig", "mt", "ave", "blvd", "rd", "jan",
                "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
            ],
            Self::Spanish => &[
                "sr", "sra", "srta", "sres", "dr", "dra", "d", "dª", "ud", "uds", "vd", "prof", "pág", "núm",
                "nº", "av", "avda", "c", "p.ej", "ej", "lic", "ing", "gral", "tel", "aprox",
            ],
            Self::French => &[
                "m", "mm", "mme", "mmes", "mlle", "dr", "pr", "me", "p.ex", "ex", "cf", "av", "bd", "n",
                "no", "st", "ste", "tél", "env", "chap", "fig", "vol", "janv", "févr", "juil", "sept", "oct",
                "nov", "déc",
            ],
            Self::German => &[
                "z.b", "d.h", "u.a", "bzw", "ca", "dr", "prof", "hr", "fr", "str", "nr", "evtl", "ggf",
                "inkl", "zzgl", "tel", "bspw", "vgl", "sog", "st", "dipl", "ing", "jan", "feb", "aug",
                "sept", "okt", "nov", "dez",
            ],
            Self::Italian => &[
                "sig", "sig.ra", "sig.na", "sigg", "dott", "dott.ssa", "dr", "prof", "prof.ssa", "avv",
                "ing", "arch", "geom", "rag", "on", "pag", "n", "p.es", "es", "tel", "ca", "cap", "art",
                "gen", "col",
            ],
        }
    }

    /// Abbreviations that may also end a sentence: then the next begins with a capital.
    pub(super) const fn endings(self) -> &'static [&'static str] {
        match self {
            Self::English => {
                &["etc", "a.m", "p.m", "u.s", "u.k", "inc", "ltd", "co", "corp", "jr", "sr", "ph.d"]
            }
            Self::Spanish => &["etc", "a.m", "p.m", "ee.uu", "s.a", "cía"],
            Self::French => &["etc", "s.a", "c.v"],
            Self::German => &["usw", "etc", "u.s.w", "o.ä", "jh", "mio", "mrd"],
            Self::Italian => &["ecc", "etc", "s.p.a", "s.r.l", "a.c", "d.c"],
        }
    }

    /// What people say to show that they listen. Lower case, without punctuation; phrases are separated by spaces.
    const fn backchannels(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "uh huh",
                "uhhuh",
                "mm hmm",
                "mmhmm",
                "mhm",
                "mm",
                "mmm",
                "hm",
                "hmm",
                "uh",
                "um",
                "ah",
                "oh",
                "aha",
                "yeah",
                "yep",
                "yup",
                "yes",
                "ok",
                "okay",
                "right",
                "sure",
                "i see",
                "got it",
                "alright",
                "all right",
                "of course",
                "really",
                "wow",
                "great",
                "good",
                "nice",
                "cool",
                "exactly",
                "true",
                "makes sense",
            ],
            Self::Spanish => &[
                "ajá",
                "aja",
                "mm",
                "mmm",
                "mhm",
                "ah",
                "oh",
                "eh",
                "sí",
                "si",
                "ya",
                "claro",
                "vale",
                "bueno",
                "bien",
                "ok",
                "okay",
                "de acuerdo",
                "entiendo",
                "ya veo",
                "por supuesto",
                "exacto",
                "cierto",
            ],
            Self::French => &[
                "mm",
                "mmm",
                "hm",
                "hmm",
                "mhm",
                "ah",
                "oh",
                "euh",
                "ah bon",
                "oui",
                "ouais",
                "ok",
                "okay",
                "d accord",
                "daccord",
                "bien",
                "bien sûr",
                "je vois",
                "voilà",
                "très bien",
                "exactement",
                "c est ça",
            ],
            Self::German => &[
                "mm",
                "mmm",
                "hm",
                "hmm",
                "mhm",
                "aha",
                "ah",
                "oh",
                "äh",
                "ähm",
                "ach so",
                "achso",
                "ja",
                "jaja",
                "genau",
                "okay",
                "ok",
                "gut",
                "klar",
                "verstehe",
                "stimmt",
                "richtig",
                "natürlich",
                "alles klar",
                "sehr gut",
            ],
            Self::Italian => &[
                "mm",
                "mmm",
                "hm",
                "mhm",
                "ah",
                "oh",
                "eh",
                "aha",
                "sì",
                "si",
                "ok",
                "okay",
                "certo",
                "bene",
                "va bene",
                "capisco",
                "ho capito",
                "esatto",
                "giusto",
                "d accordo",
                "daccordo",
                "già",
            ],
        }
    }

    /// Whether words only show that somebody listens: they do not take the floor. Empty text does not count.
    pub fn is_backchannel(self, text: &str) -> bool {
        let words = normalised(text);
        if words.is_empty() || words.len() > 4 {
            return false;
        }
        let mut rest = &words[..];
        while !rest.is_empty() {
            let known = self.backchannels().iter().filter_map(|phrase| {
                let length = phrase.split(' ').count();
                let same =
                    rest.len() >= length && phrase.split(' ').eq(rest[..length].iter().map(String::as_str));
                same.then_some(length)
            });
            let Some(longest) = known.max() else { return false };
            rest = &rest[longest..];
        }
        true
    }

    /// What an agent says while it looks something up.
    pub const fn filler(self) -> &'static str {
        match self {
            Self::English => "One moment, please.",
            Self::Spanish => "Un momento, por favor.",
            Self::French => "Un instant, s'il vous plaît.",
            Self::German => "Einen Moment, bitte.",
            Self::Italian => "Un momento, per favore.",
        }
    }

    /// What an agent says when it could not answer.
    pub const fn apology(self) -> &'static str {
        match self {
            Self::English => "I'm sorry, I could not do that just now. Could you say it again?",
            Self::Spanish => "Lo siento, no he podido hacerlo. ¿Puede repetirlo?",
            Self::French => "Je suis désolé, je n'ai pas pu le faire. Pouvez-vous répéter ?",
            Self::German => {
                "Es tut mir leid, das hat gerade nicht geklappt. Können Sie es bitte wiederholen?"
            }
            Self::Italian => "Mi dispiace, non ci sono riuscito. Può ripetere, per favore?",
        }
    }
}

/// Words in lower case without punctuation, as texts of different services can be compared.
pub(super) fn normalised(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != 'ª' && c != 'º')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_noises_are_told_from_words() {
        for (language, text, noise) in [
            (Language::English, "Uh-huh.", true),
            (Language::English, "Yeah, okay, I see", true),
            (Language::English, "Yeah, but wait", false),
            (Language::English, "stop", false),
            (Language::English, "", false),
            (Language::English, "yes yes yes yes yes", false),
            (Language::Spanish, "Sí, claro.", true),
            (Language::Spanish, "No, espere", false),
            (Language::French, "D'accord, bien sûr", true),
            (Language::German, "Ach so, genau!", true),
            (Language::German, "Nein", false),
            (Language::Italian, "Va bene, certo", true),
        ] {
            assert_eq!(language.is_backchannel(text), noise, "{language:?}: {text}");
        }
    }

    #[test]
    fn tags_of_any_region_are_known() {
        assert_eq!(Language::from_tag("de-AT"), Some(Language::German));
        assert_eq!(Language::from_tag("EN_us"), Some(Language::English));
        assert_eq!(Language::from_tag("ja"), None);
    }
}
