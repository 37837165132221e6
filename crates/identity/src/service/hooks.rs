//! Functions of the project's database that take part: today the one that may change an access token's claims.

use serde_json::{Map, Value, json};

use super::AuthService;
use super::error::AuthApiError;
use super::store::{Tx, User};

impl AuthService {
    /// The claims as the project's hook wants them; unchanged without one.
    pub(crate) async fn hooked(
        &self,
        tx: &Tx,
        user: &User,
        method: &str,
        claims: Map<String, Value>,
    ) -> Result<Map<String, Value>, AuthApiError> {
        let Some(call) = &self.hook_call else { return Ok(claims) };
        let event = json!({ "user_id": user.id, "claims": claims, "authentication_method": method });
        let row = tx.query_opt(call.as_ref(), &[&event]).await.map_err(AuthApiError::internal)?;
        match row.and_then(|row| row.get::<_, Option<Value>>(0)) {
            Some(Value::Object(mut answer)) => match answer.remove("claims") {
                Some(Value::Object(claims)) => Ok(claims),
                _ => Err(AuthApiError::internal("the access token hook returned no `claims` object")),
            },
            _ => Err(AuthApiError::internal("the access token hook returned no JSON object")),
        }
    }
}
