//! A strict SMTP submission server that keeps what it gets (RFC 5321, 3207, 4954, 5322).
//!
//! It takes commands only in their order, lines only when they end in CR LF, logins only as they were set up, and
//! refuses what the RFCs do not allow.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use longhouse_emulators::smtp::{Options, Server};
//! let server = Server::start(Options::default()).await?;
//! println!("{}", server.address());
//! for mail in server.mails() {
//!     println!("{} → {:?}", mail.from, mail.to);
//! }
//! # Ok(()) }
//! ```

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fmt, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

/// Longest command line with its end (RFC 5321 §4.5.3.1.4).
const LONGEST_COMMAND: usize = 512;
/// Longest line of a mail with its end (§4.5.3.1.6).
const LONGEST_LINE: usize = 1000;
/// Most recipients of a mail (§4.5.3.1.8).
const MOST_RECIPIENTS: usize = 100;
/// Largest mail.
const MOST_BYTES: usize = 1 << 20;
/// Most mails kept; the oldest make room.
const MOST_MAILS: usize = 10_000;
/// Longest silence.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The login that is needed, if any.
    pub login: Option<(String, String)>,
    /// Whether STARTTLS is offered, and needed before login and mail.
    pub starttls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), login: None, starttls: false }
    }
}

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Envelope sender.
    pub from: String,
    /// Envelope recipients.
    pub to: Vec<String>,
    /// Headers and body, dots unstuffed.
    pub data: String,
    /// Whether it came over TLS.
    pub encrypted: bool,
}

impl Mail {
    /// A header, unfolded.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self
            .data
            .split("\r\n\r\n")
            .next()
            .unwrap_or_default()
            .replace("\r\n ", " ")
            .replace("\r\n\t", " ");
        headers.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The part of that type (`text/plain`), its transfer encoding undone.
    #[must_use]
    pub fn part(&self, kind: &str) -> Option<String> {
        let boundary = self.header("content-type")?;
        let boundary = boundary.split_once("boundary=\"")?.1.split('"').next()?.to_owned();
        self.data.split(&format!("--{boundary}")).find_map(|part| {
            let (headers, body) = part.split_once("\r\n\r\n")?;
            let lower = headers.to_ascii_lowercase();
            if !lower.contains(&format!("content-type: {kind}")) {
                return None;
            }
            let body = body.trim_end_matches("\r\n");
            if lower.contains("quoted-printable") {
                Some(quoted_printable(body))
            } else if lower.contains("base64") {
                String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).ok()?).ok()
            } else {
                Some(body.to_owned())
            }
        })
    }
}

/// RFC 2045 §6.7.
fn quoted_printable(text: &str) -> String {
    let joined = text.replace("=\r\n", "");
    let mut bytes = Vec::with_capacity(joined.len());
    let mut rest = joined.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'=').then(|| after.get(..2)).flatten();
        let value = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let Some(value) = value {
            bytes.push(value);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A running server. It stops when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    certificate: String,
    stop: CancellationToken,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Shared {
    options: Options,
    tls: Option<TlsAcceptor>,
    mails: Mutex<VecDeque<Mail>>,
    taken: watch::Sender<usize>,
    /// Answers to the next recipients, instead of ours.
    refusals: Mutex<VecDeque<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl Server {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be bound, or no certificate can be made.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .map_err(io::Error::other)?;
        let tls = if options.starttls {
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(io::Error::other)?;
            let config = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .map_err(io::Error::other)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        } else {
            None
        };
        let shared = Arc::new(Shared {
            options,
            tls,
            mails: Mutex::default(),
            taken: watch::Sender::new(0),
            refusals: Mutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self { address, shared, certificate: cert.pem(), stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that clients must trust for STARTTLS, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What was taken so far, oldest first.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.shared.mails).iter().cloned().collect()
    }

    /// Waits until that many mails were taken since the start, and returns what is kept.
    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        let mut taken = self.shared.taken.subscribe();
        taken.wait_for(|taken| *taken >= count).await.expect("the server keeps the sender");
        self.mails()
    }

    /// Answers the next recipient with this line, such as `451 4.3.0 Try again later`.
    pub fn refuse_next(&self, line: &str) {
        lock(&self.shared.refusals).push_back(line.to_owned());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the SMTP emulator stopped");
                    return;
                }
            },
            () = stop.cancelled() => return,
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                result = connection(stream, &shared) => if let Err(error) = result {
                    tracing::debug!(%error, "an SMTP connection broke");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut plain = Session::new(BufReader::new(stream), shared, false);
    plain.say("220 localhost ESMTP").await?;
    if plain.run().await? == Ended::ForTls
        && let Some(acceptor) = &shared.tls
    {
        // RFC 3207 §4.2: what came before the handshake is forgotten.
        if !plain.stream.buffer().is_empty() {
            return Err(io::Error::other("commands were sent before the TLS handshake"));
        }
        let stream = acceptor.accept(plain.stream.into_inner()).await?;
        Session::new(BufReader::new(stream), shared, true).run().await?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Done,
    ForTls,
}

struct Session<'a, S> {
    stream: BufReader<S>,
    shared: &'a Shared,
    encrypted: bool,
    greeted: bool,
    logged_in: bool,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: BufReader<S>, shared: &'a Shared, encrypted: bool) -> Self {
        Self { stream, shared, encrypted, greeted: false, logged_in: false, from: None, to: Vec::new() }
    }

    async fn say(&mut self, lines: &str) -> io::Result<()> {
        self.stream.write_all(format!("{lines}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// A line without its end. `None` at the end of the stream.
    async fn line(&mut self, longest: usize) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let available = tokio::time::timeout(PATIENCE, self.stream.fill_buf())
                .await
                .map_err(|_| io::Error::other("the client is silent"))??;
            if available.is_empty() {
                return Ok(None);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            line.extend_from_slice(&available[..taken]);
            self.stream.consume(taken);
            if line.len() > longest {
                return Err(io::Error::other("a line is too long"));
            }
            if end.is_some() {
                break;
            }
        }
        // RFC 5321 §2.3.8: a line ends in CR LF, and neither stands alone.
        let content =
            line.strip_suffix(b"\r\n").ok_or_else(|| io::Error::other("a line ends in LF alone"))?;
        if content.contains(&b'\r') || content.contains(&0) {
            return Err(io::Error::other("a line has a lone CR or a NUL"));
        }
        Ok(Some(content.to_vec()))
    }

    async fn run(&mut self) -> io::Result<Ended> {
        while let Some(line) = self.line(LONGEST_COMMAND).await? {
            let Ok(line) = String::from_utf8(line) else {
                self.say("500 5.5.2 Commands are ASCII").await?;
                continue;
            };
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" if rest.trim().is_empty() => self.say("501 5.5.4 Who are you?").await?,
                "EHLO" => self.greet().await?,
                "HELO" => {
                    self.greeted = true;
                    self.say("250 localhost").await?;
                }
                "NOOP" => self.say("250 2.0.0 OK").await?,
                "RSET" => {
                    self.reset();
                    self.say("250 2.0.0 OK").await?;
                }
                "QUIT" => {
                    self.say("221 2.0.0 Bye").await?;
                    return Ok(Ended::Done);
                }
                "STARTTLS" if self.shared.tls.is_some() && !self.encrypted && self.greeted => {
                    self.say("220 2.0.0 Go ahead").await?;
                    return Ok(Ended::ForTls);
                }
                "MAIL" | "RCPT" | "DATA" | "AUTH" if !self.greeted => {
                    self.say("503 5.5.1 EHLO first").await?;
                }
                "MAIL" | "RCPT" | "DATA" | "AUTH" if self.shared.tls.is_some() && !self.encrypted => {
                    self.say("530 5.7.0 Must issue a STARTTLS command first").await?;
                }
                "AUTH" => self.login(rest).await?,
                "MAIL" | "RCPT" | "DATA" if self.shared.options.login.is_some() && !self.logged_in => {
                    self.say("530 5.7.0 Authentication required").await?;
                }
                "MAIL" => self.mail(rest).await?,
                "RCPT" => self.recipient(rest).await?,
                "DATA" => self.data().await?,
                "VRFY" => self.say("252 2.5.0 Perhaps").await?,
                _ => self.say("500 5.5.2 Unknown command").await?,
            }
        }
        Ok(Ended::Done)
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn greet(&mut self) -> io::Result<()> {
        self.greeted = true;
        self.reset();
        let mut lines = vec!["localhost".to_owned(), "8BITMIME".into(), format!("SIZE {MOST_BYTES}")];
        if self.shared.tls.is_some() && !self.encrypted {
            lines.push("STARTTLS".into());
        } else if self.shared.options.login.is_some() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        let last = lines.len() - 1;
        let lines: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| format!("250{}{line}", if index == last { ' ' } else { '-' }))
            .collect();
        self.say(&lines.join("\r\n")).await
    }

    async fn login(&mut self, rest: &str) -> io::Result<()> {
        let Some(expected) = self.shared.options.login.clone() else {
            return self.say("503 5.5.1 No login here").await;
        };
        if self.logged_in {
            return self.say("503 5.5.1 You are logged in").await;
        }
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let decode = |text: &[u8]| STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let given = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let answer = if initial.is_empty() { self.ask("334 ").await? } else { initial.into() };
                decode(&answer).and_then(|answer| {
                    let mut parts = answer.split('\0').skip(1);
                    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
                })
            }
            "LOGIN" => {
                let user =
                    if initial.is_empty() { self.ask("334 VXNlcm5hbWU6").await? } else { initial.into() };
                let password = self.ask("334 UGFzc3dvcmQ6").await?;
                decode(&user).zip(decode(&password))
            }
            _ => return self.say("504 5.5.4 Use PLAIN or LOGIN").await,
        };
        self.logged_in = given == Some(expected);
        self.say(if self.logged_in { "235 2.7.0 Welcome" } else { "535 5.7.8 Wrong login" }).await
    }

    async fn ask(&mut self, question: &str) -> io::Result<Vec<u8>> {
        self.say(question).await?;
        self.line(LONGEST_COMMAND).await?.ok_or_else(|| io::Error::other("the client went away"))
    }

    async fn mail(&mut self, rest: &str) -> io::Result<()> {
        if self.from.is_some() {
            return self.say("503 5.5.1 One mail at a time").await;
        }
        match path(rest, "FROM:") {
            Some(from) => {
                self.from = Some(from);
                self.say("250 2.1.0 OK").await
            }
            None => self.say("501 5.1.7 Bad sender").await,
        }
    }

    async fn recipient(&mut self, rest: &str) -> io::Result<()> {
        if self.from.is_none() {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let refusal = lock(&self.shared.refusals).pop_front();
        if let Some(refusal) = refusal {
            return self.say(&refusal).await;
        }
        match path(rest, "TO:").filter(|to| to.contains('@')) {
            Some(_) if self.to.len() >= MOST_RECIPIENTS => self.say("452 4.5.3 Too many recipients").await,
            Some(to) => {
                self.to.push(to);
                self.say("250 2.1.5 OK").await
            }
            None => self.say("501 5.1.3 Bad recipient").await,
        }
    }

    async fn data(&mut self) -> io::Result<()> {
        if self.to.is_empty() {
            return self.say("503 5.5.1 RCPT first").await;
        }
        self.say("354 End with a dot").await?;
        let mut data = Vec::new();
        loop {
            let line = self.line(LONGEST_LINE).await?;
            let line = line.ok_or_else(|| io::Error::other("the client went away within a mail"))?;
            if line == b"." {
                break;
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            data.extend_from_slice(b"\r\n");
            if data.len() > MOST_BYTES {
                return Err(io::Error::other("the mail is too large"));
            }
        }
        let mail = Mail {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            data: String::from_utf8_lossy(&data).into_owned(),
            encrypted: self.encrypted,
        };
        // RFC 5322 §3.6: these must be there.
        if mail.header("From").is_none() || mail.header("Date").is_none() {
            return self.say("554 5.6.0 No From or no Date").await;
        }
        {
            let mut mails = lock(&self.shared.mails);
            if mails.len() == MOST_MAILS {
                mails.pop_front();
            }
            mails.push_back(mail);
        }
        self.say("250 2.0.0 Taken").await?;
        self.shared.taken.send_modify(|taken| *taken += 1);
        Ok(())
    }
}

/// `FROM:<address> parameters`.
fn path(rest: &str, keyword: &str) -> Option<String> {
    let start = rest.get(..keyword.len())?;
    let (address, parameters) = rest[keyword.len()..].strip_prefix('<')?.split_once('>')?;
    let known = parameters.split_whitespace().all(|parameter| {
        parameter.eq_ignore_ascii_case("BODY=8BITMIME")
            || parameter.eq_ignore_ascii_case("BODY=7BIT")
            || parameter.to_ascii_uppercase().starts_with("SIZE=")
    });
    let plain = !address.contains(|c: char| c.is_whitespace() || c.is_control() || c == '<');
    (start.eq_ignore_ascii_case(keyword) && known && plain).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("FROM:<a@b.c>", Some("a@b.c"))]
    #[case("from:<> SIZE=10 BODY=8BITMIME", Some(""))]
    #[case("FROM: <a@b.c>", None)]
    #[case("FROM:a@b.c", None)]
    #[case("FROM:<a@b.c> RET=FULL", None)]
    #[case("FROM:<a @b.c>", None)]
    #[case("TO:<a@b.c>", None)]
    fn paths(#[case] rest: &str, #[case] expected: Option<&str>) {
        assert_eq!(path(rest, "FROM:").as_deref(), expected);
    }

    #[test]
    fn quoted_printable_is_undone() {
        assert_eq!(quoted_printable("caf=C3=A9 1=3D1 so=\r\nft =Z"), "café 1=1 soft =Z");
    }
}
