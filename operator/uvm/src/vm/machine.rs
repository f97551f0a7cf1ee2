//! The state of a turn that runs: activations, the value stack under them, what is linked and cached.

use std::{collections::HashMap, sync::Arc};

use batos_covenant::{ErrorKind, Transcript, Wire};
use batos_graph::{ObjectId, Payload, Record, Rev};

use super::{
    VmError,
    compile::is_primitive,
    error::Fault,
    exceptions::{Mark, Unwinding},
    heap::{Body, Heap, Linked, Spent},
    map::{MapId, reserved},
    op::{Code, Op, Route, Site},
    post::{Posted, TimerId},
    turn::{Limits, NotUnderstood},
    value::{Handle, Kind, Symbol, Value},
};

/// An activation of a method or block.
pub(super) struct Frame {
    /// Number of its code.
    pub code: u32,
    /// The op that runs; in an activation that waits, its call.
    pub ip: u32,
    /// Its window begins here on the value stack, with self.
    pub base: u32,
    /// Where on the value stack its answer goes.
    pub to: u32,
    /// Object that holds the method, for resends.
    pub holder: Option<Handle>,
    pub serial: u64,
    /// Serial number of the activation that `^` answers from.
    pub home: u64,
    pub mark: Mark,
}

/// What a message comes down to for a map.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Method {
        code: u32,
        holder: Handle,
    },
    /// A method of the receiver itself.
    OwnMethod {
        code: u32,
    },
    Primitive {
        number: u16,
    },
    /// Calls the receiver, a block.
    Value,
    ArrayAt,
    ArrayAtPut,
    ArraySize,
    StringAt,
    StringSize,
    /// The receiver's data.
    Field {
        place: u32,
    },
    SetField {
        place: u32,
    },
    /// An ancestor's data.
    Remote {
        holder: Handle,
        place: u32,
    },
    /// Adds the slot that an ancestor lets one assign.
    AddField {
        name: Symbol,
    },
    Constant {
        value: Value,
    },
}

/// A send that runs, taken apart.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub receiver: Value,
    /// The first argument.
    pub with: Value,
    /// Register of the answer.
    pub to: usize,
    pub site: u16,
    /// Register where the callee's window begins.
    pub window: usize,
    /// How many of receiver and argument have to be placed there first.
    pub above: u8,
    pub count: usize,
}

/// An inline cache: what a site found last for receivers of a map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cache {
    pub map: MapId,
    pub target: Target,
}

pub(super) const EMPTY_CACHE: Cache = Cache { map: reserved::NONE, target: Target::Value };
pub(super) const NOT_LOOKED_UP: (Symbol, Cache) = (Symbol(u32::MAX), EMPTY_CACHE);
/// Inline caches of a site.
pub(super) const WAYS: usize = 2;
/// Entries of the cache that all sites share.
pub(super) const LOOKUPS: usize = 1024;

/// What an op that has to start again gives back.
#[derive(Clone, Copy, Default)]
pub(super) struct Checkpoint {
    pub fuel: u64,
    pub heap: Spent,
    pub serial: u64,
}

pub(super) struct Machine {
    pub heap: Heap,
    /// What names lead to, as far as it was asked.
    pub names: HashMap<String, Option<ObjectId>>,
    /// Who refers to objects, as far as it was asked.
    pub holders: HashMap<ObjectId, Vec<ObjectId>>,
    /// What models answered, by the keys of their questions.
    pub outcomes: HashMap<[u8; 32], Wire>,
    pub fuel: u64,
    pub answer: Value,
    /// Decides ids of new objects and what the turn draws at random.
    pub seed: [u8; 32],
    /// Random numbers drawn so far.
    pub draws: u64,
    /// Messages that leave the turn when it is committed.
    pub posts: Vec<Posted>,
    pub cancelled: Vec<(ObjectId, TimerId)>,
    /// Timers set so far.
    pub timers: u64,
    /// When the turn began, in milliseconds since 1970.
    pub now: u64,
    pub transcript: Transcript,
    /// How often whom nobody understood what was sent.
    pub misses: HashMap<(Value, Symbol), usize>,
    pub stack: Vec<Value>,
    pub frames: Vec<Frame>,
    pub unwindings: Vec<Unwinding>,
    pub codes: Vec<Linked>,
    pub(super) caches: Vec<Cache>,
    /// Empty, or `LOOKUPS` entries.
    pub(super) lookups: Vec<(Symbol, Cache)>,
    pub(super) epoch: u64,
    pub(super) serial: u64,
    pub(super) pause: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) max_depth: usize,
    pub(super) limits: Limits,
    /// Whether the exception that nobody handled came from what a method does, not from what it signals.
    pub(super) is_fault: bool,
}

impl Machine {
    pub fn new(limits: Limits) -> Self {
        Self {
            heap: Heap::new(limits.heap_bytes),
            names: HashMap::new(),
            outcomes: HashMap::new(),
            holders: HashMap::new(),
            fuel: limits.fuel,
            answer: Value::NIL,
            seed: [0; 32],
            draws: 0,
            posts: Vec::new(),
            cancelled: Vec::new(),
            timers: 0,
            now: 0,
            transcript: Transcript::default(),
            misses: HashMap::new(),
            stack: vec![Value::NIL; 256],
            frames: Vec::with_capacity(32),
            unwindings: Vec::new(),
            codes: Vec::new(),
            caches: Vec::new(),
            lookups: Vec::new(),
            epoch: 0,
            serial: 0,
            pause: 0,
            checkpoint: Checkpoint::default(),
            // The activation that carries the first message counts too.
            max_depth: limits.depth + 1,
            limits,
            is_fault: false,
        }
    }

    pub fn begin_send(&mut self, receiver: Value, selector: &str, arguments: Vec<Value>) -> Result<(), VmError> {
        let colons = selector.matches(':').count();
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let binary = !selector.is_empty() && !selector.contains(is_name);
        let wanted = if binary { 1 } else { colons };
        let malformed = selector.is_empty() || is_primitive(selector) || selector.len() > 256;
        if malformed || wanted != arguments.len() || (!binary && !selector.chars().all(is_name)) {
            let text = format!("{selector:?} with {} arguments is no message", arguments.len());
            return Err(VmError::new(ErrorKind::BadRequest, text));
        }
        let count = arguments.len() as u16;
        let site = Site {
            selector: self.heap.symbols.intern(selector),
            arguments: count as u8,
            route: Route::Normal,
            primitive: 0,
        };
        // Registers: self, then receiver and arguments of the message.
        let code = Code {
            registers: usize::from(count) + 2,
            ops: vec![Op::Send { to: 1, at: 1, site: 0 }, Op::Return { from: 1 }],
            lines: vec![0; 2],
            sites: vec![site],
            ..Code::default()
        };
        self.begin_code(Arc::new(code), Value::NIL, None);
        for (place, value) in self.stack.iter_mut().skip(1).zip(std::iter::once(receiver).chain(arguments)) {
            *place = value;
        }
        Ok(())
    }

    pub fn begin_code(&mut self, code: Arc<Code>, me: Value, holder: Option<Handle>) {
        let registers = code.registers;
        let code = self.link(code);
        self.stack.resize((registers + 1).max(256), Value::NIL);
        if let Some(first) = self.stack.first_mut() {
            *first = me;
        }
        self.serial = 1;
        self.frames.push(Frame { code, ip: 0, base: 0, to: 0, holder, serial: 1, home: 1, mark: Mark::None });
    }

    /// Puts what the store holds under `id` into the heap; a closure's code is linked.
    pub fn supply(&mut self, id: ObjectId, found: Option<(Rev, Arc<Record>)>) {
        let block = found.as_ref().and_then(|(_, record)| match &record.payload {
            Payload::Block(block) => self.heap.symbols.block_code(block),
            _ => None,
        });
        let code = block.map(|code| self.link(code));
        self.heap.supply(id, found, code);
    }

    /// Enters code into this turn.
    pub fn link(&mut self, code: Arc<Code>) -> u32 {
        let caches = self.caches.len() as u32;
        self.caches.resize(self.caches.len() + code.sites.len() * WAYS, EMPTY_CACHE);
        let (blocks, objects) = (vec![None; code.blocks.len()], vec![None; code.objects.len()]);
        self.codes.push(Linked { code, caches, blocks, objects });
        self.codes.len() as u32 - 1
    }

    pub fn code_of(&self, frame: &Frame) -> Option<&Arc<Code>> {
        self.codes.get(frame.code as usize).map(|linked| &linked.code)
    }

    /// Self of an activation.
    pub fn me(&self, frame: &Frame) -> Value {
        self.stack.get(frame.base as usize).copied().unwrap_or(Value::NIL)
    }

    /// The code of a block; `None` for anything else.
    pub fn block_code(&self, value: Value) -> Option<&Arc<Code>> {
        match self.heap.get(value.as_object()?).ok()?.body {
            Body::Block { code, .. } => self.codes.get(code as usize).map(|linked| &linked.code),
            _ => None,
        }
    }

    pub fn backtrace(&self) -> Vec<String> {
        const SHOWN: usize = 16;
        let mut lines = Vec::new();
        for frame in self.frames.iter().rev() {
            let Some(code) = self.code_of(frame).filter(|code| !code.name.is_empty()) else { continue };
            let line = code.lines.get(frame.ip as usize).copied().unwrap_or_default();
            lines.push(format!("{} {}, line {line}", self.describe(self.me(frame)), code.name));
            if lines.len() == SHOWN {
                break;
            }
        }
        lines
    }

    /// The method at fault for a failure of this kind.
    pub fn fault(&self, kind: ErrorKind) -> Option<Fault> {
        let is_fault = match kind {
            ErrorKind::MethodFailed => self.is_fault,
            kind => matches!(kind, ErrorKind::LimitExceeded | ErrorKind::Ambiguous),
        };
        let is_own = |frame: &&Frame| self.code_of(frame).is_some_and(|code| !code.is_kernel);
        let frame = self.frames.iter().rev().find(is_own).filter(|_| is_fault)?;
        let line = self.code_of(frame)?.lines.get(frame.ip as usize).copied().unwrap_or_default();
        // A block belongs to the activation that it answers from.
        let home = self.frames.iter().find(|home| home.serial == frame.home)?;
        let holder = self.heap.id_of(home.holder?, &self.seed)?;
        Some(Fault { holder, selector: self.code_of(home)?.name.clone(), line, kind })
    }

    /// A value for people.
    pub fn describe(&self, value: Value) -> String {
        match value.kind() {
            Kind::Nil => "nil".to_owned(),
            Kind::Bool(b) => b.to_string(),
            Kind::Int(n) => n.to_string(),
            Kind::Float(x) => format!("{x:?}"),
            Kind::Symbol(symbol) => format!("#{}", self.heap.symbols.name(symbol)),
            Kind::Char(c) => format!("${c}"),
            Kind::Object(handle) => match self.heap.get(handle) {
                Ok(object) => match (&object.body, object.record()) {
                    (Body::Str(text), _) => format!("'{}'", text.chars().take(40).collect::<String>()),
                    (Body::Big(n), _) => n.to_string(),
                    (Body::Fraction(n), _) => format!("({}/{})", n.numerator, n.denominator),
                    (Body::Array(elements), _) => format!("an array of {}", elements.len()),
                    (Body::BigArray(array), _) => format!("an array of {}", array.elements.count()),
                    (Body::Block { .. }, _) => "a block".to_owned(),
                    (_, Some(record)) => record.name.clone().unwrap_or_else(|| {
                        self.heap.id_of(handle, &self.seed).map_or_else(String::new, |id| id.to_string())
                    }),
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
            Kind::Char(_) => "character",
            Kind::Object(handle) => match self.heap.get(handle).map(|object| &object.body) {
                Ok(Body::Str(_)) => "string",
                Ok(Body::Big(_)) => "integer",
                Ok(Body::Fraction(_)) => "fraction",
                Ok(Body::Table(_) | Body::BigTable(_)) => "dictionary",
                Ok(Body::Array(_) | Body::BigArray(_)) => "array",
                Ok(Body::Block { .. }) => "block",
                _ => "object",
            },
        }
    }

    /// A message that nobody understands, for those outside.
    pub fn missing(&self, receiver: Value, selector: String, arguments: &[Value]) -> NotUnderstood {
        let shapes = arguments.iter().map(|argument| self.shape(*argument).to_owned()).collect();
        let stored = |handle| matches!(self.heap.get(handle), Ok(object) if object.is_stored());
        let receiver = receiver.as_object().filter(|handle| stored(*handle));
        NotUnderstood {
            receiver: receiver.and_then(|handle| self.heap.id_of(handle, &self.seed)),
            selector,
            shapes,
            intent: None,
            question: None,
        }
    }
}
