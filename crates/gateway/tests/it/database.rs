//! A database of each test's own, with the platform's schema and the gateway's.

use std::time::Duration;

use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::{Claims, Database, DatabaseOptions, bootstrap, connect_client, migrations};
use longhouse_gateway::keys::Owner;
use longhouse_gateway::ledger::{Entry, Outcome};
use longhouse_gateway::model::Modality;
use longhouse_gateway::{MIGRATIONS, ModelRef, SCHEMA, Task, Usage};
use secrecy::SecretString;
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

pub(crate) const ANN: Uuid = Uuid::from_u128(0xa11);
pub(crate) const BOB: Uuid = Uuid::from_u128(0xb0b);

pub(crate) struct Store {
    /// As servers connect.
    pub(crate) database: Database,
    /// Past every policy, to look behind them.
    pub(crate) owner: Client,
    // Dropped last: everything above uses it.
    _test_database: TestDatabase,
}

impl Store {
    pub(crate) async fn new() -> Self {
        let text: String = MIGRATIONS.iter().map(|migration| migration.sql).collect();
        let test_database = TestDatabase::create(&format!("gateway {text}"), prepare).await;
        let database = Database::connect(&options(&test_database.authenticator_url)).await.unwrap();
        let owner = connect_client(&options(&test_database.owner_url)).await.unwrap();
        Self { database, owner, _test_database: test_database }
    }

    /// A number that a query gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.owner.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// What somebody sees of a query, as JSON.
    pub(crate) async fn seen(&self, claims: &Claims, sql: &str) -> Result<Vec<Value>, String> {
        let sql = format!("select to_jsonb(x) from ({sql}) x");
        let rows = self.database.as_role(claims).query(&sql, &[]).await.map_err(|error| error.to_string())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

async fn prepare(template: &TemplateDatabase) -> Result<(), String> {
    let cluster = TestCluster::shared().await;
    let mut admin = connect_client(&options(&template.superuser_url)).await.map_err(|e| e.to_string())?;
    let passwords = bootstrap::Passwords {
        owner: cluster.password(Login::Owner),
        authenticator: cluster.password(Login::Authenticator),
    };
    Box::pin(bootstrap::apply(&mut admin, Some(&passwords))).await.map_err(|e| e.to_string())?;
    let mut owner = connect_client(&options(&template.owner_url)).await.map_err(|e| e.to_string())?;
    Box::pin(migrations::app(&mut owner, SCHEMA, MIGRATIONS)).await.map_err(|e| e.to_string())?;
    Ok(())
}

fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 10, pool_timeout: Duration::from_secs(30), ca_file: None }
}

pub(crate) fn owner(user: Uuid) -> Owner {
    Owner { app: "stories".into(), user: Some(user), ..Owner::default() }
}

/// A call that went well.
pub(crate) fn entry(user: Uuid, model: &str, usage: Usage) -> Entry {
    Entry {
        id: Uuid::now_v7(),
        task: Task::new("story_text"),
        modality: Modality::Chat,
        owner: owner(user),
        model: Some(model.parse::<ModelRef>().unwrap()),
        key_id: Some("k1".into()),
        own_key: false,
        usage,
        outcome: Outcome::Done,
        tried: Vec::new(),
        latency: Duration::from_millis(250),
        first_content: Some(Duration::from_millis(90)),
        cached: false,
        provider_request_id: Some("req_1".into()),
    }
}
