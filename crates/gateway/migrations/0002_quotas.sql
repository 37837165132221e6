-- Limits on what owners may consume. The limits themselves are configuration; here is what was used of them, what is
-- reserved, and where somebody's limit differs.

create table limit_overrides (
  -- As the configuration names it.
  name text not null,
  unit text not null constraint limit_overrides_unit check (unit in ('calls', 'tokens', 'cost')),
  -- The id of a user, tenant or project, the name of an application, or `*` where the limit is everybody's.
  subject text not null,
  -- Calls, tokens, or 10^-9 US dollars.
  allowed bigint not null check (allowed >= 0),
  primary key (name, unit, subject)
);
comment on table limit_overrides is 'Other amounts than the configured ones, for some: a paid plan, a block (0).';

create table quota_use (
  name text not null,
  unit text not null,
  subject text not null,
  period_start timestamptz not null,
  period_end timestamptz not null,
  used bigint not null default 0 constraint quota_use_used check (used >= 0),
  primary key (name, unit, subject, period_start)
) with (fillfactor = 70);
comment on table quota_use is 'What was consumed of each limit in each period; periods begin with the hour, day or month, in UTC.';
create index quota_use_subject on quota_use (subject, period_end);
create index quota_use_period_end on quota_use (period_end);

create table quota_holds (
  reservation uuid not null,
  name text not null,
  unit text not null,
  subject text not null,
  period_start timestamptz not null,
  amount bigint not null constraint quota_holds_amount check (amount > 0),
  -- Counts no longer after this; the row stays a while, so that a late settlement is counted, and only once.
  expires_at timestamptz not null,
  primary key (name, unit, subject, period_start, reservation)
);
comment on table quota_holds is 'What calls in progress have reserved.';
create index quota_holds_reservation on quota_holds (reservation);
create index quota_holds_expires_at on quota_holds (expires_at);

-- Reserves all amounts or none. `granted` is the same in every row; `used` and `held` are as after the reservation.
-- The rows of quota_use are locked in one order, so that two calls never wait for each other.
create function reserve_quotas(
  p_reservation uuid, p_seconds double precision, p_names text[], p_units text[], p_subjects text[],
  p_periods text[], p_allowed bigint[], p_amounts bigint[], p_now timestamptz default null
) returns table (
  place integer, granted boolean, allowed bigint, used bigint, held bigint, period_end timestamptz, at timestamptz
)
language plpgsql set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := coalesce(p_now, clock_timestamp());
  starts timestamptz[];
  fits boolean;
begin
  select array_agg(date_trunc(period, moment at time zone 'utc') at time zone 'utc' order by n) into starts
  from unnest(p_periods) with ordinality as p (period, n);

  insert into ai.quota_use (name, unit, subject, period_start, period_end)
  select w.name, w.unit, w.subject, w.start,
    ((w.start at time zone 'utc') + ('1 ' || w.period)::interval) at time zone 'utc'
  from unnest(p_names, p_units, p_subjects, starts, p_periods) as w (name, unit, subject, start, period)
  order by w.name, w.unit, w.subject, w.start
  on conflict do nothing;

  perform from ai.quota_use u
  join unnest(p_names, p_units, p_subjects, starts) as w (name, unit, subject, start)
    on (u.name, u.unit, u.subject, u.period_start) = (w.name, w.unit, w.subject, w.start)
  order by u.name, u.unit, u.subject, u.period_start
  for update of u;

  -- A statement of its own, which sees what was committed while we waited for the locks.
  select bool_and(coalesce(o.allowed, w.allowed) >= u.used + w.amount + (
      select coalesce(sum(h.amount), 0) from ai.quota_holds h
      where (h.name, h.unit, h.subject, h.period_start) = (u.name, u.unit, u.subject, u.period_start)
        and h.expires_at > moment
    )) into fits
  from unnest(p_names, p_units, p_subjects, starts, p_allowed, p_amounts)
    as w (name, unit, subject, start, allowed, amount)
  join ai.quota_use u on (u.name, u.unit, u.subject, u.period_start) = (w.name, w.unit, w.subject, w.start)
  left join ai.limit_overrides o on (o.name, o.unit, o.subject) = (w.name, w.unit, w.subject);

  if fits then
    insert into ai.quota_holds (reservation, name, unit, subject, period_start, amount, expires_at)
    select p_reservation, w.name, w.unit, w.subject, w.start, w.amount, moment + make_interval(secs => p_seconds)
    from unnest(p_names, p_units, p_subjects, starts, p_amounts) as w (name, unit, subject, start, amount);
  end if;

  return query
  select w.n::integer, fits, coalesce(o.allowed, w.allowed), u.used, (
      select coalesce(sum(h.amount), 0)::bigint from ai.quota_holds h
      where (h.name, h.unit, h.subject, h.period_start) = (u.name, u.unit, u.subject, u.period_start)
        and h.expires_at > moment
    ), u.period_end, moment
  from unnest(p_names, p_units, p_subjects, starts, p_allowed)
    with ordinality as w (name, unit, subject, start, allowed, n)
  join ai.quota_use u on (u.name, u.unit, u.subject, u.period_start) = (w.name, w.unit, w.subject, w.start)
  left join ai.limit_overrides o on (o.name, o.unit, o.subject) = (w.name, w.unit, w.subject)
  order by w.n;
end
$$;

-- Replaces what was reserved by what was consumed. Done twice, the second time changes nothing.
create function settle_quotas(p_reservation uuid, p_calls bigint, p_tokens bigint, p_cost bigint) returns integer
language plpgsql set search_path = ''
as $$
declare
  settled integer;
begin
  perform from ai.quota_use u
  join ai.quota_holds h
    on (u.name, u.unit, u.subject, u.period_start) = (h.name, h.unit, h.subject, h.period_start)
  where h.reservation = p_reservation
  order by u.name, u.unit, u.subject, u.period_start
  for update of u;

  with gone as (
    delete from ai.quota_holds h where h.reservation = p_reservation returning *
  )
  update ai.quota_use u
  set used = u.used + case g.unit when 'calls' then p_calls when 'tokens' then p_tokens else p_cost end
  from gone g
  where (u.name, u.unit, u.subject, u.period_start) = (g.name, g.unit, g.subject, g.period_start);
  get diagnostics settled = row_count;
  return settled;
end
$$;

-- Forgets reservations that nobody settled, and periods that are long over.
create function sweep_quotas(p_now timestamptz default now()) returns integer
language sql set search_path = ''
as $$
  with
    holds as (delete from ai.quota_holds where expires_at < p_now - interval '1 day' returning 1),
    periods as (
      -- Hours go after two days, days after three, months after a quarter; what was consumed is in the ledger.
      delete from ai.quota_use
      where period_end < p_now - interval '2 days' and period_end + 3 * (period_end - period_start) < p_now
      returning 1
    )
  select (select count(*) from holds)::integer + (select count(*) from periods)::integer
$$;

alter table limit_overrides enable row level security;
alter table quota_use enable row level security;
alter table quota_holds enable row level security;
revoke all on function reserve_quotas from public;
revoke all on function settle_quotas from public;
revoke all on function sweep_quotas from public;
grant execute on function reserve_quotas, settle_quotas, sweep_quotas to ai_gateway;
grant select on limit_overrides to ai_gateway;
grant select, insert, update, delete on limit_overrides to service_role;
grant select, insert, update, delete on quota_use, quota_holds to ai_gateway;
grant select on quota_use, quota_holds to service_role;
grant select on quota_use, limit_overrides to authenticated;
create policy gateway on limit_overrides for select to ai_gateway using (true);
create policy gateway on quota_use for all to ai_gateway using (true) with check (true);
create policy gateway on quota_holds for all to ai_gateway using (true) with check (true);
create policy own_use on quota_use for select to authenticated using (subject = (select auth.uid())::text);
create policy own_limits on limit_overrides for select to authenticated using (subject = (select auth.uid())::text);
