-- What realtime reads and writes: the publication of tables whose changes clients may follow, and messages that the
-- database sends to channels. Policies on realtime.messages decide who may join private channels and write to them.

-- Dumps of Supabase projects name it; the project's owner works as it.
do $role$
declare
  owner constant name := current_setting('longhouse.owner');
begin
  if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
    begin
      create role supabase_realtime_admin nologin noinherit;
    exception when insufficient_privilege then
      raise notice 'the role supabase_realtime_admin needs a superuser; only dumps name it';
    end;
  end if;
  if exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
    if current_setting('longhouse.superuser')::boolean and owner <> current_user
      and not pg_has_role(owner, 'supabase_realtime_admin', 'member') then
      execute format('grant supabase_realtime_admin to %I with admin option', owner);
    end if;
    begin
      grant usage, create on schema realtime to supabase_realtime_admin;
    exception when insufficient_privilege then null;
    end;
  end if;
end
$role$;

create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp without time zone not null default (now() at time zone 'utc'),
  inserted_at timestamp without time zone not null default (now() at time zone 'utc'),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
comment on table realtime.messages is
  'Messages that the database sent to channels, kept for three days. Its policies decide who may use private channels.';
create index if not exists messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private is true;
alter table realtime.messages enable row level security;

create or replace function realtime.topic() returns text
language sql stable
as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;
comment on function realtime.topic() is 'The channel that is being joined, read or written, for policies on realtime.messages.';

-- A message that cannot be sent must not undo the transaction that it tells of.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void
language plpgsql
as $$
declare
  message_id constant uuid := gen_random_uuid();
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (id, payload, event, topic, private, extension)
  values (
    message_id,
    case when jsonb_typeof(payload) = 'object' and not payload ? 'id'
      then payload || jsonb_build_object('id', message_id) else payload end,
    event, topic, private, 'broadcast'
  );
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;
comment on function realtime.send(jsonb, text, text, boolean) is
  'Broadcasts a message to a channel when the transaction commits. Row-level security of realtime.messages applies.';

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
returns void
language plpgsql
as $$
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (binary_payload, event, topic, private, extension)
  values (payload, event, topic, private, 'broadcast');
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;
comment on function realtime.send_binary(bytea, text, text, boolean) is 'As realtime.send, for bytes.';

-- For triggers: tells a channel of a row's change.
create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void
language plpgsql
as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'operation must be INSERT, UPDATE or DELETE, not %', operation;
  end if;
  perform realtime.send(
    jsonb_build_object(
      'old_record', old, 'record', new, 'operation', operation, 'table', table_name, 'schema', table_schema
    ),
    event_name, topic_name
  );
end
$$;
comment on function realtime.broadcast_changes(text, text, text, text, text, record, record, text) is
  'Broadcasts a row''s change to a private channel; called by a trigger for each row.';

-- Makes the partitions of the coming days and drops those that are past keeping. Run every hour by the server.
create or replace function realtime.maintain_messages(keep_days integer default 3, ahead_days integer default 3)
returns table (made integer, dropped integer)
language plpgsql security definer
set search_path = pg_catalog
set lock_timeout = '5s'
as $$
declare
  today constant date := (now() at time zone 'utc')::date;
  day date;
  partition record;
begin
  made := 0;
  dropped := 0;
  perform pg_advisory_xact_lock(hashtext('realtime.maintain_messages'));
  -- From yesterday on: the column has no time zone, and a dump may set its default back to the session's time.
  for day in select today + i from generate_series(-1, greatest(ahead_days, 1)) i loop
    continue when to_regclass(format('realtime.messages_%s', to_char(day, 'YYYY_MM_DD'))) is not null;
    execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
      'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
    execute format('alter table realtime.%I enable row level security', 'messages_' || to_char(day, 'YYYY_MM_DD'));
    made := made + 1;
  end loop;
  for partition in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
      and c.relname < 'messages_' || to_char(today - greatest(keep_days, 1), 'YYYY_MM_DD')
  loop
    execute format('drop table realtime.%I', partition.relname);
    dropped := dropped + 1;
  end loop;
  return next;
end
$$;
comment on function realtime.maintain_messages(integer, integer) is
  'Makes the partitions of realtime.messages for the coming days and drops those older than keep_days.';

grant select, insert, update on realtime.messages to anon, authenticated, service_role, postgres, dashboard_user;
revoke execute on function realtime.maintain_messages(integer, integer) from public;
grant execute on function realtime.maintain_messages(integer, integer) to service_role, postgres;

do $realtime$
declare
  owner constant name := current_setting('longhouse.owner');
  routine regprocedure;
begin
  -- Creating policies needs ownership, and projects' migrations create policies on realtime.messages.
  if owner <> current_user then
    execute format('alter table realtime.messages owner to %I', owner);
    for routine in select p.oid from pg_proc p where p.pronamespace = 'realtime'::regnamespace
      and p.proname in ('topic', 'send', 'send_binary', 'broadcast_changes', 'maintain_messages') loop
      execute format('alter function %s owner to %I', routine, owner);
    end loop;
  end if;
  perform realtime.maintain_messages();

  -- Projects add their tables with `alter publication supabase_realtime add table …`.
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  if not exists (select from pg_publication where pubname = 'supabase_realtime_messages_publication') then
    create publication supabase_realtime_messages_publication for table realtime.messages
      with (publish = 'insert', publish_via_partition_root = true);
  end if;
  if owner <> current_user then
    execute format('alter publication supabase_realtime owner to %I', owner);
    execute format('alter publication supabase_realtime_messages_publication owner to %I', owner);
  end if;
end
$realtime$;
