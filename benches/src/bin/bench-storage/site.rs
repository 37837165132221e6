//! The server with its buckets, one open to everybody and one under a policy, and who asks for what lies there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use jsonwebtoken::{EncodingKey, Header};
use longhouse_benches::server::{Home, Server};
use serde_json::json;

use crate::{Error, http};

const USER: &str = "00000000-0000-4000-8000-000000000001";
/// What projects have: everybody reads and writes their own.
const MIGRATION: &str = "
    insert into storage.buckets (id, name, public) values ('public', 'public', true), ('private', 'private', false);
    create policy own on storage.objects for all to authenticated
      using (bucket_id = 'private' and (storage.foldername(name))[1] = (select auth.uid())::text)
      with check (bucket_id = 'private' and (storage.foldername(name))[1] = (select auth.uid())::text);
";

/// A running server.
#[derive(Debug)]
pub(crate) struct Site {
    // Ends before its home does.
    server: Server,
    home: Home,
    token: String,
}

impl Site {
    /// Starts the server on a new folder and makes the buckets.
    pub(crate) fn start(program: &Path, log: &Path) -> Result<Self, Error> {
        let home = Home::new(program, log)?.with("LONGHOUSE_STORAGE__FILE_SIZE_LIMIT", 1_000_000_000_000_u64);
        let server = home.start()?;
        let migrations = home.data().join("bench-migrations");
        fs::create_dir_all(&migrations)?;
        fs::write(migrations.join("20260101000000_buckets.sql"), MIGRATION)?;
        let pushed = Command::new(program)
            .args(["db", "push", "--db-url", &server.run.database_url, "--migrations"])
            .arg(&migrations)
            .output()?;
        if !pushed.status.success() {
            return Err(Error::Protocol(format!("db push: {}", String::from_utf8_lossy(&pushed.stderr))));
        }
        let claims = json!({
            "sub": USER, "aud": "authenticated", "role": "authenticated", "iss": "http://127.0.0.1/auth/v1",
            "exp": chrono::Utc::now().timestamp() + 24 * 3_600, "email": "ada@example.com", "is_anonymous": false,
        });
        let key = EncodingKey::from_secret(server.run.jwt_secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key)
            .map_err(|error| Error::Protocol(format!("cannot sign a token: {error}")))?;
        Ok(Self { server, home, token })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Where the server keeps its files; the peer writes there too.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.data().join("storage")
    }

    fn head(&self, method: &str, path: &str, key: Option<&str>, rest: &str) -> Vec<u8> {
        let key = key.map_or_else(String::new, |token| {
            let apikey = &self.server.run.publishable_key;
            format!("apikey: {apikey}\r\nAuthorization: Bearer {token}\r\n")
        });
        format!(
            "{method} /storage/v1{path} HTTP/1.1\r\nHost: {}\r\n{key}Accept: */*\r\nUser-Agent: bench\r\n{rest}\r\n",
            self.address()
        )
        .into_bytes()
    }

    fn name_in(bucket: &str, name: &str) -> String {
        match bucket {
            "private" => format!("private/{USER}/{name}"),
            _ => format!("{bucket}/{name}"),
        }
    }

    /// A download that needs no key.
    pub(crate) fn public(&self, name: &str) -> Vec<u8> {
        self.head("GET", &format!("/object/public/{}", Self::name_in("public", name)), None, "")
    }

    /// A download that row-level security decides.
    pub(crate) fn private(&self, name: &str) -> Vec<u8> {
        let path = format!("/object/authenticated/{}", Self::name_in("private", name));
        self.head("GET", &path, Some(&self.token), "")
    }

    /// The head of an upload: of the user's own, or of the service's where the bucket has no policy.
    pub(crate) fn uploading(&self, bucket: &str, name: &str, size: u64) -> Vec<u8> {
        let key = if bucket == "private" { &self.token } else { &self.server.run.service_role_key };
        let rest =
            format!("Content-Type: application/octet-stream\r\nContent-Length: {size}\r\nx-upsert: true\r\n");
        self.head("POST", &format!("/object/{}", Self::name_in(bucket, name)), Some(key), &rest)
    }

    pub(crate) fn upload(&self, bucket: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut stream = http::connect(self.address())?;
        let head = self.uploading(bucket, name, bytes.len() as u64);
        http::exchange(&mut stream, &head, bytes).map(drop)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let path = format!("/object/{}", Self::name_in("private", name));
        let request = self.head("DELETE", &path, Some(&self.token), "");
        http::exchange(&mut http::connect(self.address())?, &request, b"").map(drop)
    }

    /// Files of this size in the server's folder.
    pub(crate) fn blobs_of(&self, size: u64) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.folder().join("blobs"))? {
            for file in fs::read_dir(folder?.path())? {
                let file = file?;
                if file.metadata()?.len() == size {
                    found.push(file.path());
                }
            }
        }
        Ok(found)
    }

    /// One of them.
    pub(crate) fn blob_of(&self, size: u64) -> Result<PathBuf, Error> {
        let found = self.blobs_of(size)?.pop();
        found.ok_or_else(|| Error::Protocol(format!("no stored file has {size} bytes")))
    }

    /// Removes files of this size whose objects were deleted, as the sweeper would ten minutes later: the disk may be
    /// too small for all of them together.
    pub(crate) fn forget_deleted(&self, size: u64) -> Result<(), Error> {
        self.blobs_of(size)?.iter().try_for_each(|file| Ok(fs::remove_file(file)?))
    }

    /// Whether the disk holds so much more.
    pub(crate) fn has_space(&self, bytes: u64) -> Result<(), Error> {
        let disk = rustix::fs::statvfs(self.home.data()).map_err(std::io::Error::from)?;
        let free = disk.f_bavail * disk.f_frsize;
        if free >= bytes {
            return Ok(());
        }
        Err(Error::Protocol(format!(
            "the disk has {} GB free and {} are needed: free some, set TMPDIR, or choose fewer with --gigabytes",
            free / 1_000_000_000,
            bytes / 1_000_000_000
        )))
    }
}

/// Bytes that no disk compresses and no two places share.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
