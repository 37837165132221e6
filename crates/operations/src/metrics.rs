//! `/metrics`: everything recorded through the `metrics` crate, plus the process and its runtime.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Error;

const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Kernels count CPU time in hundredths of a second for user space (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// From one audio frame's due time to a hopeless request, in seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    started: Instant,
}

impl Metrics {
    /// Collects what the whole process records from now on.
    ///
    /// # Errors
    /// Metrics are already collected in this process.
    pub fn install(version: &str, build_id: &str) -> Result<Self, Error> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .expect("the buckets are not empty")
            .install_recorder()
            .map_err(|error| Error::MetricsTwice(error.to_string()))?;
        describe();
        gauge!("longhouse_build_info", "version" => version.to_owned(), "build_id" => build_id.to_owned())
            .set(1.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64());
        gauge!("process_start_time_seconds").set(now);
        Ok(Self { handle, started: Instant::now() })
    }

    /// Keeps histograms small between scrapes. Abort the task to end it.
    pub fn spawn_upkeep(&self) -> JoinHandle<()> {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        })
    }

    /// Everything in Prometheus' text format. Call it on the runtime that serves.
    pub fn render(&self) -> String {
        gauge!("longhouse_uptime_seconds").set(self.started.elapsed().as_secs_f64());
        record_process();
        record_runtime();
        self.handle.render()
    }

    /// `GET /metrics`.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> OpenApiRouter<S> {
        OpenApiRouter::new().routes(routes!(scrape)).with_state(self.clone())
    }
}

/// Metrics of this process for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
async fn scrape(State(metrics): State<Metrics>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

fn describe() {
    describe_counter!("http_requests_total", "Requests answered, by method, route template and status.");
    describe_histogram!("http_request_duration_seconds", "Time to the response's head, by method and route.");
    describe_counter!("http_panics_total", "Handlers that panicked; each is a defect.");
    describe_gauge!("longhouse_build_info", "Always 1; version and build are labels.");
    describe_gauge!("longhouse_uptime_seconds", "Time since this process started serving.");
    describe_gauge!("process_start_time_seconds", "Start of the process, in seconds since 1970.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory.");
    describe_gauge!("process_cpu_seconds_total", "CPU time spent, user and system.");
    describe_gauge!("process_open_fds", "Open file descriptors, sockets included.");
    describe_gauge!("process_max_fds", "Open file descriptors that the system allows.");
    describe_gauge!("process_threads", "Threads.");
    describe_gauge!("tokio_workers", "Worker threads of the async runtime.");
    describe_gauge!("tokio_alive_tasks", "Tasks of the async runtime that have not ended.");
    describe_gauge!("tokio_global_queue_depth", "Tasks that wait for any worker.");
}

/// Reads `/proc/self`; on systems without it these gauges are absent rather than wrong.
#[allow(clippy::cast_precision_loss)] // bytes and counts far below 2^53
fn record_process() {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kilobytes) = number_after(&status, "VmRSS:") {
            gauge!("process_resident_memory_bytes").set(kilobytes * 1024.0);
        }
        if let Some(threads) = number_after(&status, "Threads:") {
            gauge!("process_threads").set(threads);
        }
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        // A counter by nature; the recorder's counters hold whole numbers only.
        gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // Listing the folder opens one more.
        gauge!("process_open_fds").set(descriptors.count().saturating_sub(1) as f64);
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|limits| number_after(&limits, "Max open files"))
    {
        gauge!("process_max_fds").set(most);
    }
}

#[allow(clippy::cast_precision_loss)]
fn record_runtime() {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let runtime = runtime.metrics();
        gauge!("tokio_workers").set(runtime.num_workers() as f64);
        gauge!("tokio_alive_tasks").set(runtime.num_alive_tasks() as f64);
        gauge!("tokio_global_queue_depth").set(runtime.global_queue_depth() as f64);
    }
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat`, counted after the program's name, which may hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_time_behind_an_awkward_name() {
        let stat = "1 (a) b (c) R 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn reads_labelled_numbers() {
        assert_eq!(number_after("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234.0));
        assert_eq!(number_after("Max open files            unlimited  unlimited", "Max open files"), None);
    }
}
