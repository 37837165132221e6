-- Who may touch the tables of auth: the auth service, and nobody whom a request's token can name.
do $auth$
declare
  owner constant name := current_setting('longhouse.owner');
  superuser constant boolean := current_setting('longhouse.superuser')::boolean;
  relation regclass;
  routine regprocedure;
  kind regtype;
begin
  -- The service works as supabase_auth_admin, with the login of the request pool.
  if not pg_has_role('authenticator', 'supabase_auth_admin', 'member') then
    grant supabase_auth_admin to authenticator;
  end if;
  if not superuser and not pg_has_role(owner, 'supabase_auth_admin', 'member') then
    execute format('grant supabase_auth_admin to %I', owner);
  end if;
  for relation in select c.oid from pg_class c where c.relnamespace = 'auth'::regnamespace and c.relkind = 'r' loop
    execute format('alter table %s enable row level security', relation);
    execute format('grant all on %s to supabase_auth_admin, dashboard_user, postgres, %I', relation, owner);
    if superuser then
      execute format('alter table %s owner to supabase_auth_admin', relation);
    elsif not exists (select from pg_policy where polrelid = relation and polname = 'auth service') then
      -- Owned by the login that set us up, so that row-level security holds for the service too.
      execute format('create policy "auth service" on %s to supabase_auth_admin using (true)', relation);
    end if;
  end loop;
  -- Also to set them, as dumps do.
  execute format('grant all on all sequences in schema auth to supabase_auth_admin, dashboard_user, postgres, %I', owner);
  if superuser then
    for routine in select p.oid from pg_proc p where p.pronamespace = 'auth'::regnamespace
      and p.proname in ('jwt', 'uid', 'role', 'email') and p.pronargs = 0 loop
      execute format('alter function %s owner to supabase_auth_admin', routine);
    end loop;
    for kind in select t.oid from pg_type t where t.typnamespace = 'auth'::regnamespace and t.typtype = 'e' loop
      execute format('alter type %s owner to supabase_auth_admin', kind);
    end loop;
  end if;
end
$auth$;
