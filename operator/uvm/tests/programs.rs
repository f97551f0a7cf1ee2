//! Programs made at random from the image's own selectors: whatever they do, they end within their limits, and end the
//! same however they are interrupted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use batos_uvm::{
    image,
    vm::{Exit, Limits, Needs, Turn},
};
use common::World;
use proptest::prelude::*;

const RECEIVERS: &[&str] = &[
    "a",
    "b",
    "3",
    "-7",
    "2.5",
    "(1/3)",
    "'text'",
    "#symbol",
    "$c",
    "nil",
    "true",
    "#(3 1 2)",
    "{a. b}",
    "[ :x | x ]",
    "[ a ]",
    "Array",
    "OrderedCollection",
    "Dictionary",
    "Set",
    "Bag",
    "String",
    "Point",
    "Interval",
    "Object",
    "Random",
    "Transcript",
    "(OrderedCollection withAll: #(1 2 3))",
    "(Dictionary newFromPairs: #(a 1 b 2))",
    "(Set withAll: #(1 2))",
    "(1 to: 5)",
    "(3 @ 4)",
    "(#a -> 1)",
    "(ReadStream on: #(1 2))",
    "(WriteStream on: '')",
    "(Mirror on: a)",
    "(SortedCollection withAll: #(2 1))",
    "(2 raisedTo: 100)",
    "self",
    "(Error new)",
    "Exception",
    "(Array new: 3)",
    "(| x <- 1. f: n = ( x + n ) |)",
];

/// Every selector that an object of the image understands, but those that only end the turn.
fn selectors() -> Vec<String> {
    let image = image::genesis().unwrap();
    let mut selectors: Vec<String> =
        image.iter().flat_map(|(_, record)| &record.slots).map(|slot| slot.name.clone()).collect();
    selectors.retain(|name| !["parent", "subclassResponsibility", "error:"].contains(&name.as_str()));
    selectors.sort();
    selectors.dedup();
    selectors
}

fn program(choices: &[(u16, [u8; 5])]) -> String {
    let selectors = selectors();
    let of = |n: u8| RECEIVERS[usize::from(n) % RECEIVERS.len()];
    let mut text = String::from("| a b | a := 1. b := #(1 2 3) copy. ");
    for (selector, operands) in choices {
        let selector = &selectors[usize::from(*selector) % selectors.len()];
        let mut arguments = operands[1..].iter().map(|n| of(*n));
        let mut next = || arguments.next().unwrap_or("nil");
        let message = match selector.contains(':') {
            true => selector.split_inclusive(':').map(|part| format!("{part} {} ", next())).collect::<String>(),
            false if selector.starts_with(|c: char| c.is_alphabetic() || c == '_') => selector.clone(),
            false => format!("{selector} {}", next()),
        };
        let variable = if operands[0] % 2 == 0 { "a" } else { "b" };
        // An error is an answer like another, so that what comes after it runs too.
        text += &format!("{variable} := [ {} {message} ] on: Exception do: [ :e | e messageText ]. ", of(operands[0]));
    }
    text + "{a. b} printString size"
}

fn run(source: &str, slice: u64) -> Result<String, TestCaseError> {
    let world = World::new();
    let limits = Limits { fuel: 50_000, heap_bytes: 4 << 20, depth: 300, ..Limits::default() };
    let mut turn = Turn::eval(image::GENESIS, source, limits, [1; 32])
        .map_err(|e| TestCaseError::fail(format!("{source}: {e}")))?;
    loop {
        match turn.run(slice) {
            Exit::Paused => {}
            Exit::Fault(Needs { objects, names, .. }) => {
                objects.into_iter().for_each(|id| turn.supply(id, world.records.get(&id).cloned()));
                names.iter().for_each(|name| turn.supply_name(name, world.name(name)));
            }
            Exit::Done => {
                return Ok(format!("{:?} {}", turn.effects().map(|effects| effects.answer), turn.fuel_used()));
            }
            Exit::Failed(error) => {
                prop_assert!(error.kind != batos_covenant::ErrorKind::Internal, "{source}: {error} {:?}", error.stack);
                return Ok(format!("{:?} {}", error.kind, turn.fuel_used()));
            }
            Exit::NotUnderstood(missing) => return Ok(format!("{missing:?} {}", turn.fuel_used())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_end_within_their_limits(
        choices in proptest::collection::vec((any::<u16>(), any::<[u8; 5]>()), 1..8),
    ) {
        let source = program(&choices);
        let outcome = run(&source, u64::MAX)?;
        prop_assert_eq!(&outcome, &run(&source, 13)?, "{}", source);
    }
}
