//! PGRST200 to PGRST205: what the schema cache has not, or has more than once.

use serde::Serialize;
use thiserror::Error;

use super::Error as ApiError;
use super::hints::{self, closest};
use crate::request::MediaType;
use crate::schema::{ForeignKey, QualifiedName, Relationship, RelationshipKind, Routine, SchemaCache};

/// What the schema cache could not answer; everything is rendered when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaCacheError {
    /// PGRST200
    #[error("Could not find a relationship between '{parent}' and '{child}' in the schema cache")]
    NoRelationship {
        /// Relation that embeds.
        parent: String,
        /// What it embeds.
        child: String,
        /// Where was searched.
        details: String,
        /// A name that may have been meant.
        hint: Option<String>,
    },
    /// PGRST201
    #[error("Could not embed because more than one relationship was found for '{parent}' and '{child}'")]
    AmbiguousRelationship {
        /// Relation that embeds.
        parent: String,
        /// What it embeds.
        child: String,
        /// The relationships.
        candidates: Vec<Candidate>,
        /// How to choose.
        hint: String,
    },
    /// PGRST202
    #[error("Could not find the function {function} in the schema cache")]
    NoFunction {
        /// Name and parameters.
        function: String,
        /// What was searched.
        details: String,
        /// A function that may have been meant.
        hint: Option<String>,
    },
    /// PGRST203
    #[error("Could not choose the best candidate function between: {}", .0.join(", "))]
    AmbiguousFunction(
        /// Signatures.
        Vec<String>,
    ),
    /// PGRST204
    #[error("Could not find the '{column}' column of '{relation}' in the schema cache")]
    ColumnNotFound {
        /// Table or view.
        relation: String,
        /// Column.
        column: String,
    },
    /// PGRST205
    #[error("Could not find the table '{table}' in the schema cache")]
    TableNotFound {
        /// Its name.
        table: QualifiedName,
        /// A table that may have been meant.
        hint: Option<String>,
    },
}

/// A relationship that an embed could mean; fields in the order of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    cardinality: &'static str,
    embedding: String,
    relationship: String,
}

impl ApiError {
    /// No relationship leads from `parent` to `child`.
    pub fn no_relationship(
        parent: &str,
        child: &str,
        embed_hint: Option<&str>,
        schema: &str,
        cache: &SchemaCache,
    ) -> Self {
        let using = embed_hint.map(|hint| format!("' using the hint '{hint}")).unwrap_or_default();
        let details = format!(
            "Searched for a foreign key relationship between '{parent}' and '{child}{using}' in the schema '{schema}', \
             but no matches were found."
        );
        SchemaCacheError::NoRelationship {
            parent: parent.to_owned(),
            child: child.to_owned(),
            details,
            hint: hints::relationship(parent, child, schema, &cache.relationships),
        }
        .into()
    }

    /// Several relationships lead from `parent` to `child`.
    pub fn ambiguous_relationship(parent: &str, child: &str, relationships: &[&Relationship]) -> Self {
        let names: Vec<String> = relationships
            .iter()
            .filter_map(|relationship| {
                let way = match &relationship.kind {
                    RelationshipKind::OneToMany(key)
                    | RelationshipKind::ManyToOne(key)
                    | RelationshipKind::OneToOne { key, .. } => &key.constraint,
                    RelationshipKind::ManyToMany(junction) => &junction.table.name,
                    RelationshipKind::Computed { .. } => return None,
                };
                Some(format!("'{}!{way}'", relationship.foreign_table.name))
            })
            .collect();
        let hint = format!(
            "Try changing '{child}' to one of the following: {}. Find the desired relationship in the 'details' key.",
            names.join(", ")
        );
        let candidates = relationships.iter().filter_map(|relationship| candidate(relationship)).collect();
        SchemaCacheError::AmbiguousRelationship {
            parent: parent.to_owned(),
            child: child.to_owned(),
            candidates,
            hint,
        }
        .into()
    }

    /// No function of that name takes these arguments (in the order of the answer). `posted` says whether it was
    /// called by `POST`, whose `content_type` opens functions of one unnamed parameter.
    pub fn no_function(
        function: &QualifiedName,
        arguments: &[&str],
        content_type: &MediaType,
        posted: bool,
        cache: &SchemaCache,
    ) -> Self {
        let single = match content_type {
            MediaType::Text => Some("text"),
            MediaType::Xml => Some("xml"),
            MediaType::OctetStream => Some("bytea"),
            _ => None,
        }
        .filter(|_| posted);
        let list = arguments.join(", ");
        let name = match (single, arguments) {
            (Some(_), _) => function.to_string(),
            (None, []) => format!("{function} without parameters"),
            (None, _) => format!("{function}({list})"),
        };
        let searched = match (single, arguments) {
            (Some(kind), _) => format!(" with a single unnamed {kind} parameter"),
            (None, []) => " without parameters".to_owned(),
            (None, [_]) => format!(" with parameter {list}"),
            (None, _) => format!(" with parameters {list}"),
        };
        let or_json = if posted && *content_type == MediaType::Json {
            " or with a single unnamed json/jsonb parameter"
        } else {
            ""
        };
        SchemaCacheError::NoFunction {
            function: name,
            details: format!(
                "Searched for the function {function}{searched}{or_json}, but no matches were found in the schema cache."
            ),
            hint: if single.is_some() { None } else { hints::function(function, arguments, cache) },
        }
        .into()
    }

    /// Several functions take these arguments.
    pub fn ambiguous_function(routines: &[&Routine]) -> Self {
        let signature = |routine: &&Routine| {
            let parameters: Vec<String> = routine
                .parameters
                .iter()
                .map(|parameter| format!("{} => {}", parameter.name, parameter.type_name))
                .collect();
            format!("{}({})", routine.name, parameters.join(", "))
        };
        SchemaCacheError::AmbiguousFunction(routines.iter().map(signature).collect()).into()
    }

    /// A column that a write names and the relation has not.
    pub fn column_not_found(relation: &str, column: &str) -> Self {
        SchemaCacheError::ColumnNotFound { relation: relation.to_owned(), column: column.to_owned() }.into()
    }

    /// A relation that is not there.
    pub fn table_not_found(schema: &str, name: &str, cache: &SchemaCache) -> Self {
        /// Above this PostgREST offers no suggestion: the search costs too much.
        const MOST_TABLES: usize = 500;
        let names: Vec<&str> = cache
            .tables
            .keys()
            .filter(|table| table.schema == schema)
            .map(|table| table.name.as_str())
            .collect();
        let hint = (names.len() < MOST_TABLES)
            .then(|| closest(name, names, hints::CAUTIOUS))
            .flatten()
            .map(|table| format!("Perhaps you meant the table '{schema}.{table}'"));
        SchemaCacheError::TableNotFound { table: QualifiedName::new(schema, name), hint }.into()
    }
}

fn candidate(relationship: &Relationship) -> Option<Candidate> {
    let table = &relationship.table.name;
    let foreign = &relationship.foreign_table.name;
    let by_key = |key: &ForeignKey| {
        let (own, other) =
            (columns(key.columns.iter().map(|c| &c.0)), columns(key.columns.iter().map(|c| &c.1)));
        format!("{} using {table}{own} and {foreign}{other}", key.constraint)
    };
    let (cardinality, way) = match &relationship.kind {
        RelationshipKind::ManyToMany(junction) => (
            "many-to-many",
            format!(
                "{} using {}{} and {}{}",
                junction.table.name,
                junction.constraint1,
                columns(junction.source_columns.iter().map(|c| &c.1)),
                junction.constraint2,
                columns(junction.target_columns.iter().map(|c| &c.1))
            ),
        ),
        RelationshipKind::ManyToOne(key) => ("many-to-one", by_key(key)),
        RelationshipKind::OneToOne { key, .. } => ("one-to-one", by_key(key)),
        RelationshipKind::OneToMany(key) => ("one-to-many", by_key(key)),
        // Computed relationships override others of the same name, so they are never ambiguous.
        RelationshipKind::Computed { .. } => return None,
    };
    Some(Candidate { cardinality, embedding: format!("{table} with {foreign}"), relationship: way })
}

fn columns<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    format!("({})", names.join(", "))
}

impl SchemaCacheError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoRelationship { .. } => "PGRST200",
            Self::AmbiguousRelationship { .. } => "PGRST201",
            Self::NoFunction { .. } => "PGRST202",
            Self::AmbiguousFunction(_) => "PGRST203",
            Self::ColumnNotFound { .. } => "PGRST204",
            Self::TableNotFound { .. } => "PGRST205",
        }
    }

    pub(super) fn status(&self) -> u16 {
        match self {
            Self::AmbiguousRelationship { .. } | Self::AmbiguousFunction(_) => 300,
            Self::NoRelationship { .. } | Self::ColumnNotFound { .. } => 400,
            Self::NoFunction { .. } | Self::TableNotFound { .. } => 404,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoRelationship { hint, .. } | Self::NoFunction { hint, .. } | Self::TableNotFound { hint, .. } => {
                hint.clone()
            }
            Self::AmbiguousRelationship { hint, .. } => Some(hint.clone()),
            Self::AmbiguousFunction(_) => Some(
                "Try renaming the parameters or the function itself in the database so function overloading can be \
                 resolved"
                    .to_owned(),
            ),
            Self::ColumnNotFound { .. } => None,
        }
    }
}
