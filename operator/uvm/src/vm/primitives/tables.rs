//! Hash tables under dictionaries, sets and bags. Keys that are values are found here; for others the receiver is sent
//! `findObject:`, `putObject:value:`, which ask the key for its hash and equality.

use super::{
    Entry, Flow, Result, answer, arg, array, changing, count, failed_key, index, integer, objects, send, work,
};
use crate::vm::{
    error::{Stop, failed},
    heap::Body,
    machine::Machine,
    table::{ENTRY_BYTES, Table},
    value::Value,
};

pub(super) const TABLE: &[Entry] = &[
    ("_TableNew", |m, me, _| objects::new_like(m, me, Body::Table(Box::default())).map(Flow::Value)),
    ("_TableSize", |m, me, _| table(m, me).map(|table| Flow::Value(count(table.len())))),
    ("_TableSpan", |m, me, _| table(m, me).map(|table| Flow::Value(count(table.span())))),
    ("_TableFind:", |m, me, a| {
        // Place of a key, from 1; 0 for none.
        let key = arg(a, 0);
        table(m, me)?;
        match objects::value_hash(m, key)? {
            Some(hash) => {
                let place = find(m, me, key, hash)?;
                answer(count(place.map_or(0, |place| place + 1)))
            }
            None => send(m, "findObject:", vec![key]),
        }
    }),
    ("_TablePut:Value:", |m, me, a| {
        let (key, value) = (arg(a, 0), arg(a, 1));
        table(m, me)?;
        let Some(hash) = objects::value_hash(m, key)? else { return send(m, "putObject:value:", vec![key, value]) };
        match find(m, me, key, hash)? {
            Some(place) => put(m, me, place, value),
            None => add(m, me, hash, key, value),
        }
    }),
    ("_TableCandidates:", |m, me, a| {
        let hash = hash(m, arg(a, 0))?;
        let places = table(m, me)?.candidates(hash).map(|place| count(place + 1)).collect();
        search(m, me, hash)?;
        m.heap.array(places).map(Flow::Value)
    }),
    ("_TableAdd:Value:Hash:", |m, me, a| {
        let hash = hash(m, arg(a, 2))?;
        table(m, me)?;
        add(m, me, hash, arg(a, 0), arg(a, 1))
    }),
    ("_TableKeyAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        match table(m, me)?.at(place) {
            Some(entry) => answer(entry.key),
            None => failed_key(),
        }
    }),
    ("_TableValueAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        match table(m, me)?.at(place) {
            Some(entry) => answer(entry.value),
            None => failed_key(),
        }
    }),
    ("_TableIsAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        table(m, me).map(|table| Flow::Value(Value::bool(table.at(place).is_some())))
    }),
    ("_TableAt:Put:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        table(m, me)?;
        put(m, me, place, arg(a, 1))
    }),
    ("_TableRemoveAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        table(m, me)?;
        match table_mut(m, me)?.remove(place) {
            Some(entry) => answer(entry.value),
            None => failed_key(),
        }
    }),
    ("_TableClear", |m, me, _| {
        table(m, me)?;
        *table_mut(m, me)? = Table::default();
        answer(me)
    }),
    ("_TableKeys", |m, me, _| {
        let keys: Vec<Value> = table(m, me)?.entries().map(|entry| entry.key).collect();
        work(m, keys.len())?;
        m.heap.array(keys).map(Flow::Value)
    }),
    ("_TableValues", |m, me, _| {
        let values: Vec<Value> = table(m, me)?.entries().map(|entry| entry.value).collect();
        work(m, values.len())?;
        m.heap.array(values).map(Flow::Value)
    }),
    ("_TableAddAll:", |m, me, a| {
        // Elements of an array as keys without values, as long as they are values: answers how many were taken.
        let elements = array(m, arg(a, 0))?.to_vec();
        table(m, me)?;
        let mut hashes = Vec::with_capacity(elements.len());
        for element in &elements {
            match objects::value_hash(m, *element)? {
                Some(hash) => hashes.push(hash),
                None => break,
            }
        }
        let taken = hashes.len();
        for (hash, key) in hashes.into_iter().zip(elements) {
            if find(m, me, key, hash)?.is_none() {
                add(m, me, hash, key, Value::NIL)?;
            }
        }
        work(m, taken * 8)?;
        answer(count(taken))
    }),
];

fn table(m: &Machine, value: Value) -> Result<&Table> {
    match super::body(m, value)? {
        Body::Table(table) => Ok(table),
        _ => failed(format!("{} is no dictionary or set", m.describe(value))),
    }
}

fn table_mut(m: &mut Machine, value: Value) -> Result<&mut Table> {
    match &mut changing(m, value)?.body {
        Body::Table(table) => Ok(table),
        _ => Err(Stop::Fail(crate::vm::VmError::new(batos_covenant::ErrorKind::Internal, "a table lost its entries"))),
    }
}

/// A hash that an object gave itself.
fn hash(m: &Machine, value: Value) -> Result<u64> {
    integer(m, value).map(i64::cast_unsigned)
}

/// Pays for a search: keys may be chosen so that their hashes meet.
fn search(m: &mut Machine, me: Value, hash: u64) -> Result<()> {
    let probes = table(m, me)?.probes(hash);
    work(m, probes)
}

fn find(m: &mut Machine, me: Value, key: Value, hash: u64) -> Result<Option<usize>> {
    search(m, me, hash)?;
    let bytes = m.heap.text(key)?.map_or(0, str::len);
    work(m, bytes)?;
    let table = table(m, me)?;
    for place in table.candidates(hash) {
        if let Some(entry) = table.at(place)
            && objects::equal(m, entry.key, key)?
        {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn put(m: &mut Machine, me: Value, place: usize, value: Value) -> Result<Flow> {
    match table_mut(m, me)?.at_mut(place) {
        Some(entry) => entry.value = value,
        None => return failed_key(),
    }
    answer(value)
}

fn add(m: &mut Machine, me: Value, hash: u64, key: Value, value: Value) -> Result<Flow> {
    m.heap.charge(ENTRY_BYTES)?;
    table_mut(m, me)?.add(hash, key, value);
    answer(value)
}
