//! Codecs, rates and voice activity, on real speech and beside sox.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use longhouse_emulators::speech::Speaker;
use longhouse_voice::audio::activity::{Activity, Detector, Sensitivity};
use longhouse_voice::audio::g711::{alaw_decode, alaw_encode, ulaw_decode, ulaw_encode};
use longhouse_voice::audio::resample::Resampler;

/// Runs a program on bytes; needs Debian's `sox` and `espeak-ng`.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; apt install sox espeak-ng"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

/// Real speech at a rate, by espeak-ng and sox.
fn speech(text: &str, rate: u32) -> Vec<i16> {
    let wav = run("espeak-ng", &["-v", "en-us", "-s", "150", "--stdout", text], &[]);
    let folder = std::env::temp_dir();
    let file =
        folder.join(format!("longhouse-{}-{}.wav", std::process::id(), text.len() * 7 + rate as usize));
    std::fs::write(&file, wav).unwrap();
    let raw = sox_file(&file, rate);
    std::fs::remove_file(file).unwrap();
    samples(&raw)
}

fn sox_file(file: &Path, rate: u32) -> Vec<u8> {
    let rate = rate.to_string();
    run(
        "sox",
        &[
            file.to_str().unwrap(),
            "-t",
            "raw",
            "-e",
            "signed",
            "-b",
            "16",
            "-c",
            "1",
            "-r",
            &rate,
            "-",
            "gain",
            "-3",
        ],
        &[],
    )
}

fn sox_convert(input: &[u8], from: &[&str], to: &[&str], effects: &[&str]) -> Vec<u8> {
    let mut arguments = vec!["-D", "-t", "raw", "-c", "1"];
    arguments.extend(from);
    arguments.extend(["-", "-t", "raw", "-c", "1"]);
    arguments.extend(to);
    arguments.push("-");
    arguments.extend(effects);
    run("sox", &arguments, input)
}

#[test]
fn g711_is_the_same_as_in_sox() {
    let codes: Vec<u8> = (0..=255).collect();
    for (name, decode, encode) in [
        ("mu-law", ulaw_decode as fn(u8) -> i16, ulaw_encode as fn(i16) -> u8),
        ("a-law", alaw_decode as fn(u8) -> i16, alaw_encode as fn(i16) -> u8),
    ] {
        let pcm = ["-e", "signed", "-b", "16", "-r", "8000"];
        let law = ["-e", name, "-b", "8", "-r", "8000"];
        let theirs = samples(&sox_convert(&codes, &law, &pcm, &[]));
        let ours: Vec<i16> = codes.iter().map(|c| decode(*c)).collect();
        assert_eq!(ours, theirs, "{name} decoded");
        let again = sox_convert(&bytes(&ours), &pcm, &law, &[]);
        let encoded: Vec<u8> = ours.iter().map(|s| encode(*s)).collect();
        let value = |codes: &[u8]| codes.iter().map(|c| decode(*c)).collect::<Vec<_>>();
        assert_eq!(value(&encoded), value(&again), "{name} encoded");
    }
}

#[test]
fn resampled_speech_is_as_good_as_by_sox() {
    for (from, to) in
        [(8_000u32, 16_000u32), (24_000, 8_000), (16_000, 8_000), (8_000, 24_000), (22_050, 8_000)]
    {
        let input = speech("The quick brown fox jumps over the lazy dog, twice.", from);
        // Where the two filters' edges lie is a matter of taste: both get speech without it.
        let edge = (from.min(to) * 38 / 100).to_string();
        let pcm = |rate: &'static str| ["-e", "signed", "-b", "16", "-r", rate];
        let rates: [&'static str; 2] = [rate_text(from), rate_text(to)];
        let clean =
            sox_convert(&bytes(&input), &pcm(rates[0]), &pcm(rates[0]), &["sinc", &format!("-{edge}")]);
        let theirs = samples(&sox_convert(&clean, &pcm(rates[0]), &pcm(rates[1]), &["rate", "-v"]));
        let mut ours = Vec::new();
        let mut resampler = Resampler::new(from, to);
        let delay = (resampler.delay() * f64::from(to) / f64::from(from)).round() as usize;
        resampler.push(&samples(&clean), &mut ours);
        let ours = &ours[delay..];
        let length = ours.len().min(theirs.len()) - 200;
        let (mut signal, mut noise) = (0.0, 0.0);
        for (a, b) in ours.iter().zip(&theirs).skip(200).take(length - 200) {
            signal += f64::from(*b).powi(2);
            noise += (f64::from(*a) - f64::from(*b)).powi(2);
        }
        let db = 10.0 * (noise / signal).log10();
        assert!(db < -40.0, "{from} to {to}: they differ by {db:.1} dB");
    }
}

fn rate_text(rate: u32) -> &'static str {
    match rate {
        8_000 => "8000",
        16_000 => "16000",
        22_050 => "22050",
        _ => "24000",
    }
}

fn detect(rate: u32, audio: &[i16]) -> Vec<Activity> {
    let mut out = Vec::new();
    Detector::new(rate, Sensitivity::default()).push(audio, &mut out);
    out
}

fn silence(rate: u32, ms: u32) -> Vec<i16> {
    vec![0; (rate * ms / 1_000) as usize]
}

/// The first sample that is loud: where a person hears speech begin.
fn begins(audio: &[i16]) -> usize {
    audio.iter().position(|s| s.unsigned_abs() > 1_500).unwrap()
}

#[test]
fn speech_is_noticed_within_a_tenth_of_a_second_and_noise_is_not() {
    for rate in [8_000, 16_000, 24_000] {
        for text in
            ["Hello, can you hear me?", "Stop.", "I would like to book a table for two.", "Wait a moment"]
        {
            let voice = speech(text, rate);
            let mut audio = silence(rate, 1_000);
            let begins = audio.len() + begins(&voice);
            audio.extend(&voice);
            audio.extend(silence(rate, 1_000));
            // As it comes, 20 ms at a time: when is it noticed?
            let mut detector = Detector::new(rate, Sensitivity::default());
            let mut noticed = None;
            let mut all = Vec::new();
            for (n, chunk) in audio.chunks(rate as usize / 50).enumerate() {
                let before = all.len();
                detector.push(chunk, &mut all);
                if all.len() > before && noticed.is_none() {
                    noticed = Some((n + 1) * rate as usize / 50);
                }
            }
            let late = (noticed.expect(text) as i64 - begins as i64) * 1_000 / i64::from(rate);
            assert!(late <= 120, "{text} at {rate} Hz is noticed after {late} ms");
            assert!(matches!(all.last(), Some(Activity::Ended { .. })), "{text}: no end");
            assert_eq!(all, detect(rate, &audio), "chunks matter");
        }
    }
    let noise = |kind: &str| {
        samples(&run(
            "sox",
            &[
                "-R", "-n", "-t", "raw", "-e", "signed", "-b", "16", "-c", "1", "-r", "8000", "-", "synth",
                "10", kind, "gain", "-20",
            ],
            &[],
        ))
    };
    for kind in ["pinknoise", "whitenoise", "brownnoise"] {
        assert_eq!(detect(8_000, &noise(kind)), [], "{kind} is taken for a voice");
    }
}

/// A loudspeaker beside a microphone: what we say comes back after 80 to 300 ms, 20 dB weaker.
#[test]
fn our_own_voice_is_not_taken_for_a_person_once_the_echo_is_known() {
    let rate = 8_000;
    let agent = speech(
        "Our opening hours are from nine in the morning until five in the afternoon, and on Saturdays we close at noon. \
         You can also book a table on our website at any time, or leave a message with your telephone number.",
        rate,
    );
    for delay_ms in [80, 200, 300] {
        let mut detector = Detector::new(rate, Sensitivity::default());
        let mut echo = silence(rate, delay_ms);
        echo.extend(agent.iter().map(|s| s / 10));
        let (mut late, mut all) = (0, Vec::new());
        for (n, chunk) in echo.chunks(160).enumerate() {
            detector.played(agent.get(n * 160..).map_or(&[][..], |rest| &rest[..rest.len().min(160)]));
            let before = all.len();
            detector.push(chunk, &mut all);
            let started = all[before..].iter().filter(|a| matches!(a, Activity::Started { .. })).count();
            if n > 150 {
                late += started; // after three seconds the echo is known
            }
        }
        assert_eq!(late, 0, "{delay_ms} ms: the agent hears itself");
    }
    // A person who speaks over it is heard.
    let person = speech("Excuse me, I have a question about that.", rate);
    let mut detector = Detector::new(rate, Sensitivity::default());
    let mut mixed = silence(rate, 200);
    mixed.extend(agent.iter().map(|s| s / 10));
    let from = 4 * rate as usize;
    for (n, sample) in person.iter().enumerate() {
        mixed[from + n] = mixed[from + n].saturating_add(*sample);
    }
    let (mut heard, mut all) = (None, Vec::new());
    for (n, chunk) in mixed.chunks(160).enumerate() {
        detector.played(agent.get(n * 160..).map_or(&[][..], |rest| &rest[..rest.len().min(160)]));
        let before = all.len();
        detector.push(chunk, &mut all);
        if n * 160 >= from && all[before..].iter().any(|a| matches!(a, Activity::Started { .. })) {
            heard.get_or_insert(n * 160);
        }
    }
    let late = (heard.expect("nobody hears them") - from - begins(&person)) * 1_000 / rate as usize;
    assert!(late <= 200, "they are heard after {late} ms");
}

/// What callers of tests say is speech to the detector, too.
#[tokio::test]
async fn emulated_speech_is_speech() {
    let speaker = Speaker::detect();
    let said = speaker.say("I would like to cancel my appointment.").await;
    let mut audio = silence(8_000, 500);
    audio.extend(&said.samples);
    audio.extend(silence(8_000, 600));
    let activity = detect(8_000, &audio);
    assert!(
        matches!(activity.first(), Some(Activity::Started { at }) if *at >= 3_000 && *at < 6_000),
        "{activity:?}"
    );
}
