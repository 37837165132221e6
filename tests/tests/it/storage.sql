-- Everybody has a folder of their own in `people`.
insert into storage.buckets (id, name, public) values ('people', 'people', false);
create policy own_folder on storage.objects for all to authenticated
  using (bucket_id = 'people' and (storage.foldername(name))[1] = auth.uid()::text)
  with check (bucket_id = 'people' and (storage.foldername(name))[1] = auth.uid()::text);
