//! `GET /studio/v1/project`: what the sign-in page needs. Nothing in it is secret.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Error, Studio, operators};

/// The project, to somebody who has not signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Project {
    /// The key that pages may hold.
    publishable_key: String,
    version: &'static str,
    /// Whether nobody is an operator yet.
    first_run: bool,
    /// Whether files are served here.
    storage: bool,
    /// Whether mail is kept in the mailbox instead of sent.
    mailbox: bool,
}

#[utoipa::path(
    get, path = "/studio/v1/project", tag = "studio",
    responses((status = 200, body = Project, description = "For everybody"))
)]
pub(crate) async fn project(State(studio): State<Studio>) -> Result<Json<Project>, Error> {
    let inner = &studio.inner;
    Ok(Json(Project {
        publishable_key: inner.publishable_key.clone(),
        version: inner.version,
        first_run: !operators::exist(&inner.database).await?,
        storage: inner.has_storage,
        mailbox: inner.has_mailbox,
    }))
}
