-- Longhouse's own records. The only part that is added to a hosted Supabase project.
create schema if not exists longhouse;

create table if not exists longhouse.schema_versions (
  part text primary key,
  version integer not null,
  checksum text not null,
  applied_at timestamptz not null default now()
);
comment on table longhouse.schema_versions is 'Versions of the platform schema, by part.';

create table if not exists longhouse.migration_hashes (
  version text primary key,
  sha256 text not null,
  recorded_at timestamptz not null default now()
);
comment on table longhouse.migration_hashes is
  'Content of the project''s applied migrations; complements supabase_migrations.schema_migrations.';

create table if not exists longhouse.app_migrations (
  app text not null,
  version text not null,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now(),
  primary key (app, version)
);
comment on table longhouse.app_migrations is 'Migrations of the applications that ship with Longhouse.';

do $longhouse$
declare
  owner constant name := current_setting('longhouse.owner');
begin
  execute format('grant usage, create on schema longhouse to %I', owner);
  execute format('grant select on longhouse.schema_versions to %I', owner);
  if owner <> current_user then
    execute format('alter table longhouse.migration_hashes owner to %I', owner);
    execute format('alter table longhouse.app_migrations owner to %I', owner);
  end if;
end
$longhouse$;
