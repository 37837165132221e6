-- Rights and settings of this database itself. `create database … template` copies none of them, so this part
-- also runs again when the database turns out to belong to the superuser (see `bootstrap::check`).
do $database$
declare
  owner constant name := current_setting('longhouse.owner');
  superuser constant boolean := current_setting('longhouse.superuser')::boolean;
  mine boolean;
begin
  select pg_get_userbyid(datdba) = current_user into mine from pg_database where datname = current_database();
  if superuser or mine then
    execute format('alter database %I set search_path = "$user", public, extensions', current_database());
  end if;
  if superuser and owner <> current_user then
    if mine then
      execute format('alter database %I owner to %I', current_database(), owner);
    else
      execute format('grant create, connect, temporary on database %I to %I', current_database(), owner);
    end if;
    -- Owned by name, not through pg_database_owner, so that it holds in copies of this database too.
    execute format('alter schema public owner to %I', owner);
  end if;
end
$database$;
