//! The service's state: where rows and bytes are, and what every request needs of both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use longhouse_database::tokio_postgres::Row;
use longhouse_database::{Claims, Database, End, ServiceReason, Step};
use serde_json::Value;
use uuid::Uuid;

use crate::blobs::Blobs;
use crate::signing::SigningKey;
use crate::tus::Writers;
use crate::{Error, S3Keys};

/// Tells whose request it is: `None` without any key, else the claims, else why the key is refused.
pub type Authenticate = Arc<dyn Fn(&HeaderMap) -> Result<Option<Claims>, String> + Send + Sync>;

/// What the service is made of.
pub struct Options {
    /// Rows.
    pub database: Database,
    /// Bytes.
    pub blobs: Arc<dyn Blobs>,
    /// Whose request it is.
    pub authenticate: Authenticate,
    /// Signs and verifies signed URLs.
    pub signing: SigningKey,
    /// Largest file of any bucket, in bytes.
    pub file_size_limit: u64,
    /// Longest wait for the next piece of an upload.
    pub idle_timeout: Duration,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    pub(crate) inner: Arc<Options>,
    pub(crate) s3: Arc<S3Keys>,
    pub(crate) writers: Arc<Writers>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Storage").field("blobs", &self.inner.blobs).finish_non_exhaustive()
    }
}

/// As whom a request acts, and which one it is.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    /// `sub` of the claims: recorded as owner of what is uploaded.
    owner: Option<String>,
    operation: &'static str,
}

#[derive(Debug, Clone)]
enum Identity {
    Claims(Claims),
    Service(ServiceReason),
}

impl Caller {
    /// Somebody with claims: row-level security decides. `operation` is what policies see as `storage.operation()`.
    pub fn new(claims: Claims, operation: &'static str) -> Self {
        let parsed: Value = serde_json::from_str(claims.json()).unwrap_or_default();
        let owner = parsed.get("sub").and_then(Value::as_str).map(str::to_owned);
        Self { identity: Identity::Claims(claims), owner, operation }
    }

    /// Somebody whom a signed token, checked before, lets past row-level security for one object.
    pub fn by_token(reason: ServiceReason, owner: Option<String>, operation: &'static str) -> Self {
        Self { identity: Identity::Service(reason), owner, operation }
    }

    /// Who owns what is uploaded, as text.
    pub fn owner_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The same where it is a user's id: the older column holds nothing else.
    pub fn owner(&self) -> Option<Uuid> {
        self.owner.as_deref().and_then(|owner| Uuid::parse_str(owner).ok())
    }
}

impl Storage {
    /// Puts the parts together.
    pub fn new(options: Options) -> Self {
        Self { inner: Arc::new(options), s3: Arc::default(), writers: Arc::default() }
    }

    /// Who may speak S3. Set it before [`Self::router`].
    #[must_use]
    pub fn with_s3(mut self, keys: S3Keys) -> Self {
        self.s3 = Arc::new(keys);
        self
    }

    /// Rows.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Bytes.
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.inner.blobs
    }

    /// The key of signed URLs.
    pub fn signing(&self) -> &SigningKey {
        &self.inner.signing
    }

    /// Whose request it is, where one may come without a key.
    ///
    /// # Errors
    /// [`Error::AccessDenied`] for a key that is refused.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Option<Claims>, Error> {
        (self.inner.authenticate)(headers).map_err(Error::AccessDenied)
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// [`Error::NoKey`], or [`Error::AccessDenied`] for a key that is refused.
    pub fn caller(&self, headers: &HeaderMap, operation: &'static str) -> Result<Caller, Error> {
        match self.identify(headers)? {
            Some(claims) => Ok(Caller::new(claims, operation)),
            None => Err(Error::NoKey),
        }
    }

    /// Statements of one transaction as the caller, in one round trip.
    ///
    /// # Errors
    /// What Postgres refuses.
    pub async fn run(
        &self,
        caller: &Caller,
        steps: &[Step<'_>],
        end: End<'_>,
    ) -> Result<Vec<Vec<Row>>, Error> {
        self.run_with(caller, &[], steps, end).await
    }

    pub(crate) async fn run_with(
        &self,
        caller: &Caller,
        settings: &[(&str, &str)],
        steps: &[Step<'_>],
        end: End<'_>,
    ) -> Result<Vec<Vec<Row>>, Error> {
        let database = self.database();
        let acting = match &caller.identity {
            Identity::Claims(claims) => database.as_role(claims),
            Identity::Service(reason) => database.as_service(*reason),
        };
        let mut all = vec![("storage.operation", caller.operation)];
        all.extend_from_slice(settings);
        Ok(acting.pipeline(&all, steps, end).await?)
    }

    /// One statement as the caller.
    ///
    /// # Errors
    /// What Postgres refuses.
    pub async fn query(
        &self,
        caller: &Caller,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut rows = self.run(caller, &[Step { sql, params }], End::Commit).await?;
        Ok(rows.pop().unwrap_or_default())
    }

    /// One statement as the caller that returns a row for each that it changes, and how many those are.
    pub(crate) async fn count(
        &self,
        caller: &Caller,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, Error> {
        Ok(self.query(caller, sql, params).await?.len() as u64)
    }
}
