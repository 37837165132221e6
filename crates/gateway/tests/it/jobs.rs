//! Jobs: leased, renewed, tried again, cancelled, and finished by whoever is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longhouse_database::Claims;
use longhouse_gateway::jobs::{
    ChatWork, Job, JobError, Jobs, NewJob, Progress, Work, Workers, WorkersOptions,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Api, As, events, hello};
use crate::database::{ANN, BOB, Store, owner};
use crate::harness::soon;

/// Does what its input says.
#[derive(Default)]
struct Scripted {
    begun: AtomicU32,
}

#[async_trait]
impl Work for Scripted {
    async fn run(&self, job: &Job, progress: &Progress) -> Result<Value, JobError> {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        progress.report(0.5, "half of it");
        match job.input["do"].as_str() {
            Some("fail") => Err(JobError::Final("it cannot be done".into())),
            Some("fail once") if job.attempts == 1 => Err(JobError::Passing("not now".into())),
            Some("hang") => std::future::pending().await,
            Some("hang once") if begun == 1 => std::future::pending().await,
            Some("panic") => panic!("as the test wants"),
            _ => Ok(json!({"attempt": job.attempts})),
        }
    }
}

fn quick() -> WorkersOptions {
    let ms = Duration::from_millis;
    WorkersOptions { at_once: 2, lease: ms(600), renew: ms(50), look: ms(20) }
}

fn workers(jobs: &Jobs, work: &Arc<Scripted>) -> Workers {
    Workers::start(jobs, HashMap::from([("scripted", Arc::clone(work) as Arc<dyn Work>)]), quick())
}

fn new_job(script: &str) -> NewJob {
    NewJob {
        kind: "scripted",
        owner: owner(ANN),
        input: json!({"do": script}),
        max_attempts: 2,
        idempotency_key: None,
    }
}

/// The job, when it is as wanted.
async fn wait(jobs: &Jobs, id: Uuid, wanted: impl Fn(&Job) -> bool) -> Job {
    soon(async {
        loop {
            let job = jobs.find(&Claims::user(ANN), id).await.unwrap().unwrap();
            if wanted(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn work_ends_as_it_should() {
    let store = Store::new().await;
    let jobs = Jobs::new(store.database.clone());
    let work = Arc::new(Scripted::default());
    let workers = workers(&jobs, &work);
    for (script, state, attempts, error) in [
        ("succeed", "done", 1, None),
        ("fail", "failed", 1, Some("it cannot be done")),
        ("fail once", "done", 2, None),
        ("panic", "failed", 1, Some("its work failed unexpectedly")),
    ] {
        let id = jobs.enqueue(new_job(script)).await.unwrap().id;
        let job = wait(&jobs, id, Job::is_over).await;
        assert_eq!((job.state.as_str(), job.attempts), (state, attempts), "{script}");
        assert_eq!(job.result.is_some(), state == "done", "{script}");
        assert_eq!(job.error.as_deref(), error, "{script}");
        assert!(job.ended_at.is_some());
    }
    workers.close().await;
}

#[tokio::test]
async fn a_job_is_cancelled_while_it_waits_and_while_it_runs() {
    let store = Store::new().await;
    let jobs = Jobs::new(store.database.clone());
    let waiting = jobs.enqueue(new_job("hang")).await.unwrap().id;
    assert!(jobs.cancel(&Claims::user(BOB), waiting).await.unwrap().is_none(), "it is not his");
    assert_eq!(jobs.cancel(&Claims::user(ANN), waiting).await.unwrap().unwrap().state, "cancelled");
    let work = Arc::new(Scripted::default());
    let workers = workers(&jobs, &work);
    let running = jobs.enqueue(new_job("hang")).await.unwrap().id;
    let seen = wait(&jobs, running, |job| job.progress > 0.4).await;
    assert_eq!((seen.state.as_str(), seen.message.as_str()), ("running", "half of it"));
    jobs.cancel(&Claims::user(ANN), running).await.unwrap();
    wait(&jobs, running, |job| job.state == "cancelled").await;
    assert_eq!(work.begun.load(Ordering::SeqCst), 1, "the one that waited was never begun");
    // Wanted after all.
    jobs.retry(&Claims::user(ANN), running).await.unwrap();
    wait(&jobs, running, |job| job.state == "running").await;
    workers.close().await;
}

#[tokio::test]
async fn another_server_goes_on_where_one_stopped_or_died() {
    let store = Store::new().await;
    let jobs = Jobs::new(store.database.clone());
    let work = Arc::new(Scripted::default());
    // An orderly stop gives it back, and counts no attempt.
    let first = workers(&jobs, &work);
    let id = jobs.enqueue(new_job("hang once")).await.unwrap().id;
    wait(&jobs, id, |job| job.state == "running").await;
    soon(first.close()).await;
    let back = wait(&jobs, id, |job| job.state == "queued").await;
    assert_eq!(back.attempts, 0);
    // A server that dies says nothing: its lease runs out.
    let dead = "update ai.jobs set state = 'running', worker = gen_random_uuid(), attempts = 1,
        lease_until = now() + interval '300 ms'";
    store.owner.execute(dead, &[]).await.unwrap();
    let second = workers(&jobs, &work);
    let done = wait(&jobs, id, Job::is_over).await;
    assert_eq!((done.state.as_str(), done.attempts), ("done", 2));
    // One that may not be begun again is given up.
    let id = jobs.enqueue(NewJob { kind: "other", ..new_job("") }).await.unwrap().id;
    let last = "update ai.jobs set state = 'running', worker = gen_random_uuid(), attempts = 2,
        lease_until = now() - interval '1 s' where id = $1";
    store.owner.execute(last, &[&id]).await.unwrap();
    assert_eq!(wait(&jobs, id, Job::is_over).await.state, "failed");
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_do_each_job_once() {
    let store = Store::new().await;
    let jobs = Jobs::new(store.database.clone());
    let work = Arc::new(Scripted::default());
    for i in 0..60 {
        let owner = longhouse_gateway::keys::Owner { app: format!("a{i}"), ..Default::default() };
        jobs.enqueue(NewJob { owner, ..new_job("") }).await.unwrap();
    }
    let all: Vec<_> = (0..3).map(|_| workers(&jobs, &work)).collect();
    soon(async {
        while store.number("select count(*) from ai.jobs where state <> 'done'").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for workers in all {
        workers.close().await;
    }
    assert_eq!(work.begun.load(Ordering::SeqCst), 60);
    assert_eq!(store.number("select count(*) from ai.jobs where attempts <> 1").await, 0);
}

#[tokio::test]
async fn a_chat_is_done_as_a_job_and_followed() {
    let api = Api::new("[tasks.hidden]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\n").await;
    let chat = Arc::new(ChatWork(api.gateway.clone())) as Arc<dyn Work>;
    let workers = Workers::start(&api.jobs, HashMap::from([("chat", chat)]), quick());
    let (status, job) = api.post(As::User(ANN), "/jobs/chat", hello()).await;
    assert_eq!((status, &job["state"]), (StatusCode::ACCEPTED, &json!("queued")));
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    let followed = api.ask(As::User(ANN), Method::GET, &format!("{path}/events"), None).await;
    assert_eq!(followed.headers()["content-type"], "text/event-stream");
    let events = events(followed).await;
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["state"], &last["progress"]), ("ended", &json!("done"), &json!(1.0)));
    assert!(last["result"]["text"].as_str().unwrap().contains("Mira"), "{last}");
    assert_eq!(api.get(As::User(ANN), &path).await["state"], json!("done"));
    assert_eq!(api.get(As::User(BOB), "/jobs").await, json!([]));
    for (method, path) in
        [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::GET, format!("{path}/events"))]
    {
        assert_eq!(api.ask(As::User(BOB), method, &path, None).await.status(), StatusCode::NOT_FOUND);
    }
    let mut hidden = hello();
    hidden["task"] = json!("hidden");
    assert_eq!(api.post(As::User(ANN), "/jobs/chat", hidden).await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        api.post(As::User(ANN), "/jobs/chat", json!({"messages": []})).await.0,
        StatusCode::BAD_REQUEST
    );
    soon(workers.close()).await;
    api.settled().await;
    assert_eq!(api.store.number("select count(*) from ai.calls where status = 'done'").await, 1);
}

#[tokio::test]
async fn an_idempotency_key_means_one_job_and_too_many_are_refused() {
    let store = Store::new().await;
    let jobs = Jobs::new(store.database.clone());
    let keyed = |user| NewJob { owner: owner(user), idempotency_key: Some("k".into()), ..new_job("") };
    let first = jobs.enqueue(keyed(ANN)).await.unwrap().id;
    assert_eq!(jobs.enqueue(keyed(ANN)).await.unwrap().id, first);
    assert_ne!(jobs.enqueue(keyed(BOB)).await.unwrap().id, first, "another's key is another key");
    for _ in 0..99 {
        jobs.enqueue(new_job("")).await.unwrap();
    }
    assert!(jobs.enqueue(new_job("")).await.unwrap_err().to_string().contains("100 jobs"));
    let write = "update ai.jobs set state = 'done'";
    assert!(store.database.as_role(&Claims::user(ANN)).execute(write, &[]).await.is_err());
}
