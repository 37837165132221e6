//! The conversation as it really was: what the person said and what they heard, in order of speech.

use super::clock::{Rate, Samples};
use super::events::Said;
use crate::session::{Speaker, ToolCall, Turn};

/// Items kept for the model; the oldest go first, as transcripts are stored elsewhere.
const MOST_ITEMS: usize = 200;
/// Bytes of text kept for the model.
const MOST_TEXT: usize = 48 * 1024;

#[derive(Debug, Clone)]
enum What {
    User(String),
    Agent { text: String, interrupted: bool },
    Tools(Vec<(ToolCall, Option<serde_json::Value>)>),
}

#[derive(Debug, Clone)]
struct Item {
    ordinal: i32,
    started: Samples,
    ended: Samples,
    what: What,
}

/// Who said what. Places are numbered in order of speech; one that comes to nothing leaves a gap.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    rate: Rate,
    items: Vec<Item>,
    next: i32,
    before: Vec<Said>,
}

impl Ledger {
    /// A conversation that goes on from `before`.
    pub(super) fn new(rate: Rate, before: Vec<Said>, next: i32) -> Self {
        Self { rate, items: Vec::new(), next, before }
    }

    /// A place for somebody who begins to speak now.
    pub(super) fn reserve(&mut self) -> i32 {
        self.next += 1;
        self.next - 1
    }

    /// The place of the latest speech, for what follows it.
    pub(super) fn latest(&self) -> i32 {
        self.next - 1
    }

    fn item(&mut self, ordinal: i32, started: Samples, what: What) -> &mut Item {
        let index = self.items.partition_point(|item| item.ordinal < ordinal);
        if self.items.get(index).is_none_or(|item| item.ordinal != ordinal) {
            self.items.insert(index, Item { ordinal, started, ended: started, what });
        }
        &mut self.items[index]
    }

    /// The person said this. Words added to a place that has some already follow them.
    pub(super) fn user(&mut self, ordinal: i32, started: Samples, ended: Samples, text: &str) -> Turn {
        let rate = self.rate;
        let item = self.item(ordinal, started, What::User(String::new()));
        if let What::User(said) = &mut item.what {
            if !said.is_empty() {
                said.push(' ');
            }
            said.push_str(text);
        }
        item.ended = ended.max(item.ended);
        let turn = turn(rate, item);
        self.trim();
        turn
    }

    /// The person has heard this of the agent. `None` when nothing has changed.
    pub(super) fn agent(
        &mut self,
        ordinal: i32,
        started: Samples,
        now: Samples,
        text: String,
        interrupted: bool,
    ) -> Option<Turn> {
        let rate = self.rate;
        let index = self.items.partition_point(|item| item.ordinal < ordinal);
        let known = self.items.get(index).filter(|item| item.ordinal == ordinal);
        match known.map(|item| &item.what) {
            None if text.is_empty() => return None,
            Some(What::Agent { text: t, interrupted: i }) if *t == text && *i == interrupted => return None,
            _ => {}
        }
        let item = self.item(ordinal, started, What::Agent { text: String::new(), interrupted: false });
        item.what = What::Agent { text, interrupted };
        item.ended = now;
        let turn = turn(rate, item);
        self.trim();
        Some(turn)
    }

    /// Tools are run.
    pub(super) fn tools(&mut self, now: Samples, calls: &[ToolCall]) {
        let ordinal = self.reserve();
        let calls = calls.iter().map(|call| (call.clone(), None)).collect();
        self.item(ordinal, now, What::Tools(calls));
    }

    /// A tool has answered. `false` when nobody waits for it.
    pub(super) fn answered(&mut self, call_id: &str, output: serde_json::Value) -> bool {
        for item in self.items.iter_mut().rev() {
            let What::Tools(calls) = &mut item.what else { continue };
            if let Some((_, answer)) =
                calls.iter_mut().find(|(call, answer)| call.call_id == call_id && answer.is_none())
            {
                *answer = Some(output);
                return true;
            }
        }
        false
    }

    /// Whether the person had the last word.
    pub(super) fn is_due(&self) -> bool {
        let last = self
            .items
            .iter()
            .rev()
            .find(|item| !matches!(&item.what, What::Agent { text, .. } if text.is_empty()));
        last.is_some_and(|item| matches!(&item.what, What::User(_)))
    }

    /// What a model is to know. `pending`: places of answers in progress, and all their words: the model goes on
    /// from them, and if they are not heard, what it says is dropped with them.
    pub(super) fn context(&self, pending: Vec<(i32, String)>) -> Vec<Said> {
        let mut said = self.before.clone();
        let mut pending = pending.into_iter().peekable();
        let agent = |text: String, interrupted: bool| Said::Agent { text, interrupted };
        for item in &self.items {
            let mut replaced = false;
            while let Some((ordinal, text)) = pending.next_if(|(ordinal, _)| *ordinal <= item.ordinal) {
                said.push(agent(text, false));
                replaced |= ordinal == item.ordinal;
            }
            if replaced {
                continue;
            }
            match &item.what {
                What::User(text) => said.push(Said::User(text.clone())),
                What::Agent { text, .. } if text.is_empty() => {}
                What::Agent { text, interrupted } => said.push(agent(text.clone(), *interrupted)),
                What::Tools(calls) => {
                    // A call without its answer is none yet.
                    let answered =
                        |(call, answer): &(ToolCall, Option<_>)| Some((call.clone(), answer.clone()?));
                    let done: Vec<_> = calls.iter().filter_map(answered).collect();
                    if !done.is_empty() {
                        said.push(Said::Tools(done));
                    }
                }
            }
        }
        said.extend(pending.map(|(_, text)| agent(text, false)));
        said
    }

    fn trim(&mut self) {
        let size = |item: &Item| match &item.what {
            What::User(text) | What::Agent { text, .. } => text.len(),
            What::Tools(calls) => calls.iter().map(|(call, _)| call.name.len() + 256).sum(),
        };
        let mut total: usize = self.items.iter().map(size).sum();
        while self.items.len() > MOST_ITEMS || (total > MOST_TEXT && self.items.len() > 1) {
            total -= size(&self.items.remove(0));
            self.before.clear();
        }
    }
}

fn turn(rate: Rate, item: &Item) -> Turn {
    let (speaker, text, interrupted) = match &item.what {
        What::User(text) => (Speaker::Caller, text.clone(), false),
        What::Agent { text, interrupted } => (Speaker::Agent, text.clone(), *interrupted),
        What::Tools(_) => (Speaker::Agent, String::new(), false),
    };
    Turn {
        ordinal: item.ordinal,
        speaker,
        text,
        started: rate.millis(item.started),
        ended: rate.millis(item.ended),
        interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_words_take_the_place_where_they_were_said() {
        let mut ledger = Ledger::new(Rate(8_000), Vec::new(), 0);
        let user = ledger.reserve();
        let agent = ledger.reserve();
        ledger.agent(agent, Samples(10), Samples(20), "Hello.".into(), false);
        ledger.user(user, Samples(0), Samples(5), "Hi");
        let said = ledger.context(Vec::new());
        assert_eq!(
            said,
            [Said::User("Hi".into()), Said::Agent { text: "Hello.".into(), interrupted: false }]
        );
        assert!(!ledger.is_due());
    }

    #[test]
    fn what_was_never_heard_leaves_nothing() {
        let mut ledger = Ledger::new(Rate(8_000), Vec::new(), 0);
        let agent = ledger.reserve();
        assert!(ledger.agent(agent, Samples(0), Samples(0), String::new(), true).is_none());
        assert!(ledger.context(Vec::new()).is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut ledger = Ledger::new(Rate(8_000), Vec::new(), 0);
        for n in 0..1_000 {
            let ordinal = ledger.reserve();
            ledger.user(ordinal, Samples(n), Samples(n), &"x".repeat(1_000));
        }
        assert_eq!(ledger.items.len(), MOST_TEXT / 1_000);
    }
}
