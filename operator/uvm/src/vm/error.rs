use batos_covenant::ErrorKind;
use batos_graph::ObjectId;

use crate::{image, syntax::SyntaxError};

/// Why a turn failed, for the person who sent the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VmError {
    pub kind: ErrorKind,
    pub message: String,
    /// Activations from the innermost outwards: `receiver selector, line n`.
    pub stack: Vec<String>,
    /// The method at fault, if one is.
    pub fault: Option<Box<Fault>>,
}

/// The innermost method outside the image that was running when a turn failed otherwise than by its own word: an error that
/// it signals itself is an answer like others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub holder: ObjectId,
    pub selector: String,
    pub line: u32,
    pub kind: ErrorKind,
}

impl VmError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), stack: Vec::new(), fault: None }
    }
}

impl From<SyntaxError> for VmError {
    fn from(error: SyntaxError) -> Self {
        Self::new(ErrorKind::SyntaxError, error.to_string())
    }
}

/// Why an instruction did not complete.
#[derive(Debug)]
pub(super) enum Stop {
    /// It needs this object; it had no effect and will start again.
    Object(ObjectId),
    /// It needs these, and perhaps more.
    Objects(Vec<ObjectId>),
    /// It needs to know what this name leads to.
    Name(String),
    /// It needs to know who refers to this object.
    Holders(ObjectId),
    NotUnderstood(super::turn::NotUnderstood),
    /// An error that a handler of the language may catch; without one it fails the turn.
    Raise(ObjectId, VmError),
    /// Ends the turn; no handler sees it.
    Fail(VmError),
}

/// A method that fails by its own doing: an `Error`.
pub(super) fn failed<T>(message: impl Into<String>) -> Result<T, Stop> {
    raise(image::ERROR, message)
}

impl Stop {
    /// Whether the instruction starts again once it has what it needs.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Objects(_) | Self::Name(_) | Self::Holders(_))
    }
}

/// Raises the exception of the image whose prototype is `prototype`.
pub(super) fn raise<T>(prototype: ObjectId, message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Raise(prototype, VmError::new(ErrorKind::MethodFailed, message)))
}

pub(super) fn limit<T>(message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Fail(VmError::new(ErrorKind::LimitExceeded, message)))
}

/// `selector` of `name` is carried out by the machine itself.
pub(super) fn forbidden<T>(name: &str, selector: &str) -> Result<T, Stop> {
    let text = format!("{selector:?} of {name} belongs to the machine: nobody may change it");
    Err(Stop::Fail(VmError::new(ErrorKind::Forbidden, text)))
}
