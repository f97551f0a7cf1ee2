//! Programs in the language that say what they answer.
//!
//! A script is a program. A comment on the line where a statement ends says what it answers, as its `printString`:
//!
//! ```text
//! 6 * 7.                      "expect: 42"
//! 1 / 0.                      "expect error: ZeroDivide"
//! #( 1.                       "expect syntax error: expected"
//! "next turn"
//! ```
//!
//! An expected error is the last statement of its turn; its text is part of `kind: message`, and the error must come
//! from that line. After `"next turn"` what was changed is committed and the program goes on in a turn of its own:
//! locals are gone, `self` (an object named `test` without slots) is the same; messages that the turn sent to run on
//! their own, and those that they send, are carried out in between, timers last. Every object is faulted in once per
//! turn, so that each instruction that needs one is seen to start again without effect.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use batos_graph::{ObjectId, Payload, Record, Slot, SlotKind, Value};
use batos_uvm::{
    image,
    syntax::parse_expression,
    vm::{Effects, Exit, Limits, Needs, Post, Turn, VmError},
};

use super::World;

/// Fuel between two pauses; odd, so that pauses fall everywhere.
const SLICE: u64 = 977;

enum Wanted {
    Value(String),
    Error(String),
}

/// An expectation: 1-based line, and index of the statement that it is about.
struct Expectation {
    line: usize,
    wanted: Wanted,
}

fn comment<'a>(line: &'a str, kind: &str) -> Option<(usize, &'a str)> {
    let at = line.find(&format!("\"{kind}: "))?;
    let text = line[at + kind.len() + 3..].trim_end().strip_suffix('"')?;
    Some((at, text))
}

/// Where each statement begins: 0-based line, and byte in it.
fn statements(source: &str) -> Vec<(usize, usize)> {
    let mut starts = Vec::new();
    let (mut line, mut line_start, mut depth, mut open) = (0, 0, 0, false);
    let mut chars = source.char_indices().peekable();
    let mut locals = source.trim_start().starts_with('|').then_some(0);
    while let Some((at, c)) = chars.next() {
        if let Some(bars @ 0..2) = locals {
            locals = Some(bars + usize::from(c == '|'));
            if c == '\n' {
                (line, line_start) = (line + 1, at + 1);
            }
            continue;
        }
        if !open && !c.is_whitespace() && c != '"' && c != '.' {
            starts.push((line, at - line_start));
            open = true;
        }
        match c {
            '\n' => (line, line_start) = (line + 1, at + 1),
            '\'' | '"' => {
                for (at, inner) in chars.by_ref() {
                    if inner == '\n' {
                        (line, line_start) = (line + 1, at + 1);
                    }
                    if inner == c {
                        break;
                    }
                }
            }
            '$' => {
                chars.next();
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '.' if depth == 0 && !chars.peek().is_some_and(|(_, next)| next.is_ascii_digit()) => open = false,
            _ => {}
        }
    }
    starts
}

/// Ids of new objects come from the turn's seed.
fn seed(turn: usize) -> [u8; 32] {
    [turn as u8; 32]
}

/// Runs one turn's part of a script; `first` is the number of its first line.
fn run_turn(world: &mut World, test: ObjectId, part: &str, first: usize, turn: usize) -> Result<(), String> {
    let lines: Vec<&str> = part.lines().collect();
    let syntax = lines.iter().enumerate().find_map(|(n, line)| Some((n, comment(line, "expect syntax error")?.1)));
    if let Some((line, wanted)) = syntax {
        return match parse_expression(part)
            .map_err(batos_uvm::vm::VmError::from)
            .and_then(|_| Turn::eval(test, part, Limits::default(), seed(turn)).map(|_| ()))
        {
            Ok(()) => Err(format!("{}: wanted syntax error {wanted:?}, got none", first + line)),
            Err(error) if !error.message.contains(wanted) => {
                Err(format!("{}: wanted syntax error {wanted:?}, got {:?}", first + line, error.message))
            }
            Err(error) if !error.message.starts_with(&format!("line {},", line + 1)) => {
                Err(format!("{}: the error is at another place: {:?}", first + line, error.message))
            }
            Err(_) => Ok(()),
        };
    }
    let starts = statements(part);
    let mut expectations = Vec::new();
    for (line, text) in lines.iter().enumerate() {
        let value = comment(text, "expect").map(|(_, text)| Wanted::Value(text.to_owned()));
        let error = comment(text, "expect error").map(|(_, text)| Wanted::Error(text.to_owned()));
        expectations.extend(value.or(error).map(|wanted| Expectation { line, wanted }));
    }
    // Each checked statement s becomes `out_ := out_ copyWith: (s) printString.`, on the same line.
    let build = |upto: usize| {
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let mut checked = Vec::new();
        for expectation in expectations.iter().rev() {
            let Some(start) = starts.iter().rev().find(|start| start.0 <= expectation.line) else { continue };
            let (at, _) = comment(lines[expectation.line], "expect")
                .or(comment(lines[expectation.line], "expect error"))
                .unwrap_or_default();
            if matches!(expectation.wanted, Wanted::Error(_)) || expectation.line >= upto {
                continue;
            }
            let statement = lines[expectation.line][..at].trim_end();
            // `$.` is a character.
            let statement = statement
                .strip_suffix('.')
                .filter(|rest| !rest.ends_with('$') || rest.ends_with("$$"))
                .unwrap_or(statement);
            edited[expectation.line] = format!("{statement}) printString.");
            edited[start.0].insert_str(start.1, "out_ := out_ copyWith: (");
            checked.push(expectation);
        }
        checked.reverse();
        edited.truncate(upto);
        let mut text = edited.join("\n");
        let body = text.find(|c: char| !c.is_whitespace()).unwrap_or(0);
        match text[body..].starts_with('|') {
            true => {
                let close = body + 1 + text[body + 1..].find('|').unwrap_or(0);
                text.replace_range(close..=close, " out_ | out_ := {}.");
            }
            false => text.insert_str(body, "| out_ | out_ := {}. "),
        }
        if !text.trim_end().ends_with('.') {
            text += "\n.";
        }
        (text + " out_", checked)
    };
    let error = expectations.iter().find_map(|expectation| match &expectation.wanted {
        Wanted::Error(text) => Some((expectation.line, text)),
        Wanted::Value(_) => None,
    });
    let upto = error.map_or(lines.len(), |(line, _)| starts.iter().rev().find(|s| s.0 <= line).map_or(line, |s| s.0));
    let (text, checked) = build(upto);
    let effects = eval(world, test, &text, turn).map_err(|(line, error)| format!("{}: {error}", first + line - 1))?;
    let got = effects.answer.as_array().cloned().unwrap_or_default();
    let mut failures = Vec::new();
    for (position, expectation) in checked.iter().enumerate() {
        let got = got.get(position).and_then(|got| got.as_str()).unwrap_or("nothing");
        if let Wanted::Value(wanted) = &expectation.wanted
            && wanted != got
        {
            failures.push(format!("{}: wanted {wanted}, got {got}", first + expectation.line));
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n  "));
    }
    if let Some((line, wanted)) = error {
        let text = lines.join("\n");
        return match eval(world, test, &text, turn) {
            Ok(_) => Err(format!("{}: wanted error {wanted:?}, got none", first + line)),
            Err((_, error)) if !error.contains(wanted.as_str()) => {
                Err(format!("{}: wanted error {wanted:?}, got {error:?}", first + line))
            }
            Err((at, error)) if at != 0 && !(upto + 1..=line + 1).contains(&at) => {
                Err(format!("{}: wanted the error here, got it on line {}: {error}", first + line, first + at - 1))
            }
            Err(_) => Ok(()),
        };
    }
    carry_out(world, effects, turn);
    Ok(())
}

/// Stores what a turn wrote and carries out the messages that it sent.
fn carry_out(world: &mut World, effects: Effects, turn: usize) {
    let (mut waiting, mut timers) = (VecDeque::new(), BTreeMap::new());
    let mut last = Some(effects);
    for number in 1..1000 {
        if let Some(effects) = last.take() {
            for write in effects.writes {
                assert_eq!(write.prev_rev, world.records.get(&write.id).map(|(rev, _)| *rev), "{}", write.id);
                world.records.insert(write.id, (write.prev_rev.unwrap_or(0) + 1, Arc::new(write.record)));
            }
            for (id, timer) in effects.cancelled {
                timers.remove(&(timer, id));
            }
            for post in effects.posts {
                match post.timer {
                    Some(timer) => drop(timers.insert((timer, post.receiver), post)),
                    None => waiting.push_back(post),
                }
            }
        }
        let timer = || timers.pop_first().map(|(_, post)| post);
        let Some(post) = waiting.pop_front().or_else(timer) else { return };
        last = run_post(world, &post, turn * 1000 + number);
    }
}

/// What a message leaves; nothing if it fails.
fn run_post(world: &World, post: &Post, number: usize) -> Option<Effects> {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let turn = Turn::of_post(post, Limits::default(), seed).ok()?;
    finish(world, turn.starting_at(number as u64)).ok()
}

/// Runs a program to its effects; else the line in the program and `kind: message`.
fn eval(world: &World, test: ObjectId, source: &str, turn: usize) -> Result<Effects, (usize, String)> {
    finish(world, Turn::eval(test, source, Limits::default(), seed(turn)).map_err(told)?)
}

fn told(error: VmError) -> (usize, String) {
    let last = error.stack.last().and_then(|entry| entry.rsplit(' ').next()?.parse().ok());
    let kind = serde_json::to_string(&error.kind).unwrap();
    (last.unwrap_or(0), format!("{}: {}", kind.trim_matches('"'), error.message))
}

fn finish(world: &World, mut turn: Turn) -> Result<Effects, (usize, String)> {
    loop {
        match turn.run(SLICE) {
            Exit::Paused => {}
            Exit::Fault(Needs { objects, names, .. }) => {
                objects.into_iter().for_each(|id| turn.supply(id, world.records.get(&id).cloned()));
                names.iter().for_each(|name| turn.supply_name(name, world.name(name)));
            }
            Exit::Done => {
                let effects = turn.effects().map_err(told)?;
                // What is to be stored is read back as it was written.
                for write in &effects.writes {
                    let bytes = write.record.encode().map_err(|e| (0, format!("limit_exceeded: {e}")))?;
                    assert_eq!(Record::decode(&bytes).unwrap(), write.record);
                }
                return Ok(effects);
            }
            Exit::Failed(error) => return Err(told(error)),
            Exit::NotUnderstood(missing) => return Err((0, format!("not_understood: {}", missing.selector))),
        }
    }
}

/// Runs a whole script; a failure begins with the number of its line.
pub fn run(source: &str) -> Result<(), String> {
    let mut world = World::new();
    let test = ObjectId::of_name("test");
    let parent = Slot { name: "parent".to_owned(), kind: SlotKind::Parent(Value::Ref(image::ROOT_TRAITS)) };
    let record =
        Record { name: Some("test".to_owned()), slots: vec![parent], payload: Payload::None, ..Record::default() };
    world.records.insert(test, (1, Arc::new(record)));
    let mut first = 1;
    for (turn, part) in source.split("\"next turn\"").enumerate() {
        run_turn(&mut world, test, part, first, turn)?;
        first += part.matches('\n').count();
    }
    Ok(())
}
