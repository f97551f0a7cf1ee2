//! Syntax tree to register code.
//!
//! Variables live in registers, unless a closure captures them: then they live in a context that their scope makes, anew
//! in every round of a loop. Control structures on literal blocks are compiled in place.

use std::sync::Arc;

use batos_covenant::ErrorKind;
use batos_graph::Block;

use super::{
    VmError,
    capture::{assigns, captured, is_inlined},
    op::{CONSTANT, Code, NONE, Op, Reg, Route, Shortcut, Site, SlotPlan},
    primitives,
    symbols::Symbols,
    value::{Symbol, Value},
};
use crate::syntax::{
    self, Expr, ExprKind, Position, Receiver, SlotNodeKind, Statement, parse_expression, parse_method, print_slot,
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
/// Elements that an array literal puts into registers at a time.
const ARRAY_CHUNK: usize = 32;

#[derive(Debug, Clone, Copy)]
enum Place {
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
    code: Code,
    /// Those of inlined blocks come and go.
    variables: Vec<Variable>,
    next: usize,
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
    symbols: &'a Symbols,
    scopes: Vec<Scope>,
    contexts: Vec<Context>,
    primitives: bool,
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
    fn scope(&mut self, name: &str, code: &syntax::Code, is_block: bool) -> Compiled<Code> {
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

    fn constant_index(&mut self, value: Value) -> Compiled<u16> {
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

    fn text(&mut self, text: &str) -> Compiled<u16> {
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
    fn innermost_context(&mut self) -> Compiled<Option<Reg>> {
        let scope = self.scopes.len() - 1;
        match self.contexts.last() {
            Some(context) if context.scope == scope => Ok(Some(context.register)),
            Some(_) => self.environment().map(Some),
            None => Ok(None),
        }
    }

    /// The register of the context that the running block was closed over.
    fn environment(&mut self) -> Compiled<Reg> {
        let arguments = self.top()?.code.arguments;
        small(arguments + 1)
    }

    fn variable(&self, name: &str) -> Option<(usize, Place)> {
        self.scopes.iter().enumerate().rev().find_map(|(number, scope)| {
            let variable = scope.variables.iter().rfind(|variable| variable.name == name)?;
            Some((number, variable.place))
        })
    }

    /// A register with the context number `context`.
    fn context(&mut self, at: Position, context: usize) -> Compiled<Reg> {
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

    fn set(&mut self, at: Position, place: Place, from: Reg) -> Compiled {
        match place {
            Place::Register(to) if to == from => Ok(()),
            Place::Register(to) => self.emit(at, Op::Move { to, from }),
            Place::Context { context, index } => self.with_temporaries(|compiler| {
                let context = compiler.context(at, context)?;
                compiler.emit(at, Op::SetCaptured { context, index, from })
            }),
        }
    }

    /// Compiles for the effect alone.
    pub(super) fn effect(&mut self, expr: &Expr) -> Compiled {
        match &expr.kind {
            ExprKind::Assign { name, value } => self.assign(expr.at, name, value, None),
            ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments }
                if is_inlined(receiver, selector, arguments) =>
            {
                self.inlined(expr.at, receiver, selector, arguments, None)
            }
            ExprKind::Send { receiver, selector, arguments }
                if let [argument] = arguments.as_slice()
                    && !selector.starts_with('_') =>
            {
                self.one_argument(expr.at, receiver, selector, argument, None)
            }
            _ => self.with_temporaries(|compiler| {
                let to = compiler.temporary()?;
                compiler.into(expr, to)
            }),
        }
    }

    /// A register that holds the value: the variable's own, if it is one.
    pub(super) fn operand(&mut self, expr: &Expr) -> Compiled<Reg> {
        match &expr.kind {
            ExprKind::SelfRef => return Ok(0),
            ExprKind::Name(name) => {
                if let Some((_, Place::Register(register))) = self.variable(name) {
                    return Ok(register);
                }
            }
            _ => {}
        }
        let to = self.temporary()?;
        self.into(expr, to)?;
        Ok(to)
    }

    /// The receiver of an operator whose argument is `other`, which might assign it.
    fn left_operand(&mut self, expr: &Expr, other: &Expr) -> Compiled<Reg> {
        match &expr.kind {
            ExprKind::Name(name) if assigns(other, name) => {
                let to = self.temporary()?;
                self.into(expr, to)?;
                Ok(to)
            }
            _ => self.operand(expr),
        }
    }

    /// A literal that needs no register.
    fn literal(&self, expr: &Expr) -> Option<Value> {
        match &expr.kind {
            ExprKind::Integer(digits) => digits.parse().ok().and_then(Value::int),
            ExprKind::Float(value) => Some(Value::float(*value)),
            ExprKind::Symbol(text) => Some(Value::symbol(self.symbols.intern(text))),
            ExprKind::Char(c) => Some(Value::char(*c)),
            ExprKind::Name(name) if self.variable(name).is_none() => match name.as_str() {
                "nil" => Some(Value::NIL),
                "true" => Some(Value::TRUE),
                "false" => Some(Value::FALSE),
                _ => None,
            },
            _ => None,
        }
    }

    /// Compiles so that the value ends in `to`.
    pub(super) fn into(&mut self, expr: &Expr, to: Reg) -> Compiled {
        let at = expr.at;
        if let Some(value) = self.literal(expr) {
            return self.constant(at, value, to);
        }
        match &expr.kind {
            ExprKind::Integer(digits) => {
                let index = self.text(digits)?;
                self.emit(at, Op::Big { to, index })
            }
            ExprKind::Str(text) => {
                let index = self.text(text)?;
                self.emit(at, Op::Str { to, index })
            }
            ExprKind::Float(_) | ExprKind::Symbol(_) | ExprKind::Char(_) => Err(too_large("literal")),
            ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => self.array(at, elements, to),
            ExprKind::SelfRef => self.emit(at, Op::Move { to, from: 0 }),
            ExprKind::Name(name) => self.name(at, name, to),
            ExprKind::Assign { name, value } => self.assign(at, name, value, Some(to)),
            ExprKind::Send { receiver, selector, arguments } => self.send(at, receiver, selector, arguments, to),
            ExprKind::Cascade { first, others } => {
                let ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } = &first.kind else {
                    return Err(error(at, "a cascade needs a receiver: write self".to_owned()));
                };
                self.with_temporaries(|compiler| {
                    let kept = compiler.temporary()?;
                    compiler.into(receiver, kept)?;
                    compiler.message(first.at, kept, selector, arguments, to)?;
                    others
                        .iter()
                        .try_for_each(|part| compiler.message(part.at, kept, &part.selector, &part.arguments, to))
                })
            }
            ExprKind::Block(code) => {
                let name = format!("[] in {}", self.scopes.first().map_or("", |scope| scope.code.name.as_str()));
                let context = self.innermost_context()?.unwrap_or(NONE);
                let block = Arc::new(self.scope(&name, code, true)?);
                let blocks = &mut self.top()?.code.blocks;
                blocks.push(block);
                let index = small(blocks.len() - 1)?;
                self.emit(at, Op::Block { to, index, context })
            }
            ExprKind::Object(slots) => self.object(at, slots, to),
        }
    }

    fn array(&mut self, at: Position, elements: &[Expr], to: Reg) -> Compiled {
        self.with_temporaries(|compiler| {
            // `to` may be a variable that the elements mention.
            let array = compiler.temporary()?;
            let mut is_new = true;
            let chunks = elements.chunks(ARRAY_CHUNK).chain(elements.is_empty().then_some(&[][..]));
            for chunk in chunks {
                compiler.with_temporaries(|compiler| {
                    let first = small(compiler.top()?.next)?;
                    for element in chunk {
                        let register = compiler.temporary()?;
                        compiler.into(element, register)?;
                    }
                    let count = small(chunk.len())?;
                    compiler.emit(
                        at,
                        match is_new {
                            true => Op::Array { to: array, first, count },
                            false => Op::ArrayMore { array, first, count },
                        },
                    )
                })?;
                is_new = false;
            }
            compiler.emit(at, Op::Move { to, from: array })
        })
    }

    fn name(&mut self, at: Position, name: &str, to: Reg) -> Compiled {
        match self.variable(name) {
            Some((_, Place::Register(from))) if from == to => Ok(()),
            Some((_, Place::Register(from))) => self.emit(at, Op::Move { to, from }),
            Some((_, Place::Context { context, index })) => self.with_temporaries(|compiler| {
                let context = compiler.context(at, context)?;
                compiler.emit(at, Op::Captured { to, context, index })
            }),
            None => self.send_to_self(at, name, &[], Route::Implicit, to),
        }
    }

    fn assign(&mut self, at: Position, name: &str, value: &Expr, to: Option<Reg>) -> Compiled {
        let Some((_, place)) = self.variable(name) else {
            // A slot: `x := e` sends `x: e` to self and, unlike the send, answers e.
            return self.with_temporaries(|compiler| {
                let with = compiler.operand(value)?;
                let selector = compiler.symbols.intern(&format!("{name}:"));
                let site = compiler.site(selector, 1, Route::Implicit, 0)?;
                compiler.emit(at, Op::Tell { of: 0, with, site })?;
                to.map_or(Ok(()), |to| compiler.emit(at, Op::Move { to, from: with }))
            });
        };
        self.with_temporaries(|compiler| {
            let from = match place {
                // In place, unless what is computed still reads or assigns the variable on the way.
                Place::Register(register) if is_simple(value) => {
                    compiler.into(value, register)?;
                    register
                }
                _ => {
                    let from = compiler.operand(value)?;
                    compiler.set(at, place, from)?;
                    from
                }
            };
            match to {
                Some(to) if to != from => compiler.emit(at, Op::Move { to, from }),
                _ => Ok(()),
            }
        })
    }

    fn object(&mut self, at: Position, slots: &[syntax::SlotNode], to: Reg) -> Compiled {
        let mut plans = Vec::new();
        self.with_temporaries(|compiler| {
            let first = small(compiler.top()?.next)?;
            for slot in slots {
                let name = compiler.symbols.intern(&slot.name);
                let (plan, value) = match &slot.kind {
                    SlotNodeKind::Constant(value) => (SlotPlan::Constant(name), Some(value)),
                    SlotNodeKind::Assignable(value) => (SlotPlan::Assignable(name), value.as_ref()),
                    SlotNodeKind::Parent { value, .. } => (SlotPlan::Parent(name), Some(value)),
                    SlotNodeKind::Method(_) => {
                        let source = print_slot(slot);
                        if !compiler.primitives {
                            check_method(&source)?;
                        }
                        plans.push(SlotPlan::Method(name, Arc::from(source)));
                        continue;
                    }
                };
                plans.push(plan);
                let register = compiler.temporary()?;
                match value {
                    Some(value) => compiler.into(value, register)?,
                    None => compiler.constant(at, Value::NIL, register)?,
                }
            }
            let objects = &mut compiler.top()?.code.objects;
            objects.push(plans);
            let index = small(objects.len() - 1)?;
            compiler.emit(at, Op::Object { to, first, index })
        })
    }

    fn get(&mut self, at: Position, of: Reg, selector: &str, route: Route, to: Reg) -> Compiled {
        let selector = self.symbols.intern(selector);
        let site = self.site(selector, 0, route, 0)?;
        self.emit(at, Op::Get { to, of, site })
    }

    /// A message with one argument, without a window for it where that is possible.
    fn one_argument(
        &mut self,
        at: Position,
        receiver: &Receiver,
        selector: &str,
        argument: &Expr,
        to: Option<Reg>,
    ) -> Compiled {
        self.with_temporaries(|compiler| {
            let (of, route) = match receiver {
                Receiver::Expr(receiver) => (compiler.left_operand(receiver, argument)?, Route::Normal),
                Receiver::ImplicitSelf => (0, Route::Implicit),
                Receiver::Resend => (0, Route::Resend),
                Receiver::DirectedResend(parent) => (0, Route::Directed(compiler.symbols.intern(parent))),
            };
            let with = compiler.operand(argument)?;
            let selector = compiler.symbols.intern(selector);
            let site = compiler.site(selector, 1, route, 0)?;
            let Some(to) = to else { return compiler.emit(at, Op::Tell { of, with, site }) };
            match (u8::try_from(to), u8::try_from(of), u8::try_from(with)) {
                (Ok(to), Ok(of), Ok(with)) => compiler.emit(at, Op::Ask { to, of, with, site }),
                _ => {
                    let (window, second) = (compiler.temporary()?, compiler.temporary()?);
                    compiler.emit(at, Op::Move { to: window, from: of })?;
                    compiler.emit(at, Op::Move { to: second, from: with })?;
                    compiler.emit(at, Op::Send { to, at: window, site })
                }
            }
        })
    }

    fn send(&mut self, at: Position, receiver: &Receiver, selector: &str, arguments: &[Expr], to: Reg) -> Compiled {
        let is_inlined = matches!(receiver, Receiver::Expr(receiver) if is_inlined(receiver, selector, arguments));
        if let [argument] = arguments
            && !is_inlined
            && !selector.starts_with('_')
            && (operator(selector).is_none() || !matches!(receiver, Receiver::Expr(_)))
        {
            return self.one_argument(at, receiver, selector, argument, Some(to));
        }
        match receiver {
            Receiver::Expr(receiver) if is_inlined => self.inlined(at, receiver, selector, arguments, Some(to)),
            Receiver::Expr(receiver) => {
                if let [argument] = arguments
                    && let Some(op) = operator(selector)
                {
                    return self.with_temporaries(|compiler| {
                        let (a, b) = compiler.operands(receiver, argument)?;
                        compiler.emit(at, op(to, a, b))
                    });
                }
                if selector == "not" {
                    return self.with_temporaries(|compiler| {
                        let a = compiler.operand(receiver)?;
                        compiler.emit(at, Op::Not { to, a })
                    });
                }
                if arguments.is_empty() && !selector.starts_with('_') {
                    return self.with_temporaries(|compiler| {
                        let of = compiler.operand(receiver)?;
                        compiler.get(at, of, selector, Route::Normal, to)
                    });
                }
                self.with_temporaries(|compiler| {
                    let window = compiler.temporary()?;
                    compiler.into(receiver, window)?;
                    compiler.arguments_and_send(at, window, selector, arguments, Route::Normal, to)
                })
            }
            Receiver::ImplicitSelf => self.send_to_self(at, selector, arguments, Route::Implicit, to),
            Receiver::Resend => self.send_to_self(at, selector, arguments, Route::Resend, to),
            Receiver::DirectedResend(parent) => {
                let parent = self.symbols.intern(parent);
                self.send_to_self(at, selector, arguments, Route::Directed(parent), to)
            }
        }
    }

    /// Registers of an operator's operands; the second may be a constant.
    pub(super) fn operands(&mut self, receiver: &Expr, argument: &Expr) -> Compiled<(Reg, Reg)> {
        let a = self.left_operand(receiver, argument)?;
        let b = match self.literal(argument) {
            Some(value) => self.constant_index(value)? | CONSTANT,
            None => self.operand(argument)?,
        };
        Ok((a, b))
    }

    fn send_to_self(&mut self, at: Position, selector: &str, arguments: &[Expr], route: Route, to: Reg) -> Compiled {
        self.message_by(at, 0, selector, arguments, route, to)
    }

    /// A message to what is in the register `receiver`.
    fn message(&mut self, at: Position, receiver: Reg, selector: &str, arguments: &[Expr], to: Reg) -> Compiled {
        self.message_by(at, receiver, selector, arguments, Route::Normal, to)
    }

    fn message_by(
        &mut self,
        at: Position,
        receiver: Reg,
        selector: &str,
        arguments: &[Expr],
        route: Route,
        to: Reg,
    ) -> Compiled {
        if arguments.is_empty() && !selector.starts_with('_') {
            return self.get(at, receiver, selector, route, to);
        }
        self.with_temporaries(|compiler| {
            let window = compiler.temporary()?;
            compiler.emit(at, Op::Move { to: window, from: receiver })?;
            compiler.arguments_and_send(at, window, selector, arguments, route, to)
        })
    }

    /// The receiver is in `window`, the newest register.
    fn arguments_and_send(
        &mut self,
        at: Position,
        window: Reg,
        selector: &str,
        arguments: &[Expr],
        route: Route,
        to: Reg,
    ) -> Compiled {
        for argument in arguments {
            let register = self.temporary()?;
            self.into(argument, register)?;
        }
        let symbol = self.symbols.intern(selector);
        if !is_primitive(selector) {
            let site = self.site(symbol, arguments.len(), route, 0)?;
            return self.emit(at, Op::Send { to, at: window, site });
        }
        match primitives::find(selector).filter(|_| self.primitives) {
            Some(primitive) => {
                let site = self.site(symbol, arguments.len(), route, primitive)?;
                self.emit(at, Op::Primitive { to, at: window, site })
            }
            None => Err(error(at, format!("{selector:?}: primitives belong to the image"))),
        }
    }
}

type Binary = fn(Reg, Reg, Reg) -> Op;

/// Operators that have an op of their own.
fn operator(selector: &str) -> Option<Binary> {
    Some(match selector {
        "+" => |to, a, b| Op::Add { to, a, b },
        "-" => |to, a, b| Op::Subtract { to, a, b },
        "*" => |to, a, b| Op::Multiply { to, a, b },
        "/" => |to, a, b| Op::Divide { to, a, b },
        "//" => |to, a, b| Op::FloorDivide { to, a, b },
        "\\\\" => |to, a, b| Op::Modulo { to, a, b },
        "<" => |to, a, b| Op::Less { to, a, b },
        "<=" => |to, a, b| Op::AtMost { to, a, b },
        ">" => |to, a, b| Op::Greater { to, a, b },
        ">=" => |to, a, b| Op::AtLeast { to, a, b },
        "=" => |to, a, b| Op::Equal { to, a, b },
        "~=" => |to, a, b| Op::NotEqual { to, a, b },
        "==" => |to, a, b| Op::Identical { to, a, b },
        _ => return None,
    })
}

/// Whether the value may be computed right into a variable: nothing on the way can see that it has changed already.
fn is_simple(value: &Expr) -> bool {
    match &value.kind {
        ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } => {
            // The answer is written last; control structures write early.
            !is_inlined(receiver, selector, arguments)
        }
        ExprKind::Send { .. } | ExprKind::Block(_) | ExprKind::Object(_) => true,
        ExprKind::Name(_) | ExprKind::SelfRef => true,
        ExprKind::Integer(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::Symbol(_) | ExprKind::Char(_) => true,
        _ => false,
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
