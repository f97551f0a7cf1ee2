use batos_covenant::{ErrorKind, ErrorReply};
use batos_graph::{ObjectId, RecordError, StoreError};

use crate::vm::VmError;

/// Why a universe could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum UniverseError {
    #[error("no object {0:?} in this universe")]
    NoSuchObject(String),
    #[error("message id {0:?} was used before with another payload; use a new id")]
    IdReused(String),
    #[error("message id {0:?} is older than the replies that are kept: look whether it was done, then use a new id")]
    IdExpired(String),
    #[error("lost against other messages {attempts} times, last on {conflict}; send it again with the same id")]
    Contended { attempts: u32, conflict: String },
    #[error("{object}: {seen} is older than {known}, which was applied already")]
    Stale { object: String, seen: String, known: String },
    #[error("{object} cannot go while others refer to it: {by}")]
    InUse { object: String, by: String },
    #[error("slot {slot:?}: {reason}")]
    BadSlot { slot: String, reason: String },
    #[error("slot {slot:?}: {error}")]
    Syntax { slot: String, error: VmError },
    #[error("{0:?} is no mark of a page")]
    BadMark(String),
    #[error("{0}")]
    NotYet(String),
    #[error("{0}")]
    Forbidden(String),
    /// A newer batos has written here.
    #[error("the universe has {found}: it needs batos {needs} or newer, this is {this}")]
    Newer { found: String, needs: String, this: String },
    #[error("universe {0} is there already: an image is restored into an empty one")]
    NotEmpty(String),
    #[error("a restore of the image {0} has not ended: import that image here once more")]
    Unrestored(String),
    #[error("{0}")]
    Turn(#[from] VmError),
    #[error(transparent)]
    Store(StoreError),
    #[error("object {object}: {source}")]
    Record { object: ObjectId, source: RecordError },
    #[error("internal: {0}")]
    Internal(String),
}

impl UniverseError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchObject(_) => ErrorKind::NoSuchObject,
            Self::IdReused(_) => ErrorKind::IdReused,
            Self::Contended { .. } => ErrorKind::Conflict,
            Self::Stale { .. } | Self::IdExpired(_) => ErrorKind::Stale,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::BadSlot { .. } | Self::BadMark(_) | Self::NotEmpty(_) => ErrorKind::BadRequest,
            Self::Syntax { .. } => ErrorKind::SyntaxError,
            Self::Turn(error) => error.kind,
            Self::Store(StoreError::TooLarge(_)) | Self::Record { source: RecordError::TooLarge(_), .. } => {
                ErrorKind::LimitExceeded
            }
            Self::Store(_) | Self::Newer { .. } | Self::Unrestored(_) | Self::NotYet(_) => ErrorKind::Unavailable,
            Self::Record { .. } | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    pub fn to_reply(&self) -> ErrorReply {
        let stack = match self {
            Self::Turn(error) => error.stack.clone(),
            _ => Vec::new(),
        };
        let slot = match self {
            Self::BadSlot { slot, .. } | Self::Syntax { slot, .. } => Some(slot.clone()),
            _ => None,
        };
        ErrorReply { slot, stack, ..ErrorReply::new(self.kind(), self.to_string()) }
    }
}
