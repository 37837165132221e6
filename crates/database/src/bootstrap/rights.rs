//! What the login may do, and what to tell an administrator when that is too little.

use tokio_postgres::Transaction;

use super::{BootstrapError, Platform};
use crate::quote_ident;

/// Oldest supported server, as `server_version_num` counts.
const OLDEST: i32 = 140_000;

/// Attributes of roles became delegable to non-superusers with Postgres 16.
const DELEGABLE_ATTRIBUTES: i32 = 160_000;

const ROLES: [&str; 8] = [
    "anon",
    "authenticated",
    "service_role",
    "authenticator",
    "supabase_auth_admin",
    "supabase_storage_admin",
    "dashboard_user",
    "postgres",
];

/// State of the server and of the login, read in one query.
pub(super) struct Facts {
    pub(super) user: String,
    pub(super) superuser: bool,
    pub(super) has_ledger: bool,
    version: String,
    version_num: i32,
    create_role: bool,
    bypass_rls: bool,
    create_on_database: bool,
    create_in_public: bool,
    owns_database: bool,
    owns_ledger: bool,
    database: String,
    auth_users: bool,
    supabase_admin: bool,
    postgres_is_superuser: bool,
    service_role_confined: bool,
    existing: Vec<String>,
    memberships: Vec<String>,
}

impl Facts {
    pub(super) async fn read(transaction: &Transaction<'_>) -> Result<Self, BootstrapError> {
        let sql = "
            select current_user::text as user, u.rolsuper, u.rolcreaterole, u.rolbypassrls,
              current_setting('server_version') as version,
              current_setting('server_version_num')::int4 as version_num,
              current_database()::text as database,
              has_database_privilege(current_database(), 'create') as create_on_database,
              coalesce((select has_schema_privilege(oid, 'create') from pg_namespace where nspname = 'public'), true)
                as create_in_public,
              d.datdba = u.oid as owns_database,
              coalesce((select pg_has_role(c.relowner, 'usage') from pg_class c
                join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'longhouse' and c.relname = 'schema_versions'), false) as owns_ledger,
              exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'longhouse' and c.relname = 'schema_versions') as has_ledger,
              exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'auth' and c.relname = 'users') as auth_users,
              exists (select from pg_roles where rolname = 'supabase_admin') as supabase_admin,
              exists (select from pg_roles where rolname = 'postgres' and rolsuper) as postgres_is_superuser,
              exists (select from pg_roles where rolname = 'service_role' and not rolbypassrls)
                as service_role_confined,
              array(select rolname::text from pg_roles) as existing,
              array(select rolname::text from pg_roles where pg_has_role(oid, 'member')) as memberships
            from pg_roles u, pg_database d
            where u.rolname = current_user and d.datname = current_database()";
        let rows = transaction.query_typed(sql, &[]).await?;
        let row = rows.first().expect("a session has a role and a database");
        Ok(Self {
            user: row.get("user"),
            superuser: row.get("rolsuper"),
            has_ledger: row.get("has_ledger"),
            version: row.get("version"),
            version_num: row.get("version_num"),
            create_role: row.get("rolcreaterole"),
            bypass_rls: row.get("rolbypassrls"),
            create_on_database: row.get("create_on_database"),
            create_in_public: row.get("create_in_public"),
            owns_database: row.get("owns_database"),
            owns_ledger: row.get("owns_ledger"),
            database: row.get("database"),
            auth_users: row.get("auth_users"),
            supabase_admin: row.get("supabase_admin"),
            postgres_is_superuser: row.get("postgres_is_superuser"),
            service_role_confined: row.get("service_role_confined"),
            existing: row.get("existing"),
            memberships: row.get("memberships"),
        })
    }

    pub(super) fn check_version(&self) -> Result<(), BootstrapError> {
        if self.version_num < OLDEST {
            return Err(BootstrapError::UnsupportedVersion(self.version.clone()));
        }
        Ok(())
    }

    /// Whether a Supabase project (hosted, or of its command line) lives here. Ours has a ledger, asked before.
    pub(super) fn supabase(&self) -> bool {
        self.supabase_admin && self.auth_users
    }

    /// Whether the database belongs to the superuser although an owner role exists.
    pub(super) fn database_astray(&self) -> bool {
        self.superuser && self.owns_database && !self.postgres_is_superuser
    }

    /// Whether the login may change what an earlier bootstrap made.
    pub(super) fn may_upgrade(&self) -> bool {
        self.superuser || self.owns_ledger
    }

    /// Who owns what migrations touch: `postgres`, unless that is a plain server's own superuser.
    pub(super) fn owner(&self, managed: bool, platform: Platform) -> String {
        let delegate = self.superuser && (managed || !self.postgres_is_superuser);
        match platform {
            Platform::Longhouse if delegate => "postgres".into(),
            _ => self.user.clone(),
        }
    }

    pub(super) fn require_for_guest(&self) -> Result<(), BootstrapError> {
        if self.superuser || self.create_on_database || self.owns_ledger {
            return Ok(());
        }
        let sql = format!(
            "grant create on database {} to {};",
            quote_ident(&self.database),
            quote_ident(&self.user)
        );
        Err(self.insufficient(vec!["`create` on the database".into()], sql))
    }

    pub(super) fn require_for_platform(&self) -> Result<(), BootstrapError> {
        if self.superuser {
            return match self.service_role_confined {
                true => Err(self.insufficient(
                    vec!["`bypassrls` on the existing role service_role".into()],
                    "alter role service_role bypassrls;".into(),
                )),
                false => Ok(()),
            };
        }
        let user = quote_ident(&self.user);
        let mut missing = Vec::new();
        let mut sql = Vec::new();

        let absent: Vec<&str> = ROLES.into_iter().filter(|role| !self.has(role)).collect();
        let may_create_service_role = self.version_num >= DELEGABLE_ATTRIBUTES && self.bypass_rls;
        let blocked: Vec<&str> = absent
            .iter()
            .copied()
            .filter(|role| !self.create_role || (*role == "service_role" && !may_create_service_role))
            .collect();
        if !self.create_role && !blocked.is_empty() {
            missing.push(format!("`createrole` (the roles {} do not exist)", absent.join(", ")));
        } else if !blocked.is_empty() {
            missing.push("the right to create service_role, which bypasses row-level security".into());
        }
        sql.extend(blocked.iter().map(|role| create_role(role)));
        if self.service_role_confined {
            missing.push("`bypassrls` on the existing role service_role".into());
            sql.push("alter role service_role bypassrls;".into());
        }

        // A creator may join its own roles; those that exist already need somebody else's grant.
        let foreign = |role: &&str| {
            let exists = self.has(role) || blocked.contains(role);
            exists && !self.memberships.iter().any(|m| m == role)
        };
        let join: Vec<&str> =
            ["anon", "authenticated", "service_role", "authenticator"].into_iter().filter(foreign).collect();
        if !join.is_empty() {
            if join.iter().any(|role| self.has(role)) {
                missing.push(format!("membership of {}", join.join(", ")));
            }
            sql.push(format!("grant {} to {user} with admin option;", join.join(", ")));
        }
        if !blocked.is_empty() && !self.create_role {
            sql.push("grant anon, authenticated, service_role to authenticator;".into());
        }
        if !self.create_on_database {
            missing.push("`create` on the database".into());
            sql.push(format!("grant create on database {} to {user};", quote_ident(&self.database)));
        }
        if !self.create_in_public {
            missing.push("`create` on the schema public".into());
            sql.push(format!("grant usage, create on schema public to {user} with grant option;"));
        }
        if missing.is_empty() { Ok(()) } else { Err(self.insufficient(missing, sql.join("\n"))) }
    }

    fn has(&self, role: &str) -> bool {
        self.existing.iter().any(|existing| existing == role)
    }

    fn insufficient(&self, missing: Vec<String>, sql: String) -> BootstrapError {
        BootstrapError::InsufficientRights { user: self.user.clone(), missing, sql }
    }
}

fn create_role(role: &str) -> String {
    match role {
        "service_role" => "create role service_role nologin noinherit bypassrls;".into(),
        "authenticator" => "create role authenticator login noinherit;".into(),
        "postgres" | "dashboard_user" => format!("create role {role} nologin;"),
        _ => format!("create role {role} nologin noinherit;"),
    }
}
