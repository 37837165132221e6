//! Messages that the database sends to channels: rows of `realtime.messages`.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database, End, Error, ServiceReason, Step};
use tokio_util::sync::CancellationToken;

use super::pgoutput::{Cell, Relation, RowChange};
use super::{BroadcastPayload, DatabaseBroadcast};

/// Most messages of one replay.
pub const MOST_REPLAYED: u32 = 25;
/// How long messages are kept, and so how far back a replay can go.
pub const KEPT: Duration = Duration::from_secs(72 * 3600);

/// Between two looks at the partitions.
const MAINTAINED_EVERY: Duration = Duration::from_secs(3600);
/// Between two tries when that fails.
const TRIED_EVERY: Duration = Duration::from_secs(60);

/// Whether a table is that of messages.
pub(super) fn is_messages(relation: &Relation) -> bool {
    relation.schema == "realtime" && relation.table == "messages"
}

/// The message of an inserted row; none if the row is not a broadcast.
pub(super) fn broadcast(relation: &Relation, row: &RowChange) -> Option<DatabaseBroadcast> {
    let cells = row.new.as_ref()?;
    let cell = |name: &str| {
        let place = relation.columns.iter().position(|column| column.name == name)?;
        cells.get(place)
    };
    let text = |name: &str| cell(name).and_then(Cell::text);
    if text("extension") != Some("broadcast") {
        return None;
    }
    let payload = match (cell("payload"), text("binary_payload")) {
        (Some(Cell::Text(json)), _) => BroadcastPayload::Json(json.clone()),
        (_, Some(bytes)) => BroadcastPayload::Binary(hex::decode(bytes.strip_prefix("\\x")?).ok()?.into()),
        _ => return None,
    };
    Some(DatabaseBroadcast {
        id: text("id")?.to_owned(),
        topic: text("topic")?.to_owned(),
        event: text("event")?.to_owned(),
        payload,
        private: text("private") == Some("t"),
    })
}

/// The latest private messages of a channel that the holder of `claims` may read, oldest first: at most
/// [`MOST_REPLAYED`], none older than [`KEPT`]. Row-level security of `realtime.messages` decides, as when the channel
/// is joined.
///
/// # Errors
/// Why the database could not be asked.
pub async fn replay(
    database: &Database,
    claims: &Claims,
    topic: &str,
    since: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<DatabaseBroadcast>, Error> {
    const SQL: &str = "
        select id::text, event, payload::text, binary_payload from (
          select id, event, payload, binary_payload, inserted_at from realtime.messages
          where topic = $1 and private is true and extension = 'broadcast' and event is not null
            and inserted_at >= ($2::timestamptz at time zone 'utc')
            and inserted_at >= (now() at time zone 'utc') - interval '72 hours'
          order by inserted_at desc limit $3
        ) as latest order by inserted_at";
    let limit = i64::from(limit.clamp(1, MOST_REPLAYED));
    let step = Step { sql: SQL, params: &[&topic, &since, &limit] };
    let rows = database.as_role(claims).pipeline(&[("realtime.topic", topic)], &[step], End::Commit).await?;
    let messages = rows.into_iter().flatten().filter_map(|row| {
        let payload = match (row.get::<_, Option<String>>(2), row.get::<_, Option<Vec<u8>>>(3)) {
            (Some(json), _) => BroadcastPayload::Json(json.into()),
            (None, Some(bytes)) => BroadcastPayload::Binary(Bytes::from(bytes)),
            (None, None) => return None,
        };
        Some(DatabaseBroadcast {
            id: row.get(0),
            topic: topic.to_owned(),
            event: row.get(1),
            payload,
            private: true,
        })
    });
    Ok(messages.collect())
}

/// Makes partitions for the days to come and drops old ones, until it is stopped.
pub(super) async fn maintain(database: Database, stop: CancellationToken) {
    const SQL: &str = "select made, dropped from realtime.maintain_messages()";
    const EXISTS: &str = "select to_regprocedure('realtime.maintain_messages(integer, integer)') is not null";
    loop {
        let acting =
            database.as_service(ServiceReason::because("make and drop the partitions of realtime.messages"));
        let maintained = async {
            // A hosted project maintains its own.
            let ours = acting.query(EXISTS, &[]).await?.first().is_some_and(|row| row.get::<_, bool>(0));
            let rows = if ours { acting.query(SQL, &[]).await? } else { Vec::new() };
            Ok::<_, Error>(rows.first().map(|row| (row.get::<_, i32>(0), row.get::<_, i32>(1))))
        };
        let pause = match maintained.await {
            Ok(done) => {
                if let Some((made, dropped)) = done.filter(|done| *done != (0, 0)) {
                    tracing::info!(made, dropped, "partitions of realtime.messages");
                }
                metrics::gauge!("realtime_messages_maintained").set(1.0);
                MAINTAINED_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "the partitions of realtime.messages cannot be maintained; trying again");
                metrics::gauge!("realtime_messages_maintained").set(0.0);
                TRIED_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
