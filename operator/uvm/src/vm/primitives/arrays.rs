//! Objects with elements: arrays of a size, and the growable ones of ordered collections.

use std::{cmp::Ordering, ops::Range};

use batos_graph::bucket::Elements;

use super::{
    Entry, Flow, Result, answer, arg, array, body, boolean, changing, count, index, integer, object, objects,
    out_of_bounds, send, tower, work,
};
use crate::image;
use crate::vm::{
    error::{Stop, failed, raise},
    heap::Body,
    machine::Machine,
    value::{Handle, Kind, Value},
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
        object(m, me)?;
        if let (Body::BigArray(_), Some(other)) = (body(m, arg(a, 0))?, arg(a, 0).as_object()) {
            let shared = m.heap.share(other, &m.seed)?;
            return objects::new_like(m, me, shared).map(Flow::Value);
        }
        let elements = array(m, arg(a, 0))?.to_vec();
        like(m, me, elements)
    }),
    ("_ArraySize", |m, me, _| size(m, me).map(|size| Flow::Value(count(size)))),
    ("_ArrayAt:", |m, me, a| {
        let index = index(m, arg(a, 0))?;
        let size = size(m, me)?;
        match body(m, me)? {
            Body::BigArray(array) if index < size => m.heap.big_element(array, index).map(Flow::Value),
            Body::Array(elements) => {
                elements.get(index).map_or_else(|| out_of_bounds(index, size), |each| answer(*each))
            }
            _ => out_of_bounds(index, size),
        }
    }),
    ("_ArrayAt:Put:", |m, me, a| {
        let (index, value) = (index(m, arg(a, 0))?, arg(a, 1));
        let size = size(m, me)?;
        if index >= size {
            return out_of_bounds(index, size);
        }
        match place(m, me)? {
            Place::Small(elements) => elements.iter_mut().skip(index).take(1).for_each(|element| *element = value),
            Place::Big(handle) => m.heap.put_big_element(handle, index, value)?,
        }
        answer(value)
    }),
    ("_ArraySwap:With:", |m, me, a| {
        let (i, j) = (index(m, arg(a, 0))?, index(m, arg(a, 1))?);
        let size = size(m, me)?;
        if i.max(j) >= size {
            return out_of_bounds(i.max(j), size);
        }
        match place(m, me)? {
            Place::Small(elements) => elements.swap(i, j),
            Place::Big(handle) => m.heap.swap_big_elements(handle, i, j)?,
        }
        answer(me)
    }),
    ("_ArrayAdd:", |m, me, a| {
        let size = size(m, me)?;
        insert(m, me, size, &[arg(a, 0)])?;
        answer(arg(a, 0))
    }),
    ("_ArrayInsert:At:", |m, me, a| {
        let (value, index, size) = (arg(a, 0), index(m, arg(a, 1))?, size(m, me)?);
        if index > size {
            return out_of_bounds(index, size + 1);
        }
        moves(m, me, size - index)?;
        insert(m, me, index, &[value])?;
        answer(value)
    }),
    ("_ArrayRemoveAt:", |m, me, a| {
        let (index, size) = (index(m, arg(a, 0))?, size(m, me)?);
        if index >= size {
            return out_of_bounds(index, size);
        }
        moves(m, me, size - index)?;
        remove(m, me, index)
    }),
    ("_ArrayRemoveLast", |m, me, _| match size(m, me)?.checked_sub(1) {
        Some(last) => remove(m, me, last),
        None => failed("collection is empty"),
    }),
    ("_ArrayKeep:", |m, me, a| {
        // Replaces all elements by another array's: for removeAll and sort in place.
        let (new, old) = (array(m, arg(a, 0))?.to_vec(), size(m, me)?);
        work(m, new.len())?;
        m.heap.charge(new.len().saturating_sub(old) * ELEMENT_BYTES)?;
        changing(m, me)?.body = Body::Array(new);
        answer(me)
    }),
    ("_ArrayAddAll:", |m, me, a| {
        let more = array(m, arg(a, 0))?.to_vec();
        let size = size(m, me)?;
        work(m, more.len())?;
        insert(m, me, size, &more)?;
        answer(arg(a, 0))
    }),
    ("_ArrayConcat:", |m, me, a| {
        let both = [array(m, me)?, array(m, arg(a, 0))?].concat();
        like(m, me, both)
    }),
    ("_ArrayFrom:To:", |m, me, a| {
        let (from, to) = (index(m, arg(a, 0))?, integer(m, arg(a, 1))?);
        let size = size(m, me)?;
        let part = usize::try_from(to).ok().filter(|to| from <= *to && *to <= size);
        match part.map(|to| part_of(m, me, from..to)).transpose()? {
            Some(part) => like(m, me, part),
            None => raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("{} to {to} is outside 1 to {size}", from + 1)),
        }
    }),
    ("_ArrayReplaceFrom:To:With:StartingAt:", |m, me, a| {
        let (from, to, start) = (index(m, arg(a, 0))?, integer(m, arg(a, 1))?, index(m, arg(a, 3))?);
        let there = self::size(m, arg(a, 2))?;
        let to = usize::try_from(to).unwrap_or_default();
        let size = size(m, me)?;
        if to < from || to > size {
            return raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("{} to {to} is outside 1 to {size}", from + 1));
        }
        let end = start.saturating_add(to - from);
        if end > there {
            return out_of_bounds(end, there);
        }
        let part = part_of(m, arg(a, 2), start..end)?;
        if let Body::BigArray(_) = body(m, me)? {
            // All there before the first is replaced.
            part_of(m, me, from..to)?;
        }
        work(m, part.len())?;
        match place(m, me)? {
            Place::Small(elements) => {
                if let Some(place) = elements.get_mut(from..to) {
                    place.copy_from_slice(&part);
                }
            }
            Place::Big(handle) => {
                for (index, value) in (from..to).zip(part) {
                    m.heap.put_big_element(handle, index, value)?;
                }
            }
        }
        answer(me)
    }),
    ("_ArrayFill:", |m, me, a| {
        let size = size(m, me)?;
        work(m, size)?;
        match place(m, me)? {
            Place::Small(elements) => elements.fill(arg(a, 0)),
            Place::Big(_) => {
                m.heap.charge(size * ELEMENT_BYTES)?;
                changing(m, me)?.body = Body::Array(vec![arg(a, 0); size]);
            }
        }
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
        let elements = array(m, me)?.into_owned();
        work(m, elements.len().saturating_mul(elements.len().max(2).ilog2() as usize))?;
        let elements = elements.as_slice();
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
    ("_HasElements", |m, me, _| boolean(body(m, me)?.is_array())),
];

fn is_all(elements: &[Value], mut holds: impl FnMut(Value) -> Result<bool>) -> Result<bool> {
    for element in elements {
        if !holds(*element)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the elements of an array are that is about to change.
enum Place<'a> {
    Small(&'a mut Vec<Value>),
    /// In buckets.
    Big(Handle),
}

fn place(m: &mut Machine, value: Value) -> Result<Place<'_>> {
    let Some(handle) = value.as_object() else { return Err(broken()) };
    let object = m.heap.get_mut(handle)?;
    match &mut object.body {
        Body::BigArray(_) => Ok(Place::Big(handle)),
        Body::Array(elements) => {
            object.dirty = true;
            Ok(Place::Small(elements))
        }
        _ => Err(broken()),
    }
}

fn size(m: &Machine, value: Value) -> Result<usize> {
    match body(m, value)? {
        Body::Array(elements) => Ok(elements.len()),
        Body::BigArray(array) => Ok(array.len()),
        _ => failed(format!("{} is no array", m.describe(value))),
    }
}

/// Pays for elements that have to make room; in a large array only those of a bucket do.
fn moves(m: &mut Machine, me: Value, n: usize) -> Result<()> {
    match body(m, me)? {
        Body::Array(_) => work(m, n),
        _ => Ok(()),
    }
}

fn insert(m: &mut Machine, me: Value, index: usize, values: &[Value]) -> Result<()> {
    m.heap.charge(values.len() * ELEMENT_BYTES)?;
    match place(m, me)? {
        Place::Small(elements) => match values {
            [value] => elements.insert(index, *value),
            _ => drop(elements.splice(index..index, values.iter().copied())),
        },
        Place::Big(handle) => m.heap.insert_big_elements(handle, index, values)?,
    }
    Ok(())
}

fn remove(m: &mut Machine, me: Value, index: usize) -> Result<Flow> {
    match place(m, me)? {
        Place::Small(elements) if index < elements.len() => answer(elements.remove(index)),
        Place::Small(_) => Err(broken()),
        Place::Big(handle) => m.heap.remove_big_element(handle, index).map(Flow::Value),
    }
}

/// Elements that are there, from the first up to and without the last.
fn part_of(m: &Machine, value: Value, range: Range<usize>) -> Result<Vec<Value>> {
    match body(m, value)? {
        Body::BigArray(array) => m.heap.items_of::<Elements>(&array.elements, range.start as u64..range.end as u64),
        Body::Array(elements) => elements.get(range).map(<[Value]>::to_vec).ok_or_else(broken),
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
