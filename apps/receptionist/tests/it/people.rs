//! Opening a business, inviting people, and the record of what they change.

use longhouse_database::tokio_postgres::types::ToSql;
use longhouse_database::{Claims, Error};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::harness::{Setup, TestApp};

struct People {
    app: TestApp,
}

impl People {
    async fn new() -> Self {
        Self { app: TestApp::with(Setup::quick()).await }
    }

    /// An account; its address is confirmed where that is said.
    async fn account(&self, email: &str, is_confirmed: bool) -> Claims {
        let id = Uuid::new_v4();
        let sql = "insert into auth.users (id, email, email_confirmed_at) values ($1, $2, case when $3 then now() end)";
        self.app.owner.execute(sql, &[&id, &email, &is_confirmed]).await.unwrap();
        Claims::user(id)
    }

    async fn ask(
        &self,
        who: &Claims,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<String>, Error> {
        let rows = self.app.database.as_role(who).query(sql, params).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn open(&self, who: &Claims, slug: &str) -> Result<Uuid, Error> {
        let sql = "select (receptionist.create_tenant('Harbour Dental', $1)).id::text";
        Ok(self.ask(who, sql, &[&slug]).await?[0].parse().unwrap())
    }

    async fn invite(&self, who: &Claims, tenant: Uuid, email: &str, role: &str) -> Result<String, Error> {
        let sql = "select receptionist.invite_member($1, $2, $3::text::receptionist.member_role)";
        Ok(self.ask(who, sql, &[&tenant, &email, &role]).await?.remove(0))
    }

    async fn accept(&self, who: &Claims, token: &str) -> Result<Vec<String>, Error> {
        self.ask(who, "select (receptionist.accept_invitation($1)).name", &[&token]).await
    }

    async fn roles(&self, who: &Claims) -> Vec<String> {
        let sql = "select m.role::text from receptionist.memberships m where m.user_id = auth.uid()";
        self.ask(who, sql, &[]).await.unwrap()
    }
}

fn code(error: &Error) -> &str {
    error.sql_state().map_or("", |state| state.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_business_is_opened_whole_or_not_at_all() {
    let people = People::new().await;
    let ada = people.account("ada@example.com", true).await;
    let sql = "select (receptionist.create_tenant('Harbour Dental', 'harbour', 'Europe/Madrid', null, $1, $2, $3)).id::text";
    let services =
        json!([{ "name": "Cleaning", "duration_minutes": 40, "price": 80.5 }, { "name": "Check-up" }]);
    let hours = json!([{ "dow": 1, "opens": "09:00", "closes": "13:00" }, { "dow": 1, "opens": "14:00", "closes": "18:00" }]);
    let staff = json!([{ "name": "Dr Ruiz", "specialties": ["implants"] }]);
    let count = "select concat_ws(' ', (select count(*) from receptionist.tenants where slug = 'harbour'),
        (select count(*) from receptionist.services where name in ('Cleaning', 'Check-up')),
        (select count(*) from receptionist.business_hours where closes = '13:00'),
        (select count(*) from receptionist.staff where name = 'Dr Ruiz'))";
    for (what, services, hours, staff, expected) in [
        ("a service without a name", json!([{ "price": 1 }]), &hours, &staff, "23502"),
        ("the same service twice", json!([{ "name": "A" }, { "name": "a" }]), &hours, &staff, "23505"),
        (
            "a day that closes before it opens",
            services.clone(),
            &json!([{ "dow": 1, "opens": "18:00", "closes": "09:00" }]),
            &staff,
            "23514",
        ),
        ("a person without a name", services.clone(), &hours, &json!([{}]), "23502"),
        ("no list", json!({}), &hours, &staff, "22023"),
    ] {
        let refused = people.ask(&ada, sql, &[&services, hours, staff]).await.expect_err(what);
        assert_eq!(code(&refused), expected, "{what}: {refused}");
        let left: String = people.app.owner.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(left, "0 0 0 0", "{what}");
    }
    people.ask(&ada, sql, &[&services, &hours, &staff]).await.unwrap();
    let made: String = people.app.owner.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(made, "1 2 1 1");
    assert_eq!(people.roles(&ada).await, ["OWNER"]);
    let greeting = people.ask(&ada, "select greeting from receptionist.agents", &[]).await.unwrap();
    assert_eq!(greeting, ["Hello, this is Harbour Dental. How can I help you?"]);
    assert_eq!(
        code(&people.ask(&ada, sql, &[&services, &hours, &staff]).await.unwrap_err()),
        "23505",
        "the address is taken"
    );
    assert!(people.open(&Claims::anon(), "nobody").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_opens_businesses_without_end_or_for_others() {
    let people = People::new().await;
    let (ada, eve) = (people.account("ada@example.com", true).await, Uuid::new_v4());
    people.app.owner.execute("insert into auth.users (id) values ($1)", &[&eve]).await.unwrap();
    for n in 0..20 {
        people.open(&ada, &format!("shop-{n}")).await.unwrap();
    }
    assert_eq!(code(&people.open(&ada, "shop-20").await.unwrap_err()), "PT429");
    let sql = "select (receptionist.create_tenant('For Eve', 'eves', owner => $1)).id::text";
    assert_eq!(code(&people.ask(&ada, sql, &[&eve]).await.unwrap_err()), "42501");
    let mut claims = Map::new();
    claims.insert("sub".into(), Value::from(Uuid::new_v4().to_string()));
    claims.insert("app_metadata".into(), json!({ "site_admin": true }));
    people.ask(&Claims::new("authenticated", claims), sql, &[&eve]).await.unwrap();
    assert_eq!(people.roles(&Claims::user(eve)).await, ["OWNER"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_joins_once_and_as_they_were_invited() {
    let people = People::new().await;
    let ada = people.account("ada@example.com", true).await;
    let tenant = people.open(&ada, "harbour").await.unwrap();
    let bob = people.account("Bob@Example.com", true).await;
    let mallory = people.account("mallory@example.com", true).await;
    let unproved = people.account("carol@example.com", false).await;

    let first = people.invite(&ada, tenant, "bob@example.com", "AGENT").await.unwrap();
    let token = people.invite(&ada, tenant, " BOB@example.com ", "MANAGER").await.unwrap();
    assert_eq!(code(&people.accept(&bob, &first).await.unwrap_err()), "PT404", "it was replaced");
    assert_eq!(
        code(&people.accept(&mallory, &token).await.unwrap_err()),
        "PT404",
        "a forwarded link is no key"
    );
    let open = people.ask(&bob, "select role::text from receptionist.my_invitations()", &[]).await.unwrap();
    assert_eq!(open, ["MANAGER"]);
    assert_eq!(people.accept(&bob, &token).await.unwrap(), ["Harbour Dental"]);
    assert_eq!(people.roles(&bob).await, ["MANAGER"]);
    assert_eq!(code(&people.accept(&bob, &token).await.unwrap_err()), "PT404", "it is used up");

    // Whoever has not shown that an address is theirs is not who was invited.
    let carols = people.invite(&bob, tenant, "carol@example.com", "VIEWER").await.unwrap();
    assert_eq!(code(&people.accept(&unproved, &carols).await.unwrap_err()), "PT404");
    assert!(
        people
            .ask(&unproved, "select tenant_name from receptionist.my_invitations()", &[])
            .await
            .unwrap()
            .is_empty()
    );
    people.app.owner.batch_execute("update auth.users set email_confirmed_at = now()").await.unwrap();
    let by_id = "select (receptionist.accept_invitation(invitation => (select id from receptionist.my_invitations()))).name";
    people.ask(&unproved, by_id, &[]).await.unwrap();
    assert_eq!(people.roles(&unproved).await, ["VIEWER"]);

    // Nobody gives what they do not have; nobody of the lower roles gives anything.
    assert_eq!(code(&people.invite(&bob, tenant, "x@example.com", "OWNER").await.unwrap_err()), "42501");
    assert_eq!(
        code(&people.invite(&unproved, tenant, "x@example.com", "VIEWER").await.unwrap_err()),
        "42501"
    );
    assert_eq!(code(&people.invite(&mallory, tenant, "x@example.com", "VIEWER").await.unwrap_err()), "42501");
    assert_eq!(code(&people.invite(&ada, tenant, "no address", "VIEWER").await.unwrap_err()), "23514");

    // An invitation does not lower anybody, and ends.
    let lower = people.invite(&ada, tenant, "bob@example.com", "VIEWER").await.unwrap();
    people.accept(&bob, &lower).await.unwrap();
    assert_eq!(people.roles(&bob).await, ["MANAGER"]);
    let late = people.invite(&ada, tenant, "mallory@example.com", "AGENT").await.unwrap();
    people.app.owner.batch_execute("update receptionist.invitations set expires_at = now()").await.unwrap();
    assert_eq!(code(&people.accept(&mallory, &late).await.unwrap_err()), "PT404");
    let hashes =
        people.ask(&ada, "select token_hash::text from receptionist.invitations", &[]).await.unwrap_err();
    assert_eq!(code(&hashes), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_is_on_record() {
    let people = People::new().await;
    let ada = people.account("ada@example.com", true).await;
    let tenant = people.open(&ada, "harbour").await.unwrap();
    people.invite(&ada, tenant, "bob@example.com", "AGENT").await.unwrap();
    let acting = people.app.database.as_role(&ada);
    acting
        .execute("update receptionist.agents set greeting = 'Good day!', voice = voice", &[])
        .await
        .unwrap();
    acting.execute("update receptionist.agents set greeting = 'Good day!'", &[]).await.unwrap();
    acting
        .execute("insert into receptionist.holidays values ($1, '2030-01-01', 'New Year')", &[&tenant])
        .await
        .unwrap();
    acting.execute("delete from receptionist.holidays", &[]).await.unwrap();
    let log = "select concat_ws(' ', action, entity, before, after) from receptionist.audit_log
               where tenant_id = $1 and actor = auth.uid() and actor_role = 'authenticated' order by id";
    let entries = people.ask(&ada, log, &[&tenant]).await.unwrap();
    let begin: Vec<&str> = entries.iter().map(|entry| entry.split(" {").next().unwrap()).collect();
    assert_eq!(
        begin,
        [
            "insert tenants",
            "insert memberships",
            "insert agents",
            "insert booking_settings",
            "insert invitations",
            "update agents",
            "insert holidays",
            "delete holidays"
        ],
        "{entries:#?}"
    );
    let changed = &entries[5];
    assert!(changed.contains("Good day!") && !changed.contains("voice"), "only what changed: {changed}");
    assert!(!entries.iter().any(|entry| entry.contains("token_hash")), "{entries:#?}");
    for sql in [
        "delete from receptionist.audit_log",
        "update receptionist.audit_log set actor = null",
        "insert into receptionist.audit_log (tenant_id, actor_role, action, entity) values (gen_random_uuid(), 'x', 'insert', 'x')",
    ] {
        assert_eq!(code(&acting.execute(sql, &[]).await.unwrap_err()), "42501", "{sql}");
    }
}
