//! Who is an operator: `app_metadata.longhouse_operator`, which only the server's owner and other operators can set.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use longhouse_database::{Claims, Database};
use longhouse_identity::{AuthError, credential};
use longhouse_server::ClientIp;
use serde_json::{Map, Value};
use std::net::IpAddr;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{Error, Studio};

/// The member of `app_metadata` that makes an account an operator's.
pub const CLAIM: &str = "longhouse_operator";

/// Owns the tables of accounts.
const AUTH_ROLE: &str = "supabase_auth_admin";

/// A request's operator.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) client: Option<IpAddr>,
}

/// Middleware in front of everything that only operators may ask.
pub(crate) async fn guard(State(studio): State<Studio>, mut request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ClientIp>().map(|client| client.0);
    match check(&studio, request.headers(), client).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            let mut response = next.run(request).await;
            // Accounts and rows stay in no cache.
            response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            metrics::counter!("studio_refused_total").increment(1);
            error.into_response()
        }
    }
}

/// The token must name an operator, and the database must still agree: the right may have been taken away, the
/// account banned or the session ended since the token was signed.
async fn check(studio: &Studio, headers: &HeaderMap, client: Option<IpAddr>) -> Result<Operator, Error> {
    const SQL: &str = "select coalesce(u.email, ''),
            coalesce(u.raw_app_meta_data -> 'longhouse_operator' = 'true', false)
              and coalesce(u.banned_until < now(), true),
            exists (select from auth.sessions s
              where s.id = $2 and s.user_id = u.id and coalesce(s.not_after > now(), true)),
            exists (select from auth.mfa_factors f where f.user_id = u.id and f.status = 'verified')
        from auth.users u where u.id = $1 and u.deleted_at is null";
    let token = credential(headers)?.ok_or(AuthError::Missing)?;
    let claims = studio.inner.verifier.verify(token)?;
    let claims: Value = serde_json::from_str(claims.json()).map_err(|_| AuthError::Malformed)?;
    let id = |name: &str| claims[name].as_str().and_then(|id| Uuid::parse_str(id).ok());
    let named = claims["role"] == "authenticated" && claims["app_metadata"][CLAIM] == true;
    let subject = id("sub").filter(|_| named).ok_or(Error::NotOperator)?;
    let session = id("session_id").ok_or(Error::SessionEnded)?;
    let row = accounts(&studio.inner.database, SQL, &[&subject, &session]).await?;
    let row = row.ok_or(Error::NotOperator)?;
    let (email, operator, alive, factors): (String, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    match (operator, alive) {
        (false, _) => Err(Error::NotOperator),
        (true, false) => Err(Error::SessionEnded),
        _ if factors && claims["aal"] != "aal2" => Err(Error::SecondFactor),
        _ => Ok(Operator { id: subject, email, client }),
    }
}

/// At most one row of a statement on the tables of accounts, as the role that owns them.
pub(crate) async fn accounts(
    database: &Database,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Option<tokio_postgres::Row>, longhouse_database::Error> {
    let claims = Claims::agent(AUTH_ROLE, Map::new());
    database.as_role(&claims).query_opt(sql, params).await
}

/// Whether the project has any operator.
pub(crate) async fn exist(database: &Database) -> Result<bool, longhouse_database::Error> {
    const SQL: &str = "select exists (select from auth.users
        where raw_app_meta_data -> 'longhouse_operator' = 'true' and deleted_at is null)";
    Ok(accounts(database, SQL, &[]).await?.is_some_and(|row| row.get(0)))
}

/// The account of an address, operator or not.
///
/// # Errors
/// The database's.
pub async fn find(database: &Database, email: &str) -> Result<Option<Uuid>, longhouse_database::Error> {
    const SQL: &str = "select id from auth.users
        where email = lower($1) and deleted_at is null and not is_sso_user";
    Ok(accounts(database, SQL, &[&email]).await?.map(|row| row.get(0)))
}

/// An operator's account, for the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// Its address.
    pub email: String,
}

fn account(row: &tokio_postgres::Row) -> Account {
    Account { id: row.get(0), email: row.get(1) }
}

/// Makes the account of an address an operator's; `None` if there is none. As the database's owner.
///
/// # Errors
/// The database's.
pub async fn grant(owner: &Client, email: &str) -> Result<Option<Account>, tokio_postgres::Error> {
    const SQL: &str = "update auth.users set updated_at = now(),
            raw_app_meta_data = coalesce(raw_app_meta_data, '{}') || '{\"longhouse_operator\": true}'
        where lower(email) = lower($1) and deleted_at is null and not is_sso_user
        returning id, email::text";
    Ok(owner.query_opt(SQL, &[&email]).await?.as_ref().map(account))
}

/// Takes the right away, at once; `None` if the address has no account that is an operator's.
///
/// # Errors
/// The database's.
pub async fn revoke(owner: &Client, email: &str) -> Result<Option<Account>, tokio_postgres::Error> {
    const SQL: &str = "update auth.users set updated_at = now(),
            raw_app_meta_data = raw_app_meta_data - 'longhouse_operator'
        where lower(email) = lower($1) and raw_app_meta_data ? 'longhouse_operator' and not is_sso_user
        returning id, email::text";
    Ok(owner.query_opt(SQL, &[&email]).await?.as_ref().map(account))
}

/// Every operator, by address.
///
/// # Errors
/// The database's.
pub async fn list(owner: &Client) -> Result<Vec<Account>, tokio_postgres::Error> {
    const SQL: &str = "select id, coalesce(email, '')::text from auth.users
        where raw_app_meta_data -> 'longhouse_operator' = 'true' and deleted_at is null order by 2, 1";
    Ok(owner.query(SQL, &[]).await?.iter().map(account).collect())
}
