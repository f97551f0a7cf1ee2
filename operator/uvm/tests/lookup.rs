//! Lookup beside a plain model of it, on random graphs with cycles, ambiguous slots and duplicate paths, while slots and
//! parents change.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use batos_graph::{ObjectId, Record, Slot, SlotKind, Value};
use common::World;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Constant(i64),
    Assignable(i64),
    Parent(usize),
    /// `^ resend a`
    Resend(&'static str),
    /// `^ p0 resend a`
    Directed(&'static str, &'static str),
    /// `^ a`
    Own(&'static str),
}

type Object = BTreeMap<&'static str, Kind>;

const DATA: [&str; 3] = ["a", "b", "c"];
const PARENTS: [&str; 3] = ["p0", "p1", "p2"];
const METHODS: [&str; 3] = ["m", "n", "o"];

fn data(random: &mut Random, next: &mut i64) -> Kind {
    *next += 1;
    if random.below(2) == 0 { Kind::Constant(*next) } else { Kind::Assignable(*next) }
}

fn graph(random: &mut Random, next: &mut i64) -> Vec<Object> {
    let size = 2 + random.below(6);
    let mut objects = vec![Object::new(); size];
    for object in &mut objects {
        for name in DATA {
            if random.below(4) == 0 {
                object.insert(name, data(random, next));
            }
        }
        for name in PARENTS {
            if random.below(5) < 2 {
                object.insert(name, Kind::Parent(random.below(size)));
            }
        }
        for name in METHODS {
            let selector = DATA[random.below(3)];
            let kind = match random.below(8) {
                0 => Kind::Resend(selector),
                1 => Kind::Directed(PARENTS[random.below(3)], selector),
                2 => Kind::Own(selector),
                _ => continue,
            };
            object.insert(name, kind);
        }
    }
    objects
}

/// Holder and name of every slot that the rules find.
fn matches(objects: &[Object], from: &[usize], fits: &dyn Fn(&Object) -> bool) -> Vec<usize> {
    fn visit(
        objects: &[Object],
        at: usize,
        path: &mut Vec<usize>,
        fits: &dyn Fn(&Object) -> bool,
        found: &mut Vec<usize>,
    ) {
        if path.contains(&at) {
            return;
        }
        if fits(&objects[at]) {
            if !found.contains(&at) {
                found.push(at);
            }
            return;
        }
        path.push(at);
        for kind in objects[at].values() {
            if let Kind::Parent(parent) = kind {
                visit(objects, *parent, path, fits, found);
            }
        }
        path.pop();
    }
    let mut found = Vec::new();
    from.iter().for_each(|at| visit(objects, *at, &mut Vec::new(), fits, &mut found));
    found
}

fn parents(object: &Object) -> Vec<usize> {
    object.values().filter_map(|kind| if let Kind::Parent(parent) = kind { Some(*parent) } else { None }).collect()
}

fn send(objects: &[Object], me: usize, from: &[usize], selector: &str) -> String {
    let holder = match matches(objects, from, &|object| object.contains_key(selector))[..] {
        [] => return "\"MessageNotUnderstood\"".to_owned(),
        [holder] => holder,
        _ => return "\"AmbiguousMessage\"".to_owned(),
    };
    match &objects[holder][selector] {
        Kind::Constant(n) | Kind::Assignable(n) => n.to_string(),
        Kind::Parent(parent) => format!("\"object {parent}\""),
        Kind::Own(selector) => send(objects, me, &[me], selector),
        Kind::Resend(selector) => send(objects, me, &parents(&objects[holder]), selector),
        Kind::Directed(parent, selector) => match objects[holder].get(parent) {
            Some(Kind::Parent(parent)) => send(objects, me, &[*parent], selector),
            _ => "\"Error\"".to_owned(),
        },
    }
}

/// `x: value`: whoever holds the assignable slot, the receiver gets the value.
fn assign(objects: &mut [Object], me: usize, slot: &'static str, value: i64) -> String {
    let is_assignable = |object: &Object| matches!(object.get(slot), Some(Kind::Assignable(_)));
    match matches(objects, &[me], &is_assignable)[..] {
        [] => "\"MessageNotUnderstood\"".to_owned(),
        [_] => {
            objects[me].insert(slot, Kind::Assignable(value));
            "\"set\"".to_owned()
        }
        _ => "\"AmbiguousMessage\"".to_owned(),
    }
}

fn id(number: usize) -> ObjectId {
    ObjectId([b'o', number as u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
}

fn record(number: usize, object: &Object) -> Record {
    let slots = object.iter().map(|(name, kind)| {
        let method = |body: String| SlotKind::Method(format!("{name} = ( ^{body} )"));
        let kind = match kind {
            Kind::Constant(n) => SlotKind::Constant(Value::Int(*n)),
            Kind::Assignable(n) => SlotKind::Assignable(Value::Int(*n)),
            Kind::Parent(parent) => SlotKind::Parent(Value::Ref(id(*parent))),
            Kind::Own(selector) => method((*selector).to_owned()),
            Kind::Resend(selector) => method(format!("resend {selector}")),
            Kind::Directed(parent, selector) => method(format!("{parent} resend {selector}")),
        };
        Slot { name: (*name).to_owned(), kind }
    });
    Record { name: Some(format!("x{number}")), slots: slots.collect(), ..Record::default() }
}

#[test]
fn lookup_does_what_the_model_does() {
    for seed in 1_u64..=300 {
        let mut random = Random(seed);
        let mut next = 0;
        let mut objects = graph(&mut random, &mut next);
        let mut world = World::new();
        for (number, object) in objects.iter().enumerate() {
            world.records.insert(id(number), (1, Arc::new(record(number, object))));
        }
        let mut program = String::from("| answers |\nanswers := OrderedCollection new.\n");
        let mut wanted = Vec::new();
        for _ in 0..40 {
            let me = random.below(objects.len());
            let (slot, parent) = (DATA[random.below(3)], PARENTS[random.below(3)]);
            let statement = match random.below(12) {
                0 => {
                    next += 1;
                    objects[me].insert(slot, Kind::Constant(next));
                    format!("(Mirror on: x{me}) addConstant: #{slot} value: {next}")
                }
                1 if objects[me].remove(slot).is_some() => format!("(Mirror on: x{me}) removeSlot: #{slot}"),
                2 if objects[me].remove(parent).is_some() => format!("(Mirror on: x{me}) removeSlot: #{parent}"),
                3 => {
                    let to = random.below(objects.len());
                    objects[me].insert(parent, Kind::Parent(to));
                    format!("(Mirror on: x{me}) addParent: #{parent} value: x{to}")
                }
                4 => {
                    next += 1;
                    wanted.push(assign(&mut objects, me, slot, next));
                    format!("answers add: ([x{me} {slot}: {next}. 'set'] on: Error do: [:e | e exceptionName])")
                }
                choice => {
                    let selector = if choice < 8 { slot } else { METHODS[random.below(3)] };
                    wanted.push(send(&objects, me, &[me], selector));
                    format!("answers add: ([x{me} {selector}] on: Error do: [:e | e exceptionName])")
                }
            };
            program += &format!("{statement}.\n");
        }
        program += "answers asArray";
        world.answers(&program, &format!("[{}]", wanted.join(",")));
    }
}
