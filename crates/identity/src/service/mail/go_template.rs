//! Supabase's mail templates are Go templates: translated here to minijinja's syntax.
//!
//! Known: `{{ .Name }}`, `{{ .Data.name }}`, `if`/`else if`/`else`/`end`, the functions `eq ne lt le gt ge and or not
//! len index`, parentheses, text and numbers, comments and trim markers. Anything else is a mistake that says where.

use std::fmt::Write as _;

/// Delimiters of the translation: characters of the private use area, which no template has, so that braces and
/// percent signs in style sheets stay what they are.
pub(super) const VARIABLE: (&str, &str) = ("\u{e000}{", "}\u{e001}");
pub(super) const BLOCK: (&str, &str) = ("\u{e000}%", "%\u{e001}");
pub(super) const COMMENT: (&str, &str) = ("\u{e000}#", "#\u{e001}");

/// Deepest nesting of parentheses.
const DEEPEST: usize = 16;

/// What cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct Mistake {
    line: usize,
    what: String,
}

/// Translates a whole template.
pub(super) fn translate(source: &str) -> Result<String, Mistake> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut open = 0usize;
    let line = |rest: &str| source[..source.len() - rest.len()].matches('\n').count() + 1;
    let mistake = |rest: &str, what: String| Mistake { line: line(rest), what };
    if let Some(odd) = source.find(['\u{e000}', '\u{e001}']) {
        return Err(mistake(&source[odd..], "a character of Unicode's private use area".into()));
    }
    let mut trim_next = false;
    while let Some(start) = rest.find("{{") {
        let (mut text, action) = rest.split_at(start);
        let end = action.find("}}").ok_or_else(|| mistake(action, "{{ without }}".into()))?;
        let mut inner = &action[2..end];
        if trim_next {
            text = text.trim_start();
        }
        // `{{- ` and ` -}}` take white space away.
        if let Some(trimmed) = inner.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
            text = text.trim_end();
            inner = trimmed;
        }
        trim_next = false;
        if let Some(trimmed) = inner.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace)) {
            trim_next = true;
            inner = trimmed;
        }
        out.push_str(text);
        let translated = action_of(inner.trim(), &mut open).map_err(|what| mistake(action, what))?;
        out.push_str(&translated);
        rest = &action[end + 2..];
    }
    if open > 0 {
        return Err(mistake("", "{{ if }} without {{ end }}".into()));
    }
    out.push_str(if trim_next { rest.trim_start() } else { rest });
    Ok(out)
}

fn action_of(inner: &str, open: &mut usize) -> Result<String, String> {
    if inner.starts_with("/*") && inner.ends_with("*/") {
        return Ok(String::new());
    }
    let block = |statement: &str| format!("{}{statement}{}", BLOCK.0, BLOCK.1);
    let (word, rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
    match (word, rest.trim()) {
        ("if", condition) => {
            *open += 1;
            Ok(block(&format!("if {}", expression(condition)?)))
        }
        ("else", "") if *open > 0 => Ok(block("else")),
        ("else", rest) if *open > 0 => match rest.split_once(char::is_whitespace) {
            Some(("if", condition)) => Ok(block(&format!("elif {}", expression(condition)?))),
            _ => Err(format!("{{{{ else {rest} }}}} is not known here")),
        },
        ("end", "") if *open > 0 => {
            *open -= 1;
            Ok(block("endif"))
        }
        ("else" | "end", _) => Err(format!("{{{{ {word} }}}} without {{{{ if }}}}")),
        ("range" | "with" | "define" | "template" | "block" | "break" | "continue", _) => {
            Err(format!("{{{{ {word} }}}} is not supported: write it with {{{{ if }}}}"))
        }
        _ => Ok(format!("{}{}{}", VARIABLE.0, expression(inner)?, VARIABLE.1)),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    /// A path (`.Data.x`), text, number or word.
    Word(&'a str),
}

/// One whole expression.
fn expression(source: &str) -> Result<String, String> {
    let tokens = tokens(source)?;
    let mut position = 0;
    let translated = sequence(&tokens, &mut position, 0)?;
    if position == tokens.len() { Ok(translated) } else { Err(format!("unexpected ) in {source:?}")) }
}

fn tokens(source: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => {
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
                1
            }
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|character| {
                    let ends = character == '"' && !escaped;
                    escaped = character == '\\' && !escaped;
                    ends
                });
                let length = end.ok_or("a text without closing quote")? + 2;
                tokens.push(Token::Word(&rest[..length]));
                length
            }
            '`' => return Err("`raw text` is not supported: use double quotes".into()),
            '|' => return Err("pipelines with | are not supported".into()),
            _ => {
                let length =
                    rest.find(|c: char| c.is_whitespace() || "()|\"".contains(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..length]));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// A function with its arguments, or one operand.
fn sequence(tokens: &[Token<'_>], position: &mut usize, depth: usize) -> Result<String, String> {
    if depth > DEEPEST {
        return Err("parentheses are nested too deeply".into());
    }
    let function = match tokens.get(*position) {
        Some(Token::Word(word)) if is_function(word) => {
            *position += 1;
            Some(*word)
        }
        _ => None,
    };
    let mut operands = Vec::new();
    while let Some(token) = tokens.get(*position) {
        match token {
            Token::Close => break,
            Token::Open => {
                *position += 1;
                let inner = sequence(tokens, position, depth + 1)?;
                if tokens.get(*position) != Some(&Token::Close) {
                    return Err("( without )".into());
                }
                *position += 1;
                operands.push(inner);
            }
            Token::Word(word) => {
                *position += 1;
                operands.push(operand(word)?);
            }
        }
    }
    let Some(function) = function else {
        return match <[String; 1]>::try_from(operands) {
            Ok([one]) => Ok(one),
            Err(all) if all.is_empty() => Err("an empty {{ }}".into()),
            Err(_) => Err("several values without a function".into()),
        };
    };
    let wrong = || format!("{function} has the wrong number of arguments");
    let infix = |operator: &str| match operands.as_slice() {
        [left, right] => Ok(format!("({left} {operator} {right})")),
        _ => Err(wrong()),
    };
    match function {
        "eq" => match operands.split_first() {
            Some((left, others)) if !others.is_empty() => {
                let each: Vec<_> = others.iter().map(|right| format!("{left} == {right}")).collect();
                Ok(format!("({})", each.join(" or ")))
            }
            _ => Err(wrong()),
        },
        "ne" => infix("!="),
        "lt" => infix("<"),
        "le" => infix("<="),
        "gt" => infix(">"),
        "ge" => infix(">="),
        "and" | "or" if !operands.is_empty() => Ok(format!("({})", operands.join(&format!(" {function} ")))),
        "not" if operands.len() == 1 => Ok(format!("(not {})", operands[0])),
        "len" if operands.len() == 1 => Ok(format!("({}|length)", operands[0])),
        "index" => match operands.split_first() {
            Some((map, keys)) if !keys.is_empty() => {
                let mut path = map.clone();
                for key in keys {
                    let _ = write!(path, "[{key}]");
                }
                Ok(path)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn is_function(word: &str) -> bool {
    ["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "len", "index"].contains(&word)
}

fn operand(word: &str) -> Result<String, String> {
    if let Some(path) = word.strip_prefix('.') {
        let mut names = path.split('.');
        let first = names.next().unwrap_or_default();
        let plain = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        if !plain(first) {
            return Err(format!("{word:?} is no variable"));
        }
        let mut translated = first.to_owned();
        for name in names {
            if !plain(name) {
                return Err(format!("{word:?} is no variable"));
            }
            // As text: the name may be a word of minijinja's.
            let _ = write!(translated, "[\"{name}\"]");
        }
        return Ok(translated);
    }
    let literal = word.starts_with('"') || matches!(word, "true" | "false") || word.parse::<f64>().is_ok();
    if literal { Ok(word.to_owned()) } else { Err(format!("{word:?} is not known here")) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The translation, with minijinja's usual delimiters.
    fn usual(source: &str) -> Result<String, String> {
        let translated = translate(source).map_err(|mistake| mistake.to_string())?;
        Ok(translated.replace('\u{e000}', "{").replace('\u{e001}', "}"))
    }

    #[rstest]
    #[case("a {{ .Token }} b", "a {{Token}} b")]
    #[case("{{.Token}}", "{{Token}}")]
    #[case("{{ .Data.first_name }}", "{{Data[\"first_name\"]}}")]
    #[case("{{ index .Data \"a b\" }}", "{{Data[\"a b\"]}}")]
    #[case("{{ if .Data.x }}y{{ end }}", "{%if Data[\"x\"]%}y{%endif%}")]
    #[case("{{ if .A }}1{{ else if .B }}2{{ else }}3{{ end }}", "{%if A%}1{%elif B%}2{%else%}3{%endif%}")]
    #[case(
        "{{ if eq .Data.lang \"de\" \"at\" }}{{ end }}",
        "{%if (Data[\"lang\"] == \"de\" or Data[\"lang\"] == \"at\")%}{%endif%}"
    )]
    #[case("{{ if and .A (not .B) }}{{ end }}", "{%if (A and (not B))%}{%endif%}")]
    #[case("{{ if gt (len .Data.list) 2 }}{{ end }}", "{%if ((Data[\"list\"]|length) > 2)%}{%endif%}")]
    #[case("a {{- .X -}} b", "a{{X}}b")]
    #[case("a {{/* note */}} b", "a  b")]
    #[case("p{color:red}{#x}{%y%}", "p{color:red}{#x}{%y%}")]
    #[case("{{ .Data.in }}", "{{Data[\"in\"]}}")]
    fn translates(#[case] source: &str, #[case] expected: &str) {
        assert_eq!(usual(source).unwrap(), expected);
    }

    #[rstest]
    #[case("a\n{{ .X", "line 2: {{ without }}")]
    #[case("{{ }}", "line 1: an empty {{ }}")]
    #[case("{{ if .X }}", "line 1: {{ if }} without {{ end }}")]
    #[case("{{ end }}", "line 1: {{ end }} without {{ if }}")]
    #[case("{{ range .X }}{{ end }}", "line 1: {{ range }} is not supported: write it with {{ if }}")]
    #[case("{{ .X | html }}", "line 1: pipelines with | are not supported")]
    #[case("{{ printf \"%s\" .X }}", "line 1: \"printf\" is not known here")]
    #[case("{{ .X; }}", "line 1: \".X;\" is no variable")]
    #[case("{{ . }}", "line 1: \".\" is no variable")]
    #[case("{{ .X .Y }}", "line 1: several values without a function")]
    #[case("{{ (.X }}", "line 1: ( without )")]
    #[case("{{ .X) }}", "line 1: unexpected ) in \".X)\"")]
    #[case("{{ not }}", "line 1: not has the wrong number of arguments")]
    #[case("{{ \"x }}", "line 1: a text without closing quote")]
    fn says_what_is_wrong(#[case] source: &str, #[case] expected: &str) {
        assert_eq!(usual(source).unwrap_err(), expected);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(source in "[{}.a-c \\-()\"|/*\n]{0,40}") {
            let _ = translate(&source);
        }
    }
}
