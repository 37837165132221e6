//! The API as a server of its own, `longhouse rest postgrest.conf`: its options and where they come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhouse_database::quote_ident;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Client;
use url::Url;

use crate::auth::{JwtConfig, RolePath};
use crate::config::{self, RestConfig};
use crate::config_file::{ConfigError, Settings};
use crate::schema::QualifiedName;

/// Everything that `longhouse rest` needs to know.
#[derive(Debug, Clone)]
pub struct Standalone {
    /// The API.
    pub rest: RestConfig,
    /// Tokens.
    pub jwt: JwtConfig,
    /// `db-uri`: URL or key-value form; the variables of libpq (`PGHOST`, …) stand in where nothing is given.
    pub db_uri: SecretString,
    /// `db-pool`
    pub pool_size: usize,
    /// `db-pool-acquisition-timeout`
    pub pool_acquisition_timeout: Duration,
    /// `db-pool-max-lifetime`
    pub pool_max_lifetime: Duration,
    /// `db-pool-max-idletime`
    pub pool_max_idletime: Duration,
    /// `db-pool-automatic-recovery`: keep trying when the database goes away.
    pub automatic_recovery: bool,
    /// `server-host`, as given; see [`listen_host`].
    pub host: String,
    /// `server-port`
    pub port: u16,
    /// `admin-server-host`
    pub admin_host: String,
    /// `admin-server-port`; unset: no admin server.
    pub admin_port: Option<u16>,
    /// `db-channel`
    pub channel: String,
    /// `db-channel-enabled`
    pub channel_enabled: bool,
    /// `db-config`: also take options from the database.
    pub db_config: bool,
    /// `db-pre-config`: a function that sets `pgrst.*`.
    pub pre_config: Option<QualifiedName>,
    /// `log-level`
    pub log_level: LogLevel,
}

/// `log-level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures to start.
    Crit,
    /// Answers with status 5xx.
    Error,
    /// Answers with status 4xx and 5xx.
    Warn,
    /// All requests.
    Info,
    /// What the server does besides.
    Debug,
}

/// Options that may stand in the database, as `pgrst.` settings of the role that connects.
const IN_DATABASE: &[&str] = &[
    "client_error_verbosity",
    "db_aggregates_enabled",
    "db_anon_role",
    "db_extra_search_path",
    "db_hoisted_tx_settings",
    "db_max_rows",
    "db_plan_enabled",
    "db_pre_config",
    "db_pre_request",
    "db_prepared_statements",
    "db_root_spec",
    "db_schemas",
    "db_tx_end",
    "jwt_aud",
    "jwt_cache_max_entries",
    "jwt_role_claim_key",
    "jwt_secret",
    "jwt_secret_is_base64",
    "openapi_mode",
    "openapi_security_active",
    "openapi_server_proxy_uri",
    "server_cors_allowed_origins",
    "server_timing_enabled",
    "server_trace_header",
    "url_use_legacy_target_names",
];

/// Settings of a role, or of the connecting one, of all databases first, so that this database's win.
const ROLE_SETTINGS: &str = "
    select substr(s, 7, strpos(s, '=') - 7) as name, substr(s, strpos(s, '=') + 1) as value
    from pg_catalog.pg_db_role_setting r
    cross join lateral unnest(r.setconfig) as u (s)
    where r.setrole = (select oid from pg_catalog.pg_roles where rolname = coalesce($1, current_user))
      and r.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
      and s like 'pgrst.%'
    order by r.setdatabase";

/// What a `db-pre-config` function has set.
const PRE_CONFIG_SETTINGS: &str = "
    select name, current_setting('pgrst.' || name, true) as value from unnest($1::text[]) as u (name)";

impl Standalone {
    /// Reads the configuration file, if there is one, and the environment (all of it: what does not concern this
    /// server is ignored).
    ///
    /// # Errors
    /// [`ConfigError`] that says which file, line or option is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Settings), ConfigError> {
        let text = file.map(read).transpose()?.unwrap_or_default();
        let settings = Settings::parse(&text)?.with_env(environment);
        Ok((Self::from_settings(&settings)?, settings))
    }

    /// Takes the options from all their sources, reading the files that `db-uri` and `jwt-secret` may name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        for (key, instead) in [
            ("server-unix-socket", "remove it and set server-host and server-port"),
            ("admin-server-unix-socket", "remove it and set admin-server-host and admin-server-port"),
        ] {
            if settings.text(&[key]).is_some() {
                return Err(ConfigError::Unsupported { key, instead });
            }
        }
        let rest = RestConfig::from_settings(settings)?;
        let host = settings.text(&["server-host"]).unwrap_or_else(|| "!4".to_owned());
        let port = settings.integer(&["server-port"]).unwrap_or(3000);
        let admin_port = settings.integer(&["admin-server-port"]);
        if admin_port == Some(port) {
            return Err(ConfigError::Value {
                key: "admin-server-port".to_owned(),
                value: port.to_string(),
                expected: "admin-server-port cannot be the same as server-port".to_owned(),
            });
        }
        let seconds = |keys: &[&str], default| Duration::from_secs(settings.integer(keys).unwrap_or(default));
        Ok(Self {
            jwt: jwt(settings, rest.anon_role.clone())?,
            db_uri: db_uri(settings)?,
            pool_size: settings.integer(&["db-pool"]).unwrap_or(10),
            pool_acquisition_timeout: seconds(&["db-pool-acquisition-timeout"], 10),
            pool_max_lifetime: seconds(&["db-pool-max-lifetime"], 1800),
            pool_max_idletime: seconds(&["db-pool-timeout", "db-pool-max-idletime"], 30),
            automatic_recovery: settings.boolean(&["db-pool-automatic-recovery"]).unwrap_or(true),
            admin_host: settings.text(&["admin-server-host"]).unwrap_or_else(|| host.clone()),
            host,
            port,
            admin_port,
            channel: settings.text(&["db-channel"]).unwrap_or_else(|| "pgrst".to_owned()),
            channel_enabled: settings.boolean(&["db-channel-enabled"]).unwrap_or(true),
            db_config: settings.boolean(&["db-config"]).unwrap_or(true),
            pre_config: settings.text(&["db-pre-config"]).map(|name| config::qualified(&name)),
            log_level: log_level(settings)?,
            rest,
        })
    }
}

/// The address to listen on, or to show: `!4`, `*` and their like mean every address.
pub fn listen_host(host: &str) -> &str {
    match host {
        "*" | "*4" | "!4" => "0.0.0.0",
        "*6" | "!6" => "::",
        host => host,
    }
}

/// Options from the database: settings there of the connecting role, or of the one named, over its settings everywhere, over what the
/// `db-pre-config` function sets. For [`Settings::with_database`].
///
/// # Errors
/// When Postgres refuses, say because the function fails. The transaction is ended nevertheless.
pub async fn database_settings(
    client: &Client,
    pre_config: Option<&QualifiedName>,
    role: Option<&str>,
) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    client.batch_execute("begin read only").await?;
    let read = read_database_settings(client, pre_config, role).await;
    let ended = client.batch_execute("rollback").await;
    let settings = read?;
    ended?;
    Ok(settings)
}

async fn read_database_settings(
    client: &Client,
    pre_config: Option<&QualifiedName>,
    role: Option<&str>,
) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let mut settings: Vec<(String, String)> = Vec::new();
    if let Some(function) = pre_config {
        let name = quote_ident(&function.name);
        let function = match function.schema.as_str() {
            "" => name.to_string(),
            schema => format!("{}.{name}", quote_ident(schema)),
        };
        client.batch_execute(&format!("select {function}()")).await?;
        for row in client.query(PRE_CONFIG_SETTINGS, &[&IN_DATABASE]).await? {
            if let Some(value) = row.get("value") {
                settings.push((row.get("name"), value));
            }
        }
    }
    for row in client.query(ROLE_SETTINGS, &[&role]).await? {
        let name: String = row.get("name");
        if IN_DATABASE.contains(&name.as_str()) {
            settings.push((name, row.get("value")));
        }
    }
    Ok(settings)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// The text itself, or what the file holds that it names with `@`.
fn or_file(text: String) -> Result<String, ConfigError> {
    match text.strip_prefix('@') {
        Some(path) => read(&PathBuf::from(path)).map(|mut content| {
            if content.ends_with('\n') {
                content.pop();
            }
            content
        }),
        None => Ok(text),
    }
}

fn jwt(settings: &Settings, anon_role: Option<String>) -> Result<JwtConfig, ConfigError> {
    let audience = settings.text(&["jwt-aud"]);
    if let Some(audience) = audience.as_ref().filter(|text| text.contains(':') && Url::parse(text).is_err()) {
        return Err(ConfigError::Value {
            key: "jwt-aud".to_owned(),
            value: audience.clone(),
            expected: "jwt-aud should be a string or a valid URI".to_owned(),
        });
    }
    let role_path: Option<RolePath> =
        settings.text(&["jwt-role-claim-key", "role-claim-key"]).map(|text| text.parse()).transpose()?;
    Ok(JwtConfig {
        secret: settings.text(&["jwt-secret"]).map(or_file).transpose()?.map(SecretString::from),
        secret_is_base64: settings.boolean(&["jwt-secret-is-base64", "secret-is-base64"]).unwrap_or(false),
        audience,
        role_path: role_path.unwrap_or_default(),
        cache_entries: settings.integer(&["jwt-cache-max-entries"]).unwrap_or(1000),
        anon_role,
    })
}

fn log_level(settings: &Settings) -> Result<LogLevel, ConfigError> {
    config::one_of(
        settings,
        "log-level",
        &[
            ("error", LogLevel::Error),
            ("crit", LogLevel::Crit),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
        ],
    )
}

fn db_uri(settings: &Settings) -> Result<SecretString, ConfigError> {
    let uri = settings.text(&["db-uri"]).map(or_file).transpose()?.unwrap_or_default();
    let uri = SecretString::from(uri.trim());
    if !matches!(uri.expose_secret(), "" | "postgresql://" | "postgres://") {
        return Ok(uri);
    }
    let mut from_variables = String::new();
    for (key, variable, default) in [
        ("host", "PGHOST", Some("localhost")),
        ("port", "PGPORT", None),
        ("user", "PGUSER", Some("postgres")),
        ("password", "PGPASSWORD", None),
        ("dbname", "PGDATABASE", None),
        ("sslmode", "PGSSLMODE", None),
    ] {
        if let Some(value) = settings.variable(variable).or(default) {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            from_variables.push_str(&format!("{key}='{value}' "));
        }
    }
    Ok(SecretString::from(from_variables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(conf: &str, variables: &[(&str, &str)]) -> Result<Standalone, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Standalone::from_settings(&Settings::parse(conf)?.with_env(variables))
    }

    #[test]
    fn defaults_are_those_of_postgrest() {
        let options = load("", &[]).expect("reads");
        assert_eq!((options.host.as_str(), options.port, options.admin_port), ("!4", 3000, None));
        assert_eq!((options.pool_size, options.pool_acquisition_timeout.as_secs()), (10, 10));
        assert_eq!((options.pool_max_lifetime.as_secs(), options.pool_max_idletime.as_secs()), (1800, 30));
        assert_eq!(
            (options.channel.as_str(), options.channel_enabled, options.db_config),
            ("pgrst", true, true)
        );
        assert_eq!((options.jwt.cache_entries, options.log_level), (1000, LogLevel::Error));
        assert_eq!(listen_host(&options.host), "0.0.0.0");
        assert_eq!(options.db_uri.expose_secret(), "host='localhost' user='postgres'");
    }

    #[test]
    fn variables_of_libpq_stand_in_for_the_uri() {
        let variables = [("PGHOST", "db"), ("PGUSER", "o'hara"), ("PGDATABASE", "films"), ("HOME", "/")];
        let options = load("db-uri = \"postgresql://\"", &variables).expect("reads");
        assert_eq!(options.db_uri.expose_secret(), r"host='db' user='o\'hara' dbname='films'");
        let options = load("db-uri = \"postgres://u@h/d\"", &variables).expect("reads");
        assert_eq!(options.db_uri.expose_secret(), "postgres://u@h/d");
    }

    #[test]
    fn the_environment_alone_is_enough() {
        let options = load(
            "",
            &[
                ("PGRST_DB_URI", "postgres://u@h/d"),
                ("PGRST_SERVER_PORT", "80"),
                ("PGRST_ADMIN_SERVER_PORT", "3001"),
                ("PGRST_DB_ANON_ROLE", "anon"),
                ("PGRST_JWT_ROLE_CLAIM_KEY", "$.user[0].real_role"),
                ("PGRST_JWT_AUD", "https://postgrest.org"),
                ("PGRST_LOG_LEVEL", "info"),
                ("PGRST_APP_SETTINGS_test", "1"),
            ],
        )
        .expect("reads");
        assert_eq!((options.port, options.admin_port, options.log_level), (80, Some(3001), LogLevel::Info));
        assert_eq!(options.jwt.anon_role.as_deref(), Some("anon"));
        assert_eq!(options.jwt.role_path.to_string(), "$.user[0].real_role");
        assert_eq!(options.rest.app_settings, [("app.settings.test".into(), "1".into())]);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (conf, expected) in [
            ("server-unix-socket = \"/tmp/x\"", "server-unix-socket is not supported: remove it"),
            ("admin-server-port = 3000", "admin-server-port cannot be \"3000\""),
            ("jwt-aud = \"foo bar://x\"", "jwt-aud cannot be"),
            ("jwt-role-claim-key = \"role\"", "failed to parse jwt-role-claim-key (role) at character 1"),
            ("jwt-secret = \"@/does/not/exist\"", "cannot read /does/not/exist"),
            ("log-level = \"loud\"", "log-level cannot be \"loud\": it must be one of error, crit, warn"),
        ] {
            let error = load(conf, &[]).expect_err(conf).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_too() {
        let dir = std::env::temp_dir().join(format!("longhouse-rest-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let file = dir.join("secret");
        std::fs::write(&file, "reallyreallyreallyreallyverysafe\n").expect("writes");
        let options = load(&format!("jwt-secret = \"@{}\"", file.display()), &[]).expect("reads");
        std::fs::remove_dir_all(&dir).expect("removes");
        let secret = options.jwt.secret.as_ref().map(SecretString::expose_secret);
        assert_eq!(secret, Some("reallyreallyreallyreallyverysafe"));
        assert!(!format!("{options:?}").contains("really"), "never in a log");
    }
}
