//! Who did what through the Studio. An entry is written before the deed, and completed after it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use longhouse_database::ServiceReason;
use tokio_postgres::types::ToSql;

use crate::operators::Operator;
use crate::{Error, Studio};

const REASON: ServiceReason = ServiceReason::because("the audit of operators belongs to nobody");
/// Characters of an address that are kept.
const LONGEST_TARGET: usize = 500;

/// Middleware, behind the guard: without an entry, nothing is done.
pub(crate) async fn record(State(studio): State<Studio>, request: Request, next: Next) -> Response {
    let Some(operator) = request.extensions().get::<Operator>().cloned() else {
        return Error::NotOperator.into_response();
    };
    let action = request.method().as_str().to_owned();
    // Of the query, only what was asked for rows: other services may carry secrets in it.
    let target = match request.uri().query() {
        Some(query) if request.uri().path().ends_with("/rows") => format!("{}?{query}", request.uri().path()),
        _ => request.uri().path().to_owned(),
    };
    let target: String = target.chars().take(LONGEST_TARGET).collect();
    let id = match begin(&studio, &operator, &action, &target).await {
        Ok(id) => id,
        Err(error) => return Error::from(error).into_response(),
    };
    let response = next.run(request).await;
    if let Err(error) = finish(&studio, id, response.status()).await {
        // The entry is there, without its outcome; the deed is done.
        tracing::error!(%error, entry = id, "the outcome of an operator's request is not in the audit");
    }
    tracing::info!(
        operator = operator.email,
        action,
        target,
        status = response.status().as_u16(),
        "an operator acted"
    );
    response
}

async fn begin(
    studio: &Studio,
    operator: &Operator,
    action: &str,
    target: &str,
) -> Result<i64, longhouse_database::Error> {
    const SQL: &str =
        "insert into longhouse.studio_audit (operator_id, operator_email, action, target, client)
        values ($1, $2, $3, $4, $5) returning id";
    let params: [&(dyn ToSql + Sync); 5] =
        [&operator.id, &operator.email, &action, &target, &operator.client];
    let rows = studio.inner.database.as_service(REASON).query(SQL, &params).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

async fn finish(studio: &Studio, id: i64, status: StatusCode) -> Result<(), longhouse_database::Error> {
    const SQL: &str = "update longhouse.studio_audit set status = $2 where id = $1";
    let status = i32::from(status.as_u16());
    studio.inner.database.as_service(REASON).execute(SQL, &[&id, &status]).await?;
    Ok(())
}
