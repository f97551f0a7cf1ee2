//! Bytecode of the stack machine. In the stack effects, the top is on the right.

use std::sync::Arc;

use super::value::Symbol;
use crate::syntax;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// `→ constant`
    Constant(u16),
    /// `→ a new string`
    Str(u16),
    /// `→ a large integer`
    Big(u16),
    /// `→ self`
    Myself,
    /// `→ local`, on the stack
    Local(u16),
    /// `v → v`
    SetLocal(u16),
    /// `→ captured variable`, `depth` contexts out
    Captured {
        depth: u8,
        index: u16,
    },
    /// `v → v`
    SetCaptured {
        depth: u8,
        index: u16,
    },
    /// `v →`
    Pop,
    /// `v → v v`
    Dup,
    /// `a b → b a`
    Swap,
    /// `→ closure`
    Block(u16),
    /// `e1 … en → array`
    Array(u16),
    /// `data of the slots … → object`
    Object(u16),
    /// `receiver a1 … an → answer`
    Send {
        selector: u16,
        arguments: u8,
    },
    /// As `Send` to self; a unary selector that is not understood may be the name of an object.
    SelfSend {
        selector: u16,
        arguments: u8,
    },
    /// `self a1 … an → answer`; lookup starts in the parents of the method's holder
    Resend {
        selector: u16,
        arguments: u8,
    },
    /// As `Resend`, in the parent slot `parent` alone
    Directed {
        selector: u16,
        parent: u16,
        arguments: u8,
    },
    /// `receiver a1 … an → answer`
    Primitive {
        primitive: u16,
        arguments: u8,
    },
    /// Answers the top from this activation.
    Return,
    /// Answers the top from the method in which this block was written.
    NonLocalReturn,
    Jump(u32),
    /// A jump backwards; costs fuel.
    Loop(u32),
    /// `b →`; jumps when it is false
    JumpIfFalse(u32),
    /// `b →`; jumps when it is true
    JumpIfTrue(u32),
    /// `v → v`; jumps when it is not nil
    JumpIfNotNil(u32),
}

/// A data slot of an object literal, or a method.
#[derive(Debug, Clone)]
pub(super) enum SlotPlan {
    Constant(Symbol),
    Assignable(Symbol),
    Parent(Symbol),
    Method(Symbol, Arc<str>),
}

/// A compiled method or block.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// For stack traces.
    pub name: String,
    pub arguments: usize,
    /// Arguments and locals, all on the stack or all in a context.
    pub variables: usize,
    /// Some real block may capture the variables: they live in a context on the heap.
    pub captured: bool,
    pub is_block: bool,
    pub ops: Vec<Op>,
    /// Source line of each op.
    pub lines: Vec<u32>,
    pub constants: Vec<super::value::Value>,
    pub texts: Vec<Arc<str>>,
    pub selectors: Vec<Symbol>,
    pub blocks: Vec<Arc<Code>>,
    pub objects: Vec<Vec<SlotPlan>>,
    /// A block's source tree, for `setSlot:value:`.
    pub tree: Option<Arc<syntax::Code>>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_op_fits_eight_bytes() {
        assert!(size_of::<super::Op>() <= 8);
    }
}
