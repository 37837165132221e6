-- Contrib extensions that Supabase has switched on; what the server does not have is reported, not fatal.
do $extensions$
declare
  extension text;
begin
  foreach extension in array array['pgcrypto', 'uuid-ossp', 'pg_stat_statements'] loop
    continue when exists (select from pg_extension where extname = extension);
    continue when not exists (select from pg_available_extensions where name = extension);
    -- Without its library preloaded every query of its view fails, which helps nobody.
    -- (pg_settings hides what the login may not see, where current_setting would fail.)
    continue when extension = 'pg_stat_statements' and not exists (select from pg_settings
      where name = 'shared_preload_libraries' and setting ~ 'pg_stat_statements');
    begin
      execute format('create extension if not exists %I with schema extensions', extension);
    exception when insufficient_privilege then
      raise notice 'extension % needs a superuser', extension;
    end;
  end loop;
end
$extensions$;
