//! The conversation's items, as the client sees them and as the model knows them.

use serde_json::{Value, json};

use super::validate::ApiError;
use crate::speech::Word;

/// More items than a model's context can hold; the oldest make room.
const MAX_ITEMS: usize = 4_096;

/// One item: the vendor's JSON, and what the server knows beyond it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: String,
    /// The item as sent to the client, without audio.
    pub(super) body: Value,
    /// What the model understood of a user's speech, known before its transcript is.
    pub(super) heard: Option<String>,
    /// Audio that the server generated for it, in samples, and where its words lie.
    pub(super) audio: Option<(usize, Vec<Word>)>,
}

impl Item {
    pub(super) fn new(id: String, mut body: Value) -> Self {
        body["id"] = json!(id);
        body["object"] = json!("realtime.item");
        Self { id, body, heard: None, audio: None }
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.body["type"] == kind
    }

    /// The text of a message.
    pub(super) fn text(&self) -> String {
        if let Some(heard) = &self.heard {
            return heard.clone();
        }
        let parts = self.body["content"].as_array().into_iter().flatten();
        parts
            .filter_map(|part| part["text"].as_str().or_else(|| part["transcript"].as_str()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The items in order.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    items: Vec<Item>,
}

impl Conversation {
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn last_id(&self) -> Option<&str> {
        self.items.last().map(|item| item.id.as_str())
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().rev().find(|item| item.id == id)
    }

    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
        if self.items.len() > MAX_ITEMS {
            self.items.remove(0);
        }
    }

    /// Puts a client's item after another; returns the id of the one before it.
    pub(super) fn insert(&mut self, item: Item, previous: Option<&str>) -> Result<Option<String>, ApiError> {
        if self.items.iter().any(|known| known.id == item.id) {
            let message = format!("Error adding item: an item with id '{}' already exists.", item.id);
            return Err(ApiError::new("item_create_duplicate_item_id", message, Some("item.id")));
        }
        if item.is("function_call_output") {
            let call_id = &item.body["call_id"];
            if !self.items.iter().any(|known| known.is("function_call") && known.body["call_id"] == *call_id)
            {
                let message = format!("Tool call ID {call_id} not found in conversation.");
                return Err(ApiError::new("invalid_tool_call_id", message, Some("item.call_id")));
            }
        }
        let at = match previous {
            None => self.items.len(),
            Some("root") => 0,
            Some(id) => match self.items.iter().position(|known| known.id == id) {
                Some(at) => at + 1,
                None => {
                    return Err(not_found("item_create_invalid_previous_item_id", "previous_item_id", id));
                }
            },
        };
        let before = at.checked_sub(1).map(|at| self.items[at].id.clone());
        self.items.insert(at, item);
        if self.items.len() > MAX_ITEMS {
            self.items.remove(0);
        }
        Ok(before)
    }

    pub(super) fn delete(&mut self, id: &str) -> Result<(), ApiError> {
        let at = self.items.iter().position(|item| item.id == id);
        let at = at.ok_or_else(|| not_found("item_delete_invalid_item_id", "item_id", id))?;
        self.items.remove(at);
        Ok(())
    }

    pub(super) fn retrieve(&self, id: &str) -> Result<&Item, ApiError> {
        let found = self.items.iter().find(|item| item.id == id);
        found.ok_or_else(|| not_found("item_retrieve_invalid_item_id", "item_id", id))
    }

    /// Forgets what was not heard; returns the text that was.
    pub(super) fn truncate(&mut self, id: &str, end_ms: u64) -> Result<String, ApiError> {
        let item =
            self.get_mut(id).ok_or_else(|| not_found("item_truncate_invalid_item_id", "item_id", id))?;
        let Some((samples, words)) = &mut item.audio else {
            let message = "Only model output audio messages can be truncated";
            return Err(ApiError::new("invalid_value", message, Some("item_id")));
        };
        let has_ms = *samples as u64 / 8;
        if end_ms > has_ms {
            let message = format!("Audio content of {has_ms}ms is already shorter than {end_ms}ms");
            return Err(ApiError::new("invalid_value", message, Some("audio_end_ms")));
        }
        *samples = end_ms as usize * 8;
        words.retain(|word| u64::from(word.end_ms) <= end_ms);
        let heard = words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        item.heard = Some(heard.clone());
        // The vendor drops the transcript, so that no text remains that the user has not heard.
        if let Some(part) = item.body["content"].get_mut(0) {
            part["transcript"] = Value::Null;
        }
        Ok(heard)
    }
}

fn not_found(code: &'static str, param: &str, id: &str) -> ApiError {
    ApiError::new(code, format!("Item with item_id '{id}' does not exist."), Some(param))
}
