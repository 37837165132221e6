-- Long work that outlives its request: queued, leased to a server, tried again, cancelled, with progress to look at.
create table jobs (
  id uuid primary key,
  kind text not null constraint jobs_kind check (char_length(kind) between 1 and 64),
  app text not null default '',
  user_id uuid,
  tenant_id uuid,
  project_id uuid,
  input jsonb not null,
  state text not null default 'queued'
    constraint jobs_state check (state in ('queued', 'running', 'done', 'failed', 'cancelled')),
  -- From 0 to 1.
  progress real not null default 0 constraint jobs_progress check (progress between 0 and 1),
  message text not null default '' constraint jobs_message check (char_length(message) <= 500),
  result jsonb,
  error text,
  attempts integer not null default 0,
  max_attempts integer not null default 3 constraint jobs_max_attempts check (max_attempts between 1 and 20),
  -- Not before.
  run_at timestamptz not null default now(),
  -- Which server works on it, and until when the others believe it.
  worker uuid,
  lease_until timestamptz,
  cancel_requested boolean not null default false,
  idempotency_key text constraint jobs_idempotency_key check (char_length(idempotency_key) <= 200),
  created_at timestamptz not null default now(),
  started_at timestamptz,
  ended_at timestamptz
);
comment on table jobs is 'Long work: what it is, how far it is, what became of it.';
create index jobs_due on jobs (run_at) where state = 'queued';
create index jobs_leased on jobs (lease_until) where state = 'running';
create index jobs_user on jobs (user_id, created_at desc) where user_id is not null;
create index jobs_ended on jobs (ended_at) where ended_at is not null;
create unique index jobs_once on jobs (
  app, coalesce(user_id, '00000000-0000-0000-0000-000000000000'), kind, idempotency_key
) where idempotency_key is not null;

alter table jobs enable row level security;
grant select, insert, update, delete on jobs to ai_gateway;
grant select on jobs to authenticated, service_role;
create policy gateway on jobs for all to ai_gateway using (true) with check (true);
create policy own_jobs on jobs for select to authenticated using (user_id = (select auth.uid()));
