-- What the auth service keeps besides Supabase's tables: mail on its way, signing keys, API keys, recovery codes.
create table if not exists longhouse.mail_outbox (
  id bigint generated always as identity primary key,
  kind text not null,
  user_id uuid,
  recipient text not null,
  variables jsonb not null,
  created_at timestamptz not null default now(),
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  sent_at timestamptz,
  error text
);
comment on table longhouse.mail_outbox is 'Mail to send and, for a while, mail that was sent.';
create index if not exists mail_outbox_waiting on longhouse.mail_outbox (next_attempt_at) where sent_at is null;
create index if not exists mail_outbox_created_at on longhouse.mail_outbox (created_at);

create table if not exists longhouse.signing_keys (
  id uuid primary key default gen_random_uuid(),
  algorithm text not null check (algorithm in ('HS256', 'ES256', 'RS256')),
  status text not null check (status in ('standby', 'current', 'previous', 'revoked')),
  sealed_key bytea not null,
  public_jwk jsonb,
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now()
);
comment on table longhouse.signing_keys is 'Keys of access tokens; the private part is encrypted.';
create unique index if not exists signing_keys_current on longhouse.signing_keys (status) where status = 'current';
create unique index if not exists signing_keys_standby on longhouse.signing_keys (status) where status = 'standby';

create table if not exists longhouse.api_keys (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  kind text not null check (kind in ('publishable', 'secret')),
  -- The first characters, to tell keys apart.
  prefix text not null,
  hash bytea not null unique,
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  revoked_at timestamptz
);
comment on table longhouse.api_keys is 'Hashes of opaque API keys; the keys themselves are shown once.';

create table if not exists longhouse.mfa_recovery_codes (
  user_id uuid not null references auth.users (id) on delete cascade,
  hash bytea not null,
  used_at timestamptz,
  primary key (user_id, hash)
);
comment on table longhouse.mfa_recovery_codes is 'Hashes of the codes that stand in for a lost second factor, each valid once.';

do $auth_service$
declare
  owner constant name := current_setting('longhouse.owner');
begin
  grant usage on schema longhouse to supabase_auth_admin;
  grant select, insert, update, delete on longhouse.mail_outbox, longhouse.signing_keys, longhouse.api_keys,
    longhouse.mfa_recovery_codes to supabase_auth_admin;
  if owner <> current_user then
    execute format('grant select on longhouse.mail_outbox, longhouse.api_keys to %I', owner);
  end if;
end
$auth_service$;
