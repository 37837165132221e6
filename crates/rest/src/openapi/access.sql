-- What the current role may use of one schema ($1), as one JSON document: names of relations, names of functions
-- with the types of their inputs as the search path writes them, and the schema's comment.
select pg_catalog.json_build_object(
    'tables', (
        select coalesce(pg_catalog.json_agg(c.relname), '[]')
        from pg_catalog.pg_class c
        where c.relnamespace = n.oid
          and c.relkind in ('r', 'p', 'v', 'm', 'f')
          and not c.relispartition
          and (
            pg_catalog.pg_has_role(c.relowner, 'usage')
            or pg_catalog.has_table_privilege(
                c.oid, 'select, insert, update, delete, truncate, references, trigger'
            )
            or pg_catalog.has_any_column_privilege(c.oid, 'select, insert, update, references')
          )
    ),
    'routines', (
        select coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(p.proname, (
            select coalesce(pg_catalog.json_agg(pg_catalog.format_type(i.type, null) order by i.position), '[]')
            from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes)
                with ordinality as i (type, mode, position)
            where coalesce(i.mode in ('i', 'b', 'v'), true)
        ))), '[]')
        from pg_catalog.pg_proc p
        where p.pronamespace = n.oid
          and p.prokind = 'f'
          and pg_catalog.has_function_privilege(p.oid, 'execute')
    ),
    'comment', pg_catalog.obj_description(n.oid, 'pg_namespace')
)::text
from pg_catalog.pg_namespace n
where n.nspname = $1
