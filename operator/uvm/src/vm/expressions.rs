//! Expressions to register code.

use std::sync::Arc;

use super::{
    capture::{assigns, is_inlined},
    compile::{Compiled, Compiler, Place, check_method, error, is_primitive, small, too_large},
    op::{CONSTANT, NONE, Op, Reg, Route, SlotPlan},
    primitives,
    value::Value,
};
use crate::syntax::{self, Expr, ExprKind, Position, Receiver, SlotNodeKind, print_slot};

/// Elements that an array literal puts into registers at a time.
const ARRAY_CHUNK: usize = 32;

impl Compiler<'_> {
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
                    && !is_primitive(selector) =>
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
    pub(super) fn left_operand(&mut self, expr: &Expr, other: &Expr) -> Compiled<Reg> {
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
    pub(super) fn literal(&self, expr: &Expr) -> Option<Value> {
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

    pub(super) fn array(&mut self, at: Position, elements: &[Expr], to: Reg) -> Compiled {
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

    pub(super) fn name(&mut self, at: Position, name: &str, to: Reg) -> Compiled {
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

    pub(super) fn assign(&mut self, at: Position, name: &str, value: &Expr, to: Option<Reg>) -> Compiled {
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

    pub(super) fn object(&mut self, at: Position, slots: &[syntax::SlotNode], to: Reg) -> Compiled {
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

    pub(super) fn get(&mut self, at: Position, of: Reg, selector: &str, route: Route, to: Reg) -> Compiled {
        let selector = self.symbols.intern(selector);
        let site = self.site(selector, 0, route, 0)?;
        self.emit(at, Op::Get { to, of, site })
    }

    /// A message with one argument, without a window for it where that is possible.
    pub(super) fn one_argument(
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

    pub(super) fn send(
        &mut self,
        at: Position,
        receiver: &Receiver,
        selector: &str,
        arguments: &[Expr],
        to: Reg,
    ) -> Compiled {
        let is_inlined = matches!(receiver, Receiver::Expr(receiver) if is_inlined(receiver, selector, arguments));
        if let [argument] = arguments
            && !is_inlined
            && !is_primitive(selector)
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
                if arguments.is_empty() && !is_primitive(selector) {
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

    pub(super) fn send_to_self(
        &mut self,
        at: Position,
        selector: &str,
        arguments: &[Expr],
        route: Route,
        to: Reg,
    ) -> Compiled {
        self.message_by(at, 0, selector, arguments, route, to)
    }

    /// A message to what is in the register `receiver`.
    pub(super) fn message(
        &mut self,
        at: Position,
        receiver: Reg,
        selector: &str,
        arguments: &[Expr],
        to: Reg,
    ) -> Compiled {
        self.message_by(at, receiver, selector, arguments, Route::Normal, to)
    }

    pub(super) fn message_by(
        &mut self,
        at: Position,
        receiver: Reg,
        selector: &str,
        arguments: &[Expr],
        route: Route,
        to: Reg,
    ) -> Compiled {
        if arguments.is_empty() && !is_primitive(selector) {
            return self.get(at, receiver, selector, route, to);
        }
        self.with_temporaries(|compiler| {
            let window = compiler.temporary()?;
            compiler.emit(at, Op::Move { to: window, from: receiver })?;
            compiler.arguments_and_send(at, window, selector, arguments, route, to)
        })
    }

    /// The receiver is in `window`, the newest register.
    pub(super) fn arguments_and_send(
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
