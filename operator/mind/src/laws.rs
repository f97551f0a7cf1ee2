//! Laws of selectors whose names promise something: what a method of such a name does must keep them, whatever the
//! examples say. Each is a method of the language that answers false where the law is broken.

use batos_covenant::Wire;
use batos_uvm::{universe::UniverseError, vm::arity};

use crate::{
    Case,
    assertion::Beside,
    crucible::{Base, told},
};

/// Examples whose state and arguments a law is tried on.
const EXAMPLES: usize = 8;

struct Law {
    says: &'static str,
    /// With `SELF` for the message, `A` for its first argument.
    holds: &'static str,
}

/// Whose names promise the same.
enum Family {
    Is(&'static [&'static str]),
    /// `isEmpty`, `hasPart:`: a question.
    Asks(&'static [&'static str]),
}

const LAWS: &[(Family, Law)] = &[
    (Family::Is(&["="]), Law { says: "an object equals itself", holds: "self = self" }),
    (Family::Is(&["="]), Law { says: "equality goes both ways", holds: "(self = A) = (A = self)" }),
    (
        Family::Is(&["=", "hash"]),
        Law {
            says: "what is equal has equal hashes",
            holds: "(self = self copy) not or: [ self hash = self copy hash ]",
        },
    ),
    (Family::Is(&["hash"]), Law { says: "a hash is an integer", holds: "(SELF) isInteger" }),
    (
        Family::Is(&["<", ">"]),
        Law { says: "nothing is before itself", holds: "(self < self) not and: [ (self > self) not ]" },
    ),
    (
        Family::Is(&["<=", ">="]),
        Law { says: "everything is at least itself", holds: "self <= self and: [ self >= self ]" },
    ),
    (
        Family::Is(&["=", "~=", "<", ">", "<=", ">=", "includes:"]),
        Law { says: "it answers true or false", holds: "(SELF) == true or: [ (SELF) == false ]" },
    ),
    (
        Family::Asks(&["is", "has", "can", "includes"]),
        Law { says: "a question is answered with true or false", holds: "(SELF) == true or: [ (SELF) == false ]" },
    ),
    (
        Family::Is(&["copy", "shallowCopy", "deepCopy"]),
        Law { says: "a copy is another object", holds: "((SELF) == self) not" },
    ),
    (
        Family::Is(&["printString", "displayString", "asString"]),
        Law { says: "it answers a string", holds: "(SELF) isString" },
    ),
    (
        Family::Is(&["size"]),
        Law { says: "a size is an integer not below 0", holds: "(SELF) isInteger and: [ (SELF) >= 0 ]" },
    ),
];

impl Case<'_> {
    /// The law of the selector's family that it breaks.
    pub(crate) async fn broken_law(&self, source: &str, base: &mut Base) -> Result<Option<String>, UniverseError> {
        let Some(selector) = self.selector() else { return Ok(None) };
        // What people's examples answer is right, whatever its name promises.
        let is_said =
            |law: &Law| law.is_about_answer() && self.examples.iter().any(|example| example.answers.is_some());
        for law in of(selector).filter(|law| self.crucible.laws && !is_said(law)) {
            for (number, example) in self.examples.iter().take(EXAMPLES).enumerate() {
                let (name, method) = law.method(selector, &self.unknown_name());
                let Ok(trace) = self.said(source, (&name, &method), example, number).await? else { continue };
                base.extend(&trace.base);
                if trace.answer == Ok(Wire::Bool(false)) {
                    let hint = if example.hidden { String::new() } else { format!(", as on {}", told(example)) };
                    return Ok(Some(format!("it breaks a law of {selector:?}: {}{hint}", law.says)));
                }
            }
        }
        Ok(None)
    }
}

/// The laws that a method of this name must keep.
fn of(selector: &str) -> impl Iterator<Item = &'static Law> {
    let selector = selector.to_owned();
    LAWS.iter().filter(move |(family, _)| family.has(&selector)).map(|(_, law)| law)
}

impl Family {
    fn has(&self, selector: &str) -> bool {
        match self {
            Self::Is(names) => names.contains(&selector),
            Self::Asks(words) => words.iter().any(|word| {
                let rest = selector.strip_prefix(word).unwrap_or_default();
                rest.starts_with(char::is_uppercase)
            }),
        }
    }
}

impl Law {
    /// Whether examples that say what is answered say it better.
    fn is_about_answer(&self) -> bool {
        self.holds.contains("SELF")
    }

    /// Selector and source of a method called `name` that answers whether the law holds, with the arguments of `selector`.
    fn method(&self, selector: &str, name: &str) -> (String, String) {
        let arguments: Vec<String> = (0..arity(selector)).map(|n| format!("argument{n}")).collect();
        let beside = Beside::new(name, selector, &arguments);
        let holds = self.holds.replace('A', "argument0").replace("SELF", &beside.send);
        (beside.selector, format!("{} = ( ^{holds} )", beside.header))
    }
}

#[cfg(test)]
mod tests {
    use batos_uvm::vm::check_method;

    use super::*;

    #[test]
    fn laws_are_methods_that_compile() {
        for selector in ["=", "hash", "<", "<=", "isEmpty", "hasPart:of:", "copy", "printString", "size", "includes:"] {
            let mut some = false;
            for law in of(selector) {
                let (called, source) = law.method(selector, "law");
                assert_eq!(check_method(&source).map(|method| method.selector), Ok(called), "{source}");
                some = true;
            }
            assert!(some, "{selector}");
        }
        for selector in ["island", "issue:", "at:", "sizeOf:", "has"] {
            assert_eq!(of(selector).count(), 0, "{selector}");
        }
    }
}
