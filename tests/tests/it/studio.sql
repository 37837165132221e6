-- A small shop: a table under policies, one that somebody forgot to protect, and one that shows nobody anything.
create table public.notes (
  id bigint generated always as identity primary key,
  owner uuid not null references auth.users (id) on delete cascade,
  text text not null,
  tags text[] not null default '{}',
  created_at timestamptz not null default now()
);
comment on table public.notes is 'What people write down, each for themselves.';
create index notes_of_owner on public.notes (owner);
alter table public.notes enable row level security;
create policy "people read their notes" on public.notes for select to authenticated using (auth.uid() = owner);
create policy "people write their notes" on public.notes for insert to authenticated with check (auth.uid() = owner);

create table public.prices (item text primary key, cents integer not null check (cents >= 0));
insert into public.prices select 'item ' || n, n * 100 from generate_series(1, 120) n;

create table public.drafts (id uuid primary key default gen_random_uuid(), body jsonb);
alter table public.drafts enable row level security;

insert into storage.buckets (id, name, public) values ('avatars', 'avatars', true);
