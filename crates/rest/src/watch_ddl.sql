-- Tells the API to reload its schema cache when something that it shows was created, changed or dropped.
-- Temporary objects do not count: functions make them all the time.
create schema if not exists longhouse;

create or replace function longhouse.notify_of_ddl() returns event_trigger
    language plpgsql
    set search_path = ''
as $$
begin
    if tg_event = 'sql_drop' then
        if exists (
            select
            from pg_catalog.pg_event_trigger_dropped_objects() o
            where not o.is_temporary
              and o.object_type in (
                'schema', 'table', 'foreign table', 'view', 'materialized view', 'table column', 'table constraint',
                'function', 'procedure', 'aggregate', 'type', 'domain', 'cast', 'trigger', 'rule'
              )
        ) then
            notify pgrst, 'reload schema';
        end if;
    elsif exists (
        select
        from pg_catalog.pg_event_trigger_ddl_commands() c
        where c.schema_name is distinct from 'pg_temp'
          and c.command_tag in (
            'CREATE SCHEMA', 'ALTER SCHEMA',
            'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
            'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
            'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
            'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE AGGREGATE', 'ALTER AGGREGATE',
            'CREATE TYPE', 'ALTER TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN', 'CREATE CAST',
            'CREATE TRIGGER', 'CREATE RULE', 'CREATE EXTENSION', 'ALTER EXTENSION', 'COMMENT'
          )
    ) then
        notify pgrst, 'reload schema';
    end if;
end
$$;

drop event trigger if exists longhouse_notify_of_ddl;
create event trigger longhouse_notify_of_ddl on ddl_command_end execute function longhouse.notify_of_ddl();
drop event trigger if exists longhouse_notify_of_drops;
create event trigger longhouse_notify_of_drops on sql_drop execute function longhouse.notify_of_ddl();
