-- Keys that people, tenants and projects bring themselves. The secret is sealed with a data key of its own, and that
-- with the server's master key, which is not in the database. Nobody but the gateway's role can read either.
create table keys (
  id uuid primary key default gen_random_uuid(),
  provider text not null constraint keys_provider check (char_length(provider) between 1 and 64),
  -- Empty: for every application.
  app text not null default '' constraint keys_app check (char_length(app) <= 64),
  user_id uuid,
  tenant_id uuid,
  project_id uuid,
  name text not null default '' constraint keys_name check (char_length(name) <= 200),
  masked text not null,
  base_url text,
  ciphertext bytea not null,
  wrapped_key bytea not null,
  -- Which master key wrapped the data key.
  master_key text not null,
  created_at timestamptz not null default now(),
  tested_at timestamptz,
  -- `ok`, or why the provider refused it.
  test_result text,
  constraint keys_one_owner check (num_nonnulls(user_id, tenant_id, project_id) = 1)
);
comment on table keys is 'Keys of providers that people bring themselves, sealed.';
create unique index keys_owner on keys (
  provider, app,
  coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
  coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'),
  coalesce(project_id, '00000000-0000-0000-0000-000000000000')
);
create index keys_user on keys (user_id) where user_id is not null;
create index keys_master_key on keys (master_key);

alter table keys enable row level security;
grant select, insert, update, delete on keys to ai_gateway;
-- Column by column: what is not named here, no request can read, not even with the service role's key.
grant select (id, provider, app, user_id, tenant_id, project_id, name, masked, base_url, created_at, tested_at, test_result)
  on keys to authenticated, service_role;
grant delete on keys to authenticated, service_role;
create policy gateway on keys for all to ai_gateway using (true) with check (true);
create policy own_keys on keys for select to authenticated using (user_id = (select auth.uid()));
create policy drop_own_keys on keys for delete to authenticated using (user_id = (select auth.uid()));
