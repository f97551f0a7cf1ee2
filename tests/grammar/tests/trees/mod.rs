//! Random syntax trees. Left out is what the grammar gives no sentence to, though the parser does: resends with arguments
//! to a named parent outside of parentheses, and cascades on resends.

use batos_uvm::syntax::{CascadePart, Code, Expr, ExprKind, Position, Receiver, SlotNode, SlotNodeKind, Statement};

const NAMES: &[&str] = &["a", "balance", "x1", "OrderedCollection", "thisLong_name", "nil", "e", "r"];
const UNARY: &[&str] = &["size", "new", "yourself", "isNil"];
const OPERATORS: &[&str] = &["+", "-", "*", "//", "\\\\", "<=", "=", "~=", "->", ",", "@", "|", "&", ">>"];
const KEYWORDS: &[&str] = &["at:", "at:put:", "ifTrue:ifFalse:", "value:"];
const LITERALS: &[&str] = &["", "a", "it's", "line\nline", "\"no comment\"", "é日 | ) ] }", "#$:"];

/// The bits decide; once they are used up everything is simple.
struct Grow<'a> {
    bits: &'a [u8],
    next: usize,
}

pub fn method(bits: &[u8]) -> SlotNode {
    Grow { bits, next: 0 }.method(0)
}

fn expr(kind: ExprKind) -> Expr {
    Expr { at: Position::default(), kind }
}

impl Grow<'_> {
    fn below(&mut self, n: usize) -> usize {
        let bits = self.bits.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(bits) % n
    }

    fn pick(&mut self, words: &[&str]) -> String {
        words[self.below(words.len())].to_owned()
    }

    fn some<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self, usize) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|n| one(self, n)).collect()
    }

    fn selector(&mut self) -> (String, usize) {
        match self.below(3) {
            0 => (self.pick(UNARY), 0),
            1 => (self.pick(OPERATORS), 1),
            _ => {
                let selector = self.pick(KEYWORDS);
                let arity = selector.matches(':').count();
                (selector, arity)
            }
        }
    }

    fn method(&mut self, depth: u32) -> SlotNode {
        let (name, arity) = self.selector();
        let arguments = (0..arity).map(|n| format!("arg{n}")).collect();
        SlotNode { at: Position::default(), name, kind: SlotNodeKind::Method(self.code(arguments, depth + 1)) }
    }

    fn code(&mut self, arguments: Vec<String>, depth: u32) -> Code {
        let locals = self.some(2, |_, n| format!("local{n}"));
        let mut body = self.some(3, |grow, _| Statement::Expr(grow.expression(depth)));
        if self.below(2) == 1 {
            body.push(Statement::Return(self.expression(depth)));
        }
        Code { at: Position::default(), arguments, locals, body }
    }

    fn expression(&mut self, depth: u32) -> Expr {
        let kinds = if depth > 6 { 7 } else { 14 };
        expr(match self.below(kinds) {
            0 => ExprKind::Name(self.pick(NAMES)),
            1 => ExprKind::Integer(self.pick(&["0", "7", "-12", "123456789012345678901234567890"])),
            2 => ExprKind::Float([0.5, -2.0, 1e20, 1.5e-7][self.below(4)]),
            3 => ExprKind::Str(self.pick(LITERALS)),
            4 => ExprKind::Symbol(self.pick(&["a", "at:put:", "+", "a b", ""])),
            5 => ExprKind::Char(['a', '\'', '"', ')', ' ', '|', 'é'][self.below(7)]),
            6 => ExprKind::SelfRef,
            7 | 8 => {
                let (selector, arity) = self.selector();
                let receiver = match self.below(6) {
                    // An operator needs a receiver that is written down.
                    0 if selector.ends_with(':') => Receiver::ImplicitSelf,
                    1 => Receiver::Resend,
                    2 if arity == 0 => Receiver::DirectedResend("parent".to_owned()),
                    _ => Receiver::Expr(Box::new(self.expression(depth + 1))),
                };
                let arguments = (0..arity).map(|_| self.expression(depth + 1)).collect();
                ExprKind::Send { receiver, selector, arguments }
            }
            9 => {
                let receiver = Receiver::Expr(Box::new(self.expression(depth + 1)));
                let (selector, arity) = self.selector();
                let arguments = (0..arity).map(|_| self.expression(depth + 1)).collect();
                let first = Box::new(expr(ExprKind::Send { receiver, selector, arguments }));
                let mut others = self.some(2, |grow, _| grow.part(depth));
                others.push(self.part(depth));
                ExprKind::Cascade { first, others }
            }
            10 => {
                let arguments = self.some(2, |_, n| format!("each{n}"));
                ExprKind::Block(self.code(arguments, depth + 1))
            }
            11 => ExprKind::Assign { name: self.pick(NAMES), value: Box::new(self.expression(depth + 1)) },
            12 => match self.below(2) {
                0 => ExprKind::DynamicArray(self.some(3, |grow, _| grow.expression(depth + 1))),
                _ => ExprKind::LiteralArray(self.some(3, |grow, _| grow.element(depth + 1))),
            },
            _ => ExprKind::Object(self.some(3, |grow, n| grow.slot(n, depth + 1))),
        })
    }

    fn part(&mut self, depth: u32) -> CascadePart {
        let (selector, arity) = self.selector();
        let arguments = (0..arity).map(|_| self.expression(depth + 1)).collect();
        CascadePart { at: Position::default(), selector, arguments }
    }

    fn element(&mut self, depth: u32) -> Expr {
        match self.below(if depth > 6 { 4 } else { 5 }) {
            0 => expr(ExprKind::Integer("-3".to_owned())),
            1 => expr(ExprKind::Str(self.pick(LITERALS))),
            2 => expr(ExprKind::Symbol(self.pick(&["a", "at:put:", "+"]))),
            3 => expr(ExprKind::Char(')')),
            _ => expr(ExprKind::LiteralArray(self.some(3, |grow, _| grow.element(depth + 1)))),
        }
    }

    fn slot(&mut self, n: usize, depth: u32) -> SlotNode {
        let value = self.expression(depth + 1);
        // A method would be taken for what it is: a parenthesised value at the end of a slot is one, too.
        let kind = match self.below(4) {
            0 => SlotNodeKind::Assignable(None),
            1 => SlotNodeKind::Assignable(Some(value)),
            2 => SlotNodeKind::Parent { assignable: false, value },
            _ => {
                let name = format!("m{n}");
                return SlotNode {
                    at: Position::default(),
                    name,
                    kind: SlotNodeKind::Method(self.code(Vec::new(), depth + 1)),
                };
            }
        };
        SlotNode { at: Position::default(), name: format!("s{n}"), kind }
    }
}
