//! Judging what people write and what models answer.
//!
//! Three layers, each of which can only make a judgement stricter: rules with word lists for five languages
//! ([`rules`]), a moderation model ([`with_moderation`]), and the application's [`Policy`], which says what a finding
//! leads to. A layer that fails counts as a finding: nothing passes because nobody looked. Our own prompt templates are
//! never judged; only what users wrote into them is.
//!
//! ```
//! use longhouse_gateway::safety::{Action, Policy, judge};
//!
//! let verdict = judge("The fox was all alone in the dark.", &Policy::children());
//! assert_eq!(verdict.action, Action::Block);
//! assert_eq!(verdict.findings[0].evidence, "all alone");
//! assert_eq!(judge("The fox and her friend danced.", &Policy::children()).action, Action::Allow);
//! ```

mod fence;
mod gate;
mod lexicon;
mod policy;
mod reviews;
mod rules;

use serde::{Deserialize, Serialize};

pub use fence::{Fenced, fence, injections};
pub use gate::Gate;
pub use lexicon::Language;
pub use policy::Policy;
pub use reviews::{PostgresReviews, Review, Reviews};
pub use rules::{companionless, find};

use crate::Error;
use crate::moderation;

/// Kinds of content that policies speak about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Being left alone.
    Isolation,
    /// What frightens.
    Fear,
    /// Harm to others.
    Violence,
    /// Harm to oneself.
    SelfHarm,
    /// Sexual content.
    Sexual,
    /// Sexual content with minors: never allowed, whatever the policy.
    SexualMinors,
    /// Contempt for groups.
    Hate,
    /// Insults and threats.
    Harassment,
    /// Instructions for crimes.
    Illicit,
    /// Telephone numbers, addresses, accounts.
    PersonalData,
    /// Text that gives orders to the model.
    Injection,
    /// A layer could not judge.
    Unjudged,
}

impl Category {
    /// As the review queue and error messages write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolation => "isolation",
            Self::Fear => "fear",
            Self::Violence => "violence",
            Self::SelfHarm => "self_harm",
            Self::Sexual => "sexual",
            Self::SexualMinors => "sexual_minors",
            Self::Hate => "hate",
            Self::Harassment => "harassment",
            Self::Illicit => "illicit",
            Self::PersonalData => "personal_data",
            Self::Injection => "injection",
            Self::Unjudged => "unjudged",
        }
    }
}

/// Who found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Word lists and patterns.
    Rules,
    /// A moderation model.
    Moderation,
    /// The application's policy.
    Policy,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub category: Category,
    /// By whom.
    pub layer: Layer,
    /// The words, as they were written, or what else shows it.
    pub evidence: String,
    /// From 0 to 1.
    pub severity: f32,
}

/// What is to be done, from mild to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    Allow,
    /// Let it pass, and show it to a person later.
    Review,
    /// Do not let it pass.
    Block,
}

/// A judgement, for the review queue as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is to be done.
    pub action: Action,
    /// Why, the most severe first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    fn of(mut findings: Vec<Finding>, policy: &Policy) -> Self {
        findings.sort_by(|a, b| b.severity.total_cmp(&a.severity));
        let action = findings.iter().map(|finding| policy.action(finding)).max().unwrap_or(Action::Allow);
        Self { action, findings }
    }

    /// Lets pass what may.
    ///
    /// # Errors
    /// [`Error::Unsafe`] for what is blocked; it names the category, not the words.
    pub fn enforce(&self, what: &'static str) -> Result<(), Error> {
        if self.action != Action::Block {
            return Ok(());
        }
        let reason = self.findings.first().map_or("unknown", |finding| finding.category.as_str());
        Err(Error::Unsafe { what, reason: reason.to_owned() })
    }
}

/// Judges by rules and policy.
#[must_use]
pub fn judge(text: &str, policy: &Policy) -> Verdict {
    let mut findings = find(text);
    findings.extend(injections(text));
    if policy.companions
        && let Some(evidence) = companionless(text)
    {
        let category = Category::Isolation;
        findings.push(Finding { category, layer: Layer::Policy, evidence, severity: 0.4 });
    }
    Verdict::of(findings, policy)
}

/// Adds what a moderation model found, or that it could not be asked.
#[must_use]
pub fn with_moderation(
    verdict: Verdict,
    moderation: &Result<moderation::Verdict, Error>,
    policy: &Policy,
) -> Verdict {
    let mut findings = verdict.findings;
    match moderation {
        Err(error) => findings.push(Finding {
            category: Category::Unjudged,
            layer: Layer::Moderation,
            evidence: error.to_string(),
            severity: 1.0,
        }),
        Ok(found) => {
            for category in
                found.categories.iter().filter(|category| category.flagged || category.score >= 0.3)
            {
                findings.push(Finding {
                    category: category_of(&category.name),
                    layer: Layer::Moderation,
                    evidence: category.name.clone(),
                    severity: if category.flagged { category.score.max(0.8) } else { category.score },
                });
            }
        }
    }
    Verdict::of(findings, policy)
}

/// Providers' categories among ours; an unknown one is taken seriously.
fn category_of(name: &str) -> Category {
    let family = name.split(['/', '_']).next().unwrap_or(name);
    match (name, family) {
        ("sexual/minors" | "sexual_minors", _) => Category::SexualMinors,
        (_, "sexual") => Category::Sexual,
        (_, "violence") => Category::Violence,
        (_, "self-harm" | "self") => Category::SelfHarm,
        (_, "hate") => Category::Hate,
        (_, "harassment") => Category::Harassment,
        (_, "illicit") => Category::Illicit,
        (_, "fear") => Category::Fear,
        (_, "isolation") => Category::Isolation,
        _ => Category::Unjudged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_cannot_be_asked_blocks() {
        let fine = judge("A fox and a hen are friends.", &Policy::general());
        assert_eq!(fine.action, Action::Allow);
        let error = Err(Error::Records("down".into()));
        let verdict = with_moderation(fine, &error, &Policy::general());
        assert_eq!(verdict.action, Action::Block);
        assert!(verdict.enforce("request").is_err());
    }

    #[test]
    fn a_layer_only_makes_it_stricter() {
        let blocked = judge("I will murder you", &Policy::general());
        assert_eq!(blocked.action, Action::Block);
        let clean = Ok(moderation::Verdict::default());
        assert_eq!(with_moderation(blocked, &clean, &Policy::general()).action, Action::Block);
    }

    #[test]
    fn scores_below_the_flag_are_for_people_to_see() {
        let score = |name: &str, flagged, score| moderation::Verdict {
            flagged,
            categories: vec![moderation::Category { name: name.into(), flagged, score }],
        };
        let judged = |verdict| {
            with_moderation(judge("hello", &Policy::general()), &Ok(verdict), &Policy::general()).action
        };
        assert_eq!(judged(score("violence", false, 0.1)), Action::Allow);
        assert_eq!(judged(score("violence", false, 0.5)), Action::Review);
        assert_eq!(judged(score("violence/graphic", true, 0.5)), Action::Block);
        assert_eq!(judged(score("sexual/minors", false, 0.31)), Action::Block);
        assert_eq!(judged(score("something-new", true, 0.9)), Action::Block);
    }
}
