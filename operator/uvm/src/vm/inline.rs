//! Control structures on literal blocks, compiled in place.

use super::{
    compile::{Compiled, Compiler, too_large},
    op::{Op, Reg},
    value::Value,
};
use crate::syntax::{Code, Expr, ExprKind, Position, Receiver};

fn block(expr: Option<&Expr>) -> Compiled<&Code> {
    match expr.map(|expr| &expr.kind) {
        Some(ExprKind::Block(code)) => Ok(code),
        _ => Err(too_large("block")),
    }
}

impl Compiler<'_> {
    /// `to`: where the value goes, if anyone asks for it.
    pub(super) fn inlined(
        &mut self,
        at: Position,
        receiver: &Expr,
        selector: &str,
        arguments: &[Expr],
        to: Option<Reg>,
    ) -> Compiled {
        let (first, second) = (arguments.first(), arguments.get(1));
        match selector {
            "ifTrue:" => self.choose(at, receiver, true, block(first)?, None, Value::NIL, to),
            "ifFalse:" => self.choose(at, receiver, false, block(first)?, None, Value::NIL, to),
            "ifTrue:ifFalse:" => self.choose(at, receiver, true, block(first)?, Some(block(second)?), Value::NIL, to),
            "ifFalse:ifTrue:" => self.choose(at, receiver, false, block(first)?, Some(block(second)?), Value::NIL, to),
            "and:" => self.choose(at, receiver, true, block(first)?, None, Value::FALSE, to),
            "or:" => self.choose(at, receiver, false, block(first)?, None, Value::TRUE, to),
            "ifNil:" => self.choose_nil(at, receiver, Some(block(first)?), None, to),
            "ifNotNil:" => self.choose_nil(at, receiver, None, Some(block(first)?), to),
            "ifNil:ifNotNil:" => self.choose_nil(at, receiver, Some(block(first)?), Some(block(second)?), to),
            "ifNotNil:ifNil:" => self.choose_nil(at, receiver, Some(block(second)?), Some(block(first)?), to),
            "whileTrue:" => self.while_loop(at, block(Some(receiver))?, true, Some(block(first)?), to),
            "whileFalse:" => self.while_loop(at, block(Some(receiver))?, false, Some(block(first)?), to),
            "whileTrue" => self.while_loop(at, block(Some(receiver))?, true, None, to),
            "whileFalse" => self.while_loop(at, block(Some(receiver))?, false, None, to),
            "repeat" => {
                let start = self.here()?;
                self.in_place(block(Some(receiver))?, None)?;
                self.emit(at, Op::Loop { target: start })
            }
            _ => self.count(at, receiver, selector, arguments, to),
        }
    }

    /// The body of a literal block without arguments, in the scope around it.
    fn in_place(&mut self, code: &Code, to: Option<Reg>) -> Compiled {
        self.in_scope(code, 0, true, |compiler| compiler.body(code, to))
    }

    /// Jumps that are taken when `condition` is not `wanted`.
    fn condition(&mut self, at: Position, condition: &Expr, wanted: bool) -> Compiled<Vec<usize>> {
        if let ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } = &condition.kind {
            match (selector.as_str(), arguments.as_slice()) {
                // Both must hold, or both must fail: each jumps out on its own.
                ("and:", [other]) if wanted && is_plain(other) => {
                    let mut exits = self.condition(condition.at, receiver, true)?;
                    exits.extend(self.last_condition(at, block(Some(other))?, true)?);
                    return Ok(exits);
                }
                ("or:", [other]) if !wanted && is_plain(other) => {
                    let mut exits = self.condition(condition.at, receiver, false)?;
                    exits.extend(self.last_condition(at, block(Some(other))?, false)?);
                    return Ok(exits);
                }
                ("not", []) => return self.condition(condition.at, receiver, !wanted),
                ("isNil", []) | ("notNil", []) => {
                    let on_nil = (selector == "isNil") != wanted;
                    let mut exit = 0;
                    self.with_temporaries(|compiler| {
                        let from = compiler.operand(receiver)?;
                        exit = compiler.jump(
                            condition.at,
                            match on_nil {
                                true => Op::JumpIfNil { from, target: 0 },
                                false => Op::JumpIfNotNil { from, target: 0 },
                            },
                        )?;
                        Ok(())
                    })?;
                    return Ok(vec![exit]);
                }
                (_, [argument]) => {
                    if let Some(compare) = comparison(selector) {
                        let mut exit = 0;
                        self.with_temporaries(|compiler| {
                            let (a, b) = compiler.operands(receiver, argument)?;
                            let to = compiler.temporary()?;
                            compiler.emit(condition.at, compare(to, a, b))?;
                            exit = compiler.exit(condition.at, to, wanted)?;
                            Ok(())
                        })?;
                        return Ok(vec![exit]);
                    }
                }
                _ => {}
            }
        }
        let mut exit = 0;
        self.with_temporaries(|compiler| {
            let from = compiler.operand(condition)?;
            exit = compiler.exit(at, from, wanted)?;
            Ok(())
        })?;
        Ok(vec![exit])
    }

    /// A condition that is the value of a block.
    fn last_condition(&mut self, at: Position, code: &Code, wanted: bool) -> Compiled<Vec<usize>> {
        if let [crate::syntax::Statement::Expr(only)] = code.body.as_slice()
            && code.locals.is_empty()
        {
            return self.condition(at, only, wanted);
        }
        let mut exit = 0;
        self.with_temporaries(|compiler| {
            let value = compiler.temporary()?;
            compiler.in_place(code, Some(value))?;
            exit = compiler.exit(at, value, wanted)?;
            Ok(())
        })?;
        Ok(vec![exit])
    }

    fn exit(&mut self, at: Position, from: Reg, wanted: bool) -> Compiled<usize> {
        self.jump(
            at,
            match wanted {
                true => Op::JumpIfFalse { from, target: 0 },
                false => Op::JumpIfTrue { from, target: 0 },
            },
        )
    }

    fn land_all(&mut self, jumps: Vec<usize>) -> Compiled {
        jumps.into_iter().try_for_each(|jump| self.land(jump))
    }

    #[allow(clippy::too_many_arguments)]
    fn choose(
        &mut self,
        at: Position,
        condition: &Expr,
        wanted: bool,
        then: &Code,
        otherwise: Option<&Code>,
        without: Value,
        to: Option<Reg>,
    ) -> Compiled {
        let exits = self.condition(at, condition, wanted)?;
        self.in_place(then, to)?;
        if otherwise.is_none() && to.is_none() {
            return self.land_all(exits);
        }
        let end = self.jump(at, Op::Jump { target: 0 })?;
        self.land_all(exits)?;
        match (otherwise, to) {
            (Some(otherwise), _) => self.in_place(otherwise, to)?,
            (None, Some(to)) => self.constant(at, without, to)?,
            (None, None) => {}
        }
        self.land(end)
    }

    fn choose_nil(
        &mut self,
        at: Position,
        receiver: &Expr,
        none: Option<&Code>,
        some: Option<&Code>,
        to: Option<Reg>,
    ) -> Compiled {
        self.with_temporaries(|compiler| {
            let value = compiler.temporary()?;
            compiler.into(receiver, value)?;
            let on_nil = compiler.jump(at, Op::JumpIfNil { from: value, target: 0 })?;
            let keep = |compiler: &mut Self| match to {
                Some(to) => compiler.emit(at, Op::Move { to, from: value }),
                None => Ok(()),
            };
            match some {
                Some(some) => compiler.in_scope(some, value, true, |compiler| compiler.body(some, to))?,
                None => keep(compiler)?,
            }
            let end = compiler.jump(at, Op::Jump { target: 0 })?;
            compiler.land(on_nil)?;
            match none {
                Some(none) => compiler.in_place(none, to)?,
                None => keep(compiler)?,
            }
            compiler.land(end)
        })
    }

    fn while_loop(
        &mut self,
        at: Position,
        condition: &Code,
        wanted: bool,
        body: Option<&Code>,
        to: Option<Reg>,
    ) -> Compiled {
        let start = self.here()?;
        let exits = self.last_condition(at, condition, wanted)?;
        body.map_or(Ok(()), |body| self.in_place(body, None))?;
        self.emit(at, Op::Loop { target: start })?;
        self.land_all(exits)?;
        to.map_or(Ok(()), |to| self.constant(at, Value::NIL, to))
    }

    /// `n timesRepeat: […]`, `a to: b do: [:i | …]` and the one with a literal step; all answer the receiver.
    fn count(
        &mut self,
        at: Position,
        receiver: &Expr,
        selector: &str,
        arguments: &[Expr],
        to: Option<Reg>,
    ) -> Compiled {
        let body = block(arguments.last())?;
        self.with_temporaries(|compiler| {
            // In the order that `Op::Count` knows.
            let first = compiler.temporary()?;
            let [count, last, step, variable] =
                [compiler.temporary()?, compiler.temporary()?, compiler.temporary()?, compiler.temporary()?];
            let one = Value::int(1).unwrap_or(Value::NIL);
            let mut is_down = false;
            match (selector, arguments) {
                ("timesRepeat:", _) => {
                    compiler.into(receiver, first)?;
                    compiler.emit(at, Op::Move { to: last, from: first })?;
                    compiler.constant(at, one, count)?;
                    compiler.constant(at, one, step)?;
                }
                (_, [limit, rest @ ..]) => {
                    compiler.into(receiver, first)?;
                    compiler.emit(at, Op::Move { to: count, from: first })?;
                    compiler.into(limit, last)?;
                    match rest {
                        [by, _] => {
                            is_down = match &by.kind {
                                ExprKind::Integer(digits) => digits.starts_with('-'),
                                ExprKind::Float(value) => *value < 0.0,
                                _ => false,
                            };
                            compiler.into(by, step)?;
                        }
                        _ => compiler.constant(at, one, step)?,
                    }
                }
                _ => return Err(too_large("loop")),
            }
            let compare = |compiler: &mut Self| {
                compiler.with_temporaries(|compiler| {
                    let holds = compiler.temporary()?;
                    compiler.emit(
                        at,
                        match is_down {
                            true => Op::AtLeast { to: holds, a: count, b: last },
                            false => Op::AtMost { to: holds, a: count, b: last },
                        },
                    )?;
                    compiler.emit(at, Op::JumpIfFalse { from: holds, target: 0 })
                })
            };
            compare(compiler)?;
            let leave = compiler.here()? as usize - 1;
            compiler.emit(at, Op::Move { to: variable, from: count })?;
            let start = compiler.here()?;
            compiler.in_scope(body, variable, true, |compiler| compiler.body(body, None))?;
            compiler.emit(at, Op::Count { at: count, body: start })?;
            let end = compiler.jump(at, Op::Jump { target: 0 })?;
            // What is no small integer counts by sends.
            compiler.emit(at, Op::Add { to: count, a: count, b: step })?;
            compare(compiler)?;
            let leave_slowly = compiler.here()? as usize - 1;
            compiler.emit(at, Op::Move { to: variable, from: count })?;
            compiler.emit(at, Op::Loop { target: start })?;
            compiler.land_all(vec![leave, end, leave_slowly])?;
            to.map_or(Ok(()), |to| compiler.emit(at, Op::Move { to, from: first }))
        })
    }
}

fn is_plain(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Block(code) if code.arguments.is_empty())
}

type Comparison = fn(Reg, Reg, Reg) -> Op;

/// Comparisons that jump at once.
fn comparison(selector: &str) -> Option<Comparison> {
    Some(match selector {
        "<" => |to, a, b| Op::LessJump { to, a, b },
        "<=" => |to, a, b| Op::AtMostJump { to, a, b },
        ">" => |to, a, b| Op::GreaterJump { to, a, b },
        ">=" => |to, a, b| Op::AtLeastJump { to, a, b },
        "=" => |to, a, b| Op::EqualJump { to, a, b },
        "==" => |to, a, b| Op::IdenticalJump { to, a, b },
        _ => return None,
    })
}
