//! What the secret address of a calendar shows.

use chrono::{DateTime, Utc};
use longhouse_database::{Database, Error};
use uuid::Uuid;

use super::nobodys;

/// An appointment in a calendar.
#[derive(Debug, Clone)]
pub(crate) struct CalendarEntry {
    pub(crate) id: Uuid,
    pub(crate) service: String,
    pub(crate) staff: Option<String>,
    pub(crate) customer: String,
    pub(crate) phone: Option<String>,
    pub(crate) notes: Option<String>,
    pub(crate) is_cancelled: bool,
    pub(crate) starts_at: DateTime<Utc>,
    pub(crate) ends_at: DateTime<Utc>,
    /// Times it was changed.
    pub(crate) revision: i32,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// The business's name and its appointments; `None` where no calendar has this token.
pub(crate) async fn calendar_entries(
    database: &Database,
    token: &str,
) -> Result<Option<(String, Vec<CalendarEntry>)>, Error> {
    let rows = database
        .as_role(&nobodys())
        .query(
            "select id, tenant_name, service_name, staff_name, customer_name, customer_phone, notes,
                    coalesce(status = 'cancelled', false), starts_at, ends_at, revision, created_at, updated_at
             from receptionist.calendar_entries($1)",
            &[&token],
        )
        .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let entries = rows
        .iter()
        // A calendar without appointments is one row of its name alone.
        .filter_map(|row| {
            let id: Option<Uuid> = row.get(0);
            id.map(|id| CalendarEntry {
                id,
                service: row.get(2),
                staff: row.get(3),
                customer: row.get(4),
                phone: row.get(5),
                notes: row.get(6),
                is_cancelled: row.get(7),
                starts_at: row.get(8),
                ends_at: row.get(9),
                revision: row.get(10),
                created_at: row.get(11),
                updated_at: row.get(12),
            })
        })
        .collect();
    Ok(Some((first.get(1), entries)))
}
