//! Which messages a piece of code can send, as far as its text tells.

use std::collections::BTreeSet;

use super::{Code, Expr, ExprKind, Receiver, SlotNode, SlotNodeKind, Statement, parse_method, parse_slots};

/// Selectors of all sends in a slot's code, also in the blocks and object literals within. A bare name counts as one, an
/// assignment as its setter. What names a message without sending it counts too, for a symbol can be evaluated as one:
/// literal symbols, and slots of object literals, whose names mirrors tell.
pub fn sends(slot: &SlotNode) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    of_kind(&slot.kind, &mut found);
    found
}

/// As `sends`, of a method's source or an object literal's; nothing when it is neither.
pub fn sent_by(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match parse_method(source) {
        Ok(method) => of_kind(&method.kind, &mut found),
        Err(_) => parse_slots(source).unwrap_or_default().iter().for_each(|slot| of_kind(&slot.kind, &mut found)),
    }
    found
}

fn of_slot(slot: &SlotNode, found: &mut BTreeSet<String>) {
    found.insert(slot.name.clone());
    of_kind(&slot.kind, found);
}

fn of_kind(kind: &SlotNodeKind, found: &mut BTreeSet<String>) {
    match kind {
        SlotNodeKind::Constant(value) | SlotNodeKind::Parent { value, .. } => of_expr(value, found),
        SlotNodeKind::Assignable(value) => value.iter().for_each(|value| of_expr(value, found)),
        SlotNodeKind::Method(code) => of_code(code, found),
    }
}

fn of_code(code: &Code, found: &mut BTreeSet<String>) {
    for statement in &code.body {
        let (Statement::Expr(expr) | Statement::Return(expr)) = statement;
        of_expr(expr, found);
    }
}

fn of_expr(expr: &Expr, found: &mut BTreeSet<String>) {
    match &expr.kind {
        ExprKind::Name(name) => drop(found.insert(name.clone())),
        ExprKind::Symbol(name) => drop(found.insert(name.clone())),
        ExprKind::Assign { name, value } => {
            found.insert(format!("{name}:"));
            of_expr(value, found);
        }
        ExprKind::Send { receiver, selector, arguments } => {
            found.insert(selector.clone());
            if let Receiver::Expr(receiver) = receiver {
                of_expr(receiver, found);
            }
            arguments.iter().for_each(|argument| of_expr(argument, found));
        }
        ExprKind::Cascade { first, others } => {
            of_expr(first, found);
            for part in others {
                found.insert(part.selector.clone());
                part.arguments.iter().for_each(|argument| of_expr(argument, found));
            }
        }
        ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => {
            elements.iter().for_each(|element| of_expr(element, found));
        }
        ExprKind::Block(code) => of_code(code, found),
        ExprKind::Object(slots) => slots.iter().for_each(|slot| of_slot(slot, found)),
        ExprKind::Integer(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::Char(_) | ExprKind::SelfRef => {}
    }
}
