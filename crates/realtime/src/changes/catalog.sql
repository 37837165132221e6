-- Everything that deciding about a table's rows needs, as JSON, one row for each table of $1.
select json_build_object(
  'oid', c.oid::int8,
  'schema', n.nspname,
  'table', c.relname,
  'row_security', c.relrowsecurity,
  'columns', coalesce((
    select json_agg(json_build_object(
      'name', a.attname,
      'type_oid', a.atttypid::int8,
      'type_name', t.typname,
      'key', coalesce(a.attnum = any (i.indkey), false),
      'deterministic', coalesce((select l.collisdeterministic from pg_catalog.pg_collation l where l.oid = a.attcollation), true)
    ) order by a.attnum)
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  ), '[]'),
  'policies', coalesce((
    select json_agg(json_build_object(
      'permissive', p.polpermissive,
      'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid)
    ) order by p.oid)
    from pg_catalog.pg_policy p
    where p.polrelid = c.oid and p.polcmd in ('r', '*')
  ), '[]'),
  'roles', coalesce((
    select json_agg(json_build_object(
      'name', r.rolname,
      'free', r.rolsuper or r.rolbypassrls
        or (pg_catalog.pg_has_role(r.oid, c.relowner, 'usage') and not c.relforcerowsecurity),
      'schema', pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage'),
      'columns', coalesce((
        select json_agg(pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'select') order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      ), '[]'),
      'policies', coalesce((
        select json_agg(
          0::oid = any (p.polroles)
            or exists (select from unnest(p.polroles) o where o <> 0 and pg_catalog.pg_has_role(r.oid, o, 'usage'))
          order by p.oid
        )
        from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polcmd in ('r', '*')
      ), '[]')
    ))
    from pg_catalog.pg_roles r where r.rolname = any ($2::text[])
  ), '[]')
)::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
