//! Maps: what objects of one shape share. A map knows the names and kinds of slots, the parents and the methods; an object
//! has the values of its data slots. Equal maps are one, so that a lookup's result holds for every object of the map.

use std::{collections::HashMap, sync::Arc};

use super::value::{Handle, Symbol, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MapId(pub u32);

/// Maps of values that are no objects of the graph, by number: they have no slots but a parent, their traits.
pub(super) mod reserved {
    use super::MapId;
    /// Never the map of a value.
    pub const NONE: MapId = MapId(0);
    pub const INT: MapId = MapId(1);
    pub const FLOAT: MapId = MapId(2);
    pub const SYMBOL: MapId = MapId(3);
    pub const CHAR: MapId = MapId(4);
    pub const NIL: MapId = MapId(5);
    pub const TRUE: MapId = MapId(6);
    pub const FALSE: MapId = MapId(7);
    pub const STR: MapId = MapId(8);
    pub const BIG: MapId = MapId(9);
    pub const FRACTION: MapId = MapId(10);
    pub const BLOCK: MapId = MapId(11);
    /// An array without slots of its own.
    pub const ARRAY: MapId = MapId(12);
    /// An object without slots.
    pub const EMPTY: MapId = MapId(13);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SlotType {
    Constant,
    Assignable,
    Parent,
    /// The value is the method's index in the heap's table.
    Method,
}

/// A slot with its value, wherever it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub name: Symbol,
    pub kind: SlotType,
    pub value: Value,
}

/// A slot as the map knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MapSlot {
    pub name: Symbol,
    pub kind: SlotType,
    /// Of a data slot the place of its value in the object, as an integer; else the value itself.
    pub content: Value,
}

impl MapSlot {
    pub fn is_data(self) -> bool {
        matches!(self.kind, SlotType::Constant | SlotType::Assignable)
    }

    /// Place of a data slot's value in the object.
    pub fn place(self) -> usize {
        self.content.as_int().and_then(|place| usize::try_from(place).ok()).unwrap_or(usize::MAX)
    }
}

pub(super) struct Map {
    /// Traits that objects of this map have beside their parent slots, as arrays do.
    pub implicit: Option<Handle>,
    pub slots: Arc<[MapSlot]>,
    /// Data slots.
    pub data: usize,
    /// Places of slots, sorted by name.
    index: Vec<(Symbol, u32)>,
    /// Parent objects in the order of their slots.
    pub parents: Vec<Handle>,
}

impl Map {
    pub fn find(&self, name: Symbol) -> Option<(usize, MapSlot)> {
        let at = self.index.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        let place = self.index.get(at)?.1 as usize;
        self.slots.get(place).map(|slot| (place, *slot))
    }
}

type Key = (Option<Handle>, Arc<[MapSlot]>);

/// The maps of one turn.
pub(super) struct Maps {
    maps: Vec<Option<Map>>,
    free: Vec<u32>,
    by_content: HashMap<Key, MapId>,
    /// Maps reached by adding an assignable slot.
    additions: HashMap<(MapId, Symbol), MapId>,
}

impl Maps {
    /// With the reserved maps; `traits` are those of the maps from `INT` to `ARRAY`.
    pub fn new(traits: impl IntoIterator<Item = Handle>) -> Self {
        let mut maps =
            Self { maps: Vec::new(), free: Vec::new(), by_content: HashMap::new(), additions: HashMap::new() };
        maps.add((None, Arc::from([])));
        traits.into_iter().for_each(|traits| {
            maps.add((Some(traits), Arc::from([])));
        });
        maps.intern(None, Arc::from([]));
        maps.by_content
            .insert((maps.get(reserved::ARRAY).and_then(|map| map.implicit), Arc::from([])), reserved::ARRAY);
        maps
    }

    pub fn get(&self, id: MapId) -> Option<&Map> {
        self.maps.get(id.0 as usize)?.as_ref()
    }

    fn add(&mut self, key: Key) -> MapId {
        let (implicit, slots) = key;
        let mut index: Vec<_> = slots.iter().zip(0..).map(|(slot, place)| (slot.name, place)).collect();
        index.sort_unstable();
        let parents = slots.iter().filter(|slot| slot.kind == SlotType::Parent);
        let parents = parents.filter_map(|slot| slot.content.as_object()).chain(implicit).collect();
        let data = slots.iter().filter(|slot| slot.is_data()).count();
        let map = Some(Map { implicit, slots, data, index, parents });
        match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.maps.get_mut(id as usize) {
                    *place = map;
                }
                MapId(id)
            }
            None => {
                self.maps.push(map);
                MapId(u32::try_from(self.maps.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// The map with these slots.
    pub fn intern(&mut self, implicit: Option<Handle>, slots: Arc<[MapSlot]>) -> MapId {
        let key = (implicit, slots);
        if let Some(id) = self.by_content.get(&key) {
            return *id;
        }
        let id = self.add(key.clone());
        self.by_content.insert(key, id);
        id
    }

    /// The map with one more assignable slot; its value's place is the next.
    pub fn with_slot(&mut self, from: MapId, name: Symbol) -> Option<MapId> {
        if let Some(to) = self.additions.get(&(from, name)) {
            return Some(*to);
        }
        let map = self.get(from)?;
        let content = i64::try_from(map.data).ok().and_then(Value::int)?;
        let added = MapSlot { name, kind: SlotType::Assignable, content };
        let slots = map.slots.iter().copied().chain([added]).collect();
        let to = self.intern(map.implicit, slots);
        self.additions.insert((from, name), to);
        Some(to)
    }

    /// Drops the maps that no object has any more.
    pub fn sweep(&mut self, is_live: impl Fn(MapId) -> bool) {
        self.additions.clear();
        for (place, id) in self.maps.iter_mut().zip(0..).skip(reserved::EMPTY.0 as usize + 1) {
            if !is_live(MapId(id))
                && let Some(map) = place.take()
            {
                self.by_content.remove(&(map.implicit, map.slots));
                self.free.push(id);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.maps.len()
    }
}
