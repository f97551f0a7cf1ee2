//! Syntax tree to bytecode.
//!
//! Variables live on the stack unless the method contains a real block, which may outlive it; then all of them live in
//! a context. Control structures on literal blocks are inlined, except a loop body that itself makes closures: each
//! round must have variables of its own.

use std::sync::Arc;

use batos_covenant::ErrorKind;

use super::{
    VmError,
    heap::Symbols,
    op::{Code, Op, SlotPlan},
    primitives,
    value::Value,
};
use crate::syntax::{self, Expr, ExprKind, Position, Receiver, SlotNodeKind, Statement, parse_method, print_slot};

/// A method that compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedMethod {
    pub selector: String,
    /// Canonical source.
    pub source: String,
}

/// Checks a method's source without running it.
pub fn check_method(source: &str) -> Result<CheckedMethod, VmError> {
    let slot = parse_method(source)?;
    let SlotNodeKind::Method(code) = &slot.kind else { return Err(too_large("method")) };
    // Source text that people and models write has no primitives: those belong to the image.
    compile(&slot.name, code, &mut Symbols::default(), false)?;
    Ok(CheckedMethod { selector: slot.name.clone(), source: print_slot(&slot) })
}

/// Compiles a method's body. Only the image may name primitives.
pub(super) fn compile(
    name: &str,
    code: &syntax::Code,
    symbols: &mut Symbols,
    primitives: bool,
) -> Result<Code, VmError> {
    let mut compiler = Compiler { symbols, scopes: Vec::new(), primitives };
    compiler.scope(name, code, false)
}

/// A method or a real block while it is compiled.
struct Scope {
    code: Code,
    /// Names of the variables; those of inlined blocks come and go.
    names: Vec<String>,
}

struct Compiler<'a> {
    symbols: &'a mut Symbols,
    scopes: Vec<Scope>,
    primitives: bool,
}

type Compiled = Result<(), VmError>;

fn too_large(what: &str) -> VmError {
    VmError::new(ErrorKind::SyntaxError, format!("{what} too large to compile"))
}

fn small<T: TryFrom<usize>>(n: usize) -> Result<T, VmError> {
    T::try_from(n).map_err(|_| too_large("method"))
}

impl Compiler<'_> {
    fn scope(&mut self, name: &str, code: &syntax::Code, is_block: bool) -> Result<Code, VmError> {
        let names = [code.arguments.as_slice(), &code.locals].concat();
        for (index, variable) in names.iter().enumerate() {
            if names.iter().take(index).any(|other| other == variable) {
                return Err(error(code.at, format!("{variable:?} is declared twice")));
            }
        }
        let compiled = Code {
            name: name.to_owned(),
            arguments: code.arguments.len(),
            variables: names.len(),
            captured: makes_closures(code),
            is_block,
            tree: is_block.then(|| Arc::new(code.clone())),
            ..Code::default()
        };
        self.scopes.push(Scope { code: compiled, names });
        self.body(code)?;
        // Methods and blocks answer their last statement, empty ones nil. After a block's `^` the end is reached too, when
        // the method has ended and a handler resumes.
        self.emit(code.at, Op::Return)?;
        self.scopes.pop().map(|scope| scope.code).ok_or_else(|| too_large("method"))
    }

    /// Statements; leaves the value of the last one (nil without any).
    fn body(&mut self, code: &syntax::Code) -> Compiled {
        if code.body.is_empty() {
            return self.constant(code.at, Value::NIL);
        }
        for (index, statement) in code.body.iter().enumerate() {
            if index > 0 {
                self.emit(code.at, Op::Pop)?;
            }
            match statement {
                Statement::Expr(expr) => self.expr(expr)?,
                Statement::Return(expr) => {
                    self.expr(expr)?;
                    let in_block = self.top()?.code.is_block;
                    self.emit(expr.at, if in_block { Op::NonLocalReturn } else { Op::Return })?;
                    if index + 1 < code.body.len() {
                        return Err(error(expr.at, "nothing after '^' is ever reached".to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Scope, VmError> {
        self.scopes.last_mut().ok_or_else(|| too_large("method"))
    }

    fn emit(&mut self, at: Position, op: Op) -> Result<(), VmError> {
        let code = &mut self.top()?.code;
        code.ops.push(op);
        code.lines.push(at.line);
        Ok(())
    }

    fn here(&mut self) -> Result<u32, VmError> {
        small(self.top()?.code.ops.len())
    }

    /// A jump whose target `land` fills in.
    fn jump(&mut self, at: Position, op: fn(u32) -> Op) -> Result<usize, VmError> {
        self.emit(at, op(u32::MAX))?;
        Ok(self.here()? as usize - 1)
    }

    fn land(&mut self, jump: usize, op: fn(u32) -> Op) -> Compiled {
        let here = self.here()?;
        if let Some(slot) = self.top()?.code.ops.get_mut(jump) {
            *slot = op(here);
        }
        Ok(())
    }

    fn constant(&mut self, at: Position, value: Value) -> Compiled {
        let constants = &mut self.top()?.code.constants;
        let index = constants.iter().position(|old| *old == value).unwrap_or_else(|| {
            constants.push(value);
            constants.len() - 1
        });
        self.emit(at, Op::Constant(small(index)?))
    }

    fn text(&mut self, at: Position, text: &str, op: fn(u16) -> Op) -> Compiled {
        let texts = &mut self.top()?.code.texts;
        texts.push(Arc::from(text));
        let index = small(texts.len() - 1)?;
        self.emit(at, op(index))
    }

    fn selector(&mut self, selector: &str) -> Result<u16, VmError> {
        let symbol = self.symbols.intern(selector);
        let selectors = &mut self.top()?.code.selectors;
        let index = selectors.iter().position(|old| *old == symbol).unwrap_or_else(|| {
            selectors.push(symbol);
            selectors.len() - 1
        });
        small(index)
    }

    /// Where a variable is: contexts outwards (only scopes that have one count) and index.
    fn variable(&self, name: &str) -> Result<Option<(bool, u8, u16)>, VmError> {
        let mut depth = 0_usize;
        for (out, scope) in self.scopes.iter().rev().enumerate() {
            if let Some(index) = scope.names.iter().rposition(|other| other == name) {
                let on_stack = out == 0 && !scope.code.captured;
                return Ok(Some((on_stack, small(depth)?, small(index)?)));
            }
            depth += usize::from(scope.code.captured);
        }
        Ok(None)
    }

    fn expr(&mut self, expr: &Expr) -> Compiled {
        let at = expr.at;
        match &expr.kind {
            ExprKind::Integer(digits) => match digits.parse().ok().and_then(Value::int) {
                Some(value) => self.constant(at, value),
                None => self.text(at, digits, Op::Big),
            },
            ExprKind::Float(value) => self.constant(at, Value::float(*value)),
            ExprKind::Str(text) => self.text(at, text, Op::Str),
            ExprKind::Symbol(text) => {
                let symbol = self.symbols.intern(text);
                self.constant(at, Value::symbol(symbol))
            }
            ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => {
                elements.iter().try_for_each(|element| self.expr(element))?;
                self.emit(at, Op::Array(small(elements.len())?))
            }
            ExprKind::SelfRef => self.emit(at, Op::Myself),
            ExprKind::Name(name) => self.name(at, name),
            ExprKind::Assign { name, value } => self.assign(at, name, value),
            ExprKind::Send { receiver, selector, arguments } => self.send(at, receiver, selector, arguments),
            ExprKind::Cascade { first, others } => {
                let ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } = &first.kind else {
                    return Err(error(at, "a cascade needs a receiver: write self".to_owned()));
                };
                self.expr(receiver)?;
                self.emit(at, Op::Dup)?;
                self.message(at, selector, arguments)?;
                for (index, part) in others.iter().enumerate() {
                    self.emit(part.at, Op::Pop)?;
                    if index + 1 < others.len() {
                        self.emit(part.at, Op::Dup)?;
                    }
                    self.message(part.at, &part.selector, &part.arguments)?;
                }
                Ok(())
            }
            ExprKind::Block(code) => {
                let name = format!("[] in {}", self.scopes.first().map_or("", |scope| scope.code.name.as_str()));
                let block = Arc::new(self.scope(&name, code, true)?);
                let blocks = &mut self.top()?.code.blocks;
                blocks.push(block);
                let index = small(blocks.len() - 1)?;
                self.emit(at, Op::Block(index))
            }
            ExprKind::Object(slots) => self.object(at, slots),
        }
    }

    fn name(&mut self, at: Position, name: &str) -> Compiled {
        match self.variable(name)? {
            Some((true, _, index)) => self.emit(at, Op::Local(index)),
            Some((false, depth, index)) => self.emit(at, Op::Captured { depth, index }),
            None => match name {
                "nil" => self.constant(at, Value::NIL),
                "true" => self.constant(at, Value::TRUE),
                "false" => self.constant(at, Value::FALSE),
                _ if name.starts_with('_') => {
                    self.emit(at, Op::Myself)?;
                    self.message(at, name, &[])
                }
                _ => {
                    self.emit(at, Op::Myself)?;
                    let selector = self.selector(name)?;
                    self.emit(at, Op::SelfSend { selector, arguments: 0 })
                }
            },
        }
    }

    fn assign(&mut self, at: Position, name: &str, value: &Expr) -> Compiled {
        match self.variable(name)? {
            Some((on_stack, depth, index)) => {
                self.expr(value)?;
                self.emit(at, if on_stack { Op::SetLocal(index) } else { Op::SetCaptured { depth, index } })
            }
            // A slot: `x := e` sends `x: e` to self and, unlike the send, answers e.
            None => {
                self.expr(value)?;
                self.emit(at, Op::Dup)?;
                self.emit(at, Op::Myself)?;
                self.emit(at, Op::Swap)?;
                let selector = self.selector(&format!("{name}:"))?;
                self.emit(at, Op::SelfSend { selector, arguments: 1 })?;
                self.emit(at, Op::Pop)
            }
        }
    }

    fn object(&mut self, at: Position, slots: &[syntax::SlotNode]) -> Compiled {
        let mut plans = Vec::new();
        for slot in slots {
            let name = self.symbols.intern(&slot.name);
            plans.push(match &slot.kind {
                SlotNodeKind::Constant(value) => {
                    self.expr(value)?;
                    SlotPlan::Constant(name)
                }
                SlotNodeKind::Assignable(value) => {
                    match value {
                        Some(value) => self.expr(value)?,
                        None => self.constant(at, Value::NIL)?,
                    }
                    SlotPlan::Assignable(name)
                }
                SlotNodeKind::Parent { value, .. } => {
                    self.expr(value)?;
                    SlotPlan::Parent(name)
                }
                SlotNodeKind::Method(_) => {
                    let source = print_slot(slot);
                    if !self.primitives {
                        check_method(&source)?;
                    }
                    SlotPlan::Method(name, Arc::from(source))
                }
            });
        }
        let objects = &mut self.top()?.code.objects;
        objects.push(plans);
        let index = small(objects.len() - 1)?;
        self.emit(at, Op::Object(index))
    }

    fn send(&mut self, at: Position, receiver: &Receiver, selector: &str, arguments: &[Expr]) -> Compiled {
        let count = small(arguments.len())?;
        match receiver {
            Receiver::Expr(receiver) => {
                if self.inlined(at, receiver, selector, arguments)? {
                    return Ok(());
                }
                self.expr(receiver)?;
                self.message(at, selector, arguments)
            }
            Receiver::ImplicitSelf if selector.starts_with('_') => {
                self.emit(at, Op::Myself)?;
                self.message(at, selector, arguments)
            }
            Receiver::ImplicitSelf | Receiver::Resend | Receiver::DirectedResend(_) => {
                self.emit(at, Op::Myself)?;
                arguments.iter().try_for_each(|argument| self.expr(argument))?;
                let index = self.selector(selector)?;
                let op = match receiver {
                    Receiver::Resend => Op::Resend { selector: index, arguments: count },
                    Receiver::DirectedResend(parent) => {
                        Op::Directed { selector: index, parent: self.selector(parent)?, arguments: count }
                    }
                    _ => Op::SelfSend { selector: index, arguments: count },
                };
                self.emit(at, op)
            }
        }
    }

    /// Arguments and the send itself; the receiver is on the stack.
    fn message(&mut self, at: Position, selector: &str, arguments: &[Expr]) -> Compiled {
        let count = small(arguments.len())?;
        arguments.iter().try_for_each(|argument| self.expr(argument))?;
        if !selector.starts_with('_') {
            let selector = self.selector(selector)?;
            return self.emit(at, Op::Send { selector, arguments: count });
        }
        match primitives::find(selector).filter(|_| self.primitives) {
            Some(primitive) => self.emit(at, Op::Primitive { primitive, arguments: count }),
            None => Err(error(at, format!("{selector:?}: primitives belong to the image"))),
        }
    }

    /// Control structures on literal blocks, without closures.
    fn inlined(&mut self, at: Position, receiver: &Expr, selector: &str, arguments: &[Expr]) -> Result<bool, VmError> {
        if !is_inlined(receiver, selector, arguments) {
            return Ok(false);
        }
        let block = |index: usize| match arguments.get(index).map(|argument| &argument.kind) {
            Some(ExprKind::Block(code)) => Ok(code),
            _ => Err(too_large("block")),
        };
        match selector {
            "ifTrue:" | "ifFalse:" | "ifTrue:ifFalse:" | "ifFalse:ifTrue:" | "and:" | "or:" => {
                let test: fn(u32) -> Op = match selector {
                    "ifTrue:" | "ifTrue:ifFalse:" | "and:" => Op::JumpIfFalse,
                    _ => Op::JumpIfTrue,
                };
                self.expr(receiver)?;
                let otherwise = self.jump(at, test)?;
                self.inline(block(0)?)?;
                let end = self.jump(at, Op::Jump)?;
                self.land(otherwise, test)?;
                match selector {
                    "and:" => self.constant(at, Value::FALSE)?,
                    "or:" => self.constant(at, Value::TRUE)?,
                    "ifTrue:" | "ifFalse:" => self.constant(at, Value::NIL)?,
                    _ => self.inline(block(1)?)?,
                }
                self.land(end, Op::Jump)?;
            }
            "ifNil:" => {
                self.expr(receiver)?;
                let end = self.jump(at, Op::JumpIfNotNil)?;
                self.emit(at, Op::Pop)?;
                self.inline(block(0)?)?;
                self.land(end, Op::JumpIfNotNil)?;
            }
            "whileTrue:" | "whileFalse:" | "whileTrue" => {
                let ExprKind::Block(condition) = &receiver.kind else { return Ok(false) };
                let leave: fn(u32) -> Op = if selector == "whileFalse:" { Op::JumpIfTrue } else { Op::JumpIfFalse };
                let start = self.here()?;
                self.inline(condition)?;
                let end = self.jump(at, leave)?;
                if selector != "whileTrue" {
                    self.inline(block(0)?)?;
                    self.emit(at, Op::Pop)?;
                }
                self.emit(at, Op::Loop(start))?;
                self.land(end, leave)?;
                self.constant(at, Value::NIL)?;
            }
            _ => self.counted(at, receiver, selector, arguments)?,
        }
        Ok(true)
    }

    /// `n timesRepeat: […]` and `a to: b do: [:i | …]`; both answer the receiver.
    fn counted(&mut self, at: Position, receiver: &Expr, selector: &str, arguments: &[Expr]) -> Compiled {
        let Some(ExprKind::Block(body)) = arguments.last().map(|argument| &argument.kind) else {
            return Err(too_large("block"));
        };
        let first = self.hidden()?;
        let (counter, last) = (self.hidden()?, self.hidden()?);
        self.expr(receiver)?;
        self.set(at, first)?;
        match selector {
            "timesRepeat:" => {
                self.set(at, last)?;
                self.emit(at, Op::Pop)?;
                self.constant(at, Value::int(1).unwrap_or(Value::NIL))?;
                self.set(at, counter)?;
                self.emit(at, Op::Pop)?;
            }
            _ => {
                self.set(at, counter)?;
                self.emit(at, Op::Pop)?;
                arguments.first().map_or(Ok(()), |limit| self.expr(limit))?;
                self.set(at, last)?;
                self.emit(at, Op::Pop)?;
            }
        }
        let start = self.here()?;
        self.get(at, counter)?;
        self.get(at, last)?;
        let at_most = self.selector("<=")?;
        self.emit(at, Op::Send { selector: at_most, arguments: 1 })?;
        let end = self.jump(at, Op::JumpIfFalse)?;
        if let Some(variable) = body.arguments.first() {
            let index = self.declare(variable.clone())?;
            self.get(at, counter)?;
            self.set(at, index)?;
            self.emit(at, Op::Pop)?;
        }
        self.inline(&syntax::Code { arguments: Vec::new(), ..body.clone() })?;
        if !body.arguments.is_empty() {
            self.undeclare(1)?;
        }
        self.emit(at, Op::Pop)?;
        self.get(at, counter)?;
        self.constant(at, Value::int(1).unwrap_or(Value::NIL))?;
        let plus = self.selector("+")?;
        self.emit(at, Op::Send { selector: plus, arguments: 1 })?;
        self.set(at, counter)?;
        self.emit(at, Op::Pop)?;
        self.emit(at, Op::Loop(start))?;
        self.land(end, Op::JumpIfFalse)?;
        self.get(at, first)?;
        self.undeclare(3)
    }

    /// The body of a literal block, in the scope around it.
    fn inline(&mut self, block: &syntax::Code) -> Compiled {
        for local in &block.locals {
            let index = self.declare(local.clone())?;
            self.constant(block.at, Value::NIL)?;
            self.set(block.at, index)?;
            self.emit(block.at, Op::Pop)?;
        }
        self.body(block)?;
        self.undeclare(block.locals.len())
    }

    fn hidden(&mut self) -> Result<u16, VmError> {
        self.declare(String::new())
    }

    fn declare(&mut self, name: String) -> Result<u16, VmError> {
        let scope = self.top()?;
        scope.names.push(name);
        scope.code.variables = scope.code.variables.max(scope.names.len());
        small(scope.names.len() - 1)
    }

    /// The newest names go out of scope; their places may be used again.
    fn undeclare(&mut self, count: usize) -> Compiled {
        let names = &mut self.top()?.names;
        names.truncate(names.len().saturating_sub(count));
        Ok(())
    }

    fn get(&mut self, at: Position, index: u16) -> Compiled {
        let captured = self.top()?.code.captured;
        self.emit(at, if captured { Op::Captured { depth: 0, index } } else { Op::Local(index) })
    }

    fn set(&mut self, at: Position, index: u16) -> Compiled {
        let captured = self.top()?.code.captured;
        self.emit(at, if captured { Op::SetCaptured { depth: 0, index } } else { Op::SetLocal(index) })
    }
}

fn error(at: Position, message: String) -> VmError {
    VmError::new(ErrorKind::SyntaxError, format!("line {}, column {}: {message}", at.line, at.column))
}

fn is_block(expr: &Expr, arguments: usize) -> bool {
    matches!(&expr.kind, ExprKind::Block(code) if code.arguments.len() == arguments)
}

/// Whether this send is a control structure that is compiled in place.
fn is_inlined(receiver: &Expr, selector: &str, arguments: &[Expr]) -> bool {
    let quiet = |expr: &Expr| matches!(&expr.kind, ExprKind::Block(code) if !makes_closures(code));
    match (selector, arguments) {
        ("ifTrue:" | "ifFalse:" | "and:" | "or:" | "ifNil:", [then]) => is_block(then, 0),
        ("ifTrue:ifFalse:" | "ifFalse:ifTrue:", [then, otherwise]) => is_block(then, 0) && is_block(otherwise, 0),
        ("whileTrue:" | "whileFalse:", [body]) => {
            is_block(receiver, 0) && is_block(body, 0) && quiet(receiver) && quiet(body)
        }
        ("whileTrue", []) => is_block(receiver, 0) && quiet(receiver),
        ("timesRepeat:", [body]) => is_block(body, 0) && quiet(body),
        ("to:do:", [_, body]) => is_block(body, 1) && quiet(body),
        _ => false,
    }
}

/// Whether code makes closures of its own: blocks that are not inlined.
fn makes_closures(code: &syntax::Code) -> bool {
    code.body.iter().any(|statement| match statement {
        Statement::Expr(expr) | Statement::Return(expr) => expr_makes_closures(expr),
    })
}

fn expr_makes_closures(expr: &Expr) -> bool {
    let inside = |expr: &Expr| match &expr.kind {
        ExprKind::Block(code) => makes_closures(code),
        _ => expr_makes_closures(expr),
    };
    match &expr.kind {
        ExprKind::Block(_) => true,
        ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => elements.iter().any(expr_makes_closures),
        ExprKind::Assign { value, .. } => expr_makes_closures(value),
        ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } => {
            match is_inlined(receiver, selector, arguments) {
                true => inside(receiver) || arguments.iter().any(inside),
                false => expr_makes_closures(receiver) || arguments.iter().any(expr_makes_closures),
            }
        }
        ExprKind::Send { arguments, .. } => arguments.iter().any(expr_makes_closures),
        ExprKind::Cascade { first, others } => {
            expr_makes_closures(first) || others.iter().flat_map(|part| &part.arguments).any(expr_makes_closures)
        }
        ExprKind::Object(slots) => slots.iter().any(|slot| match &slot.kind {
            SlotNodeKind::Constant(value) | SlotNodeKind::Parent { value, .. } => expr_makes_closures(value),
            SlotNodeKind::Assignable(value) => value.as_ref().is_some_and(expr_makes_closures),
            SlotNodeKind::Method(_) => false,
        }),
        _ => false,
    }
}
