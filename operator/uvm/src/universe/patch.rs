//! What a becoming brings into the graph, and where it goes.

use std::{collections::VecDeque, sync::Arc};

use batos_graph::{Intent, ObjectId, Record, Rev, Slot, SlotKind, Value};

use super::{Universe, UniverseError, View, apply::method, commit::Changes};
use crate::{
    image::literal,
    syntax::{SlotNode, SlotNodeKind, parse_slots, print_slot},
    vm::{Reads, Write},
};

/// Objects that the search for a method's holder visits.
const MAX_CHAIN: usize = 256;

/// What a source is, and so where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch<'a> {
    /// A method of this selector, for the holder.
    Method(&'a str),
    /// The method of an intent, which stays one.
    Intent { holder: ObjectId, selector: &'a str },
    /// A method of this object instead of the one that it has; of an intent it stays the method.
    Repair { holder: ObjectId, selector: &'a str },
    /// An object literal: its methods are for the holder, its data for the receiver, which must not have such slots.
    Slots,
}

/// Objects as a patch leaves them, with the names of the slots that it brings.
pub type Patched = Vec<(ObjectId, Record, Vec<String>)>;

impl Patch<'_> {
    /// The records with the source in its place.
    pub fn apply(
        self,
        source: &str,
        receiver: (ObjectId, &Record),
        holder: (ObjectId, &Record),
    ) -> Result<Patched, UniverseError> {
        let (id, record) = holder;
        match self {
            Self::Method(selector) | Self::Intent { selector, .. } | Self::Repair { selector, .. } => {
                Ok(vec![(id, self.on(record, source)?, vec![selector.to_owned()])])
            }
            Self::Slots => slots(source, receiver, holder),
        }
    }

    /// The holder's record with a method in its place.
    pub fn on(self, holder: &Record, source: &str) -> Result<Record, UniverseError> {
        let is_intent = |name: &str| holder.slot(name).is_some_and(|slot| matches!(slot.kind, SlotKind::Intent(_)));
        let slot = match self {
            Self::Intent { selector, .. } => compiled(holder, method(selector, source)?)?,
            Self::Repair { selector, .. } if is_intent(selector) => compiled(holder, method(selector, source)?)?,
            Self::Method(selector) | Self::Repair { selector, .. } => method(selector, source)?,
            Self::Slots => return Err(UniverseError::Internal("several slots are no method".to_owned())),
        };
        let mut record = holder.clone();
        put_slot(&mut record.slots, slot);
        Ok(record)
    }
}

impl Universe {
    /// The change that brings `source` to `receiver`, and the object that will hold its methods.
    pub async fn change(
        &self,
        patch: Patch<'_>,
        receiver: ObjectId,
        source: &str,
    ) -> Result<(Changes, ObjectId), UniverseError> {
        let gone = |id: ObjectId| UniverseError::NoSuchObject(id.to_string());
        let (holder, rev, record) = self.holder_of(patch, receiver).await?;
        let (own_rev, own) = View::new(self).object(receiver).await?.ok_or_else(|| gone(receiver))?;
        let mut changes = Changes::reading(Reads { objects: vec![(holder, Some(rev))], names: Vec::new() });
        for (id, record, changed) in patch.apply(source, (receiver, &own), (holder, &record))? {
            let prev_rev = Some(if id == holder { rev } else { own_rev });
            changes.reads.objects.extend((id != holder).then_some((id, prev_rev)));
            changes.writes.push(Write { id, prev_rev, record, changed });
        }
        Ok((changes, holder))
    }

    /// The object that holds, or would hold, the methods of a patch for `receiver`.
    pub async fn holder_of(
        &self,
        patch: Patch<'_>,
        receiver: ObjectId,
    ) -> Result<(ObjectId, Rev, Arc<Record>), UniverseError> {
        let holder = match patch {
            Patch::Intent { holder, .. } | Patch::Repair { holder, .. } => holder,
            Patch::Method(_) | Patch::Slots => return self.holder(receiver).await,
        };
        let found = View::new(self).object(holder).await?;
        found.map(|(rev, record)| (holder, rev, record)).ok_or_else(|| UniverseError::NoSuchObject(holder.to_string()))
    }

    /// Where a made method goes: the nearest `trait`, not kernel, object in the lookup chain; without one, the receiver.
    pub async fn holder(&self, receiver: ObjectId) -> Result<(ObjectId, Rev, Arc<Record>), UniverseError> {
        let view = View::new(self);
        let mut seen = vec![receiver];
        let mut next = VecDeque::from([receiver]);
        let mut own = None;
        while let Some(id) = next.pop_front() {
            let Some((rev, record)) = view.object(id).await? else { continue };
            if record.is_trait && !record.is_kernel {
                return Ok((id, rev, record));
            }
            for slot in &record.slots {
                if let SlotKind::Parent(Value::Ref(parent)) = &slot.kind
                    && !seen.contains(parent)
                    && seen.len() < MAX_CHAIN
                {
                    seen.push(*parent);
                    next.push_back(*parent);
                }
            }
            own = own.or(Some((id, rev, record)));
        }
        match own {
            Some((id, _, record)) if record.is_kernel => Err(UniverseError::BadSlot {
                slot: id.to_string(),
                reason: "the object belongs to the image; make a prototype of your own".to_owned(),
            }),
            Some(own) => Ok(own),
            None => Err(UniverseError::NoSuchObject(receiver.to_string())),
        }
    }
}

/// The holder's intent with this method.
fn compiled(holder: &Record, made: Slot) -> Result<Slot, UniverseError> {
    let bad = |reason: &str| UniverseError::BadSlot { slot: made.name.clone(), reason: reason.to_owned() };
    let Some(SlotKind::Intent(intent)) = holder.slot(&made.name).map(|slot| &slot.kind) else {
        return Err(bad("is no intent any more"));
    };
    if intent.outcome.is_some() {
        return Err(bad("is answered by a model each time: no method is made of it"));
    }
    let compiled = made.kind.method().map(str::to_owned);
    let kind = SlotKind::Intent(Box::new(Intent { compiled, ..(**intent).clone() }));
    Ok(Slot { kind, ..made })
}

fn slots(
    source: &str,
    (receiver, own): (ObjectId, &Record),
    (holder, shared): (ObjectId, &Record),
) -> Result<Patched, UniverseError> {
    let parsed =
        parse_slots(source).map_err(|error| UniverseError::Syntax { slot: "(|".to_owned(), error: error.into() })?;
    let (mut data, mut methods) = (Vec::new(), Vec::new());
    for node in parsed {
        match datum(&node, own)? {
            Some(slot) => data.push(slot),
            None if matches!(shared.slot(&node.name).map(|slot| &slot.kind), Some(SlotKind::Intent(_))) => {
                let reason = "is an intent: what it shall do is changed in its words".to_owned();
                return Err(UniverseError::BadSlot { slot: node.name, reason });
            }
            None => methods.push(method(&node.name, &print_slot(&node))?),
        }
    }
    let mut patched: Patched = vec![(holder, shared.clone(), Vec::new())];
    if !data.is_empty() && receiver != holder {
        patched.push((receiver, own.clone(), Vec::new()));
    }
    for (id, record, changed) in &mut patched {
        let of_holder = methods.iter().filter(|_| *id == holder);
        for slot in of_holder.chain(data.iter().filter(|_| *id == receiver)) {
            changed.push(slot.name.clone());
            put_slot(&mut record.slots, slot.clone());
        }
    }
    patched.retain(|(.., changed)| !changed.is_empty());
    Ok(patched)
}

/// A slot of data that `own` may be given; none if it is a method.
fn datum(node: &SlotNode, own: &Record) -> Result<Option<Slot>, UniverseError> {
    let bad = |reason: &str| UniverseError::BadSlot { slot: node.name.clone(), reason: reason.to_owned() };
    let not_literal = || bad("begins with a literal: nil, true, false, a number, a string or a symbol");
    let kind = match &node.kind {
        SlotNodeKind::Method(_) => return Ok(None),
        SlotNodeKind::Parent { .. } => return Err(bad("is a parent: parents are not made")),
        SlotNodeKind::Constant(value) => SlotKind::Constant(literal(value).ok_or_else(not_literal)?),
        SlotNodeKind::Assignable(None) => SlotKind::Assignable(Value::Nil),
        SlotNodeKind::Assignable(Some(value)) => SlotKind::Assignable(literal(value).ok_or_else(not_literal)?),
    };
    if own.slot(&node.name).is_some() {
        return Err(bad("is there already, with a value of its own"));
    }
    Ok(Some(Slot { name: node.name.clone(), kind }))
}

pub(super) fn put_slot(slots: &mut Vec<Slot>, slot: Slot) {
    match slots.iter_mut().find(|old| old.name == slot.name) {
        Some(old) => *old = slot,
        None => slots.push(slot),
    }
}
