//! Codes by text message as a second factor.

use chrono::Utc;

use crate::service::AuthService;
use crate::service::codes::{new_code, wait_before_next};
use crate::service::error::AuthApiError;
use crate::service::sms::Channel;
use crate::service::store::Factor;

/// A code to send once its hash is stored.
#[derive(Debug)]
pub(crate) struct FactorMessage {
    pub(crate) code: String,
    /// Unset for test numbers, which get none.
    text: Option<String>,
    channel: Channel,
}

impl AuthService {
    /// A new code for a factor's number.
    ///
    /// # Errors
    /// 429 when too soon or too many, `validation_failed` for another channel than text messages and WhatsApp.
    pub(crate) fn factor_message(
        &self,
        factor: &Factor,
        channel: &str,
    ) -> Result<FactorMessage, AuthApiError> {
        let channel = Channel::parse(channel)?;
        let options = &self.options.phone;
        if let Some(wait) = wait_before_next(factor.last_challenged_at, options.max_frequency, Utc::now()) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message =
                format!("For security purposes, you can only request this after {seconds} seconds.");
            return Err(AuthApiError::too_many("over_sms_send_rate_limit", message, wait));
        }
        let phone = factor.phone.as_deref().unwrap_or_default();
        if let Some(code) = self.test_code(phone) {
            return Ok(FactorMessage { code: code.to_owned(), text: None, channel });
        }
        self.limits.take_sms()?;
        let code = new_code(options.otp_length);
        let text = options.template.replace("{{ .Code }}", &code).replace("{{.Code}}", &code);
        Ok(FactorMessage { code, text: Some(text), channel })
    }

    /// Sends it.
    ///
    /// # Errors
    /// 422 `sms_send_failed`.
    pub(crate) async fn send_factor_message(
        &self,
        factor: &Factor,
        message: &FactorMessage,
    ) -> Result<(), AuthApiError> {
        let Some(text) = &message.text else { return Ok(()) };
        let phone = factor.phone.as_deref().unwrap_or_default();
        let error = match &self.sms {
            Some(sender) => match sender.send(phone, text, message.channel).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            None => "no text message service is configured: set auth.sms".to_owned(),
        };
        tracing::warn!(error, "a text message could not be sent");
        Err(AuthApiError::unprocessable(
            "sms_send_failed",
            "Error sending the code: the message was not accepted, see the server's log",
        ))
    }
}
