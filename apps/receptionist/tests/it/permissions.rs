//! T12, T15: who may do what to which table, against a table written by hand; and the ways around it.

use longhouse_database::{Claims, Database, Error, ServiceReason};
use longhouse_receptionist::AGENT_ROLE;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::harness::{NUMBER, Setup, TestApp};

/// Service, person and appointment of tenant A.
const THINGS: [Uuid; 3] = [
    Uuid::from_u128(0xa1_0000_0000_4000_8000_0000_0000_0001),
    Uuid::from_u128(0xa1_0000_0000_4000_8000_0000_0000_0002),
    Uuid::from_u128(0xa1_0000_0000_4000_8000_0000_0000_0003),
];

/// Who is who in the two businesses. The rows of tenant A are what everybody tries to reach.
struct World {
    app: TestApp,
    a: Uuid,
    b: Uuid,
    call: Uuid,
    viewer: Uuid,
    agent: Uuid,
    manager: Uuid,
    owner: Uuid,
    owner_of_b: Uuid,
    stranger: Uuid,
}

impl World {
    async fn new() -> Self {
        let app = TestApp::with(Setup::quick()).await;
        let client = &app.owner;
        let a: Uuid = client.query_one("select id from receptionist.tenants", &[]).await.unwrap().get(0);
        let b: Uuid = client
            .query_one("insert into receptionist.tenants (name, slug) values ('B', 'b') returning id", &[])
            .await
            .unwrap()
            .get(0);
        let people: [Uuid; 6] = std::array::from_fn(|_| Uuid::new_v4());
        let [viewer, agent, manager, owner, owner_of_b, stranger] = people;
        for person in &people {
            client.execute("insert into auth.users (id) values ($1)", &[person]).await.unwrap();
        }
        for (person, tenant, role) in [
            (viewer, a, "VIEWER"),
            (agent, a, "AGENT"),
            (manager, a, "MANAGER"),
            (owner, a, "OWNER"),
            (owner_of_b, b, "OWNER"),
        ] {
            client
                .execute(
                    "insert into receptionist.memberships (tenant_id, user_id, role)
                     values ($1, $2, $3::text::receptionist.member_role)",
                    &[&tenant, &person, &role],
                )
                .await
                .unwrap();
        }
        client.execute("insert into receptionist.agents (tenant_id) values ($1)", &[&b]).await.unwrap();
        client
            .execute(
                "insert into receptionist.knowledge (tenant_id, title, content)
                 values ($1, 'Prices', 'A haircut at B costs one thousand.')",
                &[&b],
            )
            .await
            .unwrap();
        client
            .execute("insert into receptionist.numbers (e164, tenant_id) values ('+12025550124', $1)", &[&b])
            .await
            .unwrap();
        let call: Uuid = client
            .query_one(
                "insert into receptionist.calls (tenant_id, call_sid, to_number) values ($1, 'CA1', $2) returning id",
                &[&a, &NUMBER],
            )
            .await
            .unwrap()
            .get(0);
        client
            .batch_execute(&format!(
                "insert into receptionist.turns (call_id, tenant_id, ordinal, speaker, text, started_ms, ended_ms)
                   values ('{call}', '{a}', 0, 'agent', 'Hello', 0, 1);
                 insert into receptionist.tool_runs (call_id, tenant_id, after_ordinal, name, arguments, output, took_ms)
                   values ('{call}', '{a}', 0, 'search_knowledge', '{{}}', '{{}}', 1)"
            ))
            .await
            .unwrap();
        let [service, person, appointment] = THINGS;
        client
            .batch_execute(&format!(
                "delete from receptionist.business_hours; delete from receptionist.services; delete from receptionist.staff;
                 insert into receptionist.services (id, tenant_id, name) values ('{service}', '{a}', 'Massage');
                 insert into receptionist.staff (id, tenant_id, name) values ('{person}', '{a}', 'Zoe');
                 insert into receptionist.staff (tenant_id, name) values ('{a}', 'Yan');
                 insert into receptionist.business_hours values ('{a}', 1, '09:00', '17:00');
                 insert into receptionist.holidays values ('{a}', '2030-01-01', 'New Year');
                 insert into receptionist.staff_schedules values ('{a}', '{person}', 1, '09:00', '17:00');
                 insert into receptionist.staff_services values ('{a}', '{person}', '{service}');
                 insert into receptionist.staff_time_off (tenant_id, staff_id, first_day, last_day)
                   values ('{a}', '{person}', '2030-01-01', '2030-01-02');
                 insert into receptionist.booking_settings (tenant_id) values ('{a}') on conflict do nothing;
                 insert into receptionist.appointments (id, tenant_id, staff_id, service_id, service_name, customer_name,
                   starts_at, ends_at, blocked_until, status, source) values ('{appointment}', '{a}', '{person}', '{service}',
                   'Massage', 'Kim', '2030-02-04 10:00Z', '2030-02-04 11:00Z', '2030-02-04 11:00Z', 'booked', 'dashboard');
                 insert into receptionist.caller_proofs values ('{call}', '{appointment}', '{a}');
                 insert into receptionist.calendar_feeds (tenant_id, token_hash) values ('{a}', sha256('x'));
                 insert into receptionist.invitations (tenant_id, email, role, token_hash)
                   values ('{a}', 'm@example.com', 'AGENT', sha256('m'));"
            ))
            .await
            .unwrap();
        Self { app, a, b, call, viewer, agent, manager, owner, owner_of_b, stranger }
    }

    fn database(&self) -> &Database {
        &self.app.database
    }

    /// In the order of the columns of [`EXPECTED`]. `None` is the service role.
    fn actors(&self) -> [(&'static str, Option<Claims>); 11] {
        [
            ("anon", Some(Claims::anon())),
            ("stranger", Some(Claims::user(self.stranger))),
            ("VIEWER", Some(Claims::user(self.viewer))),
            ("AGENT", Some(Claims::user(self.agent))),
            ("MANAGER", Some(Claims::user(self.manager))),
            ("OWNER", Some(Claims::user(self.owner))),
            ("OWNER of B", Some(Claims::user(self.owner_of_b))),
            ("line of A", Some(line("tenant_id", &self.a.to_string()))),
            ("line of B", Some(line("tenant_id", &self.b.to_string()))),
            ("called A", Some(line("called_number", NUMBER))),
            ("service", None),
        ]
    }

    async fn as_user(&self, user: Uuid, sql: &str) -> Result<u64, Error> {
        self.database().as_role(&Claims::user(user)).execute(sql, &[]).await
    }

    async fn role_of(&self, user: Uuid) -> Option<String> {
        let row = self
            .app
            .owner
            .query_opt("select role::text from receptionist.memberships where user_id = $1", &[&user])
            .await
            .unwrap();
        row.map(|row| row.get(0))
    }

    /// A statement that tries an operation on a row of tenant A.
    fn attempt(&self, table: &str, operation: &str) -> String {
        let Self { a, call, stranger, agent, .. } = self;
        let [service, person, appointment] = THINGS;
        let of_a = || format!("tenant_id = '{a}'");
        let (key, insert, update) = match table {
            "tenants" => {
                (format!("id = '{a}'"), "(name, slug) values ('C', 'c')".to_owned(), "name = 'Renamed'")
            }
            "memberships" => (
                format!("tenant_id = '{a}' and user_id = '{agent}'"),
                format!("(tenant_id, user_id, role) values ('{a}', '{stranger}', 'VIEWER')"),
                "role = 'VIEWER'",
            ),
            "numbers" => (
                format!("tenant_id = '{a}'"),
                format!("(e164, tenant_id) values ('+12025550125', '{a}')"),
                "e164 = '+12025550126'",
            ),
            "agents" => {
                (format!("tenant_id = '{a}'"), format!("(tenant_id) values ('{a}')"), "greeting = 'Changed'")
            }
            "knowledge" => (
                format!("tenant_id = '{a}'"),
                format!("(tenant_id, title, content) values ('{a}', 'New', 'New')"),
                "content = 'Changed'",
            ),
            "calls" => (
                format!("id = '{call}'"),
                format!("(tenant_id, call_sid, to_number) values ('{a}', 'CA2', '+12025550123')"),
                "outcome = 'changed'",
            ),
            "turns" => (
                format!("call_id = '{call}'"),
                format!(
                    "(call_id, tenant_id, ordinal, speaker, text, started_ms, ended_ms)
                     values ('{call}', '{a}', 1, 'agent', 'x', 0, 1)"
                ),
                "text = 'changed'",
            ),
            "tool_runs" => (
                format!("call_id = '{call}'"),
                format!(
                    "(call_id, tenant_id, after_ordinal, name, arguments, output, took_ms)
                     values ('{call}', '{a}', 1, 'x', '', '', 1)"
                ),
                "output = 'changed'",
            ),
            "services" => (of_a(), format!("(tenant_id, name) values ('{a}', 'New')"), "price = 1"),
            "business_hours" => {
                (of_a(), format!("values ('{a}', 2, '09:00', '17:00')"), "closes = '18:00'")
            }
            "holidays" => (of_a(), format!("values ('{a}', '2030-12-25', 'Feast')"), "name = 'Changed'"),
            "staff" => (
                // Who has an appointment could not be deleted, whoever asks.
                format!("tenant_id = '{a}' and name = 'Yan'"),
                format!("(tenant_id, name) values ('{a}', 'New')"),
                "bio = 'Changed'",
            ),
            "staff_schedules" => {
                (of_a(), format!("values ('{a}', '{person}', 2, '09:00', '17:00')"), "ends = '18:00'")
            }
            "staff_services" => {
                (of_a(), format!("values ('{a}', '{person}', '{service}')"), "service_id = service_id")
            }
            "staff_time_off" => (
                of_a(),
                format!(
                    "(tenant_id, staff_id, first_day, last_day) values ('{a}', '{person}', '2030-05-01', '2030-05-01')"
                ),
                "reason = 'Changed'",
            ),
            "booking_settings" => {
                (of_a(), format!("(tenant_id) values ('{a}')"), "buffer_minutes = 10")
            }
            "appointments" => (
                of_a(),
                format!(
                    "(tenant_id, service_name, customer_name, starts_at, ends_at, blocked_until, status, source)
                     values ('{a}', 'x', 'x', '2031-01-01Z', '2031-01-02Z', '2031-01-02Z', 'booked', 'dashboard')"
                ),
                "status = 'no_show'",
            ),
            "caller_proofs" => (
                format!("call_id = '{call}'"),
                format!("values ('{call}', '{appointment}', '{a}')"),
                "tenant_id = tenant_id",
            ),
            "calendar_feeds" => {
                (of_a(), format!("(tenant_id, token_hash) values ('{a}', sha256('y'))"), "staff_id = null")
            }
            "invitations" => (
                of_a(),
                format!("(tenant_id, email, role, token_hash) values ('{a}', 'n@example.com', 'AGENT', sha256('n'))"),
                "expires_at = now()",
            ),
            "audit_log" => (
                of_a(),
                format!("(tenant_id, actor_role, action, entity) values ('{a}', 'x', 'insert', 'x')"),
                "entity = 'x'",
            ),
            other => panic!("say here how {other} is reached"),
        };
        match operation {
            "select" => format!("select 1 from receptionist.{table} where {key}"),
            "insert" => format!("insert into receptionist.{table} {insert}"),
            "update" => format!("update receptionist.{table} set {update} where {key}"),
            "delete" => format!("delete from receptionist.{table} where {key}"),
            other => panic!("{other}"),
        }
    }
}

fn line(claim: &str, value: &str) -> Claims {
    let mut claims = Map::new();
    claims.insert(claim.into(), Value::from(value));
    Claims::agent(AGENT_ROLE, claims)
}

/// `y`: it is done. `-`: the row is not there for them. `x`: refused.
const EXPECTED: &str = "
                  anon stranger VIEWER AGENT MANAGER OWNER ownerB lineA lineB calledA service
tenants   select  x    -        y      y     y       y     -      y     -     y       y
tenants   insert  x    x        x      x     x       x     x      x     x     x       y
tenants   update  x    -        -      -     y       y     -      x     x     x       y
tenants   delete  x    x        x      x     x       x     x      x     x     x       y
memberships select x   -        y      y     y       y     -      x     x     x       y
memberships insert x   x        x      x     y       y     x      x     x     x       y
memberships update x   -        -      -     y       y     -      x     x     x       y
memberships delete x   -        -      -     y       y     -      x     x     x       y
numbers   select  x    -        y      y     y       y     -      y     -     y       y
numbers   insert  x    x        x      x     x       x     x      x     x     x       y
numbers   update  x    x        x      x     x       x     x      x     x     x       y
numbers   delete  x    x        x      x     x       x     x      x     x     x       y
agents    select  x    -        y      y     y       y     -      y     -     y       y
agents    insert  x    x        x      x     y       y     x      x     x     x       y
agents    update  x    -        -      -     y       y     -      x     x     x       y
agents    delete  x    -        -      -     y       y     -      x     x     x       y
knowledge select  x    -        y      y     y       y     -      y     -     y       y
knowledge insert  x    x        x      x     y       y     x      x     x     x       y
knowledge update  x    -        -      -     y       y     -      x     x     x       y
knowledge delete  x    -        -      -     y       y     -      x     x     x       y
calls     select  x    -        y      y     y       y     -      y     -     y       y
calls     insert  x    x        x      x     x       x     x      y     x     y       y
calls     update  x    x        x      x     x       x     x      y     -     y       y
calls     delete  x    -        -      -     y       y     -      x     x     x       y
turns     select  x    -        y      y     y       y     -      y     -     y       y
turns     insert  x    x        x      x     x       x     x      y     x     y       y
turns     update  x    x        x      x     x       x     x      y     -     y       y
turns     delete  x    x        x      x     x       x     x      x     x     x       y
tool_runs select  x    -        y      y     y       y     -      x     x     x       y
tool_runs insert  x    x        x      x     x       x     x      y     x     y       y
tool_runs update  x    x        x      x     x       x     x      x     x     x       y
tool_runs delete  x    x        x      x     x       x     x      x     x     x       y
services  select   x     -     y     y     y     y     -     y     -     y     y
services  insert   x     x     x     x     y     y     x     x     x     x     y
services  update   x     -     -     -     y     y     -     x     x     x     y
services  delete   x     -     -     -     y     y     -     x     x     x     y
business_hours select   x     -     y     y     y     y     -     y     -     y     y
business_hours insert   x     x     x     x     y     y     x     x     x     x     y
business_hours update   x     -     -     -     y     y     -     x     x     x     y
business_hours delete   x     -     -     -     y     y     -     x     x     x     y
holidays  select   x     -     y     y     y     y     -     y     -     y     y
holidays  insert   x     x     x     x     y     y     x     x     x     x     y
holidays  update   x     -     -     -     y     y     -     x     x     x     y
holidays  delete   x     -     -     -     y     y     -     x     x     x     y
staff     select   x     -     y     y     y     y     -     y     -     y     y
staff     insert   x     x     x     x     y     y     x     x     x     x     y
staff     update   x     -     -     -     y     y     -     x     x     x     y
staff     delete   x     -     -     -     y     y     -     x     x     x     y
staff_schedules select   x     -     y     y     y     y     -     y     -     y     y
staff_schedules insert   x     x     x     x     y     y     x     x     x     x     y
staff_schedules update   x     -     -     -     y     y     -     x     x     x     y
staff_schedules delete   x     -     -     -     y     y     -     x     x     x     y
staff_services select   x     -     y     y     y     y     -     y     -     y     y
staff_services insert   x     x     x     x     y     y     x     x     x     x     y
staff_services update   x     -     -     -     y     y     -     x     x     x     y
staff_services delete   x     -     -     -     y     y     -     x     x     x     y
staff_time_off select   x     -     y     y     y     y     -     x     x     x     y
staff_time_off insert   x     x     x     x     y     y     x     x     x     x     y
staff_time_off update   x     -     -     -     y     y     -     x     x     x     y
staff_time_off delete   x     -     -     -     y     y     -     x     x     x     y
booking_settings select   x     -     y     y     y     y     -     y     -     y     y
booking_settings insert   x     x     x     x     y     y     x     x     x     x     y
booking_settings update   x     -     -     -     y     y     -     x     x     x     y
booking_settings delete   x     -     -     -     y     y     -     x     x     x     y
appointments select   x     -     y     y     y     y     -     x     x     x     y
appointments insert   x     x     x     x     x     x     x     x     x     x     y
appointments update   x     -     -     y     y     y     -     x     x     x     y
appointments delete   x     -     -     -     y     y     -     x     x     x     y
caller_proofs select   x     x     x     x     x     x     x     x     x     x     y
caller_proofs insert   x     x     x     x     x     x     x     x     x     x     y
caller_proofs update   x     x     x     x     x     x     x     x     x     x     y
caller_proofs delete   x     x     x     x     x     x     x     x     x     x     y
calendar_feeds select   x     -     -     y     y     y     -     x     x     x     y
calendar_feeds insert   x     x     x     x     x     x     x     x     x     x     y
calendar_feeds update   x     x     x     x     x     x     x     x     x     x     y
calendar_feeds delete   x     -     -     -     y     y     -     x     x     x     y
invitations select   x     -     -     -     y     y     -     x     x     x     y
invitations insert   x     x     x     x     x     x     x     x     x     x     y
invitations update   x     x     x     x     x     x     x     x     x     x     y
invitations delete   x     -     -     -     y     y     -     x     x     x     y
audit_log select   x     -     -     -     y     y     -     x     x     x     y
audit_log insert   x     x     x     x     x     x     x     x     x     x     y
audit_log update   x     x     x     x     x     x     x     x     x     x     y
audit_log delete   x     x     x     x     x     x     x     x     x     x     y
";

async fn outcome(database: &Database, claims: Option<&Claims>, sql: &str) -> char {
    let acting = match claims {
        Some(claims) => database.as_role(claims),
        None => database.as_service(ServiceReason::because("the permission matrix")),
    };
    // Dropped without a commit: every attempt finds the same rows.
    let transaction = acting.transaction().await.unwrap();
    match transaction.execute(sql, &[]).await {
        Ok(0) => '-',
        Ok(_) => 'y',
        Err(error) => match error.sql_state().map(|state| state.code().to_owned()).as_deref() {
            Some("42501") => 'x',
            // Permissions are checked before keys: the row exists already, or they may not see why.
            Some("23505") => 'y',
            _ => panic!("{sql}: {error:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_open_to_exactly_whom_it_should_be() {
    let world = World::new().await;
    let tables: Vec<String> = world
        .app
        .owner
        .query("select tablename::text from pg_tables where schemaname = 'receptionist'", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let actors = world.actors();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for table in &tables {
        for operation in ["select", "insert", "update", "delete"] {
            let row = EXPECTED
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>())
                .find(|row| row.len() > 2 && row[0] == table && row[1] == operation)
                .unwrap_or_else(|| panic!("who may {operation} {table}? Add a row to EXPECTED"));
            assert_eq!(row.len(), 2 + actors.len(), "{row:?}");
            let sql = world.attempt(table, operation);
            for ((name, claims), expected) in actors.iter().zip(&row[2..]) {
                let found = outcome(world.database(), claims.as_ref(), &sql).await;
                if found.to_string() != **expected {
                    wrong.push(format!("{name} {operation} {table}: expected {expected}, found {found}"));
                }
                checked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        checked,
        (EXPECTED.trim().lines().count() - 1) * actors.len(),
        "EXPECTED names a table that is gone"
    );
}

/// Who runs the deployment sees what a viewer sees, and changes as little; a user who says so is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn site_admins_look_and_do_not_touch() {
    let world = World::new().await;
    let claims = |place: &str, value: Value| {
        let mut claims = Map::new();
        claims.insert("sub".into(), Value::from(world.stranger.to_string()));
        claims.insert(place.into(), value);
        Claims::new("authenticated", claims)
    };
    let admin = claims("app_metadata", json!({ "site_admin": true }));
    let pretenders = [
        claims("user_metadata", json!({ "site_admin": true })),
        claims("app_metadata", json!({ "site_admin": "true" })),
        claims("app_metadata", json!({ "site_admin": false })),
        claims("site_admin", json!(true)),
        claims("app_metadata", json!(["site_admin"])),
    ];
    for row in EXPECTED.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()) {
        let [table, operation, _, stranger, viewer, ..] = row[..] else { continue };
        if !matches!(operation, "select" | "insert" | "update" | "delete") {
            continue;
        }
        let sql = world.attempt(table, operation);
        let expected = if (table, operation) == ("audit_log", "select") { "y" } else { viewer };
        let found = outcome(world.database(), Some(&admin), &sql).await.to_string();
        assert_eq!(found, expected, "a site admin: {operation} {table}");
        for pretender in &pretenders {
            let found = outcome(world.database(), Some(pretender), &sql).await.to_string();
            assert_eq!(found, stranger, "{pretender:?}: {operation} {table}");
        }
    }
}

/// Nothing in the schema is unprotected, now or when somebody adds to it.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_has_no_unlocked_doors() {
    let app = TestApp::with(Setup::quick()).await;
    for (what, query) in [
        (
            "tables without row-level security",
            "select relname::text from pg_class where relnamespace = 'receptionist'::regnamespace
             and relkind in ('r', 'p', 'f', 'm') and not relrowsecurity",
        ),
        (
            "views that run as their owner",
            "select relname::text from pg_class where relnamespace = 'receptionist'::regnamespace and relkind = 'v'
             and not coalesce(reloptions::text, '') ~ 'security_invoker=(true|on)'",
        ),
        (
            "relations that anon may touch",
            "select relname::text from pg_class where relnamespace = 'receptionist'::regnamespace
             and relkind in ('r', 'p', 'v', 'm', 'f')
             and has_table_privilege('anon', oid, 'select, insert, update, delete, truncate, references, trigger')",
        ),
        (
            "functions that anon or everybody may call",
            "select proname::text from pg_proc where pronamespace = 'receptionist'::regnamespace
             and has_function_privilege('anon', oid, 'execute')",
        ),
        (
            "truncation, which no policy stops",
            "select relname::text from pg_class where relnamespace = 'receptionist'::regnamespace and relkind = 'r'
             and (has_table_privilege('authenticated', oid, 'truncate, references, trigger')
                  or has_table_privilege('receptionist_agent', oid, 'truncate, references, trigger'))",
        ),
        (
            "security definers without a search path of their own",
            "select proname::text from pg_proc where pronamespace = 'receptionist'::regnamespace and prosecdef
             and not coalesce(proconfig::text, '') like '%search_path=%'",
        ),
        (
            "a schema that others may create in",
            "select rolname::text from pg_roles where rolname in ('anon', 'authenticated', 'receptionist_agent')
             and has_schema_privilege(rolname, 'receptionist', 'create')",
        ),
        ("a way in for anon", "select 'usage' where has_schema_privilege('anon', 'receptionist', 'usage')"),
        (
            "rights of the voice agent's role",
            "select rolname::text from pg_roles where rolname = 'receptionist_agent'
             and (rolsuper or rolbypassrls or rolcanlogin or rolcreaterole or rolcreatedb or rolinherit)",
        ),
        (
            "roles that the voice agent could become",
            "select roleid::regrole::text from pg_auth_members where member = 'receptionist_agent'::regrole",
        ),
        (
            // Every member reads `agents`: what may be configured there must be fit for every eye.
            "secrets in the agents' configuration",
            "select column_name::text from information_schema.columns
             where table_schema = 'receptionist' and table_name = 'agents'
             and column_name ~ '(secret|token|key|password|credential)'",
        ),
    ] {
        let found: Vec<String> =
            app.owner.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert!(found.is_empty(), "{what}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_raises_themselves_or_others_above_their_own_role() {
    let world = World::new().await;
    let World { a, b, viewer, agent, manager, owner, owner_of_b, stranger, .. } = world;
    let memberships = "receptionist.memberships";
    // A second owner, so that it is not the rule of the last one that refuses.
    let another = Uuid::new_v4();
    world
        .app
        .owner
        .batch_execute(&format!(
            "insert into auth.users (id) values ('{another}');
             insert into {memberships} (tenant_id, user_id, role) values ('{a}', '{another}', 'OWNER')"
        ))
        .await
        .unwrap();
    let refused = [
        (
            viewer,
            format!("update {memberships} set role = 'OWNER' where user_id = '{viewer}'"),
            "raises themselves",
        ),
        (
            agent,
            format!("update {memberships} set role = 'MANAGER' where user_id = '{agent}'"),
            "raises themselves",
        ),
        (
            manager,
            format!("update {memberships} set role = 'OWNER' where user_id = '{manager}'"),
            "raises themselves",
        ),
        (
            manager,
            format!("update {memberships} set role = 'OWNER' where user_id = '{viewer}'"),
            "makes an owner",
        ),
        (
            manager,
            format!("update {memberships} set role = 'VIEWER' where user_id = '{owner}'"),
            "demotes the owner",
        ),
        (manager, format!("delete from {memberships} where user_id = '{owner}'"), "removes the owner"),
        (
            manager,
            format!("insert into {memberships} values ('{a}', '{stranger}', 'OWNER')"),
            "brings an owner",
        ),
        (
            manager,
            format!("insert into {memberships} values ('{b}', '{manager}', 'VIEWER')"),
            "joins another tenant",
        ),
        (stranger, format!("insert into {memberships} values ('{a}', '{stranger}', 'VIEWER')"), "joins"),
        (
            owner_of_b,
            format!("insert into {memberships} values ('{a}', '{owner_of_b}', 'OWNER')"),
            "takes over",
        ),
        (owner_of_b, format!("delete from {memberships} where tenant_id = '{a}'"), "removes others' members"),
        (agent, format!("delete from {memberships} where user_id = '{viewer}'"), "removes a member"),
        (
            owner,
            format!("update {memberships} set tenant_id = '{b}' where user_id = '{viewer}'"),
            "plants a member",
        ),
        (manager, format!("update receptionist.knowledge set tenant_id = '{b}'"), "plants knowledge"),
        (manager, format!("update receptionist.agents set tenant_id = '{b}'"), "plants an agent"),
        (
            manager,
            format!(
                "insert into receptionist.knowledge (tenant_id, title, content) values ('{b}', 'x', 'x')"
            ),
            "writes for B",
        ),
        (owner, "update receptionist.tenants set slug = 'mine'".to_owned(), "takes an address"),
        (owner, format!("update receptionist.tenants set id = '{b}'"), "takes an identity"),
        (owner, "truncate receptionist.calls".to_owned(), "truncates"),
        (owner, "select * from auth.users".to_owned(), "reads accounts"),
    ];
    let snapshot = "select md5(string_agg(row::text, '' order by row::text)) from (
        select m::text as row from receptionist.memberships m union all
        select t::text from receptionist.tenants t union all
        select a::text from receptionist.agents a union all
        select k::text from receptionist.knowledge k) as everything";
    let before: String = world.app.owner.query_one(snapshot, &[]).await.unwrap().get(0);
    for (who, sql, what) in refused {
        match world.as_user(who, &sql).await {
            Ok(0) => {}
            Err(error) => {
                let code = error.sql_state().map(|state| state.code().to_owned());
                assert!(matches!(code.as_deref(), Some("42501" | "23514")), "{what}: {error:?}");
            }
            Ok(n) => panic!("somebody {what}: {n} rows by {sql}"),
        }
        let after: String = world.app.owner.query_one(snapshot, &[]).await.unwrap().get(0);
        assert_eq!(before, after, "somebody {what}: {sql}");
    }
    // What they are for does work.
    world
        .as_user(manager, &format!("update {memberships} set role = 'AGENT' where user_id = '{viewer}'"))
        .await
        .unwrap();
    assert_eq!(world.role_of(viewer).await.as_deref(), Some("AGENT"));
    world
        .as_user(owner, &format!("update {memberships} set role = 'OWNER' where user_id = '{manager}'"))
        .await
        .unwrap();
    assert_eq!(world.role_of(manager).await.as_deref(), Some("OWNER"));
}

/// Even who manages both tenants cannot carry rows from one to the other: calls and members stay where they were.
#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_in_their_tenant() {
    let world = World::new().await;
    let World { a, b, owner, call, .. } = world;
    let both = "insert into receptionist.memberships (tenant_id, user_id, role) values ($1, $2, 'OWNER')";
    world.app.owner.execute(both, &[&b, &owner]).await.unwrap();
    for table in ["memberships", "agents", "knowledge"] {
        let sql = format!("update receptionist.{table} set tenant_id = '{b}' where tenant_id = '{a}'");
        let error = world.as_user(owner, &sql).await.unwrap_err();
        assert_eq!(error.sql_state().unwrap().code(), "23514", "{table}: {error:?}");
    }
    // A turn and a tool's run are of the tenant of their call.
    for sql in [
        format!(
            "insert into receptionist.turns (call_id, tenant_id, ordinal, speaker, text, started_ms, ended_ms)
             values ('{call}', '{b}', 5, 'agent', 'x', 0, 1)"
        ),
        format!(
            "insert into receptionist.tool_runs (call_id, tenant_id, after_ordinal, name, arguments, output, took_ms)
             values ('{call}', '{b}', 5, 'x', '', '', 1)"
        ),
    ] {
        let claims = line("tenant_id", &b.to_string());
        let error = world.database().as_role(&claims).execute(&sql, &[]).await.unwrap_err();
        assert_eq!(error.sql_state().unwrap().code(), "23503", "{error:?}");
    }
    let claims = line("tenant_id", &a.to_string());
    let moved = format!("update receptionist.calls set tenant_id = '{b}' where id = '{call}'");
    assert!(world.database().as_role(&claims).execute(&moved, &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_keeps_an_owner() {
    let world = World::new().await;
    let World { a, b, owner, manager, owner_of_b, .. } = world;
    let demote =
        |user: Uuid| format!("update receptionist.memberships set role = 'VIEWER' where user_id = '{user}'");
    for sql in [demote(owner), format!("delete from receptionist.memberships where user_id = '{owner}'")] {
        let error = world.as_user(owner, &sql).await.unwrap_err();
        assert_eq!(error.sql_state().unwrap().code(), "23514");
        let text = format!("{error:?}");
        assert!(text.contains("at least one owner") && text.contains("Make another member OWNER"), "{text}");
    }
    // Not by the service either, nor with the account.
    let service = world.database().as_service(ServiceReason::because("a test of the last owner"));
    assert!(
        service
            .execute(&format!("delete from receptionist.memberships where user_id = '{owner}'"), &[])
            .await
            .is_err()
    );
    assert!(world.app.owner.execute("delete from auth.users where id = $1", &[&owner]).await.is_err());
    assert_eq!(world.role_of(owner).await.as_deref(), Some("OWNER"));

    // With a second owner the first may go; two who go at the same moment may not.
    let promote = format!("update receptionist.memberships set role = 'OWNER' where user_id = '{manager}'");
    world.as_user(owner, &promote).await.unwrap();
    let (first_claims, second_claims) = (Claims::user(owner), Claims::user(manager));
    let first = world.database().as_role(&first_claims).transaction().await.unwrap();
    assert_eq!(first.execute(&demote(owner), &[]).await.unwrap(), 1);
    let second = async {
        let second = world.database().as_role(&second_claims).transaction().await.unwrap();
        second.execute(&demote(manager), &[]).await?;
        second.commit().await
    };
    let waiting = async {
        // The second waits for the first, or is through already, which the result shows.
        let query = "select count(*) from pg_stat_activity where datname = current_database()
                     and wait_event_type = 'Lock'";
        for _ in 0..100 {
            if world.app.owner.query_one(query, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        first.commit().await.unwrap();
    };
    let (second, ()) = tokio::join!(second, waiting);
    assert_eq!(second.unwrap_err().sql_state().unwrap().code(), "23514");
    assert_eq!(world.role_of(manager).await.as_deref(), Some("OWNER"));

    // A tenant that goes takes its owner's membership with it.
    let service = world.database().as_service(ServiceReason::because("a test deletes a tenant"));
    let gone = service.execute("delete from receptionist.tenants where id = $1", &[&b]).await.unwrap();
    assert_eq!((gone, world.role_of(owner_of_b).await), (1, None));
    assert!(world.role_of(owner).await.is_some(), "tenant {a} is untouched");
}

/// T15: every function, by everybody it is for and somebody it is not for.
#[tokio::test(flavor = "multi_thread")]
async fn functions_see_what_their_caller_may_see() {
    let world = World::new().await;
    let World { a, b, .. } = world;
    // Per actor: my_role(A), has_role(A, MANAGER), line_tenant(), what search_knowledge finds.
    let expected = [
        ("anon", "x", "x", "x", "x"),
        ("stranger", "null", "false", "x", ""),
        ("VIEWER", "VIEWER", "false", "x", "A"),
        ("AGENT", "AGENT", "false", "x", "A"),
        ("MANAGER", "MANAGER", "true", "x", "A"),
        ("OWNER", "OWNER", "true", "x", "A"),
        ("OWNER of B", "null", "false", "x", "B"),
        ("line of A", "x", "x", "A", "A"),
        ("line of B", "x", "x", "B", "B"),
        ("called A", "x", "x", "A", "A"),
        ("service", "null", "false", "null", "AB"),
    ];
    let queries = [
        format!("select coalesce(receptionist.my_role('{a}')::text, 'null')"),
        format!("select receptionist.has_role('{a}', 'MANAGER')::text"),
        format!(
            "select case receptionist.line_tenant() when '{a}' then 'A' when '{b}' then 'B' else 'null' end"
        ),
        "select coalesce(string_agg(distinct case when content like '%one thousand%' then 'B' else 'A' end, ''
                  order by case when content like '%one thousand%' then 'B' else 'A' end), '')
         from receptionist.search_knowledge('how much does a haircut cost', 20)"
            .to_owned(),
    ];
    for ((name, claims), row) in world.actors().iter().zip(expected) {
        assert_eq!(*name, row.0);
        for (sql, expected) in queries.iter().zip([row.1, row.2, row.3, row.4]) {
            let acting = match claims {
                Some(claims) => world.database().as_role(claims),
                None => world.database().as_service(ServiceReason::because("the permission matrix")),
            };
            let found = match acting.query_opt(sql, &[]).await {
                Ok(row) => row.unwrap().get::<_, String>(0),
                Err(error) if error.sql_state().is_some_and(|s| s.code() == "42501") => "x".to_owned(),
                Err(error) => panic!("{name}: {sql}: {error:?}"),
            };
            assert_eq!(found, expected, "{name}: {sql}");
        }
    }
    // Claims that name no tenant, or nonsense, open nothing.
    for claims in [
        line("called_number", "+12025550199"),
        line("called_number", ""),
        line("tenant_id", ""),
        line("tenant_id", &Uuid::new_v4().to_string()),
        line("other", "x"),
    ] {
        let rows =
            world.database().as_role(&claims).query("select 1 from receptionist.tenants", &[]).await.unwrap();
        assert_eq!(rows.len(), 0, "{claims:?}");
    }
    let nonsense = line("tenant_id", "' or true --");
    assert!(
        world.database().as_role(&nonsense).query("select 1 from receptionist.tenants", &[]).await.is_err()
    );
}
