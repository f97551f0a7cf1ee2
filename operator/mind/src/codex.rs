//! The laws of a universe: principles that its minds are told, and rules that every change is held against. They come from
//! manifests, out of reach of what is made; how they come into force is told in `amendment`.

use std::collections::BTreeSet;

use batos_covenant::{Conflict, Encoding, decode, encode};
use batos_graph::{ObjectId, Put, Rev};
use batos_uvm::{
    syntax::sent_by,
    universe::{TRAITS_PREFIX, Universe, UniverseError},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Codex {
    /// Told to minds, as data.
    pub principles: Vec<String>,
    pub rules: Vec<Rule>,
}

/// What made methods must not do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    pub name: String,
    /// For people.
    pub why: String,
    /// Names of the objects that it is about; none: all.
    pub objects: Vec<String>,
    /// Nothing is made for these objects.
    pub forbid_making: bool,
    /// Selectors that must not be sent.
    pub forbid_sends: Vec<String>,
    /// Names of objects that must be neither changed nor named.
    pub forbid_reaching: Vec<String>,
    /// Longest source, in bytes.
    pub max_bytes: Option<usize>,
}

/// A method that would be added, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Names of the object that lacks it, and of the one that would hold it.
    pub objects: &'a [&'a str],
    /// Canonical.
    pub source: &'a str,
    /// Names of other objects that it names or changes.
    pub touched: &'a BTreeSet<String>,
}

impl Codex {
    /// Names this version; empty when there are no laws.
    pub fn digest(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let text = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&text).to_hex().to_string()
    }

    /// The first rule by which nothing may be made for these objects.
    pub fn forbids_making(&self, objects: &[&str]) -> Option<Conflict> {
        let rule = self.rules.iter().find(|rule| rule.forbid_making && rule.is_about(objects));
        rule.map(|rule| rule.broken("nothing is made for this object"))
    }

    /// The first rule that a change breaks.
    pub fn conflict(&self, change: Change<'_>) -> Option<Conflict> {
        let sent = sent_by(change.source);
        self.rules.iter().filter(|rule| rule.is_about(change.objects)).find_map(|rule| {
            if let Some(selector) = rule.forbid_sends.iter().find(|selector| sent.contains(*selector)) {
                return Some(rule.broken(&format!("it sends {selector:?}")));
            }
            if let Some(name) = rule.forbid_reaching.iter().find(|name| change.touched.contains(*name)) {
                return Some(rule.broken(&format!("it reaches {name:?}")));
            }
            let bytes = change.source.len();
            let is_long = rule.max_bytes.is_some_and(|most| bytes > most);
            is_long.then(|| rule.broken(&format!("it has {bytes} bytes")))
        })
    }
}

impl Rule {
    fn is_about(&self, objects: &[&str]) -> bool {
        let bare = |name: &&str| name.strip_prefix(TRAITS_PREFIX).unwrap_or(name).to_owned();
        self.objects.is_empty() || objects.iter().map(bare).any(|name| self.objects.contains(&name))
    }

    fn broken(&self, how: &str) -> Conflict {
        Conflict { rule: self.name.clone(), why: self.why.clone(), how: how.to_owned() }
    }
}

/// The conflicts that an Architect has not answered yet: while there are any, the universe makes nothing by itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Halt {
    /// Ids of proposals.
    pub conflicts: BTreeSet<String>,
}

impl Halt {
    pub async fn read(universe: &Universe) -> Result<(Option<Rev>, Self), UniverseError> {
        let rows = universe.store().read(&[universe.keys().halt()]).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok((None, Self::default())) };
        let (halt, _) = decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("conflicts: {e}")))?;
        Ok((Some(row.rev), halt))
    }

    /// The row after `proposal` has begun or ceased to be one of them.
    pub async fn with(
        universe: &Universe,
        proposal: ObjectId,
        halts: bool,
    ) -> Result<(Put, Option<Rev>), UniverseError> {
        let (rev, mut halt) = Self::read(universe).await?;
        match halts {
            true => halt.conflicts.insert(proposal.to_string()),
            false => halt.conflicts.remove(&proposal.to_string()),
        };
        let bytes = encode(&halt, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok((Put { key: universe.keys().halt(), bytes }, rev))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_about_objects_and_see_sends_names_and_length() {
        let rule = |name: &str, change: fn(&mut Rule)| {
            let mut rule = Rule { name: name.to_owned(), ..Rule::default() };
            change(&mut rule);
            rule
        };
        let codex = Codex {
            principles: Vec::new(),
            rules: vec![
                rule("quiet", |rule| {
                    rule.objects = vec!["account".to_owned()];
                    rule.forbid_sends = vec!["async".to_owned()];
                }),
                rule("ledger", |rule| rule.forbid_reaching = vec!["ledger".to_owned()]),
                rule("short", |rule| rule.max_bytes = Some(40)),
                rule("by hand", |rule| {
                    rule.objects = vec!["vault".to_owned()];
                    rule.forbid_making = true;
                }),
            ],
        };
        let ledger = BTreeSet::from(["ledger".to_owned()]);
        let nothing = BTreeSet::new();
        for (objects, source, touched, wanted) in [
            (["account", "traits account"], "f = ( self async g )", &nothing, Some("quiet")),
            (["", "traits account"], "f = ( [ #async ] value )", &nothing, Some("quiet")),
            (["bank", "traits bank"], "f = ( self async g )", &nothing, None),
            (["bank", "traits bank"], "f = ( ledger g )", &ledger, Some("ledger")),
            (["bank", "traits bank"], "f = ( 1000000000 + 1000000000 + 1000000000 )", &nothing, Some("short")),
            (["bank", "traits bank"], "f = ( 1 )", &nothing, None),
        ] {
            let broken = codex.conflict(Change { objects: &objects, source, touched });
            assert_eq!(broken.map(|conflict| conflict.rule).as_deref(), wanted, "{source}");
        }
        assert!(codex.forbids_making(&["bank", "traits bank"]).is_none());
        assert_eq!(codex.forbids_making(&["a vault", "traits vault"]).unwrap().rule, "by hand");
        assert_ne!(codex.digest(), Codex { rules: Vec::new(), ..codex.clone() }.digest());
        assert_eq!(Codex::default().digest(), "");
    }
}
