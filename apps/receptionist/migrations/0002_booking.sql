-- Appointments: what can be booked, when, with whom; and how a slot is held, booked, moved and given back.
--
-- Nobody inserts an appointment directly. The functions below find the slot again, under a lock of the tenant, and an
-- exclusion constraint is the last word: no two appointments of one person overlap, whatever wrote them.

create extension if not exists btree_gist with schema extensions;

create type booking_mode as enum ('native', 'external');
create type appointment_status as enum ('held', 'booked', 'completed', 'no_show', 'cancelled');
create type appointment_source as enum ('voice', 'sms', 'web', 'dashboard');

-- Everything here is reckoned in the tenant's zone: one that Postgres does not know would fail at the first call.
create function known_timezone() returns trigger language plpgsql as $$
begin
  if not exists (select from pg_timezone_names where name = new.timezone) then
    raise exception 'there is no time zone %', quote_literal(new.timezone)
      using errcode = 'check_violation', hint = 'Write a name of the IANA database, such as Europe/Madrid.';
  end if;
  return new;
end $$;
create trigger known_timezone before insert or update of timezone on tenants
  for each row execute function known_timezone();

create table services (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  name text not null check (char_length(name) between 1 and 200),
  description text check (char_length(description) <= 2000),
  duration_minutes integer not null default 30 check (duration_minutes between 5 and 1440),
  price numeric(10, 2) check (price >= 0),
  active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (id, tenant_id)
);
create unique index services_name on services (tenant_id, lower(name));

create table business_hours (
  tenant_id uuid not null references tenants on delete cascade,
  -- 0 is Sunday. Several windows a day are a lunch break.
  dow smallint not null check (dow between 0 and 6),
  opens time not null,
  closes time not null check (closes > opens),
  primary key (tenant_id, dow, opens)
);

create table holidays (
  tenant_id uuid not null references tenants on delete cascade,
  day date not null,
  name text not null check (char_length(name) between 1 and 200),
  -- Other hours on that day; closed without.
  opens time,
  closes time,
  check ((opens is null) = (closes is null)),
  check (closes > opens),
  primary key (tenant_id, day)
);

create table staff (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  name text not null check (char_length(name) between 1 and 200),
  role text check (char_length(role) <= 200),
  specialties text[] not null default '{}' check (cardinality(specialties) <= 50),
  bio text check (char_length(bio) <= 4000),
  photo_url text check (char_length(photo_url) <= 2000),
  active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (id, tenant_id)
);
create unique index staff_name on staff (tenant_id, lower(name));

-- Who has none works whenever the business is open.
create table staff_schedules (
  tenant_id uuid not null,
  staff_id uuid not null,
  dow smallint not null check (dow between 0 and 6),
  starts time not null,
  ends time not null check (ends > starts),
  primary key (staff_id, dow, starts),
  foreign key (staff_id, tenant_id) references staff (id, tenant_id) on delete cascade
);
create index staff_schedules_tenant_id on staff_schedules (tenant_id);

-- A service that nobody is assigned to is offered by everybody.
create table staff_services (
  tenant_id uuid not null,
  staff_id uuid not null,
  service_id uuid not null,
  primary key (staff_id, service_id),
  foreign key (staff_id, tenant_id) references staff (id, tenant_id) on delete cascade,
  foreign key (service_id, tenant_id) references services (id, tenant_id) on delete cascade
);
create index staff_services_service_id on staff_services (service_id);

create table staff_time_off (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null,
  staff_id uuid not null,
  first_day date not null,
  last_day date not null check (last_day >= first_day),
  reason text check (char_length(reason) <= 500),
  created_at timestamptz not null default now(),
  foreign key (staff_id, tenant_id) references staff (id, tenant_id) on delete cascade
);
create index staff_time_off_staff_id on staff_time_off (staff_id, first_day);

create table booking_settings (
  tenant_id uuid primary key references tenants on delete cascade,
  mode booking_mode not null default 'native',
  external_url text check (external_url ~ '^https?://' and char_length(external_url) <= 2000),
  granularity_minutes integer not null default 30 check (granularity_minutes between 5 and 240),
  -- Kept free behind each appointment.
  buffer_minutes integer not null default 0 check (buffer_minutes between 0 and 240),
  -- How long before it begins an appointment can still be booked; how far ahead; how late callers may cancel.
  lead_minutes integer not null default 60 check (lead_minutes between 0 and 43200),
  horizon_days integer not null default 90 check (horizon_days between 1 and 730),
  cancel_notice_hours integer not null default 0 check (cancel_notice_hours between 0 and 720),
  hold_minutes integer not null default 5 check (hold_minutes between 1 and 60),
  updated_at timestamptz not null default now(),
  check (mode = 'native' or external_url is not null)
);

create table appointments (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  staff_id uuid,
  service_id uuid,
  -- As it was called and cost when it was booked.
  service_name text not null,
  price numeric(10, 2),
  customer_name text not null check (char_length(customer_name) between 1 and 200),
  customer_phone text check (customer_phone ~ '^\+[1-9][0-9]{2,14}$'),
  starts_at timestamptz not null,
  ends_at timestamptz not null check (ends_at > starts_at),
  blocked_until timestamptz not null check (blocked_until >= ends_at),
  status appointment_status not null,
  held_until timestamptz check ((status = 'held') = (held_until is not null)),
  source appointment_source not null,
  call_id uuid references calls on delete set null,
  -- With the phone number, proves on another telephone that the appointment is the caller's.
  code text not null default lpad(((('x' || left(md5(gen_random_uuid()::text), 8))::bit(32)::bigint) % 1000000)::text, 6, '0'),
  notes text check (char_length(notes) <= 4000),
  cancelled_at timestamptz,
  cancel_reason text check (char_length(cancel_reason) <= 500),
  -- Times it was moved: calendars tell newer from older by it.
  revision integer not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  foreign key (staff_id, tenant_id) references staff (id, tenant_id),
  foreign key (service_id, tenant_id) references services (id, tenant_id) on delete set null (service_id),
  -- A business without staff is its own only resource.
  constraint one_at_a_time exclude using gist (
    (coalesce(staff_id, tenant_id)) with =,
    tstzrange(starts_at, blocked_until) with &&
  ) where (status <> 'cancelled')
);
create index appointments_tenant_starts on appointments (tenant_id, starts_at);
create index appointments_phone on appointments (tenant_id, customer_phone) where status in ('held', 'booked');

-- Appointments that a caller has proved to be theirs, for the rest of the call.
create table caller_proofs (
  call_id uuid not null references calls on delete cascade,
  appointment_id uuid not null references appointments on delete cascade,
  tenant_id uuid not null references tenants on delete cascade,
  primary key (call_id, appointment_id)
);
alter table calls add column code_attempts integer not null default 0;

create table calendar_feeds (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  staff_id uuid,
  token_hash bytea not null unique,
  created_by uuid default auth.uid(),
  created_at timestamptz not null default now(),
  foreign key (staff_id, tenant_id) references staff (id, tenant_id) on delete cascade
);
create index calendar_feeds_tenant_id on calendar_feeds (tenant_id);

create trigger touch before update on services for each row execute function touch();
create trigger touch before update on staff for each row execute function touch();
create trigger touch before update on booking_settings for each row execute function touch();
create trigger touch before update on appointments for each row execute function touch();
create trigger stay_in_tenant before update on services for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on business_hours for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on holidays for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on staff for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on staff_schedules for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on staff_services for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on staff_time_off for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on booking_settings for each row execute function stay_in_tenant();
create trigger stay_in_tenant before update on appointments for each row execute function stay_in_tenant();

-- The tenant that the statement's role works for, if it is the voice agent. The role itself counts, which nobody can claim:
-- projects may put a `tenant_id` of their own into users' tokens.
create function acting_line() returns uuid
  language sql stable set search_path = receptionist, pg_temp
  as $$ select case when current_setting('role', true) = 'receptionist_agent' then line_tenant() end $$;

-- Refuses who is neither of the tenant's people, in this role at least, nor its voice agent, nor the service.
create function must_be_of(tenant uuid, minimum member_role) returns void
  language plpgsql stable set search_path = receptionist, pg_temp
  as $$
begin
  if not (has_role(tenant, minimum) or coalesce(acting_line() = tenant, false)
          or current_setting('role', true) = 'service_role') then
    raise exception 'this takes the role % in the tenant', minimum using errcode = 'insufficient_privilege';
  end if;
end $$;

-- When somebody works on a day, as instants; the business itself where `person` is null. Clock times that a change of
-- the clocks skips are read with the offset before it, those that come twice mean the second time, as Postgres reads them.
create function working_windows(tenant uuid, person uuid, on_day date) returns setof tstzrange
  language sql stable rows 2 set search_path = receptionist, pg_temp
  as $$
    with special as (
      select opens, closes from holidays where tenant_id = tenant and day = on_day
    ), own as (
      select dow, starts, ends from staff_schedules where tenant_id = tenant and staff_id = person
    ), usual as (
      select tsrange(on_day + starts, on_day + ends) as hours from own where dow = extract(dow from on_day)
      union all
      select tsrange(on_day + opens, on_day + closes) from business_hours
      where tenant_id = tenant and dow = extract(dow from on_day)
        and not exists (select from own) and not exists (select from special)
      union all
      select tsrange(on_day + opens, on_day + closes) from special
      where opens is not null and not exists (select from own)
    ), kept as (
      select case when s.opens is null then u.hours
                  else u.hours * tsrange(on_day + s.opens, on_day + s.closes) end as hours
      from usual u left join special s on true
      where not exists (select from special where opens is null)
    ), instants as (
      select lower(k.hours) at time zone t.timezone as starts, upper(k.hours) at time zone t.timezone as ends
      from kept k join tenants t on t.id = tenant
      where not isempty(k.hours)
        and not exists (
          select from staff_time_off o
          where o.tenant_id = tenant and o.staff_id = person and on_day between o.first_day and o.last_day
        )
    )
    select tstzrange(starts, ends) from instants where starts < ends
  $$;

-- Free slots of a service, the earliest first. `from_day` and `days` are days of the tenant's calendar. Security definer,
-- because it must see every appointment; it tells nothing of them but that a time is taken.
create function availability(
  tenant uuid, service uuid, from_day date default null, days integer default 7, person uuid default null,
  most integer default 500, ignoring uuid default null
) returns table (staff_id uuid, staff_name text, starts_at timestamptz, ends_at timestamptz, local_start timestamp)
  -- Compiling the query takes a hundred times as long as running it.
  language plpgsql stable rows 50 security definer set search_path = receptionist, pg_temp set jit = off
  as $$
#variable_conflict use_column
declare
  tz text;
  rules booking_settings;
  length interval;
  today date;
begin
  perform must_be_of(tenant, 'VIEWER');
  select t.timezone into tz from tenants t where t.id = tenant;
  select make_interval(mins => s.duration_minutes) into length
    from services s where s.id = service and s.tenant_id = tenant and s.active;
  if length is null then
    raise exception 'there is no such service' using errcode = 'no_data_found';
  end if;
  select * into rules from booking_settings b where b.tenant_id = tenant;
  rules.granularity_minutes := coalesce(rules.granularity_minutes, 30);
  rules.buffer_minutes := coalesce(rules.buffer_minutes, 0);
  rules.lead_minutes := coalesce(rules.lead_minutes, 60);
  rules.horizon_days := coalesce(rules.horizon_days, 90);
  today := (now() at time zone tz)::date;
  return query
    with people as (
      select p.id, p.name from staff p
      where p.tenant_id = tenant and p.active and (person is null or p.id = person)
        and (exists (select from staff_services a where a.staff_id = p.id and a.service_id = service)
             or not exists (select from staff_services a join staff q on q.id = a.staff_id
                            where a.service_id = service and q.active))
      union all
      select null::uuid, null::text
      where person is null and not exists (select from staff p where p.tenant_id = tenant and p.active)
    ), calendar as (
      select today + n as day from generate_series(0, rules.horizon_days) n
      where today + n >= coalesce(from_day, today)
        and today + n < coalesce(from_day, today) + least(greatest(days, 1), 62)
    )
    select distinct p.id, p.name, slot, slot + length, slot at time zone tz
    from people p
    cross join calendar c
    cross join lateral working_windows(tenant, p.id, c.day) as hours
    cross join lateral generate_series(
      lower(hours), upper(hours) - length, make_interval(mins => rules.granularity_minutes)) as slot
    where slot >= now() + make_interval(mins => rules.lead_minutes)
      and not exists (
        select from appointments a
        where coalesce(a.staff_id, a.tenant_id) = coalesce(p.id, tenant)
          and tstzrange(a.starts_at, a.blocked_until)
              && tstzrange(slot, slot + length + make_interval(mins => rules.buffer_minutes))
          and a.status <> 'cancelled'
          and (a.held_until is null or a.held_until > now())
          and a.id is distinct from ignoring
      )
    order by slot, p.name
    limit least(greatest(most, 1), 5000);
end $$;

-- Keeps a slot for somebody for some minutes. Without `person`, whoever has the least to do around it.
create function hold_appointment(
  tenant uuid, service uuid, begins timestamptz, customer text, phone text default null, person uuid default null,
  came_by appointment_source default 'dashboard', in_call uuid default null, remark text default null
) returns appointments
  language plpgsql security definer set search_path = receptionist, pg_temp set jit = off
  as $$
#variable_conflict use_column
declare
  rules booking_settings;
  candidate record;
  made appointments;
begin
  perform must_be_of(tenant, 'AGENT');
  if in_call is not null and not exists (select from calls c where c.id = in_call and c.tenant_id = tenant) then
    raise exception 'the call is not the tenant''s' using errcode = 'check_violation';
  end if;
  -- One booking of a tenant at a time: two that wait for each other in the constraint would be a deadlock.
  perform from tenants t where t.id = tenant for no key update;
  select * into rules from booking_settings b where b.tenant_id = tenant;
  if rules.mode = 'external' then
    raise exception 'appointments of this business are made at %', rules.external_url using errcode = 'PT409';
  end if;
  -- Asked twice for the same, a call has it once; asked for another time, it lets go of the first.
  select * into made from appointments a
  where a.call_id = in_call and a.service_id = service and a.starts_at = begins and a.status in ('held', 'booked');
  if found then
    return made;
  end if;
  delete from appointments a where a.call_id = in_call and a.status = 'held';
  for candidate in
    select f.staff_id, f.starts_at, f.ends_at
    from availability(tenant, service, slot_day(tenant, begins), 1, person, 5000) f
    where f.starts_at = begins
    order by (select count(*) from appointments a
              where coalesce(a.staff_id, a.tenant_id) = coalesce(f.staff_id, tenant) and a.status <> 'cancelled'
                and tstzrange(a.starts_at, a.blocked_until) && tstzrange(begins - interval '12 hours', begins + interval '12 hours')),
             f.staff_name
  loop
    delete from appointments a
    where coalesce(a.staff_id, a.tenant_id) = coalesce(candidate.staff_id, tenant)
      and a.status = 'held' and a.held_until <= now()
      and tstzrange(a.starts_at, a.blocked_until) && tstzrange(
        candidate.starts_at, candidate.ends_at + make_interval(mins => coalesce(rules.buffer_minutes, 0)));
    insert into appointments (
      tenant_id, staff_id, service_id, service_name, price, customer_name, customer_phone, starts_at, ends_at,
      blocked_until, status, held_until, source, call_id, notes
    )
    select tenant, candidate.staff_id, s.id, s.name, s.price, customer, phone, candidate.starts_at, candidate.ends_at,
      candidate.ends_at + make_interval(mins => coalesce(rules.buffer_minutes, 0)), 'held',
      now() + make_interval(mins => coalesce(rules.hold_minutes, 5)), came_by, in_call, remark
    from services s where s.id = service
    returning * into made;
    return made;
  end loop;
  raise exception 'that time is not free' using errcode = 'PT409';
end $$;

-- The day of the tenant's calendar that an instant lies in.
create function slot_day(tenant uuid, instant timestamptz) returns date
  language sql stable set search_path = receptionist, pg_temp
  as $$ select (instant at time zone t.timezone)::date from tenants t where t.id = tenant $$;

-- Books what is held: an appointment, or the one that a call holds. A hold whose minutes are over is still good as long as
-- nobody took the time.
create function confirm_appointment(appointment uuid default null, in_call uuid default null) returns appointments
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  made appointments;
begin
  select * into made from appointments a
  where a.id = appointment or (appointment is null and a.call_id = in_call and a.status in ('held', 'booked'))
  -- A call that asks twice is told of what it booked.
  order by a.status, a.created_at desc limit 1 for no key update;
  if not found then
    raise exception 'nothing is held: the time was given away meanwhile' using errcode = 'PT409';
  end if;
  perform must_be_of(made.tenant_id, 'AGENT');
  if made.status = 'booked' then
    return made;
  elsif made.status <> 'held' then
    raise exception 'the appointment is %', made.status using errcode = 'PT409';
  end if;
  update appointments a set status = 'booked', held_until = null where a.id = made.id returning a.* into made;
  return made;
end $$;

-- Upcoming appointments that a caller may hear of and change: those booked with the number that calls, or with another
-- number whose code the caller knows. Five wrong codes a call, and no more are heard.
create function caller_appointments(in_call uuid, phone text default null, proof text default null)
  returns table (id uuid, service_name text, staff_name text, customer_name text, starts_at timestamptz, local_start timestamp, revision integer)
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
#variable_conflict use_column
declare
  this_call calls;
begin
  select * into this_call from calls c where c.id = in_call and c.tenant_id = acting_line();
  if not found then
    raise exception 'only the agent of the call may ask' using errcode = 'insufficient_privilege';
  end if;
  if phone is not null and proof is not null then
    update calls c set code_attempts = c.code_attempts + 1 where c.id = in_call and c.code_attempts < 5;
    if not found then
      raise exception 'too many codes were tried in this call' using errcode = 'PT429';
    end if;
  end if;
  insert into caller_proofs (call_id, appointment_id, tenant_id)
  select in_call, a.id, a.tenant_id from appointments a
  where a.tenant_id = this_call.tenant_id and a.status = 'booked' and a.starts_at > now()
    and (a.customer_phone = this_call.from_number or (a.customer_phone = phone and a.code = proof))
  on conflict do nothing;
  return query
    select a.id, a.service_name, s.name, a.customer_name, a.starts_at, a.starts_at at time zone t.timezone, a.revision
    from caller_proofs p
    join appointments a on a.id = p.appointment_id
    join tenants t on t.id = a.tenant_id
    left join staff s on s.id = a.staff_id
    where p.call_id = in_call and a.status = 'booked' and a.starts_at > now()
    order by a.starts_at
    limit 20;
end $$;

-- An appointment for a change, if whoever asks may change it: people of the tenant any, a caller those proved theirs.
create function appointment_to_change(appointment uuid, in_call uuid) returns appointments
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  found_one appointments;
  notice integer;
begin
  select * into found_one from appointments a where a.id = appointment for no key update;
  if has_role(found_one.tenant_id, 'AGENT') or (found and current_setting('role', true) = 'service_role') then
    return found_one;
  end if;
  if not exists (
    select from caller_proofs p where p.call_id = in_call and p.appointment_id = appointment and p.tenant_id = acting_line()
  ) then
    -- The same for one that does not exist.
    raise exception 'the appointment is not yours to change' using errcode = 'insufficient_privilege';
  end if;
  select b.cancel_notice_hours into notice from booking_settings b where b.tenant_id = found_one.tenant_id;
  if found_one.starts_at < now() + make_interval(hours => coalesce(notice, 0)) then
    raise exception 'appointments can be changed until % hours before', coalesce(notice, 0) using errcode = 'PT409';
  end if;
  return found_one;
end $$;

-- Gives the time back and keeps the record.
create function cancel_appointment(appointment uuid, why text default null, in_call uuid default null) returns appointments
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  changed appointments;
begin
  changed := appointment_to_change(appointment, in_call);
  if changed.status = 'cancelled' then
    return changed;
  end if;
  update appointments a
  set status = 'cancelled', held_until = null, cancelled_at = now(), cancel_reason = why, revision = a.revision + 1
  where a.id = appointment returning a.* into changed;
  return changed;
end $$;

-- Moves an appointment to another free slot; the old time is free in the same moment. If there is none, nothing changes.
create function reschedule_appointment(
  appointment uuid, begins timestamptz, person uuid default null, in_call uuid default null
) returns appointments
  language plpgsql security definer set search_path = receptionist, pg_temp set jit = off
  as $$
#variable_conflict use_column
declare
  changed appointments;
  candidate record;
begin
  -- The lock's order is the same everywhere: the tenant first.
  perform from tenants t where t.id = (select a.tenant_id from appointments a where a.id = appointment) for no key update;
  changed := appointment_to_change(appointment, in_call);
  if changed.status not in ('held', 'booked') then
    raise exception 'the appointment is %', changed.status using errcode = 'PT409';
  end if;
  for candidate in
    select f.staff_id, f.starts_at, f.ends_at
    from availability(
      changed.tenant_id, changed.service_id, slot_day(changed.tenant_id, begins), 1, person, 5000, appointment) f
    where f.starts_at = begins
    -- The person whom the customer knows, if that person is free.
    order by (f.staff_id is not distinct from changed.staff_id) desc, f.staff_name
    limit 1
  loop
    delete from appointments a
    where coalesce(a.staff_id, a.tenant_id) = coalesce(candidate.staff_id, changed.tenant_id)
      and a.status = 'held' and a.held_until <= now() and a.id <> appointment
      and tstzrange(a.starts_at, a.blocked_until)
          && tstzrange(candidate.starts_at, candidate.ends_at + (changed.blocked_until - changed.ends_at));
    update appointments a
    set staff_id = candidate.staff_id, starts_at = candidate.starts_at, ends_at = candidate.ends_at,
        blocked_until = candidate.ends_at + (a.blocked_until - a.ends_at), revision = a.revision + 1
    where a.id = appointment returning a.* into changed;
    return changed;
  end loop;
  raise exception 'that time is not free' using errcode = 'PT409';
end $$;

-- Makes the secret address of a calendar, which is told once and stored as its hash.
create function create_calendar_feed(tenant uuid, person uuid default null) returns text
  language plpgsql security definer set search_path = receptionist, pg_temp
  as $$
declare
  token text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
begin
  if not has_role(tenant, 'AGENT') then
    raise exception 'this takes the role AGENT in the tenant' using errcode = 'insufficient_privilege';
  end if;
  insert into calendar_feeds (tenant_id, staff_id, token_hash) values (tenant, person, sha256(token::bytea));
  return token;
end $$;

-- What a calendar's secret address shows: the last month and what is to come.
create function calendar_entries(token text)
  returns table (
    id uuid, tenant_name text, service_name text, staff_name text, customer_name text, customer_phone text, notes text,
    status text, starts_at timestamptz, ends_at timestamptz, revision integer, created_at timestamptz, updated_at timestamptz
  )
  language sql stable security definer set search_path = receptionist, pg_temp
  as $$
    select a.id, t.name, a.service_name, s.name, a.customer_name, a.customer_phone, a.notes, a.status::text,
      a.starts_at, a.ends_at, a.revision, a.created_at, a.updated_at
    from calendar_feeds f
    join tenants t on t.id = f.tenant_id
    left join appointments a on a.tenant_id = f.tenant_id and (f.staff_id is null or a.staff_id = f.staff_id)
      and a.status <> 'held' and a.ends_at > now() - interval '31 days'
    left join staff s on s.id = a.staff_id
    where f.token_hash = sha256(token::bytea)
    order by a.starts_at
    limit 5000
  $$;

alter table services enable row level security;
alter table business_hours enable row level security;
alter table holidays enable row level security;
alter table staff enable row level security;
alter table staff_schedules enable row level security;
alter table staff_services enable row level security;
alter table staff_time_off enable row level security;
alter table booking_settings enable row level security;
alter table appointments enable row level security;
alter table caller_proofs enable row level security;
alter table calendar_feeds enable row level security;

revoke all on services, business_hours, holidays, staff, staff_schedules, staff_services, staff_time_off, booking_settings,
  appointments, caller_proofs, calendar_feeds from anon, authenticated;
grant all on services, business_hours, holidays, staff, staff_schedules, staff_services, staff_time_off, booking_settings,
  appointments, caller_proofs, calendar_feeds to service_role;
grant select on services, business_hours, holidays, staff, staff_schedules, staff_services, staff_time_off,
  booking_settings, appointments to authenticated;
grant insert, update, delete on services, business_hours, holidays, staff, staff_schedules, staff_services,
  staff_time_off, booking_settings to authenticated;
grant update (customer_name, customer_phone, notes, status), delete on appointments to authenticated;
-- Never the hash of its token.
grant select (id, tenant_id, staff_id, created_by, created_at), delete on calendar_feeds to authenticated;

do $$
declare
  name text;
begin
  foreach name in array array['services', 'business_hours', 'holidays', 'staff', 'staff_schedules', 'staff_services',
    'staff_time_off', 'booking_settings'] loop
    execute format('create policy members_read on %I for select to authenticated using (has_role(tenant_id, ''VIEWER''))', name);
    execute format('create policy managers_insert on %I for insert to authenticated with check (has_role(tenant_id, ''MANAGER''))', name);
    execute format('create policy managers_update on %I for update to authenticated using (has_role(tenant_id, ''MANAGER''))
      with check (has_role(tenant_id, ''MANAGER''))', name);
    execute format('create policy managers_delete on %I for delete to authenticated using (has_role(tenant_id, ''MANAGER''))', name);
    -- What the voice agent tells callers.
    if name <> 'staff_time_off' then
      execute format('create policy line_reads on %I for select to receptionist_agent using (tenant_id = line_tenant())', name);
      execute format('grant select on %I to receptionist_agent', name);
    end if;
  end loop;
end $$;

create policy members_read on appointments for select to authenticated using (has_role(tenant_id, 'VIEWER'));
create policy agents_update on appointments for update to authenticated
  using (has_role(tenant_id, 'AGENT')) with check (has_role(tenant_id, 'AGENT'));
create policy managers_delete on appointments for delete to authenticated using (has_role(tenant_id, 'MANAGER'));
create policy agents_read on calendar_feeds for select to authenticated using (has_role(tenant_id, 'AGENT'));
create policy managers_delete on calendar_feeds for delete to authenticated using (has_role(tenant_id, 'MANAGER'));

revoke all on all functions in schema receptionist from public, anon;
grant execute on all functions in schema receptionist to service_role;
grant execute on function availability(uuid, uuid, date, integer, uuid, integer, uuid),
  hold_appointment(uuid, uuid, timestamptz, text, text, uuid, appointment_source, uuid, text),
  confirm_appointment(uuid, uuid), cancel_appointment(uuid, text, uuid),
  reschedule_appointment(uuid, timestamptz, uuid, uuid) to authenticated, receptionist_agent;
grant execute on function create_calendar_feed(uuid, uuid) to authenticated;
grant execute on function caller_appointments(uuid, text, text), calendar_entries(text) to receptionist_agent;
