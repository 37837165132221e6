//! `GET /`: the OpenAPI description of what the role may use.

use bytes::Bytes;
use http::StatusCode;

use crate::config::OpenApiMode;
use crate::error::Error;
use crate::execute::{Answer, Content, Context, inspect};
use crate::openapi::{ACCESS, Access, Place, document};
use crate::plan::Plan;
use crate::request::{ApiRequest, MediaType};
use crate::sql::{Param, Statement};

pub(crate) async fn describe(
    context: Context<'_>,
    plan: &Plan,
    request: &ApiRequest,
    head: bool,
    place: &Place,
) -> Result<Answer, Error> {
    let Context { cache, config, .. } = context;
    // The privileges are looked up in any case: the role must exist, and the request may be refused beforehand.
    let statement = Statement { sql: ACCESS.into(), params: vec![Param::from(request.schema.as_str())] };
    let rows = inspect(context, plan, request, statement).await?;
    let access = match config.openapi_mode {
        OpenApiMode::Disabled => return Err(Error::OpenApiDisabled),
        OpenApiMode::IgnorePrivileges => Access::everything(cache, &request.schema),
        OpenApiMode::FollowPrivileges => {
            let json = rows.first().and_then(|row| row.text(0));
            json.map(|json| Access::from_json(&json)).transpose().map_err(unreadable)?.unwrap_or_default()
        }
    };
    let mut answer = Answer::new(StatusCode::OK);
    answer.set_content(&MediaType::OpenApi, request);
    if !head {
        let document = document(cache, config, &request.schema, &access, place);
        answer.body = Content::Whole(Bytes::from(document.to_string()));
    }
    Ok(answer)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Internal(format!("the privileges of a schema cannot be read: {error}"))
}
