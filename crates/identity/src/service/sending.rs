//! One-time codes on their way: by mail through the outbox, by text message after the transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::AuthService;
use super::accounts::change_user;
use super::codes::{CodeChallenge, PKCE_PREFIX, new_code, token_hash, wait_before_next};
use super::error::AuthApiError;
use super::mail::{MailKind, Message};
use super::sms::Channel;
use super::store::{self, FlowState, OneTimeToken, TokenKind, Tx, User, UserChange};

/// What a text message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmsPurpose {
    Confirmation,
    PhoneChange,
    Reauthentication,
}

/// A text message whose code is stored, to be sent once the transaction has committed.
#[derive(Debug)]
#[must_use = "commit, then hand it to `AuthService::deliver`"]
pub(crate) struct SmsToSend {
    user_id: Uuid,
    phone: String,
    /// Unset for test numbers, which get none.
    text: Option<String>,
    purpose: SmsPurpose,
    channel: Channel,
}

impl AuthService {
    /// Mails the code and link that confirm a new account's address.
    ///
    /// # Errors
    /// 429 when too soon or too many; so do the others.
    pub(crate) async fn send_confirmation(
        &self,
        tx: &Tx,
        user: &User,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.check_frequency(user.confirmation_sent_at)?;
        let mail =
            Sending { kind: MailKind::Confirmation, token: TokenKind::Confirmation, challenge, redirect_to };
        self.mail_code(tx, user, mail, &user.email).await?;
        let change = UserChange { confirmation_sent_at: now(), ..UserChange::default() };
        change_user(tx, user.id, &change).await
    }

    /// Mails the code and link with which somebody takes an account that was made for them.
    pub(crate) async fn send_invite(
        &self,
        tx: &Tx,
        user: &User,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.check_frequency(user.invited_at)?;
        let mail =
            Sending { kind: MailKind::Invite, token: TokenKind::Confirmation, challenge: None, redirect_to };
        self.mail_code(tx, user, mail, &user.email).await?;
        let change = UserChange { invited_at: now(), confirmation_sent_at: now(), ..UserChange::default() };
        change_user(tx, user.id, &change).await
    }

    /// Mails the code and link that let somebody in who has forgotten the password.
    pub(crate) async fn send_recovery(
        &self,
        tx: &Tx,
        user: &User,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.send_way_in(tx, user, MailKind::Recovery, challenge, redirect_to).await
    }

    /// Mails the code and link that sign in without a password.
    pub(crate) async fn send_magic_link(
        &self,
        tx: &Tx,
        user: &User,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.send_way_in(tx, user, MailKind::MagicLink, challenge, redirect_to).await
    }

    /// Recovery and magic link share a token: the newer one counts.
    async fn send_way_in(
        &self,
        tx: &Tx,
        user: &User,
        kind: MailKind,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.check_frequency(user.recovery_sent_at)?;
        let mail = Sending { kind, token: TokenKind::Recovery, challenge, redirect_to };
        self.mail_code(tx, user, mail, &user.email).await?;
        let change = UserChange { recovery_sent_at: now(), ..UserChange::default() };
        change_user(tx, user.id, &change).await
    }

    /// Mails codes and links to the new address and, if the options want that and there is one, to the current one.
    pub(crate) async fn send_email_change(
        &self,
        tx: &Tx,
        user: &User,
        email: &str,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<User, AuthApiError> {
        self.check_frequency(user.email_change_sent_at)?;
        let user = User { email_change: email.to_owned(), ..user.clone() };
        let kind = MailKind::EmailChange;
        OneTimeToken::clear(tx, user.id, TokenKind::EmailChangeCurrent).await?;
        let mail = Sending { kind, token: TokenKind::EmailChangeNew, challenge, redirect_to };
        self.mail_code(tx, &user, mail, email).await?;
        if self.options.email.secure_change && !user.email.is_empty() {
            let mail = Sending { kind, token: TokenKind::EmailChangeCurrent, challenge, redirect_to };
            self.mail_code(tx, &user, mail, &user.email).await?;
        }
        let change = UserChange {
            email_change: Some(email.to_owned()),
            email_change_sent_at: now(),
            email_change_confirm_status: Some(0),
            ..UserChange::default()
        };
        change_user(tx, user.id, &change).await
    }

    /// Mails the code that proves, before a change of password, who sits there.
    pub(crate) async fn send_reauthentication(&self, tx: &Tx, user: &User) -> Result<User, AuthApiError> {
        self.check_frequency(user.reauthentication_sent_at)?;
        let (kind, token) = (MailKind::Reauthentication, TokenKind::Reauthentication);
        let mail = Sending { kind, token, challenge: None, redirect_to: "" };
        self.mail_code(tx, user, mail, &user.email).await?;
        let change = UserChange { reauthentication_sent_at: now(), ..UserChange::default() };
        change_user(tx, user.id, &change).await
    }

    /// Makes a code, stores its hash, puts the mail into the outbox.
    async fn mail_code(&self, tx: &Tx, user: &User, mail: Sending<'_>, to: &str) -> Result<(), AuthApiError> {
        self.limits.check_mails(tx).await?;
        let code = new_code(self.options.email.otp_length);
        let prefix = if mail.challenge.is_some() { PKCE_PREFIX } else { "" };
        let hash = format!("{prefix}{}", token_hash(to, &code));
        OneTimeToken::put(tx, user.id, mail.token, &hash, to).await?;
        let message = Message {
            kind: mail.kind,
            user_id: user.id,
            to,
            new_email: &user.email_change,
            code: &code,
            token_hash: &hash,
            redirect_to: mail.redirect_to,
            user_metadata: &user.user_metadata,
        };
        self.mailer.enqueue(tx, &message).await
    }

    fn check_frequency(&self, sent: Option<DateTime<Utc>>) -> Result<(), AuthApiError> {
        match wait_before_next(sent, self.options.email.max_frequency, Utc::now()) {
            None => Ok(()),
            Some(wait) => Err(too_soon("over_email_send_rate_limit", wait)),
        }
    }

    /// Answers for an address that gets no mail as for one that does: the same refusals, in the same order.
    pub(crate) async fn pretend_to_mail(
        &self,
        tx: &Tx,
        kind: &str,
        address: &str,
    ) -> Result<(), AuthApiError> {
        self.limits.check_mails(tx).await?;
        store::pretend(tx).await?;
        match self.limits.pretend_to_send(kind, address, self.options.email.max_frequency) {
            None => Ok(()),
            Some(wait) => Err(too_soon("over_email_send_rate_limit", wait)),
        }
    }

    /// As [`Self::pretend_to_mail`], for a number.
    pub(crate) fn pretend_to_text(&self, kind: &str, phone: &str) -> Result<(), AuthApiError> {
        match self.limits.pretend_to_send(kind, phone, self.options.phone.max_frequency) {
            None => Ok(()),
            Some(wait) => Err(too_soon("over_sms_send_rate_limit", wait)),
        }
    }

    /// Makes a code for a number and stores its hash.
    ///
    /// # Errors
    /// 429 when too soon or too many.
    pub(crate) async fn issue_sms(
        &self,
        tx: &Tx,
        user: &User,
        phone: &str,
        purpose: SmsPurpose,
        channel: Channel,
    ) -> Result<SmsToSend, AuthApiError> {
        let options = &self.options.phone;
        let (token, sent) = match purpose {
            SmsPurpose::Confirmation => (TokenKind::Confirmation, user.confirmation_sent_at),
            SmsPurpose::PhoneChange => (TokenKind::PhoneChange, user.phone_change_sent_at),
            SmsPurpose::Reauthentication => (TokenKind::Reauthentication, user.reauthentication_sent_at),
        };
        if let Some(wait) = wait_before_next(sent, options.max_frequency, Utc::now()) {
            return Err(too_soon("over_sms_send_rate_limit", wait));
        }
        let (code, text) = match self.test_code(phone) {
            Some(code) => (code.to_owned(), None),
            None => {
                self.limits.take_sms()?;
                let code = new_code(options.otp_length);
                let text = options.template.replace("{{ .Code }}", &code).replace("{{.Code}}", &code);
                (code, Some(text))
            }
        };
        OneTimeToken::put(tx, user.id, token, &token_hash(phone, &code), phone).await?;
        let mut change = sent_at(purpose, now());
        if purpose == SmsPurpose::PhoneChange {
            change.phone_change = Some(phone.to_owned());
        }
        change_user(tx, user.id, &change).await?;
        Ok(SmsToSend { user_id: user.id, phone: phone.to_owned(), text, purpose, channel })
    }

    /// Sends a text message, after its transaction. Returns its id.
    ///
    /// # Errors
    /// 422 `sms_send_failed`; it may then be asked for again at once.
    pub(crate) async fn deliver(&self, sms: SmsToSend) -> Result<Option<String>, AuthApiError> {
        let Some(text) = &sms.text else { return Ok(Some("test-otp".into())) };
        let error = match &self.sms {
            Some(sender) => match sender.send(&sms.phone, text, sms.channel).await {
                Ok(id) => return Ok(Some(id)),
                Err(error) => error.to_string(),
            },
            None => "no text message service is configured: set auth.sms".to_owned(),
        };
        tracing::warn!(error, "a text message could not be sent");
        let tx = store::begin(&self.database).await?;
        change_user(&tx, sms.user_id, &sent_at(sms.purpose, Some(None))).await?;
        tx.commit().await?;
        let message =
            "Error sending confirmation OTP to provider: the message was not accepted, see the server's log";
        Err(AuthApiError::unprocessable("sms_send_failed", message))
    }

    /// The fixed code of a test number.
    pub(crate) fn test_code(&self, phone: &str) -> Option<&str> {
        let same = |number: &str| number.chars().filter(char::is_ascii_digit).eq(phone.chars());
        let found = self.options.phone.test_otps.iter().find(|(number, _)| same(number));
        found.map(|(_, code)| code.as_str())
    }
}

/// A mail to write, beside whom it goes to.
struct Sending<'a> {
    kind: MailKind,
    token: TokenKind,
    challenge: Option<&'a CodeChallenge>,
    redirect_to: &'a str,
}

/// Begins a sign-in that ends in a code exchange, if the page sent a challenge. `method` is what the session will name.
pub(crate) async fn begin_exchange(
    tx: &Tx,
    user: Uuid,
    challenge: Option<&CodeChallenge>,
    provider_type: &str,
    method: &str,
) -> Result<(), AuthApiError> {
    let Some(challenge) = challenge else { return Ok(()) };
    let flow = FlowState {
        id: Uuid::new_v4(),
        user_id: Some(user),
        auth_code: Some(Uuid::new_v4().to_string()),
        code_challenge_method: Some(challenge.method.name().to_owned()),
        code_challenge: Some(challenge.challenge.clone()),
        provider_type: provider_type.to_owned(),
        authentication_method: method.to_owned(),
        ..FlowState::default()
    };
    Ok(flow.insert(tx).await?)
}

fn now() -> Option<Option<DateTime<Utc>>> {
    Some(Some(Utc::now()))
}

fn sent_at(purpose: SmsPurpose, time: Option<Option<DateTime<Utc>>>) -> UserChange {
    let mut change = UserChange::default();
    match purpose {
        SmsPurpose::Confirmation => change.confirmation_sent_at = time,
        SmsPurpose::PhoneChange => change.phone_change_sent_at = time,
        SmsPurpose::Reauthentication => change.reauthentication_sent_at = time,
    }
    change
}

fn too_soon(code: &'static str, wait: Duration) -> AuthApiError {
    let wait = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    let message =
        format!("For security purposes, you can only request this after {} seconds.", wait.as_secs());
    AuthApiError::too_many(code, message, wait)
}
