use std::time::Duration;

use batos_covenant::{AccessClass, Command, Decision, ErrorKind, Reply, Subject};
use batos_crds::{DecisionState, DecisionVerdict, Proposal, ProposalDecision, Universe};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::policy::Refusal;
use crate::{
    condition::Verdict,
    context::Settings,
    proposal::{ANY, belongs},
    universe::{Reach, reach},
};

/// How long a decision counts that does not say so, in seconds.
const LIFE: i64 = 3600;

#[derive(Debug, PartialEq)]
pub struct Conclusion {
    pub state: DecisionState,
    pub verdict: Verdict,
    /// Try again after a pause, even if nothing changes.
    pub retry: bool,
}

/// A decision before it is signed, and where it goes.
#[derive(Debug, PartialEq)]
pub struct Send {
    pub reach: Reach,
    pub subject: Subject,
    pub universe: String,
    pub decision: Decision,
}

impl Send {
    pub fn command(self) -> (Reach, Subject, Command) {
        (self.reach, self.subject, Command::Approve(self.decision))
    }
}

fn waiting(reason: &'static str, why: String) -> Conclusion {
    Conclusion { state: DecisionState::Waiting, verdict: Verdict::waiting(reason, why), retry: false }
}

/// It will come to nothing, and never is tried again.
pub fn refused((reason, why): Refusal) -> Conclusion {
    Conclusion { state: DecisionState::Refused, verdict: Verdict::bad(reason, why), retry: false }
}

/// It did not come through, and may have: the same is said once more.
pub fn unreached(reason: &'static str, why: String) -> Conclusion {
    Conclusion { state: DecisionState::Waiting, verdict: Verdict::bad(reason, why), retry: true }
}

/// Whether all is done about it.
pub fn is_settled(decision: &ProposalDecision) -> bool {
    let state = decision.status.as_ref().and_then(|status| status.state);
    matches!(state, Some(DecisionState::Done | DecisionState::Refused))
}

/// Seconds since 1970 after which it does not count. The same whoever asks and when: it is signed.
fn expires(decision: &ProposalDecision) -> i64 {
    let said = decision.spec.expires_at.as_ref().map(|time| time.0.as_second());
    let created = decision.creation_timestamp().map_or(0, |time| time.0.as_second());
    said.unwrap_or_else(|| created.saturating_add(LIFE))
}

/// How long it may still be carried out.
pub fn rest(decision: &ProposalDecision, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(expires(decision).saturating_sub(now.as_second())).unwrap_or(0).max(1))
}

/// What is to be signed and sent, or why nothing is.
pub fn aim(
    decision: &ProposalDecision,
    proposal: Option<&Proposal>,
    universe: impl FnOnce(&str) -> Option<Universe>,
    now: Timestamp,
    settings: &Settings,
) -> Result<Send, Conclusion> {
    let name = &decision.spec.proposal;
    let missing = |why: String| match expires(decision) <= now.as_second() {
        true => refused(("Expired", format!("{why}, and the time to decide is over"))),
        false => waiting("ProposalMissing", why),
    };
    let Some(proposal) = proposal else {
        return Err(missing(format!("no Proposal {name:?} in this namespace")));
    };
    let Some(universe) = universe(&proposal.spec.universe).filter(|universe| belongs(proposal, universe)) else {
        return Err(missing(format!("the universe of Proposal {name:?} is gone")));
    };
    let spec = &proposal.spec;
    if decision.spec.digest != spec.digest {
        let why =
            format!("it is about source {}, the proposal's is {}: look at it again", decision.spec.digest, spec.digest);
        return Err(refused(("OtherSource", why)));
    }
    if blake3::hash(spec.source.as_bytes()).to_hex().as_str() != spec.digest {
        let why =
            "the Proposal does not show all of its source: look at it with `batos proposals`, and sign with a key";
        return Err(refused(("SourceNotShown", why.to_owned())));
    }
    let reach = reach(&universe, settings);
    let (approver, reason) = (&decision.spec.approver, &decision.spec.reason);
    let signed = Decision {
        proposal: spec.id.clone(),
        digest: spec.digest.clone(),
        approve: decision.spec.verdict == DecisionVerdict::Approve,
        // The universe knows the operator's key alone: who it was goes with the reason.
        reason: if reason.is_empty() { approver.clone() } else { format!("{approver}: {reason}") },
        expires_at: u64::try_from(expires(decision)).unwrap_or(0).saturating_mul(1000),
        key: String::new(),
        signature: String::new(),
    };
    let universe = universe.name_any();
    match Subject::new(&reach.root, &universe, AccessClass::Adm, ANY, "approve") {
        Ok(subject) => Ok(Send { reach, subject, universe, decision: signed }),
        Err(error) => Err(refused(("BadName", error.to_string()))),
    }
}

/// What the universe made of it.
pub fn conclude(outcome: Result<Reply, String>) -> Conclusion {
    match outcome {
        Err(why) => unreached("Unreachable", why),
        Ok(Reply::Ok(reply)) => match serde_json::from_value::<batos_covenant::Proposal>(reply.value) {
            Ok(row) => {
                let verdict = match row.state {
                    batos_covenant::ProposalState::Superseded => {
                        Verdict::bad("Superseded", "the object was changed meanwhile: another proposal has to be made")
                    }
                    batos_covenant::ProposalState::Denied => Verdict::ready("Denied", "the method stays out"),
                    batos_covenant::ProposalState::Applied => Verdict::ready("Applied", "the method is in its object"),
                    _ => Verdict::ready("Approved", "the universe has taken it, and will swap the method in"),
                };
                Conclusion { state: DecisionState::Done, verdict, retry: false }
            }
            Err(error) => unreached("Unreachable", format!("an answer that is no proposal: {error}")),
        },
        Ok(Reply::Error { error }) => match error.kind {
            ErrorKind::NoSuchObject | ErrorKind::Stale | ErrorKind::BadRequest => refused(("Refused", error.message)),
            // Among others: workers that do not know the operator's key yet.
            _ => unreached("NotTaken", error.message),
        },
    }
}
