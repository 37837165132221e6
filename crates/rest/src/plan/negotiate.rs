//! Content negotiation: the first accepted media type that somebody can produce.

use super::{Handler, Output};
use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{Action, ApiRequest, Invocation, MediaType, Return};
use crate::schema::{HandlerRelation, MediaHandler, QualifiedName, SchemaCache};

pub(super) fn output(
    request: &ApiRequest,
    relation: &QualifiedName,
    default_select: bool,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<Output, Error> {
    let produce = |media: &MediaType| produce(media, relation, default_select, cache, config);
    let Some(mut output) = request.accept.iter().find_map(produce) else {
        return Err(unavailable(request));
    };
    let without_body = match &request.action {
        Action::Mutate { .. } => request.preferences.representation != Some(Return::Representation),
        Action::Read { head, .. } => *head,
        Action::Call { invocation, .. } => *invocation == Invocation::Head,
        _ => false,
    };
    if without_body {
        output.handler = Handler::None;
    }
    Ok(output)
}

/// Checks that the description of the schema is acceptable.
pub(super) fn description(request: &ApiRequest) -> Result<(), Error> {
    let acceptable =
        |media: &MediaType| matches!(media, MediaType::OpenApi | MediaType::Json | MediaType::Any);
    if request.accept.iter().any(acceptable) { Ok(()) } else { Err(unavailable(request)) }
}

fn unavailable(request: &ApiRequest) -> Error {
    Error::MediaType(request.accept.iter().map(ToString::to_string).collect())
}

fn produce(
    media: &MediaType,
    relation: &QualifiedName,
    default_select: bool,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Option<Output> {
    let lookup = |media: &MediaType| lookup(media, relation, default_select, cache);
    let output = |handler| Some(Output { handler, media: media.clone() });
    match media {
        // PostgREST's own types have parameters that no function would understand.
        MediaType::Object { strip_nulls } => output(Handler::Object { strip_nulls: *strip_nulls }),
        MediaType::ArrayStripped => output(Handler::Json { strip_nulls: true }),
        MediaType::Plan { .. } if !config.plan => None,
        MediaType::Plan { of, .. } => match &**of {
            MediaType::Object { strip_nulls } => output(Handler::Object { strip_nulls: *strip_nulls }),
            MediaType::ArrayStripped => output(Handler::Json { strip_nulls: true }),
            of => output(lookup(of)?.handler),
        },
        media => lookup(media),
    }
}

fn lookup(
    media: &MediaType,
    relation: &QualifiedName,
    default_select: bool,
    cache: &SchemaCache,
) -> Option<Output> {
    let custom = |relation: HandlerRelation, media: &str| {
        let MediaHandler::Custom { function, argument, media_type } =
            cache.media_handlers.get(&(relation, media.to_owned()))?;
        Some(Output {
            handler: Handler::Custom {
                function: function.clone(),
                relation: match argument {
                    HandlerRelation::Any => None,
                    HandlerRelation::Named(name) => Some(name.clone()),
                },
            },
            media: MediaType::parse(media_type),
        })
    };
    let found = if cache.media_handlers.is_empty() {
        None
    } else {
        let mime = media.to_string();
        // A handler takes whole rows, so it cannot serve a selection of columns.
        let of_relation = if default_select {
            let named = HandlerRelation::Named(relation.clone());
            custom(named.clone(), "*/*").or_else(|| custom(named, &mime))
        } else {
            None
        };
        of_relation.or_else(|| custom(HandlerRelation::Any, &mime))
    };
    let builtin = |handler, media| Some(Output { handler, media });
    found.or_else(|| match media {
        MediaType::Json | MediaType::Any => builtin(Handler::Json { strip_nulls: false }, MediaType::Json),
        MediaType::Csv => builtin(Handler::Csv, MediaType::Csv),
        MediaType::GeoJson => builtin(Handler::GeoJson, MediaType::GeoJson),
        _ => None,
    })
}
