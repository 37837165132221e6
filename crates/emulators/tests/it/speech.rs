//! Emulated speech: what is said can be read back from the audio exactly, and from nothing else.

use longhouse_emulators::{
    g711,
    speech::{CaptionDecoder, HeardWord, Resampler, Speaker, Utterance, Vad, VadEvent, VadOptions},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const TEXT: &str = "Hello, this is Maria at Harbour Dental. We're open from 9:30 to 17:00 on weekdays; \
    would you like to book an appointment with Dr. McDonald, or may I take a message? It costs $42.50.";

fn heard(samples: &[i16]) -> Vec<HeardWord> {
    CaptionDecoder::new().push(samples)
}

fn text(words: &[HeardWord]) -> String {
    words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn noise(rng: &mut StdRng, rms: f64) -> f64 {
    // The sum of twelve uniform numbers is close to normal.
    ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0) * rms
}

fn with_noise(samples: &[i16], rms: f64, seed: u64) -> Vec<i16> {
    let mut rng = StdRng::seed_from_u64(seed);
    samples.iter().map(|&s| (f64::from(s) + noise(&mut rng, rms)).clamp(-32_768.0, 32_767.0) as i16).collect()
}

fn speech_rms(utterance: &Utterance) -> f64 {
    let power: f64 = utterance.samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    (power / utterance.samples.len() as f64).sqrt()
}

async fn voices() -> Vec<(&'static str, std::sync::Arc<Utterance>)> {
    vec![("detected", Speaker::detect().say(TEXT).await), ("tone", Speaker::tone().say(TEXT).await)]
}

#[tokio::test]
async fn every_word_is_read_back_with_its_time_through_any_telephone_codec() {
    for (voice, spoken) in voices().await {
        let mu: Vec<i16> = g711::mulaw_to_linear(&g711::linear_to_mulaw(&spoken.samples));
        let a: Vec<i16> = g711::alaw_to_linear(&g711::linear_to_alaw(&spoken.samples));
        let wide = Resampler::whole(24_000, 8_000, &Resampler::whole(8_000, 24_000, &spoken.samples));
        for (path, samples) in
            [("linear", &spoken.samples), ("mu-law", &mu), ("a-law", &a), ("24 kHz", &wide)]
        {
            let words = heard(samples);
            assert_eq!(
                text(&words),
                TEXT.split_whitespace().collect::<Vec<_>>().join(" "),
                "{voice} over {path}"
            );
            for (heard, said) in words.iter().zip(&spoken.words) {
                assert!(heard.start_ms.abs_diff(said.start_ms) <= 25, "{heard:?} {said:?}");
                assert!(heard.end_ms.abs_diff(said.end_ms) <= 40, "{heard:?} {said:?}");
            }
        }
    }
}

#[tokio::test]
async fn chunk_boundaries_do_not_matter() {
    let spoken = Speaker::detect().say(TEXT).await;
    let mut rng = StdRng::seed_from_u64(7);
    let mut decoder = CaptionDecoder::new();
    let mut words = Vec::new();
    let mut rest = &spoken.samples[..];
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rng.random_range(1..=rest.len().min(333)));
        words.extend(decoder.push(chunk));
        rest = tail;
    }
    assert_eq!(words, heard(&spoken.samples));
}

#[tokio::test]
async fn a_cut_anywhere_loses_only_the_words_it_cuts() {
    let spoken = Speaker::detect().say(TEXT).await;
    let all = heard(&spoken.samples);
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..12 {
        let from = rng.random_range(0..spoken.samples.len() / 2);
        let to = rng.random_range(from..spoken.samples.len());
        let words = heard(&spoken.samples[from..to]);
        let (from_ms, to_ms) = (from as u32 / 8, to as u32 / 8);
        // Whole words inside the cut (with the carrier's own tolerance) must be there, and no others.
        let inside = |before: i64, after: i64| {
            let fits = |w: &&HeardWord| {
                i64::from(w.start_ms) + before >= i64::from(from_ms)
                    && i64::from(w.end_ms) <= i64::from(to_ms) + after
            };
            all.iter().filter(fits).map(|w| w.text.clone()).collect::<Vec<_>>()
        };
        let got: Vec<String> = words.into_iter().map(|w| w.text).collect();
        // A long word's caption fills only its end, and a short one's may outlast it.
        let (at_least, at_most) = (inside(-30, -400), inside(1_500, 30));
        assert!(
            at_least.iter().all(|w| got.contains(w)),
            "{from_ms}..{to_ms}: {got:?} lacks some of {at_least:?}"
        );
        assert!(
            got.iter().all(|w| at_most.contains(w)),
            "{from_ms}..{to_ms}: {got:?} has more than {at_most:?}"
        );
        let whole: Vec<String> = all.iter().map(|w| w.text.clone()).collect();
        assert!(
            whole.windows(got.len().max(1)).any(|w| w == got) || got.is_empty(),
            "{got:?} is not one run of words"
        );
    }
}

#[tokio::test]
async fn noise_at_20_db_below_speech_costs_at_most_one_word_in_twenty() {
    for (voice, spoken) in voices().await {
        let level = speech_rms(&spoken) / 10.0;
        let (mut right, mut total) = (0, 0);
        for seed in 0..4 {
            let noisy = with_noise(&spoken.samples, level, seed);
            let words = heard(&g711::mulaw_to_linear(&g711::linear_to_mulaw(&noisy)));
            assert!(
                words.iter().all(|w| spoken.words.iter().any(|s| s.text == w.text)),
                "{voice}: a false word"
            );
            right += words.len();
            total += spoken.words.len();
        }
        assert!(right * 100 >= total * 95, "{voice}: {right} of {total}");
    }
}

#[tokio::test]
async fn wrong_audio_says_nothing() {
    let spoken = Speaker::detect().say(TEXT).await;
    let mu = g711::linear_to_mulaw(&spoken.samples);
    let swapped: Vec<i16> = spoken.samples.iter().map(|s| s.swap_bytes()).collect();
    let as_alaw = g711::alaw_to_linear(&mu);
    let as_pcm: Vec<i16> = mu.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let double_speed: Vec<i16> = spoken.samples.iter().step_by(2).copied().collect();
    let gaps: Vec<i16> =
        spoken.samples.chunks(160).flat_map(|c| &c[..c.len() - c.len() / 8]).copied().collect();
    let lost: Vec<i16> = spoken
        .samples
        .chunks(160)
        .enumerate()
        .filter(|(i, _)| i % 4 != 0)
        .flat_map(|(_, c)| c)
        .copied()
        .collect();
    let cases = [
        ("swapped", swapped),
        ("mu-law as PCM", as_pcm),
        ("twice as fast", double_speed),
        ("gaps", gaps),
        ("lost", lost),
    ];
    for (name, samples) in cases {
        assert_eq!(text(&heard(&samples)), "", "{name}");
    }
    assert!(heard(&as_alaw).len() <= spoken.words.len() / 2, "mu-law taken for a-law is badly distorted");
}

#[tokio::test]
async fn noise_and_silence_say_nothing() {
    let mut rng = StdRng::seed_from_u64(3);
    let loud: Vec<i16> = (0..8_000 * 30).map(|_| noise(&mut rng, 3_000.0) as i16).collect();
    assert_eq!(heard(&loud), []);
    assert_eq!(heard(&vec![0; 80_000]), []);
}

#[tokio::test]
async fn text_is_bounded_and_empty_text_is_empty() {
    let tone = Speaker::tone();
    assert_eq!(*tone.say("  \n ").await, Utterance::default());
    let long = tone.say(&"word ".repeat(10_000)).await;
    assert!(long.words.len() <= 4_096 / 5 + 1);
    let odd = tone.say("Café naïve 日本語 NASA iPhone \u{7}ok").await;
    assert_eq!(text(&heard(&odd.samples)), "Café naïve 日本語 NASA iPhone ok");
}

fn turns(samples: &[i16], options: VadOptions) -> Vec<VadEvent> {
    let mut vad = Vad::new(options);
    samples.chunks(160).flat_map(|chunk| vad.push(chunk)).collect()
}

#[tokio::test]
async fn a_turn_is_found_in_both_voices_and_ends_after_the_silence() {
    for (voice, spoken) in [
        ("detected", Speaker::detect().say("What time do you open?").await),
        ("tone", Speaker::tone().say("What time do you open?").await),
    ] {
        let mut line = vec![0; 8_000];
        line.extend(g711::mulaw_to_linear(&g711::linear_to_mulaw(&spoken.samples)));
        line.extend([0; 12_000]);
        let events = turns(&line, VadOptions::default());
        let [VadEvent::SpeechStarted { at_ms: start }, VadEvent::SpeechStopped { at_ms: stop }] = events[..]
        else {
            panic!("{voice}: {events:?}")
        };
        assert!((600..=1_100).contains(&start), "{voice}: padding precedes the onset at 1,000 ms: {start}");
        let end = 1_000 + spoken.duration_ms() + 500;
        assert!(stop.abs_diff(end) <= 250, "{voice}: stopped at {stop}, expected about {end}");
    }
}

#[tokio::test]
async fn a_long_sentence_is_one_turn() {
    for (voice, spoken) in voices().await {
        let mut line = spoken.samples.clone();
        line.extend([0; 8_000]);
        let options = VadOptions { silence_duration_ms: 700, ..VadOptions::default() };
        assert_eq!(turns(&line, options).len(), 2, "{voice}");
    }
}

#[test]
fn silence_and_low_noise_are_no_speech() {
    assert_eq!(turns(&vec![0; 80_000], VadOptions::default()), []);
    assert_eq!(turns(&with_noise(&vec![0; 80_000], 100.0, 5), VadOptions::default()), []);
    assert_eq!(turns(&with_noise(&vec![0; 80_000], 330.0, 6), VadOptions::default()), []);
}
