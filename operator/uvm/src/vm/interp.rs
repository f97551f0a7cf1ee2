//! The interpreter. Its activations and operands lie on stacks of its own, so that a turn can stop anywhere and go on.
//!
//! An op that lacks an object stops before it has any effect and starts again when the object is there. What an op does
//! here is the fast part of what `send.rs` does in full; it may be left out without a difference in what is computed,
//! charged or burned.
// Indexing: operands come from the compiler, which made the code they index; the hot loop relies on it.
#![allow(clippy::indexing_slicing)]

use super::{
    error::{Stop, limit, raise},
    exceptions::{Ending, Mark},
    heap::{Body, Cell, map_of_plain},
    machine::{Call, EMPTY_CACHE, Frame, Machine, Target, WAYS},
    map::reserved,
    op::{CONSTANT, NONE, Op},
    symbols::known,
    value::{Handle, Kind, Value},
};
use crate::image;

impl Machine {
    /// Runs; true when done, false when the slice is used up.
    pub fn run(&mut self, slice: u64) -> Result<bool, Stop> {
        self.pause = self.fuel.saturating_sub(slice);
        if self.fuel == self.limits.fuel
            && let Some(me) = self.stack.first().and_then(|me| me.as_object())
        {
            // Self of the first code is there from the beginning, so that nothing it does tells whether it was loaded.
            self.heap.get(me)?;
        }
        loop {
            match self.execute() {
                Ok(true) => return Ok(true),
                Ok(false) if self.fuel == 0 => return self.out_of_fuel(),
                Ok(false) => return Ok(false),
                Err(Stop::Raise(prototype, error)) => match self.signal(prototype, error) {
                    Ok(()) => {}
                    Err(stop) => return Err(self.give_back(stop)),
                },
                Err(stop) => return Err(self.give_back(stop)),
            }
        }
    }

    /// An op that will start again has cost nothing yet.
    fn give_back(&mut self, stop: Stop) -> Stop {
        if stop.is_fault() {
            let before = self.checkpoint;
            (self.fuel, self.serial) = (before.fuel, before.serial);
            self.heap.give_back(before.heap);
        }
        stop
    }

    fn out_of_fuel<T>(&self) -> Result<T, Stop> {
        limit(format!("the turn used up its fuel of {} sends and loops", self.limits.fuel))
    }

    pub(super) fn burn(&mut self) -> Result<(), Stop> {
        if self.fuel == 0 {
            return self.out_of_fuel();
        }
        self.fuel -= 1;
        Ok(())
    }

    #[allow(clippy::too_many_lines, clippy::cognitive_complexity)]
    fn execute(&mut self) -> Result<bool, Stop> {
        'activation: loop {
            if self.heap.epoch != self.epoch {
                self.forget_lookups();
            }
            let is_deep = self.frames.len() >= self.max_depth;
            let Some(frame) = self.frames.last_mut() else {
                self.answer = self.stack[0];
                return Ok(true);
            };
            let linked = &self.codes[frame.code as usize];
            let code = &*linked.code;
            let (base, top) = (frame.base as usize, frame.base as usize + code.registers);
            // One more than the code has: for answers that nobody asks for.
            let regs = &mut self.stack[base..=top];
            let ops = &code.ops[..];
            let heap = &mut self.heap;
            let mut ip = frame.ip as usize;

            // Leaves the fast path: the op is carried out in full by a method of the machine.
            macro_rules! full {
                ($call:expr) => {{
                    frame.ip = ip as u32;
                    $call?;
                    continue 'activation;
                }};
            }
            macro_rules! second {
                ($b:expr) => {
                    if $b & CONSTANT == 0 { regs[$b as usize] } else { code.constants[($b & !CONSTANT) as usize] }
                };
            }
            macro_rules! operator {
                ($to:expr, $a:expr, $b:expr, $selector:expr) => {{
                    let (left, right) = (regs[$a as usize], second!($b));
                    full!(self.operator($selector, left, Some(right), base + $to as usize))
                }};
            }
            macro_rules! arithmetic {
                ($to:expr, $a:expr, $b:expr, $selector:expr, $int:expr, $float:expr) => {{
                    let (left, right) = (regs[$a as usize], second!($b));
                    let result = if left.is_int() && right.is_int() {
                        let int: fn(i64, i64) -> Option<Value> = $int;
                        int(left.int_part(), right.int_part())
                    } else if let (Some(left), Some(right)) = (left.as_number(), right.as_number()) {
                        let float: fn(f64, f64) -> Option<f64> = $float;
                        float(left, right).map(Value::float)
                    } else {
                        None
                    };
                    match result {
                        Some(value) => {
                            regs[$to as usize] = value;
                            ip += 1;
                        }
                        None => operator!($to, $a, $b, $selector),
                    }
                }};
            }
            macro_rules! compare {
                ($to:expr, $a:expr, $b:expr, $selector:expr, $op:tt) => {{
                    let (left, right) = (regs[$a as usize], second!($b));
                    let holds = if left.is_int() && right.is_int() {
                        left.int_part() $op right.int_part()
                    } else if let (Some(left), Some(right)) = (left.as_number(), right.as_number()) {
                        left $op right
                    } else if let (Some(left), Some(right)) = (left.as_char(), right.as_char()) {
                        left $op right
                    } else {
                        operator!($to, $a, $b, $selector)
                    };
                    regs[$to as usize] = Value::bool(holds);
                    ip += 1;
                }};
            }
            macro_rules! jump_on {
                ($holds:expr) => {{
                    let holds = $holds;
                    ip = match ops[ip + 1] {
                        Op::JumpIfFalse { target, .. } if !holds => target as usize,
                        Op::JumpIfTrue { target, .. } if holds => target as usize,
                        _ => ip + 2,
                    };
                }};
            }
            macro_rules! compare_jump {
                ($to:expr, $a:expr, $b:expr, $selector:expr, $op:tt) => {{
                    let (left, right) = (regs[$a as usize], second!($b));
                    let holds = if left.is_int() && right.is_int() {
                        left.int_part() $op right.int_part()
                    } else if let (Some(left), Some(right)) = (left.as_number(), right.as_number()) {
                        left $op right
                    } else if let (Some(left), Some(right)) = (left.as_char(), right.as_char()) {
                        left $op right
                    } else {
                        operator!($to, $a, $b, $selector)
                    };
                    jump_on!(holds);
                }};
            }
            // Collects before an op that allocates; all that lives is in registers then.
            macro_rules! safe_point {
                () => {
                    if heap.wants_collection() {
                        full!(self.collect())
                    }
                };
            }
            macro_rules! pay {
                () => {{
                    if self.fuel <= self.pause {
                        frame.ip = ip as u32;
                        return Ok(false);
                    }
                    self.fuel -= 1;
                }};
            }

            'op: loop {
                let call = 'call: {
                    match ops[ip] {
                        Op::Move { to, from } => {
                            regs[to as usize] = regs[from as usize];
                            ip += 1;
                        }
                        Op::Constant { to, index } => {
                            regs[to as usize] = code.constants[index as usize];
                            ip += 1;
                        }
                        Op::Send { to, at, site } => {
                            let window = at as usize;
                            let count = code.sites[site as usize].arguments as usize;
                            let with = if count > 0 { regs[window + 1] } else { Value::NIL };
                            break 'call Call {
                                receiver: regs[window],
                                with,
                                to: to as usize,
                                site,
                                window,
                                above: 0,
                                count,
                            };
                        }
                        Op::Get { to, of, site } => {
                            let (receiver, window) = (regs[of as usize], code.registers);
                            break 'call Call {
                                receiver,
                                with: Value::NIL,
                                to: to as usize,
                                site,
                                window,
                                above: 1,
                                count: 0,
                            };
                        }
                        Op::Ask { to, of, with, site } => {
                            let (receiver, with, window) = (regs[of as usize], regs[with as usize], code.registers);
                            break 'call Call { receiver, with, to: to as usize, site, window, above: 2, count: 1 };
                        }
                        Op::Tell { of, with, site } => {
                            let (receiver, with, window) = (regs[of as usize], regs[with as usize], code.registers);
                            break 'call Call { receiver, with, to: window, site, window, above: 2, count: 1 };
                        }
                        Op::Add { to, a, b } => {
                            arithmetic!(to, a, b, known::ADD, |a, b| Value::int(a + b), |a, b| Some(a + b))
                        }
                        Op::Subtract { to, a, b } => {
                            arithmetic!(to, a, b, known::SUBTRACT, |a, b| Value::int(a - b), |a, b| Some(a - b))
                        }
                        Op::Multiply { to, a, b } => {
                            arithmetic!(
                                to,
                                a,
                                b,
                                known::MULTIPLY,
                                |a, b| a.checked_mul(b).and_then(Value::int),
                                |a, b| { Some(a * b) }
                            )
                        }
                        Op::Divide { to, a, b } => arithmetic!(
                            to,
                            a,
                            b,
                            known::DIVIDE,
                            |a, b| if b != 0 && a % b == 0 { Value::int(a / b) } else { None },
                            |a, b| (b != 0.0).then_some(a / b)
                        ),
                        Op::FloorDivide { to, a, b } => arithmetic!(
                            to,
                            a,
                            b,
                            known::FLOOR_DIVIDE,
                            |a, b| if b > 0 { Value::int(a.div_euclid(b)) } else { None },
                            |_, _| None
                        ),
                        Op::Modulo { to, a, b } => arithmetic!(
                            to,
                            a,
                            b,
                            known::MODULO,
                            |a, b| if b > 0 { Value::int(a.rem_euclid(b)) } else { None },
                            |_, _| None
                        ),
                        Op::Less { to, a, b } => compare!(to, a, b, known::LESS, <),
                        Op::AtMost { to, a, b } => compare!(to, a, b, known::AT_MOST, <=),
                        Op::Greater { to, a, b } => compare!(to, a, b, known::GREATER, >),
                        Op::AtLeast { to, a, b } => compare!(to, a, b, known::AT_LEAST, >=),
                        Op::Equal { to, a, b } => compare!(to, a, b, known::EQUAL, ==),
                        Op::NotEqual { to, a, b } => compare!(to, a, b, known::NOT_EQUAL, !=),
                        Op::LessJump { to, a, b } => compare_jump!(to, a, b, known::LESS, <),
                        Op::AtMostJump { to, a, b } => compare_jump!(to, a, b, known::AT_MOST, <=),
                        Op::GreaterJump { to, a, b } => compare_jump!(to, a, b, known::GREATER, >),
                        Op::AtLeastJump { to, a, b } => compare_jump!(to, a, b, known::AT_LEAST, >=),
                        Op::EqualJump { to, a, b } => compare_jump!(to, a, b, known::EQUAL, ==),
                        Op::Identical { to, a, b } => {
                            let (left, right) = (regs[a as usize], second!(b));
                            match heap.identical(left, right) {
                                Some(same) => {
                                    regs[to as usize] = Value::bool(same);
                                    ip += 1;
                                }
                                None => operator!(to, a, b, known::IDENTICAL),
                            }
                        }
                        Op::IdenticalJump { to, a, b } => {
                            let (left, right) = (regs[a as usize], second!(b));
                            match heap.identical(left, right) {
                                Some(same) => jump_on!(same),
                                None => operator!(to, a, b, known::IDENTICAL),
                            }
                        }
                        Op::Not { to, a } => match regs[a as usize].kind() {
                            Kind::Bool(b) => {
                                regs[to as usize] = Value::bool(!b);
                                ip += 1;
                            }
                            _ => {
                                let receiver = regs[a as usize];
                                full!(self.operator(known::NOT, receiver, None, base + to as usize))
                            }
                        },
                        Op::Jump { target } => ip = target as usize,
                        Op::Loop { target } => {
                            pay!();
                            ip = target as usize;
                        }
                        Op::JumpIfFalse { from, target } => match regs[from as usize] {
                            Value::FALSE => ip = target as usize,
                            Value::TRUE => ip += 1,
                            value => full!(self.not_boolean(value)),
                        },
                        Op::JumpIfTrue { from, target } => match regs[from as usize] {
                            Value::TRUE => ip = target as usize,
                            Value::FALSE => ip += 1,
                            value => full!(self.not_boolean(value)),
                        },
                        Op::JumpIfNil { from, target } => {
                            ip = if regs[from as usize] == Value::NIL { target as usize } else { ip + 1 };
                        }
                        Op::JumpIfNotNil { from, target } => {
                            ip = if regs[from as usize] == Value::NIL { ip + 1 } else { target as usize };
                        }
                        Op::Count { at, body } => {
                            let at = at as usize;
                            let (count, last, step) = (regs[at], regs[at + 1], regs[at + 2]);
                            if count.is_int() && last.is_int() && step.is_int() {
                                let (last, step) = (last.int_part(), step.int_part());
                                let next = count.int_part() + step;
                                if if step > 0 { next <= last } else { next >= last } {
                                    pay!();
                                    let value = Value::int(next).unwrap_or(Value::NIL);
                                    regs[at] = value;
                                    regs[at + 3] = value;
                                    ip = body as usize;
                                } else {
                                    ip += 1;
                                }
                            } else {
                                ip += 2;
                            }
                        }
                        Op::Captured { to, context, index } => {
                            let context = regs[context as usize].as_object().unwrap_or(Handle(0));
                            let Cell::Here(object) = &heap.cells[context.0 as usize] else { full!(self.need(context)) };
                            let word = heap.words.get(object.at as usize + index as usize + 1);
                            regs[to as usize] = word.copied().unwrap_or(Value::NIL);
                            ip += 1;
                        }
                        Op::SetCaptured { context, index, from } => {
                            let context = regs[context as usize].as_object().unwrap_or(Handle(0));
                            let Cell::Here(object) = &mut heap.cells[context.0 as usize] else {
                                full!(self.need(context))
                            };
                            object.dirty = true;
                            if let Some(word) = heap.words.get_mut(object.at as usize + index as usize + 1) {
                                *word = regs[from as usize];
                            }
                            ip += 1;
                        }
                        Op::Outer { to, from } => {
                            let context = regs[from as usize].as_object().unwrap_or(Handle(0));
                            let Cell::Here(object) = &heap.cells[context.0 as usize] else { full!(self.need(context)) };
                            regs[to as usize] = heap.words.get(object.at as usize).copied().unwrap_or(Value::NIL);
                            ip += 1;
                        }
                        Op::Context { to, outer, count } => {
                            safe_point!();
                            let outer = if outer == NONE { Value::NIL } else { regs[outer as usize] };
                            let made = heap.context(outer, count as usize);
                            match made {
                                Ok(context) => regs[to as usize] = context,
                                Err(stop) => full!(Err::<(), Stop>(stop)),
                            }
                            ip += 1;
                        }
                        Op::Block { to, index, context } => {
                            safe_point!();
                            let Some(number) = linked.blocks[index as usize] else {
                                full!(self.link_block(index as usize))
                            };
                            let context = if context == NONE { Value::NIL } else { regs[context as usize] };
                            let holder = frame.holder.map_or(Value::NIL, Value::object);
                            let body = Body::Block { code: number, home: frame.home };
                            match heap.allocate(reserved::BLOCK, body, &[regs[0], context, holder]) {
                                Ok(block) => regs[to as usize] = Value::object(block),
                                Err(stop) => full!(Err::<(), Stop>(stop)),
                            }
                            ip += 1;
                        }
                        Op::Str { to, index } => {
                            safe_point!();
                            match heap.text_of(code.texts[index as usize].clone()) {
                                Ok(text) => regs[to as usize] = text,
                                Err(stop) => full!(Err::<(), Stop>(stop)),
                            }
                            ip += 1;
                        }
                        Op::Return { from } => {
                            let (value, to) = (regs[from as usize], frame.to as usize);
                            self.frames.pop();
                            self.stack[to] = value;
                            if let Some(caller) = self.frames.last_mut() {
                                caller.ip = caller.ip.wrapping_add(1);
                            }
                            continue 'activation;
                        }
                        Op::NonLocalReturn { from } => {
                            let (value, home) = (regs[from as usize], frame.home);
                            full!(self.unwind(home, Ending::Answer(value)))
                        }
                        Op::Primitive { to, at, site } => {
                            safe_point!();
                            full!(self.primitive_at(to, at, site))
                        }
                        Op::Array { to, first, count } => {
                            safe_point!();
                            let first = first as usize;
                            match heap.array(regs[first..first + count as usize].to_vec()) {
                                Ok(array) => regs[to as usize] = array,
                                Err(stop) => full!(Err::<(), Stop>(stop)),
                            }
                            ip += 1;
                        }
                        Op::ArrayMore { array, first, count } => {
                            let more = &regs[first as usize..first as usize + count as usize];
                            if let Err(stop) = heap.charge(more.len() * 8) {
                                full!(Err::<(), Stop>(stop));
                            }
                            let handle = regs[array as usize].as_object().unwrap_or(Handle(0));
                            if let Cell::Here(object) = &mut heap.cells[handle.0 as usize]
                                && let Body::Array(elements) = &mut object.body
                            {
                                elements.extend_from_slice(more);
                            }
                            ip += 1;
                        }
                        Op::Big { to, index } => {
                            safe_point!();
                            match heap.integer(code.texts[index as usize].parse().unwrap_or_default()) {
                                Ok(number) => regs[to as usize] = number,
                                Err(stop) => full!(Err::<(), Stop>(stop)),
                            }
                            ip += 1;
                        }
                        Op::Object { to, first, index } => {
                            safe_point!();
                            full!(self.make_object(to, first, index as usize))
                        }
                    }
                    continue 'op;
                };
                safe_point!();
                let Call { receiver, with, to, site, window, above, count } = call;
                let handle = receiver.as_object().unwrap_or(Handle(0));
                // With the place of its words, if it has any.
                let (map, at) = match receiver.as_object() {
                    Some(handle) => match &heap.cells[handle.0 as usize] {
                        Cell::Here(object) => (object.map, object.at as usize),
                        _ => full!(self.send_call(&call)),
                    },
                    None => (map_of_plain(receiver), 0),
                };
                let cache = linked.caches as usize + site as usize * WAYS;
                let ways = &self.caches[cache..cache + WAYS];
                let target = if ways[0].map == map {
                    ways[0].target
                } else if ways[1].map == map {
                    ways[1].target
                } else {
                    full!(self.send_call(&call))
                };
                match target {
                    Target::Field { place } => {
                        pay!();
                        regs[to] = heap.words[at + place as usize];
                        ip += 1;
                    }
                    Target::SetField { place } => match &mut heap.cells[handle.0 as usize] {
                        Cell::Here(object) => {
                            pay!();
                            object.dirty = true;
                            heap.words[at + place as usize] = with;
                            regs[to] = receiver;
                            ip += 1;
                        }
                        _ => full!(self.send_call(&call)),
                    },
                    Target::Method { code: number, .. } | Target::OwnMethod { code: number } => {
                        if is_deep {
                            full!(self.send_call(&call));
                        }
                        pay!();
                        frame.ip = ip as u32;
                        let holder = match target {
                            Target::Method { holder, .. } => holder,
                            _ => handle,
                        };
                        let callee = &self.codes[number as usize].code;
                        let window = base + window;
                        let (first, end) = (window + callee.arguments + 1, window + callee.registers + 1);
                        if end > self.stack.len() {
                            self.stack.resize(end * 2, Value::NIL);
                        }
                        self.stack[first..end].fill(Value::NIL);
                        if above > 0 {
                            self.stack[window] = receiver;
                            if above > 1 {
                                self.stack[window + 1] = with;
                            }
                        }
                        self.serial += 1;
                        self.frames.push(Frame {
                            code: number,
                            ip: 0,
                            base: window as u32,
                            to: (base + to) as u32,
                            holder: Some(holder),
                            serial: self.serial,
                            home: self.serial,
                            mark: Mark::None,
                        });
                        continue 'activation;
                    }
                    Target::Value => {
                        let Cell::Here(object) = &heap.cells[handle.0 as usize] else { full!(self.send_call(&call)) };
                        let Body::Block { code: number, home } = object.body else { full!(self.send_call(&call)) };
                        let words = object.at as usize;
                        let callee = &self.codes[number as usize].code;
                        if callee.arguments != count || is_deep {
                            full!(self.send_call(&call));
                        }
                        pay!();
                        frame.ip = ip as u32;
                        let window = base + window;
                        let (first, end) = (window + count + 1, window + callee.registers + 1);
                        if end > self.stack.len() {
                            self.stack.resize(end * 2, Value::NIL);
                        }
                        self.stack[first..end].fill(Value::NIL);
                        self.stack[window] = heap.words[words];
                        if above > 1 {
                            self.stack[window + 1] = with;
                        }
                        self.stack[first] = heap.words[words + 1];
                        self.serial += 1;
                        self.frames.push(Frame {
                            code: number,
                            ip: 0,
                            base: window as u32,
                            to: (base + to) as u32,
                            holder: heap.words[words + 2].as_object(),
                            serial: self.serial,
                            home,
                            mark: Mark::None,
                        });
                        continue 'activation;
                    }
                    Target::ArrayAt => {
                        if let Cell::Here(object) = &heap.cells[handle.0 as usize]
                            && let Body::Array(elements) = &object.body
                            && with.is_int()
                            && let Some(element) = elements.get(with.int_part().wrapping_sub(1) as usize)
                        {
                            pay!();
                            regs[to] = *element;
                            ip += 1;
                        } else {
                            full!(self.send_call(&call))
                        }
                    }
                    Target::ArrayAtPut => {
                        let value = regs[window + 2];
                        if let Cell::Here(object) = &mut heap.cells[handle.0 as usize]
                            && let Body::Array(elements) = &mut object.body
                            && with.is_int()
                            && let Some(element) = elements.get_mut(with.int_part().wrapping_sub(1) as usize)
                        {
                            pay!();
                            object.dirty = true;
                            *element = value;
                            regs[to] = value;
                            ip += 1;
                        } else {
                            full!(self.send_call(&call))
                        }
                    }
                    Target::ArraySize => {
                        if let Cell::Here(object) = &heap.cells[handle.0 as usize]
                            && let Body::Array(elements) = &object.body
                        {
                            pay!();
                            regs[to] = Value::small(elements.len());
                            ip += 1;
                        } else {
                            full!(self.send_call(&call))
                        }
                    }
                    Target::StringAt => {
                        if let Cell::Here(object) = &heap.cells[handle.0 as usize]
                            && let Body::Str(text) = &object.body
                            && object.is_ascii
                            && with.is_int()
                            && let Some(byte) = text.as_bytes().get(with.int_part().wrapping_sub(1) as usize)
                        {
                            pay!();
                            regs[to] = Value::char(char::from(*byte));
                            ip += 1;
                        } else {
                            full!(self.send_call(&call))
                        }
                    }
                    Target::StringSize => {
                        if let Cell::Here(object) = &heap.cells[handle.0 as usize]
                            && let Body::Str(text) = &object.body
                            && object.is_ascii
                        {
                            pay!();
                            regs[to] = Value::small(text.len());
                            ip += 1;
                        } else {
                            full!(self.send_call(&call))
                        }
                    }
                    Target::Remote { holder, place } => {
                        pay!();
                        regs[to] = heap.word(holder, place as usize);
                        ip += 1;
                    }
                    Target::Constant { value } => {
                        pay!();
                        regs[to] = value;
                        ip += 1;
                    }
                    Target::Primitive { .. } | Target::AddField { .. } => full!(self.reach(target, &call)),
                }
            }
        }
    }

    /// An object that has to be loaded; an op that uses it has cost nothing yet.
    fn need(&mut self, handle: Handle) -> Result<(), Stop> {
        self.check();
        self.heap.get(handle).map(|_| ())
    }

    fn not_boolean(&mut self, value: Value) -> Result<(), Stop> {
        raise(image::NON_BOOLEAN_RECEIVER, format!("{} is neither true nor false", self.describe(value)))
    }

    /// What was found rests on maps that have changed.
    fn forget_lookups(&mut self) {
        self.caches.fill(EMPTY_CACHE);
        self.lookups.clear();
        self.epoch = self.heap.epoch;
    }

    fn collect(&mut self) -> Result<(), Stop> {
        let windows = self.frames.iter().map(|frame| {
            let size = self.codes[frame.code as usize].code.registers;
            &self.stack[frame.base as usize..frame.base as usize + size]
        });
        let holders = self.frames.iter().filter_map(|frame| frame.holder.map(Value::object));
        let posted = self.posts.iter().flat_map(|post| std::iter::once(post.receiver).chain(post.arguments.clone()));
        let values = windows.flatten().copied().chain(holders).chain(self.unwinding_values()).chain(posted);
        let values: Vec<Value> = values.collect();
        self.heap.collect(values.into_iter())?;
        // Handles are used again.
        let heap = &self.heap;
        self.misses.retain(|(receiver, _), _| receiver.as_object().is_none_or(|handle| heap.is_live(handle)));
        Ok(())
    }
}
