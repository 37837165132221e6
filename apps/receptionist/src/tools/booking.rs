//! Appointments: asked for, held, booked, moved and given back during a call.
//!
//! A booking takes two calls of tools: one holds the time and says what the caller is to hear, the other books it once
//! the caller has agreed. What is read back is what is stored, not what the model understood.

use chrono::{NaiveDate, NaiveDateTime};
use longhouse_voice::callers::twilio::number::normalise;
use longhouse_voice::session::ToolCall;
use longhouse_voice::upstreams::realtime::ToolSpec;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Workplace, parameters, text};
use crate::domain::naming::{Meant, meant};
use crate::domain::spoken::{digits, spoken};
use crate::store::booking::{Appointment, BookingError, Bookings, Person, Service, Slot, Wish};

/// Times that are offered at once: more are not remembered.
const OFFERED: usize = 6;
/// Days that are looked at where no day is asked for, and behind a day that is full.
const WEEK: i32 = 7;
const FORTNIGHT: i32 = 14;
/// Free times that are read to choose from.
const READ: i32 = 200;

pub(super) fn specs() -> Vec<ToolSpec> {
    let service = json!({ "type": "string", "description": "What the caller wants to have done" });
    let staff = json!({ "type": "string", "description": "With whom, if the caller says so" });
    let start =
        json!({ "type": "string", "description": "A start_time that was offered, such as 2026-03-05T15:30" });
    let appointment = json!({ "type": "string", "description": "The appointment_id from an earlier answer" });
    let phone =
        json!({ "type": "string", "description": "A telephone number, if it is not the one calling" });
    [
        (
            "check_availability",
            "Finds free times. Always before offering one.",
            parameters(
                json!({
                    "service_name": service,
                    "date": { "type": "string", "description": "A day, as 2026-03-05; without it the next days" },
                    "staff_name": staff,
                }),
                &["service_name"],
            ),
        ),
        (
            "book_appointment",
            "Holds a free time for the caller. Read back what it returns; it is not booked before confirm_appointment.",
            parameters(
                json!({
                    "customer_name": { "type": "string", "description": "Whose appointment it is" },
                    "service_name": service,
                    "start_time": start,
                    "customer_phone": phone,
                    "staff_name": staff,
                }),
                &["customer_name", "service_name", "start_time"],
            ),
        ),
        (
            "confirm_appointment",
            "Books the time that is held, after the caller has agreed to what was read back.",
            parameters(json!({}), &[]),
        ),
        (
            "find_appointments",
            "Finds the caller's appointments, to move or cancel one. From another telephone it takes the number they \
             booked with and the six-digit code that they were told.",
            parameters(json!({ "customer_phone": phone, "code": { "type": "string" } }), &[]),
        ),
        (
            "reschedule_appointment",
            "Moves an appointment from find_appointments to another free time, after the caller has agreed to it.",
            parameters(
                json!({ "appointment_id": appointment, "start_time": start, "staff_name": staff }),
                &["appointment_id", "start_time"],
            ),
        ),
        (
            "cancel_appointment",
            "Cancels an appointment from find_appointments, after the caller has agreed to it.",
            parameters(
                json!({ "appointment_id": appointment, "reason": { "type": "string" } }),
                &["appointment_id"],
            ),
        ),
    ]
    .into_iter()
    .map(|(name, description, parameters)| ToolSpec { name, description: description.into(), parameters })
    .collect()
}

/// Runs a tool of this module; `None` for any other.
pub(super) async fn run(workplace: &Workplace, call: &ToolCall) -> Option<Value> {
    let bookings = &workplace.bookings;
    let result = match call.name.as_str() {
        "check_availability" => check(bookings, call).await,
        "book_appointment" => book(workplace, call).await,
        "confirm_appointment" => confirm(bookings).await,
        "find_appointments" => find(bookings, call).await,
        "reschedule_appointment" => reschedule(bookings, call).await,
        "cancel_appointment" => cancel(bookings, call).await,
        _ => return None,
    };
    Some(result.unwrap_or_else(|problem| match problem {
        Problem::Explained(output) => output,
        Problem::Booking(BookingError::Refused(why)) => json!({
            "done": false, "reason": why, "next": "Say so, and look for another time with check_availability.",
        }),
        Problem::Booking(BookingError::NotProved) => json!({
            "done": false,
            "next": "You may not change that appointment. Call find_appointments first; from another telephone ask for \
                     the number it was booked with and its code.",
        }),
        Problem::Booking(BookingError::Database(error)) => {
            tracing::error!(tenant = %bookings.tenant, tool = call.name, %error, "a booking tool failed");
            json!({ "error": "that failed; nothing was changed. Apologise and offer to take a message" })
        }
    }))
}

enum Problem {
    /// What the model is told.
    Explained(Value),
    Booking(BookingError),
}

impl From<BookingError> for Problem {
    fn from(error: BookingError) -> Self {
        Self::Booking(error)
    }
}

impl From<longhouse_database::Error> for Problem {
    fn from(error: longhouse_database::Error) -> Self {
        Self::Booking(error.into())
    }
}

fn missing(what: &str) -> Problem {
    Problem::Explained(
        json!({ "error": format!("`{what}` is missing or not in the form that the tool names") }),
    )
}

async fn check(bookings: &Bookings, call: &ToolCall) -> Result<Value, Problem> {
    let (service, person) = wanted(bookings, call).await?;
    let day = match text(call, "date") {
        None => None,
        Some(date) => Some(date.parse::<NaiveDate>().map_err(|_| missing("date"))?),
    };
    let person = person.map(|person| person.id);
    let days = if day.is_some() { 1 } else { WEEK };
    let slots = bookings.free(service.id, person, day, days, READ).await?;
    if !slots.is_empty() {
        let about = json!({ "service": service.name, "minutes": service.minutes, "price": service.price });
        return Ok(json!({ "found": true, "about": about, "slots": offer(&slots, person.is_some()) }));
    }
    let later = bookings.free(service.id, person, day, FORTNIGHT, READ).await?;
    Ok(json!({
        "found": false,
        "next_free": offer(&later, person.is_some()),
        "next": "Say that nothing is free then, and offer what is.",
    }))
}

/// A few of the times, spread over all there are, each said once.
fn offer(slots: &[Slot], with_whom: bool) -> Vec<Value> {
    let mut distinct: Vec<&Slot> = slots.iter().collect();
    distinct.dedup_by_key(|slot| slot.at);
    let step = distinct.len().div_ceil(OFFERED).max(1);
    distinct
        .into_iter()
        .step_by(step)
        .map(|slot| {
            let mut offered = json!({ "start_time": stamp(slot.at), "spoken": spoken(slot.at) });
            if with_whom {
                offered["staff"] = json!(slot.staff);
            }
            offered
        })
        .collect()
}

async fn book(workplace: &Workplace, call: &ToolCall) -> Result<Value, Problem> {
    let customer = text(call, "customer_name").ok_or_else(|| missing("customer_name"))?;
    let at = start_time(call)?;
    let phone = match text(call, "customer_phone") {
        Some(said) => Some(normalise(&said).ok_or_else(|| missing("customer_phone"))?),
        None => workplace.from_number.as_deref().and_then(normalise),
    };
    let (service, person) = wanted(&workplace.bookings, call).await?;
    let customer: String = customer.chars().take(200).collect();
    let wish = Wish {
        service: service.id,
        person: person.map(|person| person.id),
        at,
        customer: &customer,
        phone: phone.as_deref(),
    };
    let held = workplace.bookings.hold(&wish).await?;
    Ok(json!({
        "held": true,
        "say": described(&held),
        "price": service.price,
        "next": "Read this back and ask whether it is right; then call confirm_appointment.",
    }))
}

async fn confirm(bookings: &Bookings) -> Result<Value, Problem> {
    let booked = bookings.confirm().await?;
    Ok(json!({
        "booked": true,
        "say": described(&booked),
        "code": booked.code.as_deref().map(digits),
        "next": "Say that it is booked, and tell the code: it is asked for when somebody calls from another telephone.",
    }))
}

async fn find(bookings: &Bookings, call: &ToolCall) -> Result<Value, Problem> {
    let phone = match text(call, "customer_phone") {
        Some(said) => Some(normalise(&said).ok_or_else(|| missing("customer_phone"))?),
        None => None,
    };
    // "4 0 7, 1 1 2" is how a code is heard.
    let code = text(call, "code").map(|code| code.chars().filter(char::is_ascii_digit).collect::<String>());
    let found = bookings.callers(phone.as_deref(), code.as_deref()).await?;
    if found.is_empty() {
        return Ok(json!({
            "found": false,
            "next": "Say that you find none under this number. If they booked with another, ask for it and for the code.",
        }));
    }
    let found: Vec<Value> = found
        .iter()
        .map(|appointment| json!({ "appointment_id": appointment.id, "say": described(appointment) }))
        .collect();
    Ok(json!({ "found": true, "appointments": found }))
}

async fn reschedule(bookings: &Bookings, call: &ToolCall) -> Result<Value, Problem> {
    let (id, at) = (appointment_id(call)?, start_time(call)?);
    let person = match text(call, "staff_name") {
        Some(said) => Some(person(bookings, &said).await?.id),
        None => None,
    };
    let moved = bookings.reschedule(id, at, person).await?;
    Ok(json!({ "moved": true, "say": described(&moved) }))
}

async fn cancel(bookings: &Bookings, call: &ToolCall) -> Result<Value, Problem> {
    let reason: Option<String> = text(call, "reason").map(|reason| reason.chars().take(500).collect());
    let cancelled = bookings.cancel(appointment_id(call)?, reason.as_deref()).await?;
    Ok(json!({ "cancelled": true, "say": described(&cancelled) }))
}

async fn wanted(bookings: &Bookings, call: &ToolCall) -> Result<(Service, Option<Person>), Problem> {
    let said = text(call, "service_name").ok_or_else(|| missing("service_name"))?;
    let mut services = bookings.services().await?;
    let service = match meant(&said, services.iter().map(|service| service.name.as_str())) {
        Meant::One(index) => services.swap_remove(index),
        Meant::Several(found) => {
            return Err(ask("service", found.iter().map(|&index| services[index].name.as_str())));
        }
        Meant::Nothing => return Err(ask("service", services.iter().map(|service| service.name.as_str()))),
    };
    let person = match text(call, "staff_name") {
        Some(said) => Some(person(bookings, &said).await?),
        None => None,
    };
    Ok((service, person))
}

async fn person(bookings: &Bookings, said: &str) -> Result<Person, Problem> {
    let mut people = bookings.people().await?;
    match meant(said, people.iter().map(|person| person.name.as_str())) {
        Meant::One(index) => Ok(people.swap_remove(index)),
        Meant::Several(found) => Err(ask("person", found.iter().map(|&index| people[index].name.as_str()))),
        Meant::Nothing => Err(ask("person", people.iter().map(|person| person.name.as_str()))),
    }
}

fn ask<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Problem {
    let names: Vec<&str> = names.take(20).collect();
    Problem::Explained(json!({
        "error": format!("which {what} is meant is not clear"),
        "choices": names,
        "next": "Ask the caller which of these it is. If none fits, say that it is not offered.",
    }))
}

fn start_time(call: &ToolCall) -> Result<NaiveDateTime, Problem> {
    let said = text(call, "start_time").ok_or_else(|| missing("start_time"))?;
    ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(&said, form).ok())
        .ok_or_else(|| missing("start_time"))
}

fn appointment_id(call: &ToolCall) -> Result<Uuid, Problem> {
    text(call, "appointment_id").and_then(|id| id.parse().ok()).ok_or_else(|| missing("appointment_id"))
}

fn stamp(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%dT%H:%M").to_string()
}

fn described(appointment: &Appointment) -> String {
    let Appointment { service, staff, customer, at, .. } = appointment;
    let with = staff.as_ref().map(|name| format!(" with {name}")).unwrap_or_default();
    format!("{service}{with} for {customer} on {}", spoken(*at))
}
