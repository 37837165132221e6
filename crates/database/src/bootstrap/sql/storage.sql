-- Files: buckets and objects with Supabase's columns. Policies on storage.objects decide who may do what.
create table if not exists storage.buckets (
  id text primary key,
  name text not null,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  owner_id text
);
comment on column storage.buckets.owner is 'Deprecated in favour of owner_id.';
create unique index if not exists bname on storage.buckets (name);

create table if not exists storage.objects (
  id uuid primary key default gen_random_uuid(),
  bucket_id text constraint "objects_bucketId_fkey" references storage.buckets (id),
  name text,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  metadata jsonb,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  version text,
  owner_id text,
  user_metadata jsonb
);
comment on column storage.objects.owner is 'Deprecated in favour of owner_id.';
create unique index if not exists bucketid_objname on storage.objects (bucket_id, name);
create index if not exists name_prefix_search on storage.objects (name text_pattern_ops);

alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

create or replace function storage.foldername(name text) returns text[]
language sql immutable
as $$
  select parts[1:array_length(parts, 1) - 1] from string_to_array(name, '/') as parts
$$;
comment on function storage.foldername(text) is 'Folders of an object''s name: a/b/c.png gives {a,b}.';

create or replace function storage.filename(name text) returns text
language sql immutable
as $$
  select split_part(name, '/', -1)
$$;
comment on function storage.filename(text) is 'Last part of an object''s name: a/b/c.png gives c.png.';

create or replace function storage.extension(name text) returns text
language sql immutable
as $$
  select split_part(split_part(name, '/', -1), '.', -1)
$$;
comment on function storage.extension(text) is 'What follows the last dot of an object''s name: c.png gives png.';

grant all on storage.buckets, storage.objects to anon, authenticated, service_role, supabase_storage_admin, postgres;

do $storage$
declare
  owner constant name := current_setting('longhouse.owner');
begin
  -- Creating policies needs ownership, and projects' migrations create policies on storage.objects.
  if owner <> current_user then
    execute format('alter table storage.buckets owner to %I', owner);
    execute format('alter table storage.objects owner to %I', owner);
  end if;
end
$storage$;
