use batos_covenant::{AccessClass, ApplyCommand, Command, ErrorKind, Reply, Subject};
use batos_crds::{Prototype, Universe};
use kube::ResourceExt;

use crate::{
    condition::{READY, Verdict, is_true},
    context::Settings,
    universe::reach,
};

pub struct Observed<'a> {
    pub universe: Option<&'a Universe>,
    /// What became of the request that a plan asked for.
    pub outcome: Option<&'a Outcome>,
}

/// What became of a request.
pub enum Outcome {
    Replied(Reply),
    /// No reply: whether it was carried out is not known, and a repeat does no harm.
    Unreachable(String),
}

/// A request to a universe.
#[derive(Debug, PartialEq)]
pub struct Send {
    pub bus: String,
    pub subject: Subject,
    pub command: Command,
}

#[derive(Debug, PartialEq)]
pub struct Conclusion {
    pub verdict: Verdict,
    pub object: Option<String>,
    pub rev: Option<u64>,
    /// The Universe that has the object: one made anew under the same name gets the definition again.
    pub universe_uid: Option<String>,
    /// Try again after a pause, even if nothing changes.
    pub retry: bool,
}

/// The next step.
#[derive(Debug, PartialEq)]
pub enum Next {
    Send(Box<Send>),
    Conclude(Conclusion),
}

pub fn plan(prototype: &Prototype, observed: &Observed<'_>, settings: &Settings, term: i64) -> Next {
    let status = prototype.status.clone().unwrap_or_default();
    let report = |verdict: Verdict, retry: bool| {
        let (object, rev) = (status.object.clone(), status.rev.and_then(|rev| u64::try_from(rev).ok()));
        Next::Conclude(Conclusion { verdict, object, rev, universe_uid: status.universe_uid.clone(), retry })
    };
    let name = &prototype.spec.universe;
    let Some(universe) = observed.universe else {
        return report(Verdict::waiting("UniverseMissing", format!("no Universe {name:?} in this namespace")), false);
    };
    let outcome = match observed.outcome {
        Some(outcome) => outcome,
        None if is_applied(prototype, universe) => {
            return report(Verdict::ready("Applied", format!("the object lives in universe {name:?}")), false);
        }
        None if universe.status.as_ref().and_then(|s| s.workers_ready).unwrap_or(0) < 1 => {
            return report(
                Verdict::waiting("UniverseNotReady", format!("universe {name:?} has no ready worker")),
                false,
            );
        }
        None => {
            let (bus, root) = reach(universe, settings);
            return match Subject::new(&root, name, AccessClass::Adm, &prototype.name_any(), "apply") {
                Ok(subject) => Next::Send(Box::new(Send { bus, subject, command: command(prototype, term) })),
                Err(error) => report(Verdict::bad("BadName", error.to_string()), false),
            };
        }
    };
    match outcome {
        Outcome::Unreachable(why) => report(Verdict::bad("Unreachable", why), true),
        Outcome::Replied(Reply::Ok(reply)) => Next::Conclude(Conclusion {
            verdict: Verdict::ready("Applied", format!("the object lives in universe {name:?}")),
            object: reply.value.get("object").and_then(|id| id.as_str()).map(str::to_owned),
            rev: Some(reply.rev),
            universe_uid: universe.uid(),
            retry: false,
        }),
        Outcome::Replied(Reply::Error { error }) => match error.kind {
            // Nothing but a change of the manifest helps.
            ErrorKind::SyntaxError => report(Verdict::bad("SyntaxError", &error.message), false),
            ErrorKind::Stale => report(Verdict::bad("Stale", &error.message), false),
            ErrorKind::BadRequest | ErrorKind::LimitExceeded => report(Verdict::bad("Refused", &error.message), false),
            // A parent that is a resource wakes this one; another may come at any time.
            ErrorKind::NoSuchObject => report(Verdict::waiting("ParentMissing", &error.message), true),
            _ => report(Verdict::bad("ApplyFailed", &error.message), true),
        },
    }
}

/// Whether this very definition is in this very universe.
fn is_applied(prototype: &Prototype, universe: &Universe) -> bool {
    prototype.status.as_ref().is_some_and(|status| {
        status.observed_generation == prototype.metadata.generation
            && status.universe_uid.is_some()
            && status.universe_uid == universe.uid()
            && is_true(&status.conditions, READY)
    })
}

fn command(prototype: &Prototype, term: i64) -> Command {
    Command::Apply(ApplyCommand {
        definition: prototype.spec.definition(),
        uid: prototype.uid().unwrap_or_default(),
        generation: prototype.metadata.generation.unwrap_or(0),
        term,
    })
}
