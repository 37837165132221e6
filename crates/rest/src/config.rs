//! The options of the API, with PostgREST's names.

use url::Url;

use crate::config_file::{ConfigError, Settings, split};
use crate::schema::QualifiedName;

/// Options of one API; PostgREST's name of each stands in its line.
#[derive(Debug, Clone, PartialEq)]
pub struct RestConfig {
    /// `db-schemas`: exposed schemas, the first is the default.
    pub schemas: Vec<String>,
    /// `db-extra-search-path`
    pub extra_search_path: Vec<String>,
    /// `db-anon-role`; unset: requests without a token are refused.
    pub anon_role: Option<String>,
    /// `db-max-rows`
    pub max_rows: Option<u64>,
    /// `db-tx-end`
    pub tx_end: TxEnd,
    /// `db-pre-request`: a function; without a schema (empty) the search path decides.
    pub pre_request: Option<QualifiedName>,
    /// `db-root-spec`: a function that answers `GET /`; without a schema (empty) that of the request.
    pub root_spec: Option<QualifiedName>,
    /// `db-aggregates-enabled`
    pub aggregates: bool,
    /// `db-plan-enabled`
    pub plan: bool,
    /// `db-prepared-statements`
    pub prepared_statements: bool,
    /// `db-hoisted-tx-settings`
    pub hoisted_settings: Vec<String>,
    /// `openapi-mode`
    pub openapi_mode: OpenApiMode,
    /// `openapi-security-active`
    pub openapi_security: bool,
    /// `openapi-server-proxy-uri`
    pub openapi_proxy_uri: Option<String>,
    /// `server-timing-enabled`
    pub server_timing: bool,
    /// `server-trace-header`
    pub trace_header: Option<String>,
    /// `server-cors-allowed-origins`; unset: any.
    pub cors_origins: Option<Vec<String>>,
    /// `app.settings.*`
    pub app_settings: Vec<(String, String)>,
    /// `client-error-verbosity = minimal`
    pub minimal_errors: bool,
    /// `log-query`: log the statement of each request, without its values.
    pub log_query: bool,
    /// `url-use-legacy-target-names`: filters of an embed may use the relation's name although it has an alias.
    pub legacy_target_names: bool,
}

/// `db-tx-end`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxEnd {
    /// Roll back rather than commit.
    pub rollback: bool,
    /// `Prefer: tx=` decides otherwise.
    pub allow_override: bool,
}

/// `openapi-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenApiMode {
    /// What the role may use.
    FollowPrivileges,
    /// Everything.
    IgnorePrivileges,
    /// 404.
    Disabled,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            schemas: vec!["public".into()],
            extra_search_path: vec!["public".into()],
            anon_role: None,
            max_rows: None,
            tx_end: TxEnd { rollback: false, allow_override: false },
            pre_request: None,
            root_spec: None,
            aggregates: false,
            plan: false,
            prepared_statements: true,
            hoisted_settings: vec![
                "statement_timeout".into(),
                "plan_filter.statement_cost_limit".into(),
                "default_transaction_isolation".into(),
            ],
            openapi_mode: OpenApiMode::FollowPrivileges,
            openapi_security: false,
            openapi_proxy_uri: None,
            server_timing: false,
            trace_header: None,
            cors_origins: None,
            app_settings: Vec::new(),
            minimal_errors: false,
            log_query: false,
            legacy_target_names: true,
        }
    }
}

impl RestConfig {
    /// Reads a configuration file of PostgREST; connection and server options are left to
    /// [`Standalone`](crate::standalone::Standalone).
    ///
    /// # Errors
    /// [`ConfigError`] that names the line or the option.
    pub fn from_conf(text: &str) -> Result<Self, ConfigError> {
        Self::from_settings(&Settings::parse(text)?)
    }

    /// Takes the options from all their sources.
    ///
    /// # Errors
    /// [`ConfigError`] that names the option.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        Ok(Self {
            schemas: match settings.list(&["db-schemas", "db-schema"]) {
                None => defaults.schemas,
                Some(schemas) => exposable(schemas)?,
            },
            extra_search_path: match settings.raw_text(&["db-extra-search-path"]) {
                None => defaults.extra_search_path,
                Some(text) if text.is_empty() => Vec::new(),
                Some(text) => split(&text),
            },
            anon_role: settings.text(&["db-anon-role"]),
            max_rows: settings.integer(&["db-max-rows", "max-rows"]),
            tx_end: tx_end(settings)?,
            pre_request: settings.text(&["db-pre-request", "pre-request"]).map(|name| qualified(&name)),
            root_spec: settings.text(&["db-root-spec", "root-spec"]).map(|name| qualified(&name)),
            aggregates: settings.boolean(&["db-aggregates-enabled"]).unwrap_or(defaults.aggregates),
            plan: settings.boolean(&["db-plan-enabled"]).unwrap_or(defaults.plan),
            prepared_statements: settings
                .boolean(&["db-prepared-statements"])
                .unwrap_or(defaults.prepared_statements),
            hoisted_settings: settings.list(&["db-hoisted-tx-settings"]).unwrap_or(defaults.hoisted_settings),
            openapi_mode: one_of(
                settings,
                "openapi-mode",
                &[
                    ("follow-privileges", OpenApiMode::FollowPrivileges),
                    ("ignore-privileges", OpenApiMode::IgnorePrivileges),
                    ("disabled", OpenApiMode::Disabled),
                ],
            )?,
            openapi_security: settings
                .boolean(&["openapi-security-active"])
                .unwrap_or(defaults.openapi_security),
            openapi_proxy_uri: proxy_uri(settings)?,
            server_timing: settings.boolean(&["server-timing-enabled"]).unwrap_or(defaults.server_timing),
            trace_header: settings.text(&["server-trace-header"]),
            cors_origins: settings.list(&["server-cors-allowed-origins"]),
            app_settings: settings.app_settings(),
            minimal_errors: one_of(
                settings,
                "client-error-verbosity",
                &[("verbose", false), ("minimal", true)],
            )?,
            log_query: settings.boolean(&["log-query"]).unwrap_or(defaults.log_query),
            legacy_target_names: settings
                .boolean(&["url-use-legacy-target-names"])
                .unwrap_or(defaults.legacy_target_names),
        })
    }
}

/// `schema.name`, or a name alone.
pub(crate) fn qualified(text: &str) -> QualifiedName {
    match text.split_once('.') {
        Some((schema, name)) => QualifiedName::new(schema, name),
        None => QualifiedName::new("", text),
    }
}

/// One of a few words; the first is the default.
pub(crate) fn one_of<T: Copy>(settings: &Settings, key: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let given = settings.text(&[key]);
    let word = given.as_deref().unwrap_or(words[0].0);
    match words.iter().find(|(known, _)| *known == word) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            Err(ConfigError::Value {
                key: key.to_owned(),
                value: word.to_owned(),
                expected: format!("it must be one of {}", known.join(", ")),
            })
        }
    }
}

fn exposable(schemas: Vec<String>) -> Result<Vec<String>, ConfigError> {
    match schemas.iter().find(|schema| matches!(schema.as_str(), "pg_catalog" | "information_schema")) {
        None => Ok(schemas),
        Some(system) => Err(ConfigError::Value {
            key: "db-schemas".to_owned(),
            value: system.clone(),
            expected: format!("db-schemas does not allow schema: '{system}'"),
        }),
    }
}

fn tx_end(settings: &Settings) -> Result<TxEnd, ConfigError> {
    let end = |rollback, allow_override| TxEnd { rollback, allow_override };
    one_of(
        settings,
        "db-tx-end",
        &[
            ("commit", end(false, false)),
            ("commit-allow-override", end(false, true)),
            ("rollback", end(true, false)),
            ("rollback-allow-override", end(true, true)),
        ],
    )
}

fn proxy_uri(settings: &Settings) -> Result<Option<String>, ConfigError> {
    let Some(text) = settings.text(&["openapi-server-proxy-uri"]) else { return Ok(None) };
    let well_formed = Url::parse(&text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.port() != Some(0)
    });
    if well_formed {
        return Ok(Some(text));
    }
    Err(ConfigError::Value {
        key: "openapi-server-proxy-uri".to_owned(),
        value: text,
        expected: "Malformed proxy uri, a correct example: https://example.com:8443/basePath".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(RestConfig::from_conf("").expect("reads"), RestConfig::default());
    }

    #[test]
    fn every_option_is_read() {
        let config = RestConfig::from_conf(
            r#"
            db-schemas = "multi,   tenant,setup"
            db-extra-search-path = ""
            db-anon-role = "root"
            db-max-rows = "1000"
            db-tx-end = "rollback-allow-override"
            db-pre-request = "api.check"
            db-root-spec = "root"
            db-aggregates-enabled = true
            db-plan-enabled = true
            db-prepared-statements = "0"
            db-hoisted-tx-settings = "work_mem"
            openapi-mode = "ignore-privileges"
            openapi-security-active = true
            openapi-server-proxy-uri = "https://postgrest.org"
            server-timing-enabled = true
            server-trace-header = "X-Request-Id"
            server-cors-allowed-origins = "http://a.example, http://b.example"
            app.settings.test = "test"
            client-error-verbosity = "minimal"
            log-query = true
            url-use-legacy-target-names = false
            "#,
        )
        .expect("reads");
        let expected = RestConfig {
            schemas: vec!["multi".into(), "tenant".into(), "setup".into()],
            extra_search_path: Vec::new(),
            anon_role: Some("root".into()),
            max_rows: Some(1000),
            tx_end: TxEnd { rollback: true, allow_override: true },
            pre_request: Some(QualifiedName::new("api", "check")),
            root_spec: Some(QualifiedName::new("", "root")),
            aggregates: true,
            plan: true,
            prepared_statements: false,
            hoisted_settings: vec!["work_mem".into()],
            openapi_mode: OpenApiMode::IgnorePrivileges,
            openapi_security: true,
            openapi_proxy_uri: Some("https://postgrest.org".into()),
            server_timing: true,
            trace_header: Some("X-Request-Id".into()),
            cors_origins: Some(vec!["http://a.example".into(), "http://b.example".into()]),
            app_settings: vec![("app.settings.test".into(), "test".into())],
            minimal_errors: true,
            log_query: true,
            legacy_target_names: false,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, expected) in [
            ("openapi-mode = \"x\"", "openapi-mode cannot be \"x\": it must be one of follow-privileges"),
            ("db-tx-end = \"x\"", "db-tx-end cannot be \"x\": it must be one of commit"),
            (
                "db-schemas = \"a,pg_catalog\"",
                "db-schemas cannot be \"pg_catalog\": db-schemas does not allow",
            ),
            ("openapi-server-proxy-uri = \"ftp://x\"", "openapi-server-proxy-uri cannot be"),
            ("openapi-server-proxy-uri = \"https://x?q\"", "openapi-server-proxy-uri cannot be"),
        ] {
            let error = RestConfig::from_conf(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
