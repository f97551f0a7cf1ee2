//! Wrong methods out of right ones: every tree that differs from the right one in one place.

use std::collections::BTreeSet;

use batos_uvm::{
    syntax::{
        CascadePart, Code, Expr, ExprKind, Receiver, SlotNode, SlotNodeKind, Statement, parse_method, print_slot,
    },
    vm::check_method,
};

/// What was done to the tree, in words for the table.
pub type Operator = &'static str;

/// A selector and what it is exchanged for.
type Exchange = (&'static str, &'static [&'static str]);

const EXCHANGES: &[(Operator, &[Exchange])] = &[
    (
        "arithmetic",
        &[
            ("+", &["-"]),
            ("-", &["+"]),
            ("*", &["+"]),
            ("/", &["*", "//"]),
            ("//", &["\\\\", "/"]),
            ("\\\\", &["//"]),
            ("max:", &["min:"]),
            ("min:", &["max:"]),
        ],
    ),
    (
        "comparison",
        &[
            ("<", &["<=", ">"]),
            ("<=", &["<", ">="]),
            (">", &[">=", "<"]),
            (">=", &[">", "<="]),
            ("=", &["~="]),
            ("~=", &["="]),
        ],
    ),
    (
        "condition",
        &[
            ("and:", &["or:"]),
            ("or:", &["and:"]),
            ("whileTrue:", &["whileFalse:"]),
            ("whileFalse:", &["whileTrue:"]),
            ("even", &["odd"]),
            ("odd", &["even"]),
            ("select:", &["reject:"]),
            ("reject:", &["select:"]),
            ("allSatisfy:", &["anySatisfy:"]),
            ("anySatisfy:", &["allSatisfy:"]),
        ],
    ),
    (
        "branch",
        &[
            ("ifTrue:", &["ifFalse:"]),
            ("ifFalse:", &["ifTrue:"]),
            ("ifTrue:ifFalse:", &["ifFalse:ifTrue:"]),
            ("ifFalse:ifTrue:", &["ifTrue:ifFalse:"]),
        ],
    ),
    ("end", &[("first", &["last"]), ("last", &["first"])]),
];

/// Selectors whose receiver and arguments are conditions.
const CONDITIONS: &[&str] = &["and:", "or:"];

/// The sources of the mutants that compile, without those that read alike.
pub fn mutants(source: &str) -> Vec<(Operator, String)> {
    let Ok(SlotNode { at, name, kind: SlotNodeKind::Method(code) }) = parse_method(source) else { return Vec::new() };
    let right = print_slot(&SlotNode { at, name: name.clone(), kind: SlotNodeKind::Method(code.clone()) });
    let mut read = BTreeSet::from([right]);
    let method = Expr { at, kind: ExprKind::Block(code) };
    let mut found = Vec::new();
    for (operator, mutant) in of_tree(&method, &[]) {
        let ExprKind::Block(code) = mutant.kind else { continue };
        let source = print_slot(&SlotNode { at, name: name.clone(), kind: SlotNodeKind::Method(code) });
        if read.insert(source.clone()) && check_method(&source).is_ok() {
            found.push((operator, source));
        }
    }
    found
}

/// All trees that differ in one place; `names` are the variables that the tree may use.
fn of_tree(tree: &Expr, names: &[String]) -> Vec<(Operator, Expr)> {
    let mut found = at_root(tree, names);
    let mut inner = names.to_vec();
    if let ExprKind::Block(code) = &tree.kind {
        inner.extend(code.arguments.iter().chain(&code.locals).cloned());
    }
    let mut copy = tree.clone();
    let count = parts(&mut copy).len();
    for at in 0..count {
        let Some(part) = parts(&mut copy).get(at).map(|part| (**part).clone()) else { continue };
        for (operator, mutant) in of_tree(&part, &inner) {
            let mut whole = tree.clone();
            if let Some(part) = parts(&mut whole).into_iter().nth(at) {
                *part = mutant;
                found.push((operator, whole));
            }
        }
    }
    found
}

/// The trees right below.
fn parts(tree: &mut Expr) -> Vec<&mut Expr> {
    match &mut tree.kind {
        ExprKind::Assign { value, .. } => vec![value.as_mut()],
        ExprKind::Send { receiver, arguments, .. } => match receiver {
            Receiver::Expr(receiver) => std::iter::once(receiver.as_mut()).chain(arguments).collect(),
            Receiver::ImplicitSelf | Receiver::Resend | Receiver::DirectedResend(_) => arguments.iter_mut().collect(),
        },
        ExprKind::Cascade { first, others } => {
            let others = others.iter_mut().flat_map(|CascadePart { arguments, .. }| arguments);
            std::iter::once(first.as_mut()).chain(others).collect()
        }
        ExprKind::LiteralArray(elements) | ExprKind::DynamicArray(elements) => elements.iter_mut().collect(),
        ExprKind::Block(Code { body, .. }) => {
            let expressions = body.iter_mut().map(|statement| match statement {
                Statement::Expr(expr) | Statement::Return(expr) => expr,
            });
            expressions.collect()
        }
        ExprKind::Object(_)
        | ExprKind::Integer(_)
        | ExprKind::Float(_)
        | ExprKind::Str(_)
        | ExprKind::Symbol(_)
        | ExprKind::Char(_)
        | ExprKind::SelfRef
        | ExprKind::Name(_) => Vec::new(),
    }
}

/// Trees that differ at the root.
fn at_root(tree: &Expr, names: &[String]) -> Vec<(Operator, Expr)> {
    let with = |kind| Expr { at: tree.at, kind };
    match &tree.kind {
        ExprKind::Integer(digits) => {
            let number = digits.parse::<i128>().into_iter();
            let near = number.flat_map(|n| [n.saturating_sub(1), n.saturating_add(1)]);
            near.map(|n| ("literal", with(ExprKind::Integer(n.to_string())))).collect()
        }
        ExprKind::Name(name) if names.contains(name) => {
            let others = names.iter().filter(|other| *other != name);
            others.map(|other| ("variable", with(ExprKind::Name(other.clone())))).collect()
        }
        ExprKind::Block(code) if code.body.len() > 1 => {
            let fewer = (0..code.body.len()).map(|at| {
                let mut code = code.clone();
                code.body.remove(at);
                ("statement", with(ExprKind::Block(code)))
            });
            fewer.collect()
        }
        ExprKind::Send { receiver, selector, arguments } => {
            let send = |receiver: &Receiver, selector: &str, arguments: &[Expr]| {
                let (receiver, selector, arguments) = (receiver.clone(), selector.to_owned(), arguments.to_vec());
                with(ExprKind::Send { receiver, selector, arguments })
            };
            let mut found = Vec::new();
            for (operator, exchanges) in EXCHANGES {
                let others = exchanges.iter().filter(|(from, _)| from == selector).flat_map(|(_, to)| *to);
                found.extend(others.map(|to| (*operator, send(receiver, to, arguments))));
            }
            if let (Receiver::Expr(left), [right]) = (receiver, arguments.as_slice())
                && !is_block(left)
                && !is_block(right)
            {
                let swapped = Receiver::Expr(Box::new(right.clone()));
                found.push(("arguments", send(&swapped, selector, &[(**left).clone()])));
            }
            if let [first, second, rest @ ..] = arguments.as_slice()
                && !is_block(first)
                && !is_block(second)
            {
                let swapped = [&[second.clone(), first.clone()], rest].concat();
                found.push(("arguments", send(receiver, selector, &swapped)));
            }
            if let (Receiver::Expr(condition), true) = (receiver, CONDITIONS.contains(&selector.as_str())) {
                let negated = Receiver::Expr(Box::new(not(condition)));
                found.push(("condition", send(&negated, selector, arguments)));
                if let [Expr { at, kind: ExprKind::Block(code) }] = arguments.as_slice()
                    && let [Statement::Expr(last)] = code.body.as_slice()
                {
                    let code = Code { body: vec![Statement::Expr(not(last))], ..code.clone() };
                    let block = Expr { at: *at, kind: ExprKind::Block(code) };
                    found.push(("condition", send(receiver, selector, &[block])));
                }
            }
            found
        }
        _ => Vec::new(),
    }
}

fn is_block(tree: &Expr) -> bool {
    matches!(tree.kind, ExprKind::Block(_))
}

fn not(condition: &Expr) -> Expr {
    let receiver = Receiver::Expr(Box::new(condition.clone()));
    Expr { at: condition.at, kind: ExprKind::Send { receiver, selector: "not".to_owned(), arguments: Vec::new() } }
}

#[cfg(test)]
mod tests {
    use super::mutants;

    #[test]
    fn a_mutant_differs_in_one_place() {
        let found: Vec<_> = mutants("f: n = ( n > 1 ifTrue: [ ^n - 2 ]. 0 )");
        let expected = [
            ("statement", "f: n = ( 0 )"),
            ("statement", "f: n = ( n > 1 ifTrue: [ ^n - 2 ] )"),
            ("branch", "f: n = ( n > 1 ifFalse: [ ^n - 2 ]. 0 )"),
            ("comparison", "f: n = ( n >= 1 ifTrue: [ ^n - 2 ]. 0 )"),
            ("comparison", "f: n = ( n < 1 ifTrue: [ ^n - 2 ]. 0 )"),
            ("arguments", "f: n = ( 1 > n ifTrue: [ ^n - 2 ]. 0 )"),
            ("literal", "f: n = ( n > 0 ifTrue: [ ^n - 2 ]. 0 )"),
            ("literal", "f: n = ( n > 2 ifTrue: [ ^n - 2 ]. 0 )"),
            ("arithmetic", "f: n = ( n > 1 ifTrue: [ ^n + 2 ]. 0 )"),
            ("arguments", "f: n = ( n > 1 ifTrue: [ ^2 - n ]. 0 )"),
            ("literal", "f: n = ( n > 1 ifTrue: [ ^n - 1 ]. 0 )"),
            ("literal", "f: n = ( n > 1 ifTrue: [ ^n - 3 ]. 0 )"),
            ("literal", "f: n = ( n > 1 ifTrue: [ ^n - 2 ]. -1 )"),
            ("literal", "f: n = ( n > 1 ifTrue: [ ^n - 2 ]. 1 )"),
        ];
        assert_eq!(found, expected.map(|(operator, source)| (operator, source.to_owned())));
    }

    #[test]
    fn variables_are_exchanged_with_those_in_scope_and_conditions_are_negated() {
        let found = mutants("f: a b: b = ( ^(a = b) and: [ a ] )");
        for expected in [
            "f: a b: b = ( ^b = b and: [ a ] )",
            "f: a b: b = ( ^a = b and: [ b ] )",
            "f: a b: b = ( ^(a = b) not and: [ a ] )",
            "f: a b: b = ( ^a = b and: [ a not ] )",
            "f: a b: b = ( ^a = b or: [ a ] )",
        ] {
            assert!(found.iter().any(|(_, source)| source == expected), "{expected} is not in {found:#?}");
        }
    }
}
