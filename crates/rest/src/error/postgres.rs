//! Errors of Postgres: statuses of SQLSTATEs, and answers that functions raise.

use std::collections::BTreeMap;

use longhouse_database::batch::Refusal;
use serde::Deserialize;

/// What Postgres said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PostgresError {
    /// SQLSTATE.
    pub code: String,
    /// Primary message.
    pub message: String,
    /// Detail.
    pub detail: Option<String>,
    /// Hint.
    pub hint: Option<String>,
}

/// PGRST121: what is wrong with an answer raised by `raise sqlstate 'PGRST'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaiseError {
    /// The message is not the object that it must be.
    Message(String),
    /// The detail is not.
    Detail(String),
    /// There is no detail.
    NoDetail,
}

impl RaiseError {
    pub(super) const MESSAGE: &'static str = "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error";

    pub(super) fn details(&self) -> String {
        match self {
            Self::Message(text) => format!("Invalid JSON value for MESSAGE: '{text}'"),
            Self::Detail(text) => format!("Invalid JSON value for DETAIL: '{text}'"),
            Self::NoDetail => "DETAIL is missing in the RAISE statement".to_owned(),
        }
    }

    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Message(_) => {
                "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', \
                 'hint'."
            }
            Self::Detail(_) | Self::NoDetail => {
                "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: \
                 'status_text'."
            }
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RaisedBody {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) details: Option<String>,
    pub(super) hint: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RaisedHead {
    pub(super) status: u16,
    pub(super) status_text: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
}

impl PostgresError {
    /// The whole answer that a function raised with SQLSTATE `PGRST`; none for any other error.
    pub(super) fn raised(&self) -> Option<Result<(RaisedBody, RaisedHead), RaiseError>> {
        (self.code == "PGRST").then(|| {
            let body =
                serde_json::from_str(&self.message).map_err(|_| RaiseError::Message(self.message.clone()))?;
            let detail = self.detail.as_ref().ok_or(RaiseError::NoDetail)?;
            let head = serde_json::from_str(detail).map_err(|_| RaiseError::Detail(detail.clone()))?;
            Ok((body, head))
        })
    }

    /// The message that the client sees.
    pub(super) fn message(&self) -> String {
        match self.raised() {
            None => self.message.clone(),
            Some(Ok((body, _))) => body.message,
            Some(Err(_)) => RaiseError::MESSAGE.to_owned(),
        }
    }

    /// Status and reason of the answer; `authenticated` says whether the role came from a token.
    pub(super) fn status(&self, authenticated: bool) -> (u16, Option<String>) {
        match self.raised() {
            Some(Ok((_, head))) => (head.status, head.status_text),
            Some(Err(_)) => (500, None),
            None => match self.code.strip_prefix("PT") {
                Some(status) => {
                    status.parse().map_or((500, None), |status| (status, Some(self.message.clone())))
                }
                None => (sqlstate_status(&self.code, &self.message, authenticated), None),
            },
        }
    }
}

fn sqlstate_status(code: &str, message: &str, authenticated: bool) -> u16 {
    match code {
        // foreign_key_violation, unique_violation
        "23503" | "23505" => 409,
        // read_only_sql_transaction: a function that writes was called by GET
        "25006" => 405,
        // cardinality_violation: the client's fault only when safeupdate misses a filter
        "21000" if message.ends_with("requires a WHERE clause") => 400,
        "21000" => 500,
        // invalid_parameter_value: the token names a role that does not exist
        "22023" if message.starts_with("role") && message.ends_with("does not exist") => 401,
        "53400" => 500,
        // admin_shutdown
        "57P01" => 503,
        // raise without a code
        "P0001" => 400,
        // undefined_function; a result that has no XML form
        "42883" if message.starts_with("function xmlagg(") => 406,
        // undefined_function, undefined_table
        "42883" | "42P01" => 404,
        // infinite recursion
        "42P17" => 500,
        // insufficient_privilege
        "42501" if authenticated => 403,
        "42501" => 401,
        _ => match code.get(..2) {
            Some("08" | "53") => 503,
            Some("0L" | "0P" | "28") => 403,
            Some(
                "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV"
                | "P0" | "XX",
            ) => 500,
            _ => 400,
        },
    }
}

impl From<Refusal> for PostgresError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, detail, hint } = refusal;
        Self { code: code.code().to_owned(), message, detail, hint }
    }
}
