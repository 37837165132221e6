//! What the chores need on the machine: found, installed where permitted, else named.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, process};

pub(crate) mod clients;
pub(crate) mod npm;

/// What the set-up is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Dev,
    Test,
}

/// Something the chores need.
struct Need {
    name: &'static str,
    /// Why, for people who are asked to install it.
    why: &'static str,
    /// The first chore that needs it; later ones do too.
    since: Purpose,
    found: fn(&Places) -> bool,
    source: Source,
}

enum Source {
    /// Packages of Debian and Homebrew.
    Packages { debian: &'static str, homebrew: &'static str },
    /// A crate with a program.
    Crate(&'static str),
}

/// Oldest Postgres that Longhouse runs on.
const OLDEST_POSTGRES: u32 = 14;

const NEEDS: &[Need] = &[
    Need {
        name: "Postgres 14 or later",
        why: "server programs, for the managed cluster",
        since: Purpose::Dev,
        found: has_postgres,
        source: Source::Packages { debian: "postgresql", homebrew: "postgresql@17" },
    },
    Need {
        name: "espeak-ng",
        why: "the voice of the emulators",
        since: Purpose::Dev,
        found: |places| places.has("espeak-ng"),
        source: Source::Packages { debian: "espeak-ng", homebrew: "espeak-ng" },
    },
    Need {
        name: "sox",
        why: "test recordings",
        since: Purpose::Test,
        found: |places| places.has("sox"),
        source: Source::Packages { debian: "sox", homebrew: "sox" },
    },
    Need {
        name: "nats-server",
        why: "tests of several servers",
        since: Purpose::Test,
        found: |places| places.has("nats-server"),
        source: Source::Packages { debian: "nats-server", homebrew: "nats-server" },
    },
    Need {
        name: "Chromium",
        why: "tests of pages",
        since: Purpose::Test,
        found: |places| {
            ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
                .iter()
                .any(|n| places.has(n))
                || Path::new("/Applications/Google Chrome.app").exists()
                || Path::new("/Applications/Chromium.app").exists()
        },
        source: Source::Packages { debian: "chromium", homebrew: "--cask chromium" },
    },
    Need {
        name: "npm",
        why: "installs what the Studio's pages are made of and the clients that tests run, and their Node.js",
        since: Purpose::Dev,
        found: |places| places.has("npm"),
        source: Source::Packages { debian: "npm", homebrew: "node" },
    },
    Need {
        name: "Python 3 with venv",
        why: "the Python client that tests run",
        since: Purpose::Test,
        found: has_python,
        source: Source::Packages { debian: "python3-venv", homebrew: "python" },
    },
    Need {
        name: "cargo-nextest",
        why: "runs the tests",
        since: Purpose::Test,
        found: |places| places.has("cargo-nextest"),
        source: Source::Crate("cargo-nextest"),
    },
];

/// Folders in which programs are looked for.
struct Places {
    path: Vec<PathBuf>,
    postgres: Vec<PathBuf>,
}

impl Places {
    fn of_this_machine() -> Self {
        let mut path: Vec<_> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        // Where `cargo install` puts programs; Cargo finds its own there even off the PATH.
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        path.extend(home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).map(|home| home.join("bin")));
        let mut postgres = path.clone();
        let versioned =
            [("/usr/lib/postgresql", "bin"), ("/Applications/Postgres.app/Contents/Versions", "bin")];
        for (parent, inner) in versioned {
            postgres.extend(folders(Path::new(parent)).map(|version| version.join(inner)));
        }
        for parent in ["/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
            let named = |folder: &PathBuf| {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with("pgsql-") || name.starts_with("postgresql")
            };
            postgres.extend(folders(Path::new(parent)).filter(named).map(|folder| folder.join("bin")));
        }
        postgres.push("/usr/local/pgsql/bin".into());
        Self { path, postgres }
    }

    fn has(&self, program: &str) -> bool {
        self.path.iter().any(|folder| folder.join(program).is_file())
    }
}

fn folders(parent: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn has_postgres(places: &Places) -> bool {
    let complete = |folder: &&PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    places.postgres.iter().filter(complete).any(|folder| {
        // Debian's folders carry the version; asking the program costs some milliseconds more.
        let by_name = folder.parent().and_then(|version| version.file_name()?.to_str()?.parse().ok());
        by_name.or_else(|| postgres_version(folder)).is_some_and(|version: u32| version >= OLDEST_POSTGRES)
    })
}

/// Debian ships the module `venv` without the part that installs pip into environments.
fn has_python(places: &Places) -> bool {
    let able = || process::output(Command::new("python3").args(["-c", "import venv, ensurepip"]));
    places.has("python3") && able().is_ok_and(|output| output.status.success())
}

fn postgres_version(folder: &Path) -> Option<u32> {
    let output = process::output(Command::new(folder.join("postgres")).arg("--version")).ok()?;
    major_version(&String::from_utf8_lossy(&output.stdout))
}

/// 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(printed: &str) -> Option<u32> {
    let number = printed.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Makes sure that everything is there.
///
/// # Errors
/// [`Error::Advice`] names the command that installs what is missing, where this program may not.
pub(crate) fn ensure(purpose: Purpose) -> Result<(), Error> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("missing: {} ({})", need.name, need.why);
    }
    let packages: Vec<&str> = missing.iter().filter_map(|need| need.debian()).collect();
    if !packages.is_empty() {
        let Some(installer) = Installer::of_this_machine() else {
            return Err(Error::Advice(advice(&missing, cfg!(target_os = "macos"))));
        };
        installer.install(&packages)?;
    }
    for need in &missing {
        if let Source::Crate(name) = need.source {
            eprintln!("Building {name} from crates.io, a few minutes …");
            process::run(process::cargo().args(["install", "--locked", "--quiet", name]))?;
        }
    }
    let still = self::missing(purpose);
    if still.is_empty() { Ok(()) } else { Err(Error::Advice(advice(&still, cfg!(target_os = "macos")))) }
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    let places = Places::of_this_machine();
    NEEDS.iter().filter(|need| need.since <= purpose && !(need.found)(&places)).collect()
}

impl Need {
    fn debian(&self) -> Option<&'static str> {
        match self.source {
            Source::Packages { debian, .. } => Some(debian),
            Source::Crate(_) => None,
        }
    }
}

/// The commands to type.
fn advice(missing: &[&Need], mac: bool) -> String {
    let mut lines = vec!["install what is missing, then run this again:".to_owned()];
    let packages = |pick: fn(&'static str, &'static str) -> &'static str| {
        let names = missing.iter().filter_map(|need| match need.source {
            Source::Packages { debian, homebrew } => Some(pick(debian, homebrew)),
            Source::Crate(_) => None,
        });
        names.collect::<Vec<_>>()
    };
    if mac {
        // Casks and formulae do not mix on one line.
        lines.extend(packages(|_, homebrew| homebrew).iter().map(|name| format!("  brew install {name}")));
    } else if !packages(|debian, _| debian).is_empty() {
        let names = packages(|debian, _| debian).join(" ");
        lines.push(format!("  sudo apt-get update && sudo apt-get install {names}"));
        lines.push("  (or your distribution's packages of these names)".to_owned());
    }
    for need in missing {
        if let Source::Crate(name) = need.source {
            lines.push(format!("  cargo install --locked {name}"));
        }
    }
    lines.join("\n")
}

/// apt-get, with the right to use it.
struct Installer {
    sudo: bool,
}

impl Installer {
    fn of_this_machine() -> Option<Self> {
        if !Path::new("/usr/bin/apt-get").exists() {
            return None;
        }
        let user = process::output(Command::new("id").arg("-u")).ok()?;
        if user.stdout.trim_ascii() == b"0" {
            return Some(Self { sudo: false });
        }
        // `-n`: a password would be asked for in the middle of a build, or of CI.
        let allowed = process::output(Command::new("sudo").args(["-n", "true"])).ok()?;
        allowed.status.success().then_some(Self { sudo: true })
    }

    fn install(&self, packages: &[&str]) -> Result<(), Error> {
        eprintln!("Installing {} by apt-get, about a minute …", packages.join(", "));
        self.apt(&["update"])?;
        let mut words = vec!["install", "--yes", "--no-install-recommends"];
        words.extend(packages);
        self.apt(&words)
    }

    fn apt(&self, words: &[&str]) -> Result<(), Error> {
        let mut command = if self.sudo {
            let mut command = Command::new("sudo");
            command.args(["-n", "env"]);
            command
        } else {
            Command::new("env")
        };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        // Bounds: a mirror that does not answer, and another package manager at work.
        command.args([
            "-o",
            "Acquire::http::Timeout=30",
            "-o",
            "Acquire::Retries=2",
            "-o",
            "DPkg::Lock::Timeout=120",
        ]);
        process::read(command.args(words)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15))]
    #[case("postgres (PostgreSQL) 18beta1", Some(18))]
    #[case("postgres (PostgreSQL) 9.6.24", Some(9))]
    #[case("psql 15", None)]
    #[case("", None)]
    fn versions(#[case] printed: &str, #[case] major: Option<u32>) {
        assert_eq!(major_version(printed), major);
    }

    #[test]
    fn an_old_or_incomplete_postgres_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let with = |version: &str, programs: &[&str]| {
            let bin = folder.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in programs {
                std::fs::write(bin.join(program), "").unwrap();
            }
            has_postgres(&Places { path: Vec::new(), postgres: vec![bin] })
        };
        assert!(!with("13", &["initdb", "postgres"]));
        assert!(!with("16", &["initdb"]));
        assert!(with("17", &["initdb", "postgres"]));
    }

    #[test]
    fn advice_is_a_command_to_paste() {
        let all: Vec<&Need> = NEEDS.iter().collect();
        let debian = advice(&all, false);
        assert!(
            debian.contains(
                "sudo apt-get install postgresql espeak-ng sox nats-server chromium npm python3-venv\n"
            ),
            "{debian}"
        );
        assert!(debian.contains("cargo install --locked cargo-nextest"), "{debian}");
        let mac = advice(&all, true);
        assert!(
            mac.contains("brew install postgresql@17\n") && mac.contains("brew install --cask chromium\n"),
            "{mac}"
        );
    }

    #[test]
    fn dev_needs_neither_browser_nor_test_runner() {
        let dev: Vec<_> =
            NEEDS.iter().filter(|need| need.since <= Purpose::Dev).map(|need| need.name).collect();
        assert_eq!(dev, ["Postgres 14 or later", "espeak-ng", "npm"]);
    }
}
