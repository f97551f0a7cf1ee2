//! Amendments of the Codex. The laws in force are a row of the graph, so that all workers of a universe have the same. What
//! a manifest adds to them is law at once; a manifest that takes one away, or changes it, is a proposal like a risky
//! method, and until an Architect has approved it the laws stay as they are.

use batos_covenant::{Decision, Encoding, Laws, Proposal, ProposalKind, ProposalState, decode, encode};
use batos_graph::{ObjectId, Put, Rev, StoreError};
use batos_uvm::{
    image::CODEX,
    universe::{Changes, UniverseError, now},
};
use serde::Serialize;

use crate::{
    ApprovalError, Autonomy, Codex, Mind,
    proposal::{NEVER, find, row},
    provenance::digest,
};

/// Who drafts amendments.
const MANIFEST: &str = "the manifest";
/// Attempts to be first where several workers start.
const ATTEMPTS: usize = 16;

/// Told when other laws come into force.
#[derive(Debug, Serialize)]
struct Amended<'a> {
    #[serde(flatten)]
    laws: Laws,
    /// Absent where nothing was taken away.
    decision: Option<&'a Decision>,
}

impl Codex {
    /// What another version takes away of these laws, or changes.
    fn losses(&self, next: &Self) -> Vec<String> {
        let principles = self.principles.iter().filter(|principle| !next.principles.contains(principle));
        let principles = principles.map(|principle| format!("the principle {principle:?} goes"));
        let rules = self.rules.iter().filter(|rule| !next.rules.contains(rule));
        let rules = rules.map(|rule| match next.rules.iter().any(|other| other.name == rule.name) {
            true => format!("the rule {:?} changes", rule.name),
            false => format!("the rule {:?} goes", rule.name),
        });
        principles.chain(rules).collect()
    }

    /// For people, and what a decision is about.
    fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// The id of the one amendment that may wait.
fn amendment() -> ObjectId {
    ObjectId::of_name("amendment of the codex")
}

impl Mind {
    /// The laws in force, and the revision of their row; before there is one, the manifest's.
    pub(crate) async fn laws(&self) -> Result<(Option<Rev>, Codex), UniverseError> {
        let rows = self.universe.store().read(&[self.universe.keys().laws()]).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok((None, self.policy.codex.clone())) };
        let (laws, _) = decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("laws: {e}")))?;
        Ok((Some(row.rev), laws))
    }

    /// The laws in force, for people.
    pub async fn laws_in_force(&self) -> Result<Laws, UniverseError> {
        let (rev, codex) = self.laws().await?;
        Ok(told(rev, &codex))
    }

    /// Brings the manifest's laws into force, or before a person. Done when a worker starts.
    pub async fn amend(&self) -> Result<(), UniverseError> {
        self.amend_to(true).await
    }

    /// As `amend`, but brings nothing into force: of a worker that has run for a while the manifest may be an old one. It
    /// counts again when a rollout is taken back, and no worker starts.
    pub(crate) async fn amend_again(&self) -> Result<(), UniverseError> {
        self.amend_to(false).await
    }

    async fn amend_to(&self, starts: bool) -> Result<(), UniverseError> {
        for _ in 0..ATTEMPTS {
            let changes = self.amendment_of(&self.policy.codex, starts).await?;
            if changes.rows.is_empty() {
                return Ok(());
            }
            match self.universe.commit(self.universe.fresh_marker()?, Vec::new(), changes).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) => {}
                other => return other,
            }
        }
        Err(UniverseError::Internal("the Codex is being amended by others all the time".to_owned()))
    }

    async fn amendment_of(&self, wanted: &Codex, starts: bool) -> Result<Changes, UniverseError> {
        let (rev, laws) = self.laws().await?;
        let id = amendment();
        let pending = find(&self.universe, id).await?;
        let is_new = rev.is_none() && *wanted != Codex::default();
        let losses = laws.losses(wanted);
        let mut changes = Changes::default();
        if is_new || (laws != *wanted && (losses.is_empty() || self.policy.autonomy == Autonomy::Free)) {
            if !starts {
                return Ok(changes);
            }
            changes = self.enact(rev, wanted, None)?;
        } else if laws != *wanted {
            let (source, replaces) = (wanted.text(), Some(laws.text()));
            let digest = digest(source.as_bytes());
            let is_known = |known: &Proposal| {
                let stands = matches!(known.state, ProposalState::Pending | ProposalState::Denied);
                stands && known.digest == digest && known.replaces == replaces
            };
            if pending.as_ref().is_some_and(|(_, known)| is_known(known)) {
                return Ok(changes);
            }
            tracing::warn!(?losses, "the manifest amends the Codex: the laws stay until an Architect approves");
            let proposal = Proposal {
                id: id.to_string(),
                kind: ProposalKind::Amendment,
                state: ProposalState::Pending,
                object: CODEX.to_string(),
                name: Some("codex".to_owned()),
                holder: CODEX.to_string(),
                selector: "laws".to_owned(),
                asked: None,
                source,
                replaces,
                digest,
                risks: losses,
                conflict: None,
                mind: MANIFEST.to_owned(),
                becoming: String::new(),
                proposed_at: now(),
                expires_at: NEVER,
                decision: None,
            };
            let before = pending.as_ref().map(|(rev, _)| *rev);
            let event =
                self.universe.event_row(id, before.unwrap_or(0) + 1, "codex".to_owned(), "proposal", &proposal)?;
            changes.events.push(event);
            changes.rows.push((row(&self.universe, id, &proposal)?, before));
            return Ok(changes);
        }
        // The manifest wants no longer what waits.
        if let Some((rev, mut proposal)) = pending.filter(|(_, known)| known.state == ProposalState::Pending) {
            proposal.state = ProposalState::Superseded;
            changes.rows.push((row(&self.universe, id, &proposal)?, Some(rev)));
        }
        Ok(changes)
    }

    /// Makes these the laws in force.
    fn enact(&self, rev: Option<Rev>, laws: &Codex, decision: Option<&Decision>) -> Result<Changes, UniverseError> {
        let bytes = encode(laws, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
        let next = rev.unwrap_or(0) + 1;
        let event = Amended { laws: told(Some(next), laws), decision };
        tracing::info!(version = next, codex = event.laws.digest, "other laws are in force");
        let mut changes = Changes::default();
        changes.rows.push((Put { key: self.universe.keys().laws(), bytes }, rev));
        changes.events.push(self.universe.event_row(CODEX, next, "codex".to_owned(), "amended", &event)?);
        Ok(changes)
    }

    /// Carries out what an Architect decided about an amendment.
    pub(crate) async fn decide_amendment(
        &self,
        rev: Rev,
        mut proposal: Proposal,
        decision: Decision,
    ) -> Result<Proposal, ApprovalError> {
        let (laws_rev, laws) = self.laws().await?;
        let amended: Codex = serde_json::from_str(&proposal.source)
            .map_err(|e| UniverseError::Internal(format!("amendment of the codex: {e}")))?;
        let (mut changes, state) = match decision.approve {
            false => (Changes::default(), ProposalState::Denied),
            true if proposal.replaces != Some(laws.text()) => (Changes::default(), ProposalState::Superseded),
            true => (self.enact(laws_rev, &amended, Some(&decision))?, ProposalState::Applied),
        };
        proposal.state = state;
        proposal.decision = Some(decision);
        changes.rows.push((row(&self.universe, amendment(), &proposal)?, Some(rev)));
        match self.universe.commit(self.universe.fresh_marker()?, Vec::new(), changes).await {
            Err(UniverseError::Store(StoreError::Conflict(_))) => Err(ApprovalError::Settled("under way")),
            other => Ok(other.map(|()| proposal)?),
        }
    }
}

fn told(rev: Option<Rev>, codex: &Codex) -> Laws {
    let laws = serde_json::to_value(codex).unwrap_or_default();
    Laws { version: rev.unwrap_or(0), digest: codex.digest(), laws }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    #[test]
    fn what_is_only_added_to_takes_nothing_away() {
        let rule = |name: &str, bytes| Rule { name: name.to_owned(), max_bytes: Some(bytes), ..Rule::default() };
        let codex = |principles: &[&str], rules: &[(&str, usize)]| Codex {
            principles: principles.iter().map(|text| (*text).to_owned()).collect(),
            rules: rules.iter().map(|(name, bytes)| rule(name, *bytes)).collect(),
        };
        let laws = codex(&["be kind"], &[("short", 100)]);
        for (next, wanted) in [
            (laws.clone(), &[][..]),
            (codex(&["be true", "be kind"], &[("a", 1), ("short", 100)]), &[]),
            (codex(&[], &[("short", 100)]), &["the principle \"be kind\" goes"]),
            (codex(&["be kind"], &[]), &["the rule \"short\" goes"]),
            (codex(&["be kind"], &[("short", 101)]), &["the rule \"short\" changes"]),
        ] {
            assert_eq!(laws.losses(&next), wanted, "{next:?}");
            assert_eq!(serde_json::from_str::<Codex>(&next.text()).unwrap(), next);
        }
        assert_eq!(Codex::default().losses(&laws), Vec::<String>::new());
    }
}
