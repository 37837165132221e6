//! Calls.

use super::condition::array_literal;
use super::write::BodyRows;
use super::{Param, Sql};
use crate::plan::{CallArguments, CallParameters, CallPlan, Field, RpcValue};
use crate::schema::{Parameter, QualifiedName};

impl Sql {
    /// Adds the select of a function's result.
    pub(crate) fn call(&mut self, plan: &CallPlan) {
        self.push("select ");
        if plan.scalar {
            self.push("pgrst_call.pgrst_scalar");
        } else if plan.returning.is_empty() {
            self.push("*");
        } else {
            let call = QualifiedName::new("", "pgrst_call");
            self.list(", ", &plan.returning, |sql, column| {
                sql.column(&call, column);
            });
        }
        self.push(" ");
        match (&plan.parameters, &plan.arguments) {
            (CallParameters::Single(parameter), arguments) => {
                self.push("from ");
                self.function(plan, |sql| sql.whole_body(parameter, arguments));
            }
            (CallParameters::Named(parameters), CallArguments::Body(body)) if !parameters.is_empty() => {
                let columns: Vec<Field> = parameters
                    .iter()
                    .map(|parameter| Field {
                        type_name: parameter.record_type.clone(),
                        ..Field::unknown(parameter.name.as_str(), Vec::new())
                    })
                    .collect();
                let rows = BodyRows { select: false, first: true, defaults: false };
                self.body_rows(body.as_ref(), &columns, rows);
                self.push(", lateral ");
                self.function(plan, |sql| {
                    let body = QualifiedName::new("", "pgrst_body");
                    sql.list(", ", parameters, |sql, parameter| {
                        sql.named(parameter).column(&body, &parameter.name);
                    });
                });
            }
            (CallParameters::Named(parameters), arguments) => {
                self.push("from ");
                self.function(plan, |sql| {
                    sql.list(", ", parameters, |sql, parameter| {
                        sql.named(parameter);
                        let value = match arguments {
                            CallArguments::Direct(values) => values.get(&parameter.name),
                            CallArguments::Body(_) => None,
                        };
                        match value {
                            Some(RpcValue::Fixed(value)) => sql.bind(value.as_str()),
                            Some(RpcValue::Variadic(values)) => {
                                sql.bind(array_literal(values)).push("::text[]")
                            }
                            None => sql.push("null"),
                        };
                        sql.push("::").type_name(&parameter.record_type);
                    });
                });
            }
        }
    }

    fn named(&mut self, parameter: &Parameter) -> &mut Self {
        if parameter.variadic {
            self.push("variadic ");
        }
        self.ident(&parameter.name).push(" := ")
    }

    fn function(&mut self, plan: &CallPlan, arguments: impl FnOnce(&mut Self)) {
        if plan.scalar {
            self.push("(select ");
        }
        self.qualified(&plan.function).push("(");
        arguments(self);
        self.push(if plan.scalar { ") pgrst_scalar) pgrst_call" } else { ") pgrst_call" });
    }

    fn whole_body(&mut self, parameter: &Parameter, arguments: &CallArguments) {
        let body = match arguments {
            CallArguments::Body(body) => body.clone(),
            CallArguments::Direct(values) => {
                let object: serde_json::Map<String, serde_json::Value> = values
                    .iter()
                    .map(|(name, value)| {
                        let value = match value {
                            RpcValue::Fixed(value) => serde_json::Value::from(value.as_str()),
                            RpcValue::Variadic(values) => serde_json::Value::from(values.clone()),
                        };
                        (name.clone(), value)
                    })
                    .collect();
                Some(serde_json::Value::Object(object).to_string().into())
            }
        };
        if parameter.type_name == "bytea" {
            self.bind(Param::Binary(body)).push("::bytea");
        } else {
            self.bind(Param::Text(body)).push("::").type_name(&parameter.type_name);
        }
    }
}
