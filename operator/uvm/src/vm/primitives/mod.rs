//! Primitives: what the image builds on. Only the image names them.
//!
//! Each touches all its operands before any effect, so that it can start again when an object has to be loaded first,
//! and none calls back into the language: what needs a message (a key's own `hash`, a number that is no number of ours)
//! is sent on by `Flow::Send`. Work that grows with its operands is paid for in fuel, once they are all there.

mod arrays;
mod characters;
mod mirrors;
mod numbers;
mod objects;
mod posts;
mod random;
mod strings;
mod tables;
mod tower;

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use batos_graph::bucket::Elements;

use super::{
    error::{Stop, failed, limit, raise},
    exceptions::{self, Ending},
    heap::{Body, Object},
    machine::{Machine, Target},
    value::{Handle, Symbol, Value},
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
type Entry = (&'static str, Primitive);

static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    [
        arrays::TABLE,
        characters::TABLE,
        exceptions::TABLE,
        mirrors::TABLE,
        numbers::TABLE,
        objects::TABLE,
        posts::TABLE,
        random::TABLE,
        strings::TABLE,
        tables::TABLE,
    ]
    .concat()
});
static NUMBERS: LazyLock<HashMap<&str, u16>> = LazyLock::new(|| TABLE.iter().map(|(name, _)| *name).zip(0..).collect());

/// Number of the primitive `name`.
pub(super) fn find(name: &str) -> Option<u16> {
    NUMBERS.get(name).copied()
}

/// How the interpreter goes about a method that only calls this primitive.
pub(super) fn shortcut(number: u16) -> Target {
    match TABLE.get(usize::from(number)).map_or("", |(name, _)| name) {
        "_Value" | "_Value:" | "_Value:With:" | "_Value:With:With:" | "_Value:With:With:With:" => Target::Value,
        "_ArrayAt:" => Target::ArrayAt,
        "_ArrayAt:Put:" => Target::ArrayAtPut,
        "_ArraySize" => Target::ArraySize,
        "_StrAt:" => Target::StringAt,
        "_StrSize" => Target::StringSize,
        _ => Target::Primitive { number },
    }
}

/// The primitive behind a shortcut.
pub(super) fn of_shortcut(target: Target) -> u16 {
    let name = match target {
        Target::ArrayAt => "_ArrayAt:",
        Target::ArrayAtPut => "_ArrayAt:Put:",
        Target::StringAt => "_StrAt:",
        Target::StringSize => "_StrSize",
        _ => "_ArraySize",
    };
    find(name).unwrap_or(u16::MAX)
}

pub(super) fn run(machine: &mut Machine, primitive: u16, me: Value, arguments: &[Value]) -> Result<Flow> {
    match TABLE.get(usize::from(primitive)) {
        Some((_, run)) => run(machine, me, arguments),
        None => failed("unknown primitive"),
    }
}

pub(super) fn arg(arguments: &[Value], index: usize) -> Value {
    arguments.get(index).copied().unwrap_or(Value::NIL)
}

fn answer(value: Value) -> Result<Flow> {
    Ok(Flow::Value(value))
}

fn boolean(b: bool) -> Result<Flow> {
    answer(Value::bool(b))
}

fn send(m: &mut Machine, selector: &str, arguments: Vec<Value>) -> Result<Flow> {
    Ok(Flow::Send { selector: m.heap.symbols.intern(selector), arguments })
}

fn count(n: usize) -> Value {
    i64::try_from(n).ok().and_then(Value::int).unwrap_or(Value::NIL)
}

/// Takes fuel for work on `n` elements. Comes after the operands were touched: fuel does not depend on faults.
fn work(m: &mut Machine, n: usize) -> Result<()> {
    let units = u64::try_from(n / 32).unwrap_or(u64::MAX);
    match m.fuel.checked_sub(units) {
        Some(left) => {
            m.fuel = left;
            Ok(())
        }
        None => {
            m.fuel = 0;
            limit("the turn used up its fuel")
        }
    }
}

fn body(m: &Machine, value: Value) -> Result<&Body> {
    match value.as_object() {
        Some(handle) => Ok(&m.heap.get(handle)?.body),
        None => Ok(&Body::Plain),
    }
}

/// The object behind a value that is about to change.
fn changing(m: &mut Machine, value: Value) -> Result<&mut Object> {
    let Some(handle) = value.as_object() else { return failed(format!("{} has no contents", m.describe(value))) };
    let object = m.heap.get_mut(handle)?;
    object.dirty = true;
    Ok(object)
}

fn object(m: &Machine, value: Value) -> Result<Handle> {
    match value.as_object() {
        Some(handle) => {
            m.heap.get(handle)?;
            Ok(handle)
        }
        None => failed(format!("{} has no slots", m.describe(value))),
    }
}

fn text(m: &Machine, value: Value) -> Result<&str> {
    match m.heap.text(value)? {
        Some(text) => Ok(text),
        None => failed(format!("{} is no string", m.describe(value))),
    }
}

/// All elements of an array. Those of a large one are copied together.
fn array(m: &Machine, value: Value) -> Result<Cow<'_, [Value]>> {
    match body(m, value)? {
        Body::Array(elements) => Ok(Cow::Borrowed(elements)),
        Body::BigArray(array) => {
            m.heap.items_of::<Elements>(&array.elements, 0..array.elements.count()).map(Cow::Owned)
        }
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

fn out_of_bounds<T>(index: usize, size: usize) -> Result<T> {
    raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("index {} is outside 1 to {size}", index + 1))
}

/// Whether a message of this name takes so many arguments; `None` when nothing can be called so.
fn arity(selector: &str) -> Option<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    if selector.is_empty() || selector.len() > 256 || selector.starts_with(['_', ':']) {
        return None;
    }
    match (selector.contains(is_name), selector.matches(':').count()) {
        (false, _) => Some(1),
        _ if !selector.chars().all(is_name) => None,
        (_, 0) => Some(0),
        (_, parts) => selector.ends_with(':').then_some(parts),
    }
}

fn failed_key<T>() -> Result<T> {
    raise(image::KEY_NOT_FOUND, "key not found")
}

fn failed_number<T>(m: &Machine, value: Value) -> Result<T> {
    failed(format!("{} is no small integer", m.describe(value)))
}

fn strings_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
