//! Key layout: `universe(8) · shard(1) · area(1) · …`. What belongs to one object lies together.
//!
//! | area | rest | value |
//! |---|---|---|
//! | 1 object | id(16) 1 | head: the record |
//! | 1 object | id(16) 2 rev(8) | history: the record that this revision replaced |
//! | 1 object | id(16) 3 message(16) | inbox marker with the stored reply |
//! | 1 object | id(16) 4 holder(16) | another object refers to this one |
//! | 1 object | id(16) 5 | its revision counts the turns in which the object sent messages of their own |
//! | 1 object | id(16) 7 rev(8) | where a method came from that this revision brought |
//! | 1 object | id(16) 8 | digest of the last of these |
//! | 2 outbox | id(16) rev(8) [note] | an event to publish |
//! | 3 jobs | job id(16) | a becoming's journal |
//! | 4 names | name | id of the object |
//! | 5 markers | 16 bytes | markers of batches that are no messages |
//! | 6 posts | sender(16) turn(8) number(4) | a message to deliver, in the sender's shard |
//! | 7 timers | due(8) receiver(16) nonce(8) | a message to deliver when it is due, in the receiver's shard |
//! | 8 universe | 1 | what may open the universe: format, image |
//! | 8 universe | 2 id(16) | an object of the image, as it was shipped last |
//! | 8 universe | 3 | how far housekeeping has come |
//! | 8 universe | 4 | how far the collection of unreachable objects has come |
//! | 9 unreached | id(16) | an object that nothing reached when it was looked for |
//! | 10 proposals | proposal id(16) | a change that waits for a person |

use std::fmt;

use crate::{ObjectId, Rev, UniverseKey};

/// A key of the store: bytes, ordered as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Vec<u8>);

impl Key {
    /// The shard of a universe's key.
    pub fn shard(&self) -> Option<u8> {
        self.0.get(8).copied()
    }

    /// The least key after this one.
    pub fn successor(&self) -> Self {
        Self([self.0.as_slice(), &[0]].concat())
    }
}

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
const POSTS: u8 = 6;
const TIMERS: u8 = 7;
const UNREACHED: u8 = 9;
const PROPOSALS: u8 = 10;
/// In shard 0.
const UNIVERSE: u8 = 8;

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

    /// Where a method came from that revision `rev` of the object brought.
    pub fn provenance(&self, id: ObjectId, rev: Rev) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[7], &rev.to_be_bytes()])
    }

    /// Range of all provenance of an object.
    pub fn provenance_range(&self, id: ObjectId) -> (Key, Key) {
        (self.key(id.shard(), OBJECT, &[&id.0, &[7]]), self.key(id.shard(), OBJECT, &[&id.0, &[8]]))
    }

    /// Digest of the object's last provenance.
    pub fn lineage(&self, id: ObjectId) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[8]])
    }

    pub fn proposal(&self, id: ObjectId) -> Key {
        self.key(id.shard(), PROPOSALS, &[&id.0])
    }

    /// Range of all proposals of a shard.
    pub fn proposal_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, PROPOSALS, &[]), self.key(shard, PROPOSALS + 1, &[]))
    }

    /// That `holder` refers to `id`.
    pub fn holder(&self, id: ObjectId, holder: ObjectId) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[4], &holder.0])
    }

    /// Range of all who refer to an object.
    pub fn holder_range(&self, id: ObjectId) -> (Key, Key) {
        (self.key(id.shard(), OBJECT, &[&id.0, &[4]]), self.key(id.shard(), OBJECT, &[&id.0, &[5]]))
    }

    /// Range of all that belongs to an object, its head first.
    pub fn own_range(&self, id: ObjectId) -> (Key, Key) {
        (self.head(id), self.key(id.shard(), OBJECT, &[&id.0, &[u8::MAX]]))
    }

    pub fn unreached(&self, id: ObjectId) -> Key {
        self.key(id.shard(), UNREACHED, &[&id.0])
    }

    /// Range of a shard's objects that nothing reached.
    pub fn unreached_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, UNREACHED, &[]), self.key(shard, UNREACHED + 1, &[]))
    }

    /// Counts the turns in which an object sent messages of their own.
    pub fn sent(&self, id: ObjectId) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[5]])
    }

    /// Message number `number` of the `turn`-th turn in which `sender` sent some.
    pub fn post(&self, sender: ObjectId, turn: Rev, number: u32) -> Key {
        self.key(sender.shard(), POSTS, &[&sender.0, &turn.to_be_bytes(), &number.to_be_bytes()])
    }

    /// Range of all messages of a shard's objects that wait.
    pub fn post_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, POSTS, &[]), self.key(shard, POSTS + 1, &[]))
    }

    /// A timer of `receiver`; `due` in milliseconds since 1970.
    pub fn timer(&self, receiver: ObjectId, due: u64, nonce: [u8; 8]) -> Key {
        self.key(receiver.shard(), TIMERS, &[&due.to_be_bytes(), &receiver.0, &nonce])
    }

    /// Range of a shard's timers, the earliest first.
    pub fn timer_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, TIMERS, &[]), self.key(shard, TIMERS + 1, &[]))
    }

    pub fn outbox(&self, id: ObjectId, rev: Rev) -> Key {
        self.key(id.shard(), OUTBOX, &[&id.0, &rev.to_be_bytes()])
    }

    /// An event beside those of revisions: after the revision's own, in the order of `note`.
    pub fn outbox_note(&self, id: ObjectId, rev: Rev, note: &[u8]) -> Key {
        self.key(id.shard(), OUTBOX, &[&id.0, &rev.to_be_bytes(), note])
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

    pub fn version(&self) -> Key {
        self.key(0, UNIVERSE, &[&[1]])
    }

    pub fn shipped(&self, id: ObjectId) -> Key {
        self.key(0, UNIVERSE, &[&[2], &id.0])
    }

    pub fn sweep(&self) -> Key {
        self.key(0, UNIVERSE, &[&[3]])
    }

    pub fn collection(&self) -> Key {
        self.key(0, UNIVERSE, &[&[4]])
    }

    /// Why the universe makes nothing by itself.
    pub fn halt(&self) -> Key {
        self.key(0, UNIVERSE, &[&[5]])
    }

    /// What it has made and what models were asked lately.
    pub fn spent(&self) -> Key {
        self.key(0, UNIVERSE, &[&[6]])
    }

    /// The laws in force.
    pub fn laws(&self) -> Key {
        self.key(0, UNIVERSE, &[&[7]])
    }

    /// Range of all objects of the image as they were shipped.
    pub fn shipped_range(&self) -> (Key, Key) {
        (self.key(0, UNIVERSE, &[&[2]]), self.key(0, UNIVERSE, &[&[3]]))
    }

    /// Range of all that a shard has of objects.
    pub fn object_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, OBJECT, &[]), self.key(shard, OBJECT + 1, &[]))
    }

    /// Range of a shard's markers of batches that are no messages.
    pub fn marker_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, MARKERS, &[]), self.key(shard, MARKERS + 1, &[]))
    }

    /// Where an object's rows begin that lie behind its history.
    pub fn after_history(&self, id: ObjectId) -> Key {
        self.key(id.shard(), OBJECT, &[&id.0, &[3]])
    }

    /// Range of all outbox records of a shard.
    pub fn outbox_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, OUTBOX, &[]), self.key(shard, OUTBOX + 1, &[]))
    }

    /// Whether a key is an outbox record's.
    pub fn is_outbox(key: &Key) -> bool {
        key.0.get(9) == Some(&OUTBOX)
    }

    /// Range of all jobs of a shard.
    pub fn job_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, JOBS, &[]), self.key(shard, JOBS + 1, &[]))
    }

    /// Range of all names of a shard.
    pub fn name_range(&self, shard: u8) -> (Key, Key) {
        (self.key(shard, NAMES, &[]), self.key(shard, NAMES + 1, &[]))
    }

    /// Range of an object's history, up to and without revision `before`.
    pub fn history_range(&self, id: ObjectId, before: Rev) -> (Key, Key) {
        (self.history(id, 0), self.history(id, before))
    }

    /// Range of everything that belongs to the universe.
    pub fn range(&self) -> (Key, Key) {
        let start = self.universe.0.to_vec();
        let end =
            u64::from_be_bytes(self.universe.0).checked_add(1).map_or(vec![0xff; 9], |end| end.to_be_bytes().to_vec());
        (Key(start), Key(end))
    }

    /// A key without the universe's prefix, as an image file has it.
    pub fn suffix<'a>(&self, key: &'a Key) -> Option<&'a [u8]> {
        key.0.strip_prefix(self.universe.0.as_slice())
    }

    /// The key of this universe that ends in `suffix`.
    pub fn with_suffix(&self, suffix: &[u8]) -> Key {
        Key([self.universe.0.as_slice(), suffix].concat())
    }

    /// The object that a key of area 1 or 2 belongs to.
    pub fn object_of(key: &Key) -> Option<ObjectId> {
        let area = key.0.get(9)?;
        let id: [u8; 16] = key.0.get(10..26)?.try_into().ok()?;
        matches!(*area, OBJECT | OUTBOX).then_some(ObjectId(id))
    }
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Head(ObjectId),
    History(ObjectId, Rev),
    Inbox(ObjectId),
    Holder { id: ObjectId, holder: ObjectId },
    Outbox(ObjectId, Rev),
    Job(ObjectId),
    Name(String),
    Marker,
    Sent(ObjectId),
    Provenance(ObjectId, Rev),
    Lineage(ObjectId),
    Proposal(ObjectId),
    Post { sender: ObjectId },
    Timer { receiver: ObjectId, due: u64 },
    Version,
    Shipped(ObjectId),
    Sweep,
    Collection,
    Halt,
    Spent,
    Laws,
    Unreached(ObjectId),
}

impl Place {
    /// `None` for what this version does not know.
    pub fn of(key: &Key) -> Option<Self> {
        let rest = key.0.get(9..)?;
        let (area, rest) = rest.split_first()?;
        let id = || rest.first_chunk::<16>().map(|id| ObjectId(*id));
        let tail = rest.get(16..).unwrap_or_default();
        let rev = |bytes: &[u8]| bytes.try_into().ok().map(Rev::from_be_bytes);
        match (*area, tail.split_first()) {
            (OBJECT, Some((1, []))) => Some(Self::Head(id()?)),
            (OBJECT, Some((2, bytes))) => Some(Self::History(id()?, rev(bytes)?)),
            (OBJECT, Some((3, bytes))) if bytes.len() == 16 => Some(Self::Inbox(id()?)),
            (OBJECT, Some((4, holder))) => Some(Self::Holder { id: id()?, holder: ObjectId(holder.try_into().ok()?) }),
            (OBJECT, Some((5, []))) => Some(Self::Sent(id()?)),
            (OBJECT, Some((7, bytes))) => Some(Self::Provenance(id()?, rev(bytes)?)),
            (OBJECT, Some((8, []))) => Some(Self::Lineage(id()?)),
            (UNREACHED, None) => Some(Self::Unreached(id()?)),
            (PROPOSALS, None) => Some(Self::Proposal(id()?)),
            (POSTS, Some(_)) if tail.len() == 12 => Some(Self::Post { sender: id()? }),
            (TIMERS, Some(_)) if rest.len() == 32 => {
                let (due, receiver) = rest.split_first_chunk::<8>()?;
                let receiver = ObjectId(*receiver.first_chunk::<16>()?);
                Some(Self::Timer { receiver, due: u64::from_be_bytes(*due) })
            }
            (OUTBOX, Some(_)) => Some(Self::Outbox(id()?, rev(tail.get(..8)?)?)),
            (JOBS, None) => Some(Self::Job(id()?)),
            (NAMES, _) => String::from_utf8(rest.to_vec()).ok().map(Self::Name),
            (MARKERS, None) => id().map(|_| Self::Marker),
            (UNIVERSE, _) => match rest.split_first()? {
                (1, []) => Some(Self::Version),
                (2, id) => id.try_into().ok().map(|id| Self::Shipped(ObjectId(id))),
                (3, []) => Some(Self::Sweep),
                (4, []) => Some(Self::Collection),
                (5, []) => Some(Self::Halt),
                (6, []) => Some(Self::Spent),
                (7, []) => Some(Self::Laws),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_lie_in_their_ranges() {
        let (keys, id) = (KeySpace::new("one"), ObjectId::of_name("account"));
        for (key, place) in [
            (keys.head(id), Place::Head(id)),
            (keys.history(id, 7), Place::History(id, 7)),
            (keys.inbox(id, [9; 16]), Place::Inbox(id)),
            (keys.outbox(id, 7), Place::Outbox(id, 7)),
            (keys.outbox_note(id, 7, &[1, 2]), Place::Outbox(id, 7)),
            (keys.job(id), Place::Job(id)),
            (keys.name("account"), Place::Name("account".to_owned())),
            (keys.marker([8; 16]), Place::Marker),
            (keys.sent(id), Place::Sent(id)),
            (keys.provenance(id, 3), Place::Provenance(id, 3)),
            (keys.lineage(id), Place::Lineage(id)),
            (keys.proposal(id), Place::Proposal(id)),
            (keys.post(id, 7, 1), Place::Post { sender: id }),
            (keys.timer(id, 9, [1; 8]), Place::Timer { receiver: id, due: 9 }),
            (keys.version(), Place::Version),
            (keys.shipped(id), Place::Shipped(id)),
            (keys.sweep(), Place::Sweep),
            (keys.collection(), Place::Collection),
            (keys.halt(), Place::Halt),
            (keys.spent(), Place::Spent),
            (keys.laws(), Place::Laws),
            (keys.unreached(id), Place::Unreached(id)),
            (keys.holder(id, ObjectId::well_known(9)), Place::Holder { id, holder: ObjectId::well_known(9) }),
        ] {
            assert_eq!(Place::of(&key), Some(place.clone()));
            let (start, end) = keys.range();
            assert!(start <= key && key < end, "{place:?}");
            assert_eq!(keys.with_suffix(keys.suffix(&key).unwrap()), key);
            assert_eq!(KeySpace::new("other").suffix(&key), None);
        }
        assert!(KeySpace::is_outbox(&keys.outbox(id, 7)));
        assert!(!KeySpace::is_outbox(&keys.head(id)));
        assert_eq!(Place::of(&Key(vec![1; 12])), None);
        let (start, end) = keys.history_range(id, 7);
        assert!(start <= keys.history(id, 6) && keys.history(id, 6) < end && keys.history(id, 7) >= end);
    }
}
