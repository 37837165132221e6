//! Appointments as an iCalendar feed (RFC 5545), for the calendars that people already look at.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use icalendar::{Calendar, Component, Event, EventLike, EventStatus};
use longhouse_server::ApiError;

use crate::Shared;
use crate::store::{CalendarEntry, calendar_entries};

/// Length of a token that `create_calendar_feed` makes.
const TOKEN: usize = 64;

/// A calendar of appointments, by its secret address.
///
/// The token is made by the function `receptionist.create_calendar_feed` and is the only key: who knows the address reads
/// the calendar, until its row in `receptionist.calendar_feeds` is deleted.
#[utoipa::path(
    get, path = "/receptionist/v1/calendars/{token}", tag = "receptionist",
    params(("token" = String, Path, description = "The calendar's token, with or without `.ics`")),
    responses(
        (status = 200, description = "The last month's appointments and those to come", content_type = "text/calendar"),
        (status = 404, description = "No calendar has this address"),
    ),
)]
pub(super) async fn feed(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Response {
    let token = token.strip_suffix(".ics").unwrap_or(&token);
    let is_token = token.len() == TOKEN && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = if is_token { calendar_entries(&shared.database, token).await } else { Ok(None) };
    match found {
        Ok(Some((business, entries))) => (
            [
                (header::CONTENT_TYPE, "text/calendar; charset=utf-8"),
                (header::CACHE_CONTROL, "private, max-age=300"),
                (header::CONTENT_DISPOSITION, "inline; filename=\"appointments.ics\""),
            ],
            written(&business, &entries),
        )
            .into_response(),
        Ok(None) => ApiError::new(StatusCode::NOT_FOUND, "no_such_calendar", "no calendar has this address")
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "a calendar cannot be read");
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the calendar cannot be read now; try again",
            )
            .into_response()
        }
    }
}

fn written(business: &str, entries: &[CalendarEntry]) -> String {
    let mut calendar = Calendar::new();
    calendar.name(business).ttl(&chrono::Duration::minutes(15));
    for entry in entries {
        let mut event = Event::new();
        let with = entry.staff.as_ref().map(|name| format!(" with {name}")).unwrap_or_default();
        let details: Vec<&str> =
            [entry.phone.as_deref(), entry.notes.as_deref()].into_iter().flatten().collect();
        event
            .uid(&format!("{}@longhouse", entry.id))
            .summary(&format!("{}: {}{with}", entry.customer, entry.service))
            .starts(entry.starts_at)
            .ends(entry.ends_at)
            .timestamp(entry.updated_at)
            .created(entry.created_at)
            .last_modified(entry.updated_at)
            .sequence(entry.revision.unsigned_abs())
            .status(if entry.is_cancelled { EventStatus::Cancelled } else { EventStatus::Confirmed });
        if !details.is_empty() {
            event.description(&details.join("\n"));
        }
        calendar.push(event.done());
    }
    calendar.done().to_string()
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_calendar_is_what_other_programs_read() {
        let at = |hour| Utc.with_ymd_and_hms(2026, 3, 5, hour, 0, 0).unwrap();
        let entry = CalendarEntry {
            id: Uuid::nil(),
            service: "Haircut; wash, dry".into(),
            staff: Some("Ana".into()),
            customer: "Zoë\r\nBEGIN:VALARM".into(),
            phone: Some("+12025550199".into()),
            notes: Some(
                "A note that is so long that it does not fit into one line of seventy-five bytes.".into(),
            ),
            is_cancelled: true,
            starts_at: at(15),
            ends_at: at(16),
            revision: 2,
            created_at: at(1),
            updated_at: at(2),
        };
        let text = written("Marigold, Ltd", &[entry]);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= 75 && !line.contains('\n')), "{text}");
        let whole = text.replace("\r\n ", "");
        for expected in [
            "DTSTART:20260305T150000Z",
            "DTEND:20260305T160000Z",
            "STATUS:CANCELLED",
            "SEQUENCE:2",
            "UID:00000000-0000-0000-0000-000000000000@longhouse",
            "DTSTAMP:20260305T020000Z",
        ] {
            assert!(whole.contains(&format!("\r\n{expected}\r\n")), "{expected} in {whole}");
        }
        assert!(whole.contains("Haircut\\; wash\\, dry with Ana"), "{whole}");
        assert!(!whole.contains("\r\nBEGIN:VALARM"), "nobody writes lines of their own: {whole}");
    }
}
