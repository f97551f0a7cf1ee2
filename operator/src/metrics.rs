//! What a worker counts, in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use batos_bus::{Client, Crew};
use batos_covenant::{ErrorKind, Wire};

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Default)]
struct Turns {
    /// `None` is well.
    outcomes: BTreeMap<Option<String>, u64>,
    /// One for each bound, and one for what is above all.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

#[derive(Default)]
pub struct Metrics {
    turns: Mutex<Turns>,
    waiting: AtomicU64,
}

impl Metrics {
    /// A request has been answered.
    pub fn turn(&self, outcome: Option<ErrorKind>, took: Duration) {
        let kind = outcome.and_then(|kind| serde_json::to_value(kind).ok());
        let kind = kind.as_ref().and_then(Wire::as_str).map(str::to_owned);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        *turns.outcomes.entry(kind).or_default() += 1;
        turns.seconds += seconds;
        if let Some(count) = turns.buckets.get_mut(bucket) {
            *count += 1;
        }
    }

    /// So many events are to be published, that the relay knows of.
    pub fn waiting(&self, events: usize) {
        self.waiting.store(events as u64, Ordering::Relaxed);
    }

    pub fn text(&self, bus: &Client, conflicts: u64, crew: Option<&Crew>) -> String {
        let mut text = String::new();
        self.turns_into(&mut text);
        let counters = bus.counters();
        let waiting = self.waiting.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("conflicts_total", "counter", "Turns that ran again because what they had read was stale", conflicts),
            ("outbox_waiting", "gauge", "Events that the relay tries to publish now", waiting),
            ("events_published_total", "counter", "Events that NATS has", counters.published_events.get()),
            ("publish_failures_total", "counter", "Tries to publish that failed", counters.publish_failures.get()),
            ("events_oversized_total", "counter", "Events too large for the server", counters.oversized_events.get()),
            ("nats_connected", "gauge", "Whether the worker is connected", u64::from(bus.is_connected())),
            ("nats_reconnects_total", "counter", "Connections made again", counters.reconnects.get()),
            ("nats_slow_consumers_total", "counter", "Times that NATS dropped requests", counters.slow_consumers.get()),
            ("nats_refusals_total", "counter", "Publishes and subscriptions refused", counters.refusals.get()),
            ("nats_lame_ducks_total", "counter", "Servers that told of their shutdown", counters.lame_ducks.get()),
            (
                "workers",
                "gauge",
                "Workers that this one knows, itself included",
                crew.map_or(1, |crew| crew.size() as u64),
            ),
            ("forwarded_total", "counter", "Requests that went to another worker", crew.map_or(0, Crew::forwarded)),
            ("busy_total", "counter", "Requests refused because too many waited", counters.busy.get()),
            ("replies_unsent_total", "counter", "Replies that could not be sent", counters.unsent_replies.get()),
        ] {
            let _ = writeln!(text, "# HELP batos_{name} {help}.\n# TYPE batos_{name} {kind}\nbatos_{name} {value}");
        }
        text
    }

    fn turns_into(&self, text: &mut String) {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(
            text,
            "# HELP batos_requests_total Requests by how they ended.\n# TYPE batos_requests_total counter"
        );
        for (kind, count) in &turns.outcomes {
            let kind = kind.as_deref().unwrap_or("ok");
            let _ = writeln!(text, "batos_requests_total{{outcome=\"{kind}\"}} {count}");
        }
        let name = "batos_request_seconds";
        let _ = writeln!(text, "# HELP {name} Time from a request to its reply.\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(&turns.buckets) {
            sum += count;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let all: u64 = turns.buckets.iter().sum();
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {all}\n{name}_sum {}\n{name}_count {all}", turns.seconds);
    }
}
