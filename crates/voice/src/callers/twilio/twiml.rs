//! TwiML, written by an XML writer so that no name or greeting can break out of its place.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// Longest spoken text; Twilio refuses more than 4096 characters in `<Say>`.
const SAY_LIMIT: usize = 3_000;
/// Twilio allows 500 characters for a parameter's name and value together.
const PARAMETER_LIMIT: usize = 500;

/// One instruction of a TwiML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Speaks a text with the platform's voice.
    Say(String),
    /// Waits.
    Pause {
        /// Length in seconds.
        seconds: u32,
    },
    /// Connects the call to a bidirectional media stream; what follows runs when our side closes it.
    Stream {
        /// `wss://` address without a query.
        url: String,
        /// Delivered in the stream's `start` message. Values too long for Twilio are cut.
        parameters: Vec<(&'static str, String)>,
    },
    /// Asks the given URL how to go on.
    Redirect(String),
    /// Connects the caller to a telephone number.
    Dial {
        /// E.164 number.
        number: String,
    },
    /// Ends the call.
    Hangup,
}

/// The document for a list of verbs.
pub fn document(verbs: &[Verb]) -> String {
    let mut writer = Writer::new(Vec::with_capacity(512));
    // Writing to memory cannot fail; the writer's signature is for files and sockets.
    let mut put = |event: Event<'_>| writer.write_event(event).expect("writing to memory");
    put(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    put(Event::Start(BytesStart::new("Response")));
    for verb in verbs {
        match verb {
            Verb::Say(text) => element(&mut put, "Say", &[], Some(truncated(text, SAY_LIMIT))),
            Verb::Pause { seconds } => element(&mut put, "Pause", &[("length", &seconds.to_string())], None),
            Verb::Redirect(url) => element(&mut put, "Redirect", &[("method", "POST")], Some(url)),
            Verb::Dial { number } => element(&mut put, "Dial", &[], Some(number)),
            Verb::Hangup => element(&mut put, "Hangup", &[], None),
            Verb::Stream { url, parameters } => {
                put(Event::Start(BytesStart::new("Connect")));
                put(Event::Start(BytesStart::new("Stream").with_attributes([("url", url.as_str())])));
                for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
                    let value = truncated(value, PARAMETER_LIMIT - name.len());
                    element(&mut put, "Parameter", &[("name", name), ("value", value)], None);
                }
                put(Event::End(BytesEnd::new("Stream")));
                put(Event::End(BytesEnd::new("Connect")));
            }
        }
    }
    put(Event::End(BytesEnd::new("Response")));
    String::from_utf8(writer.into_inner()).expect("the writer was given only str")
}

fn element(put: &mut impl FnMut(Event<'_>), name: &str, attributes: &[(&str, &str)], text: Option<&str>) {
    let mut start = BytesStart::new(name);
    for (key, value) in attributes {
        start.push_attribute((*key, clean(value).as_str()));
    }
    match text {
        None => put(Event::Empty(start)),
        Some(text) => {
            put(Event::Start(start));
            put(Event::Text(BytesText::new(&clean(text))));
            put(Event::End(BytesEnd::new(name)));
        }
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !is_forbidden(*c)).collect()
}

/// Control characters that XML 1.0 cannot carry in any form.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

fn truncated(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_place() {
        let text = document(&[
            Verb::Stream {
                url: "wss://example.com/s".into(),
                parameters: vec![("businessName", r#"A & B <"Salon's">"#.into()), ("empty", String::new())],
            },
            Verb::Redirect("https://example.com/v?a=1&b=2".into()),
        ]);
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Connect><Stream url=\"wss://example.com/s\">\
             <Parameter name=\"businessName\" value=\"A &amp; B &lt;&quot;Salon&apos;s&quot;&gt;\"/></Stream></Connect>\
             <Redirect method=\"POST\">https://example.com/v?a=1&amp;b=2</Redirect></Response>"
        );
    }

    #[test]
    fn long_values_are_cut_at_twilios_limits() {
        let text = document(&[Verb::Stream {
            url: "wss://example.com/s".into(),
            parameters: vec![("greeting", "é".repeat(600))],
        }]);
        assert_eq!(text.matches('é').count(), 492);
        let text = document(&[Verb::Stream {
            url: "wss://example.com/s".into(),
            parameters: vec![("greeting", "a\u{1}b\u{ffff}c".into())],
        }]);
        assert!(text.contains("value=\"abc\""), "{text}");
        let text = document(&[Verb::Say("x\u{0}\u{1b}".repeat(4000))]);
        assert!(text.len() < 3200 && !text.contains('\u{0}'));
    }
}
