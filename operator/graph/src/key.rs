//! Key layout: `universe(8) · shard(1) · area(1) · …`. What belongs to one object lies together.
//!
//! | area | rest | value |
//! |---|---|---|
//! | 1 object | id(16) 1 | head: the record |
//! | 1 object | id(16) 2 rev(8) | history: the record that this revision replaced |
//! | 1 object | id(16) 3 message(16) | inbox marker with the stored reply |
//! | 2 outbox | id(16) rev(8) | an event to publish |
//! | 3 jobs | job id(16) | a becoming's journal |
//! | 4 names | name | id of the object |
//! | 5 markers | 16 bytes | markers of batches that are no messages |

use std::fmt;

use crate::{ObjectId, Rev, UniverseKey};

/// A key of the store: bytes, ordered as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Builds the keys of one universe.
#[derive(Clone, Copy, Debug)]
pub struct KeySpace {
    universe: UniverseKey,
}

const OBJECT: u8 = 1;
const OUTBOX: u8 = 2;
const JOBS: u8 = 3;
const NAMES: u8 = 4;
const MARKERS: u8 = 5;

impl KeySpace {
    pub fn new(universe: &str) -> Self {
        Self { universe: UniverseKey::of(universe) }
    }

    fn key(&self, shard: u8, area: u8, parts: &[&[u8]]) -> Key {
        let mut bytes = self.universe.0.to_vec();
        bytes.extend([shard, area]);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Key(bytes)
    }

    pub fn head(&self, id: ObjectId) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[1]])
    }

    pub fn history(&self, id: ObjectId, rev: Rev) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[2], &rev.to_be_bytes()])
    }

    pub fn inbox(&self, id: ObjectId, message: [u8; 16]) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[3], &message])
    }

    pub fn outbox(&self, id: ObjectId, rev: Rev) -> Key {
        self.key(id.shard(), OUTBOX, &[&id.0, &rev.to_be_bytes()])
    }

    pub fn job(&self, id: ObjectId) -> Key {
        self.key(id.shard(), JOBS, &[&id.0])
    }

    pub fn name(&self, name: &str) -> Key {
        self.key(ObjectId::of_name(name).shard(), NAMES, &[name.as_bytes()])
    }

    pub fn marker(&self, id: [u8; 16]) -> Key {
        self.key(ObjectId(id).shard(), MARKERS, &[&id])
    }

    /// Range of all outbox records of a shard.
    pub fn outbox_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, OUTBOX, &[]), self.key(shard, OUTBOX + 1, &[]))
    }

    /// Range of all jobs of a shard.
    pub fn job_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, JOBS, &[]), self.key(shard, JOBS + 1, &[]))
    }

    /// The object that a key of area 1 or 2 belongs to.
    pub fn object_of(key: &Key) -> Option<ObjectId> {
        let area = key.0.get(9)?;
        let id: [u8; 16] = key.0.get(10..26)?.try_into().ok()?;
        matches!(*area, OBJECT | OUTBOX).then_some(ObjectId(id))
    }
}
