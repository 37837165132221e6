//! A whole request from its parts: path and method to action, profile to schema, and the rest by its parsers.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use percent_encoding::percent_decode_str;

use super::payload::{self, Purpose};
use super::{Action, ApiRequest, Invocation, MediaType, Mutation, Preferences, Query};
use crate::config::{OpenApiMode, RestConfig};
use crate::error::Error;

impl ApiRequest {
    /// Reads a request whose path is relative to the root of the API: `/`, `/table`, `/rpc/function`.
    ///
    /// # Errors
    /// PGRST100 to PGRST126, of which the first in PostgREST's order: path, profile, method, query, range, body.
    /// Unknown preferences are left to [`Preferences::check`], which comes after the planner's errors.
    pub fn parse(
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: Bytes,
        config: &RestConfig,
    ) -> Result<Self, Error> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let resource = Resource::parse(path, config)?;
        let (schema, profile_answered) = profile(method, headers, config)?;
        let action = resource.action(method)?;
        let called_by_get =
            matches!(&action, Action::Call { invocation: Invocation::Get | Invocation::Head, .. });
        let (query, ranges) = Query::parse(query, called_by_get)?;
        let range = ranges.top_level(method, headers)?;
        let content_type =
            text(headers, &header::CONTENT_TYPE).map_or(MediaType::Json, |value| MediaType::parse(&value));
        let (payload, columns) = read_payload(&action, body, &content_type, &query)?;
        let accept = text(headers, &header::ACCEPT)
            .map_or_else(|| vec![MediaType::Any], |value| MediaType::parse_accept(&value));
        Ok(Self {
            action,
            schema,
            profile_answered,
            query,
            range,
            preferences: Preferences::parse(headers, config.tx_end.allow_override),
            accept,
            content_type,
            payload,
            columns,
            headers: headers
                .iter()
                .filter(|(name, _)| *name != header::COOKIE)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            cookies: text(headers, &header::COOKIE).map(|value| cookies(&value)).unwrap_or_default(),
            method: method.to_string(),
            path: path.to_owned(),
        })
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn cookies(header: &str) -> Vec<(String, String)> {
    header
        .split(';')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (name.trim_start().to_owned(), value.to_owned())
        })
        .collect()
}

enum Resource {
    Root,
    Relation(String),
    Routine(String),
}

impl Resource {
    fn parse(path: &str, config: &RestConfig) -> Result<Self, Error> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return match (&config.openapi_mode, &config.root_spec) {
                (OpenApiMode::Disabled, _) => Err(Error::OpenApiDisabled),
                (_, Some(function)) => Ok(Self::Routine(function.name.clone())),
                (_, None) => Ok(Self::Root),
            };
        }
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let mut segments = path.split('/');
        match (segments.next().map(decode), segments.next().map(decode), segments.next()) {
            (Some(relation), None, _) => Ok(Self::Relation(relation)),
            (Some(prefix), Some(routine), None) if prefix == "rpc" => Ok(Self::Routine(routine)),
            _ => Err(Error::InvalidPath),
        }
    }

    fn action(self, method: &Method) -> Result<Action, Error> {
        let verb = method.as_str();
        match self {
            Self::Root => match verb {
                "GET" | "HEAD" => Ok(Action::Describe { head: verb == "HEAD" }),
                "OPTIONS" => Ok(Action::RootOptions),
                _ => Err(Error::UnsupportedMethod(verb.to_owned())),
            },
            Self::Routine(routine) => {
                let invocation = match verb {
                    "GET" => Invocation::Get,
                    "HEAD" => Invocation::Head,
                    "POST" => Invocation::Post,
                    "OPTIONS" => return Ok(Action::RoutineOptions(routine)),
                    _ => return Err(Error::InvalidRpcMethod(verb.to_owned())),
                };
                Ok(Action::Call { routine, invocation })
            }
            Self::Relation(relation) => {
                let mutation = match verb {
                    "GET" | "HEAD" => return Ok(Action::Read { relation, head: verb == "HEAD" }),
                    "OPTIONS" => return Ok(Action::RelationOptions(relation)),
                    "POST" => Mutation::Create,
                    "PUT" => Mutation::SingleUpsert,
                    "PATCH" => Mutation::Update,
                    "DELETE" => Mutation::Delete,
                    _ => return Err(Error::UnsupportedMethod(verb.to_owned())),
                };
                Ok(Action::Mutate { relation, mutation })
            }
        }
    }
}

/// The schema that a request is for, and whether the answer names it.
fn profile(method: &Method, headers: &HeaderMap, config: &RestConfig) -> Result<(String, bool), Error> {
    let name = match method.as_str() {
        "DELETE" | "PATCH" | "POST" | "PUT" => HeaderName::from_static("content-profile"),
        _ => HeaderName::from_static("accept-profile"),
    };
    match text(headers, &name) {
        Some(schema) if config.schemas.contains(&schema) => Ok((schema, true)),
        Some(schema) => Err(Error::UnacceptableSchema { schema, exposed: config.schemas.clone() }),
        None => Ok((config.schemas.first().cloned().unwrap_or_default(), config.schemas.len() != 1)),
    }
}

fn read_payload(
    action: &Action,
    body: Bytes,
    content_type: &MediaType,
    query: &Query,
) -> Result<(Option<super::Payload>, BTreeSet<String>), Error> {
    let (purpose, columns) = match action {
        Action::Mutate { mutation: Mutation::Create | Mutation::Update, .. } => {
            (Purpose::Rows, query.columns.as_ref())
        }
        Action::Mutate { mutation: Mutation::SingleUpsert, .. } => (Purpose::Rows, None),
        Action::Call { invocation: Invocation::Post, .. } => (Purpose::Arguments, query.columns.as_ref()),
        _ => return Ok((None, BTreeSet::new())),
    };
    let (payload, columns) = payload::parse(body, content_type, columns, purpose)?;
    Ok((Some(payload), columns))
}
