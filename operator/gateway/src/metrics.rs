//! What the gateway counts, in Prometheus' text format. A facet's label is one of the configured ones, or the base model.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        self.buckets.iter_mut().zip(BOUNDS).filter(|(_, bound)| seconds <= *bound).for_each(|(count, _)| *count += 1);
    }
}

#[derive(Debug, Default)]
struct Series {
    counters: BTreeMap<(&'static str, String), u64>,
    histograms: BTreeMap<(&'static str, String), Histogram>,
    open: BTreeMap<String, u64>,
}

const COUNTERS: [(&str, &str); 4] = [
    ("requests_total", "Requests by how they ended"),
    ("retries_total", "Requests sent to another engine because one failed before its answer began"),
    ("loads_total", "Adapters loaded, and loads that failed"),
    ("refusals_total", "Requests that were refused before it was known which facet they are for"),
];
const HISTOGRAMS: [(&str, &str); 3] = [
    ("queue_seconds", "Time from a request to its engine"),
    ("first_byte_seconds", "Time from a request to the first byte of its answer"),
    ("load_seconds", "Time that loading an adapter took"),
];

#[derive(Debug, Default)]
pub struct Metrics(Mutex<Series>);

impl Metrics {
    fn with(&self, change: impl FnOnce(&mut Series)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self, name: &'static str, labels: String) {
        self.with(|series| *series.counters.entry((name, labels)).or_default() += 1);
    }

    fn time(&self, name: &'static str, facet: &str, took: Duration) {
        self.with(|series| series.histograms.entry((name, label("facet", facet))).or_default().add(took));
    }

    /// A request of the facet is there.
    pub fn opened(&self, facet: &str) {
        self.with(|series| *series.open.entry(label("facet", facet)).or_default() += 1);
    }

    /// It ended: `ok`, `left` (the client did), or the code of a failure.
    pub fn ended(&self, facet: &str, outcome: &str) {
        self.with(|series| {
            if let Some(open) = series.open.get_mut(&label("facet", facet)) {
                *open = open.saturating_sub(1);
            }
        });
        self.count("requests_total", format!("{},{}", label("facet", facet), label("outcome", outcome)));
    }

    /// A request was refused before it was one of a facet's.
    pub fn refused(&self, code: &str) {
        self.count("refusals_total", label("code", code));
    }

    pub fn retried(&self, facet: &str) {
        self.count("retries_total", label("facet", facet));
    }

    pub fn queued(&self, facet: &str, took: Duration) {
        self.time("queue_seconds", facet, took);
    }

    pub fn began(&self, facet: &str, took: Duration) {
        self.time("first_byte_seconds", facet, took);
    }

    pub fn loaded(&self, facet: &str, took: Option<Duration>) {
        let outcome = if took.is_some() { "ok" } else { "failed" };
        self.count("loads_total", format!("{},{}", label("facet", facet), label("outcome", outcome)));
        if let Some(took) = took {
            self.time("load_seconds", facet, took);
        }
    }

    /// All series, and these gauges of the moment: requests that wait; by pod whether it serves, and what its slots hold.
    pub fn text(&self, waiting: usize, pods: &[(String, bool, usize)]) -> String {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &str| {
            let name = format!("batos_weaver_{name}");
            let _ = write!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n");
            lines.lines().for_each(|line| {
                let _ = writeln!(text, "{name}{line}");
            });
        };
        for (name, help) in COUNTERS {
            let of_name = series.counters.iter().filter(|((other, _), _)| *other == name);
            let lines: String = of_name.map(|((_, labels), count)| format!("{{{labels}}} {count}\n")).collect();
            family(name, "counter", help, &lines);
        }
        for (name, help) in HISTOGRAMS {
            let of_name = series.histograms.iter().filter(|((other, _), _)| *other == name);
            let lines: String = of_name.map(|((_, labels), histogram)| histogram.lines(labels)).collect();
            family(name, "histogram", help, &lines);
        }
        let open: String = series.open.iter().map(|(labels, count)| format!("{{{labels}}} {count}\n")).collect();
        family("open", "gauge", "Requests that wait or are answered", &open);
        family("waiting", "gauge", "Requests that wait for an engine", &format!(" {waiting}\n"));
        let by_pod = |value: &dyn Fn(bool, usize) -> usize| -> String {
            let line =
                |(pod, up, held): &(String, bool, usize)| format!("{{{}}} {}\n", label("pod", pod), value(*up, *held));
            pods.iter().map(line).collect()
        };
        family("pod_up", "gauge", "Whether the engine answers", &by_pod(&|up, _| usize::from(up)));
        family("slots_taken", "gauge", "Adapters in the engine's slots, as modelled", &by_pod(&|_, held| held));
        text
    }
}

impl Histogram {
    fn lines(&self, labels: &str) -> String {
        let mut text = String::new();
        for (bound, count) in BOUNDS.iter().zip(self.buckets) {
            let _ = writeln!(text, "_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let Self { count, seconds, .. } = self;
        let _ = writeln!(
            text,
            "_bucket{{{labels},le=\"+Inf\"}} {count}\n_sum{{{labels}}} {seconds}\n_count{{{labels}}} {count}"
        );
        text
    }
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_prometheus_own() {
        let metrics = Metrics::default();
        metrics.opened("poet");
        metrics.opened("poet");
        metrics.ended("poet", "ok");
        metrics.began("poet", Duration::from_millis(30));
        metrics.refused("invalid_api_key");
        let text = metrics.text(3, &[("http://a \"b\"".to_owned(), true, 2)]);
        for line in [
            "# TYPE batos_weaver_requests_total counter",
            "batos_weaver_requests_total{facet=\"poet\",outcome=\"ok\"} 1",
            "batos_weaver_first_byte_seconds_bucket{facet=\"poet\",le=\"0.01\"} 0",
            "batos_weaver_first_byte_seconds_bucket{facet=\"poet\",le=\"0.05\"} 1",
            "batos_weaver_first_byte_seconds_bucket{facet=\"poet\",le=\"+Inf\"} 1",
            "batos_weaver_open{facet=\"poet\"} 1",
            "batos_weaver_waiting 3",
            "batos_weaver_refusals_total{code=\"invalid_api_key\"} 1",
            "batos_weaver_pod_up{pod=\"http://a \\\"b\\\"\"} 1",
            "batos_weaver_slots_taken{pod=\"http://a \\\"b\\\"\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
