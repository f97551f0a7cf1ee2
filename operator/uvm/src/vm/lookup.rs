//! Lookup as Self defines it: own slots, then the union of all parents; two different slots are ambiguous, one slot on
//! two paths is one, cycles are cut.

use batos_covenant::ErrorKind;

use super::{
    VmError,
    error::{Stop, limit},
    heap::{Body, Heap, SlotType},
    value::{Handle, Kind, Symbol, Value},
};
use crate::image;

/// Objects that one lookup visits.
const MAX_VISITED: usize = 1024;

/// A slot that answers a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Answers its value, or runs.
    Slot { holder: Handle, index: usize },
    /// `x:` of the assignable slot `x`.
    Setter { holder: Handle, index: usize },
}

/// Where lookup starts for a value, and the traits of values that are no objects of the graph.
pub(super) fn start(heap: &mut Heap, value: Value) -> Result<Vec<Handle>, Stop> {
    let traits = match value.kind() {
        Kind::Nil => image::NIL,
        Kind::Bool(true) => image::TRUE,
        Kind::Bool(false) => image::FALSE,
        Kind::Int(_) => image::INTEGER_TRAITS,
        Kind::Float(_) => image::FLOAT_TRAITS,
        Kind::Symbol(_) => image::SYMBOL_TRAITS,
        Kind::Object(handle) => match &heap.get(handle)?.body {
            Body::Plain | Body::Context { .. } => return Ok(vec![handle]),
            // An array of the graph is an object with an identity; its slots come first.
            Body::Array(_) => {
                let traits = heap.refer(image::ARRAY_TRAITS);
                return Ok(vec![handle, traits]);
            }
            Body::Str(_) => image::STRING_TRAITS,
            Body::Big(_) => image::INTEGER_TRAITS,
            Body::Block(_) => image::BLOCK_TRAITS,
        },
    };
    Ok(vec![heap.refer(traits)])
}

/// Looks `selector` up from `from`. `setter` is the slot name when the selector is `name:`.
pub(super) fn lookup(
    heap: &Heap,
    from: Vec<Handle>,
    selector: Symbol,
    setter: Option<Symbol>,
) -> Result<Option<Found>, Stop> {
    let mut found: Option<Found> = None;
    let mut visited = from.clone();
    let mut next = from;
    next.reverse();
    while let Some(handle) = next.pop() {
        let object = heap.get(handle)?;
        let own = object.slots.iter().enumerate().find_map(|(index, slot)| {
            if slot.name == selector {
                return Some(Found::Slot { holder: handle, index });
            }
            let set = Some(slot.name) == setter && slot.kind == SlotType::Assignable;
            set.then_some(Found::Setter { holder: handle, index })
        });
        match (own, found) {
            (Some(slot), None) => found = Some(slot),
            (Some(slot), Some(other)) if slot != other => {
                let text = format!("{:?} is ambiguous: it was found in two parents", heap.symbols.name(selector));
                return Err(Stop::Raise(image::AMBIGUOUS_MESSAGE, VmError::new(ErrorKind::Ambiguous, text)));
            }
            (Some(_), Some(_)) => {}
            (None, _) => {
                let parents = object.slots.iter().rev().filter(|slot| slot.kind == SlotType::Parent);
                for parent in parents.filter_map(|slot| slot.value.as_object()) {
                    if !visited.contains(&parent) {
                        visited.push(parent);
                        next.push(parent);
                    }
                }
                if visited.len() > MAX_VISITED {
                    return limit(format!("lookup visits more than {MAX_VISITED} objects"));
                }
            }
        }
    }
    Ok(found)
}
