//! What inline caches remember is forgotten in time: shapes, methods and parents that change while a loop runs.

mod common;

use common::World;

#[test]
fn a_hot_site_sees_every_change() {
    let world = World::new();
    for (source, wanted) in [
        // A method is replaced.
        (
            "| p o sum | p := (| go: x = ( 1 ) |). o := (| parent* = p |). sum := 0.
             1 to: 10 do: [ :i | i = 6 ifTrue: [ p setSlot: #go: value: [ :x | 100 ] ]. sum := sum + (o go: i) ]. sum",
            "505",
        ),
        // A slot of the receiver shadows the method.
        (
            "| p o sum | p := (| go = ( 1 ) |). o := (| parent* = p |). sum := 0.
             1 to: 10 do: [ :i | i = 6 ifTrue: [ o setSlot: #go value: 10 ]. sum := sum + o go ]. sum",
            "55",
        ),
        // A parent of the parent is replaced.
        (
            "| a b p o sum | a := (| go = ( 1 ) |). b := (| go = ( 10 ) |). p := (| up* = a |). o := (| parent* = p |). sum := 0.
             1 to: 10 do: [ :i | i = 6 ifTrue: [ (Mirror on: p) addParent: #up value: b ]. sum := sum + o go ]. sum",
            "55",
        ),
        // A slot is removed, and comes back as something else.
        (
            "| p o sum | p := (| go <- 1 |). o := (| parent* = p |). sum := 0.
             1 to: 9 do: [ :i |
               i = 4 ifTrue: [ (Mirror on: p) removeSlot: #go ].
               i = 7 ifTrue: [ (Mirror on: p) addConstant: #go value: 1000 ].
               sum := sum + ([ o go ] on: MessageNotUnderstood do: [ :e | 10 ]) ]. sum",
            "3033",
        ),
        // Assignment adds the slot to the receiver once, then sets it.
        ("| p o | p := (| n <- 5 |). o := (| parent* = p |). 1 to: 10 do: [ :i | o n: o n + i ]. {p n. o n}", "[5,60]"),
        // Many shapes at one site.
        (
            "| all sum | all := (1 to: 12) collect: [ :i | | o | o := (| v <- 0 |).
               1 to: i do: [ :k | o setSlot: ('x' , k printString) asSymbol value: k ]. o v: i. o ].
             sum := 0. 1 to: 50 do: [ :round | all do: [ :each | sum := sum + each v ] ]. sum",
            "3900",
        ),
        // Integers, floats, fractions and strings at one operator.
        ("#(1 2.5 3) inject: 1 / 2 into: [ :sum :each | sum + each ]", "7.0"),
        // Resend from one method that two objects hold.
        (
            "| a b p o | a := (| go = ( 1 ) |). b := (| go = ( 10 ) |).
             p := (| up* = a. go = ( resend go + 100 ) |). o := p clone. (Mirror on: o) addParent: #up value: b.
             ((1 to: 3) collect: [ :i | {p go. o go} ]) asArray",
            "[[101,110],[101,110],[101,110]]",
        ),
    ] {
        world.answers(source, wanted);
    }
}

#[test]
fn replacing_a_method_again_and_again_is_no_trap() {
    let world = World::new();
    world.answers(
        "| p o sum | p := (| go: x = ( 0 ) |). o := (| parent* = p |). sum := 0.
         1 to: 1000 do: [ :i | p setSlot: #go: value: [ :x | x + 1 ]. sum := sum + (o go: i) ]. sum",
        "501500",
    );
}
