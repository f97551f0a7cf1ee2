//! What a made method may become without a person, and what a person is asked. Policies come from the universe's
//! manifest, not from the graph: what is made must not reach what permits it.

use std::{collections::BTreeSet, time::Duration};

use batos_graph::Record;
use batos_uvm::syntax::sent_by;

use crate::{Budget, Codex, Persona};

/// How much a universe makes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Autonomy {
    /// It makes nothing: a message that nobody understands is an error.
    Strict,
    /// Every method waits for a person.
    Ask,
    /// Methods with a risk wait for a person.
    #[default]
    Careful,
    /// Whatever the Crucible admits goes in.
    Free,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub autonomy: Autonomy,
    /// How long a proposal waits for a decision.
    pub patience: Duration,
    /// Proposals that may wait at once; beyond them nothing more is made that a person would be asked about.
    pub most_pending: usize,
    /// Public keys whose decisions count.
    pub approvers: Vec<Approver>,
    pub codex: Codex,
    pub personae: Vec<Persona>,
    pub budget: Budget,
    /// How long a becoming whose worker died waits for another one.
    pub lease: Duration,
    /// How often a method may fail within an hour before it is made anew; it never is when absent.
    pub repair_after: Option<u32>,
    /// Messages that a worker remembers, to try on them what would replace a method.
    pub recent_messages: usize,
}

/// An Ed25519 public key.
pub type Approver = [u8; 32];

impl Default for Policy {
    fn default() -> Self {
        let patience = Duration::from_secs(7 * 24 * 3600);
        Self {
            autonomy: Autonomy::default(),
            patience,
            most_pending: 256,
            approvers: Vec::new(),
            codex: Codex::default(),
            personae: Vec::new(),
            budget: Budget::default(),
            lease: Duration::from_secs(15),
            repair_after: None,
            recent_messages: 0,
        }
    }
}

/// What a method can do beyond its receiver, by the selectors that it sends.
const REACH: &[(&str, &[&str])] = &[
    (
        "it changes slots or parents",
        &[
            "setSlot:value:",
            "addSlot:value:",
            "addConstant:value:",
            "addAssignable:value:",
            "addParent:value:",
            "removeSlot:",
            "mirror",
            "Mirror",
        ],
    ),
    (
        "it sends messages that run on their own",
        &["async", "AsyncSender", "after:send:", "after:send:with:", "after:send:withArguments:", "cancelTimer:"],
    ),
    (
        "it computes what it sends",
        &[
            "perform:",
            "perform:with:",
            "perform:with:with:",
            "perform:with:with:with:",
            "perform:with:with:with:with:",
            "perform:withArguments:",
            "sendTo:",
            "sentTo:",
            "adaptToNumber:andSend:",
            "asSymbol",
            "slotNames",
        ],
    ),
];

impl Policy {
    /// Why a person has to be asked about `source`, which brings slots of these names to `holder`; nothing to ask when it is
    /// empty. `effects`: what the Crucible saw it do beyond its receiver.
    pub fn risks(&self, holder: &Record, names: &[String], source: &str, effects: &BTreeSet<String>) -> Vec<String> {
        let mut risks = Vec::new();
        match self.autonomy {
            Autonomy::Free | Autonomy::Strict => return risks,
            Autonomy::Ask => risks.push("this universe asks about every method".to_owned()),
            Autonomy::Careful => {}
        }
        if holder.manifest.is_none() {
            risks.push("its holder did not come from a manifest".to_owned());
        }
        if names.iter().any(|name| holder.slot(name).is_some_and(|slot| slot.kind.method().is_some())) {
            risks.push("it replaces a method".to_owned());
        }
        let sent = sent_by(source);
        for (reach, selectors) in REACH {
            let used: Vec<&str> = selectors.iter().copied().filter(|selector| sent.contains(*selector)).collect();
            if !used.is_empty() {
                risks.push(format!("{reach} ({})", used.join(", ")));
            }
        }
        risks.extend(effects.iter().cloned());
        risks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn risks_are_told_by_what_a_method_sends() {
        let manifest = batos_graph::Manifest { uid: String::new(), generation: 0, term: 0, definition: String::new() };
        let holder = Record { manifest: Some(manifest), ..Record::default() };
        for (source, wanted) in [
            ("f: n = ( balance: balance - n. ^balance )", None),
            ("f: n = ( Dictionary new at: 1 put: n; yourself )", None),
            ("f: n = ( self setSlot: #x value: n )", Some("changes slots")),
            ("f: n = ( [ (Mirror on: self) at: #x put: n ] value )", Some("(Mirror)")),
            ("f: n = ( (self mirror) at: #x put: n )", Some("(mirror)")),
            ("f: n = ( self async g: n; h )", Some("on their own")),
            ("f: n = ( (| g = ( self perform: n ) |) g )", Some("computes")),
            ("f: n = ( #(1 2) do: [ :i | self after: i send: #g ] )", Some("on their own")),
            // A symbol is evaluated as the message that it names, however it was come by.
            ("f: n = ( #mirror value: self )", Some("(mirror)")),
            ("f: n = ( #(1 mirror) last value: self )", Some("(mirror)")),
            ("f: n = ( (| mirror = 1 |) slotNames first value: self )", Some("(mirror)")),
            ("f: n = ( ('mir' , 'ror') asSymbol value: self )", Some("computes")),
            ("f: n = ( (| p* = AsyncSender. _target = n |) g )", Some("on their own")),
            ("f: n = ( #(3 1) collect: #negated )", None),
        ] {
            let risks = Policy::default().risks(&holder, &["f:".to_owned()], source, &BTreeSet::new());
            match wanted {
                None => assert_eq!(risks, Vec::<String>::new(), "{source}"),
                Some(wanted) => assert!(risks.concat().contains(wanted), "{source}: {risks:?}"),
            }
        }
        let ask = Policy { autonomy: Autonomy::Ask, ..Policy::default() };
        assert_eq!(ask.risks(&holder, &[], "f = ( 1 )", &BTreeSet::new()).len(), 1);
        assert_eq!(Policy::default().risks(&Record::default(), &[], "f = ( 1 )", &BTreeSet::new()).len(), 1);
    }
}
