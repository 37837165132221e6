-- Settings (`alter role … set`) of the roles that this login may act as, as far as it may set them itself.
select
    r.rolname::text as role,
    substr(s, 1, strpos(s, '=') - 1) as name,
    substr(s, strpos(s, '=') + 1) as value
from pg_catalog.pg_auth_members m
join pg_catalog.pg_roles r on r.oid = m.roleid
cross join lateral unnest(r.rolconfig) as u (s)
join pg_catalog.pg_settings p on p.name = substr(s, 1, strpos(s, '=') - 1)
where m.member = (select oid from pg_catalog.pg_roles where rolname = current_user)
  and (
    p.context = 'user'
    or (
        pg_catalog.current_setting('server_version_num')::int >= 150000
        and pg_catalog.has_parameter_privilege(current_user, p.name, 'set')
    )
  )
