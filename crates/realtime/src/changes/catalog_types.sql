-- The types of $1 and all that they are made of.
with recursive reachable (oid) as (
  select unnest($1::oid[])
  union
  select part.oid from reachable r
  join pg_catalog.pg_type t on t.oid = r.oid
  cross join lateral (
    select t.typelem where t.typcategory = 'A' and t.typelem <> 0
    union all
    select t.typbasetype where t.typtype = 'd'
    union all
    select a.atttypid from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) as part (oid)
)
select json_build_object(
  'oid', t.oid::int8,
  'schema', n.nspname,
  'name', t.typname,
  'kind', t.typtype,
  'element', case when t.typcategory = 'A' then t.typelem::int8 else 0 end,
  'base', t.typbasetype::int8,
  'delimiter', coalesce((select e.typdelim from pg_catalog.pg_type e where e.oid = t.typelem), ','),
  'fields', coalesce((
    select json_agg(json_build_object('name', a.attname, 'type_oid', a.atttypid::int8) order by a.attnum)
    from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ), '[]')
)::text
from reachable r
join pg_catalog.pg_type t on t.oid = r.oid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
