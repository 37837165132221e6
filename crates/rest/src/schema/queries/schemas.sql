select
    n.nspname::text as name,
    pg_catalog.obj_description(n.oid, 'pg_namespace') as comment,
    pg_catalog.current_setting('server_version_num')::int as server_version
from unnest($1::text[]) as wanted (name)
join pg_catalog.pg_namespace n on n.nspname = wanted.name
