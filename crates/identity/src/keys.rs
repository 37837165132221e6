//! The project's keys: configured, or made once and kept in the data folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use longhouse_config::Config;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{KeysError, api_keys};

/// `iss` of the keys that Longhouse makes.
pub const ISSUER: &str = "longhouse";

const TEN_YEARS: u64 = 10 * 365 * 24 * 60 * 60;
const MIN_SECRET: usize = 32;

/// Everything that signs, or stands for, a role of this project.
#[derive(Debug, Clone)]
pub struct ProjectKeys {
    /// HS256 secret of keys and sessions.
    pub jwt_secret: SecretString,
    /// JWT of role `anon`; may be public.
    pub anon_key: SecretString,
    /// JWT of role `service_role`, which bypasses row-level security.
    pub service_role_key: SecretString,
    /// Opaque form of the anon key: `sb_publishable_…`.
    pub publishable_key: SecretString,
    /// Opaque form of the service role key: `sb_secret_…`.
    pub secret_key: SecretString,
    /// Signs webhooks of the Twilio emulator while no real token is configured.
    pub twilio_auth_token: SecretString,
}

/// `keys.json`.
#[derive(Serialize, Deserialize)]
struct Kept {
    jwt_secret: String,
    anon_key: String,
    service_role_key: String,
    publishable_key: String,
    secret_key: String,
    twilio_auth_token: String,
}

impl ProjectKeys {
    /// Configured keys, and for the rest those in `keys.json` of the data folder, which is made on first use.
    ///
    /// # Errors
    /// The file cannot be read, written or understood, or the configured secret is too short.
    pub fn load_or_create(config: &Config) -> Result<Self, KeysError> {
        let path = Self::path(&config.data);
        let mut kept = match read(&path)? {
            Some(kept) => kept,
            None => create(&path, generate())?,
        };
        let supabase = &config.supabase;
        let configured = supabase.jwt_secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        let secret = configured.unwrap_or_else(|| kept.jwt_secret.clone());
        if secret.chars().count() < MIN_SECRET {
            return Err(KeysError::WeakSecret(secret.chars().count()));
        }
        // Keys follow the secret: after it changes, the kept ones would open nothing.
        if !signed_by(&kept.anon_key, &secret) || !signed_by(&kept.service_role_key, &secret) {
            kept.anon_key = role_key("anon", &secret);
            kept.service_role_key = role_key("service_role", &secret);
            replace(&path, &kept)?;
        }
        let or = |configured: &Option<SecretString>, kept: String| {
            configured.clone().unwrap_or_else(|| SecretString::from(kept))
        };
        Ok(Self {
            jwt_secret: secret.into(),
            anon_key: or(&supabase.anon_key, kept.anon_key),
            service_role_key: or(&supabase.service_role_key, kept.service_role_key),
            publishable_key: kept.publishable_key.into(),
            secret_key: kept.secret_key.into(),
            twilio_auth_token: kept.twilio_auth_token.into(),
        })
    }

    /// Fresh keys that are kept nowhere, for a process that has no data folder (and for tests).
    pub fn generate() -> Self {
        let kept = generate();
        Self {
            jwt_secret: kept.jwt_secret.into(),
            anon_key: kept.anon_key.into(),
            service_role_key: kept.service_role_key.into(),
            publishable_key: kept.publishable_key.into(),
            secret_key: kept.secret_key.into(),
            twilio_auth_token: kept.twilio_auth_token.into(),
        }
    }

    /// Where the keys of a data folder are kept.
    pub fn path(data: &Path) -> PathBuf {
        data.join("keys.json")
    }

    /// Signs a token with the project's secret. `claims` should hold `role`, `sub` and `exp`.
    pub fn sign(&self, claims: &Map<String, Value>) -> SecretString {
        sign(claims, self.jwt_secret.expose_secret()).into()
    }
}

fn generate() -> Kept {
    let jwt_secret = token(32);
    Kept {
        anon_key: role_key("anon", &jwt_secret),
        service_role_key: role_key("service_role", &jwt_secret),
        publishable_key: api_keys::generate("sb_publishable_"),
        secret_key: api_keys::generate("sb_secret_"),
        // 32 hex digits, as Twilio's are.
        twilio_auth_token: hex::encode(rand::random::<[u8; 16]>()),
        jwt_secret,
    }
}

fn token(bytes: usize) -> String {
    let random: [u8; 64] = rand::random();
    URL_SAFE_NO_PAD.encode(&random[..bytes])
}

fn role_key(role: &str, secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(ISSUER));
    claims.insert("role".into(), json!(role));
    claims.insert("iat".into(), json!(now));
    claims.insert("exp".into(), json!(now + TEN_YEARS));
    sign(&claims, secret)
}

fn sign(claims: &Map<String, Value>, secret: &str) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("a map of JSON values signs with any HMAC key")
}

fn signed_by(key: &str, secret: &str) -> bool {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_aud = false;
    decode::<Map<String, Value>>(key, &DecodingKey::from_secret(secret.as_bytes()), &validation).is_ok()
}

fn read(path: &Path) -> Result<Option<Kept>, KeysError> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| KeysError::Damaged { path: path.into(), reason: reason(&error) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeysError::Io { path: path.into(), source }),
    }
}

/// serde's own message may quote the file, which holds secrets.
fn reason(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a key is missing or of the wrong kind",
        serde_json::error::Category::Eof => "the file ends too early",
        _ => "it is not JSON",
    };
    format!("{kind}, near line {}", error.line())
}

/// Puts the file in place only if there is none, so that of two first starts at once both use the same keys.
fn create(path: &Path, kept: Kept) -> Result<Kept, KeysError> {
    let io = |source| KeysError::Io { path: path.into(), source };
    let temporary = write_temporary(path, &kept).map_err(io)?;
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Ok(()) => removed.map(|()| kept).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))
        }
        Err(error) => Err(io(error)),
    }
}

fn replace(path: &Path, kept: &Kept) -> Result<(), KeysError> {
    write_temporary(path, kept)
        .and_then(|temporary| fs::rename(temporary, path))
        .map_err(|source| KeysError::Io { path: path.into(), source })
}

fn write_temporary(path: &Path, kept: &Kept) -> std::io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", hex::encode(rand::random::<[u8; 6]>())));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut text = serde_json::to_vec_pretty(kept)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(temporary)
}
