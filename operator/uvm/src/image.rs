//! The primordial image: the objects that every universe begins with, written in the language itself (`image/*.bt`).

use batos_covenant::ErrorKind;
use batos_graph::{ObjectId, Payload, Record, Slot, SlotKind, Value};

use crate::{
    syntax::{Expr, ExprKind, SlotNodeKind, parse_slots, print_slot},
    vm::VmError,
};

pub const GENESIS: ObjectId = ObjectId::well_known(1);
pub const ROOT_TRAITS: ObjectId = ObjectId::well_known(2);
pub const NIL: ObjectId = ObjectId::well_known(3);
pub const TRUE: ObjectId = ObjectId::well_known(4);
pub const FALSE: ObjectId = ObjectId::well_known(5);
pub const BOOLEAN_TRAITS: ObjectId = ObjectId::well_known(6);
pub const INTEGER_TRAITS: ObjectId = ObjectId::well_known(7);
pub const FLOAT_TRAITS: ObjectId = ObjectId::well_known(8);
pub const NUMBER_TRAITS: ObjectId = ObjectId::well_known(9);
pub const STRING_TRAITS: ObjectId = ObjectId::well_known(10);
pub const SYMBOL_TRAITS: ObjectId = ObjectId::well_known(11);
pub const ARRAY_TRAITS: ObjectId = ObjectId::well_known(12);
pub const BLOCK_TRAITS: ObjectId = ObjectId::well_known(13);
pub const MESSAGE_TRAITS: ObjectId = ObjectId::well_known(14);

/// Name, id and source of each object. Other objects of the image are referred to by the names here, in one word.
const OBJECTS: &[(&str, ObjectId, &str)] = &[
    ("genesis", GENESIS, include_str!("../image/genesis.bt")),
    ("traitsObject", ROOT_TRAITS, include_str!("../image/object.bt")),
    ("nilObject", NIL, include_str!("../image/nil.bt")),
    ("trueObject", TRUE, include_str!("../image/true.bt")),
    ("falseObject", FALSE, include_str!("../image/false.bt")),
    ("traitsBoolean", BOOLEAN_TRAITS, include_str!("../image/boolean.bt")),
    ("traitsInteger", INTEGER_TRAITS, include_str!("../image/integer.bt")),
    ("traitsFloat", FLOAT_TRAITS, include_str!("../image/float.bt")),
    ("traitsNumber", NUMBER_TRAITS, include_str!("../image/number.bt")),
    ("traitsString", STRING_TRAITS, include_str!("../image/string.bt")),
    ("traitsSymbol", SYMBOL_TRAITS, include_str!("../image/symbol.bt")),
    ("array", ARRAY_TRAITS, include_str!("../image/array.bt")),
    ("traitsBlock", BLOCK_TRAITS, include_str!("../image/block.bt")),
    ("traitsMessage", MESSAGE_TRAITS, include_str!("../image/message.bt")),
];

/// Records of the image.
pub fn genesis() -> Result<Vec<(ObjectId, Record)>, VmError> {
    OBJECTS.iter().map(|(name, id, source)| Ok((*id, record(name, source)?))).collect()
}

fn record(name: &str, source: &str) -> Result<Record, VmError> {
    let mut slots = Vec::new();
    for slot in parse_slots(source).map_err(|e| VmError::new(ErrorKind::Internal, format!("image {name}: {e}")))? {
        let kind = match &slot.kind {
            SlotNodeKind::Constant(value) => SlotKind::Constant(constant(name, value)?),
            SlotNodeKind::Assignable(Some(value)) => SlotKind::Assignable(constant(name, value)?),
            SlotNodeKind::Assignable(None) => SlotKind::Assignable(Value::Nil),
            SlotNodeKind::Parent { value, .. } => SlotKind::Parent(constant(name, value)?),
            SlotNodeKind::Method(_) => SlotKind::Method(print_slot(&slot)),
        };
        slots.push(Slot { name: slot.name, kind });
    }
    let name = Some(name.to_owned());
    Ok(Record { name, is_trait: true, is_kernel: true, slots, payload: Payload::None, manifest: None })
}

/// Data of the image: literals and names of its objects.
fn constant(object: &str, value: &Expr) -> Result<Value, VmError> {
    let named = |name: &str| OBJECTS.iter().find(|(other, ..)| *other == name).map(|(_, id, _)| Value::Ref(*id));
    let value = match &value.kind {
        ExprKind::Integer(digits) => digits.parse().ok().map(Value::Int),
        ExprKind::Str(text) => Some(Value::Str(text.clone())),
        ExprKind::Name(name) => named(name),
        _ => None,
    };
    value.ok_or_else(|| VmError::new(ErrorKind::Internal, format!("image {object}: a slot holds more than a literal")))
}
