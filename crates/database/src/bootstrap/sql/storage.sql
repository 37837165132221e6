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

create or replace function storage.operation() returns text
language sql stable
as $$
  select current_setting('storage.operation', true)
$$;
comment on function storage.operation() is 'Which request runs, for policies: storage.object.upload, storage.object.list, ….';

-- The kind of a bucket; this server makes the first only.
do $kind$
begin
  create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');
exception when duplicate_object then null;
end
$kind$;
alter table storage.buckets add column if not exists type storage.buckettype not null default 'STANDARD';

create index if not exists idx_objects_bucket_id_name on storage.objects (bucket_id, name collate "C");
create index if not exists idx_objects_bucket_id_name_lower
  on storage.objects (bucket_id, (lower(name)) collate "C", name collate "C");
create index if not exists objects_version on storage.objects (version) where version is not null;

create or replace function storage.update_updated_at_column() returns trigger
language plpgsql
as $$
begin
  new.updated_at := now();
  return new;
end
$$;
drop trigger if exists update_objects_updated_at on storage.objects;
create trigger update_objects_updated_at before update on storage.objects
  for each row execute function storage.update_updated_at_column();

-- Bytes without a row: `pending` while an upload runs, `condemned` once their row is gone. Bytes with a row are not
-- listed here, so that the table stays as small as the work at hand.
create table if not exists storage.blobs (
  version text primary key,
  state text not null constraint blobs_state check (state in ('pending', 'condemned')),
  created_at timestamptz not null default now(),
  -- A running upload moves it forward; a condemned blob keeps the time at which it lost its row.
  touched_at timestamptz not null default now()
);
create index if not exists blobs_due on storage.blobs (state, touched_at);
comment on table storage.blobs is 'Ledger of bytes that no object refers to: uploads in progress, and what the sweeper will delete.';
alter table storage.blobs enable row level security;
revoke all on storage.blobs from public, anon, authenticated;
grant select, insert, update, delete on storage.blobs to service_role;

-- Runs as its owner: whoever changes an object, by request, SQL or cascade, the ledger follows.
create or replace function storage.follow_blob() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op <> 'INSERT' and old.version is not null then
    insert into storage.blobs (version, state) values (old.version, 'condemned')
      on conflict (version) do update set state = 'condemned', touched_at = now();
  end if;
  if tg_op <> 'DELETE' and new.version is not null then
    delete from storage.blobs where version = new.version;
    if not found and current_setting('longhouse.blob', true) = new.version then
      raise exception 'the bytes of this upload were given up before it ended'
        using errcode = 'LH410', hint = 'Upload the file again.';
    end if;
  end if;
  return null;
end
$$;
revoke all on function storage.follow_blob() from public;
drop trigger if exists follow_blob on storage.objects;
create trigger follow_blob after insert or delete on storage.objects
  for each row execute function storage.follow_blob();
drop trigger if exists follow_blob_update on storage.objects;
create trigger follow_blob_update after update of version on storage.objects
  for each row when (old.version is distinct from new.version)
  execute function storage.follow_blob();

-- Uploads in pieces, on their way: by TUS and by S3. Each piece is a blob of its own, which the ledger follows as it
-- follows objects; when all are there they become one blob with a row in storage.objects, and go.
create table if not exists storage.resumable_uploads (
  id uuid primary key,
  bucket_id text not null references storage.buckets (id) on delete cascade,
  name text not null,
  upsert boolean not null,
  owner_id text,
  mimetype text not null,
  cache_control text not null,
  user_metadata jsonb,
  -- Upload-Metadata as it came, to be told again.
  upload_metadata text,
  -- Unset while the client does not know it.
  length bigint constraint resumable_uploads_length check (length >= 0),
  received bigint not null default 0
    constraint resumable_uploads_received check (received >= 0 and (length is null or received <= length)),
  -- Counts writers: only the newest may add, so that a new connection takes over from one that hangs.
  writer bigint not null default 0,
  -- While somebody joins the pieces, until when the others believe it.
  joining_until timestamptz,
  -- The blob that the pieces became, written down before it gets its row.
  joined_version text,
  completed_at timestamptz,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null default now() + interval '24 hours'
);
create index if not exists resumable_uploads_due on storage.resumable_uploads (expires_at);
create index if not exists resumable_uploads_bucket on storage.resumable_uploads (bucket_id);
comment on table storage.resumable_uploads is 'Uploads by TUS that are on their way, or ended less than a day ago.';

create table if not exists storage.resumable_upload_parts (
  upload_id uuid not null references storage.resumable_uploads (id) on delete cascade,
  start bigint not null,
  size bigint not null,
  version text not null,
  primary key (upload_id, start)
);
comment on table storage.resumable_upload_parts is 'Pieces of an upload by TUS; version names the blob.';

create table if not exists storage.s3_multipart_uploads (
  id text primary key,
  in_progress_size bigint not null default 0,
  upload_signature text not null,
  bucket_id text not null references storage.buckets (id) on delete cascade,
  key text not null collate "C",
  version text not null,
  owner_id text,
  created_at timestamptz not null default now(),
  user_metadata jsonb,
  metadata jsonb
);
create index if not exists idx_multipart_uploads_list on storage.s3_multipart_uploads (bucket_id, key, created_at);
comment on table storage.s3_multipart_uploads is 'Multipart uploads by S3 that are on their way.';

create table if not exists storage.s3_multipart_uploads_parts (
  id uuid primary key default gen_random_uuid(),
  upload_id text not null references storage.s3_multipart_uploads (id) on delete cascade,
  size bigint not null default 0,
  part_number int not null,
  bucket_id text not null references storage.buckets (id) on delete cascade,
  key text not null collate "C",
  etag text not null,
  owner_id text,
  version text not null,
  created_at timestamptz not null default now()
);
create unique index if not exists s3_multipart_uploads_parts_number
  on storage.s3_multipart_uploads_parts (upload_id, part_number);
create index if not exists s3_multipart_uploads_parts_bucket on storage.s3_multipart_uploads_parts (bucket_id);
comment on table storage.s3_multipart_uploads_parts is 'Parts of multipart uploads by S3; version names the blob.';

do $pieces$
declare
  pieces text;
begin
  foreach pieces in array array['resumable_upload_parts', 's3_multipart_uploads_parts'] loop
    execute format('drop trigger if exists follow_blob on storage.%I', pieces);
    execute format('create trigger follow_blob after insert or delete on storage.%I
      for each row execute function storage.follow_blob()', pieces);
    execute format('drop trigger if exists follow_blob_update on storage.%I', pieces);
    execute format('create trigger follow_blob_update after update of version on storage.%I
      for each row when (old.version is distinct from new.version)
      execute function storage.follow_blob()', pieces);
  end loop;
end
$pieces$;

alter table storage.resumable_uploads enable row level security;
alter table storage.resumable_upload_parts enable row level security;
alter table storage.s3_multipart_uploads enable row level security;
alter table storage.s3_multipart_uploads_parts enable row level security;
revoke all on storage.resumable_uploads, storage.resumable_upload_parts, storage.s3_multipart_uploads,
  storage.s3_multipart_uploads_parts from public, anon, authenticated;
grant select, insert, update, delete on storage.resumable_uploads, storage.resumable_upload_parts,
  storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to service_role;

-- One level of a bucket in the order of names: what lies deeper counts once, as its folder (with the delimiter at its
-- end and without an id). Each step is one look into the index, so a folder of a million objects costs as much as one.
create or replace function storage.list_objects_with_delimiter(
  _bucket_id text,
  prefix_param text,
  delimiter_param text,
  max_keys int default 100,
  start_after text default '',
  next_token text default '',
  sort_order text default 'asc'
) returns table (
  name text, id uuid, metadata jsonb, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
  -- Sorts after every name that begins with what it is appended to.
  beyond constant text := chr(1114111);
  beginning constant text := coalesce(prefix_param, '');
  delimiter constant text := coalesce(delimiter_param, '');
  descending constant boolean := lower(coalesce(sort_order, 'asc')) = 'desc';
  after text := coalesce(nullif(next_token, ''), nullif(start_after, ''));
  low text := beginning;
  high text := beginning || beyond;
  place int;
  found_one record;
  remaining int := least(coalesce(max_keys, 100), 1501);
begin
  if after is not null and not descending and after >= low collate "C" then
    -- From a folder, its content is behind us.
    low := after || case when delimiter <> '' and right(after, length(delimiter)) = delimiter
      and position(delimiter in substr(after, length(beginning) + 1)) > 0 then beyond else chr(1) end;
  elsif after is not null and descending and after < high collate "C" then
    high := after;
  end if;
  while remaining > 0 loop
    if descending then
      select o.name, o.id, o.metadata, o.updated_at, o.created_at, o.last_accessed_at into found_one
        from storage.objects o
        where o.bucket_id = _bucket_id and o.name collate "C" >= low and o.name collate "C" < high
        order by o.name collate "C" desc limit 1;
    else
      select o.name, o.id, o.metadata, o.updated_at, o.created_at, o.last_accessed_at into found_one
        from storage.objects o
        where o.bucket_id = _bucket_id and o.name collate "C" >= low and o.name collate "C" < high
        order by o.name collate "C" limit 1;
    end if;
    exit when not found;
    place := case when delimiter = '' then 0
      else position(delimiter in substr(found_one.name, length(beginning) + 1)) end;
    if place > 0 then
      name := left(found_one.name, length(beginning) + place + length(delimiter) - 1);
      id := null; metadata := null; updated_at := null; created_at := null; last_accessed_at := null;
      low := case when descending then low else name || beyond end;
      high := case when descending then name else high end;
    else
      name := found_one.name;
      id := found_one.id;
      metadata := found_one.metadata;
      updated_at := found_one.updated_at;
      created_at := found_one.created_at;
      last_accessed_at := found_one.last_accessed_at;
      low := case when descending then low else name || chr(1) end;
      high := case when descending then name else high end;
    end if;
    return next;
    remaining := remaining - 1;
  end loop;
end
$$;

-- What `list` of the first version shows: names relative to the prefix, in any case, by any of four columns.
create or replace function storage.search(
  prefix text,
  bucketname text,
  limits int default 100,
  levels int default 1,
  offsets int default 0,
  search text default '',
  sortcolumn text default 'name',
  sortorder text default 'asc'
) returns table (
  name text, id uuid, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz, metadata jsonb
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
  beyond constant text := chr(1114111);
  folder constant text := coalesce(prefix, '');
  beginning constant text := folder || coalesce(search, '');
  start constant text := lower(beginning);
  descending constant boolean := lower(coalesce(sortorder, 'asc')) = 'desc';
  low text := start;
  low_name text := '';
  high text := start || beyond;
  high_name text := '';
  place int;
  passed int := 0;
  remaining int := least(coalesce(limits, 100), 1500);
  found_one record;
begin
  if coalesce(sortcolumn, 'name') in ('updated_at', 'created_at', 'last_accessed_at') then
    return query
      with matching as (
        select o.name, o.id, o.updated_at, o.created_at, o.last_accessed_at, o.metadata,
          position('/' in substr(o.name, length(beginning) + 1)) as place
        from storage.objects o
        where o.bucket_id = bucketname
          and (lower(o.name)) collate "C" >= low and (lower(o.name)) collate "C" < high
      ), entries as (
        select substr(left(min(m.name), length(beginning) + min(m.place) - 1), length(folder) + 1) as name,
          null::uuid as id, null::timestamptz as updated_at, null::timestamptz as created_at,
          null::timestamptz as last_accessed_at, null::jsonb as metadata, true as is_folder,
          null::timestamptz as moment
        from matching m where m.place > 0
        group by lower(left(m.name, length(beginning) + m.place))
        union all
        select substr(m.name, length(folder) + 1), m.id, m.updated_at, m.created_at, m.last_accessed_at, m.metadata,
          false, case sortcolumn when 'updated_at' then m.updated_at when 'created_at' then m.created_at
            else m.last_accessed_at end
        from matching m where m.place = 0
      )
      select e.name, e.id, e.updated_at, e.created_at, e.last_accessed_at, e.metadata
      from entries e
      order by e.is_folder desc,
        case when descending then e.moment end desc, case when not descending then e.moment end,
        case when descending then e.name end collate "C" desc, e.name collate "C"
      limit remaining offset greatest(coalesce(offsets, 0), 0);
    return;
  end if;
  while remaining > 0 loop
    if descending then
      select o.name, o.id, o.updated_at, o.created_at, o.last_accessed_at, o.metadata into found_one
        from storage.objects o
        where o.bucket_id = bucketname and (lower(o.name)) collate "C" >= start
          and ((lower(o.name)) collate "C", o.name collate "C") < (high, high_name)
        order by (lower(o.name)) collate "C" desc, o.name collate "C" desc limit 1;
    else
      select o.name, o.id, o.updated_at, o.created_at, o.last_accessed_at, o.metadata into found_one
        from storage.objects o
        where o.bucket_id = bucketname and (lower(o.name)) collate "C" < high
          and ((lower(o.name)) collate "C", o.name collate "C") > (low, low_name)
        order by (lower(o.name)) collate "C", o.name collate "C" limit 1;
    end if;
    exit when not found;
    place := position('/' in substr(found_one.name, length(beginning) + 1));
    if place > 0 then
      high := lower(left(found_one.name, length(beginning) + place));
      low := high || beyond;
      low_name := '';
      high_name := '';
    else
      low := lower(found_one.name);
      high := low;
      low_name := found_one.name;
      high_name := found_one.name;
    end if;
    -- Only one end moves: the other keeps the prefix.
    if descending then low := start; else high := start || beyond; end if;
    if passed < coalesce(offsets, 0) then
      passed := passed + 1;
      continue;
    end if;
    if place > 0 then
      name := substr(left(found_one.name, length(beginning) + place - 1), length(folder) + 1);
      id := null; updated_at := null; created_at := null; last_accessed_at := null; metadata := null;
    else
      name := substr(found_one.name, length(folder) + 1);
      id := found_one.id;
      updated_at := found_one.updated_at;
      created_at := found_one.created_at;
      last_accessed_at := found_one.last_accessed_at;
      metadata := found_one.metadata;
    end if;
    return next;
    remaining := remaining - 1;
  end loop;
end
$$;

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
