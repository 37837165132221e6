//! Who said what, in order of speech, cut to what was heard.

use std::time::Duration;

use super::Turn;
use super::playback::BYTES_PER_MS;
use super::time::Millis;
use crate::upstreams::realtime::HistoryItem;

/// Turns given to a session that takes over.
const HISTORY_ITEMS: usize = 40;
/// Characters of them.
const HISTORY_CHARS: usize = 12_000;
/// Nobody speaks faster; bounds what can have been heard when an item broke off.
const FASTEST_CHARS_PER_SECOND: u64 = 25;
/// Words that have not come this long after the speech do not hold up a takeover.
const WORDS_PATIENCE: Duration = Duration::from_secs(10);
/// Longest text kept of one turn.
const TURN_CHARS: usize = 8_000;

/// Which side spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The person on the phone.
    Caller,
    /// The agent.
    Agent,
}

#[derive(Debug)]
struct CallerTurn {
    item_id: String,
    ordinal: i32,
    started: Millis,
    ended: Option<Millis>,
    /// The agent has answered it; only its words are still to come.
    answered: bool,
    /// Heard by a session that has been relieved since.
    relieved: bool,
}

#[derive(Debug)]
struct AgentItem {
    item_id: String,
    ordinal: i32,
    text: String,
    /// Playback position of its first byte.
    start: u64,
    bytes: u64,
    /// All of its audio has arrived.
    complete: bool,
    /// Cut off at this many bytes.
    cut: Option<u64>,
    /// It was the caller who cut it off.
    interrupted: bool,
    started: Millis,
    stored: String,
}

impl AgentItem {
    fn heard_bytes(&self, position: u64) -> u64 {
        let heard = position.saturating_sub(self.start).min(self.bytes);
        self.cut.map_or(heard, |cut| heard.min(cut))
    }

    /// The words heard, in proportion to the audio heard.
    fn heard_text(&self, heard: u64) -> &str {
        if heard == 0 {
            return "";
        }
        let chars = self.text.chars().count() as u64;
        let mut count =
            if heard >= self.bytes && self.complete { chars } else { chars * heard / self.bytes.max(1) };
        if !self.complete {
            count = count.min(heard / BYTES_PER_MS * FASTEST_CHARS_PER_SECOND / 1_000 + 1);
        }
        cut_at_word(&self.text, count as usize)
    }
}

/// At most `count` characters of `text`, without half a word.
fn cut_at_word(text: &str, count: usize) -> &str {
    let Some((end, next)) = text.char_indices().nth(count) else { return text.trim_end() };
    let head = &text[..end];
    if next.is_whitespace() {
        return head.trim_end();
    }
    match head.rfind(char::is_whitespace) {
        Some(space) => head[..space].trim_end(),
        None => "",
    }
}

/// The conversation so far.
#[derive(Debug)]
pub(super) struct Transcript {
    next_ordinal: i32,
    /// Caller turns whose words have not arrived.
    pending: Vec<CallerTurn>,
    /// Agent items that are not finished.
    open: Vec<AgentItem>,
    history: Vec<(i32, HistoryItem)>,
    summary: Option<String>,
}

impl Transcript {
    pub(super) fn new(next_ordinal: i32, history: Vec<HistoryItem>) -> Self {
        let history = history.into_iter().map(|item| (next_ordinal - 1, item)).collect();
        Self { next_ordinal, pending: Vec::new(), open: Vec::new(), history, summary: None }
    }

    fn ordinal(&mut self) -> i32 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        ordinal
    }

    /// The caller has begun an item; its place in the order is taken now, its words come later.
    pub(super) fn caller_started(&mut self, item_id: &str, now: Millis) {
        if self.pending.iter().any(|t| t.item_id == item_id) {
            return;
        }
        let ordinal = self.ordinal();
        self.pending.push(CallerTurn {
            item_id: item_id.to_owned(),
            ordinal,
            started: now,
            ended: None,
            answered: false,
            relieved: false,
        });
        if self.pending.len() > 64 {
            self.pending.remove(0); // transcription has been failing silently for long
        }
    }

    pub(super) fn caller_stopped(&mut self, now: Millis) {
        if let Some(turn) = self.pending.last_mut() {
            turn.ended.get_or_insert(now);
        }
    }

    /// The caller's words have arrived; `None` when the item is not known (any more).
    pub(super) fn caller_words(&mut self, item_id: &str, text: &str, now: Millis) -> Option<Turn> {
        let index = self.pending.iter().position(|t| t.item_id == item_id)?;
        let turn = self.pending.remove(index);
        let text: String = text.trim().chars().take(TURN_CHARS).collect();
        if text.is_empty() {
            return None;
        }
        self.remember(turn.ordinal, HistoryItem::Caller(text.clone()));
        Some(Turn {
            ordinal: turn.ordinal,
            speaker: Speaker::Caller,
            text,
            started: turn.started,
            ended: turn.ended.unwrap_or(now),
            interrupted: false,
        })
    }

    /// Whether the words of a caller turn are still to come, and worth waiting for.
    pub(super) fn awaits_words(&self, now: Millis) -> bool {
        self.pending.iter().any(|t| !t.relieved && now - t.ended.unwrap_or(t.started) < WORDS_PATIENCE)
    }

    /// Whether no caller turn is without its words.
    pub(super) fn has_all_words(&self) -> bool {
        self.pending.is_empty()
    }

    /// The agent answers everything that the caller has finished saying.
    pub(super) fn answered(&mut self) {
        for turn in self.pending.iter_mut().filter(|t| t.ended.is_some()) {
            turn.answered = true;
        }
    }

    /// The upstream that heard these turns no longer listens. What was not answered is heard again by the next one
    /// and so is forgotten here; returns whether there was any. Words of answered turns may still come from a
    /// session that `lingers`.
    pub(super) fn forget_unanswered(&mut self, lingers: bool) -> bool {
        let any = self.pending.iter().any(|t| !t.answered);
        self.pending.retain(|t| t.answered && lingers);
        for turn in &mut self.pending {
            turn.relieved = true;
        }
        any
    }

    /// A relieved session is closed: its words will not come any more.
    pub(super) fn forget_relieved(&mut self) {
        self.pending.retain(|t| !t.relieved);
    }

    /// Audio of an agent item goes out.
    pub(super) fn agent_audio(&mut self, item_id: &str, position: u64, bytes: u64, now: Millis) {
        let last = self.next_ordinal - 1;
        if let Some(index) = self.open.iter().position(|i| i.item_id == item_id) {
            if self.open[index].bytes == 0 {
                // Words came ahead of their sound; its place in the conversation is where it sounds.
                if self.open[index].ordinal != last {
                    self.open[index].ordinal = self.ordinal();
                }
                self.open[index].start = position;
                self.open[index].started = now;
            }
            self.open[index].bytes += bytes;
            return;
        }
        let ordinal = self.ordinal();
        self.open.push(AgentItem {
            item_id: item_id.to_owned(),
            ordinal,
            text: String::new(),
            start: position,
            bytes,
            complete: false,
            cut: None,
            interrupted: false,
            started: now,
            stored: String::new(),
        });
    }

    pub(super) fn agent_words(&mut self, item_id: &str, text: &str, position: u64, now: Millis) {
        if !self.open.iter().any(|i| i.item_id == item_id) {
            self.agent_audio(item_id, position, 0, now);
        }
        if let Some(item) = self.open.iter_mut().find(|i| i.item_id == item_id)
            && item.cut.is_none()
            && item.text.len() < TURN_CHARS
        {
            item.text.push_str(text);
        }
    }

    pub(super) fn agent_audio_done(&mut self, item_id: &str) {
        if let Some(item) = self.open.iter_mut().find(|i| i.item_id == item_id) {
            item.complete = true;
        }
    }

    /// The caller cuts in at `position`: what has not been heard never will be. Returns (item id, milliseconds
    /// heard) of the items that the upstream must cut too.
    pub(super) fn interrupt(&mut self, position: u64) -> Vec<(String, u64)> {
        let mut cut = Vec::new();
        for item in &mut self.open {
            let heard = item.heard_bytes(position);
            if heard < item.cut.unwrap_or(item.bytes) || (item.cut.is_none() && !item.complete) {
                if item.cut.is_none() && item.bytes > 0 {
                    cut.push((item.item_id.clone(), heard / BYTES_PER_MS));
                }
                item.cut = Some(heard);
                item.interrupted = true;
            }
        }
        cut
    }

    /// The upstream is gone: every item ends with the audio that was sent, which is still being played, and none is
    /// known to the next upstream, which must not be asked to truncate it.
    pub(super) fn break_off(&mut self) {
        for item in self.open.iter_mut().filter(|i| i.cut.is_none()) {
            item.cut = Some(item.bytes);
        }
    }

    /// The response is over: items that were left without an end of their own end with the audio that was sent.
    pub(super) fn response_over(&mut self, all_said: bool) {
        for item in self.open.iter_mut().filter(|i| i.cut.is_none() && !i.complete) {
            if all_said {
                item.complete = true;
            } else {
                item.cut = Some(item.bytes);
            }
        }
    }

    /// Turns whose heard text has grown by a sentence or that are finished, given the heard position.
    pub(super) fn progress(&mut self, position: u64, now: Millis) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut finished = Vec::new();
        for (index, item) in self.open.iter_mut().enumerate() {
            let heard = item.heard_bytes(position);
            let done = item.cut.map_or(item.complete && heard >= item.bytes, |cut| heard >= cut);
            let text = item.heard_text(heard);
            let grown = text.len() > item.stored.len() && (done || ends_sentence(text, &item.stored));
            if grown || (done && text != item.stored) {
                let text = if done { text } else { through_last_sentence(text) }.to_owned();
                turns.push(Turn {
                    ordinal: item.ordinal,
                    speaker: Speaker::Agent,
                    text: text.clone(),
                    started: item.started,
                    ended: now,
                    interrupted: item.interrupted,
                });
                item.stored = text;
            }
            if done {
                finished.push(index);
            }
        }
        for index in finished.into_iter().rev() {
            let item = self.open.remove(index);
            if !item.stored.is_empty() {
                self.remember(item.ordinal, HistoryItem::Agent(item.stored));
            }
        }
        turns
    }

    /// Adds a tool call or its output at this point of the conversation.
    pub(super) fn tool(&mut self, item: HistoryItem) {
        let ordinal = self.next_ordinal - 1;
        self.remember(ordinal, item);
    }

    /// Ordinal of the turn that began last; -1 before the first.
    pub(super) fn last_ordinal(&self) -> i32 {
        self.next_ordinal - 1
    }

    /// Whether a tool call is part of what a session that takes over is given.
    pub(super) fn handed_over(&self, id: &str) -> bool {
        self.for_takeover()
            .iter()
            .any(|item| matches!(item, HistoryItem::ToolCall { call_id, .. } if call_id == id))
    }

    pub(super) fn summarised(&mut self, text: &str) {
        self.summary = Some(text.chars().take(2_000).collect());
    }

    /// What a session that takes over must know, oldest first, bounded.
    pub(super) fn for_takeover(&self) -> Vec<HistoryItem> {
        // Sentences that are still being played belong before the tools that were called with them.
        let mut all: Vec<(i32, HistoryItem)> = self.history.clone();
        for item in &self.open {
            let text = item.heard_text(item.cut.unwrap_or(item.bytes));
            if !text.is_empty() {
                insert(&mut all, item.ordinal, HistoryItem::Agent(text.to_owned()));
            }
        }
        let mut chars = 0;
        let mut kept: Vec<HistoryItem> = all
            .into_iter()
            .rev()
            .take(HISTORY_ITEMS)
            .map(|(_, item)| item)
            .take_while(|item| {
                chars += size(item);
                chars <= HISTORY_CHARS
            })
            .collect();
        kept.reverse();
        // An output without its call is refused upstream.
        let mut calls = std::collections::HashSet::new();
        kept.retain(|item| match item {
            HistoryItem::ToolCall { call_id, .. } => {
                calls.insert(call_id.clone());
                true
            }
            HistoryItem::ToolOutput { call_id, .. } => calls.contains(call_id),
            _ => true,
        });
        if let Some(summary) = &self.summary {
            kept.insert(0, HistoryItem::Summary(summary.clone()));
        }
        kept
    }

    /// Whether nothing has been said or done yet.
    pub(super) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.open.is_empty()
    }

    /// Whether the last thing said or done waits for the agent. An answer that is still being played is one.
    pub(super) fn agent_is_due(&self) -> bool {
        self.history.last().is_some_and(|(ordinal, item)| {
            matches!(item, HistoryItem::Caller(_) | HistoryItem::ToolOutput { .. })
                && !self.open.iter().any(|open| open.ordinal > *ordinal && open.bytes > 0)
        })
    }

    fn remember(&mut self, ordinal: i32, item: HistoryItem) {
        insert(&mut self.history, ordinal, item);
        if self.history.len() > 4 * HISTORY_ITEMS {
            self.history.drain(..2 * HISTORY_ITEMS);
        }
    }
}

/// Puts an item in its place in the conversation: late transcriptions where the words were said, and what the agent
/// said before the tools that it called with those words.
fn insert(history: &mut Vec<(i32, HistoryItem)>, ordinal: i32, item: HistoryItem) {
    let is_tool = matches!(item, HistoryItem::ToolCall { .. } | HistoryItem::ToolOutput { .. });
    let at =
        history.iter().rposition(|&(o, _)| o < ordinal || (is_tool && o == ordinal)).map_or(0, |i| i + 1);
    history.insert(at, (ordinal, item));
}

fn size(item: &HistoryItem) -> usize {
    match item {
        HistoryItem::Summary(t) | HistoryItem::Caller(t) | HistoryItem::Agent(t) => t.len(),
        HistoryItem::ToolCall { arguments, .. } => arguments.len() + 64,
        HistoryItem::ToolOutput { output, .. } => output.len() + 64,
    }
}

fn ends_sentence(text: &str, stored: &str) -> bool {
    through_last_sentence(text).len() > stored.len()
}

/// `text` up to its last finished sentence.
fn through_last_sentence(text: &str) -> &str {
    let end = text
        .char_indices()
        .filter(|&(i, c)| {
            matches!(c, '.' | '!' | '?' | '…' | '。')
                && text[i + c.len_utf8()..].chars().next().is_none_or(char::is_whitespace)
        })
        .map(|(i, c)| i + c.len_utf8())
        .next_back();
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> u64 {
        ms * BYTES_PER_MS
    }

    #[test]
    fn late_words_keep_their_place() {
        let mut transcript = Transcript::new(0, Vec::new());
        transcript.caller_started("u1", Millis(0));
        transcript.caller_stopped(Millis(900));
        transcript.agent_audio("a1", 0, ms(1_000), Millis(1_000));
        transcript.agent_words("a1", "Hello there.", 0, Millis(1_000));
        transcript.agent_audio_done("a1");
        let turns = transcript.progress(ms(1_000), Millis(2_000));
        assert_eq!((turns[0].ordinal, turns[0].text.as_str()), (1, "Hello there."));
        let late = transcript.caller_words("u1", " What does it cost? ", Millis(2_500)).unwrap();
        assert_eq!((late.ordinal, late.text.as_str()), (0, "What does it cost?"));
        assert_eq!(late.ended, Millis(900));
        assert_eq!(
            transcript.for_takeover(),
            [HistoryItem::Caller("What does it cost?".into()), HistoryItem::Agent("Hello there.".into())]
        );
    }

    #[test]
    fn an_interrupted_turn_holds_only_whole_heard_words() {
        let mut transcript = Transcript::new(0, Vec::new());
        transcript.agent_audio("a", 0, ms(10_000), Millis(0));
        transcript.agent_words("a", "one two three four five six seven eight nine tenth", 0, Millis(0));
        transcript.agent_audio_done("a");
        assert_eq!(transcript.interrupt(ms(4_000)), [("a".to_owned(), 4_000)]);
        transcript.agent_words("a", " never", 0, Millis(1));
        let turns = transcript.progress(ms(4_000), Millis(4_000));
        assert_eq!(turns[0].text, "one two three four");
        assert!(turns[0].interrupted);
        assert!(transcript.progress(ms(9_000), Millis(9_000)).is_empty());
    }

    #[test]
    fn sentences_are_stored_as_they_are_heard() {
        let mut transcript = Transcript::new(5, Vec::new());
        transcript.agent_audio("a", 0, ms(4_000), Millis(0));
        transcript.agent_words("a", "We open at nine. We close at six.", 0, Millis(0));
        transcript.agent_audio_done("a");
        assert!(transcript.progress(ms(500), Millis(500)).is_empty());
        let turns = transcript.progress(ms(2_400), Millis(2_400));
        assert_eq!((turns[0].ordinal, turns[0].text.as_str()), (5, "We open at nine."));
        assert!(transcript.progress(ms(2_600), Millis(2_600)).is_empty());
        let turns = transcript.progress(ms(4_000), Millis(4_000));
        assert_eq!((turns[0].ordinal, turns[0].text.as_str()), (5, "We open at nine. We close at six."));
    }

    #[test]
    fn items_that_were_never_heard_leave_no_turn() {
        let mut transcript = Transcript::new(0, Vec::new());
        transcript.agent_audio("a", 0, ms(1_000), Millis(0));
        transcript.agent_words("a", "Hello.", 0, Millis(0));
        assert_eq!(transcript.interrupt(0), [("a".to_owned(), 0)]);
        assert!(transcript.progress(0, Millis(1)).is_empty());
        assert!(transcript.for_takeover().is_empty());
    }

    #[test]
    fn takeover_history_is_bounded_and_starts_with_the_summary() {
        let mut transcript = Transcript::new(0, Vec::new());
        for i in 0..200 {
            transcript.caller_started(&format!("u{i}"), Millis(i));
            transcript.caller_words(&format!("u{i}"), &"x".repeat(1_000), Millis(i));
        }
        transcript.summarised("They talked.");
        let history = transcript.for_takeover();
        assert_eq!(history[0], HistoryItem::Summary("They talked.".into()));
        assert_eq!(history.len(), 13);
    }
}
