//! The virtual machine. A turn runs without I/O: it asks for the objects it lacks and tells its effects at the end.

mod activation;
mod big;
mod capture;
mod collect;
mod compile;
mod error;
mod exceptions;
mod expressions;
mod heap;
mod inline;
mod interp;
mod load;
mod lookup;
mod machine;
mod map;
mod op;
mod plant;
mod post;
mod primitives;
mod send;
mod slots;
mod symbols;
mod table;
mod tree;
mod turn;
mod value;

pub use compile::{CheckedMethod, check_method};
pub use error::{Fault, VmError};
pub use post::{Post, TimerId};
pub use slots::{arity, header};
pub use turn::{Call, Effects, Exit, Limits, Needs, NotUnderstood, Question, Reads, Turn, Write};
