//! Slots as data: what mirrors and `setSlot:value:` stand on.

use batos_covenant::Wire;
use batos_graph::{Intent, ObjectId};
use serde_json::json;

use super::{Entry, Flow, Result, answer, arg, arity, array, body, object, text};
use crate::{
    syntax::{SlotNode, SlotNodeKind, print_slot},
    vm::{
        check_method,
        error::{Stop, failed, limit},
        heap::{Body, Origin, Slot, SlotType},
        machine::Machine,
        turn::{Question, value_of},
        value::{Handle, Kind, Value},
    },
};

/// Most that a model is told of one message's values, in bytes, and how deep arrays in it nest.
const MAX_TOLD: usize = 8192;
const MAX_TOLD_DEPTH: usize = 8;

pub(super) const TABLE: &[Entry] = &[
    ("_SetSlot:Value:", |m, me, a| set_slot(m, me, arg(a, 0), arg(a, 1)).map(Flow::Value)),
    ("_SetSlot:Value:Kind:", |m, me, a| {
        let (name, kind, value) = (text(m, arg(a, 0))?.to_owned(), text(m, arg(a, 2))?.to_owned(), arg(a, 1));
        let handle = object(m, me)?;
        if arity(&name) != Some(0) {
            return failed(format!("{name:?} is no name for a data slot"));
        }
        let kind = match kind.as_str() {
            "constant" => SlotType::Constant,
            "assignable" => SlotType::Assignable,
            "parent" if value.as_object().is_some() => SlotType::Parent,
            "parent" => return failed(format!("{} cannot be a parent", m.describe(value))),
            other => return failed(format!("{other:?} is no kind of slot: constant, assignable or parent")),
        };
        let name = m.heap.make_symbol(&name)?;
        put(m, handle, Slot { name, kind, value })?;
        answer(me)
    }),
    ("_SlotNames", |m, me, _| {
        let names = match me.as_object() {
            Some(handle) => m.heap.slots(handle)?.iter().map(|slot| Value::symbol(slot.name)).collect(),
            None => Vec::new(),
        };
        m.heap.array(names).map(Flow::Value)
    }),
    ("_SlotKind:", |m, me, a| {
        let slot = own(m, me, arg(a, 0))?;
        let is_intent = slot.is_some_and(|slot| intent(m, &slot).is_some());
        let kind = match slot.map(|slot| slot.kind) {
            Some(SlotType::Constant) => "constant",
            Some(SlotType::Assignable) => "assignable",
            Some(SlotType::Parent) => "parent",
            Some(SlotType::Method) if is_intent => "intent",
            Some(SlotType::Method) => "method",
            None => return answer(Value::NIL),
        };
        answer(Value::symbol(m.heap.symbols.intern(kind)))
    }),
    ("_SlotValue:", |m, me, a| match own(m, me, arg(a, 0))? {
        Some(slot) if slot.kind == SlotType::Method => source(m, slot),
        Some(slot) => answer(slot.value),
        None => failed(format!("there is no slot {:?}", text(m, arg(a, 0))?)),
    }),
    ("_Intent:With:", |m, me, a| {
        let (selector, arguments) = (text(m, arg(a, 0))?.to_owned(), array(m, arg(a, 1))?.to_vec());
        let mut missing = m.missing(me, selector, &arguments);
        let holder = m.frames.last().and_then(|frame| frame.holder).or(me.as_object());
        missing.intent = holder.and_then(|holder| m.heap.id_of(holder, &m.seed));
        if let (Some(holder), Some(id)) = (holder, missing.intent)
            && is_outcome(m, holder, arg(a, 0))?
        {
            let question = question(m, me, id, &missing.selector, &arguments)?;
            if let Some(answer) = m.outcomes.get(&question.key).cloned() {
                return value_of(&mut m.heap, &answer, 0).map(Flow::Value).map_err(Stop::Fail);
            }
            missing.question = Some(Box::new(question));
        }
        Err(Stop::NotUnderstood(missing))
    }),
    ("_Holders", |m, me, _| {
        let handle = object(m, me)?;
        let is_new = matches!(m.heap.get(handle)?.origin, Origin::New(_));
        let id = m.heap.id_of(handle, &m.seed).filter(|_| !is_new);
        let holders = match id {
            None => Vec::new(),
            Some(id) if id.is_well_known() => {
                return failed("who refers to an object of the image is not kept: everything does");
            }
            Some(id) => m.holders.get(&id).cloned().ok_or(Stop::Holders(id))?,
        };
        let holders = holders.into_iter().map(|holder| Value::object(m.heap.refer(holder))).collect();
        m.heap.array(holders).map(Flow::Value)
    }),
    ("_RemoveSlot:", |m, me, a| {
        let Some(slot) = own(m, me, arg(a, 0))? else {
            return failed(format!("there is no slot {:?}", text(m, arg(a, 0))?));
        };
        let handle = object(m, me)?;
        m.heap.remove_slot(handle, slot.name)?;
        answer(me)
    }),
];

fn is_outcome(m: &mut Machine, holder: Handle, selector: Value) -> Result<bool> {
    let slot = own(m, Value::object(holder), selector)?;
    Ok(slot.is_some_and(|slot| intent(m, &slot).is_some_and(|intent| intent.outcome.is_some())))
}

/// What a model is told: values only, no objects.
fn question(m: &mut Machine, me: Value, holder: ObjectId, selector: &str, arguments: &[Value]) -> Result<Question> {
    let mut told = Vec::new();
    for (n, argument) in arguments.iter().enumerate() {
        match told_of(m, *argument, 0)? {
            Some(value) => told.push(value),
            None => {
                let wanted = "a model is told numbers, texts, symbols, booleans, nil and arrays of them";
                return failed(format!("argument {} of {selector:?} is {}: {wanted}", n + 1, m.describe(*argument)));
            }
        }
    }
    let mut own = serde_json::Map::new();
    let slots = match me.as_object() {
        Some(handle) if m.heap.get(handle)?.body.is_object() => m.heap.slots(handle)?,
        _ => Vec::new(),
    };
    for slot in slots {
        let name = m.heap.symbols.name(slot.name).to_owned();
        let is_data = matches!(slot.kind, SlotType::Constant | SlotType::Assignable);
        // What begins with an underscore is private.
        if is_data && !name.starts_with('_') {
            own.extend(told_of(m, slot.value, 0)?.map(|value| (name, value)));
        }
    }
    let inputs = json!({ "arguments": told, "receiver": own });
    let text = inputs.to_string();
    if text.len() > MAX_TOLD {
        return limit(format!("{selector:?} would tell a model {} bytes, at most {MAX_TOLD} are told", text.len()));
    }
    let mut key = blake3::Hasher::new();
    key.update(&holder.0).update(selector.as_bytes()).update(&[0]).update(text.as_bytes());
    Ok(Question { key: *key.finalize().as_bytes(), inputs })
}

/// A value without objects, or none.
fn told_of(m: &Machine, value: Value, depth: usize) -> Result<Option<Wire>> {
    Ok(match value.kind() {
        Kind::Nil => Some(Wire::Null),
        Kind::Bool(b) => Some(json!(b)),
        Kind::Int(n) => Some(json!(n)),
        Kind::Float(x) => x.is_finite().then(|| json!(x)),
        Kind::Symbol(symbol) => Some(json!(m.heap.symbols.name(symbol))),
        Kind::Char(c) => Some(json!(c)),
        Kind::Object(_) => match body(m, value)? {
            Body::Str(text) => Some(json!(&**text)),
            Body::Big(n) => Some(json!(n.to_string())),
            Body::Fraction(n) => Some(json!(format!("{}/{}", n.numerator, n.denominator))),
            Body::Array(elements) if depth < MAX_TOLD_DEPTH => {
                let told =
                    elements.iter().map(|element| told_of(m, *element, depth + 1)).collect::<Result<Vec<_>>>()?;
                told.into_iter().collect::<Option<Vec<_>>>().map(Wire::Array)
            }
            _ => None,
        },
    })
}

fn own(m: &mut Machine, me: Value, name: Value) -> Result<Option<Slot>> {
    let name = text(m, name)?.to_owned();
    let name = m.heap.make_symbol(&name)?;
    Ok(match me.as_object() {
        Some(handle) => m.heap.slot(handle, name)?,
        None => None,
    })
}

fn intent<'a>(m: &'a Machine, slot: &Slot) -> Option<&'a Intent> {
    let method = m.heap.method_of(slot).filter(|_| slot.kind == SlotType::Method)?;
    method.intent.as_deref()
}

/// A method's source, an intent's text.
fn source(m: &mut Machine, slot: Slot) -> Result<Flow> {
    let text = match (intent(m, &slot), m.heap.method_of(&slot)) {
        (Some(intent), _) => intent.text.clone(),
        (None, method) => method.map(|method| method.source.to_string()).unwrap_or_default(),
    };
    m.heap.string(&text).map(Flow::Value)
}

/// `setSlot:value:`: a block whose arguments fit a selector that takes some becomes a method with self = the receiver;
/// all else is data.
fn set_slot(m: &mut Machine, me: Value, name: Value, value: Value) -> Result {
    let selector = text(m, name)?.to_owned();
    let handle = object(m, me)?;
    let Some(arity) = arity(&selector) else { return failed(format!("{selector:?} is no name for a slot")) };
    body(m, value)?;
    let block = m.block_tree(value);
    let slot_name = m.heap.make_symbol(&selector)?;
    let (kind, value) = match block {
        Some(tree) if arity > 0 && tree.arguments.len() == arity => {
            let slot = SlotNode { at: tree.at, name: selector.clone(), kind: SlotNodeKind::Method((*tree).clone()) };
            let checked = check_method(&print_slot(&slot)).map_err(Stop::Fail)?;
            m.heap.charge(checked.source.len())?;
            (SlotType::Method, m.heap.make_method(slot_name, checked.source.into())?)
        }
        Some(_) if arity > 0 => return failed(format!("the block's arguments do not fit {selector:?}")),
        _ if arity > 0 => return failed(format!("{selector:?} takes arguments: only a block can be its method")),
        _ => (SlotType::Assignable, value),
    };
    put(m, handle, Slot { name: slot_name, kind, value })?;
    Ok(me)
}

fn put(m: &mut Machine, handle: Handle, slot: Slot) -> Result<()> {
    let is_value = !m.heap.get(handle)?.body.is_object();
    match is_value {
        true => failed(format!("{} has no slots", m.describe(Value::object(handle)))),
        false => m.heap.put_slot(handle, slot),
    }
}
