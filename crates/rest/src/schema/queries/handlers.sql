-- Makers of media types: a domain named as one, returned by an aggregate over rows (of one relation or any) or by
-- a function, which then serves its own results.
with media as (
    select
        t.oid,
        t.typname::text as type_name,
        n.nspname::text as type_schema,
        lower(t.typname) as media_type,
        case t.typname when '*/*' then 'application/octet-stream' else lower(t.typname) end as answered_type
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'd'
      and (t.typname = '*/*' or t.typname ~* '^[a-z0-9.-]+/[a-z0-9.+-]+$')
)
select
    pn.nspname::text as schema,
    p.proname::text as name,
    an.nspname::text as relation_schema,
    a.typname::text as relation_name,
    m.media_type,
    m.answered_type
from media m
join pg_catalog.pg_proc p on p.prorettype = m.oid and p.prokind = 'a' and p.pronargs = 1
join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
join pg_catalog.pg_type a on a.oid = p.proargtypes[0]
join pg_catalog.pg_namespace an on an.oid = a.typnamespace
left join pg_catalog.pg_class c on c.oid = a.typrelid
where pn.nspname = any ($1::text[])
  and (c.relkind in ('r', 'p', 'v', 'm', 'f') or a.typname = 'anyelement')
union all
select
    m.type_schema,
    m.type_name,
    pn.nspname::text,
    p.proname::text,
    m.media_type,
    m.answered_type
from media m
join pg_catalog.pg_proc p on p.prorettype = m.oid and p.prokind = 'f' and not p.proretset
join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
where pn.nspname = any ($1::text[])
