-- Functions of the exposed schemas that can be called by named arguments, or with one unnamed argument that takes
-- a whole body.
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
    select d.oid, b.oid as base
    from domains d
    join pg_catalog.pg_type b on b.oid = d.base and b.typtype <> 'd'
),
functions as (
    select p.*
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any ($1::text[])
      and p.prokind = 'f'
      and p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
),
inputs as (
    select
        f.oid,
        i.name,
        i.type,
        coalesce(i.mode = 'v', false) as variadic,
        row_number() over (partition by f.oid order by i.position) as position
    from functions f
    cross join lateral unnest(
        coalesce(f.proallargtypes, f.proargtypes::oid[]), f.proargnames, f.proargmodes
    ) with ordinality as i (type, name, mode, position)
    where i.type is not null
      and coalesce(i.mode in ('i', 'b', 'v'), true)
),
arguments as (
    select
        i.oid,
        array_agg(coalesce(i.name, '') order by i.position) as names,
        array_agg(pg_catalog.format_type(i.type, null) order by i.position) as types,
        array_agg(
            -- These would cut values to one character or bit.
            case i.type
                when 'pg_catalog.bit'::pg_catalog.regtype then 'bit varying'
                when 'pg_catalog.bit[]'::pg_catalog.regtype then 'bit varying[]'
                when 'pg_catalog.bpchar'::pg_catalog.regtype then 'character varying'
                when 'pg_catalog.bpchar[]'::pg_catalog.regtype then 'character varying[]'
                else pg_catalog.format_type(i.type, null)
            end
            order by i.position
        ) as record_types,
        array_agg(i.position <= f.pronargs - f.pronargdefaults order by i.position) as required,
        array_agg(i.variadic order by i.position) as variadic,
        case count(*) - count(i.name)
            when 0 then true
            when 1 then (array_agg(i.type order by i.position))[1] in (
                'pg_catalog.bytea'::pg_catalog.regtype, 'pg_catalog.json'::pg_catalog.regtype,
                'pg_catalog.jsonb'::pg_catalog.regtype, 'pg_catalog.text'::pg_catalog.regtype,
                'pg_catalog.xml'::pg_catalog.regtype
            )
            else false
        end as callable
    from inputs i
    join functions f on f.oid = i.oid
    group by i.oid
)
select
    n.nspname::text as schema,
    p.proname::text as name,
    pg_catalog.obj_description(p.oid, 'pg_proc') as description,
    coalesce(a.names, '{}') as names,
    coalesce(a.types, '{}') as types,
    coalesce(a.record_types, '{}') as record_types,
    coalesce(a.required, '{}') as required,
    coalesce(a.variadic, '{}') as variadic,
    tn.nspname::text as return_schema,
    coalesce(tc.relname, t.typname)::text as return_name,
    p.proretset as returns_set,
    t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false) as returns_composite,
    p.provolatile::text as volatility,
    p.provariadic <> 0 as is_variadic,
    (
        select lower(substr(s, strpos(s, '=') + 1))
        from unnest(p.proconfig) s
        where s like 'default\_transaction\_isolation=%'
        limit 1
    ) as isolation,
    coalesce((
        select array_agg(substr(s, 1, strpos(s, '=') - 1) order by k)
        from unnest(p.proconfig) with ordinality as u (s, k)
        where substr(s, 1, strpos(s, '=') - 1) = any ($2::text[])
    ), '{}') as setting_names,
    coalesce((
        select array_agg(substr(s, strpos(s, '=') + 1) order by k)
        from unnest(p.proconfig) with ordinality as u (s, k)
        where substr(s, 1, strpos(s, '=') - 1) = any ($2::text[])
    ), '{}') as setting_values
from functions p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
left join arguments a on a.oid = p.oid
left join bases b on b.oid = p.prorettype
join pg_catalog.pg_type t on t.oid = coalesce(b.base, p.prorettype)
join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
left join pg_catalog.pg_class tc on tc.oid = t.typrelid
where coalesce(a.callable, true)
