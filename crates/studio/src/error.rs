//! What goes wrong, as clients hear it.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use longhouse_identity::{AuthError, KeysError};
use longhouse_server::ApiError;

/// Errors of the Studio's API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No token, or one that is not good.
    #[error(transparent)]
    Token(#[from] AuthError),
    /// Signed in, and no operator.
    #[error("this account is not an operator of the project")]
    NotOperator,
    /// An operator whose session is over.
    #[error("this session has ended")]
    SessionEnded,
    /// An operator with a second factor who has not shown it.
    #[error("this account has a second factor, which this session has not shown")]
    SecondFactor,
    /// A table that is not there.
    #[error("there is no table `{0}`")]
    NoTable(String),
    /// A parameter that cannot be.
    #[error("{0}")]
    Parameter(&'static str),
    /// Not a service that operators reach through the Studio.
    #[error("the Studio does not reach that address")]
    NotReached,
    /// The database's.
    #[error("the database did not answer")]
    Database(#[from] longhouse_database::Error),
    /// The keys cannot be read.
    #[error("the keys cannot be read")]
    Keys(#[from] KeysError),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let (status, code, hint) = match self {
            Self::Token(error) => return error.into_response(),
            Self::NotOperator => {
                let hint = "whoever runs the server makes it one: longhouse studio grant EMAIL";
                (StatusCode::FORBIDDEN, "not_operator", hint)
            }
            Self::SessionEnded => (StatusCode::FORBIDDEN, "session_ended", "sign in again"),
            Self::SecondFactor => (StatusCode::FORBIDDEN, "mfa_required", "verify the second factor"),
            Self::NoTable(_) => (StatusCode::NOT_FOUND, "no_table", "GET /studio/v1/tables lists them"),
            Self::Parameter(_) => {
                (StatusCode::BAD_REQUEST, "invalid_parameter", "see /openapi.json for the parameters")
            }
            Self::NotReached => (
                StatusCode::NOT_FOUND,
                "not_reached",
                "below /studio/v1/service are accounts, files and the mailbox",
            ),
            Self::Database(error) => {
                tracing::error!(%error, "the Studio could not ask the database");
                let hint = "try again; the server's log says why";
                (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", hint)
            }
            Self::Keys(error) => {
                tracing::error!(%error, "the Studio could not read the keys");
                let hint = "try again; the server's log says why";
                (StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable", hint)
            }
        };
        ApiError::new(status, code, message).hint(hint).into_response()
    }
}
