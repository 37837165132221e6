-- What operators did through the Studio. Written before it is done, so that nothing happens unrecorded.
create table if not exists longhouse.studio_audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  operator_id uuid not null,
  operator_email text not null,
  action text not null,
  target text not null,
  status integer,
  client inet
);
comment on table longhouse.studio_audit is
  'Requests of operators to the Studio''s API that change something or read people''s data; status is null while one runs, or when the server died.';
create index if not exists studio_audit_at on longhouse.studio_audit (at);
alter table longhouse.studio_audit enable row level security;

do $studio$
begin
  if not exists (select from pg_policy where polrelid = 'longhouse.studio_audit'::regclass and polname = 'studio') then
    create policy studio on longhouse.studio_audit to service_role using (true) with check (true);
  end if;
end
$studio$;

-- Entries can be added and get their status once; nobody whom a request's token can name takes one back.
revoke all on longhouse.studio_audit from public, anon, authenticated, service_role;
grant usage on schema longhouse to service_role;
grant select, insert on longhouse.studio_audit to service_role;
grant update (status) on longhouse.studio_audit to service_role;

-- Four hundred days are kept: a year, and time to look back at it.
create or replace function longhouse.trim_studio_audit() returns bigint
  language sql security definer set search_path = ''
as $$
  with gone as (delete from longhouse.studio_audit where at < now() - interval '400 days' returning 1)
  select count(*) from gone
$$;
revoke all on function longhouse.trim_studio_audit() from public, anon, authenticated;
grant execute on function longhouse.trim_studio_audit() to service_role;
