-- People: a business is opened in one step, others are invited, and what is changed is on record.

-- Whoever runs the deployment, by a claim that only the service can write: users cannot change their `app_metadata`.
create function is_site_admin() returns boolean
  language sql stable set search_path = receptionist, pg_temp
  as $$
    select current_setting('role', true) = 'authenticated'
      and coalesce(auth.jwt() -> 'app_metadata' -> 'site_admin' = 'true'::jsonb, false)
  $$;

-- Site admins see every tenant, to help; to change something they are invited like anybody else.
create or replace function my_role(tenant uuid) returns member_role
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$
    select coalesce(
      (select role from memberships where tenant_id = tenant and user_id = auth.uid()),
      case when is_site_admin() then 'VIEWER'::member_role end
    )
  $$;

-- Everything of a new business, or nothing of it. The caller is its first owner; a site admin may open it for somebody
-- else. `hours` are objects of dow, opens and closes; `services` of name, duration_minutes, price and description; `staff` of
-- name, role and specialties.
create function create_tenant(
  name text, slug text, timezone text default 'America/New_York', greeting text default null,
  services jsonb default '[]', hours jsonb default '[]', staff jsonb default '[]', owner uuid default null
) returns tenants
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
#variable_conflict use_variable
declare
  made tenants;
  first_owner uuid := coalesce(owner, auth.uid());
begin
  if auth.uid() is null then
    raise exception 'sign in to open a business' using errcode = 'insufficient_privilege';
  end if;
  if first_owner <> auth.uid() and not is_site_admin() then
    raise exception 'only a site admin opens a business for somebody else' using errcode = 'insufficient_privilege';
  end if;
  if jsonb_array_length(services) > 500 or jsonb_array_length(hours) > 50 or jsonb_array_length(staff) > 500 then
    raise exception 'that is more than a business begins with: 500 services, 50 windows of hours, 500 people'
      using errcode = 'check_violation';
  end if;
  -- One at a time, so that two requests do not pass the limit together.
  perform pg_advisory_xact_lock(hashtextextended('receptionist create_tenant ' || first_owner, 0));
  if not is_site_admin()
     and (select count(*) from memberships m where m.user_id = first_owner and m.role = 'OWNER') >= 20 then
    raise exception 'nobody owns more than 20 businesses' using errcode = 'PT429';
  end if;
  insert into tenants (name, slug, timezone) values (name, slug, timezone) returning * into made;
  insert into memberships (tenant_id, user_id, role) values (made.id, first_owner, 'OWNER');
  insert into agents (tenant_id, greeting)
  values (made.id, coalesce(greeting, format('Hello, this is %s. How can I help you?', name)));
  insert into booking_settings (tenant_id) values (made.id);
  insert into services (tenant_id, name, duration_minutes, price, description)
  select made.id, s.name, coalesce(s.duration_minutes, 30), s.price, s.description
  from jsonb_to_recordset(services) as s(name text, duration_minutes integer, price numeric, description text);
  insert into business_hours (tenant_id, dow, opens, closes)
  select made.id, h.dow, h.opens, h.closes from jsonb_to_recordset(hours) as h(dow smallint, opens time, closes time);
  insert into staff (tenant_id, name, role, specialties)
  select made.id, p.name, p.role, coalesce(p.specialties, '{}')
  from jsonb_to_recordset(staff) as p(name text, role text, specialties text[]);
  return made;
end $$;

create table invitations (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  email text not null check (email = lower(email) and email ~ '^[^@\s]+@[^@\s]+$' and char_length(email) <= 320),
  role member_role not null,
  token_hash bytea not null unique,
  invited_by uuid references auth.users on delete set null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null default now() + interval '14 days',
  accepted_at timestamptz,
  accepted_by uuid references auth.users on delete set null
);
create unique index invitations_open on invitations (tenant_id, email) where accepted_at is null;

-- Invites an address, or invites it again: the earlier invitation then ends. Returns the token of the link, told once.
create function invite_member(tenant uuid, address text, as_role member_role default 'AGENT') returns text
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  token text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
begin
  if not (has_role(tenant, 'MANAGER') and has_role(tenant, as_role)) then
    raise exception 'this takes the role MANAGER, and no role above one''s own can be given'
      using errcode = 'insufficient_privilege';
  end if;
  perform from tenants t where t.id = tenant for no key update;
  delete from invitations i where i.tenant_id = tenant and i.email = lower(trim(address)) and i.accepted_at is null;
  if (select count(*) from invitations i where i.tenant_id = tenant and i.accepted_at is null and i.expires_at > now()) >= 200 then
    raise exception '200 invitations are open; wait until some are accepted, or delete some' using errcode = 'PT429';
  end if;
  insert into invitations (tenant_id, email, role, token_hash, invited_by)
  values (tenant, lower(trim(address)), as_role, sha256(token::bytea), auth.uid());
  return token;
end $$;

-- The signed-in user's own address, if they have shown that it is theirs.
create function my_address() returns text
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$ select lower(email) from auth.users where id = auth.uid() and email_confirmed_at is not null $$;

-- Open invitations of the signed-in user: whoever signs up with the address needs no link.
create function my_invitations()
  returns table (id uuid, tenant_id uuid, tenant_name text, role member_role, expires_at timestamptz)
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$
    select i.id, t.id, t.name, i.role, i.expires_at
    from invitations i join tenants t on t.id = i.tenant_id
    where i.email = my_address() and i.accepted_at is null and i.expires_at > now()
    order by i.created_at
  $$;

-- Joins the tenant, by the link's token or, for a confirmed address, by the invitation's id. Who is a member already
-- keeps the higher role. Only the invited address may accept: a forwarded link is no key.
create function accept_invitation(token text default null, invitation uuid default null) returns tenants
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
#variable_conflict use_column
declare
  invited invitations;
  joined tenants;
begin
  select * into invited from invitations i
  where (i.token_hash = sha256(token::bytea) or (token is null and i.id = invitation))
    and i.email = my_address() and i.accepted_at is null and i.expires_at > now()
  for update;
  if not found then
    -- One answer for all: whether an invitation of others exists is not told.
    raise exception 'no open invitation for your confirmed address' using errcode = 'PT404',
      hint = 'Sign in with the address that was invited, confirm it, or ask for a new invitation.';
  end if;
  insert into memberships (tenant_id, user_id, role) values (invited.tenant_id, auth.uid(), invited.role)
  on conflict (tenant_id, user_id) do update set role = greatest(memberships.role, excluded.role);
  update invitations i set accepted_at = now(), accepted_by = auth.uid() where i.id = invited.id;
  select * into joined from tenants t where t.id = invited.tenant_id;
  return joined;
end $$;

-- What was changed, by whom. Outlives the rows and the tenant.
create table audit_log (
  id bigint generated always as identity primary key,
  tenant_id uuid not null,
  at timestamptz not null default clock_timestamp(),
  -- A user, or the database role where nobody was signed in.
  actor uuid,
  actor_role text not null,
  action text not null check (action in ('insert', 'update', 'delete')),
  entity text not null,
  -- The changed columns alone for an update; secrets are left out.
  before jsonb,
  after jsonb
);
create index audit_log_tenant_at on audit_log (tenant_id, at desc);

create function record_change() returns trigger
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  old_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - array['token_hash', 'updated_at', 'search', 'code'] end;
  new_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - array['token_hash', 'updated_at', 'search', 'code'] end;
  row_of jsonb := coalesce(new_row, old_row);
begin
  if tg_op = 'UPDATE' then
    if old_row = new_row then
      return null;
    end if;
    -- The key stays, the rest only where it changed.
    select jsonb_object_agg(key, value) into old_row from jsonb_each(old_row)
      where key in ('id', 'tenant_id', 'user_id', 'e164') or value is distinct from new_row -> key;
    select jsonb_object_agg(key, value) into new_row from jsonb_each(new_row) where old_row ? key;
  end if;
  insert into audit_log (tenant_id, actor, actor_role, action, entity, before, after)
  values (
    (case tg_table_name when 'tenants' then row_of ->> 'id' else row_of ->> 'tenant_id' end)::uuid,
    auth.uid(), coalesce(nullif(current_setting('role', true), 'none'), session_user), lower(tg_op), tg_table_name,
    old_row, new_row
  );
  return null;
end $$;

do $$
declare
  name text;
begin
  foreach name in array array['tenants', 'memberships', 'invitations', 'numbers', 'agents', 'knowledge', 'services',
    'business_hours', 'holidays', 'staff', 'staff_schedules', 'staff_services', 'staff_time_off', 'booking_settings',
    'appointments', 'calendar_feeds'] loop
    execute format('create trigger record_change after insert or update or delete on %I
      for each row execute function record_change()', name);
  end loop;
end $$;

alter table invitations enable row level security;
alter table audit_log enable row level security;
revoke all on invitations, audit_log from anon, authenticated;
grant all on invitations, audit_log to service_role;
-- Never the hash of its token.
grant select (id, tenant_id, email, role, invited_by, created_at, expires_at, accepted_at, accepted_by), delete
  on invitations to authenticated;
grant select on audit_log to authenticated;

create policy managers_read on invitations for select to authenticated using (has_role(tenant_id, 'MANAGER'));
create policy managers_delete on invitations for delete to authenticated
  using (has_role(tenant_id, 'MANAGER') and has_role(tenant_id, role) and accepted_at is null);
create policy managers_read on audit_log for select to authenticated using (has_role(tenant_id, 'MANAGER') or is_site_admin());

revoke all on all functions in schema receptionist from public, anon;
grant execute on all functions in schema receptionist to service_role;
grant execute on function is_site_admin(), create_tenant(text, text, text, text, jsonb, jsonb, jsonb, uuid),
  invite_member(uuid, text, member_role), my_invitations(), accept_invitation(text, uuid) to authenticated;
