//! Searching what a tenant's agent knows.

use longhouse_database::{Database, Error};
use uuid::Uuid;

use super::agent_of;
use crate::domain::question::widened;

/// Entries given to the model.
const MOST: i32 = 3;

/// An entry that answers a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) content: String,
    pub(crate) score: f32,
}

/// The best entries for a question; none is an answer, an error is not (B13).
pub(crate) async fn search_knowledge(
    database: &Database,
    tenant: Uuid,
    question: &str,
) -> Result<Vec<Finding>, Error> {
    let rows = database
        .as_role(&agent_of(tenant))
        .query(
            "select id, title, content, score from receptionist.search_knowledge($1, $2)",
            &[&widened(question), &MOST],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Finding { id: row.get(0), title: row.get(1), content: row.get(2), score: row.get(3) })
        .collect())
}
