//! Hash tables under dictionaries, sets and bags. Keys that are values are found here; for others the receiver is sent
//! `findObject:`, `putObject:value:`, which ask the key for its hash and equality.

use std::collections::BTreeSet;

use batos_graph as graph;

use super::{
    Entry, Flow, Result, answer, arg, array, changing, count, failed_key, index, integer, objects, send, work,
};
use crate::vm::{
    big::BigTable,
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
        let (places, probes): (Vec<usize>, _) = match table(m, me)? {
            AnyTable::Small(table) => (table.candidates(hash).collect(), table.probes(hash)),
            AnyTable::Big(table) => {
                let places = m.heap.big_candidates(table, hash)?;
                let probes = places.len();
                (places, probes)
            }
        };
        // Keys may be chosen so that their hashes meet.
        work(m, probes)?;
        m.heap.array(places.into_iter().map(|place| count(place + 1)).collect()).map(Flow::Value)
    }),
    ("_TableAdd:Value:Hash:", |m, me, a| {
        let hash = hash(m, arg(a, 2))?;
        table(m, me)?;
        add(m, me, hash, arg(a, 0), arg(a, 1))
    }),
    ("_TableKeyAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        match entry(m, me, place)? {
            Some((_, key, _)) => answer(key),
            None => failed_key(),
        }
    }),
    ("_TableValueAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        match entry(m, me, place)? {
            Some((.., value)) => answer(value),
            None => failed_key(),
        }
    }),
    ("_TableIsAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        entry(m, me, place).map(|entry| Flow::Value(Value::bool(entry.is_some())))
    }),
    ("_TableAt:Put:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        put(m, me, place, arg(a, 1))
    }),
    ("_TableRemoveAt:", |m, me, a| {
        let place = index(m, arg(a, 0))?;
        if entry(m, me, place)?.is_none() {
            return failed_key();
        }
        match (table(m, me)?, me.as_object()) {
            (AnyTable::Big(_), Some(handle)) => m.heap.remove_big_entry(handle, place).map(Flow::Value),
            _ => answer(small_mut(m, me)?.remove(place).map_or(Value::NIL, |entry| entry.value)),
        }
    }),
    ("_TableClear", |m, me, _| {
        table(m, me)?;
        changing(m, me)?.body = Body::Table(Box::default());
        answer(me)
    }),
    ("_TableKeys", |m, me, _| {
        let keys: Vec<Value> = entries(m, me)?.into_iter().map(|(key, _)| key).collect();
        work(m, keys.len())?;
        m.heap.array(keys).map(Flow::Value)
    }),
    ("_TableValues", |m, me, _| {
        let values: Vec<Value> = entries(m, me)?.into_iter().map(|(_, value)| value).collect();
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
        touch(m, me, &hashes)?;
        for (hash, key) in hashes.into_iter().zip(elements) {
            if find(m, me, key, hash)?.is_none() {
                add(m, me, hash, key, Value::NIL)?;
            }
        }
        work(m, taken * 8)?;
        answer(count(taken))
    }),
];

/// The entries of a dictionary or set, in one piece or in buckets.
enum AnyTable<'a> {
    Small(&'a Table),
    Big(&'a BigTable),
}

impl AnyTable<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Small(table) => table.len(),
            Self::Big(table) => usize::try_from(table.live).unwrap_or(usize::MAX),
        }
    }

    fn span(&self) -> usize {
        match self {
            Self::Small(table) => table.span(),
            Self::Big(table) => usize::try_from(table.entries.count()).unwrap_or(usize::MAX),
        }
    }
}

fn table(m: &Machine, value: Value) -> Result<AnyTable<'_>> {
    match super::body(m, value)? {
        Body::Table(table) => Ok(AnyTable::Small(table)),
        Body::BigTable(table) => Ok(AnyTable::Big(table)),
        _ => failed(format!("{} is no dictionary or set", m.describe(value))),
    }
}

fn small_mut(m: &mut Machine, value: Value) -> Result<&mut Table> {
    match &mut changing(m, value)?.body {
        Body::Table(table) => Ok(table),
        _ => Err(Stop::Fail(crate::vm::VmError::new(batos_covenant::ErrorKind::Internal, "a table lost its entries"))),
    }
}

fn entry(m: &Machine, me: Value, place: usize) -> Result<graph::bucket::Entry<Value>> {
    match table(m, me)? {
        AnyTable::Small(table) => Ok(table.at(place).map(|entry| (entry.hash, entry.key, entry.value))),
        AnyTable::Big(table) => m.heap.big_entry(table, place),
    }
}

/// Keys and values, in the order of insertion.
fn entries(m: &Machine, me: Value) -> Result<Vec<(Value, Value)>> {
    match table(m, me)? {
        AnyTable::Small(table) => Ok(table.entries().map(|entry| (entry.key, entry.value)).collect()),
        AnyTable::Big(table) => {
            let entries = m.heap.big_entries(table)?.into_iter().flatten();
            Ok(entries.map(|(_, key, value)| (key, value)).collect())
        }
    }
}

/// Loads what is needed to find and to add these.
fn touch(m: &Machine, me: Value, hashes: &[u64]) -> Result<()> {
    let AnyTable::Big(table) = table(m, me)? else { return Ok(()) };
    let mut missing = BTreeSet::new();
    for hash in hashes {
        let found = m.heap.reach_big_entry(table, *hash).and_then(|_| {
            let places = m.heap.big_candidates(table, *hash)?;
            places.into_iter().try_for_each(|place| m.heap.big_entry(table, place).map(|_| ()))
        });
        match found {
            Ok(()) => {}
            Err(Stop::Object(id)) => drop(missing.insert(id)),
            Err(stop) => return Err(stop),
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Stop::Objects(missing.into_iter().collect())),
    }
}

/// A hash that an object gave itself.
fn hash(m: &Machine, value: Value) -> Result<u64> {
    integer(m, value).map(i64::cast_unsigned)
}

fn find(m: &mut Machine, me: Value, key: Value, hash: u64) -> Result<Option<usize>> {
    let bytes = m.heap.text(key)?.map_or(0, str::len);
    let mut found = None;
    let probes = match table(m, me)? {
        AnyTable::Small(table) => {
            for place in table.candidates(hash) {
                if let Some(entry) = table.at(place)
                    && objects::equal(m, entry.key, key)?
                {
                    found = Some(place);
                    break;
                }
            }
            table.probes(hash)
        }
        AnyTable::Big(table) => {
            let places = m.heap.big_candidates(table, hash)?;
            for place in &places {
                if let Some((_, known, _)) = m.heap.big_entry(table, *place)?
                    && objects::equal(m, known, key)?
                {
                    found = Some(*place);
                    break;
                }
            }
            places.len()
        }
    };
    work(m, probes)?;
    work(m, bytes)?;
    Ok(found)
}

fn put(m: &mut Machine, me: Value, place: usize, value: Value) -> Result<Flow> {
    if entry(m, me, place)?.is_none() {
        return failed_key();
    }
    match (table(m, me)?, me.as_object()) {
        (AnyTable::Big(_), Some(handle)) => m.heap.put_big_value(handle, place, value)?,
        _ => small_mut(m, me)?.at_mut(place).into_iter().for_each(|entry| entry.value = value),
    }
    answer(value)
}

fn add(m: &mut Machine, me: Value, hash: u64, key: Value, value: Value) -> Result<Flow> {
    m.heap.charge(ENTRY_BYTES)?;
    match (table(m, me)?, me.as_object()) {
        (AnyTable::Big(_), Some(handle)) => m.heap.add_big_entry(handle, hash, key, value)?,
        _ => small_mut(m, me)?.add(hash, key, value),
    }
    answer(value)
}
