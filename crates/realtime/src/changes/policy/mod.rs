//! Policies that can be answered from the row and the claims alone.
//!
//! Most policies compare a column with the user's id or a claim. A thousand users would mean a thousand queries for
//! each row; so these are evaluated here, as Postgres would. What is read is Postgres' own rendering of the policy,
//! which is fully parenthesised; whatever is not understood, or would be an error there, is left to Postgres. That both
//! agree is what the property test in `tests/it/changes_policies.rs` checks.

mod evaluate;
mod parse;

use serde_json::Value as Json;

pub(super) use evaluate::{Claimed, Unsure};
pub(super) use parse::parse;

/// Types that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Text,
    Uuid,
    Json,
}

/// A policy's expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    /// `is null`.
    IsNull(Box<Expression>),
    Compare(Box<Expression>, Comparison, Box<Expression>),
    /// `= any (array[…])`.
    Any(Box<Expression>, Vec<Expression>),
    /// Index among the table's columns.
    Column(usize),
    /// `auth.uid()`
    Uid,
    /// `auth.role()`
    Role,
    /// `auth.email()`
    Email,
    /// `auth.jwt()`
    Jwt,
    /// `-> 'key'`, or `->> 'key'` if the flag is set.
    Get(Box<Expression>, String, bool),
    Cast(Box<Expression>, Type),
    Text(String),
    Int(i64),
    Bool(bool),
    Null,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A value of an expression; none is null.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'v> {
    Bool(bool),
    Int(i64),
    Text(std::borrow::Cow<'v, str>),
    Uuid(u128),
    Json(&'v Json),
}

impl Expression {
    /// The columns that it reads.
    pub(super) fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.visit(&mut |expression| {
            if let Self::Column(index) = expression {
                columns.push(*index);
            }
        });
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    fn visit(&self, with: &mut impl FnMut(&Self)) {
        with(self);
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().for_each(|part| part.visit(with)),
            Self::Not(one) | Self::IsNull(one) | Self::Get(one, ..) | Self::Cast(one, _) => one.visit(with),
            Self::Compare(a, _, b) => {
                a.visit(with);
                b.visit(with);
            }
            Self::Any(one, of) => {
                one.visit(with);
                of.iter().for_each(|part| part.visit(with));
            }
            Self::Column(_)
            | Self::Uid
            | Self::Role
            | Self::Email
            | Self::Jwt
            | Self::Text(_)
            | Self::Int(_)
            | Self::Bool(_)
            | Self::Null => {}
        }
    }
}
