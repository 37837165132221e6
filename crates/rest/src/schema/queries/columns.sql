-- Columns of the exposed schemas' relations. A domain over a built-in type counts as that type; over a type of
-- somebody's own it keeps its name, since only its owner knows what it stands for.
with recursive domains as (
    select t.oid, t.typbasetype as base
    from pg_catalog.pg_type t
    where t.typtype = 'd'
    union all
    select d.oid, t.typbasetype
    from domains d
    join pg_catalog.pg_type t on t.oid = d.base and t.typtype = 'd'
),
bases as (
    select d.oid, b.oid as base, b.typnamespace as base_schema
    from domains d
    join pg_catalog.pg_type b on b.oid = d.base and b.typtype <> 'd'
),
labels as (
    select enumtypid, array_agg(enumlabel::text order by enumsortorder) as labels
    from pg_catalog.pg_enum
    group by enumtypid
)
select
    a.attrelid as relation,
    a.attnum as number,
    a.attname::text as name,
    pg_catalog.col_description(a.attrelid, a.attnum) as description,
    not (a.attnotnull or (t.typtype = 'd' and t.typnotnull)) as nullable,
    case
        when b.base_schema = 'pg_catalog'::pg_catalog.regnamespace
            then pg_catalog.format_type(b.base, null)
        when b.oid is null and t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
            then pg_catalog.format_type(a.atttypid, null)
        else pg_catalog.format_type(a.atttypid, a.atttypmod)
    end as base_type,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as nominal_type,
    information_schema._pg_char_max_length(
        information_schema._pg_truetypid(a.*, t.*),
        information_schema._pg_truetypmod(a.*, t.*)
    )::int as max_length,
    case
        when t.typbasetype <> 0 and d.adbin is null then pg_catalog.pg_get_expr(t.typdefaultbin, 0)
        when a.attidentity = 'd' then (
            select pg_catalog.format('nextval(%L)', s.objid::pg_catalog.regclass)
            from pg_catalog.pg_depend s
            where s.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
              and s.refobjid = a.attrelid and s.refobjsubid = a.attnum and s.deptype = 'i'
            limit 1
        )
        when a.attgenerated = 's' then null
        else pg_catalog.pg_get_expr(d.adbin, d.adrelid)
    end as default_expression,
    coalesce(l.labels, '{}') as enum_labels
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_type t on t.oid = a.atttypid
left join bases b on b.oid = t.oid
left join labels l on l.enumtypid = coalesce(b.base, t.oid)
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where n.nspname = any ($1::text[])
  and c.relkind in ('r', 'p', 'v', 'm', 'f')
  and not c.relispartition
  and a.attnum > 0
  and not a.attisdropped
order by a.attrelid, a.attnum
