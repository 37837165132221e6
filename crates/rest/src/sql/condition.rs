//! Conditions.

use super::{Param, Sql};
use crate::plan::{Condition, Field, JoinCondition, ReadNode};
use crate::request::{FullTextOperator, IsValue, Operation, QuantifiedOperator, Quantifier, SimpleOperator};
use crate::schema::QualifiedName;

impl Sql {
    /// Adds a condition on a relation.
    pub(crate) fn condition(&mut self, relation: &QualifiedName, condition: &Condition) {
        self.condition_with(relation, condition, &mut |sql, negated, subquery| {
            sql.ident(subquery).push(if negated {
                " is distinct from null"
            } else {
                " is not distinct from null"
            });
        });
    }

    /// As [`Self::condition`], where matches of embeds are counted without their subqueries.
    pub(crate) fn counted_condition(
        &mut self,
        relation: &QualifiedName,
        condition: &Condition,
        children: &[ReadNode],
    ) {
        self.condition_with(relation, condition, &mut |sql, negated, subquery| {
            let Some(child) = children.iter().find(|child| child.subquery == subquery) else {
                sql.push("true");
                return;
            };
            sql.push(if negated { "exists (" } else { "not exists (" });
            sql.count_source(child);
            sql.push(")");
        });
    }

    fn condition_with(
        &mut self,
        relation: &QualifiedName,
        condition: &Condition,
        unmatched: &mut dyn FnMut(&mut Self, bool, &str),
    ) {
        match condition {
            Condition::Group { negated, any, members } => {
                self.push(if *negated { "not (" } else { "(" });
                self.list(if *any { " or " } else { " and " }, members, |sql, member| {
                    sql.condition_with(relation, member, unmatched);
                });
                self.push(")");
            }
            Condition::Compare { field, negated, operation } => {
                if *negated {
                    self.push("not ");
                }
                self.field(relation, field);
                self.operation(field, operation);
            }
            Condition::Unmatched { negated, subquery } => unmatched(self, *negated, subquery),
        }
    }

    fn operation(&mut self, field: &Field, operation: &Operation) {
        match operation {
            Operation::Simple(operator, value) => {
                self.push(simple_operator(*operator)).mapped(field, |sql| {
                    sql.bind(value.as_str());
                });
            }
            Operation::Quantified(operator, quantifier, value) => {
                self.push(quantified_operator(*operator));
                self.push(match quantifier {
                    Some(Quantifier::Any) => "any(",
                    Some(Quantifier::All) => "all(",
                    None => "",
                });
                if matches!(operator, QuantifiedOperator::Like | QuantifiedOperator::ILike) {
                    self.bind(value.replace('*', "%"));
                } else {
                    self.mapped(field, |sql| {
                        sql.bind(value.as_str());
                    });
                }
                if quantifier.is_some() {
                    self.push(")");
                }
            }
            Operation::In(values) => {
                if values.iter().all(String::is_empty) && values.len() <= 1 {
                    self.push(" = any('{}')");
                    return;
                }
                // One array rather than `in ($1, $2, …)`: the statement is the same for any number of values.
                let array = array_literal(values);
                self.push(" = any(");
                match &field.transform {
                    Some(function) => {
                        self.push("(select ").push(function).push("(unnest(").bind(array).push("::text[])))");
                    }
                    None => {
                        self.bind(array);
                    }
                }
                self.push(")");
            }
            Operation::Is(value) => {
                self.push(match value {
                    IsValue::Null => " is null",
                    IsValue::NotNull => " is not null",
                    IsValue::True => " is true",
                    IsValue::False => " is false",
                    IsValue::Unknown => " is unknown",
                });
            }
            Operation::IsDistinct(value) => {
                self.push(" is distinct from ").bind(value.as_str());
            }
            Operation::FullText(operator, configuration, value) => {
                self.push(match operator {
                    FullTextOperator::Plain => " @@ to_tsquery(",
                    FullTextOperator::Words => " @@ plainto_tsquery(",
                    FullTextOperator::Phrase => " @@ phraseto_tsquery(",
                    FullTextOperator::Web => " @@ websearch_to_tsquery(",
                });
                if let Some(name) = configuration {
                    self.bind(name.as_str()).push(", ");
                }
                self.bind(value.as_str()).push(")");
            }
        }
    }

    /// Adds a value within the function that maps it to the field's type.
    fn mapped(&mut self, field: &Field, value: impl FnOnce(&mut Self)) {
        match &field.transform {
            Some(function) => {
                self.push(function).push("(");
                value(self);
                self.push(")");
            }
            None => value(self),
        }
    }

    /// Adds a join's equality.
    pub(crate) fn join_condition(&mut self, condition: &JoinCondition) {
        let JoinCondition { left: (left, column), right: (right, other) } = condition;
        self.column(left, column).push(" = ").column(right, other);
    }
}

/// `{"a","b"}`: an array as text, so that Postgres infers the type of its elements.
pub(super) fn array_literal(values: &[String]) -> Param {
    let mut literal = String::from("{");
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        literal.push('"');
        for character in value.chars().take_while(|&c| c != '\0') {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    literal.into()
}

fn simple_operator(operator: SimpleOperator) -> &'static str {
    match operator {
        SimpleOperator::NotEqual => " <> ",
        SimpleOperator::Contains => " @> ",
        SimpleOperator::Contained => " <@ ",
        SimpleOperator::Overlaps => " && ",
        SimpleOperator::StrictlyLeft => " << ",
        SimpleOperator::StrictlyRight => " >> ",
        SimpleOperator::NotExtendsRight => " &< ",
        SimpleOperator::NotExtendsLeft => " &> ",
        SimpleOperator::Adjacent => " -|- ",
    }
}

fn quantified_operator(operator: QuantifiedOperator) -> &'static str {
    match operator {
        QuantifiedOperator::Equal => " = ",
        QuantifiedOperator::GreaterOrEqual => " >= ",
        QuantifiedOperator::Greater => " > ",
        QuantifiedOperator::LessOrEqual => " <= ",
        QuantifiedOperator::Less => " < ",
        QuantifiedOperator::Like => " like ",
        QuantifiedOperator::ILike => " ilike ",
        QuantifiedOperator::Match => " ~ ",
        QuantifiedOperator::IMatch => " ~* ",
    }
}
