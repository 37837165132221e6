//! A connection that hears notifications.

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Notification};

use super::{DatabaseOptions, Error, parse, with_sources};

/// Notifications that wait for their reader; more are dropped, with a warning.
const WAITING: usize = 256;

/// One connection of its own with the notifications that it hears: issue `listen` on it. The receiver ends when the
/// connection is lost; dropping the client closes it.
///
/// # Errors
/// As [`super::Database::connect`].
pub async fn connect_listening(
    options: &DatabaseOptions,
) -> Result<(Client, mpsc::Receiver<Notification>), Error> {
    let (mut config, tls) = parse(options)?;
    // Nothing is sent for hours: without these a vanished server would go unnoticed.
    config.keepalives(true).keepalives_idle(std::time::Duration::from_secs(30));
    let (client, mut connection) =
        config.connect(tls).await.map_err(|e| Error::Unavailable(with_sources(&e)))?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(notification)) => {
                    if let Err(mpsc::error::TrySendError::Full(lost)) = sender.try_send(notification) {
                        tracing::warn!(channel = lost.channel(), "dropped a notification: too many wait");
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "listening connection ended");
                    break;
                }
            }
        }
    });
    Ok((client, receiver))
}
