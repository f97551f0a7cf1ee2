//! What every object can do: identity, equality of values, hashes, copies, printing, `perform:`.

use std::collections::HashMap;

use super::{
    Entry, Flow, Result, answer, arg, arity, array, body, boolean, count, numbers, object, strings_quoted, text, tower,
    work,
};
use crate::{
    image,
    vm::{
        error::failed,
        heap::{Body, Object, Slot, SlotType},
        lookup,
        machine::Machine,
        symbols::known,
        value::{Handle, Kind, Value},
    },
};

pub(super) const TABLE: &[Entry] = &[
    ("_Clone", |m, me, _| clone(m, me).map(Flow::Value)),
    ("_DeepCopy", |m, me, _| deep_copy(m, me).map(Flow::Value)),
    ("_Identical:", |m, me, a| {
        // Strings and large numbers are values: equal ones are the same.
        boolean(me == arg(a, 0) || is_plain_value(m, me)? && same_kind(m, me, arg(a, 0))? && equal(m, me, arg(a, 0))?)
    }),
    ("_Equal:", |m, me, a| {
        let is_equal = equal(m, me, arg(a, 0))?;
        // Texts of one length are compared byte by byte.
        let size = |value: Value| Ok(m.heap.text(value)?.map_or(0, str::len));
        let (left, right): (usize, usize) = (size(me)?, size(arg(a, 0))?);
        work(m, if left == right { left } else { 0 })?;
        boolean(is_equal)
    }),
    ("_Hash", |m, me, _| {
        let hash = match value_hash(m, me)? {
            Some(hash) => hash,
            None => identity_hash(m, me)?,
        };
        answer(count(usize::try_from(hash).unwrap_or_default()))
    }),
    ("_IdentityHash", |m, me, _| {
        let hash = match value_hash(m, me)? {
            Some(hash) => hash,
            None => identity_hash(m, me)?,
        };
        answer(count(usize::try_from(hash).unwrap_or_default()))
    }),
    ("_PrintString", |m, me, _| print(m, me)),
    ("_PrototypeName", |m, me, _| {
        let handle = object(m, me)?;
        match is_image(m.heap.get(handle)?) {
            true => m.heap.string(&m.describe(me)).map(Flow::Value),
            false => failed(format!("{} is no prototype of the image: it has no name", m.describe(me))),
        }
    }),
    ("_IsPrototype", |m, me, _| match me.as_object() {
        Some(handle) => boolean(is_image(m.heap.get(handle)?)),
        None => boolean(false),
    }),
    ("_Shape", |m, me, _| {
        body(m, me)?;
        let shape = m.shape(me);
        answer(Value::symbol(m.heap.symbols.intern(shape)))
    }),
    ("_Parent", |m, me, _| parent(m, me).and_then(answer)),
    ("_InheritsFrom:", |m, me, a| inherits(m, me, arg(a, 0)).and_then(boolean)),
    ("_RespondsTo:", |m, me, a| {
        let name = text(m, arg(a, 0))?.to_owned();
        let selector = m.heap.make_symbol(&name)?;
        let map = m.heap.map_of(me)?;
        boolean(lookup::lookup(&mut m.heap, map, selector)?.is_some())
    }),
    ("_Perform:With:", |m, _, a| {
        let name = text(m, arg(a, 0))?.to_owned();
        let arguments = array(m, arg(a, 1))?.to_vec();
        if arity(&name) != Some(arguments.len()) {
            return failed(format!("{name:?} with {} arguments is no message", arguments.len()));
        }
        Ok(Flow::Send { selector: m.heap.make_symbol(&name)?, arguments })
    }),
    ("_Error:", |m, _, a| match m.heap.text(arg(a, 0))? {
        Some(text) => failed(text),
        None => failed(m.describe(arg(a, 0))),
    }),
    ("_BlockValue:", |m, _, a| Ok(Flow::Block { arguments: array(m, arg(a, 0))?.to_vec() })),
    ("_Value", |_, _, a| Ok(Flow::Block { arguments: a.to_vec() })),
    ("_Value:", |_, _, a| Ok(Flow::Block { arguments: a.to_vec() })),
    ("_Value:With:", |_, _, a| Ok(Flow::Block { arguments: a.to_vec() })),
    ("_Value:With:With:", |_, _, a| Ok(Flow::Block { arguments: a.to_vec() })),
    ("_Value:With:With:With:", |_, _, a| Ok(Flow::Block { arguments: a.to_vec() })),
    ("_BlockArity", |m, me, _| match m.block_code(me) {
        Some(code) => answer(count(code.arguments)),
        None => failed("only a block has an arity"),
    }),
];

/// Whether a value decides nothing itself: it is compared and hashed here, without messages.
pub(super) fn is_plain_value(m: &Machine, value: Value) -> Result<bool> {
    Ok(value.as_object().is_none() || matches!(body(m, value)?, Body::Str(_) | Body::Big(_) | Body::Fraction(_)))
}

fn same_kind(m: &Machine, left: Value, right: Value) -> Result<bool> {
    body(m, right)?;
    Ok(m.shape(left) == m.shape(right))
}

/// Equality of numbers and strings by value, of all else by identity.
pub(super) fn equal(m: &Machine, left: Value, right: Value) -> Result<bool> {
    if left == right {
        return Ok(!matches!(left.kind(), Kind::Float(x) if x.is_nan()));
    }
    if tower::is_number(m, left)? {
        return Ok(tower::is_number(m, right)? && tower::order(m, left, right)?.is_some_and(|order| order.is_eq()));
    }
    let is_symbol = |value: Value| matches!(value.kind(), Kind::Symbol(_));
    Ok(match (m.heap.text(left)?, m.heap.text(right)?) {
        (Some(a), Some(b)) => a == b && is_symbol(left) == is_symbol(right),
        _ => false,
    })
}

/// Hash of a value that is compared here; equal ones have equal hashes, in every turn and on every machine.
pub(super) fn value_hash(m: &Machine, value: Value) -> Result<Option<u64>> {
    Ok(Some(match value.kind() {
        Kind::Nil => digest(0, b"nil"),
        Kind::Bool(b) => digest(0, if b { b"true" } else { b"false" }),
        Kind::Int(n) => digest(1, &n.to_le_bytes()),
        Kind::Float(x) if x.fract() == 0.0 && x.abs() < (1_u64 << 47) as f64 => digest(1, &(x as i64).to_le_bytes()),
        Kind::Float(_) => digest(1, &tower::hash_bytes(m, value)?),
        Kind::Symbol(symbol) => digest(2, m.heap.symbols.name(symbol).as_bytes()),
        Kind::Char(c) => digest(3, &u32::from(c).to_le_bytes()),
        Kind::Object(_) => match body(m, value)? {
            Body::Str(text) => digest(4, text.as_bytes()),
            Body::Big(_) | Body::Fraction(_) => digest(1, &tower::hash_bytes(m, value)?),
            _ => return Ok(None),
        },
    }))
}

/// From the object's id, so that it is the same before and after it is stored.
fn identity_hash(m: &Machine, value: Value) -> Result<u64> {
    let Some(handle) = value.as_object() else { return Ok(0) };
    m.heap.get(handle)?;
    let id = m.heap.id_of(handle, &m.seed);
    Ok(id.map_or(0, |id| digest(5, &id.0)))
}

/// FNV-1a with a final mix, in 46 bits: a small integer of the language.
fn digest(kind: u8, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    let start = 0xCBF2_9CE4_8422_2325 ^ u64::from(kind);
    let hash = bytes.iter().fold(start.wrapping_mul(PRIME), |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    let mixed = (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ mixed >> 32) >> 18
}

fn print(m: &mut Machine, me: Value) -> Result<Flow> {
    if let Body::Big(n) = body(m, me)? {
        let n = n.clone();
        numbers::pay(m, &n, &n)?;
    }
    let text = match me.kind() {
        Kind::Float(x) => tower::float_text(x),
        Kind::Symbol(symbol) => {
            let name = m.heap.symbols.name(symbol);
            let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':') && !name.starts_with(':');
            if plain && !name.is_empty() || arity(name) == Some(1) {
                format!("#{name}")
            } else {
                format!("#{}", strings_quoted(name))
            }
        }
        Kind::Object(handle) => match (&m.heap.get(handle)?.body, m.heap.get(handle)?.record()) {
            (Body::Str(text), _) => strings_quoted(text),
            (Body::Big(_) | Body::Fraction(_) | Body::Block { .. }, _) => m.describe(me),
            (_, Some(record)) if record.name.is_some() => m.describe(me),
            _ => kind_of(m, me)?,
        },
        _ => m.describe(me),
    };
    m.heap.string(&text).map(Flow::Value)
}

/// "an Account": after the nearest parent that has a name.
fn kind_of(m: &mut Machine, me: Value) -> Result<String> {
    const FAR: usize = 64;
    let mut kind = me;
    for _ in 0..FAR {
        kind = parent(m, kind)?;
        let Some(handle) = kind.as_object() else { break };
        let Some(record) = m.heap.get(handle)?.record() else { continue };
        if let Some(name) = &record.name {
            let name = name.strip_prefix("traits ").unwrap_or(name);
            let vowel = name.starts_with(['A', 'E', 'I', 'O', 'U', 'a', 'e', 'i', 'o', 'u']);
            return Ok(format!("{} {name}", if vowel { "an" } else { "a" }));
        }
    }
    Ok("an object".to_owned())
}

/// What a value delegates to first; nil for an object without parents.
fn parent(m: &mut Machine, me: Value) -> Result {
    if let Some(handle) = me.as_object()
        && let Some(parent) = m.heap.parents(handle)?.first()
    {
        return Ok(Value::object(*parent));
    }
    let start = lookup::start(&m.heap, me)?;
    let traits = start.into_iter().map(Value::object).find(|start| *start != me);
    Ok(traits.unwrap_or(Value::NIL))
}

/// Whether `me` is `ancestor` or delegates to it, directly or not.
fn inherits(m: &mut Machine, me: Value, ancestor: Value) -> Result<bool> {
    if me == ancestor {
        return Ok(true);
    }
    let Some(ancestor) = ancestor.as_object() else { return Ok(false) };
    let mut next = lookup::start(&m.heap, me)?;
    let mut seen: Vec<Handle> = next.clone();
    while let Some(handle) = next.pop() {
        if handle == ancestor {
            return Ok(true);
        }
        for parent in m.heap.parents(handle)? {
            if !seen.contains(parent) {
                seen.push(*parent);
                next.push(*parent);
            }
        }
    }
    Ok(false)
}

fn is_image(object: &Object) -> bool {
    object.record().is_some_and(|record| record.is_kernel && record.is_trait)
}

/// A new object of the receiver's kind: a prototype of the image gets a child, another object a copy of its slots.
pub(super) fn new_like(m: &mut Machine, me: Value, body: Body) -> Result {
    let array = m.heap.refer(image::ARRAY_TRAITS);
    let handle = object(m, me)?;
    if !is_image(m.heap.get(handle)?) {
        return m.heap.like(handle, body).map(Value::object);
    }
    // Arrays need no slot to say what they are.
    let parent = Slot { name: known::PARENT, kind: SlotType::Parent, value: me };
    let slots = if handle == array { Vec::new() } else { vec![parent] };
    m.heap.create(slots, body).map(Value::object)
}

/// A shallow copy with an identity of its own; values are their own clones.
fn clone(m: &mut Machine, me: Value) -> Result {
    let Some(handle) = me.as_object() else { return Ok(me) };
    let body = match &m.heap.get(handle)?.body {
        body @ (Body::Plain | Body::Array(_) | Body::Table(_)) => body.clone(),
        Body::BigArray(_) | Body::BigTable(_) => m.heap.share(handle, &m.seed)?,
        _ => return Ok(me),
    };
    let size = match &body {
        Body::Array(elements) => elements.len(),
        Body::Table(table) => table.span(),
        _ => 0,
    };
    work(m, size)?;
    new_like(m, me, body)
}

/// A copy of everything that belongs to an object: its data, transitively, but not its parents nor anything that has a
/// name in the universe.
fn deep_copy(m: &mut Machine, me: Value) -> Result {
    let mut order = Vec::new();
    let mut copies: HashMap<Handle, Option<Value>> = HashMap::new();
    let mut next = vec![me];
    let mut pieces = HashMap::new();
    // First all operands, so that a missing one has no effect.
    while let Some(value) = next.pop() {
        let Some(handle) = value.as_object().filter(|handle| !copies.contains_key(handle)) else { continue };
        let object = m.heap.get(handle)?;
        let named = object.record().is_some_and(|record| record.name.is_some());
        if named && value != me || is_image(object) || !object.body.is_object() {
            continue;
        }
        copies.insert(handle, None);
        order.push(handle);
        let words = (0..object.words as usize).map(|word| m.heap.word(handle, word));
        next.extend(words);
        match &object.body {
            Body::Array(elements) => next.extend(elements),
            Body::Table(table) => next.extend(table.entries().flat_map(|entry| [entry.key, entry.value])),
            body @ (Body::BigArray(_) | Body::BigTable(_)) => {
                let small = m.heap.in_one_piece(body)?;
                next.extend(small.values());
                pieces.insert(handle, small);
            }
            _ => {}
        }
    }
    work(m, order.len() * 8)?;
    for handle in &order {
        let body = pieces.remove(handle).map_or_else(|| Ok(m.heap.get(*handle)?.body.clone()), Ok)?;
        let copy = m.heap.like(*handle, body)?;
        copies.insert(*handle, Some(Value::object(copy)));
    }
    let copied =
        |value: Value| value.as_object().and_then(|handle| copies.get(&handle).copied().flatten()).unwrap_or(value);
    for copy in order.iter().filter_map(|handle| copies.get(handle).copied().flatten()) {
        let Some(handle) = copy.as_object() else { continue };
        for word in 0..m.heap.get(handle)?.words as usize {
            let value = copied(m.heap.word(handle, word));
            m.heap.set_word(handle, word, value);
        }
        let object = m.heap.get_mut(handle)?;
        match &mut object.body {
            Body::Array(elements) => elements.iter_mut().for_each(|element| *element = copied(*element)),
            Body::Table(table) => table.entries_mut().for_each(|entry| {
                entry.key = copied(entry.key);
                entry.value = copied(entry.value);
            }),
            _ => {}
        }
    }
    Ok(copied(me))
}
