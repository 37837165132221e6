//! Calls: which overload is meant, and how its arguments are given.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::mutate::{needed_columns, raw};
use super::read::tree;
use super::{Condition, RoutinePlan, negotiate};
use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{ApiRequest, Invocation, MediaType, Payload};
use crate::response::headers::allow_routine;
use crate::schema::{Parameter, QualifiedName, Routine, SchemaCache, Volatility};

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CallPlan {
    pub(crate) function: QualifiedName,
    pub(crate) parameters: CallParameters,
    pub(crate) arguments: CallArguments,
    /// It returns values rather than rows.
    pub(crate) scalar: bool,
    /// Columns that are read from the result; empty for all.
    pub(crate) returning: BTreeSet<String>,
}

/// Parameters that get an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallParameters {
    /// By name.
    Named(Vec<Parameter>),
    /// The only one, without a name: it takes the whole body.
    Single(Parameter),
}

/// Where arguments come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallArguments {
    /// The query string or a form.
    Direct(HashMap<String, RpcValue>),
    /// The body.
    Body(Option<Bytes>),
}

/// An argument of the query string or a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RpcValue {
    /// One value.
    Fixed(String),
    /// Values of a variadic parameter.
    Variadic(Vec<String>),
}

pub(super) fn plan(
    request: &ApiRequest,
    routine: &str,
    invocation: Invocation,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<RoutinePlan, Error> {
    let name = QualifiedName::new(request.schema.as_str(), routine);
    let by_body = invocation == Invocation::Post;
    let names: BTreeSet<String> = if by_body {
        request.columns.clone()
    } else {
        request.query.arguments.iter().map(|(name, _)| name.clone()).collect()
    };
    let routine = find(&name, &names, &request.content_type, by_body, cache)?;
    // Its result is read as the table whose rows it returns, so that it can embed.
    let read_as = QualifiedName::new(
        routine.name.schema.as_str(),
        routine.composite().map_or(routine.name.name.as_str(), |composite| composite.name.as_str()),
    );
    let tree = tree(request, &read_as, cache, config)?;

    let arguments = match &request.payload {
        _ if !by_body => CallArguments::Direct(direct(routine, &request.query.arguments)),
        Some(Payload::Form(fields)) => CallArguments::Direct(direct(routine, fields)),
        payload => CallArguments::Body(payload.as_ref().and_then(raw)),
    };
    let given = |parameters: &[Parameter]| {
        let given = parameters.iter().filter(|parameter| names.contains(&parameter.name));
        CallParameters::Named(given.cloned().collect())
    };
    let parameters = match &routine.parameters[..] {
        [only] if only.name.is_empty() => CallParameters::Single(only.clone()),
        parameters => given(parameters),
    };
    let mut returning = needed_columns(&tree, &[]);
    if !returning.is_empty() && !returning.contains("*") {
        tree.filters.iter().for_each(|condition| filtered(condition, &mut returning));
        let ordered = tree.order.iter().filter(|term| term.relation.is_none());
        returning.extend(ordered.map(|term| term.field.name.clone()));
    }
    let call = CallPlan {
        function: routine.name.clone(),
        parameters,
        arguments,
        scalar: routine.returns_scalar() || routine.returns_set_of_scalar(),
        returning,
    };

    let output = negotiate::output(request, &read_as, tree.is_default_select(), cache, config)?;
    request.preferences.check()?;
    let preferences = &request.preferences;
    if preferences.max_affected.is_some() && preferences.strict == Some(true) && !routine.returns.is_set {
        return Err(Error::MaxAffectedRpc);
    }
    Ok(RoutinePlan {
        tree,
        call,
        output,
        read_only: !by_body || routine.volatility != Volatility::Volatile,
        routine: routine.clone(),
        invocation,
    })
}

/// Methods that a function takes.
pub(super) fn options(
    request: &ApiRequest,
    routine: &str,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<String, Error> {
    let plan = plan(request, routine, Invocation::Head, cache, config)?;
    Ok(allow_routine(&plan.routine).into())
}

/// Columns of the result that its filters look at.
fn filtered(condition: &Condition, into: &mut BTreeSet<String>) {
    match condition {
        Condition::Group { members, .. } => members.iter().for_each(|member| filtered(member, into)),
        Condition::Compare { field, .. } => {
            into.insert(field.name.clone());
        }
        Condition::Unmatched { .. } => {}
    }
}

fn direct(routine: &Routine, given: &[(String, String)]) -> HashMap<String, RpcValue> {
    let mut arguments: HashMap<String, RpcValue> = HashMap::new();
    for (name, value) in given {
        let variadic =
            routine.is_variadic && routine.parameters.iter().any(|p| p.variadic && p.name == *name);
        match arguments.get_mut(name) {
            Some(RpcValue::Variadic(values)) if variadic => values.push(value.clone()),
            _ => {
                let value = if variadic {
                    RpcValue::Variadic(vec![value.clone()])
                } else {
                    RpcValue::Fixed(value.clone())
                };
                // Of repeated arguments the last one counts.
                arguments.insert(name.clone(), value);
            }
        }
    }
    arguments
}

/// The one overload that takes arguments of these names.
fn find<'a>(
    name: &QualifiedName,
    arguments: &BTreeSet<String>,
    content_type: &MediaType,
    by_body: bool,
    cache: &'a SchemaCache,
) -> Result<&'a Routine, Error> {
    let overloads = cache.routines.get(name).map_or(&[][..], Vec::as_slice);
    let (mut by_name, mut by_content) = (Vec::new(), Vec::new());
    for routine in overloads {
        if takes(routine, arguments, content_type, by_body) {
            by_name.push(routine);
        } else if by_body && takes_body(routine, content_type) {
            by_content.push(routine);
        }
    }
    let candidates = if by_name.is_empty() { by_content } else { by_name };
    match &candidates[..] {
        [] => {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Err(Error::no_function(name, &arguments, content_type, by_body, cache))
        }
        [routine] => Ok(routine),
        _ => Err(Error::ambiguous_function(&candidates)),
    }
}

fn is_raw(content_type: &MediaType) -> bool {
    matches!(content_type, MediaType::OctetStream | MediaType::Text | MediaType::Xml)
}

fn takes(routine: &Routine, arguments: &BTreeSet<String>, content_type: &MediaType, by_body: bool) -> bool {
    let parameters = &routine.parameters;
    if parameters.is_empty() {
        return arguments.is_empty() && !(by_body && is_raw(content_type));
    }
    let known = arguments.iter().all(|name| parameters.iter().any(|p| p.name == *name));
    known && parameters.iter().filter(|p| p.required).all(|p| arguments.contains(&p.name))
}

/// Whether the only parameter has no name and takes bodies of this type.
fn takes_body(routine: &Routine, content_type: &MediaType) -> bool {
    let [only] = &routine.parameters[..] else { return false };
    only.name.is_empty()
        && matches!(
            (content_type, only.type_name.as_str()),
            (MediaType::Json, "json" | "jsonb")
                | (MediaType::Text, "text")
                | (MediaType::Xml, "xml")
                | (MediaType::OctetStream, "bytea")
        )
}
