//! What mails say: built-in templates, or the operator's.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

use super::MailKind;
use super::go_template::{BLOCK, COMMENT, Mistake, VARIABLE, translate};
use super::plain_text;

/// Largest template.
const MOST_BYTES: u64 = 256 * 1024;
/// Longest subject.
const LONGEST_SUBJECT: usize = 200;

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("cannot read the mail template {}: {source}; check `mail.templates`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not written in what we know of Go's templates.
    #[error("the mail template {name} is wrong: {what}; correct it, or remove it to use the built-in one")]
    Syntax {
        /// Which.
        name: String,
        /// Where and what.
        what: String,
    },
}

/// A mail as it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) subject: String,
    pub(crate) html: String,
    pub(crate) text: String,
}

/// All templates, compiled.
pub(crate) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// The built-in ones.
    pub(crate) fn built_in() -> Self {
        let mut templates = Self { environment: environment() };
        for kind in MailKind::ALL {
            templates.add(kind, built_in(kind)).expect("built-in templates are right, as a test shows");
        }
        templates
    }

    /// The built-in ones, and instead of them what the folder has.
    pub(crate) fn load(folder: &Path) -> Result<Self, TemplateError> {
        let mut templates = Self::built_in();
        for kind in MailKind::ALL {
            let path = folder.join(format!("{}.html", kind.name()));
            let read = || -> std::io::Result<Option<String>> {
                match std::fs::metadata(&path) {
                    Ok(metadata) if metadata.len() > MOST_BYTES => {
                        Err(std::io::Error::other("it is too large"))
                    }
                    Ok(_) => std::fs::read_to_string(&path).map(Some),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            };
            match read() {
                Ok(None) => {}
                Ok(Some(source)) => templates.add(kind, parts(kind, &source))?,
                Err(source) => return Err(TemplateError::Read { path, source }),
            }
        }
        // A wrong name of the folder must not pass for a folder without templates.
        match std::fs::read_dir(folder) {
            Ok(_) => Ok(templates),
            Err(source) => Err(TemplateError::Read { path: folder.to_owned(), source }),
        }
    }

    fn add(&mut self, kind: MailKind, (subject, body): (String, String)) -> Result<(), TemplateError> {
        let name = format!("{}.html", kind.name());
        let wrong = |what: String| TemplateError::Syntax { name: name.clone(), what };
        let translated =
            |source: &str| translate(source).map_err(|mistake: Mistake| wrong(mistake.to_string()));
        let (subject, body) = (translated(&subject)?, translated(&body)?);
        let added = self
            .environment
            .add_template_owned(format!("{}.subject", kind.name()), subject)
            .and_then(|()| self.environment.add_template_owned(name.clone(), body));
        added.map_err(|error| wrong(error.to_string()))
    }

    /// Writes a mail.
    ///
    /// # Errors
    /// What the template asks for and the mail does not have in that form.
    pub(crate) fn render(&self, kind: MailKind, variables: &Value) -> Result<Rendered, TemplateError> {
        let render = |name: String| {
            let rendered = self
                .environment
                .get_template(&name)
                .and_then(|template| template.render(minijinja::value::Serde(variables)));
            rendered.map_err(|error| TemplateError::Syntax { name, what: error.to_string() })
        };
        let subject = render(format!("{}.subject", kind.name()))?;
        let html = render(format!("{}.html", kind.name()))?;
        // People's own words may be part of it.
        let subject = subject.split(char::is_control).collect::<Vec<_>>().join(" ");
        Ok(Rendered {
            subject: subject.trim().chars().take(LONGEST_SUBJECT).collect(),
            text: plain_text::of_html(&html),
            html: html.trim_start().to_owned(),
        })
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .variable_delimiters(VARIABLE.0, VARIABLE.1)
        .block_delimiters(BLOCK.0, BLOCK.1)
        .comment_delimiters(COMMENT.0, COMMENT.1)
        .build()
        .expect("six different delimiters");
    environment.set_syntax(syntax);
    // Metadata that somebody does not have is nothing, as in Go.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    environment
}

/// Subject and body of a built-in template.
fn built_in(kind: MailKind) -> (String, String) {
    let source = match kind {
        MailKind::Confirmation => include_str!("templates/confirmation.html"),
        MailKind::Recovery => include_str!("templates/recovery.html"),
        MailKind::MagicLink => include_str!("templates/magic_link.html"),
        MailKind::Invite => include_str!("templates/invite.html"),
        MailKind::EmailChange => include_str!("templates/email_change.html"),
        MailKind::Reauthentication => include_str!("templates/reauthentication.html"),
    };
    let (subject, body) = split(source).unwrap_or(("", source));
    let layout = include_str!("templates/layout.html");
    (subject.to_owned(), layout.replace("%subject%", subject).replace("%body%", body.trim_end()))
}

/// Subject and body of an operator's template; without a subject, the built-in one.
fn parts(kind: MailKind, source: &str) -> (String, String) {
    match split(source.trim_start_matches('\u{feff}')) {
        // An empty line for the subject's, so that mistakes are counted as in the file.
        Some((subject, body)) => (subject.to_owned(), format!("\n{body}")),
        None => (built_in(kind).0, source.to_owned()),
    }
}

/// `Subject: …` and the rest.
fn split(source: &str) -> Option<(&str, &str)> {
    let (first, rest) = source.split_once('\n').unwrap_or((source, ""));
    let (name, subject) = first.split_once(':')?;
    name.trim().eq_ignore_ascii_case("subject").then(|| (subject.trim(), rest))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn variables() -> Value {
        json!({
            "ConfirmationURL": "https://a.b/verify?token=t&type=signup", "Token": "123456", "TokenHash": "t",
            "SiteURL": "https://site.example", "Email": "ada@example.com", "NewEmail": "", "RedirectTo": "",
            "Data": { "name": "<b>Ada</b>", "lang": "de" }
        })
    }

    #[test]
    fn built_in_templates_say_what_they_must() {
        let templates = Templates::built_in();
        for kind in MailKind::ALL {
            let mail = templates.render(kind, &variables()).unwrap();
            assert!(!mail.subject.is_empty(), "{kind:?}");
            assert!(mail.html.contains("prefers-color-scheme: dark"), "{kind:?}");
            assert!(!mail.text.contains('<') && !mail.text.contains("color"), "{kind:?}: {}", mail.text);
            if kind != MailKind::Reauthentication {
                assert!(
                    mail.text.contains("https://a.b/verify?token=t&type=signup"),
                    "{kind:?}: {}",
                    mail.text
                );
            }
            if kind != MailKind::Invite {
                assert!(mail.text.contains("123456"), "{kind:?}: {}", mail.text);
            }
        }
    }

    #[test]
    fn the_folder_replaces_templates_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let template = "Subject: Hi {{ .Data.name }}\n<p>{{ if eq .Data.lang \"de\" }}Hallo{{ else }}Hello{{ end }} {{ .Data.name }}{{ .Data.none.deeper }}, {{ .Token }}</p>";
        std::fs::write(folder.path().join("magic_link.html"), template).unwrap();
        std::fs::write(folder.path().join("invite.html"), "<p>Come!</p>").unwrap();
        let templates = Templates::load(folder.path()).unwrap();
        let mail = templates.render(MailKind::MagicLink, &variables()).unwrap();
        assert_eq!(mail.subject, "Hi <b>Ada</b>");
        assert_eq!(mail.html, "<p>Hallo &lt;b&gt;Ada&lt;&#x2f;b&gt;, 123456</p>");
        assert_eq!(mail.text, "Hallo <b>Ada</b>, 123456\n");
        assert_eq!(
            templates.render(MailKind::Invite, &variables()).unwrap().subject,
            "You have been invited"
        );
        assert_eq!(
            templates.render(MailKind::Recovery, &variables()).unwrap().subject,
            "Reset your password"
        );
    }

    #[test]
    fn subjects_are_one_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("invite.html"), "Subject: {{ .Data.name }}\nx").unwrap();
        let templates = Templates::load(folder.path()).unwrap();
        let variables = json!({ "Data": { "name": "a\r\nBcc: evil@example.com" } });
        assert_eq!(
            templates.render(MailKind::Invite, &variables).unwrap().subject,
            "a  Bcc: evil@example.com"
        );
    }

    #[rstest]
    #[case("<p>\n{{ range .Data }}{{ end }}", "recovery.html is wrong: line 2: {{ range }} is not supported")]
    #[case("Subject: {{ if }}\n", "recovery.html is wrong: line 1: an empty {{ }}")]
    fn mistakes_are_named(#[case] template: &str, #[case] message: &str) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("recovery.html"), template).unwrap();
        let error = Templates::load(folder.path()).err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn a_missing_folder_is_a_mistake() {
        assert!(Templates::load(Path::new("/does/not/exist")).is_err());
    }
}
