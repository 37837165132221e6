//! Speaking without a network: espeak-ng, sentence by sentence. There is no offline listener: no recogniser's weights
//! are part of this program, and nothing less than one would be honest.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::link::{Channel, Live};
use super::speaking::{
    Speaking, SpeakingCapabilities, SpeakingCommand, SpeakingEvent, SpeakingRequest, TextToSpeech, Utterance,
};
use super::{Encoding, Payload, cartesia};
use crate::Error;
use crate::error::{Failure, Fault};
use crate::offline::Voice;
use crate::providers::wire::Context as Who;
use crate::providers::{Attempt, sentences};
use crate::speech::{AudioFormat, SpeechRequest};
use crate::usage::Usage;

/// Most characters that wait to be spoken.
const MOST_CHARACTERS: usize = 100_000;
/// A sentence without an end is spoken after this many characters.
const LONGEST_SENTENCE: usize = 400;
/// Audio in one event: 200 ms at 24 kHz.
const PIECE: usize = 9_600;
/// Longest time for a sentence.
const SENTENCE: Duration = Duration::from_secs(20);

/// espeak-ng, where it is installed.
#[derive(Debug, Clone)]
pub struct OfflineSpeech {
    voice: Voice,
}

impl OfflineSpeech {
    /// Looks for espeak-ng on the search path.
    #[must_use]
    pub fn detect() -> Self {
        Self { voice: Voice::detect() }
    }
}

#[async_trait]
impl TextToSpeech for OfflineSpeech {
    fn capabilities(&self, _: &str) -> SpeakingCapabilities {
        SpeakingCapabilities {
            pcm_rates: &[8_000, 16_000, 22_050, 24_000, 44_100, 48_000],
            mulaw: true,
            alaw: false,
            word_times: false,
            utterances: 1,
            speeds: 0.5..=2.0,
        }
    }

    async fn open(&self, request: &SpeakingRequest, attempt: &Attempt) -> Result<Speaking, Error> {
        cartesia::permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let who = Who::of(attempt);
        if !self.voice.is_available() {
            let message = "espeak-ng is not installed: apt-get install espeak-ng";
            return Err(who.fail(Fault::Unsupported, message).into());
        }
        let (voice, request, attempt) = (self.voice.clone(), request.clone(), attempt.clone());
        Ok(Live::new(Sentences {
            voice,
            request,
            attempt,
            who,
            queue: VecDeque::new(),
            open: Vec::new(),
            speaking: None,
            events: VecDeque::from([SpeakingEvent::Ready(None)]),
            finishing: false,
            over: false,
            waiting: 0,
            usage: Usage::default(),
        }))
    }
}

type Spoken = Pin<Box<dyn Future<Output = Result<(Bytes, Usage), Error>> + Send>>;

struct Sentences {
    voice: Voice,
    request: SpeakingRequest,
    attempt: Attempt,
    who: Who,
    queue: VecDeque<Step>,
    /// Utterances whose last sentence may still grow.
    open: Vec<(Utterance, String)>,
    speaking: Option<(Utterance, Spoken)>,
    events: VecDeque<SpeakingEvent>,
    finishing: bool,
    over: bool,
    /// Characters that wait.
    waiting: usize,
    usage: Usage,
}

enum Step {
    Say(Utterance, String),
    Flushed(Utterance),
    Done(Utterance),
}

impl Step {
    fn utterance(&self) -> Utterance {
        match self {
            Self::Say(utterance, _) | Self::Flushed(utterance) | Self::Done(utterance) => *utterance,
        }
    }
}

/// The length of the first whole sentence: its end is known when something follows.
fn sentence(text: &str) -> Option<usize> {
    let mut ended = false;
    for (at, c) in text.char_indices() {
        if c == '\n' || (ended && c.is_whitespace()) {
            return Some(at + c.len_utf8());
        }
        ended = matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？')
            || (ended && matches!(c, '"' | '\'' | ')' | '”' | '»'));
    }
    None
}

impl Sentences {
    fn fail(&self, fault: Fault, message: &str) -> Error {
        let failure: Failure = self.who.fail(fault, message);
        failure.into()
    }

    fn text(&mut self, utterance: Utterance, text: &str) -> Result<(), Error> {
        if self.waiting + text.len() > MOST_CHARACTERS {
            return Err(self.fail(Fault::Busy, "too much text waits to be spoken"));
        }
        self.waiting += text.len();
        let index = match self.open.iter().position(|(open, _)| *open == utterance) {
            Some(index) => index,
            None => {
                self.open.push((utterance, String::new()));
                self.open.len() - 1
            }
        };
        let rest = &mut self.open[index].1;
        rest.push_str(text);
        while let Some(end) = sentence(rest) {
            let tail = rest.split_off(end);
            let whole = std::mem::replace(rest, tail);
            self.queue.push_back(Step::Say(utterance, whole));
        }
        if rest.chars().count() > LONGEST_SENTENCE {
            let whole = std::mem::take(rest);
            for piece in sentences::pieces(&whole, LONGEST_SENTENCE) {
                self.queue.push_back(Step::Say(utterance, piece.to_owned()));
            }
        }
        Ok(())
    }

    fn flush(&mut self, utterance: Utterance) {
        if let Some((_, rest)) = self.open.iter_mut().find(|(open, _)| *open == utterance) {
            let rest = std::mem::take(rest);
            if !rest.trim().is_empty() {
                self.queue.push_back(Step::Say(utterance, rest));
            }
        }
    }

    fn end(&mut self, utterance: Utterance) {
        self.flush(utterance);
        self.open.retain(|(open, _)| *open != utterance);
        self.queue.push_back(Step::Done(utterance));
    }

    fn speak(&self, text: String) -> Spoken {
        let format = match self.request.encoding {
            Encoding::Pcm16(rate) => AudioFormat::Pcm(rate),
            Encoding::Mulaw | Encoding::Alaw => AudioFormat::Mulaw,
        };
        let request = SpeechRequest {
            voice: self.request.voice.clone(),
            language: self.request.language.clone(),
            speed: self.request.speed,
            ..SpeechRequest::new(&text, format)
        };
        let voice = self.voice.clone();
        let attempt = Attempt { deadline: tokio::time::Instant::now() + SENTENCE, ..self.attempt.clone() };
        Box::pin(async move {
            let stream = voice.speak(&request, &attempt).await?;
            stream.collect(64 << 20).await
        })
    }

    fn spoken(&mut self, utterance: Utterance, spoken: Result<(Bytes, Usage), Error>) {
        match spoken {
            Ok((audio, usage)) => {
                self.usage += usage;
                for start in (0..audio.len()).step_by(PIECE) {
                    let piece = audio.slice(start..audio.len().min(start + PIECE));
                    self.events.push_back(SpeakingEvent::Audio(utterance, Payload::Raw(piece)));
                }
            }
            Err(error) => {
                self.queue.retain(|step| step.utterance() != utterance);
                self.open.retain(|(open, _)| *open != utterance);
                self.events.push_back(SpeakingEvent::Failed(utterance, error.to_string()));
            }
        }
    }
}

#[async_trait]
impl Channel<SpeakingCommand, SpeakingEvent> for Sentences {
    fn send(&mut self, command: SpeakingCommand) -> Result<(), Error> {
        if self.over {
            return Err(self.fail(Fault::Interrupted, "the speaker has finished"));
        }
        match command {
            SpeakingCommand::Text(utterance, text) => self.text(utterance, &text)?,
            SpeakingCommand::Flush(utterance) => {
                self.flush(utterance);
                self.queue.push_back(Step::Flushed(utterance));
            }
            SpeakingCommand::End(utterance) => self.end(utterance),
            SpeakingCommand::Cancel(utterance) => {
                // Dropping the sentence kills its process.
                self.speaking = self.speaking.take().filter(|(speaking, _)| *speaking != utterance);
                self.queue.retain(|step| step.utterance() != utterance);
                self.open.retain(|(open, _)| *open != utterance);
                self.events.retain(|event| !matches!(event, SpeakingEvent::Audio(of, _) if *of == utterance));
                self.events.push_back(SpeakingEvent::Cancelled(utterance));
                self.waiting = self
                    .queue
                    .iter()
                    .map(|step| match step {
                        Step::Say(_, text) => text.len(),
                        _ => 0,
                    })
                    .sum::<usize>()
                    + self.open.iter().map(|(_, rest)| rest.len()).sum::<usize>();
            }
            SpeakingCommand::Finish => {
                self.finishing = true;
                let open: Vec<Utterance> = self.open.iter().map(|(utterance, _)| *utterance).collect();
                open.into_iter().for_each(|utterance| self.end(utterance));
            }
        }
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<SpeakingEvent, Error>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            if let Some((utterance, speaking)) = &mut self.speaking {
                let utterance = *utterance;
                let Poll::Ready(spoken) = speaking.as_mut().poll(context) else { return Poll::Pending };
                self.speaking = None;
                self.spoken(utterance, spoken);
                continue;
            }
            match self.queue.pop_front() {
                Some(Step::Say(utterance, text)) => {
                    self.waiting = self.waiting.saturating_sub(text.len());
                    self.speaking = Some((utterance, self.speak(text)));
                }
                Some(Step::Flushed(utterance)) => self.events.push_back(SpeakingEvent::Flushed(utterance)),
                Some(Step::Done(utterance)) => self.events.push_back(SpeakingEvent::Done(utterance)),
                None if self.finishing => {
                    self.over = true;
                    self.events.push_back(SpeakingEvent::Finished(self.usage));
                }
                None => return Poll::Pending,
            }
        }
    }

    fn backlog(&self) -> usize {
        self.waiting
    }

    fn shed(&self) -> u64 {
        0
    }

    async fn close(&mut self, _: Duration) {
        self.over = true;
        self.speaking = None;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("One. Two", Some(5))]
    #[case("He said \"no.\" Then", Some(14))]
    #[case("3.14 is pi", None)]
    #[case("One.", None)]
    #[case("line\nnext", Some(5))]
    fn sentences_end_where_something_follows(#[case] text: &str, #[case] end: Option<usize>) {
        assert_eq!(sentence(text), end);
    }
}
