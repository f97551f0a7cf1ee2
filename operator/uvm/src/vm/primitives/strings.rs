//! Strings: Unicode text, immutable. Indices count characters from 1.

use super::{Entry, Flow, Result, answer, arg, array, boolean, count, index, integer, out_of_bounds, text, work};
use crate::image;
use crate::vm::{
    error::{failed, raise},
    machine::Machine,
    value::{Kind, Value},
};

pub(super) const TABLE: &[Entry] = &[
    ("_StrSize", |m, me, _| match is_ascii(m, me)? {
        true => text(m, me).map(|t| Flow::Value(count(t.len()))),
        false => {
            let (size, bytes) = (text(m, me)?.chars().count(), text(m, me)?.len());
            work(m, bytes)?;
            answer(count(size))
        }
    }),
    ("_StrAt:", |m, me, a| {
        let is_ascii = is_ascii(m, me)?;
        let (text, index) = (text(m, me)?, index(m, arg(a, 0))?);
        let c = match is_ascii {
            true => text.as_bytes().get(index).map(|byte| char::from(*byte)),
            false => text.chars().nth(index),
        };
        match c {
            Some(c) => {
                work(m, if is_ascii { 0 } else { index })?;
                answer(Value::char(c))
            }
            None => out_of_bounds(index, size(text)),
        }
    }),
    ("_StrConcat:", |m, me, a| {
        let (left, right) = (text(m, me)?, text(m, arg(a, 0))?);
        let both = [left, right].concat();
        made(m, &both)
    }),
    ("_StrFrom:To:", |m, me, a| {
        let is_ascii = is_ascii(m, me)?;
        let (text, from, to) = (text(m, me)?, index(m, arg(a, 0))?, integer(m, arg(a, 1))?);
        let size = if is_ascii { text.len() } else { text.chars().count() };
        let Some(to) = usize::try_from(to).ok().filter(|to| *to <= size && from <= *to) else {
            return raise(image::SUBSCRIPT_OUT_OF_BOUNDS, format!("{} to {to} is outside 1 to {size}", from + 1));
        };
        let part: String = match is_ascii {
            true => text.get(from..to).unwrap_or_default().to_owned(),
            false => text.chars().skip(from).take(to - from).collect(),
        };
        made(m, &part)
    }),
    ("_StrUpper", |m, me, _| text(m, me).map(str::to_uppercase).and_then(|t| made(m, &t))),
    ("_StrLower", |m, me, _| text(m, me).map(str::to_lowercase).and_then(|t| made(m, &t))),
    ("_StrTrim", |m, me, _| text(m, me).map(|t| t.trim().to_owned()).and_then(|t| made(m, &t))),
    ("_StrTrimLeft", |m, me, _| text(m, me).map(|t| t.trim_start().to_owned()).and_then(|t| made(m, &t))),
    ("_StrTrimRight", |m, me, _| text(m, me).map(|t| t.trim_end().to_owned()).and_then(|t| made(m, &t))),
    ("_StrReversed", |m, me, _| {
        let reversed: String = text(m, me)?.chars().rev().collect();
        made(m, &reversed)
    }),
    ("_StrIndexOf:From:", |m, me, a| {
        // Index of a part, at or after a place; 0 when there is none.
        let (whole, part, from) = (text(m, me)?, text(m, arg(a, 0))?, index(m, arg(a, 1))?);
        let start = whole.char_indices().nth(from).map_or(whole.len(), |(at, _)| at);
        let found = whole.get(start..).and_then(|rest| rest.find(part)).and_then(|at| whole.get(..start + at));
        let found = count(found.map_or(0, |before| size(before) + 1));
        let length = whole.len();
        work(m, length)?;
        answer(found)
    }),
    ("_StrBeginsWith:", |m, me, a| {
        let (whole, part) = (text(m, me)?, text(m, arg(a, 0))?);
        boolean(whole.starts_with(part))
    }),
    ("_StrEndsWith:", |m, me, a| {
        let (whole, part) = (text(m, me)?, text(m, arg(a, 0))?);
        boolean(whole.ends_with(part))
    }),
    ("_StrReplaceAll:With:", |m, me, a| {
        let (whole, old, new) = (text(m, me)?, text(m, arg(a, 0))?, text(m, arg(a, 1))?);
        if old.is_empty() {
            return failed("nothing to replace: the old part is empty");
        }
        // Charged before it is made: the result may be much larger than its operands.
        let times = whole.matches(old).count();
        let bytes = whole.len() + times.saturating_mul(new.len().saturating_sub(old.len()));
        let (whole, old, new) = (whole.to_owned(), old.to_owned(), new.to_owned());
        m.heap.charge(bytes)?;
        made(m, &whole.replace(&old, &new))
    }),
    ("_StrSplit:", |m, me, a| {
        // At each occurrence of the separator; empty parts stay.
        let (whole, separator) = (text(m, me)?, text(m, arg(a, 0))?);
        if separator.is_empty() {
            return failed("the separator is empty");
        }
        let parts: Vec<String> = whole.split(separator).map(str::to_owned).collect();
        texts(m, &parts)
    }),
    ("_StrTokens:", |m, me, a| {
        // At each of the separator's characters; no empty parts.
        let (whole, separators) = (text(m, me)?, text(m, arg(a, 0))?);
        let parts = whole.split(|c| separators.contains(c)).filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.map(str::to_owned).collect();
        texts(m, &parts)
    }),
    ("_StrWords", |m, me, _| {
        let parts: Vec<String> = text(m, me)?.split_whitespace().map(str::to_owned).collect();
        texts(m, &parts)
    }),
    ("_StrLines", |m, me, _| {
        let parts: Vec<String> = text(m, me)?.lines().map(str::to_owned).collect();
        texts(m, &parts)
    }),
    ("_StrChars", |m, me, _| {
        let characters: Vec<Value> = text(m, me)?.chars().map(Value::char).collect();
        work(m, characters.len())?;
        m.heap.array(characters).map(Flow::Value)
    }),
    ("_StrJoin:", |m, me, a| {
        // The receiver's strings and characters with this between them.
        let separator = text(m, arg(a, 0))?;
        let mut joined = String::new();
        for (position, part) in array(m, me)?.iter().enumerate() {
            if position > 0 {
                joined.push_str(separator);
            }
            match part.kind() {
                Kind::Char(c) => joined.push(c),
                _ => joined.push_str(text(m, *part)?),
            }
        }
        made(m, &joined)
    }),
    ("_AsSymbol", |m, me, _| {
        let text = text(m, me)?.to_owned();
        m.heap.make_symbol(&text).map(|symbol| Flow::Value(Value::symbol(symbol)))
    }),
    ("_ArgumentCount", |m, me, _| match super::arity(text(m, me)?) {
        Some(arity) => answer(count(arity)),
        None => failed(format!("{} is no selector", m.describe(me))),
    }),
    ("_AsString", |m, me, _| text(m, me).map(str::to_owned).and_then(|t| made(m, &t))),
    ("_Log", |m, me, _| {
        let text = text(m, me)?.to_owned();
        work(m, text.len())?;
        m.transcript.show(&text);
        answer(me)
    }),
];

/// Whether the characters of a string or symbol are its bytes.
fn is_ascii(m: &Machine, value: Value) -> Result<bool> {
    match value.as_object() {
        Some(handle) => Ok(m.heap.get(handle)?.is_ascii),
        None => Ok(text(m, value)?.is_ascii()),
    }
}

fn size(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

fn made(m: &mut Machine, text: &str) -> Result<Flow> {
    work(m, text.len())?;
    m.heap.string(text).map(Flow::Value)
}

fn texts(m: &mut Machine, parts: &[String]) -> Result<Flow> {
    work(m, parts.iter().map(|part| part.len() + 1).sum())?;
    let strings: Result<Vec<Value>> = parts.iter().map(|part| m.heap.string(part)).collect();
    m.heap.array(strings?).map(Flow::Value)
}
