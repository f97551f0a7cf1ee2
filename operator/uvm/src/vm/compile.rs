//! Syntax tree to register code.
//!
//! Variables live in registers, unless a closure captures them: then they live in a context that their scope makes, anew
//! in every round of a loop. Control structures on literal blocks are compiled in place.

use std::sync::Arc;

use batos_covenant::ErrorKind;
use batos_graph::Block;

use super::{
    VmError,
    capture::captured,
    op::{CONSTANT, Code, NONE, Op, Reg, Route, Shortcut, Site},
    symbols::Symbols,
    value::{Symbol, Value},
};
use crate::syntax::{
    self, Expr, ExprKind, Position, SlotNodeKind, Statement, parse_expression, parse_method, print_slot,
};

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
    compile(&slot.name, code, &Symbols::current(), false)?;
    Ok(CheckedMethod { selector: slot.name.clone(), source: print_slot(&slot) })
}

/// Primitives are named with an underscore and a capital, `_Clone`; `_pin` is a private slot.
pub(super) fn is_primitive(selector: &str) -> bool {
    let mut letters = selector.chars();
    letters.next() == Some('_') && letters.next().is_some_and(char::is_uppercase)
}

/// Compiles a method's body. Only the image may name primitives.
pub(super) fn compile(name: &str, code: &syntax::Code, symbols: &Symbols, primitives: bool) -> Result<Code, VmError> {
    let mut compiler = Compiler { symbols, scopes: Vec::new(), contexts: Vec::new(), primitives };
    compiler.scope(name, code, false)
}

/// Compiles a closure that was stored, by its source and the names in the contexts around it.
pub(super) fn compile_block(block: &Block, symbols: &Symbols) -> Result<Code, VmError> {
    let parsed = parse_expression(&block.source)?;
    let [Statement::Expr(Expr { kind: ExprKind::Block(code), .. })] = parsed.body.as_slice() else {
        return Err(too_large("block"));
    };
    let mut compiler = Compiler { symbols, scopes: Vec::new(), contexts: Vec::new(), primitives: block.is_kernel };
    let mut around = Scope { code: Code::default(), variables: Vec::new(), next: 0, outer_contexts: 0 };
    for (context, names) in block.environment.iter().rev().enumerate() {
        for (index, name) in names.iter().enumerate() {
            let place = Place::Context { context, index: small(index)? };
            around.variables.push(Variable { name: name.clone(), place });
        }
        compiler.contexts.push(Context { scope: 0, register: 0, names: names.clone() });
    }
    compiler.scopes.push(around);
    compiler.scope("[]", code, true)
}

/// Registers of one activation.
const MAX_REGISTERS: usize = 512;

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Register(Reg),
    /// In the context with this number.
    Context {
        context: usize,
        index: u16,
    },
}

struct Variable {
    name: String,
    place: Place,
}

/// A method or a closure's block while it is compiled.
pub(super) struct Scope {
    pub code: Code,
    /// Those of inlined blocks come and go.
    variables: Vec<Variable>,
    pub next: usize,
    /// Contexts of the scopes around: what the block was closed over.
    outer_contexts: usize,
}

/// A context that some scope has made.
struct Context {
    scope: usize,
    register: Reg,
    names: Vec<String>,
}

pub(super) struct Compiler<'a> {
    pub symbols: &'a Symbols,
    pub scopes: Vec<Scope>,
    contexts: Vec<Context>,
    pub primitives: bool,
}

pub(super) type Compiled<T = ()> = Result<T, VmError>;

pub(super) fn too_large(what: &str) -> VmError {
    VmError::new(ErrorKind::SyntaxError, format!("{what} too large to compile"))
}

pub(super) fn small<T: TryFrom<usize>>(n: usize) -> Compiled<T> {
    T::try_from(n).map_err(|_| too_large("method"))
}

pub(super) fn error(at: Position, message: String) -> VmError {
    VmError::new(ErrorKind::SyntaxError, format!("line {}, column {}: {message}", at.line, at.column))
}

impl Compiler<'_> {
    pub(super) fn scope(&mut self, name: &str, code: &syntax::Code, is_block: bool) -> Compiled<Code> {
        let compiled = Code {
            name: name.to_owned(),
            arguments: code.arguments.len(),
            is_block,
            is_kernel: self.primitives,
            environment: self.contexts.iter().rev().map(|context| context.names.clone()).collect(),
            tree: is_block.then(|| Arc::new(code.clone())),
            ..Code::default()
        };
        let scope = Scope { code: compiled, variables: Vec::new(), next: 1, outer_contexts: self.contexts.len() };
        self.scopes.push(scope);
        for _ in 0..code.arguments.len() + usize::from(is_block) {
            self.temporary()?;
        }
        let answer = self.temporary()?;
        self.in_scope(code, 1, false, |compiler| compiler.body(code, Some(answer)))?;
        // Methods and blocks answer their last statement, empty ones nil. After a block's `^` the end is reached too,
        // when the method has ended and a handler resumes.
        self.emit(code.at, Op::Return { from: answer })?;
        let outer = self.top()?.outer_contexts;
        self.contexts.truncate(outer);
        let mut code = self.scopes.pop().map(|scope| scope.code).ok_or_else(|| too_large("method"))?;
        code.shortcut = shortcut(&code);
        Ok(code)
    }

    /// Declares the variables of a method or block around `compile`; its arguments lie from register `first`.
    pub(super) fn in_scope(
        &mut self,
        code: &syntax::Code,
        first: Reg,
        is_inlined: bool,
        compile: impl FnOnce(&mut Self) -> Compiled,
    ) -> Compiled {
        let names = [code.arguments.as_slice(), &code.locals].concat();
        for (index, variable) in names.iter().enumerate() {
            if names.iter().take(index).any(|other| other == variable) {
                return Err(error(code.at, format!("{variable:?} is declared twice")));
            }
        }
        let captured = captured(code);
        let in_context: Vec<&String> = names.iter().filter(|name| captured.contains(name.as_str())).collect();
        let (scope, next) = (self.scopes.len() - 1, self.top()?.next);
        let (variables, contexts) = (self.top()?.variables.len(), self.contexts.len());
        if !in_context.is_empty() {
            let register = self.temporary()?;
            let outer = self.innermost_context()?.unwrap_or(NONE);
            self.emit(code.at, Op::Context { to: register, outer, count: small(in_context.len())? })?;
            let names = in_context.iter().map(|name| (*name).clone()).collect();
            self.contexts.push(Context { scope, register, names });
        }
        let mut index = 0;
        for (number, name) in names.iter().enumerate() {
            let argument = (number < code.arguments.len()).then_some(first + small::<u16>(number)?);
            let place = match (captured.contains(name.as_str()), argument) {
                (true, argument) => {
                    let context = self.contexts.last().map_or(NONE, |context| context.register);
                    if let Some(from) = argument {
                        self.emit(code.at, Op::SetCaptured { context, index, from })?;
                    }
                    index += 1;
                    Place::Context { context: self.contexts.len() - 1, index: index - 1 }
                }
                (false, Some(register)) => Place::Register(register),
                (false, None) => {
                    let register = self.temporary()?;
                    // Activations begin with nil everywhere, but loops come back here.
                    if is_inlined {
                        self.constant(code.at, Value::NIL, register)?;
                    }
                    Place::Register(register)
                }
            };
            self.top()?.variables.push(Variable { name: name.clone(), place });
        }
        compile(self)?;
        self.contexts.truncate(contexts);
        let top = self.top()?;
        top.variables.truncate(variables);
        top.next = next;
        Ok(())
    }

    /// Statements; the value of the last one, nil without any, goes to `to`.
    pub(super) fn body(&mut self, code: &syntax::Code, to: Option<Reg>) -> Compiled {
        if code.body.is_empty()
            && let Some(to) = to
        {
            return self.constant(code.at, Value::NIL, to);
        }
        for (index, statement) in code.body.iter().enumerate() {
            let is_last = index + 1 == code.body.len();
            match (statement, to) {
                (Statement::Expr(expr), Some(to)) if is_last => self.into(expr, to)?,
                (Statement::Expr(expr), _) => self.effect(expr)?,
                (Statement::Return(expr), _) => {
                    let next = self.top()?.next;
                    let from = self.operand(expr)?;
                    self.top()?.next = next;
                    let in_block = self.top()?.code.is_block;
                    self.emit(expr.at, if in_block { Op::NonLocalReturn { from } } else { Op::Return { from } })?;
                    if !is_last {
                        return Err(error(expr.at, "nothing after '^' is ever reached".to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn top(&mut self) -> Compiled<&mut Scope> {
        self.scopes.last_mut().ok_or_else(|| too_large("method"))
    }

    pub(super) fn temporary(&mut self) -> Compiled<Reg> {
        let scope = self.top()?;
        scope.next += 1;
        scope.code.registers = scope.code.registers.max(scope.next);
        match scope.next <= MAX_REGISTERS {
            true => small(scope.next - 1),
            false => Err(too_large("method with so many variables and operands")),
        }
    }

    /// Gives back the temporaries that `compile` takes.
    pub(super) fn with_temporaries(&mut self, compile: impl FnOnce(&mut Self) -> Compiled) -> Compiled {
        let next = self.top()?.next;
        compile(self)?;
        self.top()?.next = next;
        Ok(())
    }

    pub(super) fn emit(&mut self, at: Position, op: Op) -> Compiled {
        let code = &mut self.top()?.code;
        code.ops.push(op);
        code.lines.push(at.line);
        Ok(())
    }

    pub(super) fn here(&mut self) -> Compiled<u32> {
        small(self.top()?.code.ops.len())
    }

    /// A jump whose target `land` fills in.
    pub(super) fn jump(&mut self, at: Position, op: Op) -> Compiled<usize> {
        self.emit(at, op)?;
        Ok(self.here()? as usize - 1)
    }

    pub(super) fn land(&mut self, jump: usize) -> Compiled {
        let here = self.here()?;
        if let Some(
            Op::Jump { target }
            | Op::JumpIfFalse { target, .. }
            | Op::JumpIfTrue { target, .. }
            | Op::JumpIfNil { target, .. }
            | Op::JumpIfNotNil { target, .. }
            | Op::Count { body: target, .. },
        ) = self.top()?.code.ops.get_mut(jump)
        {
            *target = here;
        }
        Ok(())
    }

    pub(super) fn constant_index(&mut self, value: Value) -> Compiled<u16> {
        let constants = &mut self.top()?.code.constants;
        let index = constants.iter().position(|old| *old == value).unwrap_or_else(|| {
            constants.push(value);
            constants.len() - 1
        });
        small::<u16>(index).and_then(|index| if index & CONSTANT == 0 { Ok(index) } else { Err(too_large("method")) })
    }

    pub(super) fn constant(&mut self, at: Position, value: Value, to: Reg) -> Compiled {
        let index = self.constant_index(value)?;
        self.emit(at, Op::Constant { to, index })
    }

    pub(super) fn text(&mut self, text: &str) -> Compiled<u16> {
        let texts = &mut self.top()?.code.texts;
        texts.push(Arc::from(text));
        small(texts.len() - 1)
    }

    pub(super) fn site(&mut self, selector: Symbol, arguments: usize, route: Route, primitive: u16) -> Compiled<u16> {
        let site = Site { selector, arguments: small(arguments)?, route, primitive };
        let sites = &mut self.top()?.code.sites;
        sites.push(site);
        small(sites.len() - 1)
    }

    /// The register of the innermost context, where code can see it.
    pub(super) fn innermost_context(&mut self) -> Compiled<Option<Reg>> {
        let scope = self.scopes.len() - 1;
        match self.contexts.last() {
            Some(context) if context.scope == scope => Ok(Some(context.register)),
            Some(_) => self.environment().map(Some),
            None => Ok(None),
        }
    }

    /// The register of the context that the running block was closed over.
    pub(super) fn environment(&mut self) -> Compiled<Reg> {
        let arguments = self.top()?.code.arguments;
        small(arguments + 1)
    }

    pub(super) fn variable(&self, name: &str) -> Option<(usize, Place)> {
        self.scopes.iter().enumerate().rev().find_map(|(number, scope)| {
            let variable = scope.variables.iter().rfind(|variable| variable.name == name)?;
            Some((number, variable.place))
        })
    }

    /// A register with the context number `context`.
    pub(super) fn context(&mut self, at: Position, context: usize) -> Compiled<Reg> {
        let scope = self.scopes.len() - 1;
        match self.contexts.get(context) {
            Some(known) if known.scope == scope => return Ok(known.register),
            _ => {}
        }
        let mut from = self.environment()?;
        let hops = (self.top()?.outer_contexts - 1).saturating_sub(context);
        if hops > 0 {
            let to = self.temporary()?;
            for _ in 0..hops {
                self.emit(at, Op::Outer { to, from })?;
                from = to;
            }
        }
        Ok(from)
    }

    pub(super) fn set(&mut self, at: Position, place: Place, from: Reg) -> Compiled {
        match place {
            Place::Register(to) if to == from => Ok(()),
            Place::Register(to) => self.emit(at, Op::Move { to, from }),
            Place::Context { context, index } => self.with_temporaries(|compiler| {
                let context = compiler.context(at, context)?;
                compiler.emit(at, Op::SetCaptured { context, index, from })
            }),
        }
    }
}

/// What a method is that only passes self and its arguments on to a primitive.
fn shortcut(code: &Code) -> Shortcut {
    if let [Op::Constant { to, index }, Op::Return { from }] = code.ops.as_slice()
        && to == from
        && !code.is_block
    {
        return Shortcut::Constant(*index);
    }
    let [moves @ .., Op::Primitive { at, site, .. }, Op::Return { .. }] = code.ops.as_slice() else {
        return Shortcut::None;
    };
    let passes = moves.len() == code.arguments + 1
        && moves.iter().zip(0..).all(|(op, place)| *op == Op::Move { to: at + place, from: place });
    match code.sites.get(usize::from(*site)) {
        Some(site) if passes && usize::from(site.arguments) == code.arguments && !code.is_block => {
            Shortcut::Primitive(site.primitive)
        }
        _ => Shortcut::None,
    }
}
