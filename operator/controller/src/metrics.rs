//! What the operator counts, in Prometheus' text format. No label grows with the number of objects.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `batos_step_seconds` | kind, step, outcome | how long steps took: `reconcile`, `apply`, `status`, `finalizer`, `send`, `weave` |
//! | `batos_api_calls_total` | verb, code | calls to the API server; code 0 is no answer |
//! | `batos_queue_depth` | kind | objects that wait for the reconciler |
//! | `batos_leader` | | 1 while this operator leads |

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::Mutex,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::Body;
use tower::{Layer, Service};

/// Of the process.
pub static METRICS: Metrics = Metrics::new();

/// Upper bounds, in seconds.
const BUCKETS: [f64; 6] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0];

#[derive(Clone, Copy, Default)]
struct Histogram {
    /// How many were at most as long as the bound of this place.
    within: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// Series by name and labels.
#[derive(Default)]
struct Series {
    counters: BTreeMap<(&'static str, String), u64>,
    gauges: BTreeMap<(&'static str, String), i64>,
    steps: BTreeMap<String, Histogram>,
}

pub struct Metrics(Mutex<Series>);

impl Metrics {
    const fn new() -> Self {
        Self(Mutex::new(Series { counters: BTreeMap::new(), gauges: BTreeMap::new(), steps: BTreeMap::new() }))
    }

    fn with(&self, change: impl FnOnce(&mut Series)) {
        // Counting goes on after a panic elsewhere: a half-counted call is of no matter.
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn called(&self, verb: &str, code: u16) {
        let labels = format!("verb=\"{verb}\",code=\"{code}\"");
        self.with(|series| *series.counters.entry(("batos_api_calls_total", labels)).or_default() += 1);
    }

    /// One more, or one less, that waits.
    pub fn queued(&self, kind: &str, by: i64) {
        let labels = format!("kind=\"{kind}\"");
        self.with(|series| *series.gauges.entry(("batos_queue_depth", labels)).or_default() += by);
    }

    pub fn leads(&self, leads: bool) {
        self.with(|series| *series.gauges.entry(("batos_leader", String::new())).or_default() = leads.into());
    }

    /// How a step of one kind's reconciliation ended.
    pub fn stepped(&self, kind: &str, step: &str, good: bool, took: Duration) {
        let outcome = if good { "ok" } else { "failed" };
        let labels = format!("kind=\"{kind}\",step=\"{step}\",outcome=\"{outcome}\"");
        self.with(|series| {
            let histogram = series.steps.entry(labels).or_default();
            histogram.count += 1;
            histogram.seconds += took.as_secs_f64();
            for (within, bound) in histogram.within.iter_mut().zip(BUCKETS) {
                *within += u64::from(took.as_secs_f64() <= bound);
            }
        });
    }

    /// Runs a step and tells how it ended.
    pub async fn step<T, E>(&self, kind: &str, step: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let ended = work.await;
        self.stepped(kind, step, ended.is_ok(), begun.elapsed());
        ended
    }

    /// All series, as Prometheus reads them.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.with(|series| {
            // Writing to a string does not fail.
            let _ = write_series(series, &mut text);
        });
        text
    }
}

fn write_series(series: &Series, text: &mut String) -> std::fmt::Result {
    writeln!(text, "# TYPE batos_api_calls_total counter")?;
    for ((name, labels), value) in &series.counters {
        writeln!(text, "{name}{{{labels}}} {value}")?;
    }
    for gauge in ["batos_leader", "batos_queue_depth"] {
        writeln!(text, "# TYPE {gauge} gauge")?;
        for ((_, labels), value) in series.gauges.iter().filter(|((name, _), _)| *name == gauge) {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            writeln!(text, "{gauge}{labels} {value}")?;
        }
    }
    writeln!(text, "# TYPE batos_step_seconds histogram")?;
    for (labels, Histogram { within, count, seconds }) in &series.steps {
        for (within, bound) in within.iter().zip(BUCKETS) {
            writeln!(text, "batos_step_seconds_bucket{{{labels},le=\"{bound}\"}} {within}")?;
        }
        writeln!(text, "batos_step_seconds_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(text, "batos_step_seconds_sum{{{labels}}} {seconds}")?;
        writeln!(text, "batos_step_seconds_count{{{labels}}} {count}")?;
    }
    Ok(())
}

/// Counts the calls of a client.
#[derive(Clone, Copy)]
pub struct Counting;

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner }
    }
}

#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = verb(&request);
        let call = self.inner.call(request);
        Box::pin(async move {
            let answered = call.await;
            METRICS.called(verb, answered.as_ref().map_or(0, |response| response.status().as_u16()));
            answered
        })
    }
}

/// Kubernetes' name of what a request does.
fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let content = request.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match *request.method() {
        Method::GET if query.contains("watch=true") => "watch",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        Method::PATCH if content.is_some_and(|kind| kind.contains("apply-patch")) => "apply",
        Method::PATCH => "patch",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_as_prometheus_reads_them() {
        let metrics = Metrics::new();
        metrics.called("get", 200);
        metrics.called("get", 200);
        metrics.queued("Universe", 2);
        metrics.queued("Universe", -1);
        metrics.leads(true);
        metrics.stepped("Universe", "apply", false, Duration::from_millis(300));
        let text = metrics.render();
        for line in [
            "batos_api_calls_total{verb=\"get\",code=\"200\"} 2",
            "batos_queue_depth{kind=\"Universe\"} 1",
            "batos_leader 1",
            "batos_step_seconds_bucket{kind=\"Universe\",step=\"apply\",outcome=\"failed\",le=\"0.25\"} 0",
            "batos_step_seconds_bucket{kind=\"Universe\",step=\"apply\",outcome=\"failed\",le=\"1\"} 1",
            "batos_step_seconds_count{kind=\"Universe\",step=\"apply\",outcome=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn verbs_are_those_of_kubernetes() {
        let request = |method: &str, uri: &str, content: &str| {
            let request = Request::builder().method(method).uri(uri).header("content-type", content);
            verb(&request.body(Body::empty()).unwrap())
        };
        assert_eq!(request("GET", "/api/v1/pods?watch=true", ""), "watch");
        assert_eq!(request("GET", "/api/v1/pods", ""), "get");
        assert_eq!(request("PATCH", "/x", "application/apply-patch+yaml"), "apply");
        assert_eq!(request("PATCH", "/x", "application/merge-patch+json"), "patch");
    }
}
