//! Characters: Unicode scalar values.

use super::{Entry, Flow, Result, answer, body, boolean, count, integer};
use crate::vm::{
    error::failed,
    machine::Machine,
    value::{Kind, Value},
};

pub(super) const TABLE: &[Entry] = &[
    ("_CharValue", |m, me, _| char(m, me).and_then(|c| answer(count(c as usize)))),
    ("_AsCharacter", |m, me, _| {
        let n = integer(m, me)?;
        match u32::try_from(n).ok().and_then(char::from_u32) {
            Some(c) => answer(Value::char(c)),
            None => failed(format!("{n} is the code of no character")),
        }
    }),
    ("_CharIsLetter", |m, me, _| char(m, me).and_then(|c| boolean(c.is_alphabetic()))),
    ("_CharIsDigit", |m, me, _| char(m, me).and_then(|c| boolean(c.is_ascii_digit()))),
    ("_CharIsSpace", |m, me, _| char(m, me).and_then(|c| boolean(c.is_whitespace()))),
    ("_CharIsUpper", |m, me, _| char(m, me).and_then(|c| boolean(c.is_uppercase()))),
    ("_CharIsLower", |m, me, _| char(m, me).and_then(|c| boolean(c.is_lowercase()))),
    ("_CharUpper", |m, me, _| char(m, me).and_then(|c| answer(Value::char(single(c, c.to_uppercase()))))),
    ("_CharLower", |m, me, _| char(m, me).and_then(|c| answer(Value::char(single(c, c.to_lowercase()))))),
    ("_CharDigit", |m, me, _| {
        let digit = char(m, me)?.to_digit(36).and_then(|digit| Value::int(digit.into()));
        answer(digit.or_else(|| Value::int(-1)).unwrap_or(Value::NIL))
    }),
    ("_DigitCharacter", |m, me, _| {
        let n = integer(m, me)?;
        match u32::try_from(n).ok().and_then(|n| char::from_digit(n, 36)) {
            Some(c) => answer(Value::char(c.to_ascii_uppercase())),
            None => failed(format!("{n} is no digit")),
        }
    }),
    ("_CharAsString", |m, me, _| {
        let c = char(m, me)?;
        m.heap.string(c.encode_utf8(&mut [0; 4])).map(Flow::Value)
    }),
];

fn char(m: &Machine, value: Value) -> Result<char> {
    match value.kind() {
        Kind::Char(c) => Ok(c),
        _ => {
            body(m, value)?;
            failed(format!("{} is no character", m.describe(value)))
        }
    }
}

/// The other case of a character, where that is one character.
fn single(c: char, mut cased: impl Iterator<Item = char>) -> char {
    match (cased.next(), cased.next()) {
        (Some(other), None) => other,
        _ => c,
    }
}
