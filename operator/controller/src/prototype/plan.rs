use batos_covenant::{
    AccessClass, ApplyCommand, Command, Encoding, ErrorKind, ErrorReply, OkReply, RemoveCommand, Reply, Subject, encode,
};
use batos_crds::{DeletionPolicy, DriftPolicy, Prototype, PrototypeStatus, SlotOwner, SlotSpec, SlotStatus, Universe};
use kube::ResourceExt;

use crate::{
    condition::{IN_SYNC, Outlook, READY, Verdict, find, is_true, truncated},
    context::Settings,
    universe::{Reach, reach},
};

/// Largest encoded apply, in bytes: NATS takes a mebibyte, and the record of an object holds a quarter of one.
const MAX_APPLY: usize = 960 << 10;
/// The definition of a status refuses longer errors, in bytes.
const MAX_ERROR: usize = 1024;
const DRIFTED: &str = "Drifted";

pub struct Observed<'a> {
    pub universe: Option<&'a Universe>,
    /// Whether it is time to ask the universe for drift, though the definition is there.
    pub due: bool,
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
    pub reach: Reach,
    /// Namespace of the universe.
    pub namespace: String,
    pub subject: Subject,
    pub command: Command,
}

#[derive(Debug, PartialEq)]
pub struct Conclusion {
    pub verdict: Verdict,
    /// On drift, once the universe has told.
    pub sync: Option<Verdict>,
    pub slots: Vec<SlotStatus>,
    /// How many slots the universe changed itself.
    pub drift: Option<i32>,
    pub object: Option<String>,
    pub rev: Option<u64>,
    /// The Universe that has the object: one made anew under the same name gets the definition again.
    pub universe_uid: Option<String>,
    /// Try again after a pause, even if nothing changes.
    pub retry: bool,
}

/// The next step.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one is made in a reconcile")]
pub enum Next {
    Send(Box<Send>),
    Conclude(Conclusion),
    /// Nothing is left to do for a resource that is deleted.
    Release,
}

/// The conclusion that changes nothing but the verdict.
fn unchanged(status: &PrototypeStatus, verdict: Verdict, retry: bool) -> Next {
    // What was known of slots stays as it was told last.
    let sync = find(&status.conditions, IN_SYNC).map(|c| match c.status == "True" {
        true => in_sync(),
        false => Verdict::new(IN_SYNC, Outlook::Bad, DRIFTED, &c.message),
    });
    Next::Conclude(Conclusion {
        verdict,
        sync,
        slots: status.slots.clone().unwrap_or_default(),
        drift: status.drift,
        object: status.object.clone(),
        rev: status.rev.and_then(|rev| u64::try_from(rev).ok()),
        universe_uid: status.universe_uid.clone(),
        retry,
    })
}

/// What becomes of a resource that is deleted, and that has the finalizer.
pub fn end(
    prototype: &Prototype,
    universe: Option<&Universe>,
    outcome: Option<&Outcome>,
    settings: &Settings,
    term: i64,
) -> Next {
    let status = prototype.status.clone().unwrap_or_default();
    let report = |verdict: Verdict| unchanged(&status, verdict, true);
    // A universe that is gone is not waited for; what its store has stays there.
    let Some(universe) = universe.filter(|_| prototype.spec.deletion_policy == DeletionPolicy::Delete) else {
        return Next::Release;
    };
    let name = &prototype.spec.universe;
    match outcome {
        None if universe.status.as_ref().and_then(|s| s.workers_ready).unwrap_or(0) < 1 => {
            let text = format!("its object goes once universe {name:?} has a worker; deletionPolicy Retain leaves it");
            unchanged(&status, Verdict::waiting("UniverseNotReady", text), false)
        }
        None => {
            let remove = RemoveCommand {
                uid: prototype.uid().unwrap_or_default(),
                generation: prototype.metadata.generation.unwrap_or(0),
                term,
            };
            let (reach, namespace) = (reach(universe, settings), universe.namespace().unwrap_or_default());
            match Subject::new(&reach.root, name, AccessClass::Adm, &prototype.name_any(), "remove") {
                Ok(subject) => {
                    Next::Send(Box::new(Send { reach, namespace, subject, command: Command::Remove(remove) }))
                }
                // No such object was ever made.
                Err(_) => Next::Release,
            }
        }
        Some(Outcome::Unreachable(why)) => report(Verdict::bad("Unreachable", why)),
        Some(Outcome::Replied(Reply::Ok(_))) => Next::Release,
        Some(Outcome::Replied(Reply::Error { error })) if error.kind == ErrorKind::InUse => {
            report(Verdict::bad("InUse", &error.message))
        }
        Some(Outcome::Replied(Reply::Error { error })) => report(Verdict::bad("RemoveFailed", &error.message)),
    }
}

pub fn plan(prototype: &Prototype, observed: &Observed<'_>, settings: &Settings, term: i64) -> Next {
    let status = prototype.status.clone().unwrap_or_default();
    let report = |verdict: Verdict, retry: bool| unchanged(&status, verdict, retry);
    let name = &prototype.spec.universe;
    let Some(universe) = observed.universe else {
        return report(Verdict::waiting("UniverseMissing", format!("no Universe {name:?} in this namespace")), false);
    };
    let outcome = match observed.outcome {
        Some(outcome) => outcome,
        None if is_applied(prototype, universe) && !observed.due => {
            return report(Verdict::ready("Applied", format!("the object lives in universe {name:?}")), false);
        }
        None if universe.status.as_ref().and_then(|s| s.workers_ready).unwrap_or(0) < 1 => {
            return report(
                Verdict::waiting("UniverseNotReady", format!("universe {name:?} has no ready worker")),
                false,
            );
        }
        None => {
            let (reach, namespace) = (reach(universe, settings), universe.namespace().unwrap_or_default());
            return match Subject::new(&reach.root, name, AccessClass::Adm, &prototype.name_any(), "apply") {
                Ok(subject) => {
                    let command = command(prototype, term);
                    match encode(&command, Encoding::MessagePack).map(|bytes| bytes.len()) {
                        Ok(size) if size <= MAX_APPLY => {
                            Next::Send(Box::new(Send { reach, namespace, subject, command }))
                        }
                        Ok(size) => {
                            let text = format!("the definition has {size} bytes, at most {MAX_APPLY} fit; split it");
                            report(Verdict::bad("TooLarge", text), false)
                        }
                        Err(error) => report(Verdict::bad("Refused", error.to_string()), false),
                    }
                }
                Err(error) => report(Verdict::bad("BadName", error.to_string()), false),
            };
        }
    };
    match outcome {
        Outcome::Unreachable(why) => report(Verdict::bad("Unreachable", why), true),
        Outcome::Replied(Reply::Ok(reply)) => Next::Conclude(Conclusion {
            verdict: Verdict::ready("Applied", format!("the object lives in universe {name:?}")),
            sync: Some(sync(prototype, &drifted(reply))),
            slots: slots(prototype, &drifted(reply)),
            drift: i32::try_from(drifted(reply).len()).ok(),
            object: reply.value.get("object").and_then(|id| id.as_str()).map(str::to_owned),
            rev: Some(reply.rev),
            universe_uid: universe.uid(),
            retry: false,
        }),
        Outcome::Replied(Reply::Error { error }) => match error.kind {
            // Nothing but a change of the manifest helps.
            ErrorKind::SyntaxError | ErrorKind::BadRequest if error.slot.is_some() => {
                let reason = if error.kind == ErrorKind::SyntaxError { "SyntaxError" } else { "Refused" };
                match report(Verdict::bad(reason, &error.message), false) {
                    Next::Conclude(conclusion) => {
                        let slots = blamed(prototype, conclusion.slots, error);
                        Next::Conclude(Conclusion { slots, ..conclusion })
                    }
                    send => send,
                }
            }
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
        enforce: prototype.spec.drift == DriftPolicy::Enforce,
    })
}

/// Slots that the universe changed itself, as it says.
fn drifted(reply: &OkReply) -> Vec<&str> {
    let names = reply.value.get("drift").and_then(|names| names.as_array());
    names.into_iter().flatten().filter_map(|name| name.as_str()).collect()
}

fn in_sync() -> Verdict {
    Verdict::new(IN_SYNC, Outlook::Good, "InSync", "the slots are as the definition has them")
}

fn sync(prototype: &Prototype, drifted: &[&str]) -> Verdict {
    match prototype.spec.drift == DriftPolicy::Adopt || drifted.is_empty() {
        true => in_sync(),
        false => {
            let text = format!("the universe changed itself: {}; a change of the slot here wins", drifted.join(", "));
            Verdict::new(IN_SYNC, Outlook::Bad, DRIFTED, text)
        }
    }
}

fn slots(prototype: &Prototype, drifted: &[&str]) -> Vec<SlotStatus> {
    let slot = |slot: &SlotSpec| {
        let live = drifted.contains(&slot.name.as_str());
        SlotStatus {
            name: slot.name.clone(),
            owner: if live { SlotOwner::Live } else { SlotOwner::Manifest },
            drift: live && prototype.spec.drift != DriftPolicy::Adopt,
            error: None,
        }
    };
    prototype.spec.slots.iter().map(slot).collect()
}

/// The slots as they were, with the error at the one that it is about.
fn blamed(prototype: &Prototype, before: Vec<SlotStatus>, error: &ErrorReply) -> Vec<SlotStatus> {
    let slot = |slot: &SlotSpec| {
        let known = before.iter().find(|known| known.name == slot.name).cloned();
        let blamed = error.slot.as_ref() == Some(&slot.name);
        SlotStatus {
            error: blamed.then(|| truncated(&error.message, MAX_ERROR)),
            ..known.unwrap_or_else(|| SlotStatus { name: slot.name.clone(), ..SlotStatus::default() })
        }
    };
    prototype.spec.slots.iter().map(slot).collect()
}
