//! Register code. Registers are a window of the value stack: 0 is self, then the arguments, the locals, temporaries.
//! A block's register behind its arguments holds the context around it.

use std::sync::Arc;

use super::value::{Symbol, Value};
use crate::syntax;

/// A register, relative to the activation's window.
pub(super) type Reg = u16;

/// No register.
pub(super) const NONE: Reg = Reg::MAX;

/// Set in an operand `b`: it is no register but the number of a constant.
pub(super) const CONSTANT: u16 = 0x8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Move {
        to: Reg,
        from: Reg,
    },
    Constant {
        to: Reg,
        index: u16,
    },
    /// A new string.
    Str {
        to: Reg,
        index: u16,
    },
    /// A large integer.
    Big {
        to: Reg,
        index: u16,
    },
    /// A new context of `count` variables inside the context in `outer`.
    Context {
        to: Reg,
        outer: Reg,
        count: u16,
    },
    /// The context around the one in `from`.
    Outer {
        to: Reg,
        from: Reg,
    },
    Captured {
        to: Reg,
        context: Reg,
        index: u16,
    },
    SetCaptured {
        context: Reg,
        index: u16,
        from: Reg,
    },
    /// A closure over the context in `context`.
    Block {
        to: Reg,
        index: u16,
        context: Reg,
    },
    /// An array of the registers from `first`.
    Array {
        to: Reg,
        first: Reg,
        count: u16,
    },
    /// Adds registers to the array.
    ArrayMore {
        array: Reg,
        first: Reg,
        count: u16,
    },
    /// An object literal; the data of its slots lie from `first`.
    Object {
        to: Reg,
        first: Reg,
        index: u16,
    },
    /// Sends to the receiver in `at`, with the arguments behind it.
    Send {
        to: Reg,
        at: Reg,
        site: u16,
    },
    /// Sends without arguments to the receiver in `of`.
    Get {
        to: Reg,
        of: Reg,
        site: u16,
    },
    /// Sends with one argument; for activations of few registers.
    Ask {
        to: u8,
        of: u8,
        with: u8,
        site: u16,
    },
    /// Sends with one argument; nobody asks for the answer.
    Tell {
        of: Reg,
        with: Reg,
        site: u16,
    },
    Primitive {
        to: Reg,
        at: Reg,
        site: u16,
    },
    /// Numbers in place; anything else is a send of the operator. `b` may be a constant: see `CONSTANT`.
    Add {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Subtract {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Multiply {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    /// `//` and `\\`.
    FloorDivide {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Modulo {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Divide {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Less {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    AtMost {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Greater {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    AtLeast {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Equal {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    NotEqual {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Identical {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    /// `not`
    Not {
        to: Reg,
        a: Reg,
    },
    /// A comparison whose next op is the conditional jump on its result.
    LessJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    AtMostJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    GreaterJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    AtLeastJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    EqualJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    IdenticalJump {
        to: Reg,
        a: Reg,
        b: Reg,
    },
    Jump {
        target: u32,
    },
    /// A jump backwards; costs fuel.
    Loop {
        target: u32,
    },
    JumpIfFalse {
        from: Reg,
        target: u32,
    },
    JumpIfTrue {
        from: Reg,
        target: u32,
    },
    JumpIfNil {
        from: Reg,
        target: u32,
    },
    JumpIfNotNil {
        from: Reg,
        target: u32,
    },
    /// Counts `at` up to `at + 1` by `at + 2`, copies it to `at + 3` and jumps to the loop's body; with the limit passed
    /// goes on behind it; skips one op when the three are not all small integers.
    Count {
        at: Reg,
        body: u32,
    },
    /// Answers from this activation.
    Return {
        from: Reg,
    },
    /// Answers from the method in which this block was written.
    NonLocalReturn {
        from: Reg,
    },
}

/// How a message finds its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Normal,
    /// To self without a receiver: a unary one may be the name of an object.
    Implicit,
    /// Lookup starts in the parents of the running method's holder.
    Resend,
    /// As `Resend`, in one parent slot alone.
    Directed(Symbol),
}

/// A place in the code that sends, or that calls a primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub selector: Symbol,
    pub arguments: u8,
    pub route: Route,
    /// Number of the primitive.
    pub primitive: u16,
}

/// A data slot of an object literal, or a method.
#[derive(Debug, Clone)]
pub(super) enum SlotPlan {
    Constant(Symbol),
    Assignable(Symbol),
    Parent(Symbol),
    Method(Symbol, Arc<str>),
}

/// What a method is that does nothing but one thing: it needs no activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shortcut {
    #[default]
    None,
    /// Calls a primitive on self and its arguments.
    Primitive(u16),
    /// Answers the constant with this number.
    Constant(u16),
}

/// A compiled method or block. Shared between turns: it holds no object.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// For stack traces.
    pub name: String,
    pub arguments: usize,
    /// Size of the window.
    pub registers: usize,
    pub is_block: bool,
    /// The image wrote it.
    pub is_kernel: bool,
    /// Of a block: names of the variables in the contexts around, the innermost context first.
    pub environment: Vec<Vec<String>>,
    pub shortcut: Shortcut,
    pub ops: Vec<Op>,
    /// Source line of each op.
    pub lines: Vec<u32>,
    pub constants: Vec<Value>,
    pub texts: Vec<Arc<str>>,
    pub sites: Vec<Site>,
    pub blocks: Vec<Arc<Code>>,
    pub objects: Vec<Vec<SlotPlan>>,
    /// A block's source tree, for `setSlot:value:`.
    pub tree: Option<Arc<syntax::Code>>,
}

impl Op {
    /// The register that gets the answer, if the op has one.
    pub fn answer(self) -> Option<Reg> {
        use Op::*;
        match self {
            Move { to, .. }
            | Constant { to, .. }
            | Str { to, .. }
            | Big { to, .. }
            | Context { to, .. }
            | Outer { to, .. }
            | Captured { to, .. }
            | Block { to, .. }
            | Array { to, .. }
            | Object { to, .. }
            | Send { to, .. }
            | Get { to, .. }
            | Primitive { to, .. }
            | Add { to, .. }
            | Subtract { to, .. }
            | Multiply { to, .. }
            | FloorDivide { to, .. }
            | Modulo { to, .. }
            | Divide { to, .. }
            | Less { to, .. }
            | AtMost { to, .. }
            | Greater { to, .. }
            | AtLeast { to, .. }
            | Equal { to, .. }
            | NotEqual { to, .. }
            | Identical { to, .. }
            | Not { to, .. }
            | LessJump { to, .. }
            | AtMostJump { to, .. }
            | GreaterJump { to, .. }
            | AtLeastJump { to, .. }
            | EqualJump { to, .. }
            | IdenticalJump { to, .. } => Some(to),
            Ask { to, .. } => Some(Reg::from(to)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_op_fits_eight_bytes() {
        assert_eq!(size_of::<super::Op>(), 8);
    }
}
