//! Words and phrases, by language and category.
//!
//! Whole words, in any case and with or without accents. A severity says how sure a word alone makes one: what has
//! harmless meanings too is below what a strict policy blocks.

use serde::{Deserialize, Serialize};

use super::Category::{
    self, Fear, Harassment, Hate, Illicit, Isolation, SelfHarm, Sexual, SexualMinors, Violence,
};

/// Languages with lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    En,
    /// Spanish.
    Es,
    /// French.
    Fr,
    /// German.
    De,
    /// Italian.
    It,
}

impl Language {
    /// All of them: lists are applied together, because texts mix languages and lie about theirs.
    pub const ALL: [Self; 5] = [Self::En, Self::Es, Self::Fr, Self::De, Self::It];

    /// ISO 639-1.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Es => "es",
            Self::Fr => "fr",
            Self::De => "de",
            Self::It => "it",
        }
    }
}

/// Terms of one category and severity. `*` at the end stands for any ending.
pub(super) struct Terms {
    pub(super) category: Category,
    pub(super) severity: f32,
    pub(super) words: &'static [&'static str],
}

const fn terms(category: Category, severity: f32, words: &'static [&'static str]) -> Terms {
    Terms { category, severity, words }
}

/// The list of a language.
pub(super) fn of(language: Language) -> &'static [Terms] {
    match language {
        Language::En => EN,
        Language::Es => ES,
        Language::Fr => FR,
        Language::De => DE,
        Language::It => IT,
    }
}

const EN: &[Terms] = &[
    terms(
        Isolation,
        0.7,
        &[
            "all alone",
            "left alone",
            "abandoned",
            "deserted",
            "nobody came",
            "no one came",
            "lost and alone",
            "left behind",
            "orphaned",
        ],
    ),
    terms(Isolation, 0.4, &["alone", "lonely", "lost", "by himself", "by herself", "stranded"]),
    terms(
        Fear,
        0.7,
        &[
            "terrify*",
            "terrified",
            "horrif*",
            "nightmar*",
            "petrified",
            "screaming in terror",
            "haunted",
            "demon",
            "demons",
            "demonic",
            "zombie*",
            "corpse*",
        ],
    ),
    terms(
        Fear,
        0.4,
        &["scary", "frightening", "creepy", "spooky", "ghost*", "monster*", "dark cave", "panic*"],
    ),
    terms(
        Violence,
        0.85,
        &["murder*", "slaughter*", "behead*", "tortur*", "mutilat*", "dismember*", "bloodbath"],
    ),
    terms(
        Violence,
        0.6,
        &[
            "kill",
            "kills",
            "killed",
            "killing",
            "stab",
            "stabbed",
            "stabbing",
            "shoot him",
            "shoot her",
            "shot dead",
            "strangle*",
            "gun",
            "guns",
            "rifle*",
            "bomb",
            "bombs",
            "blood",
            "bloody",
        ],
    ),
    terms(
        Violence,
        0.3,
        &["fight", "fights", "punch*", "attack*", "weapon*", "sword*", "destroy*", "warfare", "at war"],
    ),
    terms(
        SelfHarm,
        0.9,
        &[
            "kill myself",
            "killing myself",
            "end my life",
            "suicid*",
            "cut myself",
            "hurt myself",
            "want to die",
        ],
    ),
    terms(
        Sexual,
        0.85,
        &["porn*", "explicit sex", "nude", "nudes", "naked", "undress*", "masturbat*", "orgasm*", "blowjob*"],
    ),
    terms(SexualMinors, 1.0, &["child porn*", "lolicon", "sexy child", "underage sex", "naked child*"]),
    terms(Hate, 0.85, &["gas the", "heil hitler", "white power", "ethnic cleansing", "subhuman*"]),
    terms(Harassment, 0.85, &["i will hurt you", "i will kill you", "i will find you"]),
    terms(Harassment, 0.5, &["idiot*", "moron*", "stupid", "shut up", "loser*", "ugly", "fat pig"]),
    terms(
        Illicit,
        0.85,
        &[
            "build a bomb",
            "make a bomb",
            "make meth",
            "cook meth",
            "buy cocaine",
            "steal a car",
            "credit card numbers",
        ],
    ),
    terms(Illicit, 0.4, &["cocaine", "heroin", "meth", "hacking into"]),
];

const ES: &[Terms] = &[
    terms(
        Isolation,
        0.7,
        &["completamente solo", "completamente sola", "abandonad*", "nadie vino", "huerfan*"],
    ),
    terms(Isolation, 0.4, &["solo en", "sola en", "solitari*", "perdido", "perdida"]),
    terms(
        Fear,
        0.7,
        &["aterrador*", "aterrorizad*", "pesadilla*", "horroros*", "embrujad*", "demonio*", "cadaver*"],
    ),
    terms(Fear, 0.4, &["miedo", "asusta*", "fantasma*", "monstruo*", "tenebros*"]),
    terms(Violence, 0.85, &["asesin*", "degollar*", "tortur*", "matanza*", "descuartiz*"]),
    terms(
        Violence,
        0.6,
        &["matar", "mato", "apunal*", "disparar*", "pistola*", "bomba", "sangre", "sangrient*"],
    ),
    terms(Violence, 0.3, &["pelea*", "golpe*", "atac*", "arma", "armas", "espada*", "guerra"]),
    terms(SelfHarm, 0.9, &["suicid*", "quiero morir", "matarme", "hacerme dano"]),
    terms(Sexual, 0.85, &["porno*", "desnud*", "sexo explicito"]),
    terms(SexualMinors, 1.0, &["porno infantil", "pornografia infantil"]),
    terms(Hate, 0.85, &["limpieza etnica", "infrahuman*"]),
    terms(Harassment, 0.85, &["te voy a matar", "te voy a hacer dano"]),
    terms(Harassment, 0.5, &["idiota*", "imbecil*", "estupid*", "callate"]),
    terms(Illicit, 0.85, &["fabricar una bomba", "hacer una bomba", "comprar cocaina"]),
];

const FR: &[Terms] = &[
    terms(
        Isolation,
        0.7,
        &["tout seul", "toute seule", "abandonne", "abandonnee", "personne n est venu", "orphelin*"],
    ),
    terms(Isolation, 0.4, &["solitaire*", "isole", "isolee", "perdu", "perdue"]),
    terms(
        Fear,
        0.7,
        &[
            "terrifiant*",
            "terrifie*",
            "cauchemar*",
            "horrible*",
            "effroyable*",
            "hante",
            "hantee",
            "demon",
            "cadavre*",
        ],
    ),
    terms(Fear, 0.4, &["effrayant*", "peur", "fantome*", "monstre*", "tenebres"]),
    terms(Violence, 0.85, &["assassin*", "meurtr*", "egorg*", "tortur*", "massacr*", "decapit*"]),
    terms(
        Violence,
        0.6,
        &["tuer", "tue", "poignard*", "fusil*", "pistolet*", "bombe", "du sang", "le sang", "sanglant*"],
    ),
    terms(Violence, 0.3, &["bagarre*", "frapp*", "attaqu*", "une arme", "des armes", "epee*", "guerre"]),
    terms(SelfHarm, 0.9, &["suicid*", "me tuer", "envie de mourir", "me faire du mal"]),
    terms(Sexual, 0.85, &["porno*", "tout nu", "toute nue", "sexe explicite"]),
    terms(SexualMinors, 1.0, &["pedopornograph*"]),
    terms(Hate, 0.85, &["nettoyage ethnique", "sous homme*"]),
    terms(Harassment, 0.85, &["je vais te tuer", "je vais te faire du mal"]),
    terms(Harassment, 0.5, &["idiot*", "imbecile*", "stupide*", "ta gueule", "debile*"]),
    terms(Illicit, 0.85, &["fabriquer une bombe", "acheter de la cocaine"]),
];

const DE: &[Terms] = &[
    terms(
        Isolation,
        0.7,
        &[
            "ganz allein",
            "mutterseelenallein",
            "im stich gelassen",
            "verlassen und allein",
            "verwaist*",
            "niemand kam",
        ],
    ),
    terms(Isolation, 0.4, &["allein", "alleine", "einsam*", "verlaufen", "verloren"]),
    terms(
        Fear,
        0.7,
        &[
            "entsetzlich*",
            "alptraum*",
            "albtraum*",
            "grauenhaft*",
            "schrecklich*",
            "spuk*",
            "daemon*",
            "leiche*",
        ],
    ),
    terms(Fear, 0.4, &["gruselig*", "angst", "gespenst*", "monster*", "unheimlich*"]),
    terms(Violence, 0.85, &["ermord*", "morder*", "abschlacht*", "folter*", "enthaupt*", "gemetzel"]),
    terms(
        Violence,
        0.6,
        &[
            "toten",
            "totet",
            "getotet",
            "umbringen",
            "erstech*",
            "erschiess*",
            "pistole*",
            "gewehr*",
            "bombe",
            "bomben",
            "blut",
            "blutig*",
        ],
    ),
    terms(Violence, 0.3, &["kampf", "kampfen", "schlagen", "angreif*", "waffe*", "schwert*", "krieg"]),
    terms(SelfHarm, 0.9, &["selbstmord*", "suizid*", "mich umbringen", "will sterben", "mich verletzen"]),
    terms(Sexual, 0.85, &["porno*", "nackt*", "expliziter sex"]),
    terms(SexualMinors, 1.0, &["kinderporno*"]),
    terms(Hate, 0.85, &["ethnische sauberung", "untermensch*", "heil hitler"]),
    terms(Harassment, 0.85, &["ich bringe dich um", "ich werde dich finden", "ich tue dir weh"]),
    terms(Harassment, 0.5, &["idiot*", "dummkopf*", "bloedmann", "halt die klappe", "vollidiot*"]),
    terms(Illicit, 0.85, &["bombe bauen", "kokain kaufen"]),
];

const IT: &[Terms] = &[
    terms(Isolation, 0.7, &["tutto solo", "tutta sola", "abbandonat*", "nessuno venne", "orfan*"]),
    terms(Isolation, 0.4, &["solitari*", "isolat*", "perduto", "perduta", "smarrit*"]),
    terms(
        Fear,
        0.7,
        &[
            "terrificant*",
            "terrorizzat*",
            "incubo",
            "incubi",
            "orribil*",
            "infestat*",
            "demone",
            "demoni",
            "cadaver*",
        ],
    ),
    terms(Fear, 0.4, &["paura", "spavent*", "fantasma", "fantasmi", "mostro", "mostri", "tenebre"]),
    terms(Violence, 0.85, &["assassin*", "omicid*", "tortur*", "massacr*", "decapit*", "sgozz*"]),
    terms(
        Violence,
        0.6,
        &[
            "uccide*",
            "ucciso",
            "accoltell*",
            "sparare",
            "pistola",
            "pistole",
            "bomba",
            "bombe",
            "sangue",
            "sanguinos*",
        ],
    ),
    terms(Violence, 0.3, &["lotta*", "picchia*", "attacc*", "arma", "armi", "spada", "spade", "guerra"]),
    terms(SelfHarm, 0.9, &["suicid*", "uccidermi", "voglio morire", "farmi del male"]),
    terms(Sexual, 0.85, &["porno*", "nudo integrale", "sesso esplicito", "nuda", "nudi"]),
    terms(SexualMinors, 1.0, &["pedopornograf*"]),
    terms(Hate, 0.85, &["pulizia etnica", "subuman*"]),
    terms(Harassment, 0.85, &["ti ammazzo", "ti uccido", "ti faro del male"]),
    terms(Harassment, 0.5, &["idiota", "idioti", "stupid*", "imbecill*", "sta zitto"]),
    terms(Illicit, 0.85, &["costruire una bomba", "comprare cocaina"]),
];
