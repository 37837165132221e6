//! Calls that are answered whole, and speech.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use uuid::Uuid;

use super::chain::{Chain, Hop, Lacks};
use super::hedging::race;
use super::lanes::Place;
use super::meter::Meter;
use super::{Call, Gateway, Report, Served};
use crate::embeddings::{EmbeddingRequest, Embeddings};
use crate::error::{Error, Fault};
use crate::images::{ImageRequest, Images};
use crate::ledger::Outcome;
use crate::model::Modality;
use crate::moderation::{Moderation, ModerationRequest};
use crate::speech::{SpeechEvent, SpeechRequest, SpeechStream};
use crate::transcription::{Transcript, TranscriptionRequest};
use crate::usage::Usage;

/// Most texts of one request for vectors.
const MOST_TEXTS: usize = 2_048;

fn any() -> Lacks {
    Box::new(|_| None)
}

fn invalid<T>(message: &str) -> Result<T, Error> {
    Err(Error::InvalidRequest(message.to_owned()))
}

/// An adapter that lacks what its capability table promises.
pub(super) fn unsupported(hop: &Hop) -> Error {
    let context = crate::providers::context(&hop.attempt);
    context.fail(Fault::Unsupported, "its adapter lacks this").into()
}

impl Gateway {
    /// Writes a recording down.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transcribe(
        &self,
        call: &Call,
        request: TranscriptionRequest,
    ) -> Result<Served<Transcript>, Error> {
        if request.audio.data.is_empty() {
            return invalid("the recording is empty: send some audio");
        }
        let request = Arc::new(request);
        // A second of compressed speech is about 2 kB.
        let audio_ms = request.audio.data.len() as u64 / 2;
        let estimate = Usage { audio_ms, estimated: true, ..Usage::default() };
        self.serve(
            call,
            Modality::Transcription,
            estimate,
            None,
            |transcript: &Transcript| transcript.usage,
            move |hop| {
                let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
                let adapter = hop.adapter.transcription.clone().ok_or_else(|| unsupported(hop));
                async move { adapter?.transcribe(&request, &attempt).await }.boxed()
            },
        )
        .await
    }

    /// Makes pictures.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn make_images(&self, call: &Call, request: ImageRequest) -> Result<Served<Images>, Error> {
        if request.prompt.trim().is_empty() {
            return invalid("the prompt is empty: say what the picture shows");
        }
        if !(1..=10).contains(&request.count) {
            return invalid("ask for 1 to 10 pictures");
        }
        let said = request.prompt.clone();
        let request = Arc::new(request);
        let estimate = Usage { images: request.count.into(), estimated: true, ..Usage::default() };
        self.serve(
            call,
            Modality::Images,
            estimate,
            Some(&said),
            |images: &Images| images.usage,
            move |hop| {
                let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
                let adapter = hop.adapter.images.clone().ok_or_else(|| unsupported(hop));
                async move { adapter?.make_images(&request, &attempt).await }.boxed()
            },
        )
        .await
    }

    /// Embeds texts. Vectors of different models do not compare: tasks for vectors name one model, or models of one
    /// space.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn embed(&self, call: &Call, request: EmbeddingRequest) -> Result<Served<Embeddings>, Error> {
        if request.texts.is_empty() || request.texts.iter().any(|text| text.trim().is_empty()) {
            return invalid("there must be texts to embed, none of them empty");
        }
        if request.texts.len() > MOST_TEXTS {
            return invalid("more than 2048 texts: embed them in parts");
        }
        let request = Arc::new(request);
        let input_tokens = request.texts.iter().map(|text| Usage::estimate_tokens(text)).sum();
        let estimate = Usage { input_tokens, estimated: true, ..Usage::default() };
        self.serve(
            call,
            Modality::Embeddings,
            estimate,
            None,
            |embeddings: &Embeddings| embeddings.usage,
            move |hop| {
                let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
                let adapter = hop.adapter.embeddings.clone().ok_or_else(|| unsupported(hop));
                async move { adapter?.embed(&request, &attempt).await }.boxed()
            },
        )
        .await
    }

    /// Judges content.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn moderate(
        &self,
        call: &Call,
        request: ModerationRequest,
    ) -> Result<Served<Moderation>, Error> {
        if request.texts.is_empty() && request.picture.is_none() {
            return invalid("there is nothing to judge");
        }
        let request = Arc::new(request);
        self.serve(
            call,
            Modality::Moderation,
            Usage::default(),
            None,
            |found: &Moderation| found.usage,
            move |hop| {
                let (request, attempt) = (Arc::clone(&request), hop.attempt.clone());
                let adapter = hop.adapter.moderation.clone().ok_or_else(|| unsupported(hop));
                async move { adapter?.moderate(&request, &attempt).await }.boxed()
            },
        )
        .await
    }

    /// Says a text. Returns with the first audio; models are changed only before it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn speak(&self, call: &Call, request: SpeechRequest) -> Result<Served<SpeechStream>, Error> {
        if request.text.trim().is_empty() {
            return invalid("there is nothing to say: send some text");
        }
        let id = Uuid::now_v7();
        let request = Arc::new(request);
        let mut slower = Usage::default();
        let characters = request.text.chars().count() as u64;
        let estimate = Usage { characters, estimated: true, ..Usage::default() };
        let mut chain = Chain::new(Arc::clone(&self.inner), call, id, Modality::Speech, any())?;
        if chain.settings().safety.is_some() {
            let settings = chain.settings().clone();
            Box::pin(self.admit(call, id, Modality::Speech, &settings, &request.text)).await?;
        }
        let inner = Arc::clone(&self.inner);
        let estimate = twice_if(chain.hedge().is_some(), estimate);
        let mut meter = Meter::start(inner, call, id, Modality::Speech, estimate).await?;
        let quota = meter.standing();
        loop {
            let begun = match chain.next().await {
                Ok(hop) => {
                    meter.asking(&hop);
                    let request = Arc::clone(&request);
                    let ask = move |hop: &Hop| begin(Arc::clone(&request), hop);
                    let (begun, hop, hedged) = race(&mut chain, &hop, ask).await.settled(hop);
                    if hedged {
                        meter.asking(&hop);
                        slower = Usage { characters, ..Usage::default() };
                    }
                    (begun, hop)
                }
                Err(error) => {
                    meter.fail(&error, chain.tried()).await;
                    return Err(error);
                }
            };
            match begun {
                (Ok((first, rest)), hop) => {
                    meter.first_content();
                    // Providers charge for what they were sent, heard or not.
                    meter.consumed(Usage { characters, ..Usage::default() });
                    meter.consumed(slower);
                    let tried = chain.tried().to_vec();
                    let report = Report { call: id, model: hop.model, tried, quota, cached: false };
                    let value = metered(first, rest, hop.place, meter, report.clone(), slower);
                    return Ok(Served { value, report });
                }
                (Err(error), hop) => {
                    if let Err(error) = chain.failed(hop.place, error, false).await {
                        meter.fail(&error, chain.tried()).await;
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn serve<T, F>(
        &self,
        call: &Call,
        modality: Modality,
        estimate: Usage,
        // What a user wrote, to be judged where the task says so.
        said: Option<&str>,
        usage: fn(&T) -> Usage,
        ask: F,
    ) -> Result<Served<T>, Error>
    where
        F: Fn(&Hop) -> BoxFuture<'static, Result<T, Error>> + Send + Sync,
    {
        let id = Uuid::now_v7();
        let mut chain = Chain::new(Arc::clone(&self.inner), call, id, modality, any())?;
        if let Some(said) = said
            && chain.settings().safety.is_some()
        {
            let settings = chain.settings().clone();
            Box::pin(self.admit(call, id, modality, &settings, said)).await?;
        }
        let reserved = twice_if(chain.hedge().is_some(), estimate);
        let mut meter = Meter::start(Arc::clone(&self.inner), call, id, modality, reserved).await?;
        let quota = meter.standing();
        loop {
            let hop = match chain.next().await {
                Ok(hop) => hop,
                Err(error) => {
                    meter.fail(&error, chain.tried()).await;
                    return Err(error);
                }
            };
            meter.asking(&hop);
            let (answer, hop, hedged) = race(&mut chain, &hop, &ask).await.settled(hop);
            match answer {
                Ok(value) => {
                    meter.asking(&hop);
                    hop.place.succeeded();
                    let mut consumed = usage(&value);
                    if hedged {
                        // The slower provider was asked, too.
                        consumed += estimate;
                    }
                    meter.counted(consumed);
                    meter.finish(Outcome::Done, chain.tried(), None).await;
                    let tried = chain.tried().to_vec();
                    let report = Report { call: id, model: hop.model, tried, quota, cached: false };
                    return Ok(Served { value, report });
                }
                Err(error) => {
                    if let Err(error) = chain.failed(hop.place, error, false).await {
                        meter.fail(&error, chain.tried()).await;
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// What is reserved for a call that two providers may be asked for.
pub(super) fn twice_if(hedged: bool, mut estimate: Usage) -> Usage {
    if hedged {
        estimate += estimate;
    }
    estimate
}

/// Waits for the first audio.
fn begin(
    request: Arc<SpeechRequest>,
    hop: &Hop,
) -> BoxFuture<'static, Result<(SpeechEvent, SpeechStream), Error>> {
    let adapter = hop.adapter.speech.clone().ok_or_else(|| unsupported(hop));
    let attempt = hop.attempt.clone();
    async move {
        let mut stream = adapter?.speak(&request, &attempt).await?;
        match stream.next().await {
            Some(event) => Ok((event?, stream)),
            None => Err(crate::providers::context(&attempt).fail(Fault::Interrupted, "no audio came").into()),
        }
    }
    .boxed()
}

struct Speaking {
    first: Option<SpeechEvent>,
    rest: SpeechStream,
    place: Option<Place>,
    meter: Meter,
    report: Report,
    /// What a slower provider was asked for besides.
    slower: Usage,
}

fn metered(
    first: SpeechEvent,
    rest: SpeechStream,
    place: Place,
    meter: Meter,
    report: Report,
    slower: Usage,
) -> SpeechStream {
    let format = rest.format();
    let speaking = Speaking { first: Some(first), rest, place: Some(place), meter, report, slower };
    SpeechStream::new(
        format,
        stream::unfold(Some(speaking), async |speaking| {
            let mut speaking = speaking?;
            let event = match speaking.first.take() {
                Some(event) => Ok(event),
                None => speaking.rest.next().await?,
            };
            match event {
                Ok(SpeechEvent::Finished(usage)) => {
                    if let Some(place) = speaking.place.take() {
                        place.succeeded();
                    }
                    speaking.meter.counted(usage);
                    speaking.meter.consumed(speaking.slower);
                    speaking.meter.finish(Outcome::Done, &speaking.report.tried, None).await;
                    Some((Ok(SpeechEvent::Finished(usage)), None))
                }
                Ok(event) => Some((Ok(event), Some(speaking))),
                Err(mut error) => {
                    if let Error::Provider(failure) = &mut error {
                        failure.delivered = true;
                        if let Some(place) = speaking.place.take() {
                            place.failed(failure);
                        }
                    }
                    speaking.meter.fail(&error, &speaking.report.tried).await;
                    Some((Err(error), None))
                }
            }
        }),
    )
}
