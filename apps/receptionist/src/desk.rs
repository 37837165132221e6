//! The voice session's application: admits streams, runs tools, keeps the record.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longhouse_database::Database;
use longhouse_voice::callers::twilio::frames::Start;
use longhouse_voice::session::{
    Admission, BoxFuture, Call, Ending, Entry, Host, Millis, ToolAnswer, ToolCall,
};
use uuid::Uuid;

use crate::domain::prompt;
use crate::domain::token::{Grant, StreamTokens};
use crate::store::booking::Bookings;
use crate::store::{self, Journal, OpenedCall};
use crate::tools::{self, Workplace};

/// Tries to store the end of a call while the database is away, and the pause between them: a minute in all.
const FINISH_TRIES: u32 = 1_200;
const FINISH_RETRY: Duration = Duration::from_millis(500);

/// Admits streams for every tenant of this deployment.
pub(crate) struct Desk {
    pub(crate) database: Database,
    pub(crate) tokens: StreamTokens,
    /// The account whose streams are ours, where it is known.
    pub(crate) account_sid: Option<String>,
    pub(crate) transcription_model: String,
}

impl Host for Desk {
    fn admit(&self, start: Start) -> BoxFuture<'static, Result<Admission, String>> {
        let database = self.database.clone();
        let model = self.transcription_model.clone();
        let foreign = self.account_sid.as_ref().is_some_and(|ours| *ours != start.account_sid);
        let grant = start
            .parameters
            .get("token")
            .and_then(|token| self.tokens.check(token, &start.call_sid, unix_now()));
        Box::pin(async move {
            if foreign {
                return Err("the stream belongs to another Twilio account".into());
            }
            let Some(grant) = grant else {
                return Err("the stream has no valid token for its call".into());
            };
            let opened = store::open_stream(&database, &start.call_sid, grant)
                .await
                .map_err(|error| error.to_string())?
                .ok_or("the stream's token has been used before")?;
            Ok(admission(database, opened, grant, &start.call_sid, &model))
        })
    }
}

fn admission(database: Database, opened: OpenedCall, grant: Grant, call_sid: &str, model: &str) -> Admission {
    tracing::info!(
        call = %opened.id, call_sid, tenant = %grant.tenant, stream = grant.epoch,
        resumed = opened.resumed.is_some(), "call answered"
    );
    let call = TenantCall {
        journal: Arc::new(Journal::start(database.clone(), opened.id, grant)),
        workplace: Workplace {
            bookings: Bookings { database: database.clone(), tenant: grant.tenant, call: opened.id },
            from_number: opened.from_number,
        },
        database,
        id: opened.id,
        grant,
    };
    Admission { agent: prompt::agent(&opened.agent, model), call: Arc::new(call), resumed: opened.resumed }
}

/// One call of one tenant.
struct TenantCall {
    database: Database,
    journal: Arc<Journal>,
    workplace: Workplace,
    id: Uuid,
    grant: Grant,
}

impl Call for TenantCall {
    fn run_tool(&self, call: ToolCall) -> BoxFuture<'static, ToolAnswer> {
        let workplace = self.workplace.clone();
        Box::pin(async move { tools::run(&workplace, &call).await })
    }

    fn record(&self, entry: Entry) {
        self.journal.record(entry);
    }

    fn finish(&self, ending: Ending, _at: Millis) -> BoxFuture<'static, ()> {
        let (database, journal) = (self.database.clone(), Arc::clone(&self.journal));
        let (id, grant) = (self.id, self.grant);
        // A task of its own: it goes on trying when the session has stopped waiting.
        let finishing = tokio::spawn(async move {
            journal.flush().await;
            for attempt in 1..=FINISH_TRIES {
                match store::finish_call(&database, id, grant, ending).await {
                    Ok(()) => return,
                    Err(error) if error.is_transient() && attempt < FINISH_TRIES => {
                        tracing::warn!(call = %id, %error, attempt, "the end of the call is not stored yet");
                        tokio::time::sleep(FINISH_RETRY).await;
                    }
                    // The sweep closes the row; the transcript is complete.
                    Err(error) => {
                        tracing::error!(call = %id, %error, "the end of the call is not stored");
                        return;
                    }
                }
            }
        });
        Box::pin(async move {
            if let Err(error) = finishing.await {
                tracing::error!(call = %id, %error, "storing the end of a call failed");
            }
        })
    }
}

/// Unix time in seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
