//! The JSON framing, as game clients speak it, in all four modes.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_emulators::speech::{CaptionDecoder, Speaker};
use longhouse_voice::callers::browser::Framing;
use longhouse_voice::callers::browser::connection::Link;
use longhouse_voice::callers::browser::messages::{Medium, Mode};
use longhouse_voice::cascade::Settings;
use longhouse_voice::session::{Ending, Speaker as Side};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::stage::{RATE, Scene, Vendors, says, settings, sockets};

struct Game {
    socket: WebSocketStream<DuplexStream>,
    messages: Vec<Value>,
}

impl Game {
    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Reads until a message of this type has come; returns it.
    async fn until(&mut self, kind: &str) -> Value {
        let reading = async {
            loop {
                let message = self.socket.next().await.expect("closed").unwrap();
                if let Message::Text(text) = message {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.messages.push(message.clone());
                    if message["type"] == kind {
                        return message;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap_or_else(|_| panic!("no {kind}"))
    }

    fn written(&self) -> String {
        let chunks = self.messages.iter().filter(|message| message["type"] == "text_chunk");
        chunks.filter_map(|message| message["text"].as_str()).collect()
    }

    fn spoken(&self) -> Vec<String> {
        let mut decoder = CaptionDecoder::new();
        let mut words = Vec::new();
        for chunk in self.messages.iter().filter(|message| message["type"] == "audio_chunk") {
            let bytes = base64_simd::STANDARD.decode_to_vec(chunk["data"].as_str().unwrap()).unwrap();
            let samples: Vec<i16> = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
            words.extend(decoder.push(&samples));
        }
        words.extend(decoder.push(&[0; RATE]));
        words.into_iter().map(|word| word.text).collect()
    }
}

#[tokio::test]
async fn all_four_modes_work() {
    let vendors = Vendors::new(vec![("Hello", says("*waves* Good morning. How can I help you?"))]).await;
    for (input, output) in [
        (Medium::Text, Medium::Text),
        (Medium::Text, Medium::Voice),
        (Medium::Voice, Medium::Text),
        (Medium::Voice, Medium::Voice),
    ] {
        let (near, far) = sockets().await;
        let mut game = Game { socket: far, messages: Vec::new() };
        let mut link = Link::new(near, Framing::Json);
        // Too early, too strange, and then properly.
        game.say(json!({"type": "text", "content": "Hello"})).await;
        game.say(json!({"type": "dance"})).await;
        game.say(json!({"type": "init", "session_id": "sess", "session_token": "t"})).await;
        let init = link.init(Duration::from_secs(5)).await.unwrap();
        assert_eq!((init.session_id.as_str(), init.session_token.as_deref()), ("sess", Some("t")));

        let mode = Mode { input, output };
        let settings = Settings {
            voice_input: input == Medium::Voice,
            voice_output: output == Medium::Voice,
            ..settings()
        };
        let (scene, conversation) = Scene::over(&vendors, settings, link, mode);
        let ready = game.until("ready").await;
        let codes: Vec<&Value> = game.messages.iter().filter_map(|message| message.get("code")).collect();
        assert_eq!(codes, ["NOT_INITIALIZED", "UNKNOWN_MESSAGE"]);
        assert_eq!(ready["protocol_version"], "1");
        assert_eq!(ready["audio_format"]["output"]["sampleRate"], RATE);

        game.say(json!({"type": "init", "session_id": "sess"})).await;
        assert_eq!(game.until("error").await["code"], "ALREADY_INITIALIZED");
        if input == Medium::Text {
            game.say(json!({"type": "audio", "data": "AAA="})).await;
            assert_eq!(game.until("error").await["code"], "MODE_MISMATCH");
            game.say(json!({"type": "text", "content": "Hello"})).await;
        } else {
            let spoken = Speaker::detect().say("Hello friend").await;
            let mut audio = spoken.samples.clone();
            audio.resize(audio.len() + RATE, 0);
            for frame in audio.chunks(RATE / 10) {
                let bytes: Vec<u8> = frame.iter().flat_map(|s| s.to_le_bytes()).collect();
                game.say(json!({"type": "audio", "data": base64_simd::STANDARD.encode_to_string(bytes)}))
                    .await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let over = game.until("generation_end").await;
        assert_eq!(over["interrupted"], false);
        assert_eq!(game.written().trim(), "Good morning. How can I help you?", "{mode:?}");
        let said: Vec<String> = "Good morning. How can I help you?".split(' ').map(str::to_owned).collect();
        assert_eq!(
            game.spoken(),
            if output == Medium::Voice { said.clone() } else { Vec::new() },
            "{mode:?}"
        );
        if input == Medium::Voice {
            let heard = game.messages.iter().rfind(|m| m["type"] == "transcript" && m["is_final"] == true);
            assert_eq!(heard.unwrap()["text"], "Hello friend");
        }
        game.say(json!({"type": "end"})).await;
        assert_eq!(game.until("sync").await["success"], true);
        assert_eq!(conversation.await.unwrap(), Ending::CallerHungUp);
        assert_eq!(scene.words(Side::Agent), said);
    }
}
