//! Takes mail from the outbox until the server goes down.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use longhouse_database::Error;
use longhouse_server::Drain;
use tokio::time::{Instant, sleep};

use super::smtp::{DEADLINE, SendError};
use super::{Delivery, OutboxMail};
use crate::service::AuthService;
use crate::service::store::{self, OAuthClientState};

/// How often the outbox is looked at. Other servers write to it too.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Mails taken at once.
const BATCH: i64 = 20;
/// Mails sent at once.
const AT_ONCE: usize = 4;
/// How long a taken mail stays with its server: more than a batch can take.
const LEASE: Duration =
    Duration::from_secs(DEADLINE.as_secs() * (BATCH as u64).div_ceil(AT_ONCE as u64) + 60);
/// How often a mail is tried: for about half an hour, as links in it live for an hour.
const MOST_ATTEMPTS: i32 = 8;
/// First pause between two attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// Longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How long mail is kept after it was written.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often old rows are deleted and counted.
const TIDY: Duration = Duration::from_secs(60);

impl AuthService {
    /// Sends what is in the outbox, and deletes what is old, until draining begins; then finishes what it has begun.
    ///
    /// To be spawned once per process; several processes share the work.
    pub async fn run_mail(self, drain: Drain) {
        describe_metrics();
        let mut pause = PAUSE;
        let mut tidied: Option<Instant> = None;
        while !drain.is_draining() {
            let result = async {
                if tidied.is_none_or(|last| last.elapsed() >= TIDY) {
                    self.tidy().await?;
                    tidied = Some(Instant::now());
                }
                self.deliver_mail().await
            };
            match result.await {
                // There may be more.
                Ok(sent) if sent == usize::try_from(BATCH).unwrap_or(usize::MAX) => continue,
                Ok(_) => pause = PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "the mail outbox is out of reach; trying again");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::select! {
                () = drain.draining() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Sends the mails that are due now; returns how many were taken.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn deliver_mail(&self) -> Result<usize, Error> {
        let tx = store::begin(&self.database).await?;
        let mails = OutboxMail::claim(&tx, BATCH, LEASE).await?;
        tx.commit().await?;
        let taken = mails.len();
        let mut results = stream::iter(mails).map(|mail| self.deliver_one(mail)).buffer_unordered(AT_ONCE);
        let mut outcome = Ok(taken);
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                outcome = Err(error);
            }
        }
        outcome
    }

    async fn deliver_one(&self, mail: OutboxMail) -> Result<(), Error> {
        let sent = match &self.mailer.delivery {
            // Somebody took it and died, again and again.
            _ if mail.attempts > MOST_ATTEMPTS => {
                Err(SendError::Never("the server stopped while it sent this mail".to_owned()))
            }
            Delivery::Mailbox => Ok(()),
            Delivery::None => {
                let advice = "no mail server is configured: set mail.smtp_host, or switch on confirmation without mail";
                Err(SendError::Never(advice.to_owned()))
            }
            Delivery::Smtp(smtp) => match self.mailer.render(&mail.kind, &mail.variables) {
                Ok(rendered) => smtp.send(&mail, rendered).await,
                Err(error) => Err(SendError::Never(error.to_string())),
            },
        };
        let tx = store::begin(&self.database).await?;
        let outcome = match sent {
            Ok(()) => {
                OutboxMail::sent(&tx, mail.id, matches!(self.mailer.delivery, Delivery::Smtp(_))).await?;
                "sent"
            }
            Err(SendError::Later(error)) if mail.attempts < MOST_ATTEMPTS => {
                let wait = wait_before(mail.attempts, rand::random_range(0.0..1.0));
                tracing::warn!(
                    mail = mail.id,
                    kind = mail.kind,
                    attempt = mail.attempts,
                    error,
                    "a mail did not leave"
                );
                OutboxMail::failed(&tx, mail.id, &error, Some(wait)).await?;
                "retried"
            }
            Err(SendError::Later(error) | SendError::Never(error)) => {
                tracing::error!(mail = mail.id, kind = mail.kind, error, "a mail was given up");
                OutboxMail::failed(&tx, mail.id, &error, None).await?;
                "given_up"
            }
        };
        tx.commit().await?;
        metrics::counter!("longhouse_auth_mails_total", "outcome" => outcome).increment(1);
        Ok(())
    }

    async fn tidy(&self) -> Result<(), Error> {
        let tx = store::begin(&self.database).await?;
        OutboxMail::prune(&tx, KEEP).await?;
        OAuthClientState::prune(&tx).await?;
        let standing = OutboxMail::standing(&tx).await?;
        tx.commit().await?;
        metrics::gauge!("longhouse_auth_mails_waiting").set(standing.waiting as f64);
        metrics::gauge!("longhouse_auth_mails_given_up").set(standing.given_up as f64);
        Ok(())
    }
}

fn describe_metrics() {
    metrics::describe_counter!("longhouse_auth_mails_total", "Attempts to send a mail, by outcome.");
    metrics::describe_gauge!("longhouse_auth_mails_waiting", "Mails in the outbox that wait to be sent.");
    metrics::describe_gauge!(
        "longhouse_auth_mails_given_up",
        "Mails of the last week that could not be sent; longhouse.mail_outbox says why."
    );
    for outcome in ["sent", "retried", "given_up"] {
        metrics::counter!("longhouse_auth_mails_total", "outcome" => outcome).increment(0);
    }
}

/// How long to wait after that many attempts: doubled each time, half of it by chance (0 to 1), so that mails which
/// failed together do not come back together.
fn wait_before(attempts: i32, chance: f64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    let full = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    full.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, 1.0, 15.0)]
    #[case(1, 0.0, 7.5)]
    #[case(2, 1.0, 30.0)]
    #[case(5, 0.5, 180.0)]
    #[case(7, 1.0, 600.0)]
    #[case(1000, 1.0, 600.0)]
    fn waits_grow_and_scatter(#[case] attempts: i32, #[case] chance: f64, #[case] seconds: f64) {
        assert_eq!(wait_before(attempts, chance), Duration::from_secs_f64(seconds));
    }
}
