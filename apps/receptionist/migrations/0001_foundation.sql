-- The phone receptionist: who its tenants are, what it knows, which calls it answered.
-- Row-level security decides everything: members see their tenant, the voice agent sees the tenant of its line.

do $$
begin
  -- Roles belong to the cluster; another database of it may have made this one.
  if not exists (select from pg_roles where rolname = 'receptionist_agent') then
    begin
      create role receptionist_agent nologin noinherit;
    exception when duplicate_object or unique_violation then null;
    end;
  end if;
  if exists (select from pg_roles where rolname = 'authenticator') then
    grant receptionist_agent to authenticator;
  end if;
  -- Servers that connect as the owner (an external database with one login) become it too.
  execute format('grant receptionist_agent to %I', current_user);
end $$;

create type member_role as enum ('VIEWER', 'AGENT', 'MANAGER', 'OWNER');
create type call_status as enum ('ringing', 'in_progress', 'interrupted', 'completed');
create type turn_speaker as enum ('caller', 'agent');

create table tenants (
  id uuid primary key default gen_random_uuid(),
  name text not null check (char_length(name) between 1 and 200),
  slug text not null unique check (slug ~ '^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$'),
  timezone text not null default 'America/New_York',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table memberships (
  tenant_id uuid not null references tenants on delete cascade,
  user_id uuid not null references auth.users on delete cascade,
  role member_role not null default 'AGENT',
  created_at timestamptz not null default now(),
  primary key (tenant_id, user_id)
);
create index memberships_user_id on memberships (user_id);

create table numbers (
  -- The primary key is what keeps one number from two tenants.
  e164 text primary key check (e164 ~ '^\+[1-9][0-9]{2,14}$'),
  tenant_id uuid not null references tenants on delete cascade,
  created_at timestamptz not null default now()
);
create index numbers_tenant_id on numbers (tenant_id);

create table agents (
  tenant_id uuid primary key references tenants on delete cascade,
  enabled boolean not null default true,
  greeting text check (char_length(greeting) <= 2000),
  instructions text not null default '' check (char_length(instructions) <= 20000),
  voice text not null default 'marin' check (voice ~ '^[A-Za-z0-9_-]{1,64}$'),
  language text check (language ~ '^[a-z]{2}$'),
  forward_number text check (forward_number ~ '^\+[1-9][0-9]{2,14}$'),
  apology text check (char_length(apology) <= 1000),
  updated_at timestamptz not null default now()
);

create table knowledge (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  title text not null check (char_length(title) between 1 and 300),
  content text not null check (char_length(content) between 1 and 20000),
  search tsvector generated always as (
    setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('english', content), 'B')
  ) stored,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index knowledge_search on knowledge using gin (search);
create index knowledge_tenant_id on knowledge (tenant_id);

create table calls (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  call_sid text not null unique check (char_length(call_sid) between 2 and 64),
  from_number text,
  to_number text not null,
  status call_status not null default 'ringing',
  outcome text,
  -- Streams announced by TwiML so far, and the one that was opened last: a stream token works once,
  -- and only the newest stream of a call may write.
  epoch integer not null default 1,
  opened_epoch integer not null default 0,
  started_at timestamptz not null default now(),
  answered_at timestamptz,
  last_seen_at timestamptz not null default now(),
  ended_at timestamptz,
  duration_ms bigint,
  unique (id, tenant_id)
);
create index calls_tenant_started on calls (tenant_id, started_at desc);
create index calls_open on calls (last_seen_at) where status in ('ringing', 'in_progress');

create table turns (
  call_id uuid not null,
  tenant_id uuid not null,
  ordinal integer not null,
  speaker turn_speaker not null,
  text text not null,
  started_ms bigint not null,
  ended_ms bigint not null,
  interrupted boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (call_id, ordinal),
  foreign key (call_id, tenant_id) references calls (id, tenant_id) on delete cascade
);
create index turns_tenant_id on turns (tenant_id);

create table tool_runs (
  id bigint generated always as identity primary key,
  call_id uuid not null,
  tenant_id uuid not null,
  after_ordinal integer not null,
  name text not null,
  arguments text not null,
  output text not null,
  took_ms bigint not null,
  created_at timestamptz not null default now(),
  foreign key (call_id, tenant_id) references calls (id, tenant_id) on delete cascade
);
create index tool_runs_call_id on tool_runs (call_id);

-- The role of the signed-in user in a tenant. Security definer, so that policies on `memberships` do not
-- call themselves.
create function my_role(tenant uuid) returns member_role
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$ select role from memberships where tenant_id = tenant and user_id = auth.uid() $$;

create function has_role(tenant uuid, minimum member_role) returns boolean
  language sql stable set search_path = receptionist, pg_temp
  as $$ select coalesce(my_role(tenant) >= minimum, false) $$;

-- The tenant that the voice agent works for: named by its claims, or the owner of the number that was called.
create function line_tenant() returns uuid
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$
    select coalesce(
      nullif(auth.jwt() ->> 'tenant_id', '')::uuid,
      (select tenant_id from numbers where e164 = auth.jwt() ->> 'called_number')
    )
  $$;

-- Entries that answer a question, best first. Words are alternatives, not conditions: callers rarely use the
-- words that the owner wrote.
create function search_knowledge(question text, most integer default 3)
  returns table (id uuid, title text, content text, score real)
  language sql stable set search_path = receptionist, pg_temp
  as $$
    select k.id, k.title, k.content, ts_rank_cd(k.search, words.query, 1) as score
    from (
      select nullif(replace(plainto_tsquery('english', question)::text, '&', '|'), '')::tsquery as query
    ) as words
    join knowledge k on k.search @@ words.query
    order by score desc, k.id
    limit least(greatest(most, 1), 20)
  $$;

create function touch() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end $$;
create trigger touch before update on tenants for each row execute function touch();
create trigger touch before update on agents for each row execute function touch();
create trigger touch before update on knowledge for each row execute function touch();
create trigger touch before update on turns for each row execute function touch();

-- Members who belong to two tenants could carry a row from one to the other; policies see only one row at a time.
create function stay_in_tenant() returns trigger language plpgsql as $$
begin
  if new.tenant_id is distinct from old.tenant_id then
    raise exception 'a row of % cannot be moved to another tenant', tg_table_name
      using errcode = 'check_violation', hint = 'Insert it there and delete it here.';
  end if;
  return new;
end $$;
create trigger stay_in_tenant before update on memberships for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on agents for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on knowledge for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on calls for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on turns for each row execute function stay_in_tenant();

-- A tenant without an owner could be managed by nobody. Security definer, because all owners count, whoever asks.
create function keep_an_owner() returns trigger
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
begin
  -- Two owners who leave at the same moment would each still see the other. A tenant that is itself being
  -- deleted takes its members with it.
  perform from tenants where id = old.tenant_id for no key update;
  if found and not exists (select from memberships where tenant_id = old.tenant_id and role = 'OWNER') then
    raise exception 'a tenant needs at least one owner'
      using errcode = 'check_violation', hint = 'Make another member OWNER first, or delete the tenant.';
  end if;
  return null;
end $$;
create trigger keep_an_owner after update or delete on memberships
  for each row when (old.role = 'OWNER') execute function keep_an_owner();

alter table tenants enable row level security;
alter table memberships enable row level security;
alter table numbers enable row level security;
alter table agents enable row level security;
alter table knowledge enable row level security;
alter table calls enable row level security;
alter table turns enable row level security;
alter table tool_runs enable row level security;

revoke all on all tables in schema receptionist from anon, authenticated;
revoke all on all functions in schema receptionist from public, anon;

grant usage on schema receptionist to authenticated, service_role, receptionist_agent;
grant execute on function my_role(uuid), has_role(uuid, member_role) to authenticated;
grant execute on function line_tenant() to receptionist_agent;
grant execute on function search_knowledge(text, integer) to authenticated, receptionist_agent;

grant all on all tables in schema receptionist to service_role;
grant all on all sequences in schema receptionist to service_role;
grant execute on all functions in schema receptionist to service_role;

grant select on tenants, memberships, numbers, agents, knowledge, calls, turns, tool_runs to authenticated;
grant update (name, timezone) on tenants to authenticated;
grant insert, update, delete on memberships, agents, knowledge to authenticated;
grant delete on calls to authenticated;

create policy members_read on tenants for select to authenticated using (has_role(id, 'VIEWER'));
create policy managers_update on tenants for update to authenticated
  using (has_role(id, 'MANAGER')) with check (has_role(id, 'MANAGER'));

create policy members_read on memberships for select to authenticated using (has_role(tenant_id, 'VIEWER'));
-- Nobody hands out a role above their own, and nobody touches a membership above their own.
create policy managers_insert on memberships for insert to authenticated
  with check (has_role(tenant_id, 'MANAGER') and has_role(tenant_id, role));
create policy managers_update on memberships for update to authenticated
  using (has_role(tenant_id, 'MANAGER') and has_role(tenant_id, role))
  with check (has_role(tenant_id, 'MANAGER') and has_role(tenant_id, role));
create policy managers_delete on memberships for delete to authenticated
  using (has_role(tenant_id, 'MANAGER') and has_role(tenant_id, role));

create policy members_read on numbers for select to authenticated using (has_role(tenant_id, 'VIEWER'));

create policy members_read on agents for select to authenticated using (has_role(tenant_id, 'VIEWER'));
create policy managers_insert on agents for insert to authenticated with check (has_role(tenant_id, 'MANAGER'));
create policy managers_update on agents for update to authenticated
  using (has_role(tenant_id, 'MANAGER')) with check (has_role(tenant_id, 'MANAGER'));
create policy managers_delete on agents for delete to authenticated using (has_role(tenant_id, 'MANAGER'));

create policy members_read on knowledge for select to authenticated using (has_role(tenant_id, 'VIEWER'));
create policy managers_insert on knowledge for insert to authenticated with check (has_role(tenant_id, 'MANAGER'));
create policy managers_update on knowledge for update to authenticated
  using (has_role(tenant_id, 'MANAGER')) with check (has_role(tenant_id, 'MANAGER'));
create policy managers_delete on knowledge for delete to authenticated using (has_role(tenant_id, 'MANAGER'));

create policy members_read on calls for select to authenticated using (has_role(tenant_id, 'VIEWER'));
create policy managers_delete on calls for delete to authenticated using (has_role(tenant_id, 'MANAGER'));
create policy members_read on turns for select to authenticated using (has_role(tenant_id, 'VIEWER'));
create policy members_read on tool_runs for select to authenticated using (has_role(tenant_id, 'VIEWER'));

-- The voice agent: reads its tenant's configuration and knowledge, writes its tenant's calls, nothing else.
grant select on tenants, numbers, agents, knowledge to receptionist_agent;
grant select, insert, update on calls, turns to receptionist_agent;
grant insert on tool_runs to receptionist_agent;

create policy line_reads on tenants for select to receptionist_agent using (id = line_tenant());
create policy line_reads on numbers for select to receptionist_agent using (tenant_id = line_tenant());
create policy line_reads on agents for select to receptionist_agent using (tenant_id = line_tenant());
create policy line_reads on knowledge for select to receptionist_agent using (tenant_id = line_tenant());
create policy line_reads on calls for select to receptionist_agent using (tenant_id = line_tenant());
create policy line_writes on calls for insert to receptionist_agent with check (tenant_id = line_tenant());
create policy line_updates on calls for update to receptionist_agent
  using (tenant_id = line_tenant()) with check (tenant_id = line_tenant());
create policy line_reads on turns for select to receptionist_agent using (tenant_id = line_tenant());
create policy line_writes on turns for insert to receptionist_agent with check (tenant_id = line_tenant());
create policy line_updates on turns for update to receptionist_agent
  using (tenant_id = line_tenant()) with check (tenant_id = line_tenant());
create policy line_writes on tool_runs for insert to receptionist_agent with check (tenant_id = line_tenant());
