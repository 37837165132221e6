//! Text messages through Twilio's Messages API.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::AuthApiError;
use super::options::TwilioSms;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For one attempt, all in all.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// Waits before second and third attempts.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(1000)];
/// Largest answer that is read.
const MOST_ANSWER: usize = 64 * 1024;

/// How a message travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Channel {
    #[default]
    Sms,
    WhatsApp,
}

impl Channel {
    /// From a parameter; empty: a text message.
    ///
    /// # Errors
    /// `validation_failed`.
    pub(crate) fn parse(name: &str) -> Result<Self, AuthApiError> {
        match name {
            "" | "sms" => Ok(Self::Sms),
            "whatsapp" => Ok(Self::WhatsApp),
            _ => Err(AuthApiError::invalid("Invalid channel, supported values are 'sms' or 'whatsapp'")),
        }
    }
}

/// Why a message is not on its way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SmsError {
    #[error("Twilio cannot be reached ({0}): check auth.sms.url and the network")]
    Unreachable(String),
    #[error("Twilio refused the message with HTTP {status}, code {code}: {message}")]
    Refused { status: u16, code: i64, message: String },
    #[error("Twilio answered with what is no message: check auth.sms.url")]
    Answer,
}

/// Sends through one account.
pub(crate) struct SmsSender {
    client: Client,
    url: String,
    account: String,
    token: SecretString,
    from: String,
}

#[derive(Deserialize)]
struct Accepted {
    sid: String,
    status: String,
    error_code: Option<i64>,
    error_message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: i64,
    message: String,
}

impl SmsSender {
    pub(crate) fn new(options: &TwilioSms) -> Self {
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ATTEMPT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("these settings are valid");
        let base = options.url.as_str().trim_end_matches('/');
        Self {
            client,
            url: format!("{base}/2010-04-01/Accounts/{}/Messages.json", options.account_sid),
            account: options.account_sid.clone(),
            token: options.auth_token.clone(),
            from: options.from.clone(),
        }
    }

    /// Sends a text to a number (digits only). Returns the message's id.
    ///
    /// # Errors
    /// After up to three attempts; tried again is only what Twilio surely did not accept.
    pub(crate) async fn send(&self, phone: &str, text: &str, channel: Channel) -> Result<String, SmsError> {
        let mut backoff = BACKOFF.iter();
        loop {
            match self.attempt(phone, text, channel).await {
                Ok(id) => return Ok(id),
                Err((error, again)) => match backoff.next() {
                    Some(wait) if again => tokio::time::sleep(*wait).await,
                    _ => return Err(error),
                },
            }
        }
    }

    /// One attempt; the flag says that the message was not accepted, and may be later.
    async fn attempt(&self, phone: &str, text: &str, channel: Channel) -> Result<String, (SmsError, bool)> {
        let address = |number: &str| match channel {
            Channel::Sms => number.to_owned(),
            Channel::WhatsApp => format!("whatsapp:{number}"),
        };
        let sender = if self.from.starts_with("MG") {
            ("MessagingServiceSid", self.from.clone())
        } else {
            ("From", address(&self.from))
        };
        let form = [("To", address(&format!("+{phone}"))), sender, ("Body", text.to_owned())];
        let request = self.client.post(&self.url).basic_auth(&self.account, Some(self.token.expose_secret()));
        let response = request.form(&form).send().await.map_err(|error| {
            // Only a connection that never came about has surely sent nothing.
            let again = error.is_connect();
            (SmsError::Unreachable(error.without_url().to_string()), again)
        })?;
        let status = response.status();
        let answer = bounded(response).await.map_err(|error| (error, false))?;
        if !status.is_success() {
            let Refusal { code, message } = serde_json::from_slice(&answer).unwrap_or_default();
            let refusal = SmsError::Refused { status: status.as_u16(), code, message };
            return Err((refusal, status == StatusCode::TOO_MANY_REQUESTS));
        }
        let accepted: Accepted = serde_json::from_slice(&answer).map_err(|_| (SmsError::Answer, false))?;
        if matches!(accepted.status.as_str(), "failed" | "undelivered") {
            let (code, message) =
                (accepted.error_code.unwrap_or(0), accepted.error_message.unwrap_or_default());
            return Err((SmsError::Refused { status: status.as_u16(), code, message }, false));
        }
        Ok(accepted.sid)
    }
}

async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, SmsError> {
    let mut all = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| SmsError::Unreachable(error.without_url().to_string()))?
    {
        if all.len() + chunk.len() > MOST_ANSWER {
            return Err(SmsError::Answer);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
