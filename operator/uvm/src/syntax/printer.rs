//! Canonical source: parses to the same tree.

use super::ast::*;

/// How tightly an expression binds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Statement,
    Keyword,
    Binary,
    Unary,
}

pub fn print_slot(slot: &SlotNode) -> String {
    let name = &slot.name;
    match &slot.kind {
        SlotNodeKind::Constant(value) => format!("{name} = {}", print_expression(value)),
        SlotNodeKind::Assignable(None) => name.clone(),
        SlotNodeKind::Assignable(Some(value)) => format!("{name} <- {}", print_expression(value)),
        SlotNodeKind::Parent { assignable, value } => {
            format!("{name}* {} {}", if *assignable { "<-" } else { "=" }, print_expression(value))
        }
        SlotNodeKind::Method(code) => {
            let body = print_code(code);
            // `(|` would open an object literal.
            let body = if body.is_empty() { String::new() } else { format!(" {body} ") };
            format!("{} = ({body})", header(name, &code.arguments))
        }
    }
}

/// `at: k put: v` from `at:put:` and its argument names.
fn header(selector: &str, arguments: &[String]) -> String {
    match selector.contains(':') {
        true => message(selector, arguments.to_vec()),
        false => [&[selector.to_owned()], arguments].concat().join(" "),
    }
}

fn message(selector: &str, arguments: Vec<String>) -> String {
    if !selector.contains(':') {
        return [vec![selector.to_owned()], arguments].concat().join(" ");
    }
    let parts = selector.split_inclusive(':').zip(arguments);
    parts.map(|(part, argument)| format!("{part} {argument}")).collect::<Vec<_>>().join(" ")
}

/// Locals and statements, without the parentheses around them.
pub fn print_code(code: &Code) -> String {
    let mut text = String::new();
    if !code.locals.is_empty() {
        text = format!("| {} | ", code.locals.join(" "));
    }
    let statements = code.body.iter().map(|statement| match statement {
        Statement::Expr(expr) => print_expression(expr),
        Statement::Return(expr) => format!("^{}", print_expression(expr)),
    });
    text + &statements.collect::<Vec<_>>().join(". ")
}

pub fn print_expression(expr: &Expr) -> String {
    print(expr, Level::Statement)
}

fn print(expr: &Expr, least: Level) -> String {
    let text = match &expr.kind {
        ExprKind::Integer(digits) => digits.clone(),
        ExprKind::Float(value) if value.fract() == 0.0 && value.abs() < 1e16 => format!("{value:.1}"),
        ExprKind::Float(value) => match format!("{value:e}") {
            // `1e20` would be an integer.
            text if !text.contains('.') => text.replacen('e', ".0e", 1),
            text => text,
        },
        ExprKind::Str(text) => quoted(text),
        ExprKind::Symbol(text) => match text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            true if !text.is_empty() && !text.starts_with(':') => format!("#{text}"),
            _ => format!("#{}", quoted(text)),
        },
        ExprKind::Char(c) => format!("${c}"),
        ExprKind::LiteralArray(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| print(element, Level::Unary)).collect();
            format!("#({})", elements.join(" "))
        }
        ExprKind::DynamicArray(elements) => {
            let elements: Vec<_> = elements.iter().map(print_expression).collect();
            format!("{{{}}}", elements.join(". "))
        }
        ExprKind::SelfRef => "self".to_owned(),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Assign { name, value } => format!("{name} := {}", print(value, Level::Statement)),
        ExprKind::Send { receiver, selector, arguments } => send(receiver, selector, arguments),
        ExprKind::Cascade { first, others } => {
            let others = others.iter().map(|part| format!("; {}", tail(&part.selector, &part.arguments)));
            print(first, Level::Keyword) + &others.collect::<String>()
        }
        ExprKind::Block(code) => {
            let arguments: String = code.arguments.iter().map(|name| format!(":{name} ")).collect();
            let bar = if code.arguments.is_empty() { "" } else { "| " };
            format!("[ {arguments}{bar}{} ]", print_code(code))
        }
        ExprKind::Object(slots) => {
            format!("(| {} |)", slots.iter().map(print_slot).collect::<Vec<_>>().join(". "))
        }
    };
    match level(expr) < least {
        true => format!("({text})"),
        false => text,
    }
}

fn level(expr: &Expr) -> Level {
    match &expr.kind {
        ExprKind::Assign { .. } | ExprKind::Cascade { .. } => Level::Statement,
        ExprKind::Send { selector, .. } if selector.contains(':') => Level::Keyword,
        ExprKind::Send { arguments, .. } if !arguments.is_empty() => Level::Binary,
        _ => Level::Unary,
    }
}

/// Selector with its arguments: what follows a receiver.
fn tail(selector: &str, arguments: &[Expr]) -> String {
    let level = if selector.contains(':') { Level::Binary } else { Level::Unary };
    message(selector, arguments.iter().map(|argument| print(argument, level)).collect())
}

fn send(receiver: &Receiver, selector: &str, arguments: &[Expr]) -> String {
    let least = match (selector.contains(':'), arguments.is_empty()) {
        (true, _) | (false, false) => Level::Binary,
        (false, true) => Level::Unary,
    };
    let tail = tail(selector, arguments);
    match receiver {
        Receiver::Expr(receiver) => format!("{} {tail}", print(receiver, least)),
        Receiver::ImplicitSelf => tail,
        Receiver::Resend => format!("resend {tail}"),
        Receiver::DirectedResend(parent) => format!("{parent} resend {tail}"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
