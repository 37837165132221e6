//! Everything without a network.

use longhouse_gateway::chat::ChatRequest;
use longhouse_gateway::images::{ImageFormat, ImageRequest};
use longhouse_gateway::speech::{AudioFormat, SpeechRequest};
use rstest::rstest;

use crate::harness::{Bench, call, soon};

async fn bench(modality: &str, model: &str) -> Bench {
    let tasks = format!("[tasks.t]\nmodality = \"{modality}\"\nmodels = [\"offline/{model}\"]\n");
    Bench::new(longhouse_emulators::ai::Options::default(), &tasks).await
}

#[tokio::test]
async fn a_story_about_its_hero() {
    let bench = bench("chat", "rules").await;
    let request =
        ChatRequest::new("You tell bedtime stories.", "A story about Mila, who finds a golden key.");
    let served = soon(bench.gateway.complete(&call(), request.clone())).await.unwrap();
    let text = served.value.text();
    assert!(text.contains("Mila") && text.contains("finds a golden key"), "{text}");
    assert!(served.value.usage.estimated);
    let again = soon(bench.gateway.complete(&call(), request)).await.unwrap().value.text();
    assert_eq!(text, again);
    assert!(bench.server.records().is_empty(), "nothing left this machine");
}

#[rstest]
#[case(AudioFormat::Pcm(8_000), AudioFormat::Pcm(8_000))]
#[case(AudioFormat::Pcm(24_000), AudioFormat::Pcm(24_000))]
#[case(AudioFormat::Mulaw, AudioFormat::Mulaw)]
#[case(AudioFormat::Mp3, AudioFormat::Wav)]
#[tokio::test]
async fn speech_says_how_it_is_encoded(#[case] asked: AudioFormat, #[case] got: AudioFormat) {
    let bench = bench("speech", "espeak").await;
    let mut request = SpeechRequest::new("Guten Abend, kleiner Fuchs.", asked);
    request.language = Some("de".into());
    request.voice = Some("coral".into());
    let stream = soon(bench.gateway.speak(&call(), request)).await.unwrap().value;
    assert_eq!(stream.format(), got);
    let (audio, usage) = soon(stream.collect(4 << 20)).await.unwrap();
    assert!((1_000..6_000).contains(&usage.audio_ms), "{usage:?}");
    if let Some(rate) = got.bytes_per_second() {
        let ms = audio.len() as u64 * 1_000 / u64::from(rate);
        assert!(ms.abs_diff(usage.audio_ms) < 20, "{ms} {usage:?}");
    }
}

#[tokio::test]
async fn pictures_have_the_size_that_was_asked_for() {
    let bench = bench("images", "pictures").await;
    let request = ImageRequest {
        size: Some((320, 200)),
        count: 2,
        format: ImageFormat::Webp,
        ..ImageRequest::new("a fox by the sea at night")
    };
    let images = soon(bench.gateway.make_images(&call(), request)).await.unwrap().value.images;
    assert_eq!(images.len(), 2);
    assert_ne!(images[0].media.data, images[1].media.data);
    assert_eq!(images[0].media.mime, "image/webp");
}
