//! A business to try things with, on databases that have none.

use longhouse_database::tokio_postgres::{Client, Error};

/// The demonstration's telephone number (of the range reserved for fiction).
pub const NUMBER: &str = "+12025550123";

const ENTRIES: &[(&str, &str)] = &[
    (
        "Prices",
        "A haircut costs forty-five dollars. A colour treatment starts at ninety dollars. A beard trim is twenty dollars.",
    ),
    (
        "Opening hours",
        "We are open Tuesday to Saturday from nine in the morning to six in the evening. We are closed on Sunday and Monday.",
    ),
    (
        "Location and parking",
        "We are at twelve Harbour Street, next to the library. Parking behind the house is free.",
    ),
    ("Cancelling an appointment", "Appointments can be cancelled free of charge until the day before."),
];

/// What can be booked there, when and with whom. Tuesday to Saturday, nine to six.
const APPOINTMENTS: &str = "
    insert into receptionist.booking_settings (tenant_id, granularity_minutes) values ('$tenant', 15);
    insert into receptionist.services (tenant_id, name, duration_minutes, price) values
      ('$tenant', 'Haircut', 45, 45), ('$tenant', 'Colour treatment', 120, null), ('$tenant', 'Beard trim', 15, 20);
    insert into receptionist.business_hours (tenant_id, dow, opens, closes)
      select '$tenant', day, '09:00', '18:00' from generate_series(2, 6) as day;
    insert into receptionist.staff (tenant_id, name, role) values
      ('$tenant', 'Ines', 'Stylist'), ('$tenant', 'Marco', 'Barber');
    insert into receptionist.staff_services (tenant_id, staff_id, service_id)
      select '$tenant', p.id, s.id from receptionist.staff p, receptionist.services s
      where p.tenant_id = '$tenant' and s.tenant_id = '$tenant'
        and (p.name, s.name) in (('Ines', 'Haircut'), ('Ines', 'Colour treatment'), ('Marco', 'Haircut'), ('Marco', 'Beard trim'));";

/// Makes the demonstration business if the database has no tenant at all. Acts as the schema's owner, because
/// setting up a system is nobody's request. Returns its number if the demonstration exists.
///
/// # Errors
/// When the database refuses.
pub async fn ensure(owner: &mut Client) -> Result<Option<&'static str>, Error> {
    let transaction = owner.transaction().await?;
    // One server at a time, so that two starting together do not make two.
    transaction.execute("select pg_advisory_xact_lock(hashtext('longhouse receptionist demo'))", &[]).await?;
    let row = transaction
        .query_one(
            "select exists (select from receptionist.tenants),
                    exists (select from receptionist.numbers where e164 = $1)",
            &[&NUMBER],
        )
        .await?;
    let (any_tenant, demo): (bool, bool) = (row.get(0), row.get(1));
    if any_tenant {
        return Ok(demo.then_some(NUMBER));
    }
    let tenant: uuid::Uuid = transaction
        .query_one(
            "insert into receptionist.tenants (name, slug) values ('Marigold Hair Studio', 'marigold-demo') returning id",
            &[],
        )
        .await?
        .get(0);
    transaction
        .execute("insert into receptionist.numbers (e164, tenant_id) values ($1, $2)", &[&NUMBER, &tenant])
        .await?;
    transaction
        .execute(
            "insert into receptionist.agents (tenant_id, greeting, instructions)
             values ($1, 'Hello, this is Marigold Hair Studio. How can I help you?', '')",
            &[&tenant],
        )
        .await?;
    for (title, content) in ENTRIES {
        transaction
            .execute(
                "insert into receptionist.knowledge (tenant_id, title, content) values ($1, $2, $3)",
                &[&tenant, title, content],
            )
            .await?;
    }
    transaction.batch_execute(&APPOINTMENTS.replace("$tenant", &tenant.to_string())).await?;
    transaction.commit().await?;
    Ok(Some(NUMBER))
}
