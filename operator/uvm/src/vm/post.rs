//! Messages that a turn sends to run in turns of their own.

use std::{fmt, str::FromStr};

use batos_graph::{ObjectId, Value as Stored};
use serde::{Deserialize, Serialize};

use super::value::Value;

/// A message to an object of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Post {
    pub receiver: ObjectId,
    pub selector: String,
    pub arguments: Vec<Stored>,
    /// When it is due; `None`: at once, after those that the same object sent the same receiver before.
    pub timer: Option<TimerId>,
}

/// Names one timer of an object. Its text is what the language has: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimerId {
    /// Milliseconds since 1970.
    pub due: u64,
    pub nonce: [u8; 8],
}

impl fmt::Display for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.due, u64::from_be_bytes(self.nonce))
    }
}

impl FromStr for TimerId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let number = |part: &str| u64::from_str_radix(part, 16).map_err(|_| ());
        match text.split_at_checked(16) {
            Some((due, nonce)) if nonce.len() == 16 && text.bytes().all(is_digit) => {
                Ok(Self { due: number(due)?, nonce: number(nonce)?.to_be_bytes() })
            }
            _ => Err(()),
        }
    }
}

/// A message as it waits in a turn that runs.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    pub receiver: Value,
    pub selector: String,
    pub arguments: Vec<Value>,
    pub timer: Option<TimerId>,
}
