-- Primary and foreign keys of all schemas: exposed views may stand on tables that are not exposed.
select
    k.oid,
    k.contype::text as kind,
    k.conname::text as name,
    k.conrelid as relation,
    n.nspname::text as schema,
    c.relname::text as table,
    k.conkey as numbers,
    (
        select array_agg(a.attname::text order by u.position)
        from unnest(k.conkey) with ordinality as u (number, position)
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.number
    ) as columns,
    k.confrelid as foreign_relation,
    fn.nspname::text as foreign_schema,
    fc.relname::text as foreign_table,
    k.confkey as foreign_numbers,
    (
        select array_agg(a.attname::text order by u.position)
        from unnest(k.confkey) with ordinality as u (number, position)
        join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.number
    ) as foreign_columns,
    k.contype = 'f' and exists (
        select
        from pg_catalog.pg_constraint u
        where u.conrelid = k.conrelid
          and u.contype in ('p', 'u')
          and u.conkey @> k.conkey and u.conkey <@ k.conkey
    ) as is_unique
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class fc on fc.oid = k.confrelid
left join pg_catalog.pg_namespace fn on fn.oid = fc.relnamespace
where n.nspname not in ('pg_catalog', 'information_schema')
  and (k.contype = 'p' or (k.contype = 'f' and k.conparentid = 0))
order by k.conrelid, k.conname
