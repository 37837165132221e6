-- The gateway's records: what every model call consumed, for whom, and what it cost. Written by the role `ai_gateway`
-- alone; row-level security lets people see their own calls.

do $$
begin
  -- Roles belong to the cluster; another database of it may have made this one.
  if not exists (select from pg_roles where rolname = 'ai_gateway') then
    begin
      create role ai_gateway nologin noinherit;
    exception when duplicate_object or unique_violation then null;
    end;
  end if;
  if exists (select from pg_roles where rolname = 'authenticator') then
    grant ai_gateway to authenticator;
  end if;
  -- Servers that connect as the owner (an external database with one login) become it too.
  execute format('grant ai_gateway to %I', current_user);
end $$;

grant usage on schema ai to ai_gateway, authenticated, service_role;

create table calls (
  id uuid not null,
  created_at timestamptz not null default now(),
  task text not null,
  modality text not null,
  app text not null default '',
  user_id uuid,
  tenant_id uuid,
  project_id uuid,
  provider text,
  model text,
  key_id text,
  own_key boolean not null default false,
  input_tokens bigint not null default 0,
  cached_input_tokens bigint not null default 0,
  cache_write_tokens bigint not null default 0,
  input_audio_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0,
  output_media_tokens bigint not null default 0,
  audio_ms bigint not null default 0,
  characters bigint not null default 0,
  images bigint not null default 0,
  estimated boolean not null default false,
  -- 10^-9 US dollars at list price; null where no price is known. With `own_key` the owner pays it.
  cost_nano_usd bigint,
  status text not null constraint calls_status check (status in ('done', 'cancelled', 'failed', 'refused')),
  fault text,
  tried jsonb not null default '[]',
  latency_ms bigint not null default 0,
  first_content_ms bigint,
  cached boolean not null default false,
  provider_request_id text,
  primary key (id, created_at)
) partition by range (created_at);
comment on table calls is 'The ledger: one row for every model call. Months are partitions; old ones move to the schema ai_archive.';
comment on column calls.estimated is 'Whether we counted, because the provider did not say.';
create index calls_user on calls (user_id, created_at desc) where user_id is not null;
create index calls_tenant on calls (tenant_id, created_at desc) where tenant_id is not null;
create index calls_task on calls (task, created_at desc);

-- A row is kept even where no month was made for it (a clock that is years off).
create table calls_default partition of calls default;

-- What archived months held.
create table calls_by_month (
  month date not null,
  app text not null,
  task text not null,
  provider text not null,
  model text not null,
  calls bigint not null,
  failed bigint not null,
  cached bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cost_nano_usd bigint not null,
  primary key (month, app, task, provider, model)
);
comment on table calls_by_month is 'Sums of months that were archived.';

alter table calls enable row level security;
alter table calls_default enable row level security;
alter table calls_by_month enable row level security;
grant select, insert on calls to ai_gateway;
grant select on calls, calls_by_month to service_role;
grant select on calls to authenticated;
create policy gateway_writes on calls for insert to ai_gateway with check (true);
create policy gateway_reads on calls for select to ai_gateway using (true);
create policy own_calls on calls for select to authenticated using (user_id = (select auth.uid()));

create schema if not exists ai_archive;
comment on schema ai_archive is 'Months of ai.calls that are past keeping: dump them, then drop them.';

-- Makes the partitions of this month and the coming ones; archives months that are older than `keep_months` (0: none).
-- Runs as its owner, because partitions are made and moved by whoever owns the table.
create function maintain_calls(keep_months integer, ahead_months integer, at timestamptz default now())
returns table (made integer, archived integer)
language plpgsql security definer set search_path = ''
as $$
declare
  this_month constant date := date_trunc('month', at at time zone 'utc');
  month date;
  name text;
  old record;
begin
  made := 0;
  archived := 0;
  -- Servers of one project run this at the same time ("ai_calls" in ASCII).
  perform pg_advisory_xact_lock(x'61695f63616c6c73'::bigint);
  for i in 0..ahead_months loop
    month := this_month + make_interval(months => i);
    name := 'calls_' || to_char(month, 'YYYY_MM');
    if to_regclass('ai.' || name) is null and to_regclass('ai_archive.' || name) is null then
      begin
        execute format('create table ai.%I partition of ai.calls for values from (%L) to (%L)',
          name, month::timestamp at time zone 'utc', (month + interval '1 month') at time zone 'utc');
        execute format('alter table ai.%I enable row level security', name);
        made := made + 1;
      exception when check_violation then
        raise warning 'rows of % are in ai.calls_default, where they stay', to_char(month, 'YYYY-MM');
      end;
    end if;
  end loop;
  if keep_months > 0 then
    for old in
      select c.relname, to_date(right(c.relname, 7), 'YYYY_MM') as month
      from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'ai.calls'::regclass and c.relname ~ '^calls_[0-9]{4}_[0-9]{2}$'
        and to_date(right(c.relname, 7), 'YYYY_MM') < this_month - make_interval(months => keep_months)
      order by c.relname
    loop
      execute format('alter table ai.calls detach partition ai.%I', old.relname);
      execute format($sums$
        insert into ai.calls_by_month
        select %L::date, c.app, c.task, coalesce(c.provider, ''), coalesce(c.model, ''), count(*),
          count(*) filter (where c.status = 'failed'), count(*) filter (where c.cached),
          sum(c.input_tokens), sum(c.output_tokens), coalesce(sum(c.cost_nano_usd), 0)
        from ai.%I c group by 2, 3, 4, 5
        on conflict do nothing
      $sums$, old.month, old.relname);
      execute format('alter table ai.%I set schema ai_archive', old.relname);
      archived := archived + 1;
    end loop;
  end if;
  return next;
end
$$;
revoke all on function maintain_calls(integer, integer, timestamptz) from public;
grant execute on function maintain_calls(integer, integer, timestamptz) to ai_gateway, service_role;

-- Prices of the operator's own, above those that Longhouse knows and those of the configuration.
create table prices (
  model text not null constraint prices_model check (model ~ '^[^/]+/.+$'),
  valid_from date not null,
  -- US dollars: tokens and characters by the million, audio by the minute, pictures each.
  input numeric check (input >= 0),
  cached_input numeric check (cached_input >= 0),
  cache_write numeric check (cache_write >= 0),
  input_audio numeric check (input_audio >= 0),
  output numeric check (output >= 0),
  output_media numeric check (output_media >= 0),
  audio_minute numeric check (audio_minute >= 0),
  characters numeric check (characters >= 0),
  image numeric check (image >= 0),
  primary key (model, valid_from)
);
comment on table prices is 'The operator''s own prices, by model (`provider/model`) and first day.';
alter table prices enable row level security;
grant select on prices to ai_gateway, authenticated;
grant select, insert, update, delete on prices to service_role;
create policy everybody_reads on prices for select to ai_gateway, authenticated using (true);

-- What operators and people ask of the ledger.
create view usage_by_task as
select c.app, c.task,
  count(*) filter (where c.created_at > now() - interval '1 hour') as calls_1h,
  count(*) as calls_24h,
  count(*) filter (where c.status = 'failed' and c.created_at > now() - interval '1 hour') as failed_1h,
  count(*) filter (where c.status = 'failed') as failed_24h,
  count(*) filter (where c.cached) as cached_24h,
  sum(c.input_tokens + c.output_tokens) as tokens_24h,
  coalesce(sum(c.cost_nano_usd) filter (where c.created_at > now() - interval '1 hour'), 0) / 1e9 as cost_usd_1h,
  coalesce(sum(c.cost_nano_usd), 0) / 1e9 as cost_usd_24h,
  round(avg(c.latency_ms))::bigint as mean_latency_ms,
  percentile_cont(0.95) within group (order by c.latency_ms)::bigint as p95_latency_ms
from calls c
where c.created_at > now() - interval '24 hours'
group by c.app, c.task;
comment on view usage_by_task is 'Calls, failures, tokens, cost and latency of each task within an hour and a day.';

create view usage_by_day as
select (c.created_at at time zone 'utc')::date as day, c.app, c.task, c.provider, c.model,
  count(*) as calls,
  count(*) filter (where c.status = 'failed') as failed,
  count(*) filter (where c.cached) as cached,
  count(*) filter (where c.estimated) as estimated,
  count(*) filter (where c.cost_nano_usd is null) as unpriced,
  sum(c.input_tokens) as input_tokens,
  sum(c.output_tokens) as output_tokens,
  sum(c.audio_ms) as audio_ms,
  sum(c.characters) as characters,
  sum(c.images) as images,
  coalesce(sum(c.cost_nano_usd), 0) / 1e9 as cost_usd,
  coalesce(sum(c.cost_nano_usd) filter (where not c.own_key), 0) / 1e9 as platform_cost_usd,
  round(avg(c.latency_ms))::bigint as mean_latency_ms
from calls c
group by 1, 2, 3, 4, 5;
comment on view usage_by_day is 'What was consumed each day (UTC) by application, task and model.';

create view usage_by_user as
select c.user_id, c.app, (c.created_at at time zone 'utc')::date as day,
  count(*) as calls,
  sum(c.input_tokens + c.output_tokens) as tokens,
  coalesce(sum(c.cost_nano_usd), 0) / 1e9 as cost_usd
from calls c
where c.user_id is not null
group by 1, 2, 3;
comment on view usage_by_user is 'What each person consumed each day (UTC).';

create view usage_now as
select
  count(*) filter (where c.created_at > now() - interval '5 minutes') as calls_5m,
  count(*) filter (where c.status = 'failed') as failed_1h,
  count(*) filter (where c.status = 'refused') as refused_1h,
  count(*) filter (where c.cached) as cached_1h,
  count(*) as calls_1h,
  coalesce(sum(c.cost_nano_usd), 0) / 1e9 as cost_usd_1h
from calls c
where c.created_at > now() - interval '1 hour';
comment on view usage_now is 'Traffic of five minutes; failures, cache hits and cost of an hour.';

do $$
declare
  view text;
begin
  foreach view in array array['usage_by_task', 'usage_by_day', 'usage_by_user', 'usage_now'] loop
    execute format('grant select on ai.%I to service_role', view);
    -- Before Postgres 15 a view reads as its owner, past the policies: then it is for operators alone.
    if current_setting('server_version_num')::integer >= 150000 then
      execute format('alter view ai.%I set (security_invoker = true)', view);
      execute format('grant select on ai.%I to authenticated', view);
    end if;
  end loop;
end $$;

select maintain_calls(0, 3);
