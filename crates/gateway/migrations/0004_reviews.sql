-- What the safety rules blocked or doubted, for a person to look at.
create table reviews (
  id uuid primary key default gen_random_uuid(),
  call_id uuid not null,
  created_at timestamptz not null default now(),
  task text not null,
  app text not null default '',
  user_id uuid,
  tenant_id uuid,
  project_id uuid,
  -- What a user wrote, or what a model answered.
  subject text not null constraint reviews_subject check (subject in ('request', 'answer')),
  -- What was done at once.
  action text not null constraint reviews_action check (action in ('review', 'block')),
  -- Category, layer, evidence and severity of each.
  findings jsonb not null,
  excerpt text not null constraint reviews_excerpt check (char_length(excerpt) <= 4000),
  state text not null default 'open' constraint reviews_state check (state in ('open', 'approved', 'rejected')),
  reviewed_at timestamptz,
  reviewed_by text,
  note text constraint reviews_note check (char_length(note) <= 4000)
);
comment on table reviews is 'The review queue: what safety rules blocked or doubted.';
create index reviews_open on reviews (created_at) where state = 'open';
create index reviews_user on reviews (user_id, created_at desc) where user_id is not null;

-- A decision carries its time.
create function note_review() returns trigger
language plpgsql set search_path = ''
as $$
begin
  if new.state <> old.state then
    new.reviewed_at := case when new.state = 'open' then null else now() end;
  end if;
  return new;
end
$$;
create trigger note_review before update on reviews for each row execute function note_review();

alter table reviews enable row level security;
grant insert on reviews to ai_gateway;
grant select, delete on reviews to service_role;
-- What happened is not rewritten; what is decided about it is.
grant update (state, reviewed_by, note) on reviews to service_role;
create policy gateway on reviews for insert to ai_gateway with check (true);
