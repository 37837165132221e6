//! Speech, transcription, pictures, vectors and moderation against the emulators.

use bytes::Bytes;
use futures_util::StreamExt as _;
use longhouse_emulators::ai::{Fault as Trouble, Faults, Options};
use longhouse_gateway::embeddings::{EmbeddingRequest, Purpose};
use longhouse_gateway::images::{ImageRequest, Quality};
use longhouse_gateway::media::{Media, Picture};
use longhouse_gateway::moderation::ModerationRequest;
use longhouse_gateway::speech::{AudioFormat, SpeechEvent, SpeechRequest};
use longhouse_gateway::transcription::TranscriptionRequest;
use longhouse_gateway::{Error, Fault};
use rstest::rstest;

use crate::harness::{Bench, call, soon};

async fn bench(modality: &str, models: &[&str]) -> Bench {
    let tasks = format!("[tasks.t]\nmodality = \"{modality}\"\nmodels = {models:?}\nattempts = 1\n");
    Bench::new(Options::default(), &tasks).await
}

#[tokio::test]
async fn what_is_said_is_written_down() {
    let bench = bench("speech", &["openai/gpt-4o-mini-tts"]).await;
    let mut request = SpeechRequest::new("The quick brown fox jumps.", AudioFormat::Wav);
    request.instructions = Some("Softly.".into());
    request.speed = Some(0.9);
    let served = soon(bench.gateway.speak(&call(), request)).await.unwrap();
    assert_eq!(served.value.format(), AudioFormat::Wav);
    let (audio, usage) = soon(served.value.collect(8 << 20)).await.unwrap();
    assert_eq!(usage.characters, 26);
    let heard = self::bench("transcription", &["openai/gpt-transcribe"]).await;
    let mut request = TranscriptionRequest::new(Media::new("audio/wav", audio));
    request.language = Some("en".into());
    request.hints = vec!["fox".into()];
    let transcript = soon(heard.gateway.transcribe(&call(), request.clone())).await.unwrap().value;
    assert_eq!(transcript.text, "The quick brown fox jumps.");
    assert!(transcript.usage.input_audio_tokens > 0, "{:?}", transcript.usage);
    let timed = self::bench("transcription", &["local/whisper-1"]).await;
    request.words = true;
    let transcript = soon(timed.gateway.transcribe(&call(), request)).await.unwrap().value;
    assert_eq!(transcript.words.len(), 5);
    assert!(transcript.words.windows(2).all(|pair| pair[0].end_ms <= pair[1].start_ms + 50));
    assert!(transcript.duration_ms.unwrap() > 500);
}

#[tokio::test]
async fn long_texts_are_said_in_pieces() {
    let bench = bench("speech", &["openai/gpt-4o-mini-tts"]).await;
    let text = "One short sentence follows another. ".repeat(150);
    let request = SpeechRequest::new(&text, AudioFormat::Pcm(24_000));
    let served = soon(bench.gateway.speak(&call(), request)).await.unwrap();
    let (_, usage) = soon(served.value.collect(64 << 20)).await.unwrap();
    assert_eq!(usage.characters, text.chars().count() as u64);
    assert!(usage.audio_ms > 10_000, "{usage:?}");
    assert_eq!(bench.server.records().len(), 2);
    let request = SpeechRequest::new(&text, AudioFormat::Wav);
    let error = soon(bench.gateway.speak(&call(), request)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest(_)), "{error}");
}

#[tokio::test]
async fn speech_falls_back_before_the_first_sound_only() {
    let bench = bench("speech", &["openai/gpt-4o-mini-tts", "offline/espeak"]).await;
    let request = || SpeechRequest::new("Good night, little fox.", AudioFormat::Pcm(24_000));
    bench.server.set_faults(Faults::first(1, Trouble::status(500)));
    let served = soon(bench.gateway.speak(&call(), request())).await.unwrap();
    assert_eq!(served.report.model.to_string(), "offline/espeak");
    let (audio, _) = soon(served.value.collect(8 << 20)).await.unwrap();
    assert!(audio.len() > 24_000, "half a second at least");
    bench.server.set_faults(Faults::first(1, Trouble::cut(10_000)));
    let served = soon(bench.gateway.speak(&call(), request())).await.unwrap();
    let events: Vec<Result<SpeechEvent, Error>> = soon(served.value.collect_events()).await;
    let error = events.last().unwrap().as_ref().unwrap_err();
    assert!(error.delivered() && error.failure().unwrap().fault == Fault::Interrupted, "{error}");
}

trait CollectEvents {
    async fn collect_events(self) -> Vec<Result<SpeechEvent, Error>>;
}

impl CollectEvents for longhouse_gateway::speech::SpeechStream {
    async fn collect_events(mut self) -> Vec<Result<SpeechEvent, Error>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

#[rstest]
#[case("openai/gpt-image-1")]
#[case("local/dall-e-3")]
#[case("gemini/gemini-3-pro-image")]
#[tokio::test]
async fn pictures_are_made(#[case] model: &str) {
    let bench = bench("images", &[model]).await;
    let mut request = ImageRequest::new("a fox by the sea");
    request.negative_prompt = Some("text".into());
    request.size = Some((768, 512));
    request.quality = Some(Quality::High);
    let images = soon(bench.gateway.make_images(&call(), request.clone())).await.unwrap().value;
    assert_eq!((images.images.len(), images.usage.images), (1, 1));
    assert!(images.images[0].media.data.starts_with(b"\x89PNG"));
    if model.contains("image") {
        let media = images.images[0].media.clone();
        request.references = vec![Picture::Media(media)];
        let images = soon(bench.gateway.make_images(&call(), request)).await.unwrap().value;
        assert_eq!(images.images.len(), 1);
    }
}

#[tokio::test]
async fn a_refused_picture_is_called_so() {
    let bench = bench("images", &["openai/gpt-image-1"]).await;
    let error =
        soon(bench.gateway.make_images(&call(), ImageRequest::new("gore everywhere"))).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::ContentRefused, "{error}");
}

#[rstest]
#[case("openai/text-embedding-3-small", 1_536)]
#[case("gemini/gemini-embedding-001", 3_072)]
#[case("offline/hashes", 1_536)]
#[tokio::test]
async fn texts_become_vectors(#[case] model: &str, #[case] length: usize) {
    let bench = bench("embeddings", &[model]).await;
    let texts = vec!["a fox".to_owned(), "a hen".into(), "the sea".into()];
    let mut request = EmbeddingRequest { texts, dimensions: None, purpose: Purpose::Query };
    let found = soon(bench.gateway.embed(&call(), request.clone())).await.unwrap().value;
    assert_eq!(found.vectors.iter().map(Vec::len).collect::<Vec<_>>(), [length; 3]);
    assert!(found.usage.input_tokens > 0);
    request.dimensions = Some(256);
    let found = soon(bench.gateway.embed(&call(), request)).await.unwrap().value;
    assert_eq!(found.vectors[0].len(), 256);
}

#[rstest]
#[case("openai/omni-moderation-latest")]
#[case("offline/lists")]
#[tokio::test]
async fn content_is_judged(#[case] model: &str) {
    let bench = bench("moderation", &[model]).await;
    let texts = vec!["A fox and a hen dance.".to_owned(), "I will murder you".into()];
    let request = ModerationRequest { texts, picture: None };
    let verdicts = soon(bench.gateway.moderate(&call(), request)).await.unwrap().value.verdicts;
    assert_eq!(verdicts.iter().map(|verdict| verdict.flagged).collect::<Vec<_>>(), [false, true]);
    assert!(verdicts[1].categories.iter().any(|c| c.flagged && c.name.starts_with("violence")));
}

#[tokio::test]
async fn garbage_and_floods_are_refused() {
    let bench = bench("embeddings", &["openai/text-embedding-3-small"]).await;
    let request = EmbeddingRequest { texts: vec!["a".into()], dimensions: None, purpose: Purpose::Document };
    bench.server.set_faults(Faults::all(Trouble { garble_event: Some(0), ..Trouble::default() }));
    let error = soon(bench.gateway.embed(&call(), request.clone())).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::Malformed);
    bench.server.set_faults(Faults::all(Trouble { oversize: Some(80 << 20), ..Trouble::default() }));
    let error = soon(bench.gateway.embed(&call(), request)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::TooLarge);
    let empty = TranscriptionRequest::new(Media::new("audio/wav", Bytes::new()));
    assert!(matches!(soon(bench.gateway.transcribe(&call(), empty)).await, Err(Error::InvalidRequest(_))));
}

#[rstest]
#[case("deepgram/aura-2-thalia-en", None)]
#[case("elevenlabs/eleven_flash_v2_5", None)]
#[case("cartesia/sonic-3", None)]
#[case("openai/gpt-4o-mini-tts", Some("coral"))]
#[tokio::test]
async fn every_voice_speaks(#[case] model: &str, #[case] voice: Option<&str>) {
    let bench = bench("speech", &[model]).await;
    let mut request = SpeechRequest::new("Good night, little fox.", AudioFormat::Pcm(24_000));
    request.voice = voice.map(str::to_owned);
    request.speed = Some(0.9);
    request.language = Some("en-GB".into());
    let stream = soon(bench.gateway.speak(&call(), request.clone())).await.unwrap().value;
    let (audio, usage) = soon(stream.collect(8 << 20)).await.unwrap();
    assert_eq!(audio.len() as u64 / 48, usage.audio_ms);
    assert!(usage.audio_ms > 700 && usage.characters == 23, "{usage:?}");
    bench.server.set_faults(Faults::all(Trouble::status(429)));
    let error = soon(bench.gateway.speak(&call(), request)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::RateLimited, "{error}");
    let provider = longhouse_gateway::ProviderName::new(model.split_once('/').unwrap().0);
    bench.server.set_faults(Faults::default());
    let key = |secret: &str| Some(longhouse_gateway::keys::ApiKey::new(secret.into()));
    assert!(!soon(bench.gateway.models(&provider, key(crate::harness::KEY))).await.unwrap().is_empty());
    let error = soon(bench.gateway.models(&provider, key("sk-wrong-planted-key"))).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::Unauthorized, "{error}");
}

#[rstest]
#[case("deepgram/nova-3")]
#[case("deepgram/nova-2")]
#[case("elevenlabs/scribe_v1")]
#[tokio::test]
async fn every_ear_hears(#[case] model: &str) {
    let speaking = bench("speech", &["openai/gpt-4o-mini-tts"]).await;
    let request = SpeechRequest::new("The quick brown fox jumps.", AudioFormat::Wav);
    let stream = soon(speaking.gateway.speak(&call(), request)).await.unwrap().value;
    let (audio, _) = soon(stream.collect(8 << 20)).await.unwrap();
    let bench = bench("transcription", &[model]).await;
    let mut request = TranscriptionRequest::new(Media::new("audio/wav", audio));
    request.words = true;
    request.hints = vec!["fox".into()];
    for language in [None, Some("en".to_owned())] {
        request.language = language;
        let heard = soon(bench.gateway.transcribe(&call(), request.clone())).await.unwrap().value;
        assert_eq!((heard.text.as_str(), heard.words.len()), ("The quick brown fox jumps.", 5));
        assert_eq!(heard.words[4].text, "jumps.");
        assert!(heard.usage.audio_ms > 700 && heard.language.is_some());
    }
    request.audio = Media::new("audio/wav", b"no audio".as_slice());
    let error = soon(bench.gateway.transcribe(&call(), request)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::InvalidRequest, "{error}");
}

#[tokio::test]
async fn predictions_are_awaited_refused_and_cancelled() {
    for model in
        ["replicate/black-forest-labs/flux-schnell", "replicate/stability-ai/stable-diffusion:ac732d"]
    {
        let bench = bench("images", &[model]).await;
        let ask = |prompt: &str| {
            let mut request = ImageRequest::new(prompt);
            request.size = Some((768, 516));
            let gateway = bench.gateway.clone();
            async move { gateway.make_images(&call(), request).await }
        };
        for prompt in ["a fox", "a slow fox"] {
            let images = soon(ask(prompt)).await.unwrap().value.images;
            assert!(images[0].media.data.starts_with(b"\x89PNG"), "{prompt}");
        }
        let error = soon(ask("an nsfw fox")).await.unwrap_err();
        assert_eq!(error.failure().unwrap().fault, Fault::ContentRefused, "{error}");
        let waiting = tokio::spawn(ask("a stuck fox"));
        let seen = |route: &str| bench.server.records().iter().any(|record| record.route == route);
        soon(async {
            while !seen("GET /v1/predictions/stuck0emulated") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        waiting.abort();
        soon(async {
            while !seen("POST /v1/predictions/stuck0emulated/cancel") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
