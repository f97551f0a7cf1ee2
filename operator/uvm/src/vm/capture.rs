//! What the compiler has to know of a tree before it emits code: which sends are control structures that are compiled in
//! place, and which variables closures capture.

use std::collections::HashSet;

use crate::syntax::{Code, Expr, ExprKind, Receiver, SlotNodeKind, Statement};

fn takes(expr: &Expr, arguments: usize) -> bool {
    matches!(&expr.kind, ExprKind::Block(code) if code.arguments.len() == arguments)
}

/// Whether this send is a control structure on literal blocks, compiled in place.
pub(super) fn is_inlined(receiver: &Expr, selector: &str, arguments: &[Expr]) -> bool {
    match (selector, arguments) {
        ("ifTrue:" | "ifFalse:" | "and:" | "or:" | "ifNil:", [then]) => takes(then, 0),
        ("ifNotNil:", [then]) => takes(then, 0) || takes(then, 1),
        ("ifTrue:ifFalse:" | "ifFalse:ifTrue:", [then, otherwise]) => takes(then, 0) && takes(otherwise, 0),
        ("ifNil:ifNotNil:", [none, some]) | ("ifNotNil:ifNil:", [some, none]) => {
            takes(none, 0) && (takes(some, 0) || takes(some, 1))
        }
        ("whileTrue:" | "whileFalse:", [body]) => takes(receiver, 0) && takes(body, 0),
        ("whileTrue" | "whileFalse" | "repeat", []) => takes(receiver, 0),
        ("timesRepeat:", [body]) => takes(body, 0),
        ("to:do:", [_, body]) => takes(body, 1),
        ("to:by:do:", [_, step, body]) => takes(body, 1) && is_number(step),
        _ => false,
    }
}

/// A literal step whose sign is known.
fn is_number(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Integer(digits) => !digits.trim_start_matches(['-', '0']).is_empty(),
        ExprKind::Float(value) => *value != 0.0,
        _ => false,
    }
}

/// Names that closures made by this code mention. A name that another scope declares may be among them.
pub(super) fn captured(code: &Code) -> HashSet<&str> {
    let mut names = HashSet::new();
    walk_code(code, false, &mut names);
    names
}

/// Whether the expression assigns the variable in place, outside of closures.
pub(super) fn assigns(expr: &Expr, name: &str) -> bool {
    match &expr.kind {
        ExprKind::Assign { name: other, value } => other == name || assigns(value, name),
        _ => parts(expr).into_iter().any(|part| match part {
            Part::Expr(expr) => assigns(expr, name),
            Part::Inlined(code) | Part::Closure(code) => code.body.iter().any(|statement| assigns(of(statement), name)),
        }),
    }
}

fn of(statement: &Statement) -> &Expr {
    match statement {
        Statement::Expr(expr) | Statement::Return(expr) => expr,
    }
}

enum Part<'a> {
    Expr(&'a Expr),
    Inlined(&'a Code),
    Closure(&'a Code),
}

/// What an expression is made of.
fn parts(expr: &Expr) -> Vec<Part<'_>> {
    match &expr.kind {
        ExprKind::Block(code) => vec![Part::Closure(code)],
        ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => {
            elements.iter().map(Part::Expr).collect()
        }
        ExprKind::Assign { value, .. } => vec![Part::Expr(value)],
        ExprKind::Send { receiver: Receiver::Expr(receiver), selector, arguments } => {
            let inlined = is_inlined(receiver, selector, arguments);
            let part = |expr| match expr {
                &Expr { kind: ExprKind::Block(ref code), .. } if inlined => Part::Inlined(code),
                expr => Part::Expr(expr),
            };
            std::iter::once(&**receiver).chain(arguments).map(part).collect()
        }
        ExprKind::Send { arguments, .. } => arguments.iter().map(Part::Expr).collect(),
        ExprKind::Cascade { first, others } => {
            let arguments = others.iter().flat_map(|part| &part.arguments);
            // The first message is a send like the others: a cascade is never compiled in place.
            let first = match &first.kind {
                ExprKind::Send { receiver: Receiver::Expr(receiver), arguments, .. } => {
                    std::iter::once(&**receiver).chain(arguments).map(Part::Expr).collect()
                }
                _ => vec![Part::Expr(first)],
            };
            first.into_iter().chain(arguments.map(Part::Expr)).collect()
        }
        ExprKind::Object(slots) => slots
            .iter()
            .filter_map(|slot| match &slot.kind {
                SlotNodeKind::Constant(value) | SlotNodeKind::Parent { value, .. } => Some(Part::Expr(value)),
                SlotNodeKind::Assignable(value) => value.as_ref().map(Part::Expr),
                SlotNodeKind::Method(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn walk_code<'a>(code: &'a Code, in_closure: bool, names: &mut HashSet<&'a str>) {
    code.body.iter().for_each(|statement| walk(of(statement), in_closure, names));
}

fn walk<'a>(expr: &'a Expr, in_closure: bool, names: &mut HashSet<&'a str>) {
    if let ExprKind::Name(name) | ExprKind::Assign { name, .. } = &expr.kind
        && in_closure
    {
        names.insert(name);
    }
    for part in parts(expr) {
        match part {
            Part::Expr(expr) => walk(expr, in_closure, names),
            Part::Inlined(code) => walk_code(code, in_closure, names),
            Part::Closure(code) => walk_code(code, true, names),
        }
    }
}
