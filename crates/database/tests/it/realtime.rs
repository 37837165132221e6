//! Schema `realtime` as projects, their triggers and their dumps use it.

use longhouse_database::tokio_postgres::Client;

use crate::bootstrap::{connect, database, refused};

const ADA: &str = r#"{"sub": "00000000-0000-0000-0000-00000000000a", "role": "authenticated"}"#;

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn the_database_sends_messages_and_policies_decide_for_users() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    owner
        .batch_execute(
            r#"create policy rooms on realtime.messages to authenticated
                 using (realtime.topic() = 'room:1') with check (realtime.topic() = 'room:1');
               select realtime.send('{"text": "hi"}', 'greeting', 'room:1');
               select realtime.send('{"id": "mine"}', 'said', 'room:2', false);
               select realtime.send_binary('\x00ff', 'bytes', 'room:1');"#,
        )
        .await
        .unwrap();
    let sent = "select string_agg(concat_ws(' ', event, topic, extension, private, payload ->> 'text',
                  payload ->> 'id' = id::text, encode(binary_payload, 'hex')), ', ' order by event)
                from realtime.messages";
    assert_eq!(
        text(&owner, sent).await,
        "bytes room:1 broadcast t 00ff, greeting room:1 broadcast t hi t, said room:2 broadcast f f"
    );

    let api = connect(&database.authenticator_url).await;
    api.batch_execute(&format!("set role authenticated; set request.jwt.claims = '{ADA}'")).await.unwrap();
    let seen = "select count(*)::text from realtime.messages";
    assert_eq!(text(&api, seen).await, "0", "no topic is being read");
    api.batch_execute("set realtime.topic = 'room:1'").await.unwrap();
    assert_eq!(text(&api, seen).await, "3", "this policy speaks of the topic alone");
    // What the policy forbids is a warning, not an error: the transaction that tells of something goes on.
    api.batch_execute(
        "begin; select realtime.send('{}', 'x', 'room:1'); select realtime.send('{}', 'x', 'room:3'); commit",
    )
    .await
    .unwrap();
    let topics = "select string_agg(topic, ' ') from realtime.messages where event = 'x'";
    assert_eq!(text(&owner, topics).await, "room:1");
    let (code, _) = refused(&api, "delete from realtime.messages").await;
    assert_eq!(code, "42501");
    let (code, _) = refused(&api, "select * from realtime.maintain_messages()").await;
    assert_eq!(code, "42501");
    api.batch_execute("set role anon").await.unwrap();
    assert_eq!(text(&api, seen).await, "0");
}

#[tokio::test]
async fn a_trigger_broadcasts_the_changes_of_rows() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    owner
        .batch_execute(
            "create table notes (id int primary key, body text);
             create function tell() returns trigger security definer language plpgsql as $$ begin
               perform realtime.broadcast_changes('notes:' || coalesce(new.id, old.id), tg_op, tg_op,
                 tg_table_name, tg_table_schema, new, old);
               return null;
             end $$;
             create trigger tell after insert or update or delete on notes for each row execute function tell();
             insert into notes values (1, 'a'); update notes set body = 'b'; delete from notes;",
        )
        .await
        .unwrap();
    let told = "select string_agg(concat_ws(' ', topic, event, payload ->> 'operation', payload ->> 'schema',
                  payload ->> 'table', payload -> 'record' ->> 'body', payload -> 'old_record' ->> 'body'), ', '
                  order by inserted_at, event) from realtime.messages";
    assert_eq!(
        text(&owner, told).await,
        "notes:1 DELETE DELETE public notes b, notes:1 INSERT INSERT public notes a, \
         notes:1 UPDATE UPDATE public notes b a"
    );
    let (_, message) = refused(
        &owner,
        "select realtime.broadcast_changes('t', 'e', 'TRUNCATE', 'notes', 'public', null::notes, null::notes)",
    )
    .await;
    assert!(message.contains("TRUNCATE"), "{message}");
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_after_three_days() {
    let database = database().await;
    let superuser = connect(&database.superuser_url).await;
    let owner = connect(&database.owner_url).await;
    let days = "select string_agg(((regexp_match(c.relname, '\\d.*'))[1]::text), ' ' order by relname)
                from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'realtime.messages'::regclass";
    let expected =
        "select string_agg(to_char((now() at time zone 'utc')::date + i, 'YYYY_MM_DD'), ' ' order by i)
                    from generate_series(-1, 3) i";
    assert_eq!(text(&owner, days).await, text(&owner, expected).await);
    owner
        .batch_execute(
            "do $$ declare day date := (now() at time zone 'utc')::date - 4; begin
               execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
                 'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
               execute format('drop table realtime.%I', 'messages_' || to_char(day + 7, 'YYYY_MM_DD'));
             end $$",
        )
        .await
        .unwrap();
    let api = connect(&database.authenticator_url).await;
    api.batch_execute("set role service_role").await.unwrap();
    let maintained = "select concat_ws(' ', made, dropped) from realtime.maintain_messages()";
    assert_eq!(text(&api, maintained).await, "1 1");
    assert_eq!(text(&api, maintained).await, "0 0");
    assert_eq!(text(&owner, days).await, text(&owner, expected).await);
    let owners = "select string_agg(distinct pg_get_userbyid(relowner)::text, ' ') from pg_class
                  where relnamespace = 'realtime'::regnamespace and relkind in ('r', 'p')";
    assert_eq!(text(&superuser, owners).await, "postgres");
}

#[tokio::test]
async fn what_dumps_of_projects_say_of_realtime_works() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    owner
        .batch_execute(
            r#"create table public.notes (id int primary key);
               alter publication supabase_realtime owner to postgres;
               alter publication supabase_realtime add table only public.notes;
               alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');
               create policy "members read" on realtime.messages for select to authenticated
                 using ((extension = any (array['broadcast'::text, 'presence'::text])) and (topic = realtime.topic()));
               alter table realtime.messages enable row level security;
               grant usage on schema realtime to supabase_realtime_admin;
               grant all on table realtime.messages to supabase_realtime_admin;
               alter publication supabase_realtime drop table public.notes;"#,
        )
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    // As restored by a superuser, with what Supabase's own dumps say of owners.
    let superuser = connect(&database.superuser_url).await;
    superuser
        .batch_execute(
            "alter table realtime.messages owner to supabase_realtime_admin;
             alter function realtime.topic() owner to supabase_realtime_admin",
        )
        .await
        .unwrap();
    // The owner is a member of that role, so its migrations go on working.
    owner.batch_execute("create policy later on realtime.messages to anon using (false)").await.unwrap();
}
