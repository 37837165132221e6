-- Functions from a row of one relation to rows of another.
select
    n.nspname::text as schema,
    p.proname::text as name,
    an.nspname::text as table_schema,
    a.relname::text as table_name,
    rn.nspname::text as foreign_schema,
    r.relname::text as foreign_name,
    not p.proretset or p.prorows = 1 as to_one
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_class a on a.reltype = p.proargtypes[0] and a.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_catalog.pg_namespace an on an.oid = a.relnamespace
join pg_catalog.pg_class r on r.reltype = p.prorettype and r.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
where p.pronargs = 1
  and an.nspname = any ($1::text[])
  and rn.nspname = any ($1::text[])
order by p.oid
