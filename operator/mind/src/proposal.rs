//! Methods that wait for a person. A proposal belongs to an object and a selector, so that many senders of one message
//! make one proposal; the row in the graph is the truth, whatever shows it.

use batos_covenant::{
    Conflict, Decision, Encoding, Proposal, ProposalKind, ProposalPage, ProposalState, decode, encode,
};
use batos_graph::{Key, ObjectId, Put, Rev, StoreError};
use batos_uvm::universe::{Changes, Universe, UniverseError, View, now};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::{
    Approver, BecomingError, Job, Mind, MindError, Outcome, Step,
    becoming::refuse,
    codex::Halt,
    journal::load,
    provenance::{self, digest},
    route::{Route, Situation, Trigger},
};

/// The last millisecond of the year 9999: a conflict does not pass by itself.
pub(crate) const NEVER: u64 = 253_402_300_799_999;
/// Proposals on one page.
const PAGE: usize = 64;

/// Why a decision was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("{0:?} is no proposal of this universe")]
    NoSuchProposal(String),
    #[error("the proposal is {0}: nothing is left to decide")]
    Settled(&'static str),
    #[error("the decision is about source {decided}, the proposal's is {proposed}: look at it again")]
    OtherSource { decided: String, proposed: String },
    #[error("the decision has expired: sign it again")]
    Expired,
    #[error("key {0:?} is not one of this universe's Architects")]
    UnknownKey(String),
    #[error("the signature is not of this decision and key")]
    BadSignature,
    #[error(transparent)]
    Becoming(#[from] BecomingError),
}

impl From<UniverseError> for ApprovalError {
    fn from(error: UniverseError) -> Self {
        Self::Becoming(error.into())
    }
}

/// A new signing key, as PKCS#8, and its public key.
pub fn signing_key() -> Result<(Vec<u8>, Approver), String> {
    let random = ring::rand::SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| "no randomness".to_owned())?;
    let key = document.as_ref().to_vec();
    let public = public_key(&key)?;
    Ok((key, public))
}

/// The public key of a PKCS#8 signing key.
pub fn public_key(key: &[u8]) -> Result<Approver, String> {
    let pair = Ed25519KeyPair::from_pkcs8(key).map_err(|e| format!("no signing key: {e}"))?;
    pair.public_key().as_ref().try_into().map_err(|_| "a public key of another length".to_owned())
}

/// A public key, from hexadecimal.
pub fn approver(text: &str) -> Option<Approver> {
    unhex(text)?.try_into().ok()
}

/// Signs a decision with a PKCS#8 key; sets its key and signature.
pub fn sign(decision: &mut Decision, universe: &str, key: &[u8]) -> Result<(), String> {
    let pair = Ed25519KeyPair::from_pkcs8(key).map_err(|e| format!("no signing key: {e}"))?;
    decision.key = hex(pair.public_key().as_ref());
    decision.signature = hex(pair.sign(decision.text(universe).as_bytes()).as_ref());
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

pub(crate) async fn find(universe: &Universe, id: ObjectId) -> Result<Option<(Rev, Proposal)>, UniverseError> {
    let rows = universe.store().read(&[universe.keys().proposal(id)]).await.map_err(UniverseError::Store)?;
    rows.into_iter().next().flatten().map(|row| Ok((row.rev, parse(&row.bytes)?))).transpose()
}

fn parse(bytes: &[u8]) -> Result<Proposal, UniverseError> {
    decode(bytes).map(|(proposal, _)| proposal).map_err(|e| UniverseError::Internal(format!("proposal: {e}")))
}

pub(crate) fn row(universe: &Universe, id: ObjectId, proposal: &Proposal) -> Result<Put, UniverseError> {
    let bytes = encode(proposal, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
    Ok(Put { key: universe.keys().proposal(id), bytes })
}

fn is_past(milliseconds: u64) -> bool {
    milliseconds <= now()
}

impl Mind {
    /// Puts what was judged before a person; the becoming waits.
    pub(crate) async fn propose(&self, mut job: Job) -> Result<(Job, Changes), UniverseError> {
        if self.pending().await? >= self.policy.most_pending {
            refuse(&mut job, format!("{} proposals wait for a person already", self.policy.most_pending));
            return Ok((job, Changes::default()));
        }
        let changes = self.put_before_a_person(&job).await?;
        job.step = Step::Proposed;
        Ok((job, changes))
    }

    /// Ends a becoming that broke a rule. The universe makes nothing by itself until an Architect has answered.
    pub(crate) async fn halt(&self, mut job: Job, conflict: Conflict) -> Result<(Job, Changes), UniverseError> {
        let reason = format!("it breaks {conflict}; nothing more is made until the Architect answers: batos proposals");
        job.conflict = Some(conflict);
        let conflicting = |route: Route| Route::of(Situation { trigger: Trigger::Conflict, ..route.situation });
        job.route = job.route.map(conflicting);
        let mut changes = self.put_before_a_person(&job).await?;
        changes.rows.push(Halt::with(&self.universe, job.id, true).await?);
        refuse(&mut job, reason);
        Ok((job, changes))
    }

    async fn put_before_a_person(&self, job: &Job) -> Result<Changes, UniverseError> {
        let (holder_id, _, holder) = self.universe.holder_of(job.patch(), job.receiver).await?;
        let id = job.id;
        let before = find(&self.universe, id).await?.map(|(rev, _)| rev);
        let source = job.draft.clone().unwrap_or_default();
        let name = View::new(&self.universe).object(job.receiver).await?.and_then(|(_, record)| record.name.clone());
        let patience = u64::try_from(self.policy.patience.as_millis()).unwrap_or(u64::MAX);
        let proposal = Proposal {
            id: id.to_string(),
            kind: ProposalKind::Slot,
            state: ProposalState::Pending,
            object: job.receiver.to_string(),
            name: name.clone(),
            holder: holder_id.to_string(),
            selector: job.selector.clone(),
            digest: digest(source.as_bytes()),
            asked: job.directive.as_ref().map(|directive| directive.text.clone()),
            replaces: job.replaces(&holder, &source),
            source,
            risks: job.risks.clone(),
            conflict: job.conflict.clone(),
            mind: job.mind.clone(),
            becoming: job.id.to_string(),
            proposed_at: now(),
            expires_at: if job.conflict.is_some() { NEVER } else { now().saturating_add(patience) },
            decision: None,
        };
        tracing::info!(
            proposal = %id, selector = job.selector, risks = ?job.risks, conflict = ?job.conflict, "a person is asked"
        );
        let mut changes = Changes::default();
        let token = name.unwrap_or_else(|| job.receiver.to_string());
        let kind = if job.conflict.is_some() { "conflict" } else { "proposal" };
        changes.events.push(self.universe.event_row(id, before.unwrap_or(0) + 1, token, kind, &proposal)?);
        changes.rows.push((row(&self.universe, id, &proposal)?, before));
        Ok(changes)
    }

    /// Refuses while an Architect has to answer; else the row that says so, and its revision, for what is made meanwhile.
    pub(crate) async fn unhalted(&self) -> Result<(Key, Option<Rev>), BecomingError> {
        let (rev, halt) = Halt::read(&self.universe).await?;
        match halt.conflicts.first() {
            Some(conflict) => Err(MindError::Halted(conflict.clone()).into()),
            None => Ok((self.universe.keys().halt(), rev)),
        }
    }

    pub(crate) async fn proposed(&self, job: &Job) -> Result<Outcome, BecomingError> {
        match find(&self.universe, job.id).await? {
            Some((_, proposal)) => Ok(Outcome::Proposed(Box::new(proposal))),
            None => Err(UniverseError::Internal(format!("becoming {} lost its proposal", job.id)).into()),
        }
    }

    /// Whether a person may still decide about it.
    pub(crate) async fn is_pending(&self, job: &Job) -> Result<bool, UniverseError> {
        let found = find(&self.universe, job.id).await?;
        Ok(found.is_some_and(|(_, proposal)| proposal.state == ProposalState::Pending && !is_past(proposal.expires_at)))
    }

    async fn pending(&self) -> Result<usize, UniverseError> {
        let mut pending = 0;
        let mut after = None;
        loop {
            let page = self.proposals(after.as_ref()).await?;
            let waits = |proposal: &&Proposal| proposal.state == ProposalState::Pending;
            pending += page.proposals.iter().filter(waits).count();
            after = match page.next.map(|next| next.parse()) {
                Some(Ok(next)) => Some(next),
                _ => return Ok(pending),
            };
        }
    }

    /// Proposals, a page at a time. One that nobody decided about in time is shown as expired.
    pub async fn proposals(&self, after: Option<&ObjectId>) -> Result<ProposalPage, UniverseError> {
        let keys = self.universe.keys();
        let mut proposals = Vec::new();
        for shard in after.map_or(0, ObjectId::shard)..=u8::MAX {
            let (mut start, end) = keys.proposal_range(shard);
            if let Some(after) = after.filter(|after| after.shard() == shard) {
                start = keys.proposal(*after).successor();
            }
            let rows = self.universe.store().scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
            for (_, row) in &rows {
                let mut proposal = parse(&row.bytes)?;
                if proposal.state == ProposalState::Pending && is_past(proposal.expires_at) {
                    proposal.state = ProposalState::Expired;
                }
                proposals.push(proposal);
            }
            if rows.len() == PAGE || proposals.len() >= PAGE {
                let next = proposals.last().map(|proposal: &Proposal| proposal.id.clone());
                return Ok(ProposalPage { proposals, next });
            }
        }
        Ok(ProposalPage { proposals, next: None })
    }

    /// Carries out what an Architect decided. Answers the proposal as it is then.
    pub async fn decide(&self, decision: Decision) -> Result<Proposal, ApprovalError> {
        let unknown = || ApprovalError::NoSuchProposal(decision.proposal.chars().take(80).collect());
        let id: ObjectId = decision.proposal.parse().map_err(|_| unknown())?;
        let (rev, mut proposal) = find(&self.universe, id).await?.ok_or_else(unknown)?;
        // The same decision again: its first reply was lost.
        if proposal.decision.as_ref() == Some(&decision) {
            return Ok(proposal);
        }
        self.check(&decision, &proposal)?;
        if proposal.kind == ProposalKind::Amendment {
            return self.decide_amendment(rev, proposal, decision).await;
        }
        let job_id = proposal.becoming.parse().map_err(|_| unknown())?;
        let (job_rev, mut job) = load(&self.universe, job_id).await?.ok_or_else(unknown)?;
        // A change that broke the Codex was refused at once.
        let waits = if proposal.conflict.is_some() { Step::Refused } else { Step::Proposed };
        if job.step != waits {
            return Err(ApprovalError::Settled("under way"));
        }
        proposal.decision = Some(decision.clone());
        match decision.approve {
            true => {
                proposal.state = ProposalState::Approved;
                job.decision = Some(decision.clone());
                job.refusal = None;
                job.step = Step::Judged;
            }
            false => {
                proposal.state = ProposalState::Denied;
                let why = if decision.reason.is_empty() { "without a reason" } else { &decision.reason };
                refuse(&mut job, format!("a person denied it: {why}"));
            }
        }
        let mut changes = Changes::default();
        changes.rows.push((row(&self.universe, id, &proposal)?, Some(rev)));
        if proposal.conflict.is_some() {
            changes.rows.push(Halt::with(&self.universe, id, false).await?);
        }
        match self.step(&job, Some(job_rev), changes).await {
            Err(UniverseError::Store(StoreError::Conflict(_))) => return Err(ApprovalError::Settled("under way")),
            other => other.map(|_| ())?,
        }
        if decision.approve {
            self.pursue(job.id).await?;
        }
        if proposal.conflict.is_some() {
            self.resume().await?;
        }
        Ok(find(&self.universe, id).await?.map_or(proposal, |(_, proposal)| proposal))
    }

    fn check(&self, decision: &Decision, proposal: &Proposal) -> Result<(), ApprovalError> {
        match proposal.state {
            ProposalState::Pending if is_past(proposal.expires_at) => return Err(ApprovalError::Settled("expired")),
            ProposalState::Pending => {}
            ProposalState::Approved | ProposalState::Applied => return Err(ApprovalError::Settled("approved")),
            ProposalState::Denied => return Err(ApprovalError::Settled("denied")),
            ProposalState::Expired => return Err(ApprovalError::Settled("expired")),
            ProposalState::Superseded => return Err(ApprovalError::Settled("superseded")),
        }
        if decision.digest != proposal.digest {
            let (decided, proposed) = (decision.digest.chars().take(80).collect(), proposal.digest.clone());
            return Err(ApprovalError::OtherSource { decided, proposed });
        }
        if is_past(decision.expires_at) {
            return Err(ApprovalError::Expired);
        }
        let known = |key: &Vec<u8>| self.policy.approvers.iter().any(|known| known.as_slice() == key.as_slice());
        let unknown = || ApprovalError::UnknownKey(decision.key.chars().take(80).collect());
        let key = unhex(&decision.key).filter(known).ok_or_else(unknown)?;
        let signature = unhex(&decision.signature).ok_or(ApprovalError::BadSignature)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(decision.text(self.universe.name()).as_bytes(), &signature)
            .map_err(|_| ApprovalError::BadSignature)
    }

    /// Adds to a swap what belongs to its commit: where the method came from, and what became of the proposal. When the
    /// object has changed since a person was asked, answers what refuses the becoming instead.
    pub(crate) async fn settle(
        &self,
        job: &mut Job,
        holder: ObjectId,
        changes: &mut Changes,
    ) -> Result<Option<(Job, Changes)>, BecomingError> {
        let now_there = View::new(&self.universe).object(holder).await?;
        let source = job.draft.clone().unwrap_or_default();
        let now_there = now_there.and_then(|(_, record)| job.replaces(&record, &source));
        if let Some(decision) = &job.decision {
            let id = decision.proposal.parse().unwrap_or(job.id);
            if let Some((rev, mut proposal)) = find(&self.universe, id).await? {
                let superseded = proposal.replaces != now_there || proposal.holder != holder.to_string();
                proposal.state = if superseded { ProposalState::Superseded } else { ProposalState::Applied };
                let row = (row(&self.universe, id, &proposal)?, Some(rev));
                if superseded {
                    let mut job = job.clone();
                    refuse(&mut job, "the object was changed while a person was asked".to_owned());
                    return Ok(Some((job, Changes { rows: vec![row], ..Changes::default() })));
                }
                changes.rows.push(row);
            }
        }
        provenance::add(&self.universe, job, holder, now_there, changes).await?;
        Ok(None)
    }
}
