-- Tables whose changes clients may follow; projects add theirs with `alter publication … add table`.
do $realtime$
declare
  owner constant name := current_setting('longhouse.owner');
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  if owner <> current_user then
    execute format('alter publication supabase_realtime owner to %I', owner);
  end if;
end
$realtime$;
