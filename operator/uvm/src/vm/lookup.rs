//! Lookup as Self defines it: own slots, then the union of all parents; two different slots are ambiguous, one slot on
//! two paths is one, cycles are cut.

use batos_covenant::ErrorKind;

use super::{
    VmError,
    error::{Stop, limit},
    heap::Heap,
    map::{MapId, MapSlot, SlotType},
    value::{Handle, Symbol, Value},
};
use crate::image;

/// Objects that one lookup visits.
const MAX_VISITED: usize = 1024;

/// A slot that answers a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// `None`: the receiver itself.
    pub holder: Option<Handle>,
    pub slot: MapSlot,
    /// The message is `x:` and this is the assignable slot `x`.
    pub sets: bool,
}

/// Where lookup starts for a value: itself, if it has slots of its own, and the traits of values that are no objects.
pub(super) fn start(heap: &Heap, value: Value) -> Result<Vec<Handle>, Stop> {
    let map = heap.maps.get(heap.map_of(value)?);
    let own = value.as_object().filter(|_| map.is_some_and(|map| map.implicit.is_none()));
    let array = value.as_object().filter(|_| map.is_some_and(|map| map.implicit.is_some() && !map.slots.is_empty()));
    Ok(own.or(array).into_iter().chain(map.and_then(|map| map.implicit)).collect())
}

/// Looks `selector` up in objects of `map`.
pub(super) fn lookup(heap: &mut Heap, map: MapId, selector: Symbol) -> Result<Option<Found>, Stop> {
    if let Some((slot, sets)) = own(heap, map, selector) {
        return Ok(Some(Found { holder: None, slot, sets }));
    }
    let parents = heap.maps.get(map).map(|map| map.parents.clone()).unwrap_or_default();
    lookup_from(heap, parents, selector)
}

/// Looks `selector` up in `from` and their parents.
pub(super) fn lookup_from(heap: &mut Heap, from: Vec<Handle>, selector: Symbol) -> Result<Option<Found>, Stop> {
    let mut found: Option<Found> = None;
    let mut visited = from.clone();
    let mut next = from;
    next.reverse();
    while let Some(handle) = next.pop() {
        let map = heap.get(handle)?.map;
        if let Ok(object) = heap.get_mut(handle) {
            object.is_ancestor = true;
        }
        let Some((slot, sets)) = own(heap, map, selector) else {
            let parents = heap.maps.get(map).map(|map| map.parents.as_slice()).unwrap_or_default();
            for parent in parents.iter().rev() {
                if !visited.contains(parent) {
                    visited.push(*parent);
                    next.push(*parent);
                }
            }
            if visited.len() > MAX_VISITED {
                return limit(format!("lookup visits more than {MAX_VISITED} objects"));
            }
            continue;
        };
        let other = Found { holder: Some(handle), slot, sets };
        if found.is_some_and(|found| found != other) {
            let text = format!("{:?} is ambiguous: it was found in two parents", heap.symbols.name(selector));
            return Err(Stop::Raise(image::AMBIGUOUS_MESSAGE, VmError::new(ErrorKind::Ambiguous, text)));
        }
        found = Some(other);
    }
    Ok(found)
}

fn own(heap: &Heap, map: MapId, selector: Symbol) -> Option<(MapSlot, bool)> {
    let map = heap.maps.get(map)?;
    if let Some((_, slot)) = map.find(selector) {
        return Some((slot, false));
    }
    let (_, slot) = map.find(heap.symbols.sets(selector)?)?;
    (slot.kind == SlotType::Assignable).then_some((slot, true))
}
