//! Audio that providers send as plain bytes, of one request or of several one after the other.

use std::collections::VecDeque;

use futures_util::stream;
use reqwest::RequestBuilder;

use super::Attempt;
use super::wire::{Answer, Explain, Wire};
use crate::error::{Error, Fault};
use crate::speech::{AudioFormat, SpeechEvent, SpeechStream};
use crate::usage::Usage;

/// Most bytes of audio of one request: an hour of 24 kHz.
const MOST_AUDIO: usize = 176 << 20;

/// Sends the first request, then streams the audio of all in their order.
pub(crate) async fn speak(
    wire: &Wire,
    requests: Vec<RequestBuilder>,
    attempt: &Attempt,
    explain: Explain,
    format: AudioFormat,
    characters: u64,
) -> Result<SpeechStream, Error> {
    let mut requests = VecDeque::from(requests);
    let Some(first) = requests.pop_front() else {
        return Err(Error::InvalidRequest("there is nothing to say: send some text".into()));
    };
    let answer = Box::pin(wire.send(first, attempt, explain)).await?;
    if !answer.mime().starts_with("audio/") && answer.mime() != "application/octet-stream" {
        let message = format!("audio was expected, not {}", answer.mime());
        return Err(answer.context().fail(Fault::Malformed, message).into());
    }
    let speaking = Speaking {
        wire: wire.clone(),
        attempt: attempt.clone(),
        explain,
        answer: Some(answer),
        requests,
        format,
        bytes: 0,
        characters,
        delivered: false,
    };
    Ok(SpeechStream::new(
        format,
        stream::unfold(Some(speaking), async |speaking| {
            let mut speaking = speaking?;
            match Box::pin(speaking.next()).await {
                Ok(SpeechEvent::Finished(usage)) => Some((Ok(SpeechEvent::Finished(usage)), None)),
                Ok(event) => Some((Ok(event), Some(speaking))),
                Err(error) => Some((Err(error), None)),
            }
        }),
    ))
}

struct Speaking {
    wire: Wire,
    attempt: Attempt,
    explain: Explain,
    answer: Option<Answer>,
    requests: VecDeque<RequestBuilder>,
    format: AudioFormat,
    bytes: u64,
    characters: u64,
    delivered: bool,
}

impl Speaking {
    async fn next(&mut self) -> Result<SpeechEvent, Error> {
        loop {
            let Some(answer) = &mut self.answer else {
                let Some(request) = self.requests.pop_front() else {
                    return self.finish();
                };
                let sent = self.wire.send(request, &self.attempt, self.explain).await;
                self.answer = Some(sent.map_err(|error| self.mark(error))?);
                continue;
            };
            match answer.chunk(MOST_AUDIO).await {
                Ok(Some(bytes)) => {
                    self.delivered = true;
                    self.bytes += bytes.len() as u64;
                    return Ok(SpeechEvent::Audio(bytes));
                }
                Ok(None) => self.answer = None,
                Err(error) => return Err(self.mark(error)),
            }
        }
    }

    fn finish(&self) -> Result<SpeechEvent, Error> {
        if self.bytes == 0 {
            let context = super::wire::Context::of(&self.attempt);
            return Err(context.fail(Fault::Malformed, "no audio came").into());
        }
        let rate = self.format.bytes_per_second().map_or(0, u64::from);
        let audio_ms = (self.bytes * 1_000).checked_div(rate).unwrap_or_default();
        Ok(SpeechEvent::Finished(Usage { characters: self.characters, audio_ms, ..Usage::default() }))
    }

    fn mark(&self, mut error: Error) -> Error {
        if let Error::Provider(failure) = &mut error {
            failure.delivered = self.delivered;
        }
        error
    }
}

/// A format that a protocol does not have.
pub(crate) fn no_format(attempt: &Attempt, format: AudioFormat) -> Error {
    let message = format!("it does not speak {}", format.mime());
    super::wire::Context::of(attempt).fail(Fault::Unsupported, message).into()
}
