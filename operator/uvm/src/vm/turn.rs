//! A turn: one message, run on the objects it is given.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use batos_covenant::{ErrorKind, Transcript, Wire};
use batos_graph::{self as graph, ObjectId, Payload, Record, Rev, SlotKind};
use num_bigint::BigInt;
use serde_json::json;

use super::{
    VmError,
    compile::compile,
    error::Stop,
    heap::{Body, Heap, Linked, Object, Origin, SlotType},
    machine::Machine,
    post::{Post, Posted, TimerId},
    value::{Handle, Kind, Value},
};
use crate::syntax::{Expr, ExprKind, parse_expression, print_expression};

/// What one turn may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sends and backward jumps.
    pub fuel: u64,
    /// Bytes that it may allocate.
    pub heap_bytes: usize,
    /// Nested activations.
    pub depth: usize,
    /// Messages that it may send to run on their own.
    pub fan_out: usize,
    /// How long a chain of messages, each sent by the turn of the one before, may still become.
    pub hops: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 10_000_000, heap_bytes: 32 << 20, depth: 2_000, fan_out: 1_000, hops: 64 }
    }
}

/// A message to an object.
#[derive(Debug, Clone)]
pub struct Call {
    pub receiver: ObjectId,
    pub selector: String,
    pub arguments: Vec<Wire>,
}

/// Why `run` came back.
#[derive(Debug)]
pub enum Exit {
    Done,
    /// The slice of fuel is used up: call `run` again.
    Paused,
    /// Supply these and call `run` again.
    Fault(Needs),
    NotUnderstood(NotUnderstood),
    Failed(VmError),
}

/// What a turn lacks to go on.
#[derive(Debug, Default)]
pub struct Needs {
    pub objects: Vec<ObjectId>,
    pub names: Vec<String>,
    /// Objects of which it has to know who refers to them.
    pub holders: Vec<ObjectId>,
}

/// A message that nobody understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUnderstood {
    /// `None` for an object that is not in the graph.
    pub receiver: Option<ObjectId>,
    pub selector: String,
    /// Types of the arguments.
    pub shapes: Vec<String>,
    /// The object whose intent of that name has no method yet.
    pub intent: Option<ObjectId>,
    /// What a model is asked, when the intent's outcome is its to say.
    pub question: Option<Box<Question>>,
}

/// What a model is told of a message whose outcome is its to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Names the question: holder, selector and inputs.
    pub key: [u8; 32],
    /// `arguments`, and the receiver's own data slots as `receiver`.
    pub inputs: Wire,
}

/// What a turn's outcome rests on, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// `None`: the object was absent.
    pub objects: Vec<(ObjectId, Option<Rev>)>,
    pub names: Vec<(String, Option<ObjectId>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    pub answer: Wire,
    pub writes: Vec<Write>,
    /// Messages to send, in the order of the program.
    pub posts: Vec<Post>,
    /// Timers to stop.
    pub cancelled: Vec<(ObjectId, TimerId)>,
}

/// A new or changed object.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub id: ObjectId,
    /// `None` for a new object.
    pub prev_rev: Option<Rev>,
    pub record: Record,
    /// Names of slots that changed.
    pub changed: Vec<String>,
}

pub struct Turn {
    machine: Machine,
    limits: Limits,
    seed: [u8; 32],
}

/// Deepest nesting of arrays in an answer.
const MAX_ANSWER_DEPTH: usize = 32;

impl Turn {
    /// Prepares a send. The same records, call and seed give the same effects.
    pub fn new(call: &Call, limits: Limits, seed: [u8; 32]) -> Result<Self, VmError> {
        let mut machine = Machine::new(limits);
        let heap = &mut machine.heap;
        let receiver = Value::object(heap.refer(call.receiver));
        let arguments: Result<Vec<Value>, VmError> =
            call.arguments.iter().map(|argument| value_of(heap, argument, 0)).collect();
        machine.begin_send(receiver, &call.selector, arguments?)?;
        machine.seed = seed;
        Ok(Self { machine, limits, seed })
    }

    /// Prepares the evaluation of statements with `self` = receiver.
    pub fn eval(receiver: ObjectId, source: &str, limits: Limits, seed: [u8; 32]) -> Result<Self, VmError> {
        let mut machine = Machine::new(limits);
        let code = compile("doit", &parse_expression(source)?, &machine.heap.symbols, false)?;
        let receiver = machine.heap.refer(receiver);
        machine.seed = seed;
        machine.begin_code(Arc::new(code), Value::object(receiver), Some(receiver));
        Ok(Self { machine, limits, seed })
    }

    /// Prepares a message of another turn.
    pub fn of_post(post: &Post, limits: Limits, seed: [u8; 32]) -> Result<Self, VmError> {
        let mut machine = Machine::new(limits);
        let receiver = Value::object(machine.heap.refer(post.receiver));
        let arguments = post.arguments.iter().map(|argument| machine.heap.value_of(argument)).collect();
        machine.begin_send(receiver, &post.selector, arguments)?;
        machine.seed = seed;
        Ok(Self { machine, limits, seed })
    }

    /// Says when the turn begins, in milliseconds since 1970: what its timers count from.
    pub fn starting_at(mut self, now: u64) -> Self {
        self.machine.now = now;
        self
    }

    /// Runs for at most `slice` units of fuel.
    pub fn run(&mut self, slice: u64) -> Exit {
        match self.machine.run(slice) {
            Ok(true) => Exit::Done,
            Ok(false) => Exit::Paused,
            Err(Stop::Objects(objects)) => Exit::Fault(Needs { objects, ..Needs::default() }),
            Err(Stop::Object(id)) => Exit::Fault(Needs { objects: vec![id], ..Needs::default() }),
            Err(Stop::Name(name)) => Exit::Fault(Needs { names: vec![name], ..Needs::default() }),
            Err(Stop::Holders(id)) => Exit::Fault(Needs { holders: vec![id], ..Needs::default() }),
            Err(Stop::NotUnderstood(missing)) => Exit::NotUnderstood(missing),
            Err(Stop::Fail(mut error) | Stop::Raise(_, mut error)) => {
                error.stack = self.machine.backtrace();
                error.fault = self.machine.fault(error.kind).map(Box::new);
                Exit::Failed(error)
            }
        }
    }

    pub fn supply(&mut self, id: ObjectId, found: Option<(Rev, Arc<Record>)>) {
        self.machine.supply(id, found);
    }

    pub fn supply_name(&mut self, name: &str, found: Option<ObjectId>) {
        self.machine.names.insert(name.to_owned(), found);
    }

    /// A model's answer to the question of this key.
    pub fn supply_outcome(&mut self, key: [u8; 32], answer: Wire) {
        self.machine.outcomes.insert(key, answer);
    }

    /// Who refers to `id` in the store. What the turn itself has changed is not among it, and the turn does not rest on it.
    pub fn supply_holders(&mut self, id: ObjectId, holders: Vec<ObjectId>) {
        self.machine.holders.insert(id, holders);
    }

    pub fn reads(&self) -> Reads {
        let names: BTreeMap<_, _> = self.machine.names.iter().map(|(name, id)| (name.clone(), *id)).collect();
        Reads { objects: self.machine.heap.reads(), names: names.into_iter().collect() }
    }

    /// What the turn showed on the Transcript, if anything.
    pub fn transcript(&self) -> Option<Transcript> {
        Some(self.machine.transcript.clone()).filter(|transcript| !transcript.is_empty())
    }

    /// Fuel used so far.
    pub fn fuel_used(&self) -> u64 {
        self.limits.fuel.saturating_sub(self.machine.fuel)
    }

    /// The answer, the messages to send, and the records to write: changed objects and the new ones that all these lead to.
    pub fn effects(&self) -> Result<Effects, VmError> {
        let heap = &self.machine.heap;
        let queue = heap.dirty();
        let queued = queue.iter().copied().collect();
        let (codes, seed) = (&self.machine.codes, &self.seed);
        let mut harvest = Harvest { heap, codes, seed, queue, queued, buckets: Vec::new() };
        let answer = harvest.wire(self.machine.answer, 0)?;
        let posts = self.machine.posts.iter().map(|posted| harvest.post(posted)).collect::<Result<_, _>>()?;
        let mut writes = Vec::new();
        let mut next = 0;
        while let Some(handle) = harvest.queue.get(next).copied() {
            next += 1;
            let write = harvest.write(handle)?;
            writes.push(write);
            writes.append(&mut harvest.buckets);
        }
        writes.sort_by_key(|write| write.id);
        Ok(Effects { answer, writes, posts, cancelled: self.machine.cancelled.clone() })
    }
}

/// A value from the wire in the heap of a turn.
pub(super) fn value_of(heap: &mut Heap, wire: &Wire, depth: usize) -> Result<Value, VmError> {
    let bad = |text: String| VmError::new(ErrorKind::BadRequest, text);
    let stopped = |stop: Stop| match stop {
        Stop::Fail(error) | Stop::Raise(_, error) => error,
        _ => VmError::new(ErrorKind::Internal, "an argument stopped the turn"),
    };
    Ok(match wire {
        Wire::Null => Value::NIL,
        Wire::Bool(b) => Value::bool(*b),
        Wire::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), ..) => heap.integer(BigInt::from(n)).map_err(stopped)?,
            (None, Some(n), _) => heap.integer(BigInt::from(n)).map_err(stopped)?,
            (.., Some(x)) => Value::float(x),
            _ => return Err(bad(format!("number {n} is out of range"))),
        },
        Wire::String(text) => heap.string(text).map_err(stopped)?,
        Wire::Array(elements) if depth < batos_covenant::MAX_DEPTH => {
            let elements: Result<Vec<Value>, VmError> =
                elements.iter().map(|element| value_of(heap, element, depth + 1)).collect();
            heap.array(elements?).map_err(stopped)?
        }
        Wire::Array(_) => return Err(bad(format!("arrays nested deeper than {}", batos_covenant::MAX_DEPTH))),
        Wire::Object(map) => {
            let text = |key| map.get(key).and_then(Wire::as_str).filter(|_| map.len() == 1);
            match (text("$ref").map(str::parse), text("$int").map(str::parse)) {
                (Some(Ok(id)), _) => Value::object(heap.refer(id)),
                (_, Some(Ok(n))) => heap.integer(n).map_err(stopped)?,
                _ => {
                    return Err(bad(format!(
                        "{wire} is no argument: a map is {{\"$ref\": id}} or {{\"$int\": digits}}"
                    )));
                }
            }
        }
    })
}

/// Collects what a turn leaves behind.
pub(super) struct Harvest<'a> {
    pub heap: &'a Heap,
    codes: &'a [Linked],
    pub seed: &'a [u8; 32],
    queue: Vec<Handle>,
    queued: HashSet<Handle>,
    /// Buckets of collections that have become large.
    pub buckets: Vec<Write>,
}

impl Harvest<'_> {
    pub fn object(&self, handle: Handle) -> Option<&Object> {
        self.heap.get(handle).ok()
    }

    pub fn enqueue(&mut self, handle: Handle) {
        if self.queued.insert(handle) {
            self.queue.push(handle);
        }
    }

    /// The id of an object; a new one is written too.
    fn refer(&mut self, handle: Handle) -> Result<ObjectId, VmError> {
        let is_new = matches!(self.object(handle), Some(Object { origin: Origin::New(_), .. }));
        if is_new {
            self.enqueue(handle);
        }
        self.heap
            .id_of(handle, self.seed)
            .ok_or_else(|| VmError::new(ErrorKind::Internal, "an object without identity"))
    }

    fn wire(&mut self, value: Value, depth: usize) -> Result<Wire, VmError> {
        Ok(match value.kind() {
            Kind::Nil => Wire::Null,
            Kind::Bool(b) => json!(b),
            Kind::Int(n) => json!(n),
            Kind::Float(x) if x.is_finite() => json!(x),
            Kind::Float(x) => json!(x.to_string()),
            Kind::Symbol(symbol) => json!(self.heap.symbols.name(symbol)),
            Kind::Char(c) => json!(c),
            Kind::Object(handle) => match self.object(handle).map(|object| object.body.clone()) {
                Some(Body::Str(text)) => json!(&*text),
                Some(Body::Big(n)) => match i64::try_from(&*n) {
                    Ok(n) => json!(n),
                    Err(_) => json!({ "$int": n.to_string() }),
                },
                Some(Body::Fraction(n)) => json!(format!("{}/{}", n.numerator, n.denominator)),
                Some(Body::Array(elements)) if depth < MAX_ANSWER_DEPTH => {
                    let elements = elements.iter().map(|element| self.wire(*element, depth + 1));
                    Wire::Array(elements.collect::<Result<_, _>>()?)
                }
                Some(Body::Array(_)) => {
                    let text = format!("the answer nests arrays deeper than {MAX_ANSWER_DEPTH}");
                    return Err(VmError::new(ErrorKind::LimitExceeded, text));
                }
                Some(Body::Block { .. }) => json!("a block"),
                _ => json!({ "$ref": self.refer(handle)?.to_string() }),
            },
        })
    }

    pub fn stored(&mut self, value: Value) -> Result<graph::Value, VmError> {
        Ok(match value.kind() {
            Kind::Nil => graph::Value::Nil,
            Kind::Bool(b) => graph::Value::Bool(b),
            Kind::Int(n) => graph::Value::Int(n),
            Kind::Float(x) => graph::Value::Float(x),
            Kind::Symbol(symbol) => graph::Value::Symbol(self.heap.symbols.name(symbol).to_owned()),
            Kind::Char(c) => graph::Value::Char(c),
            Kind::Object(handle) => match self.object(handle).map(|object| &object.body) {
                Some(Body::Str(text)) => graph::Value::Str(text.to_string()),
                Some(Body::Big(n)) => match i64::try_from(&**n) {
                    Ok(n) => graph::Value::Int(n),
                    Err(_) => graph::Value::BigInt(n.to_string()),
                },
                Some(Body::Fraction(n)) => graph::Value::Fraction(n.numerator.to_string(), n.denominator.to_string()),
                _ => graph::Value::Ref(self.refer(handle)?),
            },
        })
    }

    fn post(&mut self, posted: &Posted) -> Result<Post, VmError> {
        let lost = || VmError::new(ErrorKind::Internal, "a message without a receiver");
        let receiver = self.refer(posted.receiver.as_object().ok_or_else(lost)?)?;
        let arguments = posted.arguments.iter().map(|argument| self.stored(*argument)).collect::<Result<_, _>>()?;
        Ok(Post { receiver, selector: posted.selector.clone(), arguments, timer: posted.timer })
    }

    /// A closure as it is stored: by its source, so that another compiler makes of it what this one does.
    fn block(&mut self, handle: Handle, code: u32) -> Result<graph::Block, VmError> {
        let [me, context, holder] = [0, 1, 2].map(|word| self.heap.word(handle, word));
        let gone = || VmError::new(ErrorKind::Internal, "a block without code");
        let code = self.codes.get(code as usize).map(|linked| linked.code.clone()).ok_or_else(gone)?;
        let tree = code.tree.as_deref().cloned().ok_or_else(gone)?;
        Ok(graph::Block {
            source: print_expression(&Expr { at: tree.at, kind: ExprKind::Block(tree) }),
            environment: code.environment.clone(),
            is_kernel: code.is_kernel,
            me: self.stored(me)?,
            holder: self.stored(holder)?,
            context: self.stored(context)?,
        })
    }

    fn write(&mut self, handle: Handle) -> Result<Write, VmError> {
        let gone = || VmError::new(ErrorKind::Internal, "a changed object is gone");
        let id = self.refer(handle)?;
        let object = self.heap.get(handle).map_err(|_| gone())?;
        let (prev_rev, old) = match &object.origin {
            Origin::New(_) => (None, Record::default()),
            Origin::Stored(stored) => (Some(stored.rev), (*stored.record).clone()),
        };
        let own = self.heap.slots(handle).map_err(|_| gone())?;
        let mut slots = Vec::with_capacity(own.len());
        for slot in &own {
            let name = self.heap.symbols.name(slot.name).to_owned();
            let kind = match slot.kind {
                SlotType::Constant => SlotKind::Constant(self.stored(slot.value)?),
                SlotType::Assignable => SlotKind::Assignable(self.stored(slot.value)?),
                SlotType::Parent => SlotKind::Parent(self.stored(slot.value)?),
                SlotType::Method => {
                    let method = self.heap.method_of(slot).ok_or_else(gone)?;
                    match &method.intent {
                        Some(intent) => SlotKind::Intent(Box::new((**intent).clone())),
                        None => SlotKind::Method(method.source.to_string()),
                    }
                }
            };
            slots.push(graph::Slot { name, kind });
        }
        let payload = match &object.body {
            Body::Array(elements) => {
                let elements = elements.iter().map(|element| self.stored(*element));
                let elements = elements.collect::<Result<_, _>>()?;
                self.array(id, elements)
            }
            Body::Table(table) => {
                let entries =
                    table.entries().map(|entry| Ok((entry.hash, self.stored(entry.key)?, self.stored(entry.value)?)));
                let entries = entries.collect::<Result<_, VmError>>()?;
                self.table(id, entries)
            }
            Body::BigArray(array) => self.big_array(array)?,
            Body::BigTable(table) => self.big_table(table)?,
            Body::Bucket(bucket) => Payload::Bucket(bucket.try_map(&mut |value| self.stored(*value))?),
            Body::Block { code, .. } => Payload::Block(Box::new(self.block(handle, *code)?)),
            Body::Context => {
                let words = (0..object.words as usize).map(|word| self.heap.word(handle, word));
                let mut values = words.map(|value| self.stored(value)).collect::<Result<Vec<_>, _>>()?;
                let outer = if values.is_empty() { graph::Value::Nil } else { values.remove(0) };
                Payload::Context { outer, variables: values }
            }
            _ => Payload::None,
        };
        let changed = slots.iter().filter(|slot| !old.slots.contains(slot)).map(|slot| slot.name.clone()).collect();
        Ok(Write { id, prev_rev, record: Record { slots, payload, ..old }, changed })
    }
}
