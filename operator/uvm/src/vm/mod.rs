//! The virtual machine. A turn runs without I/O: it asks for the objects it lacks and tells its effects at the end.

mod compile;
mod error;
mod exceptions;
mod heap;
mod interp;
mod lookup;
mod op;
mod primitives;
mod turn;
mod value;

pub use compile::{CheckedMethod, check_method};
pub use error::VmError;
pub use turn::{Call, Effects, Exit, Limits, NotUnderstood, Reads, Turn, Write};
