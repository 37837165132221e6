//! What a client asks for when it joins: `{"config": {"broadcast", "presence", "postgres_changes", "private"}, …}`.
//!
//! Read leniently, as Supabase Realtime does: what makes no sense counts as absent, and true may be written as text.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::changes::{MOST_REPLAYED, Wanted};

/// What a client asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Join {
    /// Another token than that of the connection.
    pub(crate) token: Option<String>,
    pub(crate) private: bool,
    /// Whether broadcasts are acknowledged.
    pub(crate) ack: bool,
    /// Whether it hears its own broadcasts.
    pub(crate) own: bool,
    /// Whether it waits for a message that broadcasts of the database flow.
    pub(crate) replication_ready: bool,
    /// Earlier messages of the database.
    pub(crate) replay: Option<Replay>,
    pub(crate) presence: bool,
    pub(crate) presence_key: Option<String>,
    pub(crate) bindings: Vec<Binding>,
}

/// Earlier messages to begin with.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Replay {
    /// The last `limit` ones since `since`.
    Since { since: DateTime<Utc>, limit: u32 },
    /// Cannot be read.
    Invalid,
}

/// Changes that the client asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Binding {
    /// The client's parameters with our id: what the reply repeats.
    pub(crate) answer: Value,
    /// The id under which it gets changes; the same for the same parameters, so that one frame serves many.
    pub(crate) id: u32,
    /// What it asks for, or why that makes no sense.
    pub(crate) wanted: Result<Wanted, String>,
}

impl Join {
    pub(crate) fn parse(payload: &Value) -> Self {
        let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        let config = payload.get("config").unwrap_or(&Value::Null);
        let broadcast = config.get("broadcast").unwrap_or(&Value::Null);
        let presence = config.get("presence");
        let key = presence.and_then(|presence| presence.get("key")).and_then(|key| match key {
            Value::String(key) => Some(key.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        Self {
            token: text("user_token").or_else(|| text("access_token")),
            private: flag(config.get("private")),
            ack: flag(broadcast.get("ack")),
            own: flag(broadcast.get("self")),
            replication_ready: flag(broadcast.get("replication_ready")),
            replay: broadcast.get("replay").map(replay),
            // Clients of before this switch name a key only, and expect presence.
            presence: match presence {
                Some(Value::Object(presence)) => {
                    presence.get("enabled").is_none_or(|enabled| flag(Some(enabled)))
                }
                _ => false,
            },
            presence_key: key.filter(|key| !key.is_empty()),
            bindings: config
                .get("postgres_changes")
                .and_then(Value::as_array)
                .map(|bindings| bindings.iter().filter_map(Value::as_object).map(binding).collect())
                .unwrap_or_default(),
        }
    }
}

fn flag(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// As many as a replay brings at most, if the client does not say.
fn replay(value: &Value) -> Replay {
    let limit = match value.get("limit") {
        None | Some(Value::Null) => Some(MOST_REPLAYED.into()),
        Some(limit) => limit.as_i64(),
    };
    let since = value.get("since").and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
    match (since, limit) {
        (Some(since), Some(limit)) => {
            let limit = limit.clamp(1, MOST_REPLAYED.into());
            Replay::Since { since, limit: limit.try_into().unwrap_or(MOST_REPLAYED) }
        }
        _ => Replay::Invalid,
    }
}

fn binding(parameters: &Map<String, Value>) -> Binding {
    let id = fingerprint(Value::Object(parameters.clone()).to_string().as_bytes());
    let mut answer = parameters.clone();
    answer.insert("id".to_owned(), id.into());
    let wanted = serde_json::from_value(Value::Object(parameters.clone()))
        .map_err(|error| format!("Unable to subscribe to changes with given parameters: {error}"));
    Binding { answer: Value::Object(answer), id, wanted }
}

/// FNV-1a, shortened to what Supabase's ids are: 27 bits.
fn fingerprint(bytes: &[u8]) -> u32 {
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 27)) & 0x07ff_ffff
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_realtime_js_sends() {
        let change = json!({"event": "INSERT", "schema": "public", "table": "notes", "filter": "id=eq.1"});
        let join = Join::parse(&json!({
            "config": {
                "broadcast": {"ack": true, "self": "True", "replay": {"since": 5, "limit": 99}},
                "presence": {"key": "ada", "enabled": true},
                "postgres_changes": [null, change.clone()],
                "private": true
            },
            "access_token": "t"
        }));
        assert!(join.private && join.ack && join.own && join.presence && !join.replication_ready);
        assert_eq!(join.token.as_deref(), Some("t"));
        assert_eq!(join.presence_key.as_deref(), Some("ada"));
        assert_eq!(
            join.replay,
            Some(Replay::Since { since: DateTime::from_timestamp_millis(5).unwrap(), limit: 25 })
        );
        let [binding] = &join.bindings[..] else { panic!("{:?}", join.bindings) };
        let wanted = Wanted {
            event: Some("INSERT".into()),
            schema: Some("public".into()),
            table: Some("notes".into()),
            filter: Some("id=eq.1".into()),
            select: None,
        };
        assert_eq!(binding.wanted, Ok(wanted));
        assert_eq!((&binding.answer["table"], &binding.answer["id"]), (&json!("notes"), &json!(binding.id)));
    }

    #[rstest]
    #[case::explicit(json!({"key": "", "enabled": false}), false)]
    #[case::older_clients(json!({"key": ""}), true)]
    #[case::nonsense(json!("yes"), false)]
    fn who_wants_presence(#[case] presence: Value, #[case] enabled: bool) {
        let join = Join::parse(&json!({"config": {"presence": presence}}));
        assert_eq!((join.presence, join.presence_key), (enabled, None));
    }

    #[rstest]
    #[case(json!(null))]
    #[case(json!([1, "x"]))]
    #[case(json!({"config": "x"}))]
    #[case(json!({"config": {"broadcast": 1, "presence": [], "postgres_changes": "x", "private": "maybe"}}))]
    fn nonsense_counts_as_absent(#[case] payload: Value) {
        assert_eq!(Join::parse(&payload), Join::default());
    }

    #[rstest]
    #[case(json!({"since": "yesterday"}))]
    #[case(json!({}))]
    #[case(json!({"since": 1, "limit": "all"}))]
    fn replays_that_cannot_be(#[case] value: Value) {
        assert_eq!(replay(&value), Replay::Invalid);
    }
}
