//! Decides how a file runs: whole and in one transaction wherever Postgres permits it.

use std::ops::Range;

use super::lexer::Statement;

/// How a file runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// These bytes are sent whole, in one transaction with the ledger's row: all or nothing.
    /// They are the whole file, or what stands between its own `begin` and `commit`.
    Whole(Range<usize>),
    /// Statement by statement outside of our transaction, because of the statement at this line.
    Stepwise {
        /// Line of the first statement that demands it.
        line: usize,
    },
}

/// A file whose own transaction control does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: this transaction is still open at the end of the file; add `commit;`")]
pub struct Unbalanced {
    /// Line of the `begin`.
    pub line: usize,
}

/// Plans a file.
///
/// # Errors
/// When the file opens a transaction that it does not close.
pub fn plan(statements: &[Statement<'_>], length: usize) -> Result<Plan, Unbalanced> {
    let code: Vec<&Statement<'_>> = statements.iter().filter(|statement| !statement.is_empty()).collect();
    let kinds: Vec<Kind> = code.iter().map(|statement| kind(&statement.words)).collect();

    let mut open = None;
    for (statement, kind) in code.iter().zip(&kinds) {
        match kind {
            Kind::Begin => open = open.or(Some(statement.line)),
            Kind::End => open = None,
            _ => {}
        }
    }
    if let Some(line) = open {
        return Err(Unbalanced { line });
    }

    // A file wrapped in its own transaction means just what we do anyway.
    if let ([Kind::Begin, inner @ .., Kind::End], [first, .., last]) = (kinds.as_slice(), code.as_slice())
        && inner.iter().all(|kind| *kind == Kind::Plain)
        && first.words.len() <= 2
        && last.words.first().is_some_and(|word| word == "commit" || word == "end")
    {
        return Ok(Plan::Whole(first.span.end..last.code.start));
    }
    match kinds.iter().position(|kind| *kind != Kind::Plain) {
        None => Ok(Plan::Whole(0..length)),
        Some(index) => Ok(Plan::Stepwise { line: code[index].line }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Begin,
    End,
    /// Refused by Postgres inside a transaction.
    Alone,
}

fn kind(words: &[String]) -> Kind {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let concurrently = || words.contains(&"concurrently");
    match words.as_slice() {
        ["begin", ..] | ["start", "transaction", ..] => Kind::Begin,
        ["commit" | "rollback", "prepared", ..] => Kind::Alone,
        ["rollback", rest @ ..] | ["abort", rest @ ..] if rest.contains(&"to") => Kind::Plain,
        ["commit" | "end" | "rollback" | "abort", rest @ ..] => match rest {
            [.., "and", "chain"] => Kind::Begin,
            _ => Kind::End,
        },
        ["prepare", "transaction", ..] => Kind::End,
        ["create", "index" | "unique", ..] | ["drop", "index", ..] if concurrently() => Kind::Alone,
        ["reindex", ..] if concurrently() || words.contains(&"database") || words.contains(&"system") => {
            Kind::Alone
        }
        ["alter", "table", ..] if concurrently() && words.contains(&"detach") => Kind::Alone,
        ["vacuum", ..] | ["alter", "system", ..] | ["discard", "all"] => Kind::Alone,
        ["cluster"] | ["cluster", "verbose"] => Kind::Alone,
        ["create" | "drop", "database" | "tablespace" | "subscription", ..] => Kind::Alone,
        ["alter", "database", ..] if words.contains(&"tablespace") => Kind::Alone,
        ["alter", "subscription", ..] if words.contains(&"refresh") || words.contains(&"publication") => {
            Kind::Alone
        }
        _ => Kind::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::split;
    use super::*;

    fn planned(text: &str) -> Result<Plan, Unbalanced> {
        plan(&split(text).unwrap(), text.len())
    }

    #[test]
    fn ordinary_files_run_whole() {
        for text in [
            "",
            "create table t (a int); insert into t values (1);",
            "create index on t (a)",
            "alter type mood add value 'calm'",
            "do $$ begin commit; end $$",
            "savepoint a; rollback to savepoint a; release a",
            "refresh materialized view concurrently v",
            "comment on table t is 'vacuum; begin'",
            "create function f() returns int begin atomic select 1; end",
            "alter table t add column concurrently int",
            "cluster t using i",
        ] {
            assert_eq!(planned(text), Ok(Plan::Whole(0..text.len())), "{text}");
        }
    }

    #[test]
    fn a_wrapped_file_runs_whole_without_its_wrapping() {
        let text = "-- a\nBEGIN;\ncreate table t ();\nCOMMIT;\n-- z\n";
        let Ok(Plan::Whole(range)) = planned(text) else { panic!() };
        assert_eq!(text[range].trim(), "create table t ();");
    }

    #[test]
    fn what_cannot_run_in_a_transaction_runs_stepwise() {
        for text in [
            "\ncreate unique index concurrently i on t (a)",
            "\ncreate index /* ; */ concurrently if not exists i on t (a)",
            "\ndrop index concurrently i",
            "\nreindex (verbose) table concurrently t",
            "\nvacuum analyze t",
            "\ncreate database d",
            "\nalter system set work_mem = '8MB'",
            "\nbegin; select 1; commit; select 2",
            "\nbegin; select 1; rollback",
            "\nstart transaction isolation level serializable; select 1; commit",
            "\nbegin; select 1; commit and chain; select 2; commit",
            "\nalter table t detach partition p concurrently",
        ] {
            assert_eq!(planned(text), Ok(Plan::Stepwise { line: 2 }), "{text}");
        }
    }

    #[test]
    fn an_open_transaction_is_refused() {
        assert_eq!(planned("select 1;\nbegin;\nselect 2;"), Err(Unbalanced { line: 2 }));
        assert_eq!(planned("begin; commit and chain; select 2"), Err(Unbalanced { line: 1 }));
    }
}
