use std::sync::atomic::{AtomicU64, Ordering};

/// What went wrong on a connection since it was made, and how often. Nothing that the bus loses or refuses is missing here.
#[derive(Debug, Default)]
pub struct Counters {
    /// The connection was lost, and made again.
    pub reconnects: Count,
    /// Messages came faster than they were taken, and NATS dropped some.
    pub slow_consumers: Count,
    /// The server refused a publish or a subscription.
    pub refusals: Count,
    /// A server told that it will shut down.
    pub lame_ducks: Count,
    /// Requests that were answered `unavailable` because too many waited.
    pub busy: Count,
    /// Replies that could not be sent, or were too large for the server.
    pub unsent_replies: Count,
    pub published_events: Count,
    /// Tries to publish events that failed; they wait in the outbox.
    pub publish_failures: Count,
    /// Events that are larger than the server takes, and are given up.
    pub oversized_events: Count,
}

#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
