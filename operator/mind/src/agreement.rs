//! Whether drafts that were written independently do the same, also where no example says what is right. Nothing else
//! tells a method that is right from one that only fits its examples, as CodeT found (arXiv 2207.10397).

use std::fmt;

use batos_covenant::ErrorKind;
use batos_graph::Value;

use crate::{Trace, crucible::plain};

/// What a draft does on one message that no example has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// BLAKE3 of the answer and of what it leaves, and both for people.
    Does {
        digest: [u8; 32],
        shown: String,
    },
    /// It ran into a limit of the turn.
    Endless,
    Fails,
}

/// What a draft does, message by message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour(pub Vec<(String, Outcome)>);

/// How many drafts do what the chosen one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The chosen one: the first of the largest group.
    pub chosen: usize,
    /// Size of its group, and of all groups.
    pub alike: usize,
    pub all: usize,
    /// Where the first one outside the group does something else.
    pub dissent: Option<Dissent>,
}

impl Agreement {
    /// Why a person decides: fewer of so many drafts do the same than are wanted, or as many do something else.
    pub fn lone(&self, drafts: usize, wanted: usize) -> Option<String> {
        let Self { alike, all, dissent, .. } = self;
        if *alike >= wanted.min(drafts) && 2 * alike > *all {
            return None;
        }
        let why = || match dissent {
            Some(dissent) => dissent.to_string(),
            None => "the others fail the examples".to_owned(),
        };
        Some(format!("only {alike} of {drafts} drafts does what it does: {}", why()))
    }
}

/// A message on which two drafts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dissent {
    pub message: String,
    pub chosen: Outcome,
    pub other: Outcome,
}

/// Longest text of an outcome that people are shown, in characters.
const MAX_SHOWN: usize = 120;

impl Outcome {
    pub fn of(trace: &Trace) -> Self {
        match &trace.answer {
            Ok(answer) => {
                // Objects that it makes have ids by the order in which it makes them.
                let leaves: Vec<_> = trace.leaves.iter().filter(|(_, value)| !matches!(value, Value::Ref(_))).collect();
                let digest = *blake3::hash(format!("{answer} {leaves:?}").as_bytes()).as_bytes();
                let leaves = trace.leaves.iter().map(|(name, value)| format!(", leaves {name} = {}", plain(value)));
                let shown = format!("answers {answer}{}", leaves.collect::<String>());
                Self::Does { digest, shown: shown.chars().take(MAX_SHOWN).collect() }
            }
            Err(error) if error.kind == ErrorKind::LimitExceeded => Self::Endless,
            Err(_) => Self::Fails,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Does { shown, .. } => f.write_str(shown),
            Self::Endless => f.write_str("does not end"),
            Self::Fails => f.write_str("fails"),
        }
    }
}

impl fmt::Display for Dissent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {} it {}, another draft {}", self.message, self.chosen, self.other)
    }
}

/// Groups drafts that do the same on all messages, which all were given in one order; `None` without drafts. A message on
/// which half of the drafts or more fail is not what the method is for, and says nothing.
pub fn agree(drafts: &[&Behaviour]) -> Option<Agreement> {
    let messages = drafts.iter().map(|draft| draft.0.len()).min().unwrap_or(0);
    let outcome = |draft: &Behaviour, at: usize| draft.0.get(at).map(|(_, outcome)| outcome.clone());
    let says_something = |at: &usize| {
        let failed = drafts.iter().filter(|draft| outcome(draft, *at) == Some(Outcome::Fails)).count();
        2 * failed < drafts.len()
    };
    let telling: Vec<usize> = (0..messages).filter(says_something).collect();
    let differs = |a: &Behaviour, b: &Behaviour| telling.iter().copied().find(|at| outcome(a, *at) != outcome(b, *at));
    let alike = |a: &Behaviour| drafts.iter().filter(|b| differs(a, b).is_none()).count();
    // Of equals the last is the greatest.
    let (chosen, one) = drafts.iter().enumerate().rev().max_by_key(|(_, draft)| alike(draft))?;
    let dissent = drafts.iter().find_map(|other| {
        let at = differs(one, other)?;
        let (message, _) = one.0.get(at)?;
        Some(Dissent { message: message.clone(), chosen: outcome(one, at)?, other: outcome(other, at)? })
    });
    Some(Agreement { chosen, alike: alike(one), all: drafts.len(), dissent })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters are answers, `-` fails, `*` does not end.
    fn behaviour(text: &str) -> Behaviour {
        let outcome = |c: char| match c {
            '-' => Outcome::Fails,
            '*' => Outcome::Endless,
            _ => Outcome::Does { digest: *blake3::hash(c.to_string().as_bytes()).as_bytes(), shown: c.to_string() },
        };
        Behaviour(text.chars().enumerate().map(|(n, c)| (format!("m{n}"), outcome(c))).collect())
    }

    #[test]
    fn the_largest_group_is_chosen() {
        for (drafts, chosen, alike, dissent) in [
            (vec!["abc"], 0, 1, None),
            (vec!["abc", "abc"], 0, 2, None),
            (vec!["abx", "abc"], 0, 1, Some("on m2 it x, another draft c")),
            (vec!["abx", "abc", "abc"], 1, 2, Some("on m2 it c, another draft x")),
            // Half of them fail there: it says nothing.
            (vec!["ab-", "abc"], 0, 2, None),
            (vec!["ab-", "abc", "abc"], 1, 2, Some("on m2 it c, another draft fails")),
            (vec!["ab*", "abc"], 0, 1, Some("on m2 it does not end, another draft c")),
            (vec!["", ""], 0, 2, None),
        ] {
            let behaviours: Vec<Behaviour> = drafts.iter().map(|text| behaviour(text)).collect();
            let found = agree(&behaviours.iter().collect::<Vec<_>>()).unwrap();
            let told = found.dissent.map(|dissent| dissent.to_string());
            assert_eq!((found.chosen, found.alike, told.as_deref()), (chosen, alike, dissent), "{drafts:?}");
        }
        assert_eq!(agree(&[]), None);
    }

    #[test]
    fn a_person_decides_where_too_few_agree() {
        for (alike, all, drafts, wanted, asks) in [
            (1, 1, 1, 2, false), // The mind gave one.
            (1, 1, 3, 2, true),
            (2, 2, 3, 2, false),
            (2, 3, 3, 2, false),
            (2, 4, 4, 2, true), // As many do something else.
            (2, 3, 3, 3, true),
            (1, 1, 3, 1, false),
        ] {
            let found = Agreement { chosen: 0, alike, all, dissent: None };
            assert_eq!(found.lone(drafts, wanted).is_some(), asks, "{alike} of {all} of {drafts}, {wanted} wanted");
        }
    }
}
