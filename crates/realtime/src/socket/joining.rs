//! `phx_join`: who asks, whether they may, and what they get.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::outgoing::Close;
use super::session::Session;
use crate::broadcast::{PREFIX, replayed_frame};
use crate::changes::{DatabaseBroadcast, replay};
use crate::channel::authorization::{Question, Refusal, Rights, may_read};
use crate::channel::config::{Join, Replay};
use crate::channel::{Channel, Granted};
use crate::hub::followers::MOST_BINDINGS;
use crate::hub::rooms::Member;
use crate::identity::{Identity, TokenError};
use crate::protocol::Ref;

/// Longest name of a channel, in bytes.
const MOST_NAME: usize = 1_024;

/// Why a join is refused; the text is what the client gets as `reason`.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("unmatched topic")]
    Unmatched,
    #[error("TopicNameRequired: You must provide a topic name")]
    NoName,
    #[error("InvalidTopic: the name of a channel has at most {MOST_NAME} bytes")]
    LongName,
    #[error("ChannelRateLimitReached: Too many channels")]
    TooManyChannels,
    #[error("ClientJoinRateLimitReached: Too many joins per second")]
    TooManyJoins,
    #[error("InvalidJoinPayload: a channel follows at most {MOST_BINDINGS} postgres_changes")]
    TooManyBindings,
    #[error("{code}: {error}", code = .error.code())]
    Token {
        #[from]
        error: TokenError,
    },
    #[error("Unauthorized: You do not have permissions to read from this Channel topic: {0}")]
    Unauthorized(String),
    #[error("{code}: {refusal}", code = .refusal.code())]
    Undecided { refusal: Refusal },
    #[error("UnableToReplayMessages: {0}")]
    Replay(&'static str),
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Unmatched | Self::NoName | Self::LongName => "topic",
            Self::TooManyChannels => "channels",
            Self::TooManyJoins => "joins",
            Self::TooManyBindings => "bindings",
            Self::Token { .. } => "token",
            Self::Unauthorized(_) => "rights",
            Self::Undecided { .. } => "database",
            Self::Replay(_) => "replay",
        }
    }
}

/// A join that is granted.
struct Decision {
    token: Box<str>,
    identity: Identity,
    rights: Rights,
    earlier: Vec<DatabaseBroadcast>,
}

impl Session {
    /// Joins a channel, in place of an earlier join of the same name.
    pub(super) async fn join(
        &mut self,
        join_ref: Ref,
        reference: &Ref,
        topic: &str,
        payload: &RawValue,
    ) -> Result<(), Close> {
        if let Some(before) = self.channels.remove(topic) {
            before.say_closed();
        }
        // Clients of version 1 may leave it out: then it is the number of the join itself.
        let join_ref = if join_ref.is_some() { join_ref } else { reference.clone() };
        let join = Join::parse(&serde_json::from_str::<Value>(payload.get()).unwrap_or_default());
        let decision = match self.decide(topic, &join).await {
            Ok(decision) => decision,
            Err(refused) => {
                metrics::counter!("realtime_refused_total", "reason" => refused.label()).increment(1);
                let response = json!({ "reason": refused.to_string() }).to_string();
                self.reply(&join_ref, reference, topic, false, &response);
                return match refused {
                    Refused::TooManyJoins => Err(Close::Policy("Too many joins per second")),
                    _ => Ok(()),
                };
            }
        };
        self.admit(join_ref, reference, topic, join, decision);
        Ok(())
    }

    async fn decide(&self, topic: &str, join: &Join) -> Result<Decision, Refused> {
        let name = topic.strip_prefix(PREFIX).ok_or(Refused::Unmatched)?;
        if name.is_empty() {
            return Err(Refused::NoName);
        }
        if name.len() > MOST_NAME {
            return Err(Refused::LongName);
        }
        if !self.hub.may_join() {
            return Err(Refused::TooManyJoins);
        }
        if self.channels.len() >= self.hub.limits.channels {
            return Err(Refused::TooManyChannels);
        }
        if join.bindings.len() > MOST_BINDINGS {
            return Err(Refused::TooManyBindings);
        }
        // A key of the project is no user's token: the connection's own key counts.
        let token = join.token.as_deref().filter(|token| !token.starts_with("sb_")).unwrap_or(&self.key);
        let identity = if *token == *self.key && self.identity.expires.is_none() {
            self.identity.clone()
        } else {
            Identity::verify(&self.hub.verify, token)?
        };
        let question = Question { claims: &identity.claims, topic: name, headers: &self.headers };
        let rights =
            if join.private { self.rights(question, join.presence).await? } else { Rights::default() };
        let earlier = match join.replay {
            None => Vec::new(),
            Some(_) if !join.private => {
                return Err(Refused::Replay("Replay is not allowed for public channels"));
            }
            Some(_) if rights.read_broadcasts != Some(true) => {
                return Err(Refused::Unauthorized(name.to_owned()));
            }
            Some(Replay::Invalid) => return Err(Refused::Replay("Replay params are not valid")),
            Some(Replay::Since { since, limit }) => {
                replay(&self.hub.database, question.claims, name, since, limit).await.map_err(|error| {
                    tracing::warn!(%error, "cannot replay messages");
                    Refused::Replay("Realtime was unable to replay messages")
                })?
            }
        };
        Ok(Decision { token: token.into(), identity, rights, earlier })
    }

    async fn rights(&self, question: Question<'_>, presence: bool) -> Result<Rights, Refused> {
        let unauthorized = || Refused::Unauthorized(question.topic.to_owned());
        let (broadcasts, presence_allowed) = match may_read(&self.hub.database, question, presence).await {
            Ok(allowed) => allowed,
            Err(refusal @ Refusal::Policy(_)) => {
                tracing::warn!(topic = question.topic, %refusal, "a policy of realtime.messages fails");
                return Err(unauthorized());
            }
            Err(refusal) => return Err(Refused::Undecided { refusal }),
        };
        if !broadcasts && !presence_allowed {
            return Err(unauthorized());
        }
        Ok(Rights {
            read_broadcasts: Some(broadcasts),
            read_presence: presence.then_some(presence_allowed),
            ..Rights::default()
        })
    }

    /// Answers, and lets the channel in. All of it happens at once for others: nothing here waits.
    fn admit(&mut self, join_ref: Ref, reference: &Ref, topic: &str, join: Join, decision: Decision) {
        let Decision { token, identity, rights, earlier } = decision;
        let answers: Vec<&Value> = join.bindings.iter().map(|binding| &binding.answer).collect();
        let response = json!({ "postgres_changes": answers }).to_string();
        self.reply(&join_ref, reference, topic, true, &response);
        let serial = self.hub.serial();
        let outgoing = Arc::clone(&self.connection.outgoing);
        let replayed: Box<[String]> = earlier.iter().map(|earlier| earlier.id.clone()).collect();
        let member = Member {
            serial,
            outgoing: Arc::clone(&outgoing),
            version: self.version,
            broadcasts: !join.private || rights.read_broadcasts == Some(true),
            presence: !join.private || rights.read_presence == Some(true),
            replayed: (!replayed.is_empty()).then_some(replayed),
        };
        let room = self.hub.rooms.enter(join.private, &topic.into(), member);
        let granted = Granted { serial, join_ref, room, token, identity, rights };
        let mut channel =
            Box::new(Channel::new(Arc::clone(&self.hub), (outgoing, self.version), granted, &join));
        for earlier in &earlier {
            if let Some(frame) = replayed_frame(self.version, topic, earlier) {
                channel.outgoing.push(frame);
            }
        }
        if channel.presence && channel.sees_presence() {
            channel.push_presence_state();
        }
        if let Some(source) = self.hub.source() {
            source.attend();
        }
        channel.follow(join);
        self.channels.insert(Arc::clone(&channel.room.name), channel);
        metrics::counter!("realtime_joins_total").increment(1);
    }
}
