//! What findings lead to.

use serde::{Deserialize, Serialize};

use super::{Action, Category, Finding};

/// An application's rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Findings of these categories and at least this severity are blocked.
    pub block: Vec<(Category, f32)>,
    /// Findings of these categories and at least this severity are shown to a person.
    pub review: Vec<(Category, f32)>,
    /// Whether whoever appears in a text must have company: "a child is never alone".
    pub companions: bool,
}

impl Policy {
    /// For grown-ups: violence and fear may be told, not threatened or praised.
    #[must_use]
    pub fn general() -> Self {
        use Category::{Harassment, Hate, Illicit, Injection, PersonalData, SelfHarm, Sexual, Violence};
        Self {
            block: vec![
                (Hate, 0.7),
                (Harassment, 0.8),
                (Illicit, 0.7),
                (SelfHarm, 0.7),
                (Sexual, 0.8),
                (Violence, 0.8),
            ],
            review: vec![
                (Hate, 0.3),
                (Harassment, 0.5),
                (Illicit, 0.3),
                (Injection, 0.5),
                (PersonalData, 0.5),
                (SelfHarm, 0.3),
                (Sexual, 0.5),
                (Violence, 0.5),
            ],
            companions: false,
        }
    }

    /// For children at bedtime: nothing frightening, nobody hurt, nobody alone.
    #[must_use]
    pub fn children() -> Self {
        use Category::{
            Fear, Harassment, Hate, Illicit, Injection, Isolation, PersonalData, SelfHarm, Sexual, Violence,
        };
        Self {
            block: vec![
                (Fear, 0.6),
                (Harassment, 0.5),
                (Hate, 0.3),
                (Illicit, 0.3),
                (Injection, 0.7),
                (Isolation, 0.6),
                (PersonalData, 0.7),
                (SelfHarm, 0.1),
                (Sexual, 0.1),
                (Violence, 0.5),
            ],
            review: vec![
                (Fear, 0.3),
                (Harassment, 0.2),
                (Injection, 0.3),
                (Isolation, 0.3),
                (PersonalData, 0.3),
                (Violence, 0.2),
            ],
            companions: true,
        }
    }

    pub(super) fn action(&self, finding: &Finding) -> Action {
        // No policy allows these.
        if matches!(finding.category, Category::SexualMinors | Category::Unjudged) {
            return Action::Block;
        }
        let among = |list: &[(Category, f32)]| {
            list.iter().any(|(category, least)| *category == finding.category && finding.severity >= *least)
        };
        if among(&self.block) {
            Action::Block
        } else if among(&self.review) {
            Action::Review
        } else {
            Action::Allow
        }
    }
}
