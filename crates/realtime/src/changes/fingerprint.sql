-- Changes whenever something changes that catalog.sql reads, or the functions that policies call. Cheap: run for each batch.
select pg_catalog.concat_ws(
  '|',
  (
    select pg_catalog.string_agg(pg_catalog.concat_ws(
      ':', c.oid, c.xmin, n.xmin,
      (select pg_catalog.concat(count(*), '/', sum(a.xmin::text::int8)) from pg_catalog.pg_attribute a where a.attrelid = c.oid),
      (select pg_catalog.concat(count(*), '/', sum(p.xmin::text::int8)) from pg_catalog.pg_policy p where p.polrelid = c.oid),
      (select pg_catalog.concat(count(*), '/', sum(i.xmin::text::int8)) from pg_catalog.pg_index i where i.indrelid = c.oid)
    ), ',' order by c.oid)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1::oid[])
  ),
  (select pg_catalog.concat(count(*), '/', sum(m.xmin::text::int8)) from pg_catalog.pg_auth_members m),
  (
    select pg_catalog.string_agg(pg_catalog.concat(r.oid, r.rolsuper, r.rolbypassrls, r.rolinherit), ',' order by r.oid)
    from pg_catalog.pg_roles r where r.rolname = any ($2::text[])
  ),
  (
    select pg_catalog.string_agg(p.xmin::text, ',' order by p.oid)
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'auth' and p.proname in ('uid', 'role', 'jwt', 'email')
  )
)
