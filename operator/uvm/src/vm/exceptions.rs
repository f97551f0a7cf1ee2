//! Exceptions: the little that their image code (`image/exception.bt`) cannot do itself.
//!
//! The activation of `on:do:` is marked while its block runs; signalling walks the marks from the top. Whatever ends an
//! activation from above (an exception's return, `^` in a block) unwinds: it stops at every marked `ensure:`, which runs
//! its block and then goes on with the unwinding.
// Indexing: frame numbers come from searches of the same stack of frames.
#![allow(clippy::indexing_slicing)]

use batos_covenant::ErrorKind;
use batos_graph::ObjectId;

use super::{
    VmError,
    error::{Stop, raise},
    heap::{Body, Slot, SlotType},
    lookup::{lookup, start},
    machine::Machine,
    primitives::{Flow, Primitive, arg},
    symbols::known,
    turn::NotUnderstood,
    value::{Handle, Symbol, Value},
};
use crate::image;

/// What an activation is to exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    /// `on:do:`; its arguments are the exception and the action.
    Handler,
    /// `ensure:` or `ifCurtailed:` while the protected block runs.
    Ensure,
    /// Runs the action of the handler with this serial: that one and all above it handle nothing meanwhile.
    Handling(u64),
    /// `doesNotUnderstand:` for this selector.
    Missing(Symbol),
}

/// How activations above one, and that one, end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// The activation answers.
    Answer(Value),
    /// The activation starts anew, with another receiver if one is given.
    Restart(Option<Value>),
}

/// An unwinding that waits for an `ensure:`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unwinding {
    /// The activation that `ensure:` is.
    pub at: u64,
    pub target: u64,
    pub ending: Ending,
}

type Result<T = Flow> = std::result::Result<T, Stop>;

pub(super) const TABLE: &[(&str, Primitive)] = &[
    ("_Protect", |m, me, _| m.enter(me, Mark::Handler)),
    ("_Ensure", |m, me, _| m.enter(me, Mark::Ensure)),
    ("_Unmark", |m, me, _| {
        m.mark(Mark::None);
        Ok(Flow::Value(me))
    }),
    ("_IsUnwinding", |m, _, _| Ok(Flow::Value(Value::bool(m.unwinding().is_some())))),
    ("_Continue", |m, me, _| match m.unwinding() {
        Some(Unwinding { target, ending, .. }) => Ok(Flow::Unwind { target, ending }),
        None => Ok(Flow::Value(me)),
    }),
    ("_Activation", |m, _, _| Ok(Flow::Value(serial(m.top_serial())))),
    ("_HandlerAfter:", |m, _, a| Ok(Flow::Value(m.handler_after(activation(arg(a, 0))).map_or(Value::NIL, serial)))),
    ("_HandlerType:", |m, _, a| m.handler_argument(arg(a, 0), 0)),
    ("_HandlerAction:", |m, _, a| m.handler_argument(arg(a, 0), 1)),
    ("_Handling:", |m, me, a| {
        m.mark(activation(arg(a, 0)).map_or(Mark::None, Mark::Handling));
        Ok(Flow::Value(me))
    }),
    ("_Unwind:Value:", |_, _, a| unwind(arg(a, 0), Ending::Answer(arg(a, 1)))),
    ("_Restart:With:", |_, _, a| {
        unwind(arg(a, 0), Ending::Restart(Some(arg(a, 1)).filter(|receiver| *receiver != Value::NIL)))
    }),
    ("_Delegates:", |m, me, a| delegates(m, me, arg(a, 0)).map(|found| Flow::Value(Value::bool(found)))),
    ("_IsTransient", |m, me, _| {
        let stored = match me.as_object() {
            Some(handle) => m.heap.get(handle)?.is_stored(),
            None => true,
        };
        Ok(Flow::Value(Value::bool(!stored)))
    }),
    ("_Child", |m, me, _| m.child(me, &[]).map(Flow::Value)),
    ("_Unhandled:", |m, me, a| {
        let ambiguous = Value::object(m.heap.refer(image::AMBIGUOUS_MESSAGE));
        let kind = if delegates(m, me, ambiguous)? { ErrorKind::Ambiguous } else { ErrorKind::MethodFailed };
        let text = match m.heap.text(arg(a, 0))? {
            Some(text) => text.to_owned(),
            None => m.describe(arg(a, 0)),
        };
        m.is_fault = is_fault(m, me)?;
        m.drop_signalling(me);
        Err(Stop::Fail(VmError::new(kind, text)))
    }),
    ("_UnhandledMessage:", |m, me, a| {
        let missing = m.missing_of(arg(a, 0))?;
        m.drop_signalling(me);
        Err(Stop::NotUnderstood(missing))
    }),
];

/// A serial number as the image sees it.
fn serial(number: u64) -> Value {
    i64::try_from(number).ok().and_then(Value::int).unwrap_or(Value::NIL)
}

fn activation(value: Value) -> Option<u64> {
    value.as_int().and_then(|number| u64::try_from(number).ok())
}

fn unwind(target: Value, ending: Ending) -> Result {
    Ok(Flow::Unwind { target: activation(target).unwrap_or_default(), ending })
}

/// Exceptions of the image that tell of a defect. `Error` is what methods signal in their own words.
pub(super) const FAULTS: &[ObjectId] = &[
    image::ZERO_DIVIDE,
    image::SUBSCRIPT_OUT_OF_BOUNDS,
    image::KEY_NOT_FOUND,
    image::BLOCK_CANNOT_RETURN,
    image::NON_BOOLEAN_RECEIVER,
    image::ARGUMENTS_COUNT,
    image::COLLECTION_IS_EMPTY,
    image::NOT_FOUND,
];

fn is_fault(m: &mut Machine, exception: Value) -> Result<bool> {
    for fault in FAULTS {
        let prototype = Value::object(m.heap.refer(*fault));
        if delegates(m, exception, prototype)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `value` is `ancestor` or delegates to it, directly or not.
fn delegates(m: &mut Machine, value: Value, ancestor: Value) -> Result<bool> {
    let Some(ancestor) = ancestor.as_object() else { return Ok(value == ancestor) };
    let mut seen = start(&m.heap, value)?;
    let mut next = 0;
    while let Some(handle) = seen.get(next).copied() {
        if handle == ancestor {
            return Ok(true);
        }
        next += 1;
        for parent in m.heap.parents(handle)? {
            if !seen.contains(parent) {
                seen.push(*parent);
            }
        }
    }
    Ok(false)
}

impl Machine {
    fn top_serial(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.serial)
    }

    fn mark(&mut self, mark: Mark) {
        if let Some(frame) = self.frames.last_mut() {
            frame.mark = mark;
        }
    }

    /// Calls `block` from the running activation, which is marked.
    fn enter(&mut self, block: Value, mark: Mark) -> Result {
        let is_block = match block.as_object() {
            Some(handle) => matches!(self.heap.get(handle)?.body, Body::Block { .. }),
            None => false,
        };
        if !is_block {
            return raise(image::ERROR, "only a block can be protected");
        }
        self.mark(mark);
        Ok(Flow::Block { arguments: Vec::new() })
    }

    /// The unwinding that the running activation has interrupted.
    fn unwinding(&self) -> Option<Unwinding> {
        let top = self.top_serial();
        self.unwindings.iter().rfind(|unwinding| unwinding.at == top).copied()
    }

    /// The nearest activation of `on:do:` below `after`, or below the top, that may handle.
    fn handler_after(&self, after: Option<u64>) -> Option<u64> {
        let mut below = after;
        for frame in self.frames.iter().rev() {
            match below {
                Some(serial) if frame.serial > serial => continue,
                Some(serial) if frame.serial == serial => below = None,
                _ => match frame.mark {
                    Mark::Handler => return Some(frame.serial),
                    Mark::Handling(handler) => below = Some(handler),
                    _ => {}
                },
            }
        }
        None
    }

    fn handler_argument(&self, handler: Value, index: usize) -> Result {
        let wanted = activation(handler);
        match self.frames.iter().rfind(|frame| Some(frame.serial) == wanted) {
            Some(frame) => Ok(Flow::Value(self.stack[frame.base as usize + 1 + index])),
            None => raise(image::BLOCK_CANNOT_RETURN, "the handler has ended already"),
        }
    }

    /// Ends `target` and all above it; on the way `ensure:` runs first.
    pub(super) fn unwind(&mut self, target: u64, ending: Ending) -> Result<()> {
        let Some(index) = self.frames.iter().rposition(|frame| frame.serial == target) else {
            return raise(image::BLOCK_CANNOT_RETURN, "'^' or return: out of an activation that has ended already");
        };
        let stop = self.frames.iter().rposition(|frame| frame.mark == Mark::Ensure).filter(|stop| *stop > index);
        let last = stop.map_or(index, |stop| stop + 1);
        self.frames.truncate(last + 1);
        let alive = self.top_serial();
        self.unwindings.retain(|unwinding| unwinding.at < alive);
        match (stop, ending) {
            (Some(stop), _) => {
                let at = self.frames[stop].serial;
                self.unwindings.push(Unwinding { at, target, ending });
                // As if the protected block had answered nil.
                self.leave(stop + 1, Value::NIL)
            }
            (None, Ending::Answer(value)) => self.leave(index, value),
            (None, Ending::Restart(receiver)) => {
                self.restart(index, receiver);
                Ok(())
            }
        }
    }

    /// Values that interrupted unwindings carry.
    pub(super) fn unwinding_values(&self) -> impl Iterator<Item = Value> {
        self.unwindings.iter().filter_map(|unwinding| match unwinding.ending {
            Ending::Answer(value) => Some(value),
            Ending::Restart(receiver) => receiver,
        })
    }

    /// Whether a handler is anywhere; without one nothing can be caught.
    pub(super) fn has_handler(&self) -> bool {
        self.handler_after(None).is_some()
    }

    /// A new object that delegates to `parent` alone.
    pub(super) fn child(&mut self, parent: Value, data: &[(&str, Value)]) -> Result<Value> {
        let slots = std::iter::once(("parent", SlotType::Parent, parent))
            .chain(data.iter().map(|(name, value)| (*name, SlotType::Assignable, *value)))
            .map(|(name, kind, value)| Slot { name: self.heap.symbols.intern(name), kind, value })
            .collect();
        self.heap.create(slots, Body::Plain).map(Value::object)
    }

    /// Makes sure that an exception of this prototype can be signalled without another fault.
    pub(super) fn touch_exception(&mut self, prototype: ObjectId) -> Result<Handle> {
        let handle = self.heap.refer(prototype);
        let map = self.map_of(Value::object(handle))?;
        lookup(&mut self.heap, map, known::SIGNAL)?;
        Ok(handle)
    }

    /// The activations of the exception's own code are of no interest to whoever reads the stack.
    fn drop_signalling(&mut self, exception: Value) {
        while let Some(frame) = self.frames.last() {
            let receiver = self.me(frame);
            if !delegates(self, exception, receiver).unwrap_or(false) {
                break;
            }
            self.frames.pop();
        }
    }

    fn missing_of(&mut self, message: Value) -> Result<NotUnderstood> {
        let part = |m: &mut Self, name: &str| -> Result<Value> {
            let symbol = m.heap.symbols.intern(name);
            let slot = message.as_object().map(|handle| m.heap.slot(handle, symbol)).transpose()?;
            Ok(slot.flatten().map_or(Value::NIL, |slot| slot.value))
        };
        let (receiver, arguments) = (part(self, "receiver")?, part(self, "arguments")?);
        let selector = part(self, "selector")?;
        let selector = self.heap.text(selector)?.unwrap_or_default().to_owned();
        let arguments = match arguments.as_object().map(|handle| self.heap.get(handle)).transpose()? {
            Some(object) => match &object.body {
                Body::Array(elements) => elements.clone(),
                _ => Vec::new(),
            },
            None => Vec::new(),
        };
        Ok(self.missing(receiver, selector, &arguments))
    }
}
