//! Large collections beside plain ones, over many turns: every operation, copies, and what is stored after each turn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{fmt::Write as _, sync::Arc};

use batos_covenant::Wire;
use batos_graph::{ObjectId, Record, Slot, SlotKind, Value};
use batos_uvm::{
    image,
    vm::{Effects, Exit, Limits, Needs, Turn},
};
use common::{World, buckets};
use proptest::prelude::*;
use serde_json::json;

const TEST: ObjectId = ObjectId([9; 16]);
const SLOTS: [&str; 3] = ["a", "b", "c"];

fn world() -> World {
    let mut world = World::new();
    let parent = Slot { name: "parent".to_owned(), kind: SlotKind::Parent(Value::Ref(image::ROOT_TRAITS)) };
    let slot = |name: &str| Slot { name: name.to_owned(), kind: SlotKind::Assignable(Value::Nil) };
    let slots = std::iter::once(parent).chain(SLOTS.map(slot)).collect();
    world.records.insert(TEST, (1, Arc::new(Record { slots, ..Record::default() })));
    world
}

/// Runs a turn to its effects. `beforehand`: everything is there, in an order of its own.
fn run(world: &World, source: &str, seed: u8, slice: u64, beforehand: bool) -> (Effects, u64) {
    let limits = Limits { heap_bytes: 256 << 20, ..Limits::default() };
    let mut turn = Turn::eval(TEST, source, limits, [seed; 32]).unwrap();
    if beforehand {
        let mut ids: Vec<_> = world.records.keys().copied().collect();
        ids.sort_by(|a, b| b.cmp(a));
        ids.into_iter().for_each(|id| turn.supply(id, world.records.get(&id).cloned()));
    }
    loop {
        match turn.run(slice) {
            Exit::Paused => {}
            Exit::Fault(Needs { objects, names, .. }) => {
                assert!(objects.len() <= 1024);
                objects.into_iter().for_each(|id| turn.supply(id, world.records.get(&id).cloned()));
                names.iter().for_each(|name| turn.supply_name(name, world.name(name)));
            }
            Exit::Done => return (turn.effects().unwrap(), turn.fuel_used()),
            exit => panic!("{source}: {exit:?}"),
        }
    }
}

/// Runs a turn in two ways that must not differ, and stores what it wrote.
fn commit(world: &mut World, source: &str, seed: u8) -> Wire {
    let (effects, fuel) = run(world, source, seed, 1 + u64::from(seed) * 37, false);
    assert_eq!((&effects, fuel), (&run(world, source, seed, u64::MAX, true).0, run(world, source, seed, 99, true).1));
    for write in effects.writes {
        assert_eq!(write.prev_rev, world.records.get(&write.id).map(|(rev, _)| *rev), "{}", write.id);
        let record = Record::decode(&write.record.encode().unwrap()).unwrap();
        assert_eq!(record, write.record);
        world.records.insert(write.id, (write.prev_rev.unwrap_or(0) + 1, Arc::new(record)));
    }
    effects.answer
}

/// A value of the models: a number, and the text that it stands for in the language.
fn literal(n: u32) -> String {
    match n % 50 {
        0 => format!("(String new: {} withAll: $x)", n % 20_000),
        1 => format!("'text {n}'"),
        2 => format!("#symbol{n}"),
        _ => n.to_string(),
    }
}

fn stored(n: u32) -> Value {
    match n % 50 {
        0 => Value::Str("x".repeat(n as usize % 20_000)),
        1 => Value::Str(format!("text {n}")),
        2 => Value::Symbol(format!("symbol{n}")),
        _ => Value::Int(n.into()),
    }
}

#[derive(Debug, Clone)]
struct Operation {
    kind: u8,
    slot: usize,
    other: usize,
    place: u32,
    value: u32,
    count: u32,
}

fn operations() -> impl Strategy<Value = Vec<Vec<Operation>>> {
    let operation = (0_u8..16, 0..3_usize, 0..3_usize, any::<u32>(), any::<u32>(), 1..40_u32)
        .prop_map(|(kind, slot, other, place, value, count)| Operation { kind, slot, other, place, value, count });
    prop::collection::vec(prop::collection::vec(operation, 1..12), 1..12)
}

/// Does an operation on the model; answers it in the language.
fn on_arrays(model: &mut [Vec<u32>; 3], op: &Operation) -> String {
    let name = SLOTS[op.slot];
    let array = &mut model[op.slot];
    let size = array.len();
    let at = op.place as usize % size.max(1);
    let value = literal(op.value);
    match op.kind {
        0..3 if size > 0 => {
            array[at] = op.value;
            format!("{name} at: {} put: {value}", at + 1)
        }
        3 => {
            array.push(op.value);
            format!("{name} add: {value}")
        }
        4 => {
            array.insert(0, op.value);
            format!("{name} addFirst: {value}")
        }
        5 => {
            array.insert(at, op.value);
            format!("{name} add: {value} beforeIndex: {}", at + 1)
        }
        6 if size > 0 => {
            array.remove(at);
            format!("{name} removeAt: {}", at + 1)
        }
        7 if size > 0 => {
            array.remove(0);
            format!("{name} removeFirst")
        }
        8 if size > 0 => {
            array.pop();
            format!("{name} removeLast")
        }
        9 => {
            model[op.other] = array.clone();
            format!("{}: {name} copy", SLOTS[op.other])
        }
        10 if size > 0 => {
            let other = op.value as usize % size;
            array.swap(at, other);
            format!("{name} swap: {} with: {}", at + 1, other + 1)
        }
        11 if size < 5000 => {
            let more: Vec<u32> = (0..op.count * 8).map(|n| n * 50 + 5).collect();
            array.extend(&more);
            format!("{name} addAll: ((0 to: {}) collect: [ :i | i * 50 + 5 ])", op.count * 8 - 1)
        }
        12 => {
            let gone = size.min(op.count as usize * 8);
            array.truncate(size - gone);
            format!("{gone} timesRepeat: [ {name} removeLast ]")
        }
        13 => {
            let gone = size.min(op.count as usize);
            array.drain(..gone);
            format!("{gone} timesRepeat: [ {name} removeFirst ]")
        }
        14 if size > 0 => {
            let end = size.min(at + op.count as usize);
            model[op.other] = array[at..end].to_vec();
            format!("{}: ({name} copyFrom: {} to: {end})", SLOTS[op.other], at + 1)
        }
        15 if size > 0 => {
            let end = size.min(at + op.count as usize);
            let part: Vec<u32> = array[size - (end - at)..].to_vec();
            array[at..end].copy_from_slice(&part);
            let start = size - (end - at) + 1;
            format!("{name} replaceFrom: {} to: {end} with: {name} startingAt: {start}", at + 1)
        }
        _ => "nil".to_owned(),
    }
}

/// The model of a dictionary: keys and values in the order of insertion.
type Pairs = Vec<(u32, u32)>;

/// What a key is in the language; some are objects that are asked for their hashes.
fn key(n: u32) -> String {
    match n % 7 {
        0 => format!("'{n}'"),
        1 => format!("#k{n}"),
        2 => format!("#({n} 1)"),
        _ => n.to_string(),
    }
}

fn on_tables(model: &mut [Pairs; 3], op: &Operation) -> String {
    let name = SLOTS[op.slot];
    let table = &mut model[op.slot];
    let number = op.place % 4000;
    let place = table.iter().position(|(key, _)| *key == number);
    let old = (!table.is_empty()).then(|| table[op.place as usize % table.len()].0);
    match op.kind {
        0..5 => {
            match place {
                Some(place) => table[place].1 = op.value,
                None => table.push((number, op.value)),
            }
            format!("{name} at: {} put: {}", key(number), literal(op.value))
        }
        5..8 if old.is_some() => {
            table.retain(|(key, _)| Some(*key) != old);
            format!("{name} removeKey: {}", key(old.unwrap()))
        }
        8 => {
            model[op.other] = table.clone();
            format!("{}: {name} copy", SLOTS[op.other])
        }
        9 if old.is_some() => {
            table.iter_mut().filter(|(key, _)| Some(*key) == old).for_each(|(_, value)| *value = op.value);
            format!("{name} at: {} put: {}", key(old.unwrap()), literal(op.value))
        }
        10..12 if table.len() < 5000 => {
            let base = 10_000 + op.value % 10_000;
            let mut text = String::new();
            for n in (base..base + op.count * 8).filter(|n| n % 7 > 2) {
                if !table.iter().any(|(key, _)| *key == n) {
                    table.push((n, 5));
                }
            }
            let _ = write!(
                text,
                "{base} to: {} do: [ :i | i \\\\ 7 > 2 ifTrue: [ {name} at: i ifAbsentPut: 5 ] ]",
                base + op.count * 8 - 1
            );
            text
        }
        12..14 => {
            let gone = table.len().min(op.count as usize * 8);
            table.drain(..gone);
            format!("(({name} keys) first: {gone}) do: [ :each | {name} removeKey: each ]")
        }
        14 => {
            // Those behind go, so that holes come to lie at the end.
            let gone = table.len().min(op.count as usize * 8);
            table.truncate(table.len() - gone);
            format!("(({name} keys) last: {gone}) do: [ :each | {name} removeKey: each ]")
        }
        _ => match old {
            Some(old) => format!(
                "(({name} includesKey: {}) and: [ ({name} includesKey: -1) not ]) ifFalse: [ self error: 'lost' ]",
                key(old)
            ),
            None => "nil".to_owned(),
        },
    }
}

fn collections(world: &World) -> Vec<ObjectId> {
    let mut ids = SLOTS.map(|slot| buckets::in_slot(world, TEST, slot).0).to_vec();
    ids.dedup();
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn arrays_do_as_plain_ones_do(size in 200..6000_u32, turns in operations()) {
        let mut world = world();
        let mut model: [Vec<u32>; 3] = std::array::from_fn(|_| (1..=size).map(|n| n * 50 + 7).collect());
        let make = format!("((1 to: {size}) collect: [ :i | i * 50 + 7 ]) asOrderedCollection");
        commit(&mut world, &format!("a: {make}. b: a copy. c: {make}"), 1);
        prop_assert_eq!(buckets::is_large(buckets::in_slot(&world, TEST, "a").1), size as usize > batos_graph::bucket::FLAT_ITEMS);
        for (turn, seed) in turns.iter().zip(2..) {
            let source: Vec<String> = turn.iter().map(|op| on_arrays(&mut model, op)).collect();
            commit(&mut world, &source.join(". "), seed);
            for (slot, model) in SLOTS.iter().zip(&model) {
                let (_, record) = buckets::in_slot(&world, TEST, slot);
                let wanted: Vec<Value> = model.iter().map(|n| stored(*n)).collect();
                prop_assert_eq!(buckets::elements(&world, record), wanted);
            }
            buckets::check_owners(&world, &collections(&world));
        }
        for (slot, model) in SLOTS.iter().zip(&model) {
            let sums = format!("{{{slot} size. {slot} inject: 0 into: [ :s :e | s + (e isNumber ifTrue: [ e ] ifFalse: [ e size ]) ]. {slot} asArray size. ({slot} copyFrom: 1 to: {0}) size}}", model.len() / 2);
            let sum: u64 = model.iter().map(|n| match stored(*n) {
                Value::Int(n) => n.unsigned_abs(),
                Value::Str(text) | Value::Symbol(text) => text.len() as u64,
                _ => 0,
            }).sum();
            let wanted = json!([model.len(), sum, model.len(), model.len() / 2]);
            prop_assert_eq!(run(&world, &sums, 99, 1000, false).0.answer, wanted);
        }
    }

    #[test]
    fn tables_do_as_plain_ones_do(size in 200..6000_u32, turns in operations()) {
        let mut world = world();
        let mut model: [Pairs; 3] = std::array::from_fn(|_| (0..size).map(|n| (20_000 + n * 7 + 3, n * 50 + 7)).collect());
        let make = format!("d := Dictionary new. 0 to: {} do: [ :i | d at: 20000 + (i * 7) + 3 put: i * 50 + 7 ]", size - 1);
        commit(&mut world, &format!("| d | {make}. a: d. b: d copy. {make}. c: d"), 1);
        for (turn, seed) in turns.iter().zip(2..) {
            let source: Vec<String> = turn.iter().map(|op| on_tables(&mut model, op)).collect();
            commit(&mut world, &source.join(". "), seed);
            for (slot, model) in SLOTS.iter().zip(&model) {
                let (_, record) = buckets::in_slot(&world, TEST, slot);
                let found = buckets::entries(&world, record);
                let values: Vec<Value> = found.iter().map(|(_, value)| value.clone()).collect();
                let wanted: Vec<Value> = model.iter().map(|(_, n)| stored(*n)).collect();
                prop_assert_eq!(values, wanted);
                for ((found, _), (wanted, _)) in found.iter().zip(model) {
                    let same = match (found, wanted % 7) {
                        (Value::Str(text), 0) => *text == wanted.to_string(),
                        (Value::Symbol(text), 1) => *text == format!("k{wanted}"),
                        (Value::Ref(id), 2) => buckets::elements(&world, &world.records[id].1)[0] == Value::Int((*wanted).into()),
                        (found, _) => *found == Value::Int((*wanted).into()),
                    };
                    prop_assert!(same, "{:?} for {}", found, wanted);
                }
            }
            buckets::check_owners(&world, &collections(&world));
        }
        for (slot, model) in SLOTS.iter().zip(&model) {
            let asked = format!("{{{slot} size. {slot} keys size. {slot} values size. ({slot} keys collect: [ :k | {slot} at: k ]) = {slot} values}}");
            let n = model.len();
            prop_assert_eq!(run(&world, &asked, 99, 1000, false).0.answer, json!([n, n, n, true]));
        }
    }
}
