//! Mail: put into the outbox in the transaction that makes it necessary, sent by a worker.
//!
//! An answer therefore never waits for a mail server, tells nothing about whether an account exists, and a crash
//! loses no mail.

mod go_template;
mod outbox;
mod plain_text;
mod smtp;
mod templates;
mod worker;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::AuthApiError;
use super::options::AuthOptions;
use super::store::Tx;
use smtp::Smtp;
use templates::Templates;

pub(crate) use outbox::OutboxMail;
pub(crate) use templates::Rendered;
pub use templates::TemplateError;

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
    pub(crate) const ALL: [Self; 6] = [
        Self::Confirmation,
        Self::Recovery,
        Self::MagicLink,
        Self::Invite,
        Self::EmailChange,
        Self::Reauthentication,
    ];

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

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

/// Writes mail into the outbox, and takes it from there.
pub(crate) struct Mailer {
    external_url: String,
    site_url: String,
    templates: Templates,
    delivery: Delivery,
}

/// Where mail goes.
enum Delivery {
    Smtp(Arc<Smtp>),
    /// The mailbox page shows it.
    Mailbox,
    /// Nowhere.
    None,
}

impl Mailer {
    pub(crate) fn new(options: &AuthOptions) -> Self {
        let templates = match options.templates.as_deref().map(Templates::load) {
            None => Templates::built_in(),
            Some(Ok(templates)) => templates,
            Some(Err(error)) => {
                tracing::error!(%error, "mail is written from the built-in templates");
                Templates::built_in()
            }
        };
        let delivery = match &options.smtp {
            Some(smtp) => Delivery::Smtp(Arc::new(Smtp::new(smtp))),
            None if options.mailbox => Delivery::Mailbox,
            None => Delivery::None,
        };
        Self {
            templates,
            delivery,
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

    /// A mail as it leaves, or left.
    pub(crate) fn render(&self, kind: &str, variables: &Value) -> Result<Rendered, TemplateError> {
        let kind = MailKind::of(kind).ok_or_else(|| TemplateError::Syntax {
            name: kind.to_owned(),
            what: "there is no such kind of mail".to_owned(),
        })?;
        self.templates.render(kind, variables)
    }
}

/// Checks an operator's mail templates.
///
/// # Errors
/// The first mistake.
pub fn check_mail_templates(folder: &std::path::Path) -> Result<(), TemplateError> {
    Templates::load(folder).map(drop)
}
