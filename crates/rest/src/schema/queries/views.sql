-- Stored queries of views, for tracing their columns back to keys of tables. Views of the extra search path may
-- lie between exposed views and their tables.
select
    c.oid,
    n.nspname::text as schema,
    c.relname::text as name,
    n.nspname = any ($1::text[]) as exposed,
    r.ev_action::text as definition
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_rewrite r on r.ev_class = c.oid and r.ev_type = '1'
where c.relkind in ('v', 'm')
  and n.nspname = any ($1::text[] || $2::text[])
