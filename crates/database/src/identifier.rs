//! Names of tables, roles and functions in SQL text: the one place that quotes them.

/// A name as SQL text that means this name and nothing else, whatever is in it.
///
/// ```
/// assert_eq!(longhouse_database::quote_ident(r#"a"b"#), r#""a""b""#);
/// ```
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    push_ident(&mut quoted, name);
    quoted
}

/// Appends [`quote_ident`] to a statement in the making.
pub fn push_ident(into: &mut String, name: &str) {
    into.push('"');
    // Postgres cannot hold a zero byte, and would cut the statement there.
    for character in name.chars().take_while(|&c| c != '\0') {
        if character == '"' {
            into.push('"');
        }
        into.push(character);
    }
    into.push('"');
}
