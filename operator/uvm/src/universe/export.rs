//! The whole universe as rows: exported at one moment, restored into an empty one, checked.

use std::collections::{BTreeMap, BTreeSet};

use batos_covenant::{Listed, Listing, Proposal, Provenance};
use batos_graph::{Key, KeySpace, ObjectId, Past, Place, Record, Snapshot, Store, Value, Versioned};
use serde::{Deserialize, Serialize};

use super::{Universe, UniverseError, buckets, collection, version};
use crate::vm::check_method;

/// Rows that are read at once.
const PAGE: usize = 256;
/// A page ends once it holds this many bytes.
const PAGE_BYTES: usize = 384 * 1024;

/// A row of an image. Its key lacks the universe's prefix, so that an image may be restored under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    pub rev: u64,
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

impl Universe {
    /// A page of rows at a moment, and the key after which the next page begins.
    pub async fn export(
        &self,
        at: Option<Snapshot>,
        after: Option<&[u8]>,
    ) -> Result<(Snapshot, Vec<ImageRow>, Option<Vec<u8>>), UniverseError> {
        let (keys, store) = (self.inner.keys, &self.inner.store);
        let at = match at {
            Some(at) => at,
            None => store.snapshot().await.map_err(UniverseError::Store)?,
        };
        let (mut start, end) = keys.range();
        if let Some(after) = after {
            start = keys.with_suffix(after).successor();
        }
        let found = store.scan(&start, &end, Some(at), PAGE).await.map_err(UniverseError::Store)?;
        let (mut bytes, mut whole) = (0, found.len() < PAGE);
        let (mut rows, mut last) = (Vec::new(), None);
        for (key, row) in found {
            if bytes > PAGE_BYTES {
                whole = false;
                break;
            }
            let Some(suffix) = keys.suffix(&key) else { continue };
            last = Some(suffix.to_vec());
            // Markers settle outcomes of this store's batches; nobody asks for them elsewhere.
            if Place::of(&key) == Some(Place::Marker) {
                continue;
            }
            bytes += suffix.len() + row.bytes.len();
            rows.push(ImageRow { key: suffix.to_vec(), rev: row.rev, value: row.bytes });
        }
        Ok((at, rows, last.filter(|_| !whole)))
    }

    /// Names of objects, a page at a time, in the order of their keys.
    pub async fn list(&self, after: Option<&[u8]>) -> Result<Listing, UniverseError> {
        let keys = self.inner.keys;
        let from = after.and_then(|after| after.first().copied()).unwrap_or(0);
        let mut objects = Vec::new();
        for shard in from..=u8::MAX {
            let (mut start, end) = keys.name_range(shard);
            if let Some(after) = after.filter(|_| shard == from) {
                start = keys.with_suffix(after).successor();
            }
            let rows = self.inner.store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
            let last = rows.last().and_then(|(key, _)| keys.suffix(key)).map(<[u8]>::to_vec);
            let full = rows.len() == PAGE || objects.len() + rows.len() >= PAGE;
            for (key, row) in rows {
                if let (Some(Place::Name(name)), Ok(id)) = (Place::of(&key), <[u8; 16]>::try_from(row.bytes.as_slice()))
                {
                    objects.push(Listed { name, object: ObjectId(id).to_string() });
                }
            }
            if let Some(last) = last.filter(|_| full) {
                return Ok(Listing { objects, next: Some(hex(&last)) });
            }
        }
        Ok(Listing { objects, next: None })
    }
}

/// Lower-case hexadecimal, as page marks have it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a row is an object.
pub fn is_object(row: &ImageRow) -> bool {
    matches!(place(row), Some(Place::Head(_)))
}

pub(super) fn place(row: &ImageRow) -> Option<Place> {
    // The prefix of a key says nothing about its place.
    Place::of(&Key([[0; 8].as_slice(), &row.key].concat()))
}

/// Whether nothing is stored under the universe's name.
pub(super) async fn is_empty(store: &dyn Store, universe: &str) -> Result<bool, UniverseError> {
    let (start, end) = KeySpace::new(universe).range();
    Ok(store.scan(&start, &end, None, 1).await.map_err(UniverseError::Store)?.is_empty())
}

/// What a check looked at, and what is wrong, each with its place.
#[derive(Debug, Default)]
pub struct Checked {
    pub objects: usize,
    pub rows: usize,
    pub problems: Vec<String>,
}

/// Checks a universe that no worker runs: every row can be read, names and objects agree, what is referred to exists,
/// methods compile, histories have no gaps but those that housekeeping leaves, and the buckets of large collections fit
/// together. Refuses what this batos cannot open. `progress` hears how many rows it has looked at.
pub async fn check(store: &dyn Store, universe: &str, mut progress: impl FnMut(u64)) -> Result<Checked, UniverseError> {
    version::admitted(store, KeySpace::new(universe)).await?;
    let mut survey = Survey::default();
    let at = store.snapshot().await.map_err(UniverseError::Store)?;
    let (mut start, end) = KeySpace::new(universe).range();
    loop {
        let rows = store.scan(&start, &end, Some(at), PAGE).await.map_err(UniverseError::Store)?;
        rows.iter().for_each(|(key, row)| survey.row(key, row));
        progress(survey.checked.rows as u64);
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => start = last.successor(),
            _ => return Ok(survey.conclude()),
        }
    }
}

#[derive(Default)]
struct Survey {
    checked: Checked,
    /// Revisions of the objects.
    objects: BTreeMap<ObjectId, u64>,
    /// Histories: each revision that is kept, and whether it is whole.
    history: BTreeMap<ObjectId, BTreeMap<u64, bool>>,
    /// Objects by their own names, and names by the directory.
    named: BTreeMap<String, ObjectId>,
    directory: BTreeMap<String, ObjectId>,
    /// Digests of the last provenance seen.
    lineage: BTreeMap<ObjectId, String>,
    /// Who refers to whom.
    references: Vec<(ObjectId, String, ObjectId)>,
    /// Who refers to whom, as the rows of it say.
    holders: BTreeSet<(ObjectId, ObjectId)>,
    /// Whether these rows are complete.
    is_indexed: bool,
    buckets: buckets::Survey,
}

impl Survey {
    fn problem(&mut self, text: String) {
        self.checked.problems.push(text);
    }

    fn row(&mut self, key: &Key, row: &Versioned) {
        self.checked.rows += 1;
        match Place::of(key) {
            Some(Place::Head(id)) => {
                self.checked.objects += 1;
                self.objects.insert(id, row.rev);
                match Record::decode(&row.bytes) {
                    Ok(record) => self.object(id, &record),
                    Err(error) => self.problem(format!("object {id}: {error}")),
                }
            }
            Some(Place::History(id, rev)) => match Past::decode(&row.bytes) {
                Ok(past) => drop(self.history.entry(id).or_default().insert(rev, past.is_whole)),
                Err(error) => self.problem(format!("object {id}, revision {rev}: {error}")),
            },
            Some(Place::Name(name)) => match <[u8; 16]>::try_from(row.bytes.as_slice()) {
                Ok(id) => drop(self.directory.insert(name, ObjectId(id))),
                Err(_) => self.problem(format!("name {name:?} leads to no id")),
            },
            Some(Place::Outbox(id, rev)) => {
                if let Err(error) = batos_covenant::decode::<super::OutboxEvent>(&row.bytes) {
                    self.problem(format!("event of {id} at {rev}: {error}"));
                }
            }
            Some(Place::Post { .. } | Place::Timer { .. }) => {
                if let Err(error) = batos_covenant::decode::<super::Envelope>(&row.bytes) {
                    self.problem(format!("message {key:?}: {error}"));
                }
            }
            Some(Place::Provenance(id, _)) => {
                // Rows come in the order of revisions.
                let before = self.lineage.get(&id).cloned().unwrap_or_default();
                match batos_covenant::decode::<Provenance>(&row.bytes) {
                    Ok((provenance, _)) if provenance.before != before => {
                        self.problem(format!("provenance of {:?} of {id}: the chain is broken", provenance.selector));
                    }
                    Ok(_) => {}
                    Err(error) => self.problem(format!("provenance of {id}: {error}")),
                }
                self.lineage.insert(id, blake3::hash(&row.bytes).to_hex().to_string());
            }
            Some(Place::Lineage(id)) => {
                if self.lineage.remove(&id).as_ref().map(String::as_bytes) != Some(row.bytes.as_slice()) {
                    self.problem(format!("provenance of {id}: the last record is not the one that was written"));
                }
            }
            Some(Place::Proposal(id)) => {
                if let Err(error) = batos_covenant::decode::<Proposal>(&row.bytes) {
                    self.problem(format!("proposal {id}: {error}"));
                }
            }
            Some(Place::Shipped(id)) => {
                if let Err(error) = Record::decode(&row.bytes) {
                    self.problem(format!("object {id} of the image as it was shipped: {error}"));
                }
            }
            Some(Place::Holder { id, holder }) => drop(self.holders.insert((holder, id))),
            Some(Place::Collection) => self.is_indexed = collection::is_indexed(row),
            Some(
                Place::Inbox(_)
                | Place::Job(_)
                | Place::Marker
                | Place::Sent(_)
                | Place::Version
                | Place::Sweep
                | Place::Halt
                | Place::Spent
                | Place::Laws
                | Place::Unreached(_),
            ) => {}
            None => self.problem(format!("key {key:?} is none of ours")),
        }
    }

    fn object(&mut self, id: ObjectId, record: &Record) {
        if let Some(name) = &record.name
            && let Some(other) = self.named.insert(name.clone(), id)
        {
            self.problem(format!("objects {id} and {other} are both called {name:?}"));
        }
        self.buckets.record(id, record);
        for (place, value) in record.values() {
            if let Value::Ref(target) = value {
                self.references.push((id, place.to_owned(), *target));
            }
        }
        // The image's own methods use primitives, which nobody else may.
        for slot in record.slots.iter().filter(|_| !record.is_kernel) {
            if let Some(source) = slot.kind.method()
                && let Err(error) = check_method(source)
            {
                self.problem(format!("method {:?} of {id}: {error}", slot.name));
            }
        }
    }

    fn conclude(mut self) -> Checked {
        for id in std::mem::take(&mut self.lineage).into_keys() {
            self.problem(format!("provenance of {id}: nothing says which record is the last"));
        }
        let holders = std::mem::take(&mut self.holders);
        let mut seen = BTreeSet::new();
        for (id, place, target) in std::mem::take(&mut self.references) {
            let is_told = target.is_well_known() || holders.contains(&(id, target));
            if self.is_indexed && !is_told {
                self.problem(format!("{place} of {id} refers to {target}, and no row says so"));
            }
            seen.insert((id, target));
            if !self.objects.contains_key(&target) {
                self.problem(format!("{place} of {id} refers to {target}, which is not there"));
            }
        }
        for (id, target) in holders.difference(&seen) {
            self.problem(format!("a row says that {id} refers to {target}, which it does not"));
        }
        for (name, id) in self.named.clone() {
            if self.directory.get(&name) != Some(&id) {
                self.problem(format!("object {id} is called {name:?}, and that name leads elsewhere"));
            }
        }
        for (name, id) in self.directory.clone() {
            if self.named.get(&name) != Some(&id) {
                self.problem(format!("name {name:?} leads to {id}, which is not called so"));
            }
        }
        std::mem::take(&mut self.buckets).conclude(&mut |text| self.problem(text));
        for (id, revs) in std::mem::take(&mut self.history) {
            let now = self.objects.get(&id).copied().unwrap_or(0);
            // Trimmed ones come first, as far apart as their methods' changes.
            let whole: Vec<u64> = revs.iter().filter(|(_, is_whole)| **is_whole).map(|(rev, _)| *rev).collect();
            let first = whole.first().copied().unwrap_or(now);
            let is_trimmed = |rev: u64| revs.get(&rev) == Some(&false);
            if !whole.iter().copied().eq(first..now) || revs.keys().any(|rev| *rev > first && is_trimmed(*rev)) {
                self.problem(format!("the history of {id} up to revision {now} has gaps: {:?}", revs.keys()));
            }
        }
        self.checked
    }
}
