//! Object ids are random, so that nothing monotonic leads a key; well-known ids belong to the image.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Identity of an object: 16 bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// The id of the image's object number `n`, the same in every universe.
    pub const fn well_known(n: u8) -> Self {
        let mut bytes = [0; 16];
        bytes[15] = n;
        Self(bytes)
    }

    /// Whether it is an id of the image.
    pub fn is_well_known(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, _])
    }

    /// The id that a name has when its object is first made, so that two workers that make it at once conflict.
    pub fn of_name(name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(blake3::hash(name.as_bytes()).as_bytes().split_at(16).0);
        Self(bytes)
    }

    /// One of the 256 shards, the unit of routing and of the relay.
    pub fn shard(&self) -> u8 {
        blake3::hash(&self.0).as_bytes().first().copied().unwrap_or_default()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ObjectId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no object id (32 hexadecimal digits)");
        if text.len() != 32 || !text.is_ascii() {
            return Err(bad());
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| bad())
    }
}

/// The prefix under which everything of one universe lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UniverseKey(pub [u8; 8]);

impl UniverseKey {
    pub fn of(universe: &str) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(blake3::hash(universe.as_bytes()).as_bytes().split_at(8).0);
        Self(bytes)
    }
}
