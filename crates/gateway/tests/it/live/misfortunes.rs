//! The same misfortunes for every adapter: what it reports, that it reports it once, and that nothing stays open.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use longhouse_emulators::ai::{LiveAction, LiveFault, LiveFaults};
use longhouse_emulators::openai::{Action, After, Fault as SessionFault, Faults as SessionFaults};
use longhouse_gateway::live::{
    Encoding, ListeningCommand, ListeningRequest, Live, Payload, SessionCommand, SpeakingCommand,
    SpeakingRequest, Utterance,
};
use longhouse_gateway::{Error, Fault};
use rstest::rstest;

use super::harness::{Desk, Ear, Mind, Mouth, speech};
use crate::harness::{KEY, soon};

/// Every adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Who {
    Ear(Ear),
    Mouth(Mouth),
    Mind(Mind),
}

pub(super) const ALL: [Who; 9] = [
    Who::Ear(Ear::Flux),
    Who::Ear(Ear::Nova),
    Who::Ear(Ear::OpenAi),
    Who::Mouth(Mouth::Aura),
    Who::Mouth(Mouth::Cartesia),
    Who::Mouth(Mouth::ElevenLabs),
    Who::Mind(Mind::OpenAi),
    Who::Mind(Mind::Xai),
    Who::Mind(Mind::Gemini),
];

impl Who {
    fn is_openai_like(self) -> bool {
        matches!(self, Self::Ear(Ear::OpenAi) | Self::Mind(Mind::OpenAi | Mind::Xai))
    }

    /// Scripts a misfortune in the place of a frame.
    fn script(self, desk: &Desk, frame: usize, action: LiveAction) {
        if !self.is_openai_like() {
            return desk.server.set_live_faults(LiveFaults::all(LiveFault::at(frame, action)));
        }
        let action = match action {
            LiveAction::Reset => Action::Drop,
            LiveAction::Close(code, reason) => Action::Close { code, reason },
            LiveAction::Silence => Action::Silence,
            LiveAction::Garble => Action::Garble,
            LiveAction::Oversize(bytes) => Action::Oversize(bytes),
            LiveAction::Error => {
                Action::Error { code: "invalid_api_key".into(), message: "the key was revoked".into() }
            }
        };
        desk.server
            .set_realtime_faults(SessionFaults::all(SessionFault::action(After::Frames(frame), action)));
    }

    fn refuse(self, desk: &Desk, status: u16) {
        if self.is_openai_like() {
            desk.server.set_realtime_faults(SessionFaults::all(SessionFault::refuse(status)));
        } else {
            let fault = LiveFault { retry_after: Some(Duration::from_secs(7)), ..LiveFault::refuse(status) };
            desk.server.set_live_faults(LiveFaults::all(fault));
        }
    }

    /// A short piece of work from the upgrade to the end: how much came, and how it ended.
    pub(super) async fn work(self, desk: &Desk) -> (usize, Option<Error>) {
        match self {
            Self::Ear(ear) => {
                let mut commands: Vec<_> = speech("hello there friend", Encoding::Mulaw, 900)
                    .await
                    .into_iter()
                    .map(ListeningCommand::Audio)
                    .collect();
                commands.push(ListeningCommand::Finish);
                run(desk.listen(ear, &ListeningRequest::new(Encoding::Mulaw)).await, commands, |_| false)
                    .await
            }
            Self::Mouth(mouth) => {
                let u = Utterance(1);
                let commands = vec![
                    SpeakingCommand::Text(u, "Hello there friend. ".into()),
                    SpeakingCommand::End(u),
                    SpeakingCommand::Finish,
                ];
                run(desk.speak(mouth, &SpeakingRequest::new(Encoding::Mulaw)).await, commands, |_| false)
                    .await
            }
            Self::Mind(mind) => {
                let mut commands: Vec<_> = speech("hello there friend", mind.input(), 900)
                    .await
                    .into_iter()
                    .map(|piece| SessionCommand::Audio(Payload::Raw(piece)))
                    .collect();
                commands.push(SessionCommand::Text("hello".into()));
                let mut done = 0;
                run(desk.converse(mind, &mind.request()).await, commands, move |event| {
                    let ended = matches!(event, longhouse_gateway::live::SessionEvent::OutputDone { .. });
                    done += usize::from(ended);
                    done == 1
                })
                .await
            }
        }
    }
}

/// Sends, reads, and stops at the end, at an error, or when `enough`.
async fn run<C, E: Debug>(
    opened: Result<Live<C, E>, Error>,
    commands: Vec<C>,
    mut enough: impl FnMut(&E) -> bool,
) -> (usize, Option<Error>) {
    let mut live = match opened {
        Ok(live) => live,
        Err(error) => return (0, Some(error)),
    };
    let mut commands = commands.into_iter();
    let mut events = 0;
    loop {
        let patience = match commands.next() {
            Some(command) => {
                // After a failure nothing can be sent; the failure is still to be read.
                let _ = live.send(command);
                Duration::from_micros(100)
            }
            None => Duration::from_secs(20),
        };
        while let Ok(next) = tokio::time::timeout(patience, live.next()).await {
            match next {
                None => return (events, None),
                Some(Ok(event)) => {
                    events += 1;
                    if enough(&event) {
                        return (events, None);
                    }
                }
                Some(Err(error)) => {
                    // It is said once, and then it is over.
                    assert!(soon(live.next()).await.is_none());
                    return (events, Some(error));
                }
            }
        }
        assert!(patience < Duration::from_secs(20), "nothing happens any more");
    }
}

fn fault(error: Option<&Error>) -> Option<Fault> {
    error.and_then(Error::failure).map(|failure| failure.fault)
}

#[rstest]
#[case(Who::Ear(Ear::Flux))]
#[case(Who::Ear(Ear::Nova))]
#[case(Who::Ear(Ear::OpenAi))]
#[case(Who::Mouth(Mouth::Aura))]
#[case(Who::Mouth(Mouth::Cartesia))]
#[case(Who::Mouth(Mouth::ElevenLabs))]
#[case(Who::Mind(Mind::OpenAi))]
#[case(Who::Mind(Mind::Xai))]
#[case(Who::Mind(Mind::Gemini))]
#[tokio::test]
async fn a_break_at_every_frame_is_an_interruption(#[case] who: Who) {
    let desk = Desk::new().await;
    let (whole, error) = who.work(&desk).await;
    assert!(error.is_none() && whole > 2, "{whole} {error:?}");
    let (mut broken, mut frame) = (0, 0);
    loop {
        who.script(&desk, frame, LiveAction::Reset);
        let (events, error) = who.work(&desk).await;
        // Beyond the last frame there is nothing to break.
        let Some(error) = error else { break };
        assert_eq!(fault(Some(&error)), Some(Fault::Interrupted), "frame {frame}: {error}");
        assert!(events <= whole + 8, "frame {frame}");
        assert_eq!(error.delivered(), events > 0);
        broken += 1;
        frame += 1;
        assert!(frame < 400, "endless");
    }
    assert!(broken > 2, "{broken}");
    soon(desk.server.sockets_closed()).await;
}

#[rstest]
#[case(LiveAction::Garble, &[Fault::Malformed])]
#[case(LiveAction::Oversize(5 << 20), &[Fault::TooLarge])]
#[case(LiveAction::Close(1011, String::from("internal")), &[Fault::ServerError])]
#[case(LiveAction::Close(1013, String::from("try again later")), &[Fault::Overloaded])]
#[case(LiveAction::Close(1001, String::from("going away")), &[Fault::Interrupted])]
#[case(LiveAction::Error, &[Fault::ServerError, Fault::Interrupted, Fault::Unauthorized, Fault::InvalidRequest])]
#[tokio::test]
async fn misfortunes_are_told_apart(#[case] action: LiveAction, #[case] expected: &[Fault]) {
    for who in ALL {
        for frame in [0, 1] {
            let desk = Desk::new().await;
            who.script(&desk, frame, action.clone());
            let (_, error) = who.work(&desk).await;
            let found = fault(error.as_ref());
            // ElevenLabs and Cartesia report an error of one utterance or of all; either ends this work.
            assert!(found.is_some_and(|fault| expected.contains(&fault)), "{who:?} {frame}: {error:?}");
            soon(desk.server.sockets_closed()).await;
        }
    }
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    for who in ALL {
        let mut desk = Desk::new().await;
        (desk.idle, desk.first_byte) = (Duration::from_millis(400), Duration::from_millis(400));
        for frame in [0, 2] {
            who.script(&desk, frame, LiveAction::Silence);
            let begun = tokio::time::Instant::now();
            let (_, error) = who.work(&desk).await;
            assert!(matches!(fault(error.as_ref()), Some(Fault::TimedOut(_))), "{who:?} {frame}: {error:?}");
            assert!(begun.elapsed() < Duration::from_secs(6), "{who:?} {frame}: {:?}", begun.elapsed());
        }
    }
}

#[rstest]
#[case(429, Fault::RateLimited)]
#[case(500, Fault::ServerError)]
#[case(503, Fault::Overloaded)]
#[case(402, Fault::Billing)]
#[case(404, Fault::NotFound)]
#[tokio::test]
async fn a_refused_upgrade_says_why(#[case] status: u16, #[case] expected: Fault) {
    let desk = Desk::new().await;
    for who in ALL {
        who.refuse(&desk, status);
        let (_, error) = who.work(&desk).await;
        let error = error.unwrap();
        assert_eq!(fault(Some(&error)), Some(expected), "{who:?}: {error}");
        assert_eq!(error.failure().unwrap().status, Some(status));
        if !who.is_openai_like() {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{who:?}");
        }
    }
    assert_eq!(desk.server.open_sockets(), 0);
}

#[tokio::test]
async fn a_wrong_key_is_unauthorized_and_shown_nowhere() {
    let mut desk = Desk::new().await;
    desk.key = "sk-another-secret-0123456789".into();
    for who in ALL {
        let (_, error) = who.work(&desk).await;
        let error = error.unwrap();
        assert_eq!(fault(Some(&error)), Some(Fault::Unauthorized), "{who:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("another-secret"), "{who:?}");
        assert!(!format!("{error} {error:?}").contains(KEY), "{who:?}");
    }
}

#[tokio::test]
async fn dropping_it_frees_the_socket() {
    let desk = Desk::new().await;
    for who in ALL {
        let opened: Box<dyn std::any::Any> = match who {
            Who::Ear(ear) => {
                Box::new(desk.listen(ear, &ListeningRequest::new(Encoding::Mulaw)).await.unwrap())
            }
            Who::Mouth(mouth) => {
                Box::new(desk.speak(mouth, &SpeakingRequest::new(Encoding::Mulaw)).await.unwrap())
            }
            Who::Mind(mind) => Box::new(desk.converse(mind, &mind.request()).await.unwrap()),
        };
        while desk.server.open_sockets() == 0 {
            tokio::task::yield_now().await;
        }
        drop(opened);
        soon(desk.server.sockets_closed()).await;
    }
}

#[tokio::test]
async fn addresses_that_a_person_named_must_be_public() {
    let desk = Desk::new().await;
    let mut attempt = desk.attempt(desk.server.deepgram(), "nova-3");
    attempt.trusted_address = false;
    let one = longhouse_gateway::live::deepgram::DeepgramLive::new(desk.dialer.clone());
    let request = ListeningRequest::new(Encoding::Mulaw);
    let listened = longhouse_gateway::live::SpeechToText::listen(&one, &request, &attempt).await;
    assert_eq!(fault(listened.as_ref().err()), Some(Fault::ForbiddenAddress));
    attempt.base_url = url::Url::parse("https://localhost/").unwrap();
    let listened = longhouse_gateway::live::SpeechToText::listen(&one, &request, &attempt).await;
    assert_eq!(fault(listened.as_ref().err()), Some(Fault::ForbiddenAddress));
    assert_eq!(desk.server.open_sockets(), 0);
    let kinds: BTreeSet<&str> = desk.server.sockets().iter().map(|_| "asked").collect();
    assert!(kinds.is_empty());
}
