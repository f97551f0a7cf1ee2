//! Activations: of methods, of blocks, and what runs in their place: primitives and object literals.
// Indexing: windows on the value stack are made here, by the sizes that the code states.
#![allow(clippy::indexing_slicing)]

use std::sync::Arc;

use super::{
    error::{Stop, failed, limit, raise},
    exceptions::Mark,
    heap::{Body, ObjectShape, Slot, SlotType},
    machine::{Checkpoint, Frame, Machine},
    op::{Code, Reg, Route, SlotPlan},
    primitives::{self, Flow},
    send::broken,
    symbols::known,
    value::{Handle, Value},
};
use crate::image;

/// Arguments that a primitive gets without a vector of its own.
const FEW: usize = 6;

impl Machine {
    /// From here on the running op may have to start again.
    pub(super) fn check(&mut self) {
        self.checkpoint = Checkpoint { fuel: self.fuel, heap: self.heap.spent(), serial: self.serial };
    }

    /// Window of the running activation: where it begins, and the first place above it.
    pub(super) fn window(&self) -> (usize, usize) {
        self.frames.last().map_or((0, 0), |frame| {
            let base = frame.base as usize;
            (base, base + self.code_of(frame).map_or(0, |code| code.registers))
        })
    }

    pub(super) fn reserve(&mut self, end: usize) {
        if end > self.stack.len() {
            self.stack.resize(end * 2, Value::NIL);
        }
    }

    /// Places receiver and arguments above the running activation's window.
    pub(super) fn place_above(&mut self, receiver: Value, arguments: &[Value]) -> usize {
        let (_, at) = self.window();
        self.reserve(at + 2 + arguments.len());
        self.stack[at] = receiver;
        self.stack[at + 1..at + 1 + arguments.len()].copy_from_slice(arguments);
        at
    }

    pub(super) fn finish(&mut self, to: usize, value: Value) -> Result<(), Stop> {
        self.stack[to] = value;
        if let Some(frame) = self.frames.last_mut() {
            frame.ip = frame.ip.wrapping_add(1);
        }
        Ok(())
    }

    /// Ends the activation `index` and all above it with `value`.
    pub(super) fn leave(&mut self, index: usize, value: Value) -> Result<(), Stop> {
        let to = self.frames[index].to as usize;
        self.frames.truncate(index);
        self.finish(to, value)
    }

    /// Starts an activation whose receiver and arguments lie at `at`.
    pub(super) fn activate(
        &mut self,
        code: u32,
        at: usize,
        to: usize,
        holder: Option<Handle>,
        home: Option<u64>,
    ) -> Result<(), Stop> {
        if self.frames.len() >= self.max_depth {
            return limit(format!("more than {} nested activations", self.max_depth - 1));
        }
        let callee = &self.codes[code as usize].code;
        let (first, end) = (at + callee.arguments + 1, at + callee.registers + 1);
        self.reserve(end);
        self.stack[first..end].fill(Value::NIL);
        self.serial += 1;
        let (serial, home) = (self.serial, home.unwrap_or(self.serial));
        self.frames.push(Frame { code, ip: 0, base: at as u32, to: to as u32, holder, serial, home, mark: Mark::None });
        Ok(())
    }

    /// Calls the block at `at` with the arguments behind it.
    pub(super) fn call_block(&mut self, at: usize, count: usize, to: usize) -> Result<(), Stop> {
        let block = self.stack[at];
        let handle = block.as_object();
        let body = handle.map(|handle| self.heap.get(handle)).transpose()?.map(|object| &object.body);
        let (Some(Body::Block { code, home }), Some(handle)) = (body, handle) else {
            return failed(format!("{} is no block", self.describe(block)));
        };
        let (code, home) = (*code, *home);
        let wanted = self.codes[code as usize].code.arguments;
        if wanted != count {
            return raise(image::ARGUMENTS_COUNT, format!("the block takes {wanted} arguments, not {count}"));
        }
        let [me, context, holder] = [0, 1, 2].map(|word| self.heap.word(handle, word));
        self.activate(code, at, to, holder.as_object(), Some(home))?;
        self.stack[at] = me;
        self.stack[at + count + 1] = context;
        Ok(())
    }

    pub(super) fn link_block(&mut self, index: usize) -> Result<(), Stop> {
        let Some(frame) = self.frames.last() else { return broken() };
        let owner = frame.code as usize;
        let number = self.link(self.codes[owner].code.blocks[index].clone());
        self.codes[owner].blocks[index] = Some(number);
        Ok(())
    }

    pub(super) fn primitive_at(&mut self, to: Reg, at: Reg, site: u16) -> Result<(), Stop> {
        self.check();
        let (base, _) = self.window();
        let Some(code) = self.frames.last().and_then(|frame| self.code_of(frame)) else { return broken() };
        let site = code.sites[site as usize];
        self.primitive(site.primitive, base + at as usize, site.arguments as usize, base + to as usize)
    }

    pub(super) fn primitive(&mut self, number: u16, at: usize, count: usize, to: usize) -> Result<(), Stop> {
        let me = self.stack[at];
        let operands = &self.stack[at + 1..at + 1 + count];
        let flow = if count <= FEW {
            let mut few = [Value::NIL; FEW];
            few[..count].copy_from_slice(operands);
            primitives::run(self, number, me, &few[..count])?
        } else {
            let many = operands.to_vec();
            primitives::run(self, number, me, &many)?
        };
        match flow {
            Flow::Value(value) => self.finish(to, value),
            Flow::Block { arguments } => {
                self.burn()?;
                let at = self.place_above(me, &arguments);
                self.call_block(at, arguments.len(), to)
            }
            Flow::Send { selector, arguments } => {
                let at = self.place_above(me, &arguments);
                self.send(at, arguments.len(), selector, Route::Normal, to, None)
            }
            Flow::Unwind { target, ending } => self.unwind(target, ending),
        }
    }

    pub(super) fn make_object(&mut self, to: Reg, first: Reg, index: usize) -> Result<(), Stop> {
        self.check();
        let (base, _) = self.window();
        let Some(frame) = self.frames.last() else { return broken() };
        let owner = frame.code as usize;
        let (code, kept) = (self.codes[owner].code.clone(), self.codes[owner].objects[index].clone());
        let plans = &code.objects[index];
        let count = plans.iter().filter(|plan| !matches!(plan, SlotPlan::Method(..))).count();
        let values = base + first as usize..base + first as usize + count;
        if let Some(shape) = &kept
            && shape.epoch == self.heap.epoch
            && parents(plans, &self.stack[values.clone()]).eq(shape.parents.iter().copied())
        {
            let data = data(plans, &self.stack[values]);
            let object = self.heap.allocate(shape.map, Body::Plain, &data)?;
            return self.finish(base + to as usize, Value::object(object));
        }
        let values = self.stack[values].to_vec();
        let parents: Vec<Value> = parents(plans, &values).collect();
        if let Some(value) = parents.iter().find(|parent| parent.as_object().is_none()) {
            return failed(format!("{} cannot be a parent", self.describe(*value)));
        }
        let mut slots = Vec::with_capacity(plans.len() + 1);
        if parents.is_empty() {
            // Every object is an object: without a parent of its own it delegates to the root traits.
            let value = Value::object(self.heap.refer(image::ROOT_TRAITS));
            slots.push(Slot { name: known::PARENT, kind: SlotType::Parent, value });
        }
        let methods = match kept {
            Some(kept) => kept.methods.clone(),
            None => {
                let sources = plans.iter().filter_map(|plan| match plan {
                    SlotPlan::Method(name, source) => Some((*name, source.clone())),
                    _ => None,
                });
                sources.map(|(name, source)| self.heap.make_method(name, source)).collect::<Result<_, _>>()?
            }
        };
        let (mut next_method, mut next_value) = (methods.iter().copied(), values.iter().copied());
        for plan in plans {
            let (name, kind, value) = match plan {
                SlotPlan::Method(name, _) => (*name, SlotType::Method, next_method.next()),
                SlotPlan::Constant(name) => (*name, SlotType::Constant, next_value.next()),
                SlotPlan::Assignable(name) => (*name, SlotType::Assignable, next_value.next()),
                SlotPlan::Parent(name) => (*name, SlotType::Parent, next_value.next()),
            };
            slots.push(Slot { name, kind, value: value.unwrap_or(Value::NIL) });
        }
        let (map, data) = self.heap.shape(&slots, &Body::Plain);
        self.codes[owner].objects[index] =
            Some(Arc::new(ObjectShape { epoch: self.heap.epoch, parents, methods, map }));
        let object = self.heap.allocate(map, Body::Plain, &data)?;
        self.finish(base + to as usize, Value::object(object))
    }

    /// Starts an activation anew.
    pub(super) fn restart(&mut self, index: usize, receiver: Option<Value>) {
        let frame = &mut self.frames[index];
        (frame.ip, frame.mark) = (0, Mark::None);
        if let Some(receiver) = receiver {
            self.stack[frame.base as usize] = receiver;
        }
    }

    /// The code of a block in the source tree it was made from, for those who make a method of it.
    pub fn block_tree(&self, value: Value) -> Option<Arc<crate::syntax::Code>> {
        self.block_code(value).map(Arc::as_ref).and_then(|code: &Code| code.tree.clone())
    }
}

fn parents<'a>(plans: &'a [SlotPlan], values: &'a [Value]) -> impl Iterator<Item = Value> + 'a {
    of_plans(plans, values).filter(|(plan, _)| matches!(plan, SlotPlan::Parent(_))).map(|(_, value)| value)
}

fn data(plans: &[SlotPlan], values: &[Value]) -> Vec<Value> {
    of_plans(plans, values).filter(|(plan, _)| !matches!(plan, SlotPlan::Parent(_))).map(|(_, value)| value).collect()
}

fn of_plans<'a>(plans: &'a [SlotPlan], values: &'a [Value]) -> impl Iterator<Item = (&'a SlotPlan, Value)> {
    plans.iter().filter(|plan| !matches!(plan, SlotPlan::Method(..))).zip(values.iter().copied())
}
