//! Source text to syntax tree and back. `grammar.ebnf` beside the manifest is the definition.

mod ast;
pub mod grammar;
mod lexer;
mod own;
mod parser;
mod printer;
mod sends;
mod slots;

pub use ast::*;
pub use own::Own;
pub use parser::{SyntaxError, parse_expression, parse_method, parse_slots};
pub use printer::{print_code, print_expression, print_slot};
pub use sends::{sends, sent_by};
