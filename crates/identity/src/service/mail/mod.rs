//! Mail: put into the outbox in the transaction that makes it necessary, sent by a worker.
//!
//! An answer therefore never waits for a mail server, tells nothing about whether an account exists, and a crash
//! loses no mail.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::AuthApiError;
use super::options::AuthOptions;
use super::store::Tx;

/// What a mail is about; each has a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailKind {
    Confirmation,
    Recovery,
    MagicLink,
    Invite,
    EmailChange,
    Reauthentication,
}

impl MailKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Confirmation => "confirmation",
            Self::Recovery => "recovery",
            Self::MagicLink => "magic_link",
            Self::Invite => "invite",
            Self::EmailChange => "email_change",
            Self::Reauthentication => "reauthentication",
        }
    }

    /// `type` of the link to `/verify`.
    pub(crate) fn verification_type(self) -> &'static str {
        match self {
            Self::Confirmation => "signup",
            Self::Recovery => "recovery",
            Self::MagicLink => "magiclink",
            Self::Invite => "invite",
            Self::EmailChange => "email_change",
            Self::Reauthentication => "reauthentication",
        }
    }
}

/// A mail to write.
#[derive(Debug, Clone)]
pub(crate) struct Message<'a> {
    pub(crate) kind: MailKind,
    pub(crate) user_id: Uuid,
    pub(crate) to: &'a str,
    /// The other address of a change of address.
    pub(crate) new_email: &'a str,
    /// The code to type in.
    pub(crate) code: &'a str,
    /// The hash for the link (may have the prefix `pkce_`).
    pub(crate) token_hash: &'a str,
    /// Where the link ends; already checked.
    pub(crate) redirect_to: &'a str,
    pub(crate) user_metadata: &'a Map<String, Value>,
}

/// Writes mail into the outbox.
pub(crate) struct Mailer {
    external_url: String,
    site_url: String,
}

impl Mailer {
    pub(crate) fn new(options: &AuthOptions) -> Self {
        Self {
            external_url: options.external_url.as_str().trim_end_matches('/').to_owned(),
            site_url: options.site_url.as_str().trim_end_matches('/').to_owned(),
        }
    }

    /// Queues a mail; it leaves when the transaction commits.
    pub(crate) async fn enqueue(&self, tx: &Tx, message: &Message<'_>) -> Result<(), AuthApiError> {
        let link = self.link(message.kind, message.token_hash, message.redirect_to);
        let variables = json!({
            "ConfirmationURL": link,
            "Token": message.code,
            "TokenHash": message.token_hash,
            "SiteURL": self.site_url,
            "Email": message.to,
            "NewEmail": message.new_email,
            "Data": message.user_metadata,
            "RedirectTo": message.redirect_to,
        });
        let sql =
            "insert into longhouse.mail_outbox (kind, user_id, recipient, variables) values ($1, $2, $3, $4)";
        tx.execute(sql, &[&message.kind.name(), &message.user_id, &message.to, &variables]).await?;
        Ok(())
    }

    /// The link that confirms: `{external_url}/verify?token=…&type=…&redirect_to=…`.
    pub(crate) fn link(&self, kind: MailKind, token_hash: &str, redirect_to: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("token", token_hash).append_pair("type", kind.verification_type());
        query.append_pair("redirect_to", redirect_to);
        format!("{}/verify?{}", self.external_url, query.finish())
    }
}
