//! TwiML as Twilio reads it: an XML parser, a fixed vocabulary, error codes for what is wrong.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde::Serialize;
use url::{Host, Url};

/// The largest TwiML document that is read.
pub const MAX_BYTES: usize = 64 * 1024;
const MAX_DEPTH: usize = 8;
const MAX_PARAMETER_CHARS: usize = 500;

/// A complaint with the number under which Twilio lists it in its error dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Problem {
    /// Twilio's error code.
    pub code: u32,
    /// What is wrong and what to change.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// How a URL in TwiML is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Form parameters in the body: Twilio's default.
    #[default]
    Post,
    /// Form parameters in the query.
    Get,
}

/// One instruction of a TwiML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Speak a text.
    Say {
        /// What is spoken, entities resolved.
        text: String,
        /// How often (Twilio's `loop`; 0, "for ever", is read as 1000).
        times: u32,
    },
    /// Play a file fetched over HTTP.
    Play {
        /// Where the audio is.
        url: String,
    },
    /// Wait.
    Pause {
        /// How long.
        seconds: u32,
    },
    /// Connect a bidirectional media stream until the far side closes it.
    Connect {
        /// The stream.
        stream: Stream,
        /// Where to ask for more TwiML afterwards; without it the next verb runs.
        action: Option<(String, Method)>,
    },
    /// Go on with another document.
    Redirect {
        /// Absolute, or relative to the current document.
        url: String,
        /// How it is requested.
        method: Method,
    },
    /// Connect the caller with another phone.
    Dial {
        /// The number as written.
        number: String,
    },
    /// End the call.
    Hangup,
    /// Decline the call without answering it.
    Reject,
}

/// `<Stream>` inside `<Connect>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `wss://…`, or `ws://` on this machine.
    pub url: String,
    /// The optional name.
    pub name: Option<String>,
    /// The custom parameters in document order.
    pub parameters: Vec<(String, String)>,
    track: Option<String>,
}

impl Stream {
    /// Checks what Twilio checks before it connects.
    ///
    /// # Errors
    /// 31941 for a track other than `inbound_track`, 31922 for the scheme, 31920 for a query
    /// string or a URL that cannot be called, 31951 for parameters that are too long.
    pub fn target(&self) -> Result<Url, Problem> {
        if let Some(track) = self.track.as_deref().filter(|track| *track != "inbound_track") {
            return Err(Problem::new(
                31941,
                format!("track \"{track}\" does not work in <Connect>: only inbound_track does"),
            ));
        }
        let url = Url::parse(&self.url)
            .map_err(|e| Problem::new(31920, format!("the Stream url {:?} is not a URL: {e}", self.url)))?;
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "wss" => {}
            "ws" if loopback => {}
            other => {
                return Err(Problem::new(
                    31922,
                    format!("the Stream url has scheme {other}: use wss (ws works on loopback only)"),
                ));
            }
        }
        if url.query().is_some() {
            return Err(Problem::new(
                31920,
                "the Stream url has a query string, which Twilio does not support: use <Parameter>",
            ));
        }
        for (name, value) in &self.parameters {
            if name.chars().count() + value.chars().count() > MAX_PARAMETER_CHARS {
                return Err(Problem::new(
                    31951,
                    format!(
                        "<Parameter> {name} is longer than {MAX_PARAMETER_CHARS} characters with its value: shorten it"
                    ),
                ));
            }
        }
        Ok(url)
    }
}

/// A parsed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// In order of execution.
    pub verbs: Vec<Verb>,
    /// What Twilio lists as schema warnings (12200) and ignores.
    pub warnings: Vec<Problem>,
}

/// Parses a TwiML document.
///
/// # Errors
/// 12100 when it is not well-formed XML with a `<Response>` root, or uses a verb that this
/// emulator cannot act out (`<Gather>`): the call ends with an application error.
pub fn parse(xml: &str) -> Result<Document, Problem> {
    if xml.len() > MAX_BYTES {
        return Err(Problem::new(11750, format!("the TwiML is over {MAX_BYTES} bytes: shorten it")));
    }
    let root = read_tree(xml)?;
    if root.name != "Response" {
        return Err(Problem::new(
            12100,
            format!("the root element is <{}>: TwiML starts with <Response>", root.name),
        ));
    }
    let mut document = Document { verbs: Vec::new(), warnings: Vec::new() };
    let mut schema = Schema { warnings: &mut document.warnings };
    schema.attributes(&root, &[]);
    schema.no_text(&root);
    for element in &root.children {
        if let Some(verb) = schema.verb(element)? {
            document.verbs.push(verb);
        }
    }
    Ok(document)
}

#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

fn malformed(detail: impl std::fmt::Display) -> Problem {
    Problem::new(12100, format!("the TwiML cannot be parsed as XML ({detail}): escape & < > \" ' in values"))
}

fn open(start: &BytesStart<'_>) -> Result<Element, Problem> {
    let mut element = Element { name: start.name().as_ref().to_string(), ..Element::default() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(malformed)?;
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(malformed)?;
        element.attributes.push((attribute.key.as_ref().to_string(), value.into_owned()));
    }
    Ok(element)
}

fn read_tree(xml: &str) -> Result<Element, Problem> {
    let mut reader = Reader::from_str(xml.trim_start_matches('\u{feff}'));
    let mut stack: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    loop {
        let event = reader.read_event().map_err(malformed)?;
        let closed = match event {
            Event::Start(start) => {
                if root.is_some() {
                    return Err(malformed("there is more than one root element"));
                }
                if stack.len() >= MAX_DEPTH {
                    return Err(malformed("elements are nested too deeply"));
                }
                stack.push(open(&start)?);
                None
            }
            Event::Empty(start) => Some(open(&start)?),
            Event::End(_) => stack.pop(),
            Event::Text(text) => {
                let text = text.xml10_content();
                match stack.last_mut() {
                    Some(element) => element.text.push_str(&text),
                    None if text.trim().is_empty() => {}
                    None => return Err(malformed("there is text outside the root element")),
                }
                None
            }
            Event::CData(data) => {
                let element = stack.last_mut().ok_or_else(|| malformed("CDATA outside the root"))?;
                element.text.push_str(&data.xml10_content());
                None
            }
            Event::GeneralRef(reference) => {
                let element = stack.last_mut().ok_or_else(|| malformed("an entity outside the root"))?;
                let named = reference.xml10_content();
                let character = match named.as_ref() {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    other => reference
                        .resolve_char_ref()
                        .map_err(malformed)?
                        .ok_or_else(|| malformed(format!("unknown entity &{other};")))?,
                };
                element.text.push(character);
                None
            }
            Event::DocType(_) => return Err(malformed("a document type is not allowed")),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
        };
        if let Some(element) = closed {
            match stack.last_mut() {
                Some(parent) => parent.children.push(element),
                None if root.is_none() => root = Some(element),
                None => return Err(malformed("there is more than one root element")),
            }
        }
    }
    if let Some(unclosed) = stack.last() {
        return Err(malformed(format!("<{}> is not closed", unclosed.name)));
    }
    root.ok_or_else(|| malformed("the document is empty"))
}

struct Schema<'a> {
    warnings: &'a mut Vec<Problem>,
}

impl Schema<'_> {
    fn warn(&mut self, message: String) {
        self.warnings.push(Problem::new(12200, message));
    }

    fn attributes(&mut self, element: &Element, known: &[&str]) {
        for (name, _) in &element.attributes {
            if !known.contains(&name.as_str()) {
                self.warn(format!("<{}> has no attribute {name}: remove it", element.name));
            }
        }
    }

    fn no_text(&mut self, element: &Element) {
        if !element.text.trim().is_empty() {
            self.warn(format!("<{}> may not contain text", element.name));
        }
    }

    fn no_children(&mut self, element: &Element) {
        for child in &element.children {
            self.warn(format!("<{}> may not contain <{}>", element.name, child.name));
        }
    }

    fn number(&mut self, element: &Element, name: &str, default: u32, most: u32) -> u32 {
        match element.attribute(name).map(str::parse::<u32>) {
            None => default,
            Some(Ok(value)) => value.min(most),
            Some(Err(_)) => {
                self.warn(format!("{name} of <{}> must be a whole number", element.name));
                default
            }
        }
    }

    fn method(&mut self, element: &Element) -> Method {
        match element.attribute("method") {
            None | Some("POST") => Method::Post,
            Some("GET") => Method::Get,
            Some(other) => {
                self.warn(format!("method of <{}> is {other:?}: use GET or POST", element.name));
                Method::Post
            }
        }
    }

    fn verb(&mut self, element: &Element) -> Result<Option<Verb>, Problem> {
        let text = element.text.trim().to_owned();
        let verb = match element.name.as_str() {
            "Say" => {
                self.attributes(element, &["voice", "language", "loop"]);
                self.no_children(element);
                let times = self.number(element, "loop", 1, 1000);
                Verb::Say { text, times: if times == 0 { 1000 } else { times } }
            }
            "Play" => {
                self.attributes(element, &["loop", "digits"]);
                self.no_children(element);
                if !(text.starts_with("http://") || text.starts_with("https://")) {
                    return Err(Problem::new(11100, format!("<Play> has {text:?}: give it an http(s) URL")));
                }
                Verb::Play { url: text }
            }
            "Pause" => {
                self.attributes(element, &["length"]);
                self.no_text(element);
                Verb::Pause { seconds: self.number(element, "length", 1, 600) }
            }
            "Connect" => return self.connect(element).map(Some),
            "Redirect" => {
                self.attributes(element, &["method"]);
                self.no_children(element);
                Verb::Redirect { url: text, method: self.method(element) }
            }
            "Dial" => self.dial(element)?,
            "Hangup" => {
                self.attributes(element, &[]);
                Verb::Hangup
            }
            "Reject" => {
                self.attributes(element, &["reason"]);
                Verb::Reject
            }
            "Gather" => {
                return Err(Problem::new(
                    12100,
                    "<Gather> is not emulated: use <Connect><Stream>, or test this call on Twilio itself",
                ));
            }
            other => {
                self.warn(format!("<{other}> is not a TwiML verb: names are case-sensitive"));
                return Ok(None);
            }
        };
        Ok(Some(verb))
    }

    fn connect(&mut self, element: &Element) -> Result<Verb, Problem> {
        self.attributes(element, &["action", "method"]);
        self.no_text(element);
        let mut stream = None;
        for child in &element.children {
            if child.name == "Stream" && stream.is_none() {
                stream = Some(self.stream(child));
            } else {
                self.warn(format!("<Connect> holds one <Stream>, not also <{}>", child.name));
            }
        }
        let stream =
            stream.ok_or_else(|| Problem::new(12100, "<Connect> needs a <Stream url=\"wss://…\"> inside"))?;
        let method = self.method(element);
        let action = element.attribute("action").map(|url| (url.to_owned(), method));
        Ok(Verb::Connect { stream, action })
    }

    fn stream(&mut self, element: &Element) -> Stream {
        self.attributes(element, &["url", "name", "track", "statusCallback", "statusCallbackMethod"]);
        self.no_text(element);
        let mut parameters = Vec::new();
        for child in &element.children {
            match (child.name.as_str(), child.attribute("name"), child.attribute("value")) {
                ("Parameter", Some(name), Some(value)) => {
                    self.attributes(child, &["name", "value"]);
                    self.no_text(child);
                    self.no_children(child);
                    parameters.push((name.to_owned(), value.to_owned()));
                }
                ("Parameter", _, _) => self.warn("<Parameter> needs both name and value".to_owned()),
                (other, _, _) => self.warn(format!("<Stream> may not contain <{other}>")),
            }
        }
        Stream {
            url: element.attribute("url").unwrap_or_default().to_owned(),
            name: element.attribute("name").map(str::to_owned),
            parameters,
            track: element.attribute("track").map(str::to_owned),
        }
    }

    fn dial(&mut self, element: &Element) -> Result<Verb, Problem> {
        self.attributes(
            element,
            &[
                "action",
                "answerOnBridge",
                "callerId",
                "hangupOnStar",
                "method",
                "record",
                "recordingStatusCallback",
                "ringTone",
                "timeLimit",
                "timeout",
                "trim",
            ],
        );
        let mut number = element.text.trim().to_owned();
        for child in &element.children {
            if child.name == "Number" && number.is_empty() {
                child.text.trim().clone_into(&mut number);
            } else {
                self.warn(format!("<Dial> with <{}> is not emulated", child.name));
            }
        }
        if number.is_empty() {
            return Err(Problem::new(13223, "<Dial> has no phone number: write it in E.164 form inside"));
        }
        Ok(Verb::Dial { number })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn one(body: &str) -> Verb {
        let document = parse(&format!("<?xml version=\"1.0\"?><Response>{body}</Response>")).unwrap();
        assert_eq!(document.warnings, []);
        assert_eq!(document.verbs.len(), 1);
        document.verbs.into_iter().next().unwrap()
    }

    #[test]
    fn reads_a_stream_with_escaped_parameters() {
        let verb = one("<Connect><Stream url=\"wss://h.example/s\" name=\"main\" track='inbound_track'>\
             <Parameter name=\"greeting\" value=\"Tom &amp; &quot;Jo&#39;s&quot; &lt;3\"/></Stream></Connect>");
        let Verb::Connect { stream, action: None } = verb else { panic!("{verb:?}") };
        assert_eq!(stream.parameters, [("greeting".to_owned(), "Tom & \"Jo's\" <3".to_owned())]);
        assert_eq!(stream.target().unwrap().as_str(), "wss://h.example/s");
    }

    #[test]
    fn reads_the_other_verbs() {
        assert_eq!(
            one("<Say voice=\"alice\">Sorry &amp; goodbye</Say>"),
            Verb::Say { text: "Sorry & goodbye".into(), times: 1 }
        );
        assert_eq!(one("<Pause length=\"3\"/>"), Verb::Pause { seconds: 3 });
        assert_eq!(
            one("<Redirect method=\"GET\">/next?a=1&amp;b=2</Redirect>"),
            Verb::Redirect { url: "/next?a=1&b=2".into(), method: Method::Get }
        );
        assert_eq!(one("<Dial>+15550123</Dial>"), Verb::Dial { number: "+15550123".into() });
        assert_eq!(
            one("<Dial timeout=\"20\"><Number>+15550123</Number></Dial>"),
            Verb::Dial { number: "+15550123".into() }
        );
        assert_eq!(one("<Hangup/>"), Verb::Hangup);
        assert_eq!(one("<Reject reason=\"busy\"/>"), Verb::Reject);
    }

    #[rstest]
    #[case("", 12100)]
    #[case("<Response>", 12100)]
    #[case("<Response><Say>a & b</Say></Response>", 12100)]
    #[case("<Response><Say>a</Response></Say>", 12100)]
    #[case("<Response/><Response/>", 12100)]
    #[case("<!DOCTYPE x [<!ENTITY y 'z'>]><Response/>", 12100)]
    #[case("<Response><Say>&nbsp;</Say></Response>", 12100)]
    #[case("<html></html>", 12100)]
    #[case("{\"error\":\"no\"}", 12100)]
    #[case("<Response><Gather/></Response>", 12100)]
    #[case("<Response><Connect/></Response>", 12100)]
    #[case("<Response><Play>file.wav</Play></Response>", 11100)]
    #[case("<Response><Dial/></Response>", 13223)]
    fn refuses(#[case] xml: &str, #[case] code: u32) {
        assert_eq!(parse(xml).unwrap_err().code, code, "{xml}");
    }

    #[rstest]
    #[case("<Response><say>hello</say></Response>")]
    #[case("<Response><Say speed=\"2\">hello</Say></Response>")]
    #[case("<Response>hello</Response>")]
    #[case("<Response><Pause length=\"long\"/></Response>")]
    #[case(
        "<Response><Connect><Stream url=\"wss://a/b\"><Parameter name=\"x\"/></Stream></Connect></Response>"
    )]
    fn warns(#[case] xml: &str) {
        let document = parse(xml).unwrap();
        assert_eq!(document.warnings.len(), 1, "{xml}");
        assert_eq!(document.warnings[0].code, 12200);
    }

    #[rstest]
    #[case("wss://h/s?tenant=1", "", 31920)]
    #[case("not a url", "", 31920)]
    #[case("ws://example.com/s", "", 31922)]
    #[case("https://example.com/s", "", 31922)]
    #[case("wss://h/s", " track=\"both_tracks\"", 31941)]
    fn refuses_a_stream(#[case] url: &str, #[case] more: &str, #[case] code: u32) {
        let xml = format!("<Connect><Stream url=\"{url}\"{more}/></Connect>");
        let Verb::Connect { stream, .. } = one(&xml) else { panic!() };
        assert_eq!(stream.target().unwrap_err().code, code);
    }

    #[rstest]
    #[case("ws://127.0.0.1:8/s")]
    #[case("ws://[::1]:8/s")]
    #[case("ws://localhost/s")]
    fn plain_sockets_work_on_loopback(#[case] url: &str) {
        let xml = format!("<Connect><Stream url=\"{url}\"/></Connect>");
        let Verb::Connect { stream, .. } = one(&xml) else { panic!() };
        assert!(stream.target().is_ok());
    }

    #[test]
    fn a_parameter_has_500_characters_at_most() {
        let stream = |value: &str| {
            let xml = format!(
                "<Connect><Stream url=\"wss://h/s\"><Parameter name=\"greet\" value=\"{value}\"/></Stream></Connect>"
            );
            let Verb::Connect { stream, .. } = one(&xml) else { panic!() };
            stream.target()
        };
        assert!(stream(&"ä".repeat(495)).is_ok());
        assert_eq!(stream(&"ä".repeat(496)).unwrap_err().code, 31951);
    }
}
