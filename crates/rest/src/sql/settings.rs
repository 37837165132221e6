//! Settings of the transaction: who acts, and what the database may know of the request.

use super::statement::call_without_arguments;
use super::{Param, Sql, Statement, quote_ident};
use crate::config::RestConfig;
use crate::plan::Plan;
use crate::request::ApiRequest;
use crate::schema::{QualifiedName, SchemaCache};

/// Sets everything in one statement. The settings of the role come before the role itself, so that the right to make
/// them is the connection's.
pub(crate) fn settings(
    request: &ApiRequest,
    plan: &Plan,
    role: &str,
    claims: &str,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Statement {
    let mut sql = Sql::new();
    let mut search_path = quote_ident(&request.schema);
    for schema in &config.extra_search_path {
        search_path.push_str(", ");
        search_path.push_str(&quote_ident(schema));
    }
    sql.push("select ").set("search_path", search_path);
    if let Some(of_role) = cache.role_settings.get(role) {
        sql.set_all(&of_role.settings);
    }
    sql.push(", ").set("role", role).push(", ").set("request.jwt.claims", claims);
    sql.push(", ").set("request.method", request.method.as_str());
    sql.push(", ").set("request.path", request.path.as_str());
    sql.push(", ").set("request.headers", object(&request.headers));
    sql.push(", ").set("request.cookies", object(&request.cookies));
    if let Some(timezone) = &request.preferences.timezone {
        sql.push(", ").set("timezone", timezone.as_str());
    }
    if let Plan::Call(call) = plan {
        sql.set_all(&call.routine.settings);
    }
    sql.set_all(&config.app_settings);
    sql.finish()
}

/// Calls the function that may refuse a request or prepare its transaction.
pub(crate) fn pre_request(function: &QualifiedName) -> Statement {
    call_without_arguments(function)
}

fn object(pairs: &[(String, String)]) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        pairs.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    serde_json::Value::Object(map).to_string()
}

impl Sql {
    fn set(&mut self, name: &str, value: impl Into<Param>) -> &mut Self {
        self.push("set_config('").push(name).push("', ").bind(value).push(", true)")
    }

    fn set_all(&mut self, settings: &[(String, String)]) {
        for (name, value) in settings {
            self.push(", set_config(").bind(name.as_str()).push(", ").bind(value.as_str()).push(", true)");
        }
    }
}
