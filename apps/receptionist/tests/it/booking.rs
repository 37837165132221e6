//! T10: appointments. Nobody is booked twice, whatever the clocks do; callers touch only what is theirs.

use std::time::Duration;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use longhouse_database::tokio_postgres::Row;
use longhouse_database::tokio_postgres::types::ToSql;
use longhouse_database::{Claims, Database, Error};
use longhouse_emulators::openai::{Match, Rule, Then, ToolCall};
use longhouse_emulators::twilio::{Caller, Step};
use longhouse_receptionist::AGENT_ROLE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regex::Regex;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::{Setup, TestApp, reply, say};

/// The demonstration's business with one service and nothing else that can be booked.
struct Salon {
    app: TestApp,
    tenant: Uuid,
    service: Uuid,
}

impl Salon {
    async fn new() -> Self {
        let app = TestApp::with(Setup::quick()).await;
        let tenant: Uuid =
            app.owner.query_one("select id from receptionist.tenants", &[]).await.unwrap().get(0);
        let service = Uuid::new_v4();
        app.owner
            .batch_execute(&format!(
                "delete from receptionist.services; delete from receptionist.staff;
                 delete from receptionist.business_hours;
                 update receptionist.booking_settings set lead_minutes = 0, granularity_minutes = 30, horizon_days = 730;
                 insert into receptionist.services (id, tenant_id, name, duration_minutes)
                   values ('{service}', '{tenant}', 'Cut', 60);
                 insert into receptionist.business_hours
                   select '{tenant}', day, '09:00', '17:00' from generate_series(0, 6) as day"
            ))
            .await
            .unwrap();
        Self { app, tenant, service }
    }

    async fn person(&self, name: &str) -> Uuid {
        let sql = "insert into receptionist.staff (tenant_id, name) values ($1, $2) returning id";
        self.app.owner.query_one(sql, &[&self.tenant, &name]).await.unwrap().get(0)
    }

    async fn user(&self, role: &str) -> Claims {
        let id = Uuid::new_v4();
        self.app
            .owner
            .batch_execute(&format!(
                "insert into auth.users (id) values ('{id}');
                 insert into receptionist.memberships values ('{}', '{id}', '{role}')",
                self.tenant
            ))
            .await
            .unwrap();
        Claims::user(id)
    }

    fn line(&self) -> Claims {
        line(self.tenant)
    }

    async fn call(&self, from: &str) -> Uuid {
        let sql = "insert into receptionist.calls (tenant_id, call_sid, from_number, to_number)
                   values ($1, $2, $3, '+12025550123') returning id";
        let sid = format!("CA{}", Uuid::new_v4().simple());
        self.app.owner.query_one(sql, &[&self.tenant, &sid, &from]).await.unwrap().get(0)
    }

    /// Free times of the service from a day on.
    async fn free(&self, from: NaiveDate, days: i32) -> Vec<(Option<Uuid>, DateTime<Utc>)> {
        self.app
            .database
            .as_role(&self.line())
            .query(
                "select staff_id, starts_at from receptionist.availability($1, $2, $3, $4, null, 5000)",
                &[&self.tenant, &self.service, &from, &days],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    async fn first_free(&self) -> DateTime<Utc> {
        self.free(Utc::now().date_naive() + Days::new(3), 7).await[0].1
    }

    async fn book(&self, claims: &Claims, at: DateTime<Utc>, phone: Option<&str>) -> Result<Uuid, Error> {
        book(&self.app.database, claims, (self.tenant, self.service), at, phone).await
    }
}

fn line(tenant: Uuid) -> Claims {
    let mut claims = Map::new();
    claims.insert("tenant_id".into(), Value::from(tenant.to_string()));
    Claims::agent(AGENT_ROLE, claims)
}

async fn book(
    database: &Database,
    claims: &Claims,
    (tenant, service): (Uuid, Uuid),
    at: DateTime<Utc>,
    phone: Option<&str>,
) -> Result<Uuid, Error> {
    let hold = "select (receptionist.hold_appointment($1, $2, $3, 'Kim', $4)).id";
    let rows = patient(database, claims, hold, &[&tenant, &service, &at, &phone]).await?;
    let id: Uuid = rows[0].get(0);
    patient(database, claims, "select (receptionist.confirm_appointment($1)).id", &[&id]).await?;
    Ok(id)
}

/// A statement that waits for its turn, however many others do.
async fn patient(
    database: &Database,
    claims: &Claims,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    loop {
        match database.as_role(claims).query(sql, params).await {
            Err(Error::Busy(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => return other,
        }
    }
}

fn code(error: &Error) -> &str {
    error.sql_state().map_or("", |state| state.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bookings_of_one_time_end_with_one_for_each_person() {
    for people in [0, 3] {
        let salon = Salon::new().await;
        for person in 0..people {
            salon.person(&format!("Person {person}")).await;
        }
        let at = salon.first_free().await;
        let mut callers = JoinSet::new();
        for _ in 0..1_000 {
            let (database, claims) = (salon.app.database.clone(), salon.line());
            let what = (salon.tenant, salon.service);
            callers.spawn(async move { book(&database, &claims, what, at, None).await });
        }
        let (mut booked, mut refused) = (0, 0);
        for result in callers.join_all().await {
            match result {
                Ok(_) => booked += 1,
                Err(error) if code(&error) == "PT409" => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((booked, refused), (people.max(1), 1_000 - people.max(1)));
        let stored: i64 = salon
            .app
            .owner
            .query_one("select count(*) from receptionist.appointments where status = 'booked'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(stored, i64::from(people.max(1)));
    }
}

/// What Postgres is asked, reckoned again with another library's time zones.
struct Oracle {
    zone: Tz,
    minutes: i64,
    granularity: i64,
    buffer: i64,
    /// (day of the week from Sunday, first minute, last minute).
    windows: Vec<(u32, i64, i64)>,
    closed: Vec<NaiveDate>,
    taken: Vec<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Oracle {
    /// A clock time that is skipped counts with the offset before, one that comes twice is the second.
    fn instant(&self, day: NaiveDate, minute: i64) -> DateTime<Utc> {
        let local = day.and_time(NaiveTime::MIN) + chrono::Duration::minutes(minute);
        match self.zone.from_local_datetime(&local) {
            chrono::LocalResult::Single(at) | chrono::LocalResult::Ambiguous(_, at) => at.to_utc(),
            chrono::LocalResult::None => {
                let before: NaiveDateTime = local - chrono::Duration::hours(4);
                let offset = self.zone.offset_from_local_datetime(&before).latest().unwrap().fix();
                (local - chrono::Duration::seconds(i64::from(offset.local_minus_utc()))).and_utc()
            }
        }
    }

    fn free(&self, day: NaiveDate) -> Vec<DateTime<Utc>> {
        let mut found = Vec::new();
        if self.closed.contains(&day) {
            return found;
        }
        let length = chrono::Duration::minutes(self.minutes);
        let blocked = chrono::Duration::minutes(self.minutes + self.buffer);
        for (_, first, last) in
            self.windows.iter().filter(|(dow, ..)| *dow == day.weekday().num_days_from_sunday())
        {
            let (mut at, end) = (self.instant(day, *first), self.instant(day, *last));
            while at + length <= end {
                if !self.taken.iter().any(|(from, to)| at < *to && *from < at + blocked) {
                    found.push(at);
                }
                at += chrono::Duration::minutes(self.granularity);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn clock(minute: i64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Days on which the zone's clocks are changed, of the next two years.
fn changes(zone: Tz, from: NaiveDate) -> Vec<NaiveDate> {
    let offset =
        |day: NaiveDate| zone.offset_from_utc_datetime(&day.and_time(NaiveTime::MIN)).fix().local_minus_utc();
    (0..700).map(|n| from + Days::new(n)).filter(|day| offset(*day) != offset(*day + Days::new(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn free_times_are_right_in_every_zone_and_when_clocks_change() {
    const SEED: u64 = 20_261_121;
    let mut random = StdRng::seed_from_u64(SEED);
    let salon = Salon::new().await;
    let person = salon.person("Ana").await;
    let today = Utc::now().date_naive();
    let mut checked = (0, 0);
    for zone in [
        "America/New_York",
        "Europe/Madrid",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/Santiago",
        "Pacific/Auckland",
        "UTC",
        "Africa/Casablanca",
    ] {
        let tz: Tz = zone.parse().unwrap();
        let changes = changes(tz, today + Days::new(2));
        for round in 0..8 {
            let around = match changes.is_empty() {
                true => today + Days::new(random.random_range(3..600)),
                false => changes[random.random_range(0..changes.len())],
            };
            let own_schedule = round % 2 == 0;
            let mut windows = Vec::new();
            for dow in 0..7 {
                let mut at = random.random_range(0..8) * 15;
                for _ in 0..random.random_range(1..3) {
                    let end = at + random.random_range(4..40) * 15;
                    if end <= 24 * 60 {
                        windows.push((dow, at, end));
                    }
                    at = end + 30;
                }
            }
            let mut oracle = Oracle {
                zone: tz,
                minutes: random.random_range(1..10) * 15,
                granularity: [5, 10, 15, 20, 30, 60][random.random_range(0..6)],
                buffer: [0, 0, 5, 15][random.random_range(0..4)],
                windows,
                closed: Vec::new(),
                taken: Vec::new(),
            };
            if random.random_bool(0.3) {
                oracle.closed.push(around + Days::new(random.random_range(0..3)));
            }
            let mut sql = format!(
                "delete from receptionist.appointments; delete from receptionist.business_hours;
                 delete from receptionist.staff_schedules; delete from receptionist.holidays;
                 delete from receptionist.staff_time_off;
                 update receptionist.tenants set timezone = '{zone}';
                 update receptionist.services set duration_minutes = {};
                 update receptionist.booking_settings set granularity_minutes = {}, buffer_minutes = {};",
                oracle.minutes, oracle.granularity, oracle.buffer
            );
            for (dow, first, last) in &oracle.windows {
                let (first, last) = (clock(*first), clock(*last));
                let (tenant, table) = (salon.tenant, "receptionist.business_hours");
                sql += &match own_schedule {
                    true => format!(
                        "insert into receptionist.staff_schedules values ('{tenant}', '{person}', {dow}, '{first}', '{last}');"
                    ),
                    false => format!("insert into {table} values ('{tenant}', {dow}, '{first}', '{last}');"),
                };
            }
            for day in &oracle.closed {
                sql += &match random.random_bool(0.5) {
                    true => format!(
                        "insert into receptionist.holidays values ('{}', '{day}', 'Feast');",
                        salon.tenant
                    ),
                    false => format!(
                        "insert into receptionist.staff_time_off (tenant_id, staff_id, first_day, last_day)
                         values ('{}', '{person}', '{day}', '{day}');",
                        salon.tenant
                    ),
                };
            }
            salon.app.owner.batch_execute(&sql).await.unwrap();

            // Book some, at random, as callers would: each must be taken, and then be gone.
            for _ in 0..4 {
                let free = salon.free(around - Days::new(1), 4).await;
                if free.is_empty() {
                    break;
                }
                let (_, at) = free[random.random_range(0..free.len())];
                salon.book(&salon.line(), at, None).await.unwrap();
                let until = at + chrono::Duration::minutes(oracle.minutes + oracle.buffer);
                oracle.taken.push((at, until));
            }
            let mut expected = Vec::new();
            for n in 0..4 {
                expected.extend(oracle.free(around - Days::new(1) + Days::new(n)));
            }
            let found: Vec<DateTime<Utc>> =
                salon.free(around - Days::new(1), 4).await.into_iter().map(|(_, at)| at).collect();
            assert_eq!(found, expected, "{zone}, around {around}, round {round}, seed {SEED}");
            checked.0 += 1;
            checked.1 += found.len();
        }
    }
    assert!(checked.0 == 64 && checked.1 > 2_000, "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_free_is_held_and_holds_end() {
    let salon = Salon::new().await;
    let (agent, at) = (salon.user("AGENT").await, salon.first_free().await);
    for (what, at) in [
        ("between the grid", at + chrono::Duration::minutes(7)),
        ("at night", at - chrono::Duration::hours(7)),
        ("in the past", at - chrono::Duration::days(30)),
        ("beyond the horizon", at + chrono::Duration::days(800)),
    ] {
        let refused = salon.book(&agent, at, None).await.expect_err(what);
        assert_eq!(code(&refused), "PT409", "{what}: {refused}");
    }
    let acting = salon.app.database.as_role(&agent);
    let hold = "select (receptionist.hold_appointment($1, $2, $3, 'Kim')).id";
    let held: Uuid = acting.query(hold, &[&salon.tenant, &salon.service, &at]).await.unwrap()[0].get(0);
    assert_eq!(code(&salon.book(&agent, at, None).await.unwrap_err()), "PT409", "it is held");
    salon
        .app
        .owner
        .batch_execute("update receptionist.appointments set held_until = now() - interval '1 second'")
        .await
        .unwrap();
    salon.book(&agent, at, None).await.expect("the hold has ended");
    let late = acting.query("select receptionist.confirm_appointment($1)", &[&held]).await.unwrap_err();
    assert_eq!(code(&late), "PT409");

    // What was cancelled does not come back over somebody else.
    let cancelled = salon.first_free().await;
    let first = salon.book(&agent, cancelled, None).await.unwrap();
    acting.query("select receptionist.cancel_appointment($1, 'ill')", &[&first]).await.unwrap();
    salon.book(&agent, cancelled, None).await.expect("it is free again");
    let back = "update receptionist.appointments set status = 'booked' where id = $1";
    assert_eq!(code(&acting.execute(back, &[&first]).await.unwrap_err()), "23P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_there_books_nothing() {
    let salon = Salon::new().await;
    let at = salon.first_free().await;
    let viewer = salon.user("VIEWER").await;
    let stranger = Uuid::new_v4();
    salon
        .app
        .owner
        .batch_execute(&format!("insert into auth.users (id) values ('{stranger}')"))
        .await
        .unwrap();
    // Projects may put what they like into tokens.
    let mut claims = Map::new();
    claims.insert("sub".into(), Value::from(stranger.to_string()));
    claims.insert("tenant_id".into(), Value::from(salon.tenant.to_string()));
    let pretender = Claims::new("authenticated", claims);
    for (who, claims) in [
        ("a viewer", &viewer),
        ("a stranger", &Claims::user(stranger)),
        ("a pretender", &pretender),
        ("anon", &Claims::anon()),
        ("the line of another", &line(Uuid::new_v4())),
    ] {
        assert_eq!(code(&salon.book(claims, at, None).await.expect_err(who)), "42501", "{who}");
    }
    let looking = salon.app.database.as_role(&pretender);
    let look = "select 1 from receptionist.availability($1, $2)";
    assert_eq!(code(&looking.query(look, &[&salon.tenant, &salon.service]).await.unwrap_err()), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_changes_only_what_they_prove_to_be_theirs() {
    let salon = Salon::new().await;
    let at = salon.first_free().await;
    let mine = salon.book(&salon.line(), at, Some("+12025550111")).await.unwrap();
    let secret: String = salon
        .app
        .owner
        .query_one("select code from receptionist.appointments where id = $1", &[&mine])
        .await
        .unwrap()
        .get(0);
    assert!(secret.len() == 6 && secret.bytes().all(|byte| byte.is_ascii_digit()), "{secret}");
    let claims = salon.line();
    let acting = salon.app.database.as_role(&claims);
    let find = "select id from receptionist.caller_appointments($1, $2, $3)";
    let cancel = "select receptionist.cancel_appointment($1, null, $2)";
    let nothing: Option<&str> = None;

    let own = salon.call("+12025550111").await;
    assert_eq!(
        code(&acting.query(cancel, &[&mine, &own]).await.unwrap_err()),
        "42501",
        "not before it is found"
    );
    assert_eq!(acting.query(find, &[&own, &nothing, &nothing]).await.unwrap()[0].get::<_, Uuid>(0), mine);

    let other = salon.call("+12025550122").await;
    assert!(acting.query(find, &[&other, &nothing, &nothing]).await.unwrap().is_empty());
    let phone = Some("+12025550111");
    let wrong = Some(if secret == "000000" { "000001" } else { "000000" });
    for _ in 0..4 {
        assert!(acting.query(find, &[&other, &phone, &wrong]).await.unwrap().is_empty());
        assert_eq!(code(&acting.query(cancel, &[&mine, &other]).await.unwrap_err()), "42501");
    }
    let right = Some(secret.as_str());
    assert_eq!(acting.query(find, &[&other, &phone, &right]).await.unwrap().len(), 1);
    assert_eq!(
        code(&acting.query(find, &[&other, &phone, &right]).await.unwrap_err()),
        "PT429",
        "five tries"
    );
    let guesser = salon.call("+12025550133").await;
    assert_eq!(code(&acting.query(cancel, &[&mine, &guesser]).await.unwrap_err()), "42501");
    // A proof of one call is none in another, nor for another tenant's agent.
    let foreign = line(Uuid::new_v4());
    let foreign = salon.app.database.as_role(&foreign);
    assert_eq!(code(&foreign.query(cancel, &[&mine, &own]).await.unwrap_err()), "42501");
    assert_eq!(code(&foreign.query(find, &[&own, &nothing, &nothing]).await.unwrap_err()), "42501");

    salon
        .app
        .owner
        .batch_execute("update receptionist.booking_settings set cancel_notice_hours = 720")
        .await
        .unwrap();
    assert_eq!(code(&acting.query(cancel, &[&mine, &own]).await.unwrap_err()), "PT409", "too late");
    salon
        .app
        .owner
        .batch_execute("update receptionist.booking_settings set cancel_notice_hours = 1")
        .await
        .unwrap();
    acting.query(cancel, &[&mine, &own]).await.unwrap();
    assert!(acting.query(find, &[&own, &nothing, &nothing]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_an_appointment_is_all_or_nothing() {
    let salon = Salon::new().await;
    let (ana, bea) = (salon.person("Ana").await, salon.person("Bea").await);
    let agent = salon.user("AGENT").await;
    let acting = salon.app.database.as_role(&agent);
    let at = salon.first_free().await;
    let later = at + chrono::Duration::hours(2);
    let hold = "select (receptionist.confirm_appointment((receptionist.hold_appointment($1, $2, $3, 'Kim', null, $4)).id)).id";
    let book = async |at: DateTime<Utc>, person: Uuid| -> Uuid {
        acting.query(hold, &[&salon.tenant, &salon.service, &at, &person]).await.unwrap()[0].get(0)
    };
    let moving = book(at, bea).await;
    book(later, ana).await;
    let reschedule = "select (r).staff_id, (r).starts_at, (r).revision from receptionist.reschedule_appointment($1, $2, $3) r";
    let nobody: Option<Uuid> = None;
    // Half an hour later overlaps with itself alone.
    let soon = at + chrono::Duration::minutes(30);
    let row = &acting.query(reschedule, &[&moving, &soon, &nobody]).await.unwrap()[0];
    assert_eq!((row.get(0), row.get(1), row.get(2)), (Some(bea), soon, 1));
    let refused = acting.query(reschedule, &[&moving, &later, &Some(ana)]).await.unwrap_err();
    assert_eq!(code(&refused), "PT409");
    let unmoved: DateTime<Utc> = salon
        .app
        .owner
        .query_one("select starts_at from receptionist.appointments where id = $1", &[&moving])
        .await
        .unwrap()
        .get(0);
    assert_eq!(unmoved, soon);
    let row = &acting.query(reschedule, &[&moving, &later, &nobody]).await.unwrap()[0];
    assert_eq!((row.get(0), row.get(1)), (Some(bea), later), "the person whom the customer knows");
    assert_eq!(salon.free(at.date_naive(), 1).await.iter().filter(|(_, free)| *free == at).count(), 2);
}

/// A model that asks for times, holds one, reads it back and books it: what is said is what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_an_appointment() {
    let salon = Salon::new().await;
    salon.person("Ana").await;
    let row = salon
        .app
        .owner
        .query_one(
            "select date_trunc('day', now() at time zone timezone) + interval '3 days 10 hours', timezone from receptionist.tenants",
            &[],
        )
        .await
        .unwrap();
    let (at, zone): (NaiveDateTime, String) = (row.get(0), row.get(1));
    let start_time = at.format("%Y-%m-%dT%H:%M").to_string();
    drop(salon);

    let tool = |name: &str, arguments: Value| ToolCall { name: name.into(), arguments };
    let after =
        |output: &str, then: Then| Rule { when: Match::ToolOutput(Regex::new(output).unwrap()), then };
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        after("\"booked\":true", Then::Say("It is booked.".into())),
        after("\"held\":true", Then::Say("Shall I book it?".into())),
        after(
            "\"slots\":",
            Then::CallTools(vec![tool(
                "book_appointment",
                json!({ "customer_name": "Kim", "service_name": "a haircut", "start_time": start_time }),
            )]),
        ),
        Rule::call(&["appointment"], vec![tool("check_availability", json!({ "service_name": "haircut" }))]),
        Rule::call(&["yes"], vec![tool("confirm_appointment", json!({}))]),
    ];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    app.owner.batch_execute("delete from receptionist.business_hours;
        insert into receptionist.business_hours select id, day, '09:00', '18:00' from receptionist.tenants, generate_series(0, 6) as day").await.unwrap();
    let call =
        app.quick_call(vec![say("I would like an appointment"), reply(), say("yes"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    assert_eq!(report.heard_text(), "Shall I book it? It is booked.");
    let row = app
        .owner
        .query_one(
            "select service_name, customer_name, customer_phone, starts_at at time zone $1, status::text, source::text,
                    call_id is not null from receptionist.appointments",
            &[&zone],
        )
        .await
        .unwrap();
    assert_eq!(
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6)),
        ("Haircut", "Kim", "+12025550199", at, "booked", "voice", true)
    );
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let outputs: Vec<String> = app
        .owner
        .query("select output::text from receptionist.tool_runs order by id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let said = format!("for Kim on {}", at.format("%A, %B"));
    assert!(outputs[1].contains(&said) && outputs[2].contains(&said), "{outputs:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_is_read_by_its_secret_address_alone() {
    let salon = Salon::new().await;
    let (agent, viewer) = (salon.user("AGENT").await, salon.user("VIEWER").await);
    let make = "select receptionist.create_calendar_feed($1)";
    let refused = salon.app.database.as_role(&viewer).query(make, &[&salon.tenant]).await.unwrap_err();
    assert_eq!(code(&refused), "42501");
    let acting = salon.app.database.as_role(&agent);
    let token: String = acting.query(make, &[&salon.tenant]).await.unwrap()[0].get(0);
    let fetch = async |token: &str| {
        let url = salon.app.url(&format!("/receptionist/v1/calendars/{token}.ics"));
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, empty) = fetch(&token).await;
    assert_eq!(status, 200);
    assert!(empty.contains("BEGIN:VCALENDAR") && !empty.contains("VEVENT"), "{empty}");

    let at = salon.first_free().await;
    let id = salon.book(&agent, at, Some("+12025550111")).await.unwrap();
    let (_, text) = fetch(&token).await;
    assert!(text.contains(&format!("UID:{id}@longhouse")), "{text}");
    assert!(text.contains(&format!("DTSTART:{}", at.format("%Y%m%dT%H%M%SZ"))), "{text}");
    acting.query("select receptionist.cancel_appointment($1)", &[&id]).await.unwrap();
    let (_, text) = fetch(&token).await;
    assert!(text.contains("STATUS:CANCELLED") && text.contains("SEQUENCE:1"), "{text}");

    for wrong in
        [token.replace(&token[..1], if &token[..1] == "a" { "b" } else { "a" }), "x".into(), "0".repeat(64)]
    {
        assert_eq!(fetch(&wrong).await.0, 404, "{wrong}");
    }
    let hashes = acting.query("select token_hash from receptionist.calendar_feeds", &[]).await.unwrap_err();
    assert_eq!(code(&hashes), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_does_not_exist_is_refused() {
    let salon = Salon::new().await;
    let manager = salon.user("MANAGER").await;
    let acting = salon.app.database.as_role(&manager);
    let refused =
        acting.execute("update receptionist.tenants set timezone = 'Mars/Olympus'", &[]).await.unwrap_err();
    assert_eq!(code(&refused), "23514");
    assert_eq!(
        acting.execute("update receptionist.tenants set timezone = 'Asia/Tokyo'", &[]).await.unwrap(),
        1
    );
}
