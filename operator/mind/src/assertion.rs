//! What is said of a method whatever an example says, as a method of the language that stands beside the draft and sends
//! it: the laws of its name, and its intent's contract.

use batos_covenant::{ContractDefinition, ErrorKind, Example, SendCommand, Wire};
use batos_uvm::{
    universe::{Patch, UniverseError},
    vm::header,
};

use crate::{
    Case,
    crucible::{Base, Trace, message, told},
};

/// A method's name beside a draft, and how it sends the draft what it got itself.
pub(crate) struct Beside {
    pub selector: String,
    pub header: String,
    pub send: String,
}

impl Beside {
    /// `arguments` are those of `selector`.
    pub fn new(name: &str, selector: &str, arguments: &[String]) -> Self {
        let keywords =
            arguments.iter().enumerate().map(|(n, _)| if n == 0 { format!("{name}:") } else { "with:".to_owned() });
        let own: String = if arguments.is_empty() { name.to_owned() } else { keywords.collect() };
        let send = format!("self {}", header(selector, arguments));
        Self { header: header(&own, arguments), selector: own, send }
    }
}

/// What an intent's method keeps, with the names of its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    pub arguments: Vec<String>,
    pub parts: ContractDefinition,
}

/// What the contract's method answers where the message failed although it was required not to.
const FAILS: &str = "fails";

impl Contract {
    /// Answers true where it is kept, nil where it says nothing.
    fn method(&self, beside: &Beside) -> String {
        let Beside { header, send, .. } = beside;
        let ContractDefinition { requires, ensures } = &self.parts;
        let (requires, fails) = match requires {
            Some(requires) => (format!("(\n{requires}\n) ifFalse: [ ^nil ]. "), format!("#{FAILS}")),
            None => (String::new(), "nil".to_owned()),
        };
        // A copy of what the receiver leads to is only made where it is looked at.
        let before = if ensures.contains("before") { "before := self deepCopy. " } else { "" };
        format!(
            "{header} = ( | before answer | {requires}{before}answer := [ {send} ] on: Error do: [ :error | ^{fails} ]. \
             ^(\n{ensures}\n) )"
        )
    }
}

impl Case<'_> {
    /// A name that no draft can know.
    pub(crate) fn unknown_name(&self) -> String {
        format!("said{}", blake3::Hash::from_bytes(self.seed).to_hex().get(..16).unwrap_or_default())
    }

    /// Sends `beside` what the example sends, with the method `source` of this name beside the draft's.
    pub(crate) async fn said(
        &self,
        draft: &str,
        (beside, source): (&str, &str),
        example: &Example,
        number: usize,
    ) -> Result<Result<Trace, String>, UniverseError> {
        let mut case = Case { view: self.view.clone(), ..*self };
        let Some((_, record)) = case.view.object(self.receiver).await? else {
            return Ok(Err(format!("receiver {} is gone", self.receiver)));
        };
        case.view.overlay(self.receiver, Patch::Method(beside).on(&record, source)?);
        let send = SendCommand { selector: beside.to_owned(), arguments: example.send.arguments.clone() };
        case.sent(Some(draft), self.receiver, &Example { send, ..example.clone() }, number).await
    }

    /// How it breaks the intent's contract on what the examples send, on the message that asked for it, or on messages
    /// like the examples; and whether minds may not know where.
    pub(crate) async fn broken_contract(
        &self,
        source: &str,
        base: &mut Base,
    ) -> Result<Option<(String, bool)>, UniverseError> {
        let Some((contract, selector)) = self.contract.zip(self.selector()) else { return Ok(None) };
        let beside = Beside::new(&self.unknown_name(), selector, &contract.arguments);
        let method = contract.method(&beside);
        let asked = self.asked.map(|arguments| message(selector, arguments.to_vec()));
        let probes = self.probes();
        let shown = self.examples.iter().map(|example| (example, format!(" on {}", told(example))));
        // Of real messages no values are told.
        let real = asked.iter().map(|message| (message, " on the message that asked for it".to_owned()));
        let like = probes.iter().map(|probe| (probe, format!(" on {}", told(probe))));
        for (number, (example, place)) in shown.chain(real).chain(like).enumerate() {
            let hidden = example.hidden && number < self.examples.len();
            let Ok(trace) = self.said(source, (&beside.selector, &method), example, number).await? else { continue };
            base.extend(&trace.base);
            if let Some(how) = contract.broken(&trace) {
                return Ok(Some((format!("it breaks its contract{place}: {how}"), hidden)));
            }
        }
        Ok(None)
    }
}

impl Contract {
    /// What the contract's method said against the draft.
    fn broken(&self, trace: &Trace) -> Option<String> {
        match &trace.answer {
            Ok(Wire::Bool(true) | Wire::Null) => None,
            Ok(Wire::Bool(false)) => Some(format!("afterwards this is false: {}", self.parts.ensures)),
            Ok(Wire::String(said)) if said == FAILS => Some("it fails although what it requires is true".to_owned()),
            Ok(other) => Some(format!("what it ensures is neither true nor false: {other}")),
            // Without a requirement nobody says that the message had to end.
            Err(error) if error.kind == ErrorKind::LimitExceeded && self.parts.requires.is_none() => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use batos_uvm::vm::check_method;

    use super::*;

    #[test]
    fn contracts_are_methods_that_compile() {
        for (selector, arguments) in
            [("size", &[][..]), ("+", &["n"]), ("at:", &["key"]), ("at:put:", &["key", "value"])]
        {
            let arguments: Vec<String> = arguments.iter().map(|name| (*name).to_owned()).collect();
            let beside = Beside::new("said", selector, &arguments);
            for requires in [None, Some("self size > 0 \"a comment\"".to_owned())] {
                let ensures = "before size = self size and: [ answer notNil ]".to_owned();
                let contract =
                    Contract { arguments: arguments.clone(), parts: ContractDefinition { requires, ensures } };
                let source = contract.method(&beside);
                assert_eq!(
                    check_method(&source).map(|method| method.selector),
                    Ok(beside.selector.clone()),
                    "{source}"
                );
            }
        }
    }
}
