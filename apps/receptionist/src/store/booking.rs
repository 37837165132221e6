//! Services, free times and appointments, as the voice agent of a tenant.

use chrono::{NaiveDate, NaiveDateTime};
use longhouse_database::tokio_postgres::Row;
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::tokio_postgres::types::ToSql;
use longhouse_database::{Database, Error};
use uuid::Uuid;

use super::agent_of;

/// Something that can be booked.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) minutes: i32,
    /// As it is written; unset: it varies.
    pub(crate) price: Option<String>,
}

/// Somebody who works there.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    pub(crate) name: String,
}

/// A free time.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) staff: Option<String>,
    /// By the clock on the tenant's wall.
    pub(crate) at: NaiveDateTime,
}

/// An appointment as callers hear of it.
#[derive(Debug, Clone)]
pub(crate) struct Appointment {
    pub(crate) id: Uuid,
    pub(crate) service: String,
    pub(crate) staff: Option<String>,
    pub(crate) customer: String,
    /// By the clock on the tenant's wall.
    pub(crate) at: NaiveDateTime,
    /// What proves on another telephone that it is the caller's. Only told when it is made.
    pub(crate) code: Option<String>,
}

/// What is to be held.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) service: Uuid,
    pub(crate) person: Option<Uuid>,
    /// By the clock on the tenant's wall.
    pub(crate) at: NaiveDateTime,
    pub(crate) customer: &'a str,
    pub(crate) phone: Option<&'a str>,
}

/// Why something about an appointment does not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookingError {
    /// The rules of the business, or somebody was faster; the text can be told.
    #[error("{0}")]
    Refused(String),
    /// The caller has not shown that it is theirs.
    #[error("the caller has not proved that the appointment is theirs")]
    NotProved,
    /// The database.
    #[error(transparent)]
    Database(Error),
}

impl From<Error> for BookingError {
    fn from(error: Error) -> Self {
        match error.sql_state().map(SqlState::code) {
            // Raised by the functions of migration 0002.
            Some("PT409" | "PT429") => Self::Refused(error.refusal().unwrap_or_default().to_owned()),
            Some("42501") => Self::NotProved,
            _ => Self::Database(error),
        }
    }
}

const SERVICES: &str = "
    select id, name, duration_minutes, price::text from receptionist.services
    where tenant_id = $1 and active order by name limit 200";
const PEOPLE: &str =
    "select id, name from receptionist.staff where tenant_id = $1 and active order by name limit 200";
const FREE: &str = "
    select staff_name, local_start from receptionist.availability($1, $2, $3, $4, $5, $6)";
// `$1` is the tenant everywhere.
const HOLD: &str = "
    select h.id, h.service_name, s.name, h.customer_name, h.starts_at at time zone t.timezone, h.code
    from receptionist.tenants t
    cross join lateral receptionist.hold_appointment(
      $1, $2, $3::timestamp at time zone t.timezone, $4, $5, $6, 'voice', $7) h
    left join receptionist.staff s on s.id = h.staff_id
    where t.id = $1";
const CONFIRM: &str = "
    select c.id, c.service_name, s.name, c.customer_name, c.starts_at at time zone t.timezone, c.code
    from receptionist.tenants t
    cross join lateral receptionist.confirm_appointment(null, $2) c
    left join receptionist.staff s on s.id = c.staff_id
    where t.id = $1";
const CALLERS: &str = "
    select id, service_name, staff_name, customer_name, local_start, null::text
    from receptionist.caller_appointments($1, $2, $3)";
const RESCHEDULE: &str = "
    select c.id, c.service_name, s.name, c.customer_name, c.starts_at at time zone t.timezone, null::text
    from receptionist.tenants t
    cross join lateral receptionist.reschedule_appointment(
      $2, $3::timestamp at time zone t.timezone, $4, $5) c
    left join receptionist.staff s on s.id = c.staff_id
    where t.id = $1";
const CANCEL: &str = "
    select c.id, c.service_name, s.name, c.customer_name, c.starts_at at time zone t.timezone, null::text
    from receptionist.tenants t
    cross join lateral receptionist.cancel_appointment($2, $3, $4) c
    left join receptionist.staff s on s.id = c.staff_id
    where t.id = $1";

/// The appointments of one tenant, as its voice agent in one call.
#[derive(Debug, Clone)]
pub(crate) struct Bookings {
    pub(crate) database: Database,
    pub(crate) tenant: Uuid,
    pub(crate) call: Uuid,
}

impl Bookings {
    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.database.as_role(&agent_of(self.tenant)).query(sql, params).await
    }

    async fn one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Appointment, BookingError> {
        let rows = self.query(sql, params).await?;
        rows.first().map(appointment).ok_or(BookingError::NotProved)
    }

    /// What can be booked.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, Error> {
        let rows = self.query(SERVICES, &[&self.tenant]).await?;
        Ok(rows
            .iter()
            .map(|row| Service { id: row.get(0), name: row.get(1), minutes: row.get(2), price: row.get(3) })
            .collect())
    }

    /// Who works there.
    pub(crate) async fn people(&self) -> Result<Vec<Person>, Error> {
        let rows = self.query(PEOPLE, &[&self.tenant]).await?;
        Ok(rows.iter().map(|row| Person { id: row.get(0), name: row.get(1) }).collect())
    }

    /// Free times from a day on (today where none is given), the earliest first.
    pub(crate) async fn free(
        &self,
        service: Uuid,
        person: Option<Uuid>,
        from: Option<NaiveDate>,
        days: i32,
        most: i32,
    ) -> Result<Vec<Slot>, Error> {
        let rows = self.query(FREE, &[&self.tenant, &service, &from, &days, &person, &most]).await?;
        Ok(rows.iter().map(|row| Slot { staff: row.get(0), at: row.get(1) }).collect())
    }

    /// Keeps a time for some minutes.
    pub(crate) async fn hold(&self, wish: &Wish<'_>) -> Result<Appointment, BookingError> {
        let Wish { service, person, at, customer, phone } = wish;
        self.one(HOLD, &[&self.tenant, service, at, customer, phone, person, &self.call]).await
    }

    /// Books what this call holds.
    pub(crate) async fn confirm(&self) -> Result<Appointment, BookingError> {
        self.one(CONFIRM, &[&self.tenant, &self.call]).await
    }

    /// What the caller has booked: by the number that calls, or another with its code.
    pub(crate) async fn callers(
        &self,
        phone: Option<&str>,
        code: Option<&str>,
    ) -> Result<Vec<Appointment>, BookingError> {
        let rows = self.query(CALLERS, &[&self.call, &phone, &code]).await?;
        Ok(rows.iter().map(appointment).collect())
    }

    /// Moves an appointment of the caller's.
    pub(crate) async fn reschedule(
        &self,
        appointment: Uuid,
        at: NaiveDateTime,
        person: Option<Uuid>,
    ) -> Result<Appointment, BookingError> {
        self.one(RESCHEDULE, &[&self.tenant, &appointment, &at, &person, &self.call]).await
    }

    /// Gives an appointment of the caller's back.
    pub(crate) async fn cancel(
        &self,
        appointment: Uuid,
        why: Option<&str>,
    ) -> Result<Appointment, BookingError> {
        self.one(CANCEL, &[&self.tenant, &appointment, &why, &self.call]).await
    }
}

fn appointment(row: &Row) -> Appointment {
    Appointment {
        id: row.get(0),
        service: row.get(1),
        staff: row.get(2),
        customer: row.get(3),
        at: row.get(4),
        code: row.get(5),
    }
}
