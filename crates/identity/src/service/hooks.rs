//! Functions of the project's database that take part: today the one that may change an access token's claims.

use std::fmt::Write as _;

use http::StatusCode;
use longhouse_database::tokio_postgres::error::SqlState;
use serde_json::{Map, Value, json};

use super::AuthService;
use super::error::AuthApiError;
use super::store::{Tx, User};

/// Longest that a function may take, as Postgres writes durations.
const TIME_LIMIT: &str = "2s";
/// Longest sentence of a function that is passed on.
const LONGEST_MESSAGE: usize = 1000;

/// What a claim has to be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    TextOrList,
    Whole,
    List,
    Object,
    Anything,
}

/// Supabase Auth's schema of an access token: name, kind, whether it must be there.
const CLAIMS: &[(&str, Kind, bool)] = &[
    ("aud", Kind::TextOrList, true),
    ("exp", Kind::Whole, true),
    ("iat", Kind::Whole, true),
    ("sub", Kind::Text, true),
    ("email", Kind::Text, true),
    ("phone", Kind::Text, true),
    ("role", Kind::Text, true),
    ("aal", Kind::Text, true),
    ("session_id", Kind::Text, true),
    ("is_anonymous", Kind::Anything, true),
    ("jti", Kind::Text, false),
    ("iss", Kind::Text, false),
    ("nbf", Kind::Whole, false),
    ("app_metadata", Kind::Object, false),
    ("user_metadata", Kind::Object, false),
    ("amr", Kind::List, false),
    ("client_id", Kind::Text, false),
];

impl AuthService {
    /// The claims as the project's hook wants them; unchanged without one.
    ///
    /// # Errors
    /// What the hook says (`{"error": {"http_code", "message"}}`), or that it failed, took too long, or took away a
    /// claim that must be there.
    pub(crate) async fn hooked(
        &self,
        tx: &Tx,
        user: &User,
        method: &str,
        claims: Map<String, Value>,
    ) -> Result<Map<String, Value>, AuthApiError> {
        let Some(call) = &self.hook_call else { return Ok(claims) };
        let event = json!({ "user_id": user.id, "claims": claims, "authentication_method": method });
        let before = tx.query_opt("select current_setting('statement_timeout')", &[]).await?;
        let before: String = before.map_or_else(|| "0".to_owned(), |row| row.get(0));
        limit_time(tx, TIME_LIMIT).await?;
        let row = tx.query_opt(call.as_ref(), &[&event]).await.map_err(|error| match error.sql_state() {
            Some(&SqlState::QUERY_CANCELED) => {
                tracing::error!(%error, "the access token hook took longer than {TIME_LIMIT}");
                let message = "Failed to run the access token hook within maximum time of 2 seconds";
                AuthApiError::unprocessable("hook_timeout", message)
            }
            Some(_) => AuthApiError::internal(format!("the access token hook failed: {error}")),
            None => error.into(),
        })?;
        limit_time(tx, &before).await?;
        read(row.and_then(|row| row.get(0)))
    }
}

async fn limit_time(tx: &Tx, limit: &str) -> Result<(), longhouse_database::Error> {
    tx.query("select set_config('statement_timeout', $1, true)", &[&limit]).await.map(drop)
}

/// What a hook's answer means.
fn read(answer: Option<Value>) -> Result<Map<String, Value>, AuthApiError> {
    let Some(Value::Object(mut answer)) = answer else {
        return Err(misbehaved("The access token hook returned no JSON object"));
    };
    if let Some(error) = refusal(&answer) {
        return Err(error);
    }
    let Some(Value::Object(claims)) = answer.remove("claims") else {
        return Err(misbehaved("output claims field is missing"));
    };
    let mut wrong = String::new();
    for (name, kind, required) in CLAIMS {
        match claims.get(*name) {
            None if *required => _ = write!(wrong, "\n- (root): {name} is required"),
            Some(value) if !is(value, *kind) => {
                _ = write!(wrong, "\n- {name}: invalid type, {kind:?} is expected");
            }
            _ => {}
        }
    }
    match wrong.is_empty() {
        true => Ok(claims),
        false => Err(misbehaved(format!("output claims do not conform to the expected schema: {wrong}"))),
    }
}

fn is(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Text => value.is_string(),
        Kind::TextOrList => value.is_string() || value.is_array(),
        Kind::Whole => value.is_i64() || value.is_u64(),
        Kind::List => {
            value.as_array().is_some_and(|list| list.iter().all(|item| item.is_string() || item.is_object()))
        }
        Kind::Object => value.is_object(),
        Kind::Anything => true,
    }
}

/// The sign-in that a hook refuses, in its own words: they are meant for the person.
fn refusal(answer: &Map<String, Value>) -> Option<AuthApiError> {
    let error = answer.get("error")?.as_object()?;
    let message = error.get("message").and_then(Value::as_str).filter(|message| !message.is_empty())?;
    let status = error
        .get("http_code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = if status == StatusCode::INTERNAL_SERVER_ERROR { "unexpected_failure" } else { "unknown" };
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    Some(AuthApiError::new(status, code, message))
}

/// The project's own mistake, told to the project's own developers.
fn misbehaved(message: impl Into<std::borrow::Cow<'static, str>>) -> AuthApiError {
    let message = message.into();
    tracing::error!(%message, "the access token hook misbehaves");
    AuthApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn claims(change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = json!({
            "aud": "authenticated", "exp": 2, "iat": 1, "sub": "u", "email": "", "phone": "", "role": "authenticated",
            "aal": "aal1", "session_id": "s", "is_anonymous": false,
        });
        change(&mut claims);
        json!({ "claims": claims })
    }

    #[test]
    fn claims_may_be_added_and_changed() {
        let answer = claims(|claims| {
            claims["tenant"] = json!(7);
            claims["aud"] = json!(["a", "b"]);
        });
        let claims = read(Some(answer)).unwrap();
        assert_eq!((&claims["tenant"], &claims["aud"]), (&json!(7), &json!(["a", "b"])));
    }

    #[rstest]
    #[case::nothing(None, "no JSON object")]
    #[case::text(Some(json!("x")), "no JSON object")]
    #[case::no_claims(Some(json!({ "sub": "x" })), "claims field is missing")]
    #[case::claims_not_object(Some(json!({ "claims": [] })), "claims field is missing")]
    #[case::taken_away(Some(claims(|claims| _ = claims.as_object_mut().unwrap().remove("email"))), "email is required")]
    #[case::null(Some(claims(|claims| claims["sub"] = Value::Null)), "sub: invalid type")]
    #[case::fraction(Some(claims(|claims| claims["exp"] = json!(1.5))), "exp: invalid type")]
    #[case::amr(Some(claims(|claims| claims["amr"] = json!([1]))), "amr: invalid type")]
    fn broken_answers_are_told(#[case] answer: Option<Value>, #[case] message: &str) {
        let error = read(answer).unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
        assert_eq!((error.status().as_u16(), error.code()), (500, "unexpected_failure"));
    }

    #[rstest]
    #[case(json!({ "http_code": 403, "message": "no" }), 403, "unknown")]
    #[case(json!({ "message": "no" }), 500, "unexpected_failure")]
    #[case(json!({ "http_code": 200, "message": "no" }), 500, "unexpected_failure")]
    #[case(json!({ "http_code": 99999, "message": "no" }), 500, "unexpected_failure")]
    fn refusals_are_the_hooks_own(#[case] error: Value, #[case] status: u16, #[case] code: &str) {
        let error = read(Some(json!({ "error": error }))).unwrap_err();
        assert_eq!((error.status().as_u16(), error.code(), error.message()), (status, code, "no"));
    }

    #[test]
    fn an_error_without_a_message_is_none() {
        let mut answer = claims(|_| ());
        answer["error"] = json!({ "http_code": 403, "message": "" });
        assert!(read(Some(answer)).is_ok());
    }
}
