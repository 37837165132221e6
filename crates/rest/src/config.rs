//! The options of the API, with PostgREST's names.

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
    /// `db-pre-request`: schema-qualified function.
    pub pre_request: Option<crate::schema::QualifiedName>,
    /// `db-root-spec`
    pub root_spec: Option<crate::schema::QualifiedName>,
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
    /// `db-legacy-target-names` (or the name that the checked-out version uses).
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
            legacy_target_names: true,
        }
    }
}
