//! Where the columns of views come from, read from the query trees that Postgres stores for them.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A column by the object identifier of its relation and its number there.
pub(crate) type ColumnId = (u32, i16);

/// A view as stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredView {
    /// Object identifier.
    pub(crate) oid: u32,
    /// Of an exposed schema; others are only passed through.
    pub(crate) exposed: bool,
    /// `pg_rewrite.ev_action` as text.
    pub(crate) definition: String,
}

/// Numbers of a view's columns by the column that they show, directly or through other views. A view column
/// counts for each view on its way and for the table at its end.
pub(crate) type Origins = BTreeMap<ColumnId, Vec<i16>>;

/// Traces the columns of the exposed views; keyed by view.
pub(crate) fn trace(views: &[StoredView]) -> HashMap<u32, Origins> {
    let direct: HashMap<u32, HashMap<i16, ColumnId>> =
        views.iter().map(|view| (view.oid, target_columns(&view.definition))).collect();
    let mut traced = HashMap::new();
    for view in views.iter().filter(|view| view.exposed) {
        let Some(columns) = direct.get(&view.oid) else { continue };
        let mut numbers: Vec<i16> = columns.keys().copied().collect();
        numbers.sort_unstable();
        let mut origins = Origins::new();
        for number in numbers {
            let mut column = (view.oid, number);
            // `create or replace view` can make views that select from each other.
            let mut seen = HashSet::from([column]);
            while let Some(&origin) = direct.get(&column.0).and_then(|columns| columns.get(&column.1)) {
                if !seen.insert(origin) {
                    break;
                }
                origins.entry(origin).or_default().push(number);
                column = origin;
            }
        }
        traced.insert(view.oid, origins);
    }
    traced
}

/// The plain columns of a stored query's target list: number in the view → column shown.
///
/// Reads Postgres's node format: `({QUERY :field value … :targetList ({TARGETENTRY …} …) …})`. Only the outermost
/// query counts, and of each entry only `resno`, `resorigtbl` and `resorigcol`, so other fields may change between
/// versions of Postgres.
fn target_columns(definition: &str) -> HashMap<i16, ColumnId> {
    /// Depth of the braces and parentheses around the fields of the outermost query.
    const QUERY: usize = 2;
    /// … and around the fields of an entry of its target list.
    const ENTRY: usize = QUERY + 2;

    let mut columns = HashMap::new();
    let mut depth = 0_usize;
    let mut in_targets = false;
    let mut field = "";
    let (mut number, mut table, mut column) = (0_i16, 0_u32, 0_i16);
    for token in Tokens(definition) {
        match token {
            "(" | "{" => {
                depth += 1;
                if depth == ENTRY && in_targets {
                    (number, table, column) = (0, 0, 0);
                }
            }
            ")" | "}" => {
                if depth == ENTRY && in_targets && table != 0 && column > 0 {
                    columns.insert(number, (table, column));
                }
                depth = depth.saturating_sub(1);
                if depth == QUERY && in_targets {
                    break;
                }
            }
            name if name.starts_with(':') => {
                if depth == QUERY {
                    in_targets = name == ":targetList";
                }
                field = name;
            }
            value if in_targets && depth == ENTRY => match field {
                ":resno" => number = value.parse().unwrap_or_default(),
                ":resorigtbl" => table = value.parse().unwrap_or_default(),
                ":resorigcol" => column = value.parse().unwrap_or_default(),
                _ => {}
            },
            _ => {}
        }
    }
    columns
}

/// Splits a node tree at blanks and brackets; a backslash takes the meaning of the character after it.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches([' ', '\n', '\t']);
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        let mut end = 1;
        if !matches!(first, b'(' | b')' | b'{' | b'}') {
            end = 0;
            while end < bytes.len() && !matches!(bytes[end], b' ' | b'\n' | b'\t' | b'(' | b')' | b'{' | b'}')
            {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
        }
        // An escaped character of several bytes: go on to its end.
        let mut end = end.min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let (token, rest) = text.split_at(end);
        self.0 = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(oid: u32, exposed: bool, entries: &[(i16, u32, i16)]) -> StoredView {
        let entries: Vec<String> = entries
            .iter()
            .map(|(number, table, column)| {
                format!(
                    "{{TARGETENTRY :expr {{VAR :varno 1 :resno 99}} :resno {number} :resname odd\\ \\}}name \
                     :ressortgroupref 0 :resorigtbl {table} :resorigcol {column} :resjunk false}}"
                )
            })
            .collect();
        let definition = format!(
            "({{QUERY :commandType 1 :cteList ({{COMMONTABLEEXPR :ctequery {{QUERY :targetList ({{TARGETENTRY \
             :resno 1 :resorigtbl 7 :resorigcol 7}})}}}}) :targetList ({}) :override 0 :limitOffset <>}})",
            entries.join(" ")
        );
        StoredView { oid, exposed, definition }
    }

    #[test]
    fn reads_only_the_outermost_target_list() {
        let columns = target_columns(&view(1, true, &[(1, 10, 3), (2, 0, 0), (3, 10, 1)]).definition);
        assert_eq!(columns, HashMap::from([(1, (10, 3)), (3, (10, 1))]));
    }

    #[test]
    fn goes_through_other_views_and_keeps_repeated_columns() {
        let views = [view(1, true, &[(1, 2, 1), (2, 2, 1)]), view(2, false, &[(1, 10, 5)])];
        let traced = trace(&views);
        assert_eq!(traced.len(), 1, "only exposed views");
        assert_eq!(traced[&1], Origins::from([((2, 1), vec![1, 2]), ((10, 5), vec![1, 2])]));
    }

    #[test]
    fn ends_on_views_that_show_each_other() {
        let views = [view(1, true, &[(1, 2, 1)]), view(2, true, &[(1, 1, 1)])];
        assert_eq!(trace(&views).len(), 2);
    }

    #[test]
    fn survives_nonsense() {
        for text in ["", "(", "}}}}", "({QUERY :targetList <>})", "\\", ":resno \\é é", "((((:resno"] {
            assert!(target_columns(text).is_empty(), "{text}");
        }
    }
}
