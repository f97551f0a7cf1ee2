//! The interpreter: frames and operands on stacks of its own, so that a turn can stop anywhere and go on.
//!
//! An instruction that lacks an object stops before it has any effect and starts again when the object is there.
// Indexing: operand indices come from the compiler, which made the code they index; the hot loop relies on it.
#![allow(clippy::indexing_slicing)]

use std::{collections::HashMap, sync::Arc};

use batos_covenant::ErrorKind;
use batos_graph::ObjectId;

use super::{
    VmError,
    compile::compile,
    error::{Stop, failed, limit, raise},
    exceptions::{Ending, Mark, Unwinding},
    heap::{Body, Closure, Heap, Origin, Slot, SlotType},
    lookup::{Found, lookup, start},
    op::{Code, Op, SlotPlan},
    primitives::{self, Flow},
    turn::{Limits, NotUnderstood},
    value::{Handle, Kind, Symbol, Value},
};
use crate::{
    image,
    syntax::{SlotNodeKind, parse_method},
};

pub(super) struct Frame {
    code: Arc<Code>,
    ip: usize,
    /// First local on the value stack; the receiver lies below it.
    pub base: usize,
    pub me: Value,
    /// Object that holds the method, for resends.
    holder: Option<Handle>,
    context: Option<Handle>,
    pub serial: u64,
    /// Serial number of the method activation that `^` answers from.
    home: u64,
    pub mark: Mark,
}

pub(super) struct Machine {
    pub heap: Heap,
    /// What names lead to, as far as it was asked.
    pub names: HashMap<String, Option<ObjectId>>,
    pub fuel: u64,
    pub answer: Value,
    pub stack: Vec<Value>,
    pub frames: Vec<Frame>,
    pub unwindings: Vec<Unwinding>,
    serial: u64,
    max_depth: usize,
    max_fuel: u64,
    /// The first send, until it has found its method.
    pending: Option<(Symbol, usize)>,
}

/// How a message finds its method.
#[derive(Clone, Copy)]
enum Route {
    Normal,
    /// To self without a receiver: a unary one may be the name of an object.
    Implicit,
    Resend,
    Directed(Symbol),
}

impl Machine {
    pub fn new(limits: Limits) -> Self {
        Self {
            heap: Heap::new(limits.heap_bytes),
            names: HashMap::new(),
            fuel: limits.fuel,
            answer: Value::NIL,
            stack: Vec::new(),
            frames: Vec::new(),
            unwindings: Vec::new(),
            serial: 0,
            max_depth: limits.depth,
            max_fuel: limits.fuel,
            pending: None,
        }
    }

    pub fn begin_send(&mut self, receiver: Value, selector: &str, arguments: Vec<Value>) -> Result<(), VmError> {
        let colons = selector.matches(':').count();
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let binary = !selector.is_empty() && !selector.contains(is_name);
        let wanted = if binary { 1 } else { colons };
        let malformed = selector.is_empty() || selector.starts_with('_') || selector.len() > 256;
        if malformed || wanted != arguments.len() || (!binary && !selector.chars().all(is_name)) {
            let text = format!("{selector:?} with {} arguments is no message", arguments.len());
            return Err(VmError::new(ErrorKind::BadRequest, text));
        }
        let symbol = self.heap.symbols.intern(selector);
        self.pending = Some((symbol, arguments.len()));
        self.stack.push(receiver);
        self.stack.extend(arguments);
        Ok(())
    }

    pub fn begin_code(&mut self, code: Arc<Code>, me: Value, holder: Option<Handle>) {
        self.stack.push(me);
        // Its context, if it needs one, is the first thing that is allocated: it fits.
        let _ = self.activate(code, me, holder, None, None);
    }

    /// Runs; true when done, false when the slice is used up.
    pub fn run(&mut self, slice: u64) -> Result<bool, Stop> {
        let pause = self.fuel.saturating_sub(slice);
        if let Some((selector, arguments)) = self.pending {
            self.send(selector, arguments, Route::Normal)?;
            self.pending = None;
        }
        while !self.frames.is_empty() {
            if self.fuel <= pause {
                if self.fuel == 0 {
                    return limit(format!("the turn used up its fuel of {} sends and loops", self.max_fuel));
                }
                return Ok(false);
            }
            match self.step() {
                Err(Stop::Raise(prototype, error)) => self.signal(prototype, error)?,
                other => other?,
            }
        }
        self.answer = self.stack.pop().unwrap_or(Value::NIL);
        Ok(true)
    }

    pub fn backtrace(&self) -> Vec<String> {
        const SHOWN: usize = 16;
        let frames = self.frames.iter().rev().take(SHOWN);
        frames
            .map(|frame| {
                let line = frame.code.lines.get(frame.ip).copied().unwrap_or_default();
                format!("{} {}, line {line}", self.describe(frame.me), frame.code.name)
            })
            .collect()
    }

    /// A value for people.
    pub fn describe(&self, value: Value) -> String {
        match value.kind() {
            Kind::Nil => "nil".to_owned(),
            Kind::Bool(b) => b.to_string(),
            Kind::Int(n) => n.to_string(),
            Kind::Float(x) => format!("{x:?}"),
            Kind::Symbol(symbol) => format!("#{}", self.heap.symbols.name(symbol)),
            Kind::Object(handle) => match self.heap.get(handle) {
                Ok(object) => match (&object.body, &object.origin) {
                    (Body::Str(text), _) => format!("'{}'", text.chars().take(40).collect::<String>()),
                    (Body::Big(n), _) => n.to_string(),
                    (Body::Array(elements), _) => format!("an array of {}", elements.len()),
                    (Body::Block(_), _) => "a block".to_owned(),
                    (_, Origin::Stored { id, record, .. }) => record.name.clone().unwrap_or_else(|| id.to_string()),
                    _ => "a new object".to_owned(),
                },
                Err(_) => "an object".to_owned(),
            },
        }
    }

    /// The kind of a value: what other senders' arguments are told by.
    pub fn shape(&self, value: Value) -> &'static str {
        match value.kind() {
            Kind::Nil => "nil",
            Kind::Bool(_) => "boolean",
            Kind::Int(_) => "integer",
            Kind::Float(_) => "float",
            Kind::Symbol(_) => "symbol",
            Kind::Object(handle) => match self.heap.get(handle).map(|object| &object.body) {
                Ok(Body::Str(_)) => "string",
                Ok(Body::Big(_)) => "integer",
                Ok(Body::Array(_)) => "array",
                Ok(Body::Block(_)) => "block",
                _ => "object",
            },
        }
    }

    fn step(&mut self) -> Result<(), Stop> {
        let top = self.frames.len() - 1;
        let frame = &self.frames[top];
        let (op, base) = (frame.code.ops[frame.ip], frame.base);
        match op {
            Op::Constant(index) => self.stack.push(frame.code.constants[index as usize]),
            Op::Str(index) => {
                let text = frame.code.texts[index as usize].clone();
                let value = self.heap.string(&text)?;
                self.stack.push(value);
            }
            Op::Big(index) => {
                let digits = frame.code.texts[index as usize].parse().unwrap_or_default();
                let value = self.heap.integer(digits)?;
                self.stack.push(value);
            }
            Op::Myself => self.stack.push(frame.me),
            Op::Local(index) => self.stack.push(self.stack[base + index as usize]),
            Op::SetLocal(index) => self.stack[base + index as usize] = self.peek(0),
            Op::Captured { depth, index } => {
                let context = self.context(depth)?;
                let Body::Context { variables, .. } = &self.heap.get(context)?.body else { return broken() };
                self.stack.push(variables[index as usize]);
            }
            Op::SetCaptured { depth, index } => {
                let (context, value) = (self.context(depth)?, self.peek(0));
                let Body::Context { variables, .. } = &mut self.heap.get_mut(context)?.body else { return broken() };
                variables[index as usize] = value;
            }
            Op::Pop => {
                self.stack.pop();
            }
            Op::Dup => self.stack.push(self.peek(0)),
            Op::Swap => {
                let len = self.stack.len();
                self.stack.swap(len - 1, len - 2);
            }
            Op::Block(index) => {
                let closure = Closure {
                    code: frame.code.blocks[index as usize].clone(),
                    me: frame.me,
                    holder: frame.holder,
                    context: frame.context,
                    home: frame.home,
                };
                let block = self.heap.create(Vec::new(), Body::Block(Arc::new(closure)))?;
                self.stack.push(Value::object(block));
            }
            Op::Array(count) => {
                let at = self.stack.len() - count as usize;
                let array = self.heap.array(self.stack[at..].to_vec())?;
                self.stack.truncate(at);
                self.stack.push(array);
            }
            Op::Object(index) => self.make_object(index as usize)?,
            Op::Send { selector, arguments } => {
                let selector = frame.code.selectors[selector as usize];
                return self.send(selector, arguments as usize, Route::Normal);
            }
            Op::SelfSend { selector, arguments } => {
                let selector = frame.code.selectors[selector as usize];
                return self.send(selector, arguments as usize, Route::Implicit);
            }
            Op::Resend { selector, arguments } => {
                let selector = frame.code.selectors[selector as usize];
                return self.send(selector, arguments as usize, Route::Resend);
            }
            Op::Directed { selector, parent, arguments } => {
                let selectors = &frame.code.selectors;
                let (selector, parent) = (selectors[selector as usize], selectors[parent as usize]);
                return self.send(selector, arguments as usize, Route::Directed(parent));
            }
            Op::Primitive { primitive, arguments } => {
                let at = self.stack.len() - arguments as usize - 1;
                let operands = self.stack[at..].to_vec();
                match primitives::run(self, primitive, operands[0], &operands[1..])? {
                    Flow::Value(value) => {
                        self.stack.truncate(at);
                        self.stack.push(value);
                    }
                    Flow::Block { arguments } => {
                        self.stack.truncate(at + 1);
                        self.stack.extend(arguments);
                        return self.call_block(operands[0]);
                    }
                    Flow::Send { selector, arguments } => {
                        // The operands are put back if the send has to start again.
                        let count = arguments.len();
                        self.stack.truncate(at + 1);
                        self.stack.extend(arguments);
                        let sent = self.send(selector, count, Route::Normal);
                        if sent.is_err() {
                            self.stack.truncate(at);
                            self.stack.extend(operands);
                        }
                        return sent;
                    }
                    Flow::Unwind { target, ending } => return self.unwind(target, ending),
                }
            }
            Op::Return => {
                let value = self.peek(0);
                self.leave(top, value);
                return Ok(());
            }
            Op::NonLocalReturn => {
                let (value, home) = (self.peek(0), frame.home);
                return self.unwind(home, Ending::Answer(value));
            }
            Op::Jump(target) => return self.jump(top, target),
            Op::Loop(target) => {
                self.burn()?;
                return self.jump(top, target);
            }
            Op::JumpIfFalse(target) => return self.branch(top, target, false),
            Op::JumpIfTrue(target) => return self.branch(top, target, true),
            Op::JumpIfNotNil(target) => {
                if self.peek(0) != Value::NIL {
                    return self.jump(top, target);
                }
            }
        }
        self.frames[top].ip += 1;
        Ok(())
    }

    fn peek(&self, down: usize) -> Value {
        self.stack[self.stack.len() - 1 - down]
    }

    fn burn(&mut self) -> Result<(), Stop> {
        if self.fuel == 0 {
            return limit(format!("the turn used up its fuel of {} sends and loops", self.max_fuel));
        }
        self.fuel -= 1;
        Ok(())
    }

    fn jump(&mut self, frame: usize, target: u32) -> Result<(), Stop> {
        self.frames[frame].ip = target as usize;
        Ok(())
    }

    fn branch(&mut self, frame: usize, target: u32, on: bool) -> Result<(), Stop> {
        let Kind::Bool(condition) = self.peek(0).kind() else {
            let text = format!("{} is neither true nor false", self.describe(self.peek(0)));
            return raise(image::NON_BOOLEAN_RECEIVER, text);
        };
        self.stack.pop();
        if condition == on {
            return self.jump(frame, target);
        }
        self.frames[frame].ip += 1;
        Ok(())
    }

    /// Ends the activation `frame` and all above it with `value`.
    pub fn leave(&mut self, frame: usize, value: Value) {
        let base = self.frames[frame].base;
        self.frames.truncate(frame);
        self.stack.truncate(base - 1);
        self.stack.push(value);
        if let Some(caller) = self.frames.last_mut() {
            caller.ip += 1;
        }
    }

    fn context(&self, depth: u8) -> Result<Handle, Stop> {
        let mut context = self.frames[self.frames.len() - 1].context;
        for _ in 0..depth {
            let Some(handle) = context else { return broken() };
            let Body::Context { outer, .. } = &self.heap.get(handle)?.body else { return broken() };
            context = *outer;
        }
        context.map_or_else(broken, Ok)
    }

    /// Starts an activation whose receiver and arguments are on the stack. On an error the stack is as before.
    fn activate(
        &mut self,
        code: Arc<Code>,
        me: Value,
        holder: Option<Handle>,
        outer: Option<Handle>,
        home: Option<u64>,
    ) -> Result<(), Stop> {
        if self.frames.len() >= self.max_depth {
            return limit(format!("more than {} nested activations", self.max_depth));
        }
        let base = self.stack.len() - code.arguments;
        let context = match code.captured {
            true => {
                let mut variables = self.stack[base..].to_vec();
                variables.resize(code.variables, Value::NIL);
                let context = self.heap.create(Vec::new(), Body::Context { variables, outer })?;
                self.stack.truncate(base);
                Some(context)
            }
            false => {
                self.stack.resize(base + code.variables, Value::NIL);
                outer
            }
        };
        self.serial += 1;
        let (serial, home) = (self.serial, home.unwrap_or(self.serial));
        self.frames.push(Frame { code, ip: 0, base, me, holder, context, serial, home, mark: Mark::None });
        Ok(())
    }

    /// Calls the block below its arguments on the stack. Too few arguments are an error, too many as well.
    fn call_block(&mut self, block: Value) -> Result<(), Stop> {
        let Some(handle) = block.as_object() else { return broken() };
        let Body::Block(closure) = &self.heap.get(handle)?.body else { return broken() };
        let closure = closure.clone();
        self.burn()?;
        self.activate(closure.code.clone(), closure.me, closure.holder, closure.context, Some(closure.home))
    }

    /// Sends to the receiver that lies below `count` arguments on the stack.
    fn send(&mut self, selector: Symbol, count: usize, route: Route) -> Result<(), Stop> {
        let at = self.stack.len() - count - 1;
        let receiver = self.stack[at];
        let from = match route {
            Route::Normal | Route::Implicit => start(&mut self.heap, receiver)?,
            Route::Resend | Route::Directed(_) => self.resend_from(route)?,
        };
        let setter = match count {
            1 => self.setter(selector),
            _ => None,
        };
        match lookup(&self.heap, from, selector, setter)? {
            Some(Found::Slot { holder, index }) => self.answer_slot(at, count, holder, index),
            Some(Found::Setter { holder, index }) => {
                let slot = self.heap.get(holder)?.slots[index];
                self.burn()?;
                self.assign(receiver, slot.name, self.peek(0))?;
                self.finish(at, receiver)
            }
            None => self.not_found(at, selector, count, route),
        }
    }

    /// Parents of the running method's holder, where resends begin.
    fn resend_from(&self, route: Route) -> Result<Vec<Handle>, Stop> {
        let Some(holder) = self.frames[self.frames.len() - 1].holder else {
            return failed("a resend outside of a method");
        };
        let slots = &self.heap.get(holder)?.slots;
        let mut parents = slots.iter().filter(|slot| slot.kind == SlotType::Parent);
        match route {
            Route::Directed(name) => match parents.find(|slot| slot.name == name) {
                Some(slot) => Ok(slot.value.as_object().into_iter().collect()),
                None => failed(format!("there is no parent slot {:?} to resend to", self.heap.symbols.name(name))),
            },
            _ => Ok(parents.filter_map(|slot| slot.value.as_object()).collect()),
        }
    }

    /// `x` of `x:`.
    fn setter(&mut self, selector: Symbol) -> Option<Symbol> {
        let name = self.heap.symbols.name(selector).strip_suffix(':')?.to_owned();
        Some(self.heap.symbols.intern(&name))
    }

    fn finish(&mut self, at: usize, value: Value) -> Result<(), Stop> {
        self.stack.truncate(at);
        self.stack.push(value);
        if let Some(frame) = self.frames.last_mut() {
            frame.ip += 1;
        }
        Ok(())
    }

    fn answer_slot(&mut self, at: usize, count: usize, holder: Handle, index: usize) -> Result<(), Stop> {
        let slot = self.heap.get(holder)?.slots[index];
        if slot.kind != SlotType::Method {
            self.burn()?;
            return self.finish(at, slot.value);
        }
        let code = self.method(slot)?;
        if code.arguments != count {
            let text = format!("{:?} takes {} arguments, not {count}", code.name, code.arguments);
            return raise(image::ARGUMENTS_COUNT, text);
        }
        self.burn()?;
        self.activate(code, self.stack[at], Some(holder), None, None)
    }

    /// A method slot's code, compiled at its first use in this turn.
    fn method(&mut self, slot: Slot) -> Result<Arc<Code>, Stop> {
        let index = slot.value.as_int().and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX);
        let Some(method) = self.heap.methods.get(index) else { return broken() };
        if let Some(code) = &method.code {
            return Ok(code.clone());
        }
        let (source, is_kernel) = (method.source.clone(), method.is_kernel);
        let name = self.heap.symbols.name(method.name).to_owned();
        let compiled = parse_method(&source).map_err(VmError::from).and_then(|slot| match &slot.kind {
            SlotNodeKind::Method(code) => compile(&name, code, &mut self.heap.symbols, is_kernel),
            _ => Err(VmError::new(ErrorKind::SyntaxError, format!("{name:?} is no method"))),
        });
        let code = Arc::new(compiled.map_err(Stop::Fail)?);
        if let Some(method) = self.heap.methods.get_mut(index) {
            method.code = Some(code.clone());
        }
        Ok(code)
    }

    /// Sets a slot in the receiver, wherever it was found: shared parents are never written by accident.
    pub fn assign(&mut self, receiver: Value, name: Symbol, value: Value) -> Result<(), Stop> {
        let Some(handle) = receiver.as_object() else {
            return failed(format!("{} has no slots to assign", self.describe(receiver)));
        };
        let object = self.heap.get_mut(handle)?;
        object.dirty = true;
        match object.slots.iter_mut().find(|slot| slot.name == name) {
            Some(slot) => slot.value = value,
            None => {
                object.slots.push(Slot { name, kind: SlotType::Assignable, value });
                self.heap.charge(24)?;
            }
        }
        Ok(())
    }

    /// An object by that name, else `doesNotUnderstand:`, else the turn stops here.
    fn not_found(&mut self, at: usize, selector: Symbol, count: usize, route: Route) -> Result<(), Stop> {
        let name = self.heap.symbols.name(selector).to_owned();
        if matches!(route, Route::Implicit) && count == 0 {
            match self.names.get(&name) {
                None => return Err(Stop::Name(name)),
                Some(Some(id)) => {
                    let object = Value::object(self.heap.refer(*id));
                    return self.finish(at, object);
                }
                Some(None) => {}
            }
        }
        let receiver = self.stack[at];
        let handler = self.heap.symbols.intern("doesNotUnderstand:");
        let from = start(&mut self.heap, receiver)?;
        let trying = |frame: &Frame| frame.mark == Mark::Missing(selector) && frame.me == receiver;
        if selector != handler
            && !self.frames.iter().any(trying)
            && let Some(Found::Slot { holder, index }) = lookup(&self.heap, from, handler, None)?
        {
            let arguments = self.stack[at + 1..].to_vec();
            let message = self.message(selector, arguments, receiver)?;
            self.stack.truncate(at + 1);
            self.stack.push(message);
            let below = self.frames.len();
            self.answer_slot(at, 1, holder, index)?;
            if let Some(frame) = self.frames.get_mut(below) {
                frame.mark = Mark::Missing(selector);
            }
            return Ok(());
        }
        let arguments = self.stack[at + 1..].to_vec();
        if !self.has_handler() {
            return Err(Stop::NotUnderstood(self.missing(receiver, name, &arguments)));
        }
        // An enclosing handler wins over making.
        let prototype = self.touch_exception(image::MESSAGE_NOT_UNDERSTOOD)?;
        let message = self.message(selector, arguments, receiver)?;
        let exception = self.child(Value::object(prototype), &[("message", message)])?;
        self.stack.truncate(at);
        self.stack.push(exception);
        let signal = self.heap.symbols.intern("signal");
        self.send(signal, 0, Route::Normal)
    }

    /// A message that nobody understands, for those outside.
    pub fn missing(&self, receiver: Value, selector: String, arguments: &[Value]) -> NotUnderstood {
        let shapes = arguments.iter().map(|argument| self.shape(*argument).to_owned()).collect();
        let receiver = receiver.as_object().and_then(|handle| match &self.heap.get(handle).ok()?.origin {
            Origin::Stored { id, .. } => Some(*id),
            Origin::New(_) => None,
        });
        NotUnderstood { receiver, selector, shapes }
    }

    /// Turns the failure of the running instruction into an exception; its answer is the instruction's.
    fn signal(&mut self, prototype: ObjectId, error: VmError) -> Result<(), Stop> {
        if !self.has_handler() {
            return Err(Stop::Fail(error));
        }
        let prototype = self.touch_exception(prototype)?;
        let text = self.heap.string(&error.message)?;
        let exception = self.child(Value::object(prototype), &[("messageTextOrNil", text)])?;
        let Some(frame) = self.frames.last_mut() else { return Err(Stop::Fail(error)) };
        let operands = match frame.code.ops[frame.ip] {
            Op::Send { arguments, .. }
            | Op::SelfSend { arguments, .. }
            | Op::Resend { arguments, .. }
            | Op::Directed { arguments, .. }
            | Op::Primitive { arguments, .. } => arguments as usize + 1,
            // The branch is taken again on what the exception answers.
            Op::JumpIfFalse(_) | Op::JumpIfTrue(_) => {
                frame.ip = frame.ip.wrapping_sub(1);
                1
            }
            _ => 0,
        };
        self.stack.truncate(self.stack.len() - operands);
        self.stack.push(exception);
        let signal = self.heap.symbols.intern("signal");
        self.send(signal, 0, Route::Normal)
    }

    /// Starts an activation anew.
    pub fn restart(&mut self, index: usize, receiver: Option<Value>) {
        let frame = &mut self.frames[index];
        frame.ip = 0;
        frame.mark = Mark::None;
        if let Some(receiver) = receiver {
            frame.me = receiver;
        }
        self.stack.truncate(frame.base + frame.code.variables);
    }

    /// The message that was not understood, as an object.
    fn message(&mut self, selector: Symbol, arguments: Vec<Value>, receiver: Value) -> Result<Value, Stop> {
        let arguments = self.heap.array(arguments)?;
        let parent = Value::object(self.heap.refer(image::MESSAGE_TRAITS));
        let sender = self.frames.last().map_or(Value::NIL, |frame| frame.me);
        let attempt = Value::int(1).unwrap_or(Value::NIL);
        let mut slot = |name, kind, value| Slot { name: self.heap.symbols.intern(name), kind, value };
        let slots = vec![
            slot("parent", SlotType::Parent, parent),
            slot("selector", SlotType::Constant, Value::symbol(selector)),
            slot("arguments", SlotType::Constant, arguments),
            slot("receiver", SlotType::Constant, receiver),
            slot("sender", SlotType::Constant, sender),
            slot("lookupStart", SlotType::Constant, receiver),
            slot("attempt", SlotType::Constant, attempt),
        ];
        self.heap.create(slots, Body::Plain).map(Value::object)
    }

    fn make_object(&mut self, index: usize) -> Result<(), Stop> {
        let frame = &self.frames[self.frames.len() - 1];
        let (plans, me) = (frame.code.objects[index].clone(), frame.me);
        let is_kernel = false;
        let data = plans.iter().filter(|plan| !matches!(plan, SlotPlan::Method(..))).count();
        let at = self.stack.len() - data;
        let mut values = self.stack[at..].to_vec().into_iter();
        let mut slots = Vec::with_capacity(plans.len() + 1);
        if !plans.iter().any(|plan| matches!(plan, SlotPlan::Parent(_))) {
            // Every object is an object: without a parent of its own it delegates to the root traits.
            let name = self.heap.symbols.intern("parent");
            let value = Value::object(self.heap.refer(image::ROOT_TRAITS));
            slots.push(Slot { name, kind: SlotType::Parent, value });
        }
        for plan in plans {
            let slot = match plan {
                SlotPlan::Method(name, source) => {
                    Slot { name, kind: SlotType::Method, value: self.heap.method(name, source, is_kernel) }
                }
                SlotPlan::Constant(name) => self.data_slot(name, SlotType::Constant, values.next()),
                SlotPlan::Assignable(name) => self.data_slot(name, SlotType::Assignable, values.next()),
                SlotPlan::Parent(name) => match values.next() {
                    Some(value) if value.as_object().is_some() => self.data_slot(name, SlotType::Parent, Some(value)),
                    value => {
                        let value = self.describe(value.unwrap_or(Value::NIL));
                        return failed(format!("{value} cannot be a parent of an object of {}", self.describe(me)));
                    }
                },
            };
            slots.push(slot);
        }
        let object = self.heap.create(slots, Body::Plain)?;
        self.stack.truncate(at);
        self.stack.push(Value::object(object));
        Ok(())
    }

    fn data_slot(&self, name: Symbol, kind: SlotType, value: Option<Value>) -> Slot {
        Slot { name, kind, value: value.unwrap_or(Value::NIL) }
    }
}

/// The compiler and this file disagree.
fn broken<T>() -> Result<T, Stop> {
    Err(Stop::Fail(VmError::new(ErrorKind::Internal, "broken bytecode")))
}
