//! Primitives: what the image builds on. Only the image names them; each touches all its operands before any effect.

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::{
    error::{Stop, failed, limit, raise},
    exceptions::{self, Ending},
    heap::{Body, Origin, Slot, SlotType},
    interp::Machine,
    value::{Handle, Kind, Symbol, Value},
};
use crate::image;

/// What comes of a primitive.
pub(super) enum Flow {
    Value(Value),
    /// The receiver, a block, is called.
    Block {
        arguments: Vec<Value>,
    },
    /// The receiver is sent a message.
    Send {
        selector: Symbol,
        arguments: Vec<Value>,
    },
    /// The activation `target` and all above it end; `ensure:` blocks run on the way.
    Unwind {
        target: u64,
        ending: Ending,
    },
}

type Result<T = Value> = std::result::Result<T, Stop>;
pub(super) type Primitive = fn(&mut Machine, Value, &[Value]) -> Result<Flow>;

const TABLE: &[(&str, Primitive)] = &[
    ("_Clone", |m, me, _| clone(m, me).map(Flow::Value)),
    ("_Identical:", |_, me, a| Ok(Flow::Value(Value::bool(me == arg(a, 0))))),
    ("_Equal:", |m, me, a| equal(m, me, arg(a, 0)).map(|b| Flow::Value(Value::bool(b)))),
    ("_PrintString", |m, me, _| print(m, me).map(Flow::Value)),
    ("_Shape", |m, me, _| {
        let shape = m.shape(me);
        Ok(Flow::Value(Value::symbol(m.heap.symbols.intern(shape))))
    }),
    ("_SetSlot:Value:", |m, me, a| set_slot(m, me, arg(a, 0), arg(a, 1)).map(Flow::Value)),
    ("_SlotNames", |m, me, _| slot_names(m, me).map(Flow::Value)),
    ("_Perform:With:", |m, me, a| perform(m, me, arg(a, 0), arg(a, 1))),
    ("_Error:", |m, _, a| match m.heap.text(arg(a, 0))? {
        Some(text) => failed(text),
        None => failed(m.describe(arg(a, 0))),
    }),
    ("_BlockValue:", |m, _, a| Ok(Flow::Block { arguments: array(m, arg(a, 0))?.to_vec() })),
    ("_BlockArity", |m, me, _| match body(m, me)? {
        Body::Block(closure) => Ok(Flow::Value(count(closure.code.arguments))),
        _ => failed("only a block has an arity"),
    }),
    ("_IntAdd:", |m, me, a| arithmetic(m, Operation::Add, me, arg(a, 0))),
    ("_IntSub:", |m, me, a| arithmetic(m, Operation::Subtract, me, arg(a, 0))),
    ("_IntMul:", |m, me, a| arithmetic(m, Operation::Multiply, me, arg(a, 0))),
    ("_IntDiv:", |m, me, a| arithmetic(m, Operation::Divide, me, arg(a, 0))),
    ("_IntFloorDiv:", |m, me, a| arithmetic(m, Operation::FloorDivide, me, arg(a, 0))),
    ("_IntMod:", |m, me, a| arithmetic(m, Operation::Modulo, me, arg(a, 0))),
    ("_Less:", |m, me, a| compare(m, me, arg(a, 0)).map(|o| Flow::Value(Value::bool(o == Some(Ordering::Less))))),
    ("_AsFloat", |m, me, _| number(m, me).map(|n| Flow::Value(Value::float(n.to_f64())))),
    ("_Truncated", |m, me, _| {
        let n = number(m, me)?.truncated()?;
        m.heap.integer(n).map(Flow::Value)
    }),
    ("_Sqrt", |m, me, _| number(m, me).map(|n| Flow::Value(Value::float(n.to_f64().sqrt())))),
    ("_StrSize", |m, me, _| text(m, me).map(|t| Flow::Value(count(t.chars().count())))),
    ("_StrAt:", |m, me, a| {
        let (text, index) = (text(m, me)?, index(m, arg(a, 0))?);
        match text.chars().nth(index) {
            Some(c) => m.heap.string(&c.to_string()).map(Flow::Value),
            None => raise(
                image::SUBSCRIPT_OUT_OF_BOUNDS,
                format!("index {} is outside 1 to {}", index + 1, text.chars().count()),
            ),
        }
    }),
    ("_StrConcat:", |m, me, a| {
        let (left, right) = (text(m, me)?, text(m, arg(a, 0))?);
        m.heap.charge(left.len() + right.len())?;
        m.heap.string(&(left + &right)).map(Flow::Value)
    }),
    ("_StrFrom:To:", |m, me, a| {
        let (text, from, to) = (text(m, me)?, index(m, arg(a, 0))?, integer(m, arg(a, 1))?);
        let size = text.chars().count();
        let to = usize::try_from(to).ok().filter(|to| *to <= size && from <= *to);
        match to {
            Some(to) => {
                let part: String = text.chars().skip(from).take(to - from).collect();
                m.heap.string(&part).map(Flow::Value)
            }
            None => raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("the part is outside 1 to {size}")),
        }
    }),
    ("_StrUpper", |m, me, _| text(m, me).and_then(|t| m.heap.string(&t.to_uppercase())).map(Flow::Value)),
    ("_StrLower", |m, me, _| text(m, me).and_then(|t| m.heap.string(&t.to_lowercase())).map(Flow::Value)),
    ("_StrReversed", |m, me, _| {
        let text: String = text(m, me)?.chars().rev().collect();
        m.heap.string(&text).map(Flow::Value)
    }),
    ("_StrIndexOf:", |m, me, a| {
        let (text, part) = (text(m, me)?, text(m, arg(a, 0))?);
        let found = text.find(&part).and_then(|at| text.get(..at)).map_or(0, |before| before.chars().count() + 1);
        Ok(Flow::Value(count(found)))
    }),
    ("_AsSymbol", |m, me, _| {
        let text = text(m, me)?;
        Ok(Flow::Value(Value::symbol(m.heap.symbols.intern(&text))))
    }),
    ("_AsString", |m, me, _| text(m, me).and_then(|t| m.heap.string(&t)).map(Flow::Value)),
    ("_ParseInteger", |m, me, _| match text(m, me)?.trim().parse::<BigInt>() {
        Ok(n) => m.heap.integer(n).map(Flow::Value),
        Err(_) => Ok(Flow::Value(Value::NIL)),
    }),
    ("_ArrayNew:", |m, _, a| match usize::try_from(integer(m, arg(a, 0))?) {
        Ok(size) => {
            m.heap.charge(size.saturating_mul(8))?;
            m.heap.array(vec![Value::NIL; size]).map(Flow::Value)
        }
        Err(_) => failed("an array has no negative size"),
    }),
    ("_ArraySize", |m, me, _| array(m, me).map(|elements| Flow::Value(count(elements.len())))),
    ("_ArrayAt:", |m, me, a| {
        let index = index(m, arg(a, 0))?;
        let elements = array(m, me)?;
        match elements.get(index) {
            Some(element) => Ok(Flow::Value(*element)),
            None => {
                raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("index {} is outside 1 to {}", index + 1, elements.len()))
            }
        }
    }),
    ("_ArrayAt:Put:", |m, me, a| {
        let (index, value) = (index(m, arg(a, 0))?, arg(a, 1));
        let size = array(m, me)?.len();
        let Some(handle) = me.as_object().filter(|_| index < size) else {
            return raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("index {} is outside 1 to {size}", index + 1));
        };
        let object = m.heap.get_mut(handle)?;
        object.dirty = true;
        if let Body::Array(elements) = &mut object.body
            && let Some(element) = elements.get_mut(index)
        {
            *element = value;
        }
        Ok(Flow::Value(value))
    }),
    ("_ArrayConcat:", |m, me, a| {
        let elements = [array(m, me)?, array(m, arg(a, 0))?].concat();
        m.heap.array(elements).map(Flow::Value)
    }),
];

/// All primitives; a primitive's number is its place here.
fn all() -> impl Iterator<Item = &'static (&'static str, Primitive)> {
    TABLE.iter().chain(exceptions::TABLE)
}

/// Number of the primitive `name`.
pub(super) fn find(name: &str) -> Option<u16> {
    all().position(|(other, _)| *other == name).and_then(|index| u16::try_from(index).ok())
}

pub(super) fn run(machine: &mut Machine, primitive: u16, me: Value, arguments: &[Value]) -> Result<Flow> {
    match all().nth(usize::from(primitive)) {
        Some((_, run)) => run(machine, me, arguments),
        None => failed("unknown primitive"),
    }
}

pub(super) fn arg(arguments: &[Value], index: usize) -> Value {
    arguments.get(index).copied().unwrap_or(Value::NIL)
}

fn count(n: usize) -> Value {
    i64::try_from(n).ok().and_then(Value::int).unwrap_or(Value::NIL)
}

fn body(m: &Machine, value: Value) -> Result<&Body> {
    match value.as_object() {
        Some(handle) => Ok(&m.heap.get(handle)?.body),
        None => Ok(&Body::Plain),
    }
}

fn text(m: &Machine, value: Value) -> Result<String> {
    match m.heap.text(value)? {
        Some(text) => Ok(text.to_owned()),
        None => failed(format!("{} is no string", m.describe(value))),
    }
}

fn array(m: &Machine, value: Value) -> Result<&[Value]> {
    match body(m, value)? {
        Body::Array(elements) => Ok(elements),
        _ => failed(format!("{} is no array", m.describe(value))),
    }
}

fn integer(m: &Machine, value: Value) -> Result<i64> {
    match value.as_int() {
        Some(n) => Ok(n),
        None => {
            body(m, value)?;
            failed(format!("{} is no small integer", m.describe(value)))
        }
    }
}

/// A 1-based index as the language has it, 0-based.
fn index(m: &Machine, value: Value) -> Result<usize> {
    let n = integer(m, value)?;
    match usize::try_from(n).ok().and_then(|n| n.checked_sub(1)) {
        Some(index) => Ok(index),
        None => raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("index {n} is less than 1")),
    }
}

enum Number {
    Int(BigInt),
    Float(f64),
}

impl Number {
    fn to_f64(&self) -> f64 {
        match self {
            // Through decimal digits: exact rounding, and infinity beyond the range.
            Self::Int(n) => i64::try_from(n).map_or_else(|_| n.to_string().parse().unwrap_or(f64::NAN), |n| n as f64),
            Self::Float(x) => *x,
        }
    }

    fn truncated(self) -> Result<BigInt> {
        match self {
            Self::Int(n) => Ok(n),
            Self::Float(x) if x.is_finite() => Ok(format!("{:.0}", x.trunc()).parse().unwrap_or_default()),
            Self::Float(x) => failed(format!("{x} has no integer part")),
        }
    }
}

fn number(m: &Machine, value: Value) -> Result<Number> {
    match value.kind() {
        Kind::Int(n) => Ok(Number::Int(BigInt::from(n))),
        Kind::Float(x) => Ok(Number::Float(x)),
        _ => match body(m, value)? {
            Body::Big(n) => Ok(Number::Int((**n).clone())),
            _ => failed(format!("{} is no number", m.describe(value))),
        },
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
}

/// Largest integer that a multiplication makes, in bits.
const MAX_BITS: u64 = 1 << 20;

fn arithmetic(m: &mut Machine, operation: Operation, left: Value, right: Value) -> Result<Flow> {
    use Operation::{Add, Divide, FloorDivide, Modulo, Multiply, Subtract};
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        // 48-bit operands: sums fit, products are checked.
        let small = match operation {
            Add => Some(a + b),
            Subtract => Some(a - b),
            Multiply => a.checked_mul(b),
            FloorDivide if b != 0 => Some(a.div_euclid(b) - i64::from(b < 0 && a.rem_euclid(b) != 0)),
            Modulo if b != 0 => Some(((a % b) + b) % b),
            Divide if b != 0 && a % b == 0 => Some(a / b),
            _ => None,
        };
        if let Some(value) = small.and_then(Value::int) {
            return Ok(Flow::Value(value));
        }
    }
    let (a, b) = match (number(m, left)?, number(m, right)?) {
        (Number::Int(a), Number::Int(b)) => (a, b),
        (a, b) => return floating(operation, a.to_f64(), b.to_f64()).map(Flow::Value),
    };
    let zero = BigInt::ZERO;
    if b == zero && matches!(operation, Divide | FloorDivide | Modulo) {
        return raise(image::ZERO_DIVIDE, format!("{a} divided by 0"));
    }
    if matches!(operation, Multiply) && a.bits() + b.bits() > MAX_BITS {
        return limit(format!("an integer of more than {MAX_BITS} bits"));
    }
    let floored = |a: &BigInt, b: &BigInt| {
        let (quotient, rest) = (a / b, a % b);
        if rest != zero && (rest < zero) != (*b < zero) { quotient - 1 } else { quotient }
    };
    let result = match operation {
        Add => a + b,
        Subtract => a - b,
        Multiply => a * b,
        FloorDivide => floored(&a, &b),
        Modulo => &a - floored(&a, &b) * &b,
        Divide if &a % &b == zero => a / b,
        // Without fractions yet, an inexact quotient is a float.
        Divide => return Ok(Flow::Value(Value::float(Number::Int(a).to_f64() / Number::Int(b).to_f64()))),
    };
    m.heap.integer(result).map(Flow::Value)
}

fn floating(operation: Operation, a: f64, b: f64) -> Result {
    if b == 0.0 && matches!(operation, Operation::Divide | Operation::FloorDivide | Operation::Modulo) {
        return raise(image::ZERO_DIVIDE, format!("{a} divided by 0"));
    }
    Ok(Value::float(match operation {
        Operation::Add => a + b,
        Operation::Subtract => a - b,
        Operation::Multiply => a * b,
        Operation::Divide => a / b,
        Operation::FloorDivide => (a / b).floor(),
        Operation::Modulo => a - (a / b).floor() * b,
    }))
}

/// Order of numbers, or of strings.
fn compare(m: &Machine, left: Value, right: Value) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (m.heap.text(left)?, m.heap.text(right)?) {
        return Ok(Some(a.cmp(b)));
    }
    Ok(match (number(m, left)?, number(m, right)?) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (a, b) => a.to_f64().partial_cmp(&b.to_f64()),
    })
}

/// Equality of numbers and strings by value, of all else by identity.
fn equal(m: &Machine, left: Value, right: Value) -> Result<bool> {
    if left == right {
        return Ok(!matches!(left.kind(), Kind::Float(x) if x.is_nan()));
    }
    let is_number = |value: Value| -> Result<bool> {
        Ok(matches!(value.kind(), Kind::Int(_) | Kind::Float(_)) || matches!(body(m, value)?, Body::Big(_)))
    };
    if is_number(left)? && is_number(right)? {
        return Ok(compare(m, left, right)? == Some(Ordering::Equal));
    }
    let is_symbol = |value: Value| matches!(value.kind(), Kind::Symbol(_));
    Ok(match (m.heap.text(left)?, m.heap.text(right)?) {
        (Some(a), Some(b)) => a == b && is_symbol(left) == is_symbol(right),
        _ => false,
    })
}

fn print(m: &mut Machine, me: Value) -> Result {
    body(m, me)?;
    let text = match m.heap.text(me)? {
        Some(text) if me.as_object().is_some() => format!("'{}'", text.replace('\'', "''")),
        _ => m.describe(me),
    };
    m.heap.string(&text)
}

/// A shallow copy with an identity of its own; values are their own clones.
fn clone(m: &mut Machine, me: Value) -> Result {
    let Some(handle) = me.as_object() else { return Ok(me) };
    let object = m.heap.get(handle)?;
    match object.body {
        Body::Plain | Body::Array(_) => {}
        _ => return Ok(me),
    }
    let (slots, body) = (object.slots.clone(), object.body.clone());
    m.heap.create(slots, body).map(Value::object)
}

fn slot_names(m: &mut Machine, me: Value) -> Result {
    let names = match me.as_object() {
        Some(handle) => m.heap.get(handle)?.slots.iter().map(|slot| Value::symbol(slot.name)).collect(),
        None => Vec::new(),
    };
    m.heap.array(names)
}

/// `setSlot:value:`: a block whose arguments fit a selector that takes some becomes a method with self = the receiver;
/// all else is data.
fn set_slot(m: &mut Machine, me: Value, name: Value, value: Value) -> Result {
    let selector = text(m, name)?;
    let Some(handle) = me.as_object() else { return failed(format!("{} has no slots", m.describe(me))) };
    m.heap.get(handle)?;
    let arity = selector.matches(':').count();
    let is_binary = !selector.is_empty() && !selector.contains(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let arity = if is_binary { 1 } else { arity };
    if selector.is_empty() || selector.len() > 256 || selector.starts_with('_') {
        return failed(format!("{selector:?} is no name for a slot"));
    }
    let block = match body(m, value)? {
        Body::Block(closure) => closure.code.tree.clone(),
        _ => None,
    };
    let slot_name = m.heap.symbols.intern(&selector);
    let (kind, value) = match block {
        Some(tree) if arity > 0 && tree.arguments.len() == arity => {
            let slot = crate::syntax::SlotNode {
                at: tree.at,
                name: selector.clone(),
                kind: crate::syntax::SlotNodeKind::Method((*tree).clone()),
            };
            let checked = super::check_method(&crate::syntax::print_slot(&slot)).map_err(Stop::Fail)?;
            (SlotType::Method, m.heap.method(slot_name, checked.source.into(), false))
        }
        Some(_) if arity > 0 => return failed(format!("the block's arguments do not fit {selector:?}")),
        _ if arity > 0 => return failed(format!("{selector:?} takes arguments: only a block can be its method")),
        _ => (SlotType::Assignable, value),
    };
    put(m, handle, Slot { name: slot_name, kind, value })?;
    Ok(me)
}

fn put(m: &mut Machine, handle: Handle, slot: Slot) -> Result<()> {
    m.heap.charge(24)?;
    let object = m.heap.get_mut(handle)?;
    object.dirty = matches!(object.origin, Origin::Stored { .. });
    match object.slots.iter_mut().find(|old| old.name == slot.name) {
        Some(old) => *old = slot,
        None => object.slots.push(slot),
    }
    Ok(())
}

fn perform(m: &mut Machine, _me: Value, selector: Value, arguments: Value) -> Result<Flow> {
    let name = text(m, selector)?;
    let arguments = array(m, arguments)?.to_vec();
    let binary = !name.is_empty() && !name.contains(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let wanted = if binary { 1 } else { name.matches(':').count() };
    if name.starts_with('_') || name.is_empty() || wanted != arguments.len() {
        return failed(format!("{name:?} with {} arguments is no message", arguments.len()));
    }
    Ok(Flow::Send { selector: m.heap.symbols.intern(&name), arguments })
}
