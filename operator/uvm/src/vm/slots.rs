//! Slots of objects: what a map says of them and what the object holds.

use std::sync::Arc;

use batos_covenant::OutcomeDefinition;
use batos_graph::Intent;

use super::{
    error::{Stop, forbidden},
    heap::{Body, Heap, Method, OBJECT_BYTES, Object, Origin, SLOT_BYTES},
    map::{MapId, MapSlot, Slot, SlotType, reserved},
    symbols::known,
    value::{Handle, Symbol, Value},
};

/// Bytes charged for a method beside its source.
const METHOD_BYTES: usize = 512;

impl Heap {
    /// A new object with the slots of another.
    pub fn like(&mut self, handle: Handle, body: Body) -> Result<Handle, Stop> {
        let object = self.get(handle)?;
        let (map, at, words) = (object.map, object.at as usize, object.words as usize);
        let Some(known) = self.maps.get(map) else { return self.too_large() };
        let says = known.slots.iter().any(|slot| slot.kind == SlotType::Parent);
        if known.implicit.is_some() != (body.is_array() && !says) {
            let slots = self.slots(handle)?;
            return self.create(slots, body);
        }
        self.charge(OBJECT_BYTES + body.bytes().saturating_add(words * 8))?;
        self.created += 1;
        let new_at = self.words.len() as u32;
        self.words.extend_from_within(at..at + words);
        Ok(self.push(Object {
            map,
            at: new_at,
            words: words as u32,
            dirty: false,
            is_ancestor: false,
            is_ascii: false,
            body,
            origin: Origin::New(self.created),
        }))
    }

    /// The map of an object with these slots, and the values of its data slots.
    pub(super) fn shape(&mut self, slots: &[Slot], body: &Body) -> (MapId, Vec<Value>) {
        let map = match body {
            Body::Str(_) => reserved::STR,
            Body::Big(_) => reserved::BIG,
            Body::Fraction(_) => reserved::FRACTION,
            Body::Block { .. } => reserved::BLOCK,
            body if slots.is_empty() && body.is_array() => reserved::ARRAY,
            _ if slots.is_empty() => reserved::EMPTY,
            _ => reserved::NONE,
        };
        if map != reserved::NONE {
            return (map, Vec::new());
        }
        let mut data = Vec::with_capacity(slots.len());
        let map_slots = slots.iter().map(|slot| {
            let content = match slot.kind {
                SlotType::Constant | SlotType::Assignable => {
                    data.push(slot.value);
                    Value::small(data.len() - 1)
                }
                SlotType::Parent | SlotType::Method => slot.value,
            };
            MapSlot { name: slot.name, kind: slot.kind, content }
        });
        let map_slots: Arc<[MapSlot]> = map_slots.collect();
        // What has elements is an array, unless it says itself what it is.
        let says = slots.iter().any(|slot| slot.kind == SlotType::Parent);
        let array = || self.maps.get(reserved::ARRAY).and_then(|map| map.implicit);
        let implicit = if body.is_array() && !says { array() } else { None };
        (self.maps.intern(implicit, map_slots), data)
    }

    pub(super) fn with_value(&self, object: &Object, slot: MapSlot) -> Slot {
        let value = match slot.is_data() {
            true => self.words.get(object.at as usize + slot.place()).copied().unwrap_or(Value::NIL),
            false => slot.content,
        };
        Slot { name: slot.name, kind: slot.kind, value }
    }

    /// An object's own slots.
    pub fn slots(&self, handle: Handle) -> Result<Vec<Slot>, Stop> {
        let object = self.get(handle)?;
        let slots = self.maps.get(object.map).map(|map| map.slots.iter()).into_iter().flatten();
        Ok(slots.map(|slot| self.with_value(object, *slot)).collect())
    }

    pub fn slot(&self, handle: Handle, name: Symbol) -> Result<Option<Slot>, Stop> {
        let object = self.get(handle)?;
        let slot = self.maps.get(object.map).and_then(|map| map.find(name));
        Ok(slot.map(|(_, slot)| self.with_value(object, slot)))
    }

    /// The objects that lookup goes on in, behind the object's own slots.
    pub fn parents(&self, handle: Handle) -> Result<&[Handle], Stop> {
        let object = self.get(handle)?;
        Ok(self.maps.get(object.map).map_or(&[], |map| &map.parents))
    }

    /// Adds a slot or replaces the one of that name.
    pub fn put_slot(&mut self, handle: Handle, slot: Slot) -> Result<(), Stop> {
        self.refuse_operator(handle, slot.name)?;
        let mut slots = self.slots(handle)?;
        match slots.iter_mut().find(|old| old.name == slot.name) {
            Some(old) => *old = slot,
            None => slots.push(slot),
        }
        self.set_slots(handle, &slots)
    }

    pub fn remove_slot(&mut self, handle: Handle, name: Symbol) -> Result<(), Stop> {
        self.refuse_operator(handle, name)?;
        let mut slots = self.slots(handle)?;
        slots.retain(|slot| slot.name != name);
        self.set_slots(handle, &slots)
    }

    /// Gives an object these slots instead of its own.
    pub(super) fn set_slots(&mut self, handle: Handle, slots: &[Slot]) -> Result<(), Stop> {
        // Charged as if nothing of it were there yet, so that it does not matter what other objects look like.
        self.charge((slots.len() + 1) * SLOT_BYTES)?;
        let empty = Body::Plain;
        let body = std::mem::replace(&mut self.get_mut(handle)?.body, empty);
        let (map, data) = self.shape(slots, &body);
        self.get_mut(handle)?.body = body;
        self.reshape(handle, map, &data)
    }

    /// An assignable slot that the object lacks.
    pub fn add_slot(&mut self, handle: Handle, name: Symbol, value: Value) -> Result<(), Stop> {
        let object = self.get(handle)?;
        let (at, count, map) = (object.at as usize, object.words as usize, object.map);
        // A constant of that name gives way.
        let is_new = map.0 >= reserved::EMPTY.0 && self.maps.get(map).is_some_and(|map| map.find(name).is_none());
        let Some(map) = is_new.then(|| self.maps.with_slot(map, name)).flatten() else {
            return self.put_slot(handle, Slot { name, kind: SlotType::Assignable, value });
        };
        self.charge((count + 2) * SLOT_BYTES)?;
        let new_at = self.words.len() as u32;
        if at + count == self.words.len() {
            // The newest object grows in place.
            self.words.push(value);
            return self.moved(handle, map, at as u32, count as u32 + 1);
        }
        self.words.extend_from_within(at..at + count);
        self.words.push(value);
        self.moved(handle, map, new_at, count as u32 + 1)
    }

    pub(super) fn reshape(&mut self, handle: Handle, map: MapId, data: &[Value]) -> Result<(), Stop> {
        let at = self.words.len() as u32;
        self.words.extend_from_slice(data);
        self.moved(handle, map, at, data.len() as u32)
    }

    pub(super) fn moved(&mut self, handle: Handle, map: MapId, at: u32, words: u32) -> Result<(), Stop> {
        let object = self.get_mut(handle)?;
        let is_ancestor = object.is_ancestor && object.map != map;
        (object.map, object.at, object.words, object.dirty) = (map, at, words, true);
        self.epoch += u64::from(is_ancestor);
        Ok(())
    }

    /// The operators of the image's numbers and booleans are carried out by the machine itself: nobody replaces them.
    pub(super) fn refuse_operator(&self, handle: Handle, name: Symbol) -> Result<(), Stop> {
        let object = self.get(handle)?;
        match object.record().filter(|record| record.is_kernel && name.0 <= known::NOT.0) {
            Some(record) => forbidden(record.name.as_deref().unwrap_or_default(), self.symbols.name(name)),
            None => Ok(()),
        }
    }

    /// Enters a method that the program made into the table.
    pub fn make_method(&mut self, name: Symbol, source: Arc<str>) -> Result<Value, Stop> {
        // With its code, which stays linked to the end of the turn.
        self.charge_for_good(METHOD_BYTES + source.len())?;
        Ok(self.method(name, source, false))
    }

    /// Enters a method into the table; the answer is a method slot's value.
    pub fn method(&mut self, name: Symbol, source: Arc<str>, is_kernel: bool) -> Value {
        self.methods.push(Method { name, source, is_kernel, intent: None, code: None });
        Value::small(self.methods.len() - 1)
    }

    /// The method that an intent has become; until then one that asks for it.
    pub fn intent(&mut self, name: Symbol, intent: &Intent) -> Value {
        let (source, is_made) = match &intent.compiled {
            Some(source) => (Arc::from(source.as_str()), true),
            None => (Arc::from(wanting(self.symbols.name(name), intent)), false),
        };
        self.methods.push(Method {
            name,
            source,
            is_kernel: !is_made,
            intent: Some(Arc::new(intent.clone())),
            code: None,
        });
        Value::small(self.methods.len() - 1)
    }

    /// The entry of the method table that a method slot names.
    pub fn method_of(&self, slot: &Slot) -> Option<&Method> {
        self.methods.get(usize::try_from(slot.value.as_int()?).ok()?)
    }
}

/// Source of a method that stands for an intent: it has an activation of its own, which says who holds it.
fn wanting(selector: &str, intent: &Intent) -> String {
    let (header, arguments) = (header(selector, &intent.arguments), intent.arguments.join(". "));
    let outcome = intent.outcome.as_ref().and_then(|text| serde_json::from_str::<OutcomeDefinition>(text).ok());
    let fields = outcome.map(|outcome| outcome.answers.fields).unwrap_or_default();
    // The fields of a record come as an array.
    let slots = fields.keys().enumerate().map(|(n, field)| format!("{field} = (made at: {}) yourself", n + 1));
    let answer = match fields.is_empty() {
        true => "made".to_owned(),
        false => format!("(| {} |)", slots.collect::<Vec<_>>().join(". ")),
    };
    format!("{header} = ( | made | made := _Intent: #{selector} With: {{{arguments}}}. ^{answer} )")
}

/// How many arguments a selector takes.
pub fn arity(selector: &str) -> usize {
    match selector.matches(':').count() {
        0 if !selector.contains(|c: char| c.is_alphanumeric() || c == '_') => 1,
        parts => parts,
    }
}

/// A selector with the names of its arguments: `at: key put: value`.
pub fn header(selector: &str, arguments: &[String]) -> String {
    let parts: Vec<&str> = match selector.contains(':') {
        true => selector.split_inclusive(':').collect(),
        false => vec![selector],
    };
    let named = parts.iter().enumerate().map(|(place, part)| match arguments.get(place) {
        Some(name) => format!("{part} {name}"),
        None => (*part).to_owned(),
    });
    named.collect::<Vec<_>>().join(" ")
}
