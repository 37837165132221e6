//! The recogniser's side of the driver.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use longhouse_gateway::Error;
use longhouse_gateway::live::{Listening, ListeningCommand, ListeningEvent};

use super::ring::Ring;
use super::{CLOSE_LIMIT, is_fatal};
use crate::cascade::clock::{Rate, Samples};
use crate::cascade::events::Hearing;
use crate::cascade::language::Language;
use crate::session::BoxFuture;

/// Audio goes to the recogniser in pieces of this length.
const PIECE: Duration = Duration::from_millis(40);

enum Leg {
    Closed,
    Dialing(BoxFuture<'static, Result<Listening, Error>>),
    Open(Listening),
}

/// One recogniser at a time.
pub(super) struct Ears {
    leg: Leg,
    rate: Rate,
    /// What it must hear first.
    from: Samples,
    ready: bool,
    pending: Vec<i16>,
    /// Events that are to be told one by one.
    told: VecDeque<Hearing>,
    shed: u64,
}

impl Ears {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            leg: Leg::Closed,
            rate,
            from: Samples(0),
            ready: false,
            pending: Vec::new(),
            told: VecDeque::new(),
            shed: 0,
        }
    }

    /// Another recogniser; what the last one still says is not listened to.
    pub(super) fn open(&mut self, dial: BoxFuture<'static, Result<Listening, Error>>, from: Samples) {
        self.close();
        self.from = from;
        self.told.clear();
        self.leg = Leg::Dialing(dial);
    }

    pub(super) fn close(&mut self) {
        self.ready = false;
        self.pending.clear();
        if let Leg::Open(listening) = std::mem::replace(&mut self.leg, Leg::Closed) {
            tokio::spawn(listening.close(CLOSE_LIMIT));
        }
    }

    /// The person's audio, at the session's rate.
    pub(super) fn hear(&mut self, samples: &[i16]) {
        if !self.ready {
            return;
        }
        self.pending.extend_from_slice(samples);
        if self.pending.len() as u64 >= self.rate.samples(PIECE) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Leg::Open(listening) = &mut self.leg
            && !self.pending.is_empty()
        {
            let bytes: Vec<u8> = self.pending.drain(..).flat_map(i16::to_le_bytes).collect();
            // Audio that the vendor does not take is dropped by the channel, and counted.
            let _ = listening.send(ListeningCommand::Audio(Bytes::from(bytes)));
        }
    }

    /// The turn is over.
    pub(super) fn end_turn(&mut self) {
        self.flush();
        if self.ready
            && let Leg::Open(listening) = &mut self.leg
            && let Err(error) = listening.send(ListeningCommand::EndTurn)
        {
            tracing::debug!(%error, "the recogniser judges turns by itself");
        }
    }

    /// The next thing that it hears; never ready while there is none.
    pub(super) async fn next(&mut self, ring: &Ring) -> Hearing {
        loop {
            if let Some(hearing) = self.told.pop_front() {
                return hearing;
            }
            let event = match &mut self.leg {
                Leg::Closed => std::future::pending().await,
                Leg::Dialing(dial) => {
                    match dial.await {
                        Ok(listening) => self.leg = Leg::Open(listening),
                        Err(error) => return self.lost(&error),
                    }
                    continue;
                }
                Leg::Open(listening) => listening.next().await,
            };
            match event {
                None => {
                    self.close();
                    return Hearing::Lost { fatal: false };
                }
                Some(Err(error)) => return self.lost(&error),
                Some(Ok(event)) => self.tell(event, ring),
            }
        }
    }

    fn lost(&mut self, error: &Error) -> Hearing {
        tracing::warn!(%error, "the speech recogniser broke off");
        metrics::counter!("longhouse_voice_upstream_lost_total").increment(1);
        self.close();
        Hearing::Lost { fatal: is_fatal(error) }
    }

    fn tell(&mut self, event: ListeningEvent, ring: &Ring) {
        let mut language = None;
        let hearing = match event {
            ListeningEvent::Ready(_) => {
                self.ready = true;
                for chunk in ring.since(self.from) {
                    self.pending.extend_from_slice(chunk);
                }
                self.flush();
                Some(Hearing::Ready)
            }
            // A vendor's final words of a turn are all of them, so far.
            ListeningEvent::Partial(heard) | ListeningEvent::Final(heard) => {
                language = heard.language;
                Some(Hearing::Partial(heard.text))
            }
            ListeningEvent::EagerEnd(heard) => Some(Hearing::EagerEnd(heard.text)),
            ListeningEvent::Resumed { .. } => Some(Hearing::Resumed),
            ListeningEvent::EndOfTurn(heard) => {
                language = heard.language;
                Some(Hearing::EndOfTurn(heard.text))
            }
            ListeningEvent::Warning(text) => {
                tracing::info!(text, "the speech recogniser warns");
                None
            }
            ListeningEvent::SpeechStarted { .. } | ListeningEvent::Finished(_) => None,
        };
        if let Some(language) = language.as_deref().and_then(Language::from_tag) {
            self.told.push_back(Hearing::Language(language));
        }
        self.told.extend(hearing);
        if let Leg::Open(listening) = &self.leg
            && listening.shed() > self.shed
        {
            metrics::counter!("longhouse_voice_shed_messages_total").increment(listening.shed() - self.shed);
            self.shed = listening.shed();
        }
    }
}
