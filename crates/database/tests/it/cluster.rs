//! The managed cluster as an operator meets it: kills, stale files, busy ports, full disks, other versions.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longhouse_database::cluster::{
    Cluster, ClusterError, ClusterOptions, ClusterState, Login, Port, RestartPolicy,
};
use longhouse_database::testing::TestDatabase;
use longhouse_database::tokio_postgres::{Client, NoTls};
use rustix::process::{Pid, Signal};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

fn options(dir: &Path) -> ClusterOptions {
    ClusterOptions { port: Port::Preferred(0), ..ClusterOptions::new(dir) }
}

/// A folder whose Postgres and whose relocated data go when the test ends, however it ends.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("longhouse-it-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("postgres")
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The postmaster, read as Postgres wrote it.
    fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let data = self.data().canonicalize().unwrap_or_else(|_| self.data());
        let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return };
        let Some(pid) = text.lines().next().and_then(|pid| pid.parse().ok()) else { return };
        let ours = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
        if ours {
            kill(pid, Signal::QUIT);
            for _ in 0..200 {
                if !Path::new(&format!("/proc/{pid}/cwd")).exists() || !data.join("postmaster.pid").exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn kill(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

async fn connect(url: &str) -> Client {
    let (client, connection) = longhouse_database::tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn superuser(cluster: &Cluster) -> Client {
    connect(cluster.url(Login::Superuser).expose_secret()).await
}

async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn reaches(cluster: &Cluster, wanted: impl Fn(&ClusterState) -> bool) -> ClusterState {
    let mut state = cluster.state();
    let reached = tokio::time::timeout(Duration::from_secs(20), state.wait_for(wanted)).await;
    reached.expect("the state in time").expect("a supervised cluster").clone()
}

async fn starts(place: &Place) -> Cluster {
    Cluster::start(options(&place.path())).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn refused(options: ClusterOptions) -> ClusterError {
    match Cluster::start(options).await {
        Ok(_) => panic!("the cluster started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_new_cluster_has_the_settings_that_realtime_and_security_need() {
    let place = Place::new();
    let cluster = starts(&place).await;
    let client = superuser(&cluster).await;
    for (setting, expected) in [
        ("wal_level", "logical"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("server_encoding", "UTF8"),
        ("fsync", "on"),
        ("max_connections", "100"),
        ("TimeZone", "UTC"),
        ("data_checksums", "on"),
    ] {
        assert_eq!(
            one(&client, &format!("select current_setting('{setting}')")).await,
            expected,
            "{setting}"
        );
    }
    let version = one(&client, "select current_setting('server_version')").await;
    assert!(version.starts_with(&cluster.version().to_string()), "{version}");
    assert_eq!(one(&client, "select current_user::text").await, "supabase_admin");
    let lax = "select count(*)::text from pg_hba_file_rules where auth_method <> 'scram-sha-256'";
    assert_eq!(one(&client, lax).await, "0", "every way in needs the password");

    // A new role of bootstrap's gets the password that the URL names.
    let password = cluster.password(Login::Owner);
    client
        .batch_execute(&format!("create role postgres login password '{}'", password.expose_secret()))
        .await
        .unwrap();
    let owner = connect(cluster.url(Login::Owner).expose_secret()).await;
    assert_eq!(one(&owner, "select current_user::text").await, "postgres");

    // A running server listens on its own process group, away from the terminal's ctrl-C.
    let group = rustix::process::getpgid(Pid::from_raw(i32::try_from(place.pid()).unwrap())).unwrap();
    assert_ne!(group, rustix::process::getpgid(None).unwrap());

    // The person's own settings win, and survive the next start.
    fs::write(place.data().join("local.conf"), "work_mem = '7MB'\n").unwrap();
    let port = cluster.port();
    cluster.stop().await.unwrap();
    assert!(!place.data().join("postmaster.pid").exists(), "stopped in good order");
    let started = Instant::now();
    let cluster = starts(&place).await;
    println!("warm start: {:?}", started.elapsed());
    assert_eq!(cluster.port(), port, "the port is remembered");
    assert!(!cluster.adopted());
    assert_eq!(one(&superuser(&cluster).await, "select current_setting('work_mem')").await, "7MB");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postgres_comes_back_with_every_commit() {
    let place = Place::new();
    let cluster = starts(&place).await;
    superuser(&cluster).await.batch_execute("create table kept as select 42 as n").await.unwrap();
    let (first, port) = (place.pid(), cluster.port());
    kill(first, Signal::KILL);
    let killed = Instant::now();
    reaches(&cluster, |state| matches!(state, ClusterState::Restarting { .. })).await;
    reaches(&cluster, |state| *state == ClusterState::Running).await;
    println!("back after {:?}", killed.elapsed());
    assert_ne!(place.pid(), first);
    assert_eq!(cluster.port(), port);
    assert_eq!(one(&superuser(&cluster).await, "select n::text from kept").await, "42");
    let mut state = cluster.state();
    cluster.stop().await.unwrap();
    assert_eq!(*state.borrow_and_update(), ClusterState::Stopped);

    // Killed while no Longhouse watches: the next start recovers.
    let cluster = starts(&place).await;
    let second = place.pid();
    drop(cluster);
    kill(second, Signal::KILL);
    let cluster = starts(&place).await;
    assert_eq!(one(&superuser(&cluster).await, "select n::text from kept").await, "42");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_postgres_that_cannot_come_back_is_given_up_with_its_own_words() {
    let place = Place::new();
    let restart = RestartPolicy {
        tries: 2,
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(40),
        ..RestartPolicy::default()
    };
    let cluster = Cluster::start(ClusterOptions { restart, ..options(&place.path()) }).await.unwrap();
    fs::write(place.data().join("local.conf"), "shared_buffers = 'plenty'\n").unwrap();
    kill(place.pid(), Signal::KILL);
    match reaches(&cluster, |state| matches!(state, ClusterState::Failed { .. })).await {
        ClusterState::Failed { reason } => {
            assert!(reason.contains("2 times in a row"), "{reason}");
            assert!(reason.contains("shared_buffers"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    cluster.stop().await.unwrap();
    let error = refused(options(&place.path())).await.to_string();
    assert!(error.contains("Postgres did not start") && error.contains("shared_buffers"), "{error}");
}

const HOLDER: &str = "LONGHOUSE_TEST_HOLDS";

/// Not a test: the body of a process that the tests below start and kill.
#[tokio::test]
#[ignore = "the other tests run it as a Longhouse process of its own"]
async fn holder() {
    let Some(dir) = std::env::var_os(HOLDER).map(PathBuf::from) else { return };
    let _cluster = Cluster::start(options(&dir)).await.unwrap();
    fs::write(dir.join("held"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Another Longhouse process; killed at the end at the latest.
struct Holder(Child);

impl Holder {
    fn spawn(place: &Place) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "cluster::holder", "--ignored"]).env(HOLDER, place.path());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    async fn ready(self, place: &Place) -> Self {
        until(|| place.path().join("held").exists()).await;
        self
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "did not happen in 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_killed_longhouse_leaves_a_postgres_that_the_next_one_adopts() {
    let place = Place::new();
    let mut holder = Holder::spawn(&place).ready(&place).await;

    // While it lives, a second server is told who has the folder.
    match refused(options(&place.path())).await {
        ClusterError::InUse { pid, .. } => assert_eq!(pid, Some(holder.0.id())),
        other => panic!("{other}"),
    }
    let error = Cluster::stop_abandoned(&place.path()).await.unwrap_err();
    assert!(matches!(error, ClusterError::InUse { .. }), "{error}");

    let pid = place.pid();
    holder.kill();
    let started = Instant::now();
    let cluster = starts(&place).await;
    let took = started.elapsed();
    println!("adopted in {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(cluster.adopted());
    assert_eq!(place.pid(), pid, "the same server, not a new one");
    one(&superuser(&cluster).await, "select 'works'").await;

    // An adopted server is watched like one of our own.
    let killed = Instant::now();
    kill(pid, Signal::KILL);
    reaches(&cluster, |state| matches!(state, ClusterState::Restarting { .. })).await;
    reaches(&cluster, |state| *state == ClusterState::Running).await;
    one(&superuser(&cluster).await, "select 'works'").await;

    println!("back after {:?}", killed.elapsed());

    // Other settings than the running server's take effect, by a restart in good order.
    let (pid, port) = (place.pid(), cluster.port());
    drop(cluster);
    let changed = ClusterOptions { max_connections: 33, ..options(&place.path()) };
    let cluster = Cluster::start(changed).await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_ne!(place.pid(), pid);
    assert_eq!(one(&superuser(&cluster).await, "show max_connections").await, "33");

    // What a killed Longhouse left can also just be stopped.
    drop(cluster);
    assert!(Cluster::stop_abandoned(&place.path()).await.unwrap());
    assert!(!Cluster::stop_abandoned(&place.path()).await.unwrap());
    assert!(!place.data().join("postmaster.pid").exists());
}

#[tokio::test]
async fn a_killed_first_start_is_begun_anew() {
    let place = Place::new();
    let mut holder = Holder::spawn(&place);
    let attempt = || {
        let entries = fs::read_dir(place.path()).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find(|name| name.starts_with("data.new-"))
    };
    until(|| attempt().is_some_and(|name| place.path().join(name).join("PG_VERSION").exists())).await;
    holder.kill();
    assert!(!place.data().exists(), "a half-made database is not in the data's place");
    let cluster = starts(&place).await;
    assert_eq!(attempt(), None, "the attempt is cleared away");
    let password = fs::read_dir(place.path()).unwrap().flatten();
    let password = password.filter(|entry| entry.file_name().to_string_lossy().contains("password"));
    assert_eq!(password.count(), 0);
    one(&superuser(&cluster).await, "select 'works'").await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn stale_pid_files_and_other_majors() {
    let place = Place::new();
    starts(&place).await.stop().await.unwrap();

    // After a power cut, the number in the file may belong to any program by now.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    for text in [format!("{}\n/x\n1790000000\n1\n\n127.0.0.1\n 1 1\nready   \n", other.id()), String::new()] {
        fs::write(place.data().join("postmaster.pid"), &text).unwrap();
        let cluster = starts(&place).await;
        assert!(!cluster.adopted());
        assert!(other.try_wait().unwrap().is_none(), "the other program is left alone");
        one(&superuser(&cluster).await, "select 'works'").await;
        cluster.stop().await.unwrap();
    }
    other.kill().unwrap();
    other.wait().unwrap();

    let file = place.data().join("PG_VERSION");
    let version = fs::read_to_string(&file).unwrap();
    fs::write(&file, "13\n").unwrap();
    let error = refused(options(&place.path())).await;
    assert!(matches!(error, ClusterError::OtherMajor { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("written by Postgres 13") && error.contains(version.trim()), "{error}");
    assert!(error.contains("pg_upgrade") && error.contains("nothing was changed"), "{error}");

    fs::remove_file(&file).unwrap();
    let error = refused(options(&place.path())).await.to_string();
    assert!(error.contains("PG_VERSION is missing"), "{error}");

    fs::write(&file, version).unwrap();
    let passwords = fs::read(place.path().join("credentials.json")).unwrap();
    fs::remove_file(place.path().join("credentials.json")).unwrap();
    let error = refused(options(&place.path())).await.to_string();
    assert!(error.contains("restore the file from a backup"), "{error}");
    fs::write(place.path().join("credentials.json"), passwords).unwrap();
    starts(&place).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_busy_port_is_named_or_avoided() {
    let place = Place::new();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let busy = held.local_addr().unwrap().port();
    let exactly = ClusterOptions { port: Port::Exactly(busy), ..options(&place.path()) };
    let error = refused(exactly.clone()).await.to_string();
    assert!(error.contains(&format!("port {busy} on 127.0.0.1 is in use")), "{error}");
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    assert!(!place.data().exists(), "found out before the database was made");

    let preferred = ClusterOptions { port: Port::Preferred(busy), ..options(&place.path()) };
    let cluster = Cluster::start(preferred.clone()).await.unwrap();
    let found = cluster.port();
    assert_ne!(found, busy);
    cluster.stop().await.unwrap();
    drop(held);
    let cluster = Cluster::start(preferred).await.unwrap();
    assert_eq!(cluster.port(), found, "the address that people noted stays");

    // A demanded port moves a server that was left running elsewhere.
    drop(cluster);
    let cluster = Cluster::start(exactly).await.unwrap();
    assert_eq!(cluster.port(), busy);
    assert_eq!(one(&superuser(&cluster).await, "show port").await, busy.to_string());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn folders_that_cannot_hold_a_database() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.join("postgres"), PathBuf::from("/proc/longhouse")] {
        let error = refused(options(&dir)).await.to_string();
        assert!(error.contains("cannot use") && error.contains("choose a writable folder"), "{error}");
    }
    let bin_dir = Some(place.dir.path().to_owned());
    let error = refused(ClusterOptions { bin_dir, ..options(&place.path()) }).await;
    assert!(matches!(error, ClusterError::BinDir { .. }), "{error}");
}

#[tokio::test]
async fn data_of_an_ordinary_user_stay_that_users_under_root() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let place = Place::new();
    std::os::unix::fs::chown(place.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // The test program may lie in a folder that only root may enter.
    let program = place.dir.path().join("holder");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "cluster::holder", "--ignored"]).env(HOLDER, place.path());
    command.uid(NOBODY).gid(NOBODY).current_dir(place.dir.path());
    let holder = Holder(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut holder = holder.ready(&place).await;
    let pid = place.pid();
    assert_eq!(fs::metadata(place.data()).unwrap().uid(), NOBODY);
    holder.kill();

    let cluster = starts(&place).await;
    assert!(cluster.adopted());
    kill(pid, Signal::KILL);
    reaches(&cluster, |state| matches!(state, ClusterState::Restarting { .. })).await;
    reaches(&cluster, |state| *state == ClusterState::Running).await;
    assert_eq!(fs::metadata(format!("/proc/{}", place.pid())).unwrap().uid(), NOBODY);
    cluster.stop().await.unwrap();
}

/// A small disk, unmounted at the end.
struct Disk(TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=755,{size}"), "tmpfs"])
            .arg(dir.path())
            .output()
            .ok()?;
        if !output.status.success() {
            println!("skipped: cannot mount a small disk: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_called_a_full_disk() {
    let Some(disk) = Disk::mount("size=50m") else { return };
    let error = refused(options(&disk.0.path().join("postgres"))).await;
    assert!(matches!(error, ClusterError::DiskFull { needed, .. } if needed > 0), "{error}");
    let error = error.to_string();
    assert!(error.contains("MiB free, 100 MiB needed") && error.contains("free some space"), "{error}");
    drop(disk);

    // Room by the byte, but full in the middle of initdb: no more files.
    let Some(disk) = Disk::mount("size=400m,nr_inodes=300") else { return };
    let dir = disk.0.path().join("postgres");
    let error = refused(options(&dir)).await;
    assert!(matches!(error, ClusterError::DiskFull { needed: 0, .. }), "{error}");
    assert!(!dir.join("data").exists());
}

#[tokio::test]
async fn root_hands_postgres_to_an_unprivileged_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    // A home that only root may enter.
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let place = Place { dir: tempfile::tempdir_in(closed.path()).unwrap() };
    let cluster = starts(&place).await;
    let real = place.data().canonicalize().unwrap();
    assert!(real.starts_with("/var/lib/longhouse"), "{}", real.display());
    assert_ne!(fs::metadata(&real).unwrap().uid(), 0);
    assert_eq!(fs::metadata(place.path().join("credentials.json")).unwrap().uid(), 0);
    let status = fs::read_to_string(format!("/proc/{}/status", place.pid())).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(!line("Uid:").split_whitespace().any(|id| id == "0"), "{status}");
    assert!(!line("Gid:").split_whitespace().any(|id| id == "0"), "{status}");
    assert!(!line("Groups:").split_whitespace().any(|id| id == "0"), "{status}");
    superuser(&cluster).await.batch_execute("create table kept as select 1 as n").await.unwrap();
    cluster.stop().await.unwrap();

    // Data that a restore left to root are given back.
    std::os::unix::fs::chown(&real, Some(0), Some(0)).unwrap();
    let cluster = starts(&place).await;
    assert_eq!(one(&superuser(&cluster).await, "select n::text from kept").await, "1");
    cluster.stop().await.unwrap();

    // A new folder of the same path does not inherit a removed one's database.
    fs::remove_dir_all(place.path()).unwrap();
    let cluster = starts(&place).await;
    let inherited = one(&superuser(&cluster).await, "select (to_regclass('kept') is not null)::text").await;
    assert_eq!(inherited, "false");
    cluster.stop().await.unwrap();
    let home = real.parent().unwrap();

    // A backup of the folder alone has only the link and the passwords.
    let away = home.with_extension("away");
    fs::rename(home, &away).unwrap();
    let error = refused(options(&place.path())).await;
    assert!(matches!(error, ClusterError::Lost { .. }), "{error}");
    assert!(error.to_string().contains(&format!("there is no {}", real.display())), "{error}");
    assert!(!home.exists(), "nothing was made");
    fs::rename(&away, home).unwrap();
    starts(&place).await.stop().await.unwrap();
    fs::rename(home, &away).unwrap();
    for name in ["data", "credentials.json"] {
        fs::remove_file(place.path().join(name)).unwrap();
    }
    starts(&place).await.stop().await.unwrap();

    let name = home.file_name().unwrap().to_string_lossy().into_owned();
    for entry in fs::read_dir("/var/lib/longhouse").unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

#[tokio::test]
async fn test_databases_are_clones_of_one_template() {
    let unique = format!("one template: {}", std::process::id());
    let prepare = async |template: &longhouse_database::testing::TemplateDatabase| {
        let client = connect(template.superuser_url.expose_secret()).await;
        let name = &template.name;
        client
            .batch_execute(&format!(
                "create table made as select gen_random_uuid()::text as id;
                 alter database {name} set search_path = 'special'; revoke connect on database {name} from public"
            ))
            .await
    };
    let (first, second) =
        tokio::join!(TestDatabase::create(&unique, prepare), TestDatabase::create(&unique, prepare));
    assert_ne!(first.name, second.name);
    let (one_client, two_client) = (
        connect(first.superuser_url.expose_secret()).await,
        connect(second.superuser_url.expose_secret()).await,
    );
    let id = "select id from public.made";
    assert_eq!(one(&one_client, id).await, one(&two_client, id).await, "prepared once");
    assert_eq!(one(&two_client, "show search_path").await, "special", "database settings are cloned");
    let public = "select has_database_privilege('pg_monitor', current_database(), 'connect')::text";
    assert_eq!(one(&two_client, public).await, "false", "database grants are cloned");
    one_client.batch_execute("drop table public.made").await.unwrap();
    one(&two_client, id).await;

    let name = first.name.clone();
    drop(first);
    let left = format!("select count(*)::text from pg_database where datname = '{name}'");
    assert_eq!(one(&two_client, &left).await, "0", "dropped, although a client was connected");

    // What a killed test left goes with a later test; what a failed preparation left is prepared anew.
    let mut dead = Command::new("true").spawn().unwrap();
    let leftover = format!("t_{}_{}", dead.id(), "0".repeat(32));
    dead.wait().unwrap();
    two_client.batch_execute(&format!("create database {leftover}")).await.unwrap();
    let started = Instant::now();
    let third = TestDatabase::create(&unique, prepare).await;
    println!("cloned in {:?}, with a leftover dropped", started.elapsed());
    let left = format!("select count(*)::text from pg_database where datname = '{leftover}'");
    assert_eq!(one(&two_client, &left).await, "0");
    let started = Instant::now();
    drop((second, third));
    println!("dropped two in {:?}", started.elapsed());
}

#[tokio::test]
async fn a_failed_preparation_makes_no_template() {
    let unique = format!("fails once: {}", std::process::id());
    let failing = tokio::spawn({
        let unique = unique.clone();
        async move { TestDatabase::create(&unique, async |_: &_| Err("no such migration")).await.name.clone() }
    });
    let message = failing.await.unwrap_err().into_panic();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("preparing the template failed: no such migration"), "{message}");
    let database = TestDatabase::create(&unique, async |_: &_| Ok::<(), String>(())).await;
    let client = connect(database.superuser_url.expose_secret()).await;
    assert_eq!(one(&client, "select current_database()::text").await, database.name);
}
