-- The roles that Supabase projects name in grants and policies. Roles belong to the whole cluster, so each is
-- created, and given its settings, only where it is missing: what an administrator changed stays changed.
do $roles$
declare
  owner constant name := current_setting('longhouse.owner');
  superuser constant boolean := current_setting('longhouse.superuser')::boolean;
  member name;
begin
  if not exists (select from pg_roles where rolname = 'anon') then
    create role anon nologin noinherit;
    alter role anon set statement_timeout = '3s';
  end if;
  if not exists (select from pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
    alter role authenticated set statement_timeout = '8s';
  end if;
  if not exists (select from pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
  if not exists (select from pg_roles where rolname = 'authenticator') then
    create role authenticator login noinherit;
    alter role authenticator set statement_timeout = '8s';
    alter role authenticator set lock_timeout = '8s';
    alter role authenticator set search_path = "$user", public, extensions;
  end if;

  -- Services that own their tables on Supabase, and the dashboard: named by projects, no logins here.
  if not exists (select from pg_roles where rolname = 'supabase_auth_admin') then
    create role supabase_auth_admin nologin noinherit;
    alter role supabase_auth_admin set search_path = auth;
  end if;
  if not exists (select from pg_roles where rolname = 'supabase_storage_admin') then
    create role supabase_storage_admin nologin noinherit;
    alter role supabase_storage_admin set search_path = storage;
  end if;
  if not exists (select from pg_roles where rolname = 'dashboard_user') then
    create role dashboard_user nologin;
  end if;

  -- The migration owner. Only a superuser may hand out these attributes; elsewhere the login that set us up
  -- owns everything and `postgres` exists for scripts that name it.
  if not exists (select from pg_roles where rolname = 'postgres') then
    if superuser then
      create role postgres login createdb createrole replication bypassrls;
      alter role postgres set search_path = "$user", public, extensions;
    else
      create role postgres nologin;
      execute format('grant postgres to %I', owner);
    end if;
  end if;

  foreach member in array array['anon', 'authenticated', 'service_role'] loop
    if not pg_has_role('authenticator', member, 'member') then
      execute format('grant %I to authenticator', member);
    end if;
  end loop;

  if superuser then
    if owner <> current_user then
      execute format('grant anon, authenticated, service_role, authenticator to %I with admin option', owner);
      execute format('grant pg_monitor, pg_read_all_data, pg_signal_backend to %I', owner);
      -- Version 2 had granted it for a day; restoring a dump without triggers is the superuser's business.
      if current_setting('server_version_num')::integer >= 150000 then
        execute format('revoke set on parameter session_replication_role from %I', owner);
      end if;
    end if;
  else
    foreach member in array array['anon', 'authenticated', 'service_role', 'authenticator'] loop
      if not pg_has_role(owner, member, 'member') then
        execute format('grant %I to %I', member, owner);
      end if;
    end loop;
  end if;
end
$roles$;
