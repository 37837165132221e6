-- Tables and views of the exposed schemas; partitions are reached through their parent.
select
    c.oid,
    n.nspname::text as schema,
    c.relname::text as name,
    pg_catalog.obj_description(c.oid, 'pg_class') as description,
    c.relkind in ('v', 'm') as is_view,
    -- Bits as in Postgres: 1 << 2 update, 1 << 3 insert, 1 << 4 delete.
    case
        when c.relkind in ('r', 'p') then 28
        when c.relkind in ('v', 'f') then pg_catalog.pg_relation_is_updatable(c.oid, true)
        else 0
    end as events
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = any ($1::text[])
  and c.relkind in ('r', 'p', 'v', 'm', 'f')
  and not c.relispartition
