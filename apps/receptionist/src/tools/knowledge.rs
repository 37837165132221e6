//! Facts of the business.

use longhouse_database::Database;
use longhouse_voice::session::ToolCall;
use longhouse_voice::upstreams::realtime::ToolSpec;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{parameters, text};
use crate::store;

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "search_knowledge",
        description: "Looks up facts of this business: prices, services, opening hours, location, rules."
            .into(),
        parameters: parameters(
            json!({ "query": { "type": "string", "description": "The caller's question in a few words" } }),
            &["query"],
        ),
    }
}

pub(super) async fn search(database: &Database, tenant: Uuid, call: &ToolCall) -> Value {
    let Some(query) = text(call, "query") else {
        return json!({ "error": "`query` is missing; call again with the caller's question" });
    };
    match store::search_knowledge(database, tenant, &query).await {
        Ok(findings) if findings.is_empty() => json!({
            "found": false,
            "results": [],
            "next": "Say that you do not have that information and offer to take a message.",
        }),
        Ok(findings) => {
            let results: Vec<_> = findings
                .iter()
                .map(|f| json!({ "id": f.id, "title": f.title, "content": f.content, "score": f.score }))
                .collect();
            json!({ "found": true, "results": results })
        }
        Err(error) => {
            tracing::error!(%tenant, %error, "knowledge cannot be searched");
            json!({ "error": "the search failed; apologise and offer to take a message" })
        }
    }
}
