//! Sends in full: lookup, what it found, and what happens when nothing is found.
// Indexing: windows on the value stack are made here, by the sizes that the code states.
#![allow(clippy::indexing_slicing)]

use std::sync::Arc;

use batos_covenant::ErrorKind;
use batos_graph::ObjectId;

use super::{
    VmError,
    compile::compile,
    error::{Stop, failed, raise},
    exceptions::{FAULTS, Mark},
    heap::{Body, Slot, SlotType},
    lookup::{Found, lookup, lookup_from},
    machine::{Cache, Call, Frame, LOOKUPS, Machine, NOT_LOOKED_UP, Target, WAYS},
    map::{MapId, MapSlot},
    op::{Op, Route, Shortcut},
    primitives::{self},
    symbols::known,
    value::{Handle, Symbol, Value},
};
use crate::{
    image,
    syntax::{SlotNodeKind, parse_method},
};

impl Machine {
    /// The send of an operator whose operands are not what the op knows.
    pub(super) fn operator(
        &mut self,
        selector: Symbol,
        left: Value,
        right: Option<Value>,
        to: usize,
    ) -> Result<(), Stop> {
        self.check();
        let at = self.place_above(left, right.as_slice());
        self.send(at, usize::from(right.is_some()), selector, Route::Normal, to, None)
    }

    /// Where the call's receiver and arguments lie; places those that do not lie there yet.
    pub(super) fn place_call(&mut self, call: &Call) -> (usize, usize) {
        let (base, _) = self.window();
        let at = base + call.window;
        if call.above > 0 {
            self.reserve(at + 2);
            self.stack[at] = call.receiver;
            self.stack[at + 1] = call.with;
        }
        (at, base + call.to)
    }

    pub(super) fn send_call(&mut self, call: &Call) -> Result<(), Stop> {
        self.check();
        let (at, to) = self.place_call(call);
        let Some(frame) = self.frames.last() else { return broken() };
        let linked = &self.codes[frame.code as usize];
        let (plan, cache) = (linked.code.sites[call.site as usize], linked.caches as usize + call.site as usize * WAYS);
        self.send(at, call.count, plan.selector, plan.route, to, Some(cache))
    }

    /// A call whose target is known.
    pub(super) fn reach(&mut self, target: Target, call: &Call) -> Result<(), Stop> {
        self.check();
        let (at, to) = self.place_call(call);
        self.perform(target, at, call.count, to)
    }

    /// Sends to the receiver at `at` on the value stack with the `count` arguments behind it; the answer goes to `to`.
    pub(super) fn send(
        &mut self,
        at: usize,
        count: usize,
        selector: Symbol,
        route: Route,
        to: usize,
        cache: Option<usize>,
    ) -> Result<(), Stop> {
        let map = self.heap.map_of(self.stack[at])?;
        if let Some(cache) = cache {
            for way in &self.caches[cache..cache + WAYS] {
                if way.map == map {
                    let target = way.target;
                    return self.perform(target, at, count, to);
                }
            }
        }
        let is_plain = matches!(route, Route::Normal | Route::Implicit);
        let entry = ((map.0 as usize).wrapping_mul(31) ^ selector.0 as usize) % LOOKUPS;
        let known = self.lookups.get(entry).copied().unwrap_or(NOT_LOOKED_UP);
        let target = if is_plain && known.0 == selector && known.1.map == map {
            Some(known.1.target)
        } else {
            let found = match route {
                Route::Normal | Route::Implicit => lookup(&mut self.heap, map, selector)?,
                Route::Resend | Route::Directed(_) => {
                    let from = self.resend_from(route)?;
                    lookup_from(&mut self.heap, from, selector)?
                }
            };
            match found {
                Some(found) => Some(self.target(found, selector, count)?),
                None if count == 0 && route == Route::Implicit => self.named(selector)?,
                None => None,
            }
        };
        let Some(target) = target else {
            // A resend begins in the parents of the method's holder.
            let start = match route {
                Route::Normal | Route::Implicit => self.stack[at],
                _ => self.resend_from(route)?.first().map_or(Value::NIL, |parent| Value::object(*parent)),
            };
            return self.not_found(at, selector, count, to, start);
        };
        // A resend's method depends on where it is sent from; its receiver's map says nothing about that.
        let same_holder = is_plain || self.frames.last().is_some_and(|frame| frame.holder.is_some());
        if let Some(cache) = cache.filter(|_| same_holder && self.heap.epoch == self.epoch) {
            self.caches[cache + 1] = self.caches[cache];
            self.caches[cache] = Cache { map, target };
        }
        if is_plain && self.heap.epoch == self.epoch && !matches!(route, Route::Implicit) {
            // Filled when it is first used: most turns of a universe load objects, which empties it, and send little.
            if self.lookups.is_empty() {
                self.lookups.resize(LOOKUPS, NOT_LOOKED_UP);
            }
            self.lookups[entry] = (selector, Cache { map, target });
        }
        self.perform(target, at, count, to)
    }

    /// What a slot comes down to, for all receivers of a map.
    pub(super) fn target(&mut self, found: Found, selector: Symbol, count: usize) -> Result<Target, Stop> {
        let MapSlot { kind, content, .. } = found.slot;
        Ok(match (kind, found.holder) {
            (_, None) if found.sets => Target::SetField { place: found.slot.place() as u32 },
            (_, Some(_)) if found.sets => Target::AddField { name: found.slot.name },
            (SlotType::Parent, _) => Target::Constant { value: content },
            (SlotType::Method, holder) => {
                let number = self.method(content)?;
                let code = &self.codes[number as usize].code;
                if code.arguments != count {
                    let text = format!(
                        "{:?} takes {} arguments, not {count}",
                        self.heap.symbols.name(selector),
                        code.arguments
                    );
                    return raise(image::ARGUMENTS_COUNT, text);
                }
                match (code.shortcut, holder) {
                    (Shortcut::Primitive(number), _) => primitives::shortcut(number),
                    (Shortcut::Constant(index), _) => Target::Constant { value: code.constants[index as usize] },
                    (Shortcut::None, Some(holder)) => Target::Method { code: number, holder },
                    (Shortcut::None, None) => Target::OwnMethod { code: number },
                }
            }
            (_, None) => Target::Field { place: found.slot.place() as u32 },
            (_, Some(holder)) => Target::Remote { holder, place: found.slot.place() as u32 },
        })
    }

    /// An object by that name.
    pub(super) fn named(&mut self, selector: Symbol) -> Result<Option<Target>, Stop> {
        let name = self.heap.symbols.name(selector);
        match self.names.get(name) {
            None => Err(Stop::Name(name.to_owned())),
            Some(Some(id)) => {
                let value = Value::object(self.heap.refer(*id));
                Ok(Some(Target::Constant { value }))
            }
            Some(None) => Ok(None),
        }
    }

    pub(super) fn perform(&mut self, target: Target, at: usize, count: usize, to: usize) -> Result<(), Stop> {
        let receiver = self.stack[at];
        let handle = receiver.as_object();
        if let Target::Primitive { number } = target {
            self.burn()?;
            return self.primitive(number, at, count, to);
        }
        match target {
            Target::Method { code, holder } => {
                self.burn()?;
                self.activate(code, at, to, Some(holder), None)
            }
            Target::OwnMethod { code } => {
                self.burn()?;
                self.activate(code, at, to, handle, None)
            }
            Target::Value => {
                self.burn()?;
                self.call_block(at, count, to)
            }
            Target::ArrayAt | Target::ArrayAtPut | Target::ArraySize | Target::StringAt | Target::StringSize => {
                self.burn()?;
                self.primitive(primitives::of_shortcut(target), at, count, to)
            }
            Target::Field { place } => {
                self.burn()?;
                let value = handle.map_or(Value::NIL, |handle| self.heap.word(handle, place as usize));
                self.finish(to, value)
            }
            Target::Remote { holder, place } => {
                self.burn()?;
                let value = self.heap.word(holder, place as usize);
                self.finish(to, value)
            }
            Target::Constant { value } => {
                self.burn()?;
                self.finish(to, value)
            }
            Target::SetField { place } => {
                let Some(handle) = handle else { return broken() };
                self.burn()?;
                self.heap.set_word(handle, place as usize, self.stack[at + 1]);
                self.finish(to, receiver)
            }
            Target::AddField { name } => {
                let has_slots = |handle: &Handle| {
                    let body = self.heap.get(*handle).map(|object| &object.body);
                    body.is_ok_and(Body::is_object)
                };
                let Some(handle) = handle.filter(has_slots) else {
                    return failed(format!("{} has no slots to assign", self.describe(receiver)));
                };
                self.burn()?;
                // Sets the slot in the receiver, wherever it was found: shared parents are never written by accident.
                self.heap.add_slot(handle, name, self.stack[at + 1])?;
                self.finish(to, receiver)
            }
            Target::Primitive { .. } => broken(),
        }
    }

    /// Parents of the running method's holder, where resends begin.
    pub(super) fn resend_from(&self, route: Route) -> Result<Vec<Handle>, Stop> {
        let Some(holder) = self.frames.last().and_then(|frame| frame.holder) else {
            return failed("a resend outside of a method");
        };
        match route {
            Route::Directed(name) => match self.heap.slot(holder, name)?.filter(|slot| slot.kind == SlotType::Parent) {
                Some(slot) => Ok(slot.value.as_object().into_iter().collect()),
                None => failed(format!("there is no parent slot {:?} to resend to", self.heap.symbols.name(name))),
            },
            _ => self.heap.parents(holder).map(<[Handle]>::to_vec),
        }
    }

    /// A method's code in this turn, compiled if no turn has done so before.
    pub(super) fn method(&mut self, index: Value) -> Result<u32, Stop> {
        let index = index.as_int().and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX);
        let Some(method) = self.heap.methods.get(index) else { return broken() };
        if let Some(code) = method.code {
            return Ok(code);
        }
        let (source, is_kernel, name) = (method.source.clone(), method.is_kernel, method.name);
        let code = match self.heap.symbols.code(is_kernel, &source) {
            Some(code) => code,
            None => {
                let name = self.heap.symbols.name(name).to_owned();
                let compiled = parse_method(&source).map_err(VmError::from).and_then(|slot| match &slot.kind {
                    SlotNodeKind::Method(code) => compile(&name, code, &self.heap.symbols, is_kernel),
                    _ => Err(VmError::new(ErrorKind::SyntaxError, format!("{name:?} is no method"))),
                });
                let code = Arc::new(compiled.map_err(Stop::Fail)?);
                self.heap.symbols.keep_code(is_kernel, &source, &code);
                code
            }
        };
        let number = self.link(code);
        if let Some(method) = self.heap.methods.get_mut(index) {
            method.code = Some(number);
        }
        Ok(number)
    }

    /// `doesNotUnderstand:`, else a handler for `MessageNotUnderstood`, else the turn stops here. Lookup began in `start`.
    fn not_found(&mut self, at: usize, selector: Symbol, count: usize, to: usize, start: Value) -> Result<(), Stop> {
        let receiver = self.stack[at];
        let trying =
            |frame: &Frame| frame.mark == Mark::Missing(selector) && self.stack[frame.base as usize] == receiver;
        let is_trying = self.frames.iter().any(trying);
        let map = self.heap.map_of(receiver)?;
        if selector != known::DOES_NOT_UNDERSTAND
            && !is_trying
            && let Some(found) = lookup(&mut self.heap, map, known::DOES_NOT_UNDERSTAND)?
        {
            let target = self.target(found, known::DOES_NOT_UNDERSTAND, 1)?;
            let message = self.message(at, selector, count, start)?;
            let window = self.place_above(receiver, &[message]);
            let below = self.frames.len();
            self.perform(target, window, 1, to)?;
            if let Some(frame) = self.frames.get_mut(below) {
                frame.mark = Mark::Missing(selector);
            }
            self.asked(receiver, selector);
            return Ok(());
        }
        if !self.has_handler() {
            let arguments = self.stack[at + 1..at + 1 + count].to_vec();
            let name = self.heap.symbols.name(selector).to_owned();
            return Err(Stop::NotUnderstood(self.missing(receiver, name, &arguments)));
        }
        // An enclosing handler wins over making.
        let prototype = self.touch_exception(image::MESSAGE_NOT_UNDERSTOOD)?;
        let message = self.message(at, selector, count, start)?;
        let exception = self.child(Value::object(prototype), &[("message", message)])?;
        let window = self.place_above(exception, &[]);
        self.send(window, 0, known::SIGNAL, Route::Normal, to, None)?;
        self.asked(receiver, selector);
        Ok(())
    }

    /// Counts what nobody understood. Called last, for an op that lacks an object starts again.
    fn asked(&mut self, receiver: Value, selector: Symbol) {
        *self.misses.entry((receiver, selector)).or_insert(0) += 1;
    }

    /// The message that was not understood, as an object.
    fn message(&mut self, at: usize, selector: Symbol, count: usize, start: Value) -> Result<Value, Stop> {
        let arguments = self.heap.array(self.stack[at + 1..at + 1 + count].to_vec())?;
        let receiver = self.stack[at];
        let parent = Value::object(self.heap.refer(image::MESSAGE_TRAITS));
        let sender = self.frames.last().map_or(Value::NIL, |frame| self.me(frame));
        let attempt = self.misses.get(&(receiver, selector)).map_or(1, |times| times + 1);
        let slots = [
            ("parent", SlotType::Parent, parent),
            ("selector", SlotType::Constant, Value::symbol(selector)),
            ("arguments", SlotType::Constant, arguments),
            ("receiver", SlotType::Constant, receiver),
            ("sender", SlotType::Constant, sender),
            ("lookupStart", SlotType::Constant, start),
            ("attempt", SlotType::Constant, Value::small(attempt)),
        ];
        let slots = slots.map(|(name, kind, value)| Slot { name: self.heap.symbols.intern(name), kind, value });
        self.heap.create(slots.to_vec(), Body::Plain).map(Value::object)
    }

    /// Turns the failure of the running op into an exception; its answer is the op's.
    pub(super) fn signal(&mut self, prototype: ObjectId, error: VmError) -> Result<(), Stop> {
        if !self.has_handler() {
            self.is_fault = FAULTS.contains(&prototype);
            return Err(Stop::Fail(error));
        }
        let prototype = self.touch_exception(prototype)?;
        let text = self.heap.string(&error.message)?;
        let exception = self.child(Value::object(prototype), &[("messageTextOrNil", text)])?;
        let (base, top) = self.window();
        let at = self.place_above(exception, &[]);
        let Some(frame) = self.frames.last_mut() else { return Err(Stop::Fail(error)) };
        let op = self.codes[frame.code as usize].code.ops[frame.ip as usize];
        let to = match op {
            // The branch is taken again on what the exception answers.
            Op::JumpIfFalse { from, .. } | Op::JumpIfTrue { from, .. } => {
                frame.ip = frame.ip.wrapping_sub(1);
                base + from as usize
            }
            op => op.answer().map_or(top, |to| base + to as usize),
        };
        self.send(at, 0, known::SIGNAL, Route::Normal, to, None)
    }

    pub(super) fn map_of(&self, value: Value) -> Result<MapId, Stop> {
        self.heap.map_of(value)
    }
}

/// The compiler and the interpreter disagree.
pub(super) fn broken<T>() -> Result<T, Stop> {
    Err(Stop::Fail(VmError::new(ErrorKind::Internal, "broken bytecode")))
}
