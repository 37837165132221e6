//! Passwords of the managed cluster: generated once, kept in a file that only we can read.

use std::fs;
use std::io;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::error::ClusterError;
use super::folder::write_private;

/// Who connects to the managed cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Login {
    /// `supabase_admin`, made by `initdb`: bootstrap and replication only.
    Superuser,
    /// `postgres`, the non-superuser that owns and migrates the application's schemas.
    Owner,
    /// `authenticator`, which has no rights but to become a request's role.
    Authenticator,
}

impl Login {
    /// Name of the Postgres role.
    pub fn role(self) -> &'static str {
        match self {
            Self::Superuser => "supabase_admin",
            Self::Owner => "postgres",
            Self::Authenticator => "authenticator",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Credentials {
    superuser: SecretString,
    owner: SecretString,
    authenticator: SecretString,
    /// Made for a database that `initdb` has not finished yet: without its data, nothing was lost.
    #[serde(default)]
    creating: bool,
}

impl Credentials {
    pub(super) const FILE: &str = "credentials.json";

    /// Reads the passwords; makes them when neither they nor the data exist yet, and nothing shows that they did.
    pub(super) fn load_or_create(dir: &Path, data: &Path, initialised: bool) -> Result<Self, ClusterError> {
        let path = dir.join(Self::FILE);
        let invalid =
            |reason: String| ClusterError::Credentials { path: path.clone(), reason, data: data.to_owned() };
        let link = fs::read_link(data).ok();
        let lost = |evidence: &Path| {
            let remains = [(data, link.is_some()), (path.as_path(), path.exists())];
            let remains = remains.iter().filter(|(_, exists)| *exists);
            let remove: Vec<_> = remains.map(|(path, _)| path.display().to_string()).collect();
            let missing = link.as_ref().map_or_else(|| data.to_owned(), |target| dir.join(target));
            ClusterError::Lost { path: missing, evidence: evidence.to_owned(), remove: remove.join(" and ") }
        };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mut read: Self = serde_json::from_str(&text).map_err(|error| {
                    // The parser's message could quote a password; its position cannot.
                    invalid(format!("not valid at line {}, column {}", error.line(), error.column()))
                })?;
                if initialised {
                    read.created(dir)?;
                } else if !read.creating {
                    return Err(lost(&path));
                }
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !initialised => {
                if link.is_some() && !data.exists() {
                    return Err(lost(data));
                }
                let made =
                    Self { superuser: random(), owner: random(), authenticator: random(), creating: true };
                write_private(&path, made.json().expose_secret(), None)?;
                Ok(made)
            }
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    /// Notes that the database exists: from now on, missing data are lost data.
    pub(super) fn created(&mut self, dir: &Path) -> Result<(), ClusterError> {
        if !self.creating {
            return Ok(());
        }
        self.creating = false;
        write_private(&dir.join(Self::FILE), self.json().expose_secret(), None)
    }

    fn json(&self) -> SecretString {
        let mut json = serde_json::json!({
            "superuser": self.superuser.expose_secret(),
            "owner": self.owner.expose_secret(),
            "authenticator": self.authenticator.expose_secret(),
        });
        if self.creating {
            json["creating"] = true.into();
        }
        format!("{json:#}\n").into()
    }

    pub(super) fn password(&self, login: Login) -> &SecretString {
        match login {
            Login::Superuser => &self.superuser,
            Login::Owner => &self.owner,
            Login::Authenticator => &self.authenticator,
        }
    }

    /// Passwords are hexadecimal, so that a URL needs no escapes.
    pub(super) fn url(&self, login: Login, port: u16, database: &str) -> SecretString {
        let password = self.password(login).expose_secret();
        format!("postgres://{}:{password}@127.0.0.1:{port}/{database}", login.role()).into()
    }
}

fn random() -> SecretString {
    hex::encode(rand::random::<[u8; 24]>()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn passwords_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = Credentials::load_or_create(dir.path(), &data, false).unwrap();
        let again = Credentials::load_or_create(dir.path(), &data, true).unwrap();
        let secret = first.password(Login::Owner).expose_secret();
        assert_eq!(secret, again.password(Login::Owner).expose_secret());
        assert_eq!(secret.len(), 48);
        assert_ne!(secret, first.password(Login::Superuser).expose_secret());
        let mode = fs::metadata(dir.path().join(Credentials::FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(secret));
        let url = first.url(Login::Authenticator, 5433, "postgres");
        assert!(url.expose_secret().starts_with("postgres://authenticator:"));
        assert!(url.expose_secret().ends_with("@127.0.0.1:5433/postgres"));
    }

    #[test]
    fn a_lost_database_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let (data, path) = (dir.path().join("data"), dir.path().join(Credentials::FILE));
        let load = |initialised| Credentials::load_or_create(dir.path(), &data, initialised);
        let refused = || load(false).unwrap_err().to_string();
        load(false).unwrap();
        load(false).expect("an interrupted creation goes on");
        load(true).unwrap();
        let error = refused();
        assert!(error.contains(&format!("there is no {}", data.display())), "{error}");
        assert!(error.contains(&format!("remove {} to begin", path.display())), "{error}");

        std::os::unix::fs::symlink("/nowhere/data", &data).unwrap();
        let error = refused();
        assert!(error.contains("there is no /nowhere/data"), "{error}");
        assert!(error.contains(&format!("remove {} and {}", data.display(), path.display())), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(refused().contains("there is no /nowhere/data"));
        fs::remove_file(&data).unwrap();
        load(false).unwrap();
    }

    #[test]
    fn lost_or_damaged_passwords_are_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let error = Credentials::load_or_create(dir.path(), &data, true).unwrap_err().to_string();
        assert!(error.contains("restore the file from a backup"), "{error}");
        fs::write(dir.path().join(Credentials::FILE), r#"{"superuser": "hunter2", "#).unwrap();
        let error = Credentials::load_or_create(dir.path(), &data, false).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }
}
