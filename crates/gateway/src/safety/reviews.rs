//! The review queue: what was blocked or doubted, for a person to look at.

use async_trait::async_trait;
use longhouse_database::{Claims, Database};
use uuid::Uuid;

use super::{Action, Verdict};
use crate::keys::Owner;
use crate::model::Task;
use crate::{Error, schema};

/// Longest excerpt that is kept, in characters.
const EXCERPT: usize = 2_000;

const NOTE: &str = "
    insert into ai.reviews (call_id, task, app, user_id, tenant_id, project_id, subject, action, findings, excerpt)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Something to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The call's id in the ledger.
    pub call: Uuid,
    /// What for.
    pub task: Task,
    /// For whom.
    pub owner: Owner,
    /// `request` or `answer`.
    pub subject: &'static str,
    /// What was found, and done.
    pub verdict: Verdict,
    /// The text, or its beginning.
    pub excerpt: String,
}

/// Keeps what is to be looked at.
#[async_trait]
pub trait Reviews: Send + Sync {
    /// Stores a review.
    ///
    /// # Errors
    /// [`Error::Records`]; the gateway logs it: what was blocked stays blocked.
    async fn note(&self, review: Review) -> Result<(), Error>;
}

/// The queue in `ai.reviews`.
#[derive(Debug, Clone)]
pub struct PostgresReviews {
    database: Database,
    claims: Claims,
}

impl PostgresReviews {
    /// Over a database with the gateway's schema.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, claims: schema::claims() }
    }
}

#[async_trait]
impl Reviews for PostgresReviews {
    async fn note(&self, review: Review) -> Result<(), Error> {
        let action = match review.verdict.action {
            Action::Allow => return Ok(()),
            Action::Review => "review",
            Action::Block => "block",
        };
        let findings =
            serde_json::to_value(&review.verdict.findings).map_err(|e| Error::Records(e.to_string()))?;
        // Postgres' texts hold no zero bytes.
        let excerpt: String = review.excerpt.chars().filter(|c| *c != '\0').take(EXCERPT).collect();
        let owner = &review.owner;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 10] = [
            &review.call,
            &review.task.as_str(),
            &owner.app,
            &owner.user,
            &owner.tenant,
            &owner.project,
            &review.subject,
            &action,
            &findings,
            &excerpt,
        ];
        self.database.as_role(&self.claims).execute(NOTE, &parameters).await.map_err(schema::records)?;
        Ok(())
    }
}
