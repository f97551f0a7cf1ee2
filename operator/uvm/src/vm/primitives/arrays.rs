//! Objects with elements: arrays of a size, and the growable ones of ordered collections.

use std::cmp::Ordering;

use super::{
    Entry, Flow, Result, answer, arg, array, boolean, changing, count, index, integer, objects, out_of_bounds, send,
    tower, work,
};
use crate::image;
use crate::vm::{
    error::{Stop, failed, raise},
    heap::Body,
    machine::Machine,
    value::{Kind, Value},
};

const ELEMENT_BYTES: usize = 8;

pub(super) const TABLE: &[Entry] = &[
    ("_ArrayNew:", |m, me, a| {
        let Ok(size) = usize::try_from(integer(m, arg(a, 0))?) else { return failed("an array has no negative size") };
        // Paid for before it is made.
        m.heap.charge(size.saturating_mul(ELEMENT_BYTES))?;
        like(m, me, vec![Value::NIL; size])
    }),
    ("_ArrayLike:", |m, me, a| {
        let elements = array(m, arg(a, 0))?.to_vec();
        like(m, me, elements)
    }),
    ("_ArraySize", |m, me, _| array(m, me).map(|elements| Flow::Value(count(elements.len())))),
    ("_ArrayAt:", |m, me, a| {
        let index = index(m, arg(a, 0))?;
        let elements = array(m, me)?;
        match elements.get(index) {
            Some(element) => answer(*element),
            None => out_of_bounds(index, elements.len()),
        }
    }),
    ("_ArrayAt:Put:", |m, me, a| {
        let (index, value) = (index(m, arg(a, 0))?, arg(a, 1));
        let elements = elements(m, me)?;
        match elements.get_mut(index) {
            Some(element) => *element = value,
            None => return out_of_bounds(index, elements.len()),
        }
        answer(value)
    }),
    ("_ArraySwap:With:", |m, me, a| {
        let (i, j) = (index(m, arg(a, 0))?, index(m, arg(a, 1))?);
        let elements = elements(m, me)?;
        if i.max(j) >= elements.len() {
            return out_of_bounds(i.max(j), elements.len());
        }
        elements.swap(i, j);
        answer(me)
    }),
    ("_ArrayAdd:", |m, me, a| {
        array(m, me)?;
        m.heap.charge(ELEMENT_BYTES)?;
        elements(m, me)?.push(arg(a, 0));
        answer(arg(a, 0))
    }),
    ("_ArrayInsert:At:", |m, me, a| {
        let (value, index, size) = (arg(a, 0), index(m, arg(a, 1))?, array(m, me)?.len());
        if index > size {
            return out_of_bounds(index, size + 1);
        }
        work(m, size - index)?;
        m.heap.charge(ELEMENT_BYTES)?;
        elements(m, me)?.insert(index, value);
        answer(value)
    }),
    ("_ArrayRemoveAt:", |m, me, a| {
        let (index, size) = (index(m, arg(a, 0))?, array(m, me)?.len());
        if index >= size {
            return out_of_bounds(index, size);
        }
        work(m, size - index)?;
        elements(m, me).map(|elements| Flow::Value(elements.remove(index)))
    }),
    ("_ArrayRemoveLast", |m, me, _| {
        array(m, me)?;
        match elements(m, me)?.pop() {
            Some(last) => answer(last),
            None => failed("collection is empty"),
        }
    }),
    ("_ArrayKeep:", |m, me, a| {
        // Replaces all elements by another array's: for removeAll and sort in place.
        let (new, old) = (array(m, arg(a, 0))?.to_vec(), array(m, me)?.len());
        work(m, new.len())?;
        m.heap.charge(new.len().saturating_sub(old) * ELEMENT_BYTES)?;
        *elements(m, me)? = new;
        answer(me)
    }),
    ("_ArrayAddAll:", |m, me, a| {
        let more = array(m, arg(a, 0))?.to_vec();
        array(m, me)?;
        work(m, more.len())?;
        m.heap.charge(more.len() * ELEMENT_BYTES)?;
        elements(m, me)?.extend(more);
        answer(arg(a, 0))
    }),
    ("_ArrayConcat:", |m, me, a| {
        let both = [array(m, me)?, array(m, arg(a, 0))?].concat();
        like(m, me, both)
    }),
    ("_ArrayFrom:To:", |m, me, a| {
        let (from, to) = (index(m, arg(a, 0))?, integer(m, arg(a, 1))?);
        let elements = array(m, me)?;
        let part = usize::try_from(to).ok().filter(|to| from <= *to).and_then(|to| elements.get(from..to));
        match part.map(<[Value]>::to_vec) {
            Some(part) => like(m, me, part),
            None => raise(
                image::SUBSCRIPT_OUT_OF_BOUNDS,
                format!("{} to {to} is outside 1 to {}", from + 1, elements.len()),
            ),
        }
    }),
    ("_ArrayReplaceFrom:To:With:StartingAt:", |m, me, a| {
        let (from, to, start) = (index(m, arg(a, 0))?, integer(m, arg(a, 1))?, index(m, arg(a, 3))?);
        let source = array(m, arg(a, 2))?;
        let to = usize::try_from(to).unwrap_or_default();
        let size = array(m, me)?.len();
        if to < from || to > size {
            return raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("{} to {to} is outside 1 to {size}", from + 1));
        }
        let Some(part) = source.get(start..start + (to - from)).map(<[Value]>::to_vec) else {
            return out_of_bounds(start + (to - from), source.len());
        };
        work(m, part.len())?;
        if let Some(place) = elements(m, me)?.get_mut(from..to) {
            place.copy_from_slice(&part);
        }
        answer(me)
    }),
    ("_ArrayFill:", |m, me, a| {
        let size = array(m, me)?.len();
        work(m, size)?;
        elements(m, me)?.fill(arg(a, 0));
        answer(me)
    }),
    ("_ArrayReversed", |m, me, _| {
        let mut reversed = array(m, me)?.to_vec();
        reversed.reverse();
        like(m, me, reversed)
    }),
    ("_ArrayIndexOf:", |m, me, a| {
        // 1-based, 0 for none. What decides its own equality is compared by messages.
        let wanted = arg(a, 0);
        if !objects::is_plain_value(m, wanted)? {
            return send(m, "indexOfObject:", vec![wanted]);
        }
        let mut found = 0;
        let mut seen = 0;
        for (position, element) in array(m, me)?.iter().enumerate() {
            seen = position;
            if objects::equal(m, *element, wanted)? {
                found = position + 1;
                break;
            }
        }
        work(m, seen)?;
        answer(count(found))
    }),
    ("_ArraySorted", |m, me, _| {
        // A sorted copy if all elements are numbers or all are strings; else nil.
        let elements = array(m, me)?;
        work(m, elements.len().saturating_mul(elements.len().max(2).ilog2() as usize))?;
        let elements = array(m, me)?;
        let mut failure = None;
        let sorted = if is_all(elements, |value| tower::is_number(m, value))? {
            let mut numbers = elements.to_vec();
            numbers.sort_by(|a, b| match tower::order(m, *a, *b) {
                Ok(order) => order.unwrap_or(Ordering::Equal),
                Err(stop) => {
                    failure = Some(stop);
                    Ordering::Equal
                }
            });
            numbers
        } else if is_all(elements, |value| Ok(m.heap.text(value)?.is_some()))? {
            let mut texts = Vec::with_capacity(elements.len());
            for element in elements {
                texts.push((super::text(m, *element)?, *element));
            }
            texts.sort_by_key(|(text, _)| *text);
            texts.into_iter().map(|(_, element)| element).collect()
        } else if is_all(elements, |value| Ok(matches!(value.kind(), Kind::Char(_))))? {
            let mut characters = elements.to_vec();
            characters.sort_by_key(|value| match value.kind() {
                Kind::Char(c) => c,
                _ => '\0',
            });
            characters
        } else {
            return answer(Value::NIL);
        };
        match failure {
            Some(stop) => Err(stop),
            None => m.heap.array(sorted).map(Flow::Value),
        }
    }),
    ("_HasElements", |m, me, _| boolean(matches!(super::body(m, me)?, Body::Array(_)))),
];

fn is_all(elements: &[Value], mut holds: impl FnMut(Value) -> Result<bool>) -> Result<bool> {
    for element in elements {
        if !holds(*element)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The elements of an object that is about to change.
fn elements(m: &mut Machine, value: Value) -> Result<&mut Vec<Value>> {
    array(m, value)?;
    match &mut changing(m, value)?.body {
        Body::Array(elements) => Ok(elements),
        _ => Err(broken()),
    }
}

fn broken() -> Stop {
    Stop::Fail(crate::vm::VmError::new(batos_covenant::ErrorKind::Internal, "an array lost its elements"))
}

/// A new object of the receiver's kind with these elements.
fn like(m: &mut Machine, me: Value, elements: Vec<Value>) -> Result<Flow> {
    work(m, elements.len())?;
    objects::new_like(m, me, Body::Array(elements)).map(Flow::Value)
}
