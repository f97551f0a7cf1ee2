/// What failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusErrorKind {
    Connect,
    Subscribe,
    Publish,
    /// Nobody serves the subject: the universe's worker is not up.
    NoResponders,
    /// No reply within the deadline; the message may have been carried out. Repeat it with the same id.
    TimedOut,
    Encoding,
    /// The server does not let this user publish there.
    Forbidden,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BusError {
    pub kind: BusErrorKind,
    pub message: String,
}

impl BusError {
    pub(crate) fn new(kind: BusErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
