-- Drops what a project made. Runs as the migration owner, in a transaction; `longhouse.platform` names the schemas
-- that are not the project's.
set local client_min_messages = warning;

do $reset$
declare
  platform constant text[] := string_to_array(current_setting('longhouse.platform'), ',');
  item record;
begin
  for item in
    select extname from pg_extension
    where extowner = current_user::regrole
      and extname not in ('plpgsql', 'pgcrypto', 'uuid-ossp', 'pg_stat_statements')
  loop
    execute format('drop extension if exists %I cascade', item.extname);
  end loop;

  for item in select pubname from pg_publication where pubowner = current_user::regrole loop
    execute format('drop publication %I', item.pubname);
  end loop;
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;

  -- The schemas of Longhouse's applications are not the project's.
  for item in
    select nspname from pg_namespace
    where nspname !~ '^pg_' and nspname <> all (platform)
      and nspname not in (select app from longhouse.app_migrations)
  loop
    execute format('drop schema %I cascade', item.nspname);
  end loop;

  -- Everything inside of public, but not public itself: it carries the default privileges.
  for item in
    select array_agg(format('drop %s if exists %s cascade',
        case object.type
          when 'composite type' then 'type'
          when 'statistics object' then 'statistics'
          else object.type
        end, object.identity)) as commands
    from pg_depend d, lateral pg_identify_object(d.classid, d.objid, d.objsubid) as object
    where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'public'::regnamespace and d.deptype = 'n'
      and object.type not in ('default acl', 'extension', 'publication namespace')
      and not exists (select from pg_depend e
        where e.classid = d.classid and e.objid = d.objid and e.deptype in ('e', 'i'))
  loop
    for i in 1 .. coalesce(array_length(item.commands, 1), 0) loop
      execute item.commands[i];
    end loop;
  end loop;

  for item in
    select p.polname, n.nspname, c.relname from pg_policy p
    join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('auth', 'storage', 'realtime') and pg_has_role(c.relowner, 'usage')
  loop
    execute format('drop policy %I on %I.%I', item.polname, item.nspname, item.relname);
  end loop;

  -- Triggers of the project on accounts and files, whose functions live in a schema that stays.
  for item in
    select t.tgname, n.nspname, c.relname from pg_trigger t
    join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('auth', 'storage') and not t.tgisinternal and pg_has_role(c.relowner, 'usage')
  loop
    execute format('drop trigger %I on %I.%I', item.tgname, item.nspname, item.relname);
  end loop;

  grant usage on schema public to anon, authenticated, service_role;
  alter default privileges in schema public grant all on tables to postgres, anon, authenticated, service_role;
  alter default privileges in schema public grant all on functions to postgres, anon, authenticated, service_role;
  alter default privileges in schema public grant all on sequences to postgres, anon, authenticated, service_role;
end
$reset$;

delete from storage.objects;
delete from storage.buckets;
delete from auth.users;
delete from supabase_migrations.schema_migrations;
delete from supabase_migrations.seed_files;
delete from longhouse.migration_hashes;
