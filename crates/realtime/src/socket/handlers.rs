//! What a client's messages do.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::outgoing::Close;
use super::session::Session;
use crate::broadcast::{Body, Broadcast, is_object};
use crate::channel::Channel;
use crate::channel::authorization::{Extension, Rights, may_read, may_send};
use crate::hub::Hub;
use crate::identity::{Identity, TokenError};
use crate::meters::METERS;
use crate::protocol::{Head, Incoming, Payload, Ref};

/// Over how long the messages of a socket are counted, in seconds.
const EVENTS: u64 = 10;
/// Over how long the presence events of a channel are counted, in milliseconds.
const PRESENCE_EVENTS: u64 = 30_000;

/// What becomes of a channel after a message.
enum Verdict {
    Stays,
    /// The token has changed.
    Renewed,
    /// It ends, with this message.
    Ends(Cow<'static, str>),
}

impl Session {
    /// Whether a token may have changed. An error ends the connection.
    pub(super) async fn handle(&mut self, message: Incoming<'_>) -> Result<bool, Close> {
        let Incoming { join_ref, reference, topic, event, payload } = message;
        METERS.messages_in.increment(1);
        if topic == "phoenix" {
            if event == "heartbeat" {
                self.reply(&Ref::NONE, &reference, &topic, true, "{}");
            }
            return Ok(false);
        }
        if event == "phx_join" {
            let Payload::Json(payload) = payload else { return Ok(false) };
            // Boxed: rare, and larger than all else that an idle connection keeps.
            return Box::pin(self.join(join_ref, &reference, &topic, payload)).await.map(|()| true);
        }
        let Some(channel) = self.channels.get_mut(&*topic) else {
            let left = event == "phx_leave";
            let response = if left { "{}" } else { r#"{"reason":"unmatched topic"}"# };
            self.reply(&join_ref, &reference, &topic, left, response);
            return Ok(false);
        };
        let most = self.hub.limits.messages_per_second.saturating_mul(EVENTS as u32);
        if !self.events.take(self.hub.now(), EVENTS * 1_000, most) {
            metrics::counter!("realtime_refused_total", "reason" => "messages").increment(1);
            channel.shut_down("Too many messages per second");
            self.channels.remove(&*topic);
            return Ok(false);
        }
        let (hub, headers) = (&self.hub, &self.headers);
        let verdict = match (&*event, payload) {
            ("broadcast", payload) => {
                broadcast(hub, headers, channel, &reference, payload).await;
                Verdict::Stays
            }
            ("presence", Payload::Json(payload)) => {
                presence(hub, headers, channel, &reference, payload).await
            }
            ("access_token", Payload::Json(payload)) => {
                Box::pin(access_token(hub, headers, channel, payload)).await
            }
            ("phx_leave", _) => {
                // A leave of an earlier join of the same name: that one is over already.
                if !join_ref.is_some() || !channel.join_ref.is_some() || join_ref == channel.join_ref {
                    channel.reply(&reference, true, "{}");
                    channel.say_closed();
                    self.channels.remove(&*topic);
                }
                return Ok(false);
            }
            _ => Verdict::Stays,
        };
        match verdict {
            Verdict::Stays => Ok(false),
            Verdict::Renewed => Ok(true),
            Verdict::Ends(message) => {
                channel.shut_down(&message);
                self.channels.remove(&*topic);
                Ok(false)
            }
        }
    }

    pub(super) fn reply(&self, join_ref: &Ref, reference: &Ref, topic: &str, ok: bool, response: &str) {
        let head = Head { join_ref, reference, topic };
        self.connection.outgoing.push(self.version.reply(head, ok, response));
    }
}

/// Whether the channel may send, asked once for each token.
async fn sends(hub: &Hub, headers: &str, channel: &mut Channel, extension: Extension) -> bool {
    if !channel.room.private {
        return true;
    }
    let known = match extension {
        Extension::Broadcast => channel.rights.send_broadcasts,
        Extension::Presence => channel.rights.send_presence,
    };
    if let Some(known) = known {
        return known;
    }
    let allowed = match Box::pin(may_send(&hub.database, channel.question(headers), extension)).await {
        Ok(allowed) => allowed,
        // Not remembered: the next message asks again.
        Err(refusal) => {
            tracing::warn!(topic = channel.topic(), code = refusal.code(), %refusal, "cannot decide who may send");
            return false;
        }
    };
    match extension {
        Extension::Broadcast => channel.rights.send_broadcasts = Some(allowed),
        Extension::Presence => channel.rights.send_presence = Some(allowed),
    }
    allowed
}

async fn broadcast(hub: &Hub, headers: &str, channel: &mut Channel, reference: &Ref, payload: Payload<'_>) {
    if !sends(hub, headers, channel, Extension::Broadcast).await {
        metrics::counter!("realtime_refused_total", "reason" => "rights").increment(1);
        return;
    }
    let (size, body) = match payload {
        Payload::Json(json) if !is_object(json) => return,
        Payload::Json(json) => (json.get().len(), Body::Payload(json.get().to_owned().into())),
        Payload::User(user) => (user.data.len(), Body::User(user)),
    };
    if size > hub.limits.payload {
        metrics::counter!("realtime_refused_total", "reason" => "payload").increment(1);
        if channel.ack {
            channel.reply(reference, false, r#""payload_size_exceeded""#);
        }
        return;
    }
    let broadcast =
        Broadcast { private: channel.room.private, topic: Arc::clone(&channel.room.name), id: None, body };
    hub.broadcast(&broadcast, (!channel.own).then_some(channel.serial));
    if channel.ack {
        channel.reply(reference, true, "{}");
    }
}

#[derive(Deserialize)]
struct PresenceEvent<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

async fn presence(
    hub: &Hub,
    headers: &str,
    channel: &mut Channel,
    reference: &Ref,
    payload: &RawValue,
) -> Verdict {
    let event = serde_json::from_str::<PresenceEvent<'_>>(payload.get()).ok();
    let Some(PresenceEvent { event: Some(event), payload }) = event else {
        channel.reply(reference, true, "{}");
        return Verdict::Stays;
    };
    let now = hub.now();
    if !channel.presence_events.take(now, PRESENCE_EVENTS, hub.limits.presence_per_channel) {
        return Verdict::Ends("Client presence rate limit exceeded".into());
    }
    match event.to_ascii_lowercase().as_str() {
        "track" => track(hub, headers, channel, reference, payload.map_or("{}", RawValue::get)).await,
        "untrack" => {
            channel.untrack();
            channel.reply(reference, true, "{}");
            Verdict::Stays
        }
        _ => {
            channel.reply(reference, false, "{}");
            Verdict::Stays
        }
    }
}

async fn track(hub: &Hub, headers: &str, channel: &mut Channel, reference: &Ref, payload: &str) -> Verdict {
    if !channel.presence && channel.room.private && channel.rights.read_presence.is_none() {
        // The first to track switches presence on, and whether it may see the others was not asked before.
        let asked = Box::pin(may_read(&hub.database, channel.question(headers), true)).await;
        channel.rights.read_presence = asked.ok().map(|(_, presence)| presence);
        channel.permit();
    }
    if !sends(hub, headers, channel, Extension::Presence).await {
        channel.reply(reference, false, "{}");
        return Verdict::Stays;
    }
    if !payload.starts_with('{') {
        channel.reply(reference, false, r#"{"reason":"Presence track payload must be a map"}"#);
        return Verdict::Stays;
    }
    if payload.len() > hub.limits.payload {
        return Verdict::Ends("Track message size exceeded".into());
    }
    if channel.tracked.as_deref() != Some(payload) {
        if !hub.may_change_presence() {
            return Verdict::Ends("Too many presence messages per second".into());
        }
        channel.track(payload);
    }
    channel.presence = true;
    channel.reply(reference, true, "{}");
    Verdict::Stays
}

/// Another token for the channel: it decides from now on.
async fn access_token(hub: &Hub, headers: &str, channel: &mut Channel, payload: &RawValue) -> Verdict {
    let payload: Value = serde_json::from_str(payload.get()).unwrap_or_default();
    let token = match payload.get("access_token") {
        // A key of the project is no user: it changes nothing.
        Some(Value::String(token)) if token.starts_with("sb_") || **token == *channel.token => {
            return Verdict::Stays;
        }
        Some(Value::String(token)) => token,
        _ => return Verdict::Stays,
    };
    let identity = match Identity::verify(&hub.verify, token) {
        Ok(identity) => identity,
        Err(error) => return Verdict::Ends(refusal_of(&error)),
    };
    let before = channel.rights;
    channel.renew(token, identity);
    if !channel.room.private {
        return Verdict::Renewed;
    }
    let presence = channel.presence;
    let (broadcasts, presence_allowed) =
        match may_read(&hub.database, channel.question(headers), presence).await {
            Ok(allowed) => allowed,
            Err(refusal) => return Verdict::Ends(refusal.to_string().into()),
        };
    channel.rights = Rights {
        read_broadcasts: Some(broadcasts),
        read_presence: presence.then_some(presence_allowed),
        send_broadcasts: None,
        send_presence: None,
    };
    if !broadcasts && !presence_allowed {
        let name = channel.name();
        return Verdict::Ends(
            format!("You do not have permissions to read from this Channel topic: {name}").into(),
        );
    }
    let revoked = |before: Option<bool>, now: Option<bool>| before == Some(true) && now == Some(false);
    if revoked(before.read_broadcasts, channel.rights.read_broadcasts)
        || revoked(before.read_presence, channel.rights.read_presence)
    {
        let name = channel.name();
        return Verdict::Ends(
            format!("You no longer have permission to read from this Channel topic: {name}").into(),
        );
    }
    channel.permit();
    Verdict::Renewed
}

fn refusal_of(error: &TokenError) -> Cow<'static, str> {
    error.to_string().into()
}
