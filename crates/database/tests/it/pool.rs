//! Acting as a role: who sees what, what is left behind, and what it costs.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use longhouse_database::batch::{Batch, Command};
use longhouse_database::cluster::{Cluster, ClusterOptions, Login, Port};
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Claims, Database, DatabaseOptions, Error, ServiceReason, connect_client};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::bootstrap::{connect, database};

fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 2, pool_timeout: Duration::from_secs(5), ca_file: None }
}

const NOTES: &str =
    "create table public.notes (id int primary key, owner uuid not null default auth.uid(), text text);
    alter table public.notes enable row level security;
    create policy own on public.notes using (owner = auth.uid()) with check (owner = auth.uid());";

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_their_own_rows_and_nothing_leaks_between_them() {
    let database = database().await;
    connect(&database.owner_url).await.batch_execute(NOTES).await.unwrap();
    let pool = Database::connect(&options(&database.authenticator_url)).await.unwrap();
    let (ann, bob) = (Claims::user(Uuid::new_v4()), Claims::user(Uuid::new_v4()));
    let insert = "insert into public.notes (id, text) values ($1, $2)";
    assert_eq!(pool.as_role(&ann).execute(insert, &[&1, &"ann's"]).await.unwrap(), 1);
    assert_eq!(pool.as_role(&bob).execute(insert, &[&2, &"bob's"]).await.unwrap(), 1);

    let select = "select text from public.notes order by id";
    let texts = async |claims: &Claims| -> Vec<String> {
        pool.as_role(claims).query(select, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    // The same prepared statement on the same two connections, over and over, as different people.
    for _ in 0..10 {
        assert_eq!(texts(&ann).await, ["ann's"]);
        assert_eq!(texts(&bob).await, ["bob's"]);
        assert!(texts(&Claims::anon()).await.is_empty());
    }
    let service = pool.as_service(ServiceReason::because("the test counts everybody's rows"));
    assert_eq!(service.query(select, &[]).await.unwrap().len(), 2);

    // A refused statement changes nothing and leaves the connection usable.
    let refused = pool.as_role(&ann).execute(insert, &[&1, &"again"]).await.unwrap_err();
    assert_eq!(refused.sql_state(), Some(&SqlState::UNIQUE_VIOLATION));
    assert!(refused.to_string().contains("23505") && !refused.is_transient());
    assert_eq!(texts(&ann).await, ["ann's"]);

    // Outside of a transaction a pooled connection is nobody.
    let unknown =
        pool.as_role(&Claims::agent("no_such_role", serde_json::Map::new())).query("select 1", &[]).await;
    assert!(unknown.is_err());
    let superuser = Claims::agent("supabase_admin", serde_json::Map::new());
    let escalated = pool.as_role(&superuser).query("select 1", &[]).await.unwrap_err();
    assert_eq!(escalated.sql_state(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_dropped_rolls_back_and_gives_its_connection_back() {
    let database = database().await;
    connect(&database.owner_url).await.batch_execute(NOTES).await.unwrap();
    let pool = Database::connect(&options(&database.authenticator_url)).await.unwrap();
    let ann = Claims::user(Uuid::new_v4());
    for id in 0..6 {
        let transaction = pool.as_role(&ann).transaction().await.unwrap();
        transaction.execute("insert into public.notes (id, text) values ($1, 'x')", &[&id]).await.unwrap();
        drop(transaction);
    }
    let transaction = pool.as_role(&ann).transaction().await.unwrap();
    assert!(transaction.query("select from public.notes", &[]).await.unwrap().is_empty());
    transaction.execute("insert into public.notes (id, text) values (7, 'kept')", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(pool.as_role(&ann).query("select from public.notes", &[]).await.unwrap().len(), 1);
    assert!(pool.pool_status().1 <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_under_prepared_statements_is_not_noticed() {
    let database = database().await;
    let owner = connect(&database.owner_url).await;
    owner.batch_execute(NOTES).await.unwrap();
    let pool = Database::connect(&options(&database.authenticator_url)).await.unwrap();
    let ann = Claims::user(Uuid::new_v4());
    let select = "select * from public.notes";
    for _ in 0..4 {
        pool.as_role(&ann).query(select, &[]).await.unwrap();
    }
    owner.batch_execute("alter table public.notes add column more text").await.unwrap();
    for _ in 0..4 {
        pool.as_role(&ann).query(select, &[]).await.unwrap();
    }
}

/// A proxy that delays every byte in both directions.
pub(crate) async fn slow_proxy(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(target).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(delayed(near_read, far_write, delay));
            tokio::spawn(delayed(far_read, near_write, delay));
        }
    });
    address
}

async fn delayed(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (queue, mut waiting) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = tokio::time::Instant::now() + delay;
            if queue.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = waiting.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[tokio::test(flavor = "multi_thread")]
async fn role_claims_statement_and_commit_take_one_round_trip() {
    let database = database().await;
    connect(&database.owner_url).await.batch_execute(NOTES).await.unwrap();
    let one_way = Duration::from_millis(60);
    let mut url = url::Url::parse(database.authenticator_url.expose_secret()).unwrap();
    let direct = SocketAddr::new(url.host_str().unwrap().parse().unwrap(), url.port().unwrap());
    let proxy = slow_proxy(direct, one_way).await;
    url.set_port(Some(proxy.port())).unwrap();
    let pool = Database::connect(&DatabaseOptions { pool_size: 1, ..options(&url.to_string().into()) })
        .await
        .unwrap();
    let ann = Claims::user(Uuid::new_v4());
    let select = "select text from public.notes where id = $1";
    pool.as_role(&ann).query(select, &[&1]).await.unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        pool.as_role(&ann).query(select, &[&1]).await.unwrap();
    }
    let each = started.elapsed() / 3;
    let round_trip = one_way * 2;
    assert!(each >= round_trip, "the proxy delays: {each:?}");
    assert!(each < round_trip * 3 / 2, "{each:?} is more than one round trip of {round_trip:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_an_error_that_says_so() {
    let nowhere = SecretString::from("postgres://a:b@127.0.0.1:1/postgres");
    let error = Database::connect(&options(&nowhere)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let nonsense = SecretString::from("postgres://user:hunter2@host:notaport/x");
    let error = Database::connect(&options(&nonsense)).await.unwrap_err();
    assert!(matches!(error, Error::Url(_)), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_follows_sslmode() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(ClusterOptions {
        port: Port::Preferred(0),
        ..ClusterOptions::new(folder.path().join("postgres"))
    })
    .await
    .unwrap();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let superuser = connect(&cluster.url(Login::Superuser)).await;
    let data: String = superuser.query_one("show data_directory", &[]).await.unwrap().get(0);
    let owner = std::fs::metadata(&data).unwrap();
    for (name, pem) in
        [("server.crt", certificate.cert.pem()), ("server.key", certificate.signing_key.serialize_pem())]
    {
        let path = format!("{data}/{name}");
        std::fs::write(&path, pem).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, certificate.cert.pem()).unwrap();
    superuser.batch_execute("alter system set ssl = on").await.unwrap();
    superuser.batch_execute("select pg_reload_conf()").await.unwrap();

    let password = cluster.password(Login::Superuser);
    let url = |mode: &str| -> SecretString {
        let secret = password.expose_secret();
        format!("postgres://supabase_admin:{secret}@localhost:{}/postgres?{mode}", cluster.port()).into()
    };
    let encrypted = async |mode: &str, ca_file| -> Result<bool, Error> {
        let client = connect_client(&DatabaseOptions { ca_file, ..options(&url(mode)) }).await?;
        let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await?;
        Ok(row.get(0))
    };
    // The reload takes a moment.
    for _ in 0..100 {
        if encrypted("sslmode=require", None).await.unwrap_or(false) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!encrypted("sslmode=disable", None).await.unwrap());
    assert!(encrypted("sslmode=prefer", None).await.unwrap());
    assert!(encrypted("sslmode=require", None).await.unwrap(), "encrypts without checking, as libpq does");
    assert!(encrypted("sslmode=verify-full", Some(authority)).await.unwrap());
    let unknown = encrypted("sslmode=verify-full", None).await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");

    // Batches speak TLS by themselves; the login is bound to the channel.
    let batches = async |mode: &str, ca_file| -> Result<Option<String>, Error> {
        let database = Database::connect(&DatabaseOptions { ca_file, ..options(&url(mode)) }).await?;
        let ask =
            [Command { sql: "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()", params: &[] }];
        let batch = Batch {
            begin: "begin",
            commands: &ask,
            prepared: true,
            end: longhouse_database::batch::End::Commit,
            large: None,
        };
        Ok(database.batch(&batch).await?.rows[0][0].text(0))
    };
    assert_eq!(batches("sslmode=disable", None).await.unwrap().as_deref(), Some("false"));
    assert_eq!(batches("sslmode=prefer", None).await.unwrap().as_deref(), Some("true"));
    let bound = "sslmode=verify-full&channel_binding=require";
    let authority = folder.path().join("ca.pem");
    assert_eq!(batches(bound, Some(authority)).await.unwrap().as_deref(), Some("true"));
    drop(superuser);
    cluster.stop().await.unwrap();
}
