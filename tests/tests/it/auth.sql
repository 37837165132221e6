-- A diary as its developer would write it: everybody sees their own pages, sealed ones only with a second factor.
create table public.entries (
  id bigint generated always as identity primary key,
  owner uuid not null default auth.uid() references auth.users on delete cascade,
  text text not null,
  sealed boolean not null default false
);
create index on public.entries (owner);

alter table public.entries enable row level security;

create policy "people keep their own diary" on public.entries to authenticated
  using (owner = (select auth.uid())) with check (owner = (select auth.uid()));
create policy "sealed pages need a second factor" on public.entries as restrictive to authenticated
  using (not sealed or (select auth.jwt() ->> 'aal') = 'aal2');
