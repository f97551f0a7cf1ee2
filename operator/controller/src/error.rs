use std::time::Duration;

/// Why a reconciliation stopped before its end; it is repeated with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Kubernetes { what: String, source: Box<kube::Error> },
    #[error("{what}: no answer within {} s", after.as_secs())]
    TimedOut { what: String, after: Duration },
    /// The status says what; only time or another object can help.
    #[error("{0}")]
    NotYet(String),
    #[error("{what}: {source}")]
    Encode { what: String, source: serde_json::Error },
    /// A reconciled object without name or namespace.
    #[error("an object without {0}")]
    Nameless(&'static str),
    /// Another operator acts, or may.
    #[error("this operator leads no more")]
    Deposed,
    /// What a person asked for is not to be had.
    #[error("{0}")]
    Asked(String),
    #[error("cannot start: {0}")]
    Start(String),
}
