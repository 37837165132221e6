//! The way out to a mail server.

use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;

use super::{OutboxMail, Rendered};
use crate::service::options::SmtpOptions;

/// Longest time that one command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15);
/// Longest time that one mail may take, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Connections kept.
const CONNECTIONS: u32 = 4;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// The port that speaks TLS from the first byte.
const SUBMISSIONS: u16 = 465;

/// Why a mail did not leave.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SendError {
    /// Worth another try.
    #[error("{0}")]
    Later(String),
    /// Not.
    #[error("{0}")]
    Never(String),
}

/// A mail server.
pub(super) struct Smtp {
    transport: Result<AsyncSmtpTransport<Tokio1Executor>, String>,
    sender: Result<Mailbox, String>,
}

impl Smtp {
    /// Mistakes in the settings are logged, and come again with every mail.
    pub(super) fn new(options: &SmtpOptions) -> Self {
        let (transport, sender) = (transport(options), sender(options));
        for error in [transport.as_ref().err(), sender.as_ref().err()].into_iter().flatten() {
            tracing::error!(error, "mail cannot leave");
        }
        Self { transport, sender }
    }

    /// Sends one mail.
    pub(super) async fn send(&self, mail: &OutboxMail, rendered: Rendered) -> Result<(), SendError> {
        let transport = self.transport.as_ref().map_err(|error| SendError::Later(error.clone()))?;
        let sender = self.sender.as_ref().map_err(|error| SendError::Later(error.clone()))?;
        let message = message(sender, mail, rendered)?;
        match tokio::time::timeout(DEADLINE, transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(SendError::Never(with_causes(&error))),
            Ok(Err(error)) => Err(SendError::Later(with_causes(&error))),
            Err(_) => Err(SendError::Later(format!(
                "the mail server did not take it within {} s: check mail.smtp_host and mail.smtp_port",
                DEADLINE.as_secs()
            ))),
        }
    }
}

fn message(sender: &Mailbox, mail: &OutboxMail, rendered: Rendered) -> Result<Message, SendError> {
    let never =
        |error: &dyn std::fmt::Display| SendError::Never(format!("the mail cannot be written: {error}"));
    let recipient: Address = mail.recipient.parse().map_err(|error| never(&error))?;
    // The same for every attempt, so that a mail that was sent twice is seen to be one.
    let id =
        format!("<longhouse-{}-{}@{}>", mail.id, mail.created_at.timestamp_micros(), sender.email.domain());
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    Message::builder()
        .from(sender.clone())
        .to(Mailbox::new(None, recipient))
        .subject(rendered.subject)
        .message_id(Some(id))
        .date(mail.created_at.into())
        .raw_header(HeaderValue::new(automatic, "auto-generated".into()))
        .multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
        .map_err(|error| never(&error))
}

fn sender(options: &SmtpOptions) -> Result<Mailbox, String> {
    let address = options.from.parse::<Address>().map_err(|error| {
        format!("mail.from {:?} is no e-mail address ({error}): correct it", options.from)
    })?;
    Ok(Mailbox::new(options.from_name.clone(), address))
}

fn transport(options: &SmtpOptions) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let mut parameters = TlsParameters::builder(options.host.clone());
    if let Some(path) = &options.ca_certificate {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("cannot use {} ({error}): set mail.ca_file to a PEM file", path.display())
        };
        let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
        parameters =
            parameters.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| wrong(&error))?);
    }
    let parameters = parameters.build_rustls().map_err(|error| with_causes(&error))?;
    let tls = match protection(options) {
        Protection::FirstByte => Tls::Wrapper(parameters),
        Protection::Required => Tls::Required(parameters),
        Protection::WhereOffered => Tls::Opportunistic(parameters),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(options.host.clone())
        .port(options.port)
        .timeout(Some(COMMAND_DEADLINE))
        .pool_config(PoolConfig::new().max_size(CONNECTIONS).idle_timeout(IDLE))
        .tls(tls);
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}

#[derive(Debug, PartialEq, Eq)]
enum Protection {
    FirstByte,
    /// STARTTLS or nothing.
    Required,
    WhereOffered,
}

/// A password never crosses a network in the clear, whatever the server (or somebody in between) offers.
fn protection(options: &SmtpOptions) -> Protection {
    let here = matches!(options.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    match options.port {
        SUBMISSIONS => Protection::FirstByte,
        _ if (options.password.is_some() && !here) || options.ca_certificate.is_some() => {
            Protection::Required
        }
        _ => Protection::WhereOffered,
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("smtp.example.com", 465, true, Protection::FirstByte)]
    #[case("smtp.example.com", 587, true, Protection::Required)]
    #[case("smtp.example.com", 25, false, Protection::WhereOffered)]
    #[case("localhost", 1025, true, Protection::WhereOffered)]
    fn passwords_are_protected(
        #[case] host: &str,
        #[case] port: u16,
        #[case] password: bool,
        #[case] expected: Protection,
    ) {
        let options = SmtpOptions {
            host: host.into(),
            port,
            user: password.then(|| "user".into()),
            password: password.then(|| "secret".to_owned().into()),
            from: "a@b.c".into(),
            from_name: None,
            ca_certificate: None,
        };
        assert_eq!(protection(&options), expected);
    }
}
