//! `GET /admin/audit`: who did what, newest first, in pages; `query=author:ann`, `action:login` or `type:team` filters.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::admin::pages::Page;
use crate::service::AuthService;
use crate::service::caller::Admin;
use crate::service::error::AuthApiError;
use crate::service::store::{self, AuditEntry, AuditField};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/admin/audit", get(list))
}

async fn list(State(service): State<AuthService>, _: Admin, page: Page) -> Result<Response, AuthApiError> {
    let filter = filter(page.parameter("query"))?;
    let tx = store::begin(&service.database).await?;
    let (entries, total) = AuditEntry::page(&tx, filter, page.limit(), page.offset()).await?;
    tx.commit().await?;
    Ok((page.headers(total), Json(entries)).into_response())
}

/// `scope:text`.
fn filter(query: &str) -> Result<Option<(AuditField, &str)>, AuthApiError> {
    if query.is_empty() {
        return Ok(None);
    }
    let invalid = || AuthApiError::invalid(format!("Invalid query scope: {query}"));
    let (scope, text) = query.split_once(':').ok_or_else(invalid)?;
    let field = match scope {
        "author" => AuditField::Author,
        "action" => AuditField::Action,
        "type" => AuditField::Type,
        _ => return Err(invalid()),
    };
    Ok((!text.is_empty()).then_some((field, text)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", Ok(None))]
    #[case("author:ann", Ok(Some((AuditField::Author, "ann"))))]
    #[case("action:login", Ok(Some((AuditField::Action, "login"))))]
    #[case("type:a:b", Ok(Some((AuditField::Type, "a:b"))))]
    #[case("type:", Ok(None))]
    #[case("ann", Err(()))]
    #[case("payload:x", Err(()))]
    fn filters(#[case] query: &str, #[case] expected: Result<Option<(AuditField, &str)>, ()>) {
        assert_eq!(filter(query).map_err(|_| ()), expected);
    }
}
