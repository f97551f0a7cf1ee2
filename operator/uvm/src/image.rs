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
pub const CHARACTER_TRAITS: ObjectId = ObjectId::well_known(15);
pub const FRACTION_TRAITS: ObjectId = ObjectId::well_known(16);
pub const EXCEPTION: ObjectId = ObjectId::well_known(64);
pub const ERROR: ObjectId = ObjectId::well_known(65);
pub const ZERO_DIVIDE: ObjectId = ObjectId::well_known(67);
pub const MESSAGE_NOT_UNDERSTOOD: ObjectId = ObjectId::well_known(68);
pub const SUBSCRIPT_OUT_OF_BOUNDS: ObjectId = ObjectId::well_known(69);
pub const KEY_NOT_FOUND: ObjectId = ObjectId::well_known(70);
pub const AMBIGUOUS_MESSAGE: ObjectId = ObjectId::well_known(75);
pub const BLOCK_CANNOT_RETURN: ObjectId = ObjectId::well_known(76);
pub const NON_BOOLEAN_RECEIVER: ObjectId = ObjectId::well_known(77);
pub const ARGUMENTS_COUNT: ObjectId = ObjectId::well_known(78);
pub const NOT_FOUND: ObjectId = ObjectId::well_known(79);
pub const COLLECTION_IS_EMPTY: ObjectId = ObjectId::well_known(80);

/// Holds the prompts and policies of making methods.
pub const TOOL_FORGE: ObjectId = ObjectId::well_known(96);

/// Holds how drafts are judged.
pub const CRUCIBLE: ObjectId = ObjectId::well_known(97);
/// Holds how personae are asked.
pub const CODEX: ObjectId = ObjectId::well_known(98);
/// Holds how what was made goes in.
pub const ATOMIC_SWAP: ObjectId = ObjectId::well_known(99);
/// Holds what is kept of how methods came to be.
pub const SCRIBE: ObjectId = ObjectId::well_known(100);
/// Holds who is asked for what.
pub const WEAVER: ObjectId = ObjectId::well_known(101);

/// Objects of the image whose data slots are prompts and policies: the Architect may change those.
pub const ORGANS: &[ObjectId] = &[TOOL_FORGE, CRUCIBLE, CODEX, ATOMIC_SWAP, SCRIBE, WEAVER];

/// Name, id and source of each object. Other objects of the image are referred to by the names here, in one word.
const OBJECTS: &[(&str, ObjectId, &str)] = &[
    ("genesis", GENESIS, include_str!("../image/genesis.bt")),
    ("Object", ROOT_TRAITS, include_str!("../image/object.bt")),
    ("UndefinedObject", NIL, include_str!("../image/nil.bt")),
    ("True", TRUE, include_str!("../image/true.bt")),
    ("False", FALSE, include_str!("../image/false.bt")),
    ("Boolean", BOOLEAN_TRAITS, include_str!("../image/boolean.bt")),
    ("Integer", INTEGER_TRAITS, include_str!("../image/integer.bt")),
    ("Float", FLOAT_TRAITS, include_str!("../image/float.bt")),
    ("Number", NUMBER_TRAITS, include_str!("../image/number.bt")),
    ("String", STRING_TRAITS, include_str!("../image/string.bt")),
    ("Symbol", SYMBOL_TRAITS, include_str!("../image/symbol.bt")),
    ("Array", ARRAY_TRAITS, include_str!("../image/array.bt")),
    ("BlockClosure", BLOCK_TRAITS, include_str!("../image/block.bt")),
    ("Message", MESSAGE_TRAITS, include_str!("../image/message.bt")),
    ("Character", CHARACTER_TRAITS, include_str!("../image/character.bt")),
    ("Fraction", FRACTION_TRAITS, include_str!("../image/fraction.bt")),
    ("Magnitude", ObjectId::well_known(17), include_str!("../image/magnitude.bt")),
    ("Collection", ObjectId::well_known(18), include_str!("../image/collection.bt")),
    ("SequenceableCollection", ObjectId::well_known(19), include_str!("../image/sequenceableCollection.bt")),
    ("ArrayedCollection", ObjectId::well_known(20), include_str!("../image/arrayedCollection.bt")),
    ("OrderedCollection", ObjectId::well_known(21), include_str!("../image/orderedCollection.bt")),
    ("SortedCollection", ObjectId::well_known(22), include_str!("../image/sortedCollection.bt")),
    ("Interval", ObjectId::well_known(23), include_str!("../image/interval.bt")),
    ("HashedCollection", ObjectId::well_known(24), include_str!("../image/hashedCollection.bt")),
    ("Set", ObjectId::well_known(25), include_str!("../image/set.bt")),
    ("Dictionary", ObjectId::well_known(26), include_str!("../image/dictionary.bt")),
    ("IdentityDictionary", ObjectId::well_known(27), include_str!("../image/identityDictionary.bt")),
    ("IdentitySet", ObjectId::well_known(28), include_str!("../image/identitySet.bt")),
    ("Bag", ObjectId::well_known(29), include_str!("../image/bag.bt")),
    ("Association", ObjectId::well_known(30), include_str!("../image/association.bt")),
    ("Point", ObjectId::well_known(31), include_str!("../image/point.bt")),
    ("Stream", ObjectId::well_known(32), include_str!("../image/stream.bt")),
    ("ReadStream", ObjectId::well_known(33), include_str!("../image/readStream.bt")),
    ("WriteStream", ObjectId::well_known(34), include_str!("../image/writeStream.bt")),
    ("Random", ObjectId::well_known(35), include_str!("../image/random.bt")),
    ("Mirror", ObjectId::well_known(36), include_str!("../image/mirror.bt")),
    ("Transcript", ObjectId::well_known(37), include_str!("../image/transcript.bt")),
    ("AsyncSender", ObjectId::well_known(38), include_str!("../image/asyncSender.bt")),
    ("toolForge", TOOL_FORGE, include_str!("../image/toolForge.bt")),
    ("crucible", CRUCIBLE, include_str!("../image/crucible.bt")),
    ("codex", CODEX, include_str!("../image/codex.bt")),
    ("atomicSwap", ATOMIC_SWAP, include_str!("../image/atomicSwap.bt")),
    ("scribe", SCRIBE, include_str!("../image/scribe.bt")),
    ("weaver", WEAVER, include_str!("../image/weaver.bt")),
    ("Exception", EXCEPTION, include_str!("../image/exception.bt")),
    ("Error", ERROR, "(| parent* = Exception. exceptionName = 'Error'. isResumable = ( false ) |)"),
    ("ArithmeticError", ObjectId::well_known(66), "(| parent* = Error. exceptionName = 'ArithmeticError' |)"),
    ("ZeroDivide", ZERO_DIVIDE, "(| parent* = ArithmeticError. exceptionName = 'ZeroDivide' |)"),
    ("MessageNotUnderstood", MESSAGE_NOT_UNDERSTOOD, include_str!("../image/messageNotUnderstood.bt")),
    ("SubscriptOutOfBounds", SUBSCRIPT_OUT_OF_BOUNDS, "(| parent* = Error. exceptionName = 'SubscriptOutOfBounds' |)"),
    ("KeyNotFound", KEY_NOT_FOUND, "(| parent* = Error. exceptionName = 'KeyNotFound' |)"),
    ("Notification", ObjectId::well_known(71), include_str!("../image/notification.bt")),
    ("Warning", ObjectId::well_known(72), "(| parent* = Notification. exceptionName = 'Warning' |)"),
    ("ExceptionSet", ObjectId::well_known(73), include_str!("../image/exceptionSet.bt")),
    ("IllegalResumeAttempt", ObjectId::well_known(74), "(| parent* = Error. exceptionName = 'IllegalResumeAttempt' |)"),
    ("AmbiguousMessage", AMBIGUOUS_MESSAGE, "(| parent* = Error. exceptionName = 'AmbiguousMessage' |)"),
    ("BlockCannotReturn", BLOCK_CANNOT_RETURN, "(| parent* = Error. exceptionName = 'BlockCannotReturn' |)"),
    ("NonBooleanReceiver", NON_BOOLEAN_RECEIVER, "(| parent* = Error. exceptionName = 'NonBooleanReceiver' |)"),
    ("ArgumentsCountMismatch", ARGUMENTS_COUNT, "(| parent* = Error. exceptionName = 'ArgumentsCountMismatch' |)"),
    ("NotFound", NOT_FOUND, "(| parent* = Error. exceptionName = 'NotFound' |)"),
    ("CollectionIsEmpty", COLLECTION_IS_EMPTY, "(| parent* = Error. exceptionName = 'CollectionIsEmpty' |)"),
    ("AssertionFailure", ObjectId::well_known(81), "(| parent* = Error. exceptionName = 'AssertionFailure' |)"),
];

/// Whether an object of the image has this name.
pub fn is_name(name: &str) -> bool {
    OBJECTS.iter().any(|(other, ..)| *other == name)
}

/// Tells images apart without parsing them.
pub fn digest() -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    for (name, id, source) in OBJECTS {
        digest.update(&id.0);
        for text in [name, source] {
            digest.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        }
    }
    *digest.finalize().as_bytes()
}

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
    Ok(Record { name, is_trait: true, is_kernel: true, slots, payload: Payload::None, ..Record::default() })
}

/// Data of the image: literals and names of its objects.
fn constant(object: &str, value: &Expr) -> Result<Value, VmError> {
    let named = |name: &str| OBJECTS.iter().find(|(other, ..)| *other == name).map(|(_, id, _)| Value::Ref(*id));
    let value = literal(value).or_else(|| match &value.kind {
        ExprKind::Name(name) => named(name),
        _ => None,
    });
    value.ok_or_else(|| VmError::new(ErrorKind::Internal, format!("image {object}: a slot holds more than a literal")))
}

/// What a literal stands for; none for what has to be run first.
pub(crate) fn literal(value: &Expr) -> Option<Value> {
    match &value.kind {
        ExprKind::Integer(digits) => digits.parse().ok().map(Value::Int),
        ExprKind::Float(x) => Some(Value::Float(*x)),
        ExprKind::Str(text) => Some(Value::Str(text.clone())),
        ExprKind::Symbol(name) => Some(Value::Symbol(name.clone())),
        ExprKind::Name(name) => match name.as_str() {
            "nil" => Some(Value::Nil),
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        _ => None,
    }
}
