//! What code says of the object that it runs on: the messages that it sends to self, and the variables that it declares,
//! each at its place in the text.

use super::{Code, Expr, ExprKind, Position, Receiver, SlotNode, SlotNodeKind, Statement};

/// Of a method, without the methods of object literals in it: their self is another.
#[derive(Debug, Default, PartialEq)]
pub struct Own {
    /// Selectors; a name that is no variable is one, and an assignment to such a name sends its setter.
    pub sends: Vec<(String, Position)>,
    /// Arguments and locals, also those of blocks.
    pub variables: Vec<String>,
}

impl Own {
    pub fn of(slot: &SlotNode) -> Self {
        let mut own = Self::default();
        if let SlotNodeKind::Method(code) = &slot.kind {
            own.code(code, &mut Vec::new());
        }
        own
    }

    fn code<'a>(&mut self, code: &'a Code, scope: &mut Vec<&'a str>) {
        let outer = scope.len();
        for name in code.arguments.iter().chain(&code.locals) {
            self.variables.push(name.clone());
            scope.push(name);
        }
        for statement in &code.body {
            let (Statement::Expr(expr) | Statement::Return(expr)) = statement;
            self.expr(expr, scope);
        }
        scope.truncate(outer);
    }

    fn all<'a>(&mut self, exprs: &'a [Expr], scope: &mut Vec<&'a str>) {
        exprs.iter().for_each(|expr| self.expr(expr, scope));
    }

    fn expr<'a>(&mut self, expr: &'a Expr, scope: &mut Vec<&'a str>) {
        let is_variable = |name: &str, scope: &[&str]| scope.contains(&name);
        match &expr.kind {
            ExprKind::Name(name) if !is_variable(name, scope) && !is_literal(name) => {
                self.sends.push((name.clone(), expr.at));
            }
            ExprKind::Assign { name, value } => {
                if !is_variable(name, scope) {
                    self.sends.push((format!("{name}:"), expr.at));
                }
                self.expr(value, scope);
            }
            ExprKind::Send { receiver, selector, arguments } => {
                match receiver {
                    Receiver::ImplicitSelf => self.sends.push((selector.clone(), expr.at)),
                    Receiver::Expr(receiver) if receiver.kind == ExprKind::SelfRef => {
                        self.sends.push((selector.clone(), expr.at));
                    }
                    Receiver::Expr(receiver) => self.expr(receiver, scope),
                    Receiver::Resend | Receiver::DirectedResend(_) => {}
                }
                self.all(arguments, scope);
            }
            ExprKind::Cascade { first, others } => {
                let to_self = match &first.kind {
                    ExprKind::Send { receiver: Receiver::ImplicitSelf, .. } => true,
                    ExprKind::Send { receiver: Receiver::Expr(receiver), .. } => receiver.kind == ExprKind::SelfRef,
                    _ => false,
                };
                self.expr(first, scope);
                for part in others {
                    self.sends.extend(to_self.then(|| (part.selector.clone(), part.at)));
                    self.all(&part.arguments, scope);
                }
            }
            ExprKind::LiteralArray(_) => {}
            ExprKind::DynamicArray(elements) => self.all(elements, scope),
            ExprKind::Block(code) => self.code(code, scope),
            // The values of its slots are computed here, its methods run there.
            ExprKind::Object(slots) => {
                for slot in slots {
                    match &slot.kind {
                        SlotNodeKind::Constant(value)
                        | SlotNodeKind::Assignable(Some(value))
                        | SlotNodeKind::Parent { value, .. } => self.expr(value, scope),
                        SlotNodeKind::Assignable(None) | SlotNodeKind::Method(_) => {}
                    }
                }
            }
            ExprKind::Name(_)
            | ExprKind::Integer(_)
            | ExprKind::Float(_)
            | ExprKind::Str(_)
            | ExprKind::Symbol(_)
            | ExprKind::Char(_)
            | ExprKind::SelfRef => {}
        }
    }
}

fn is_literal(name: &str) -> bool {
    matches!(name, "nil" | "true" | "false")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::parse_method;

    #[test]
    fn what_is_sent_to_self_is_told_from_variables_and_from_other_receivers() {
        for (source, sends, variables) in [
            ("f: n = ( balance: balance - n. ^balance )", "balance: balance balance", "n"),
            ("f = ( | x | x := 3. y := x. ^x foo )", "y:", "x"),
            ("f = ( #(1 2) do: [ :i | self g: i. h ] )", "g: h", "i"),
            ("f = ( self a; b: 1; c )", "a b: c", ""),
            ("f = ( (x a; b: c) z )", "x c", ""),
            ("f = ( (| q = ( inner ). r = outer |) q )", "outer", ""),
            ("f: i = ( [ :i | i ] value: { nil. true. j } )", "j", "i i"),
            ("f = ( resend g )", "", ""),
        ] {
            let own = Own::of(&parse_method(source).unwrap());
            let found: Vec<&str> = own.sends.iter().map(|(selector, _)| selector.as_str()).collect();
            assert_eq!((found.join(" ").as_str(), own.variables.join(" ").as_str()), (sends, variables), "{source}");
        }
    }
}
