//! What a caller gets next: the whole decision of the voice webhook, as a table.

use longhouse_voice::callers::twilio::twiml::Verb;

/// Streams of one call after which we stop trying.
pub(crate) const MOST_STREAMS: i32 = 50;

/// Streams announced for a call that none of them reached.
const MOST_ATTEMPTS: i32 = 3;

/// How far a call has come when Twilio asks what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Situation {
    /// The number belongs to no tenant, or its agent is switched off without a number to forward to.
    UnknownNumber,
    /// We cannot answer now: no capacity, no database, no speech service.
    Unavailable,
    /// This server is stopping; another will answer in a moment.
    Stopping,
    /// A stream may be opened.
    Connect(Stream),
    /// The agent transferred the caller, or is switched off in favour of a person.
    Transferred,
    /// The speech service failed during the call.
    UpstreamFailed,
    /// The call is over.
    Over,
}

/// What a stream needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// `wss://` address.
    pub(crate) url: String,
    /// Delivered with `start`.
    pub(crate) parameters: Vec<(&'static str, String)>,
}

/// What the tenant wants in place of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fallback {
    /// A person to forward to.
    pub(crate) forward_number: Option<String>,
    /// The owner's words for when nobody can answer.
    pub(crate) apology: Option<String>,
}

const UNKNOWN: &str = "Thank you for calling. This number is not in service at the moment. Please check the number \
                       and try again. Goodbye.";
const BUSY: &str =
    "Thank you for calling. We cannot take your call right now. Please try again in a few minutes.";
const MOMENT: &str = "One moment, please.";

/// The TwiML verbs for a situation. `again` is the webhook's own URL, asked when a stream has ended.
pub(crate) fn verbs(situation: &Situation, fallback: &Fallback, again: &str) -> Vec<Verb> {
    match situation {
        Situation::Connect(stream) => vec![
            Verb::Stream { url: stream.url.clone(), parameters: stream.parameters.clone() },
            // Runs when our side closes the stream: the outcome in the database says how to go on.
            Verb::Redirect(again.to_owned()),
        ],
        Situation::Stopping => {
            vec![Verb::Say(MOMENT.into()), Verb::Pause { seconds: 3 }, Verb::Redirect(again.to_owned())]
        }
        Situation::Over => vec![Verb::Hangup],
        Situation::UnknownNumber => vec![Verb::Say(UNKNOWN.into()), Verb::Hangup],
        Situation::Transferred => match &fallback.forward_number {
            Some(number) => vec![Verb::Dial { number: number.clone() }, Verb::Hangup],
            None => apology(fallback),
        },
        Situation::Unavailable | Situation::UpstreamFailed => match &fallback.forward_number {
            Some(number) => vec![
                Verb::Say("One moment, please. I am putting you through.".into()),
                Verb::Dial { number: number.clone() },
                Verb::Hangup,
            ],
            None => apology(fallback),
        },
    }
}

fn apology(fallback: &Fallback) -> Vec<Verb> {
    let text = fallback.apology.as_deref().map(str::trim).filter(|t| !t.is_empty()).unwrap_or(BUSY);
    vec![Verb::Say(text.to_owned()), Verb::Hangup]
}

/// The situation of a call that had a stream before, from its row. `None`: it goes on with another stream.
pub(crate) fn after_stream(status: &str, outcome: Option<&str>, epoch: i32) -> Option<Situation> {
    match (status, outcome) {
        // A fresh call or a webhook asked twice: connect. A stream that never opens is not tried for ever.
        ("ringing", _) if epoch <= MOST_ATTEMPTS => None,
        // Admitted too late: the caller is still on the line.
        (_, Some("refused")) if epoch <= MOST_ATTEMPTS => None,
        // A server that died in mid-call.
        ("in_progress", _) if epoch <= MOST_STREAMS => None,
        (_, Some("handed_over" | "connection_lost" | "crashed" | "server_lost")) if epoch <= MOST_STREAMS => {
            None
        }
        (_, Some("transferred")) => Some(Situation::Transferred),
        (
            _,
            Some(
                "upstream_failed" | "refused" | "handed_over" | "connection_lost" | "crashed" | "server_lost",
            ),
        ) => Some(Situation::UpstreamFailed),
        ("ringing" | "in_progress", _) => Some(Situation::UpstreamFailed),
        _ => Some(Situation::Over),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_continuation() {
        for (status, outcome, epoch, expected) in [
            ("ringing", None, 1, None),
            ("ringing", None, 4, Some(Situation::UpstreamFailed)),
            ("in_progress", None, 2, None),
            ("interrupted", Some("handed_over"), 2, None),
            ("interrupted", Some("connection_lost"), 2, None),
            ("completed", Some("server_lost"), 2, None),
            ("in_progress", None, 99, Some(Situation::UpstreamFailed)),
            ("completed", Some("refused"), 2, None),
            ("completed", Some("refused"), 4, Some(Situation::UpstreamFailed)),
            ("completed", Some("transferred"), 2, Some(Situation::Transferred)),
            ("completed", Some("upstream_failed"), 2, Some(Situation::UpstreamFailed)),
            ("completed", Some("agent_ended"), 2, Some(Situation::Over)),
            ("completed", Some("caller_hung_up"), 2, Some(Situation::Over)),
            ("completed", Some("time_limit"), 2, Some(Situation::Over)),
        ] {
            assert_eq!(after_stream(status, outcome, epoch), expected, "{status} {outcome:?} {epoch}");
        }
    }

    #[test]
    fn nobody_is_left_in_silence() {
        let person = Fallback { forward_number: Some("+15550100199".into()), apology: None };
        for situation in [
            Situation::UnknownNumber,
            Situation::Unavailable,
            Situation::Transferred,
            Situation::UpstreamFailed,
        ] {
            for fallback in [&Fallback::default(), &person] {
                let verbs = verbs(&situation, fallback, "https://example.com/v");
                assert!(matches!(verbs[0], Verb::Say(_) | Verb::Dial { .. }), "{situation:?}");
                assert_eq!(verbs.last(), Some(&Verb::Hangup));
            }
        }
    }
}
