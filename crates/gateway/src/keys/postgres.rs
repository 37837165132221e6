//! Keys that people bring, in Postgres; behind them the operator's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database};
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio_postgres::Row;
use url::Url;
use uuid::Uuid;

use super::envelope::{MasterKeys, Sealed};
use super::{ApiKey, KeySource, Owner, StaticKeys, mask};
use crate::model::ProviderName;
use crate::{Error, schema};

/// How long a key that was found (or not) is used without looking again. A key that is taken back on another server
/// works here for so long.
const FRESH: Duration = Duration::from_secs(5);
/// Most owners whose keys are remembered.
const MOST: u64 = 10_000;
/// Longest key that any provider gives; some are JSON documents.
const LONGEST: usize = 8_192;
/// Rows of one step of a rotation.
const STEP: i64 = 200;

const COLUMNS: &str =
    "id, provider, app, user_id, tenant_id, project_id, name, masked, base_url, created_at, tested_at,
    test_result";
const FIND: &str = "
    select id, provider, app, user_id, tenant_id, project_id, base_url, ciphertext, wrapped_key, master_key
    from ai.keys
    where provider = $1 and app in ('', $2) and (project_id = $3 or user_id = $4 or tenant_id = $5)
    order by project_id is null, user_id is null, app = '', id
    limit 1";
const BY_ID: &str = "
    select id, provider, app, user_id, tenant_id, project_id, base_url, ciphertext, wrapped_key, master_key
    from ai.keys where id = $1";
const PUT: &str = "
    insert into ai.keys (id, provider, app, user_id, tenant_id, project_id, name, masked, base_url, ciphertext,
      wrapped_key, master_key)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    on conflict (provider, app, coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(project_id, '00000000-0000-0000-0000-000000000000'))
    do update set id = excluded.id, name = excluded.name, masked = excluded.masked, base_url = excluded.base_url,
      ciphertext = excluded.ciphertext, wrapped_key = excluded.wrapped_key, master_key = excluded.master_key,
      created_at = now(), tested_at = null, test_result = null
    returning id, provider, app, user_id, tenant_id, project_id, name, masked, base_url, created_at, tested_at,
      test_result";
const COUNT: &str = "select count(*) from ai.keys where user_id = $1 or tenant_id = $2 or project_id = $3";
const STALE: &str = "
    select id, provider, app, user_id, tenant_id, project_id, base_url, ciphertext, wrapped_key, master_key
    from ai.keys where master_key <> $1 and id > $2 order by id limit $3";
// Only what is still as it was read: a key that its owner replaced meanwhile has its new envelope already.
const REWRAP: &str =
    "update ai.keys set wrapped_key = $2, master_key = $3 where id = $1 and wrapped_key = $4";
const TESTED: &str = "update ai.keys set tested_at = now(), test_result = $2 where id = $1";
const DELETE: &str = "delete from ai.keys where id = $1";

/// Most keys of one owner.
const MOST_OF_OWNER: i64 = 100;

/// Who brings a key: exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A person, for themselves.
    User(Uuid),
    /// A tenant, for its people.
    Tenant(Uuid),
    /// A project.
    Project(Uuid),
}

impl Holder {
    fn ids(self) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(id) => (Some(id), None, None),
            Self::Tenant(id) => (None, Some(id), None),
            Self::Project(id) => (None, None, Some(id)),
        }
    }
}

/// A key that is brought.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose it is.
    pub holder: Holder,
    /// For which provider.
    pub provider: ProviderName,
    /// Only for this application; empty: for all.
    pub app: String,
    /// What its owner calls it.
    pub name: String,
    /// The secret.
    pub secret: SecretString,
    /// A server of the owner's own.
    pub base_url: Option<Url>,
}

/// A stored key, as its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StoredKey {
    /// Its id.
    pub id: Uuid,
    /// The provider.
    pub provider: String,
    /// The application; empty: all.
    pub app: String,
    /// The person, if it is one's.
    pub user_id: Option<Uuid>,
    /// The tenant, if it is one's.
    pub tenant_id: Option<Uuid>,
    /// The project, if it is one's.
    pub project_id: Option<Uuid>,
    /// What its owner calls it.
    pub name: String,
    /// `***` and the last four characters.
    pub masked: String,
    /// A server of the owner's own.
    pub base_url: Option<String>,
    /// When it was brought.
    pub created_at: DateTime<Utc>,
    /// When it was last tested by a real call.
    pub tested_at: Option<DateTime<Utc>>,
    /// `ok`, or why it was refused.
    pub test_result: Option<String>,
}

impl StoredKey {
    fn of(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            provider: row.get("provider"),
            app: row.get("app"),
            user_id: row.get("user_id"),
            tenant_id: row.get("tenant_id"),
            project_id: row.get("project_id"),
            name: row.get("name"),
            masked: row.get("masked"),
            base_url: row.get("base_url"),
            created_at: row.get("created_at"),
            tested_at: row.get("tested_at"),
            test_result: row.get("test_result"),
        }
    }
}

/// Which key is looked for.
type Wanted = (Owner, ProviderName);

/// Keys of `ai.keys`, then the operator's. Clones share everything.
#[derive(Clone)]
pub struct PostgresKeys {
    database: Database,
    claims: Arc<Claims>,
    masters: Arc<MasterKeys>,
    platform: Arc<StaticKeys>,
    found: Cache<Wanted, Option<ApiKey>>,
}

impl std::fmt::Debug for PostgresKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresKeys").field("masters", &self.masters).finish_non_exhaustive()
    }
}

impl PostgresKeys {
    /// Keys over a database with the gateway's schema; `platform` serves who brings none.
    #[must_use]
    pub fn new(database: Database, masters: MasterKeys, platform: StaticKeys) -> Self {
        Self {
            database,
            claims: Arc::new(schema::claims()),
            masters: Arc::new(masters),
            platform: Arc::new(platform),
            found: Cache::builder().max_capacity(MOST).time_to_live(FRESH).build(),
        }
    }

    /// The operator's keys.
    #[must_use]
    pub fn platform(&self) -> &StaticKeys {
        &self.platform
    }

    /// Stores a key in place of the one that its holder had for the same.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for what is no key, [`Error::Records`].
    pub async fn put(&self, new: NewKey) -> Result<StoredKey, Error> {
        let invalid = |message: &str| Err(Error::InvalidRequest(message.to_owned()));
        let secret = new.secret.expose_secret().trim();
        if secret.is_empty() || secret.len() > LONGEST {
            return invalid("the key is empty or longer than 8192 bytes: copy it again");
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid("the key has a space or another character that no key has: copy it again");
        }
        if new.name.chars().count() > 200 || new.app.chars().count() > 64 {
            return invalid("the name has more than 200 characters, or the application's more than 64");
        }
        let (user, tenant, project) = new.holder.ids();
        let acting = self.database.as_role(&self.claims);
        let count = acting.query_opt(COUNT, &[&user, &tenant, &project]).await.map_err(schema::records)?;
        if count.is_some_and(|row| row.get::<_, i64>(0) >= MOST_OF_OWNER) {
            return invalid("there are 100 keys already: delete one first");
        }
        let id = Uuid::now_v7();
        let base_url = new.base_url.as_ref().map(Url::as_str);
        let context = context(id, new.provider.as_str(), &new.app, new.holder.ids(), base_url);
        let sealed = self.masters.seal(&secret.into(), &context);
        let row = acting
            .query_opt(
                PUT,
                &[
                    &id,
                    &new.provider.as_str(),
                    &new.app,
                    &user,
                    &tenant,
                    &project,
                    &new.name,
                    &mask(secret),
                    &base_url,
                    &sealed.ciphertext,
                    &sealed.wrapped_key,
                    &sealed.master_key,
                ],
            )
            .await
            .map_err(schema::records)?;
        self.found.invalidate_all();
        row.map(|row| StoredKey::of(&row)).ok_or_else(|| Error::Records("the key was not stored".into()))
    }

    /// The keys that `claims` may see, at most 1000.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn list(&self, claims: &Claims) -> Result<Vec<StoredKey>, Error> {
        let sql =
            const_format::formatcp!("select {COLUMNS} from ai.keys order by provider, created_at limit 1000");
        let rows = self.database.as_role(claims).query(sql, &[]).await.map_err(schema::records)?;
        Ok(rows.iter().map(StoredKey::of).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn visible(&self, claims: &Claims, id: Uuid) -> Result<Option<StoredKey>, Error> {
        let sql = const_format::formatcp!("select {COLUMNS} from ai.keys where id = $1");
        let row = self.database.as_role(claims).query_opt(sql, &[&id]).await.map_err(schema::records)?;
        Ok(row.map(|row| StoredKey::of(&row)))
    }

    /// Deletes a key, as `claims`; whether there was one.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn delete(&self, claims: &Claims, id: Uuid) -> Result<bool, Error> {
        let deleted = self.database.as_role(claims).execute(DELETE, &[&id]).await.map_err(schema::records)?;
        self.found.invalidate_all();
        Ok(deleted > 0)
    }

    /// A stored key, opened, for a test. The caller has shown that they may see it.
    ///
    /// # Errors
    /// [`Error::Records`], also when it does not open.
    pub(crate) async fn open(&self, id: Uuid) -> Result<Option<ApiKey>, Error> {
        let row =
            self.database.as_role(&self.claims).query_opt(BY_ID, &[&id]).await.map_err(schema::records)?;
        row.map(|row| self.opened(&row)).transpose()
    }

    /// Notes the outcome of a test.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub(crate) async fn tested(&self, id: Uuid, result: &str) -> Result<(), Error> {
        self.database
            .as_role(&self.claims)
            .execute(TESTED, &[&id, &result])
            .await
            .map_err(schema::records)?;
        Ok(())
    }

    /// Wraps every data key with the master key in force; how many were changed. Reading goes on meanwhile: a row opens
    /// before and after. Servers that do not know the new master key yet cannot read the changed rows, so it must have
    /// been given to all of them before.
    ///
    /// # Errors
    /// [`Error::Records`]; what was changed until then stays so, and the rest can be changed by another run.
    pub async fn rotate(&self) -> Result<u64, Error> {
        let acting = self.database.as_role(&self.claims);
        let (mut changed, mut after) = (0, Uuid::nil());
        loop {
            let rows =
                acting.query(STALE, &[&self.masters.id(), &after, &STEP]).await.map_err(schema::records)?;
            let Some(last) = rows.last() else { return Ok(changed) };
            after = last.get("id");
            for row in &rows {
                let id: Uuid = row.get("id");
                let sealed = sealed(row);
                match self.masters.rewrap(&sealed, &context_of(row)) {
                    Ok(Some(new)) => {
                        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                            [&id, &new.wrapped_key, &new.master_key, &sealed.wrapped_key];
                        changed += acting.execute(REWRAP, &parameters).await.map_err(schema::records)?;
                    }
                    Ok(None) => {}
                    // It did not open before either; the others are not kept from opening.
                    Err(error) => {
                        tracing::error!(%error, key = %id, "a stored key could not be wrapped anew");
                    }
                }
            }
        }
    }

    fn opened(&self, row: &Row) -> Result<ApiKey, Error> {
        let id: Uuid = row.get("id");
        let secret = self.masters.open(&sealed(row), &context_of(row)).map_err(|error| {
            metrics::counter!("gateway_unreadable_keys_total").increment(1);
            tracing::error!(%error, key = %id, "a stored key cannot be read");
            Error::Records(format!("the stored key {id} cannot be read"))
        })?;
        let mut key = ApiKey::new(secret).with_id(&id.to_string()).owned();
        if let Some(base_url) = row.get::<_, Option<&str>>("base_url") {
            let base_url = Url::parse(base_url)
                .map_err(|_| Error::Records(format!("the address of the stored key {id} is none")))?;
            key = key.with_base_url(base_url);
        }
        Ok(key)
    }

    async fn look_up(&self, owner: &Owner, provider: &ProviderName) -> Result<Option<ApiKey>, Error> {
        let row = self
            .database
            .as_role(&self.claims)
            .query_opt(FIND, &[&provider.as_str(), &owner.app, &owner.project, &owner.user, &owner.tenant])
            .await
            .map_err(schema::records)?;
        row.map(|row| self.opened(&row)).transpose()
    }
}

#[async_trait]
impl KeySource for PostgresKeys {
    async fn key(&self, owner: &Owner, provider: &ProviderName) -> Result<Option<ApiKey>, Error> {
        if (owner.user, owner.tenant, owner.project) != (None, None, None) {
            let wanted = (owner.clone(), provider.clone());
            let found = self.found.try_get_with(wanted, self.look_up(owner, provider)).await;
            if let Some(key) = found.map_err(|error| Error::clone(&error))? {
                return Ok(Some(key));
            }
        }
        self.platform.key(owner, provider).await
    }
}

fn sealed(row: &Row) -> Sealed {
    Sealed {
        ciphertext: row.get("ciphertext"),
        wrapped_key: row.get("wrapped_key"),
        master_key: row.get("master_key"),
    }
}

fn context_of(row: &Row) -> String {
    let ids = (row.get("user_id"), row.get("tenant_id"), row.get("project_id"));
    context(row.get("id"), row.get("provider"), row.get("app"), ids, row.get("base_url"))
}

/// What a key is, written so that no two keys read the same.
fn context(
    id: Uuid,
    provider: &str,
    app: &str,
    (user, tenant, project): (Option<Uuid>, Option<Uuid>, Option<Uuid>),
    base_url: Option<&str>,
) -> String {
    serde_json::json!(["ai.keys", id, provider, app, user, tenant, project, base_url]).to_string()
}
