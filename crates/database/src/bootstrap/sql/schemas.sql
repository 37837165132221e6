-- Schemas that projects expect, and who may use them.
create schema if not exists auth;
create schema if not exists storage;
create schema if not exists realtime;
create schema if not exists extensions;
create schema if not exists graphql_public;
create schema if not exists supabase_migrations;

-- Exactly the tables that the Supabase command line makes, so that both tools can be mixed.
create table if not exists supabase_migrations.schema_migrations (
  version text primary key,
  statements text[],
  name text
);
create table if not exists supabase_migrations.seed_files (
  path text primary key,
  hash text not null
);

grant usage on schema auth, storage, realtime, extensions, graphql_public to anon, authenticated, service_role;
grant usage on schema auth, storage, realtime, extensions to postgres, dashboard_user;
grant usage on schema auth to supabase_auth_admin;
grant usage on schema storage to supabase_storage_admin;

-- The default of Postgres 15; before it, anybody could create objects that others' search path finds.
revoke create on schema public from public;
grant usage on schema public to anon, authenticated, service_role;

do $schemas$
declare
  owner constant name := current_setting('longhouse.owner');
  creator name;
begin
  if owner <> current_user then
    execute format('alter schema extensions owner to %I', owner);
    execute format('alter schema graphql_public owner to %I', owner);
    execute format('alter schema supabase_migrations owner to %I', owner);
    execute format('alter table supabase_migrations.schema_migrations owner to %I', owner);
    execute format('alter table supabase_migrations.seed_files owner to %I', owner);
    execute format('grant usage, create on schema public, storage, realtime to %I', owner);
    execute format('grant usage on schema auth to %I', owner);
    execute 'grant create on schema auth to supabase_auth_admin';
  end if;

  -- Migrations of Supabase projects contain no grants: what they create in public is reachable through the
  -- API roles by default, and row-level security decides.
  for creator in select distinct unnest(array[owner, current_user::name]) loop
    execute format('alter default privileges for role %I in schema public, graphql_public
      grant all on tables to postgres, anon, authenticated, service_role', creator);
    execute format('alter default privileges for role %I in schema public, graphql_public
      grant all on functions to postgres, anon, authenticated, service_role', creator);
    execute format('alter default privileges for role %I in schema public, graphql_public
      grant all on sequences to postgres, anon, authenticated, service_role', creator);
  end loop;
end
$schemas$;
