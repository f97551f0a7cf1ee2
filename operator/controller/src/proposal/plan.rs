use std::cmp::Reverse;

use batos_covenant::{ProposalKind, ProposalState as Row};
use batos_crds::{ConflictSpec, Proposal, ProposalSpec, ProposalState, Universe};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Resource, ResourceExt};

use crate::{
    condition::{Verdict, truncated},
    meta,
};

/// Proposals of a universe that are settled and still shown: the last.
const SETTLED: usize = 32;
/// As the definition has them, in bytes.
const MAX_SOURCE: usize = 65536;
const MAX_TEXT: usize = 1024;
const MAX_NAME: usize = 128;
const MAX_RISKS: usize = 32;

/// A proposal that is to be seen.
pub struct Shown<'a> {
    pub object: Proposal,
    pub state: ProposalState,
    pub verdict: Verdict,
    /// The same, as it is there.
    pub live: Option<&'a Proposal>,
}

#[derive(Default)]
pub struct Plan<'a> {
    pub shown: Vec<Shown<'a>>,
    /// Settled long ago, of another universe of this name, or no projection at all.
    pub gone: Vec<&'a Proposal>,
}

pub fn plan<'a>(universe: &Universe, rows: &[batos_covenant::Proposal], live: &'a [Proposal]) -> Plan<'a> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| (row.state != Row::Pending, Reverse(row.proposed_at), row.id.clone()));
    let pending = rows.iter().filter(|row| row.state == Row::Pending).count();
    rows.truncate(pending.saturating_add(SETTLED));

    let mut plan = Plan::default();
    for row in rows {
        let object = object(universe, row);
        let there = live.iter().find(|live| live.metadata.name == object.metadata.name);
        // Nothing can be made of one that another wrote: it goes first, and then the right one comes.
        if there.is_none_or(|live| live.spec == object.spec && belongs(live, universe)) {
            plan.shown.push(Shown { object, state: state(row.state), verdict: verdict(row), live: there });
        }
    }
    let is_shown = |live: &&Proposal| plan.shown.iter().any(|shown| shown.object.metadata.name == live.metadata.name);
    plan.gone = live.iter().filter(|live| !is_shown(live)).collect();
    plan
}

/// Whether it is a projection of this very universe.
pub fn belongs(proposal: &Proposal, universe: &Universe) -> bool {
    let uid = universe.meta().uid.as_deref();
    proposal.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// An object and a selector have one row after another under one id: each draft gets a name of its own.
pub fn name(universe: &str, row: &batos_covenant::Proposal) -> String {
    format!("{universe}-{}", meta::digest(&format!("{}\n{}\n{}", row.id, row.proposed_at, row.digest)))
}

fn object(universe: &Universe, row: &batos_covenant::Proposal) -> Proposal {
    let owner = universe.name_any();
    let text = |text: &str| truncated(text, MAX_TEXT);
    let spec = ProposalSpec {
        universe: owner.clone(),
        id: truncated(&row.id, 64),
        amendment: row.kind == ProposalKind::Amendment,
        object: truncated(row.name.as_deref().unwrap_or(&row.object), MAX_NAME),
        holder: truncated(&row.holder, 64),
        selector: truncated(&row.selector, 256),
        source: truncated(&row.source, MAX_SOURCE),
        digest: truncated(&row.digest, 64),
        asked: row.asked.clone(),
        replaces: row.replaces.as_deref().map(|source| truncated(source, MAX_SOURCE)),
        risks: row.risks.iter().take(MAX_RISKS).map(|risk| text(risk)).collect(),
        conflict: row.conflict.as_ref().map(|conflict| ConflictSpec {
            rule: truncated(&conflict.rule, 63),
            why: text(&conflict.why),
            how: text(&conflict.how),
        }),
        mind: truncated(&row.mind, 256),
        proposed_at: time(row.proposed_at).unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        expires_at: time(row.expires_at),
    };
    let mut object = Proposal::new(&name(&owner, row), spec);
    object.metadata = meta::child(universe, &object.name_any(), meta::labels("proposal", meta::UNIVERSE, &owner));
    object
}

/// Whole seconds, as the API server keeps them; none where the calendar ends.
fn time(milliseconds: u64) -> Option<Time> {
    i64::try_from(milliseconds / 1000).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).map(Time)
}

fn state(row: Row) -> ProposalState {
    match row {
        Row::Pending => ProposalState::Pending,
        Row::Approved => ProposalState::Approved,
        Row::Denied => ProposalState::Denied,
        Row::Expired => ProposalState::Expired,
        Row::Applied => ProposalState::Applied,
        Row::Superseded => ProposalState::Superseded,
    }
}

/// How it stands: ready is what is settled.
fn verdict(row: &batos_covenant::Proposal) -> Verdict {
    let reason = row.decision.as_ref().map(|decision| decision.reason.as_str()).unwrap_or_default();
    let by = |what: &str| truncated(&format!("{what}: {reason}"), MAX_TEXT);
    match row.state {
        Row::Pending => match &row.conflict {
            Some(conflict) => {
                Verdict::bad("Conflict", format!("it breaks {conflict}; nothing more is made until then"))
            }
            None => Verdict::waiting("Pending", "a person has to decide"),
        },
        Row::Approved => Verdict::waiting("Approved", by("approved")),
        Row::Denied => Verdict::ready("Denied", by("denied")),
        Row::Expired => Verdict::ready("Expired", "nobody decided in time"),
        Row::Applied => Verdict::ready("Applied", by("approved")),
        Row::Superseded => Verdict::ready("Superseded", "the object was changed while a person was asked"),
    }
}
