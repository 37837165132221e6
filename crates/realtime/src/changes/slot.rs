//! The replication slot: where reading goes on after a restart, and what keeps the database from forgetting.

use longhouse_database::replication::{Replication, ReplicationStream};
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Claims, Database, DatabaseOptions, Error, quote_ident};

/// Rows of `realtime.messages`.
const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// Why changes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    /// The server does not log what is needed.
    #[error(
        "the database runs with wal_level = {0}, which does not tell of changes: set wal_level = logical in \
         postgresql.conf (or `alter system set wal_level = logical`) and restart Postgres"
    )]
    NotLogical(String),
    /// The publication does not exist, and the login may not make it.
    #[error(
        "the publication {0} does not exist: run `create publication {0}`, and `alter publication {0} add table …` \
         for the tables whose changes clients may follow"
    )]
    NoPublication(String),
    /// The login lacks the attribute.
    #[error(
        "the database login may not replicate: run `alter role … replication` for the login of the database URL \
         (on RDS: grant rds_replication to it), and connect directly, not through a pooler"
    )]
    NotAllowed,
    /// All slots or senders are taken.
    #[error(
        "the database has no room for another replication slot: raise max_replication_slots and max_wal_senders ({0})"
    )]
    Full(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Error),
}

impl From<SlotError> for String {
    fn from(error: SlotError) -> Self {
        error.to_string()
    }
}

/// What the database says of our slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotState {
    /// Its name, made of the database's number: slots belong to the whole cluster.
    pub(super) name: String,
    pub(super) exists: bool,
    /// Somebody reads from it.
    pub(super) active: bool,
    /// It tells of whatever is committed from now on; not yet while it is being made.
    pub(super) ready: bool,
    /// The database has given up keeping what it needs.
    pub(super) lost: bool,
    /// Bytes of log that it holds back.
    pub(super) lag: u64,
    wal_level: String,
    /// Whether the database bounds what slots hold back.
    bounded: bool,
    publications: Vec<String>,
}

impl SlotState {
    /// Asks the database.
    pub(super) async fn read(database: &Database, publication: &str) -> Result<Self, Error> {
        const SQL: &str = "
            select 'longhouse_realtime_' || d.oid as name, s.slot_name is not null, coalesce(s.active, false),
              coalesce(s.wal_status = 'lost', false),
              coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::int8,
              current_setting('wal_level'),
              coalesce((select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'), -1) >= 0,
              array(select pubname::text from pg_publication where pubname = any ($1)),
              s.confirmed_flush_lsn is not null
            from pg_database d
            left join pg_replication_slots s on s.slot_name = 'longhouse_realtime_' || d.oid
            where d.datname = current_database()";
        let names = [publication, MESSAGES_PUBLICATION];
        let anon = Claims::anon();
        let rows = database.as_role(&anon).query(SQL, &[&&names[..]]).await?;
        Ok(rows.first().map_or_else(Self::default, |row| Self {
            name: row.get(0),
            exists: row.get(1),
            active: row.get(2),
            lost: row.get(3),
            lag: row.get::<_, i64>(4).try_into().unwrap_or(0),
            wal_level: row.get(5),
            bounded: row.get(6),
            publications: row.get(7),
            ready: row.get(8),
        }))
    }

    /// Whether changes can be read at all.
    pub(super) fn check(&self) -> Result<(), SlotError> {
        match self.wal_level.as_str() {
            "logical" => Ok(()),
            other => Err(SlotError::NotLogical(other.to_owned())),
        }
    }
}

/// A connection that is about to stream.
#[derive(Debug)]
pub(super) struct Slot {
    link: Replication,
    /// Which log positions are of.
    pub(super) epoch: u64,
    /// Whether the slot is new: what was committed before is not told.
    pub(super) fresh: bool,
    name: String,
    publications: Vec<String>,
}

impl Slot {
    /// Connects, and makes what is missing. None: another server reads from the slot. `discard`: begin anew, whatever
    /// the slot holds. (Commands of replication, unlike SQL, must be in capitals.)
    pub(super) async fn open(
        options: &DatabaseOptions,
        state: &SlotState,
        publication: &str,
        discard: bool,
    ) -> Result<Option<Self>, SlotError> {
        let mut link = Replication::connect(options).await.map_err(explain)?;
        let mut publications = state.publications.clone();
        if !publications.iter().any(|name| name == publication) {
            let made = link.query(&format!("create publication {}", quote_ident(publication))).await;
            if made.is_err() {
                return Err(SlotError::NoPublication(publication.to_owned()));
            }
            publications.push(publication.to_owned());
        }
        let system = link.query("IDENTIFY_SYSTEM").await.map_err(explain)?;
        let field = |index: usize| system.first().and_then(|row| row.get(index)?.clone()).unwrap_or_default();
        let epoch = hash(&[&field(0), &field(1), &state.name]);
        let name = quote_ident(&state.name);
        if state.exists && (discard || state.lost) {
            match link.query(&format!("DROP_REPLICATION_SLOT {name}")).await {
                Ok(_) => {}
                Err(error) if error.sql_state() == Some(&SqlState::OBJECT_IN_USE) => return Ok(None),
                Err(error) if error.sql_state() == Some(&SqlState::UNDEFINED_OBJECT) => {}
                Err(error) => return Err(explain(error)),
            }
        }
        let fresh = !state.exists || discard || state.lost;
        if fresh {
            // Without a bound a slot that nobody reads from fills the disk. Such a server gets one that ends with the
            // connection.
            let temporary = if state.bounded { "" } else { "TEMPORARY " };
            let create =
                format!("CREATE_REPLICATION_SLOT {name} {temporary}LOGICAL pgoutput NOEXPORT_SNAPSHOT");
            match link.query(&create).await {
                Ok(_) => {}
                Err(error) if error.sql_state() == Some(&SqlState::DUPLICATE_OBJECT) => return Ok(None),
                Err(error) => return Err(explain(error)),
            }
            if !state.bounded {
                tracing::warn!(
                    "max_slot_wal_keep_size is not set: changes during a restart are not told; set it (say, 4GB) so \
                     that a durable slot cannot fill the disk"
                );
            }
        }
        Ok(Some(Self { link, epoch, fresh, name, publications }))
    }

    /// Begins to stream. None: another server reads from the slot.
    pub(super) async fn start(self) -> Result<Option<ReplicationStream>, SlotError> {
        let publications: Vec<_> = self.publications.iter().map(|name| quote_ident(name)).collect();
        let publications = publications.join(",").replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names '{publications}')",
            self.name
        );
        match self.link.start(&command).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.sql_state() == Some(&SqlState::OBJECT_IN_USE) => Ok(None),
            Err(error) => Err(explain(error)),
        }
    }
}

/// Errors that a person has to do something about.
pub(super) fn explain(error: Error) -> SlotError {
    match error.sql_state() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SlotError::NotAllowed,
        Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED | &SqlState::TOO_MANY_CONNECTIONS) => {
            SlotError::Full(error.to_string())
        }
        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) if error.to_string().contains("wal_level") => {
            SlotError::NotLogical("replica".into())
        }
        // The login itself was refused.
        _ if ["permission denied to start WAL sender", "must be superuser or replication role"]
            .into_iter()
            .any(|refusal| error.to_string().contains(refusal)) =>
        {
            SlotError::NotAllowed
        }
        _ => SlotError::Database(error),
    }
}

/// FNV-1a: the same on every server, whatever it was built with.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
