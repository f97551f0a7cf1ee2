//! Where made methods came from: a record beside the object for each, chained by digests, written with the method.

use batos_covenant::{Brought, Encoding, Provenance, RefusedDraft, Why, decode, encode};
use batos_graph::{ObjectId, Put};
use batos_uvm::{
    syntax::{SlotNode, SlotNodeKind, parse_slots, print_slot},
    universe::{Changes, Universe, UniverseError, now},
};

use crate::{BecomingError, Job, Mind, Scribe};

/// Records of one object that are looked through for a selector.
const PAGE: usize = 128;

/// BLAKE3, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A record has a limit.
fn capped(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Adds the record of the method that `changes` brings.
pub(crate) async fn add(
    universe: &Universe,
    job: &Job,
    holder: ObjectId,
    replaced: Option<String>,
    changes: &mut Changes,
) -> Result<(), BecomingError> {
    let scribe = Scribe::read(universe).await?;
    let keys = universe.keys();
    // What brings data alone changes the receiver alone.
    let written = changes.writes.iter().any(|write| write.id == holder);
    let holder = changes.writes.first().filter(|_| !written).map_or(holder, |write| write.id);
    let lineage = universe.store().read(&[keys.lineage(holder)]).await.map_err(UniverseError::Store)?;
    let lineage = lineage.into_iter().next().flatten();
    let rev = changes.writes.iter().find(|write| write.id == holder).and_then(|write| write.prev_rev).unwrap_or(0) + 1;
    let source = job.draft.clone().unwrap_or_default();
    let provenance = Provenance {
        becoming: job.id.to_string(),
        selector: job.selector.clone(),
        asked: job.directive.as_ref().map(|directive| directive.text.clone()),
        brings: brings(job, &source),
        rev,
        digest: digest(source.as_bytes()),
        replaced,
        mind: job.mind.clone(),
        request: job.prompt.1.clone(),
        prompt: capped(&job.prompt.0, scribe.prompt),
        forge_rev: job.forge_rev,
        seed: job.seed(),
        model_calls: job.model_calls,
        prompt_tokens: job.usage.prompt_tokens,
        completion_tokens: job.usage.completion_tokens,
        refused: job
            .failures
            .iter()
            .map(|failure| RefusedDraft {
                draft: capped(&failure.draft, scribe.prompt),
                reason: failure.reason.clone(),
            })
            .collect(),
        examples: job.examples,
        agreement: job.agreement.clone(),
        personae: job.personae.clone(),
        risks: job.risks.clone(),
        codex: job.codex.clone(),
        conflict: job.conflict.clone(),
        decision: job.decision.clone(),
        made_at: now(),
        before: lineage.as_ref().map(|row| String::from_utf8_lossy(&row.bytes).into_owned()).unwrap_or_default(),
    };
    let bytes = encode(&provenance, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
    let last = digest(&bytes).into_bytes();
    changes.rows.push((Put { key: keys.provenance(holder, rev), bytes }, None));
    changes.rows.push((Put { key: keys.lineage(holder), bytes: last }, lineage.map(|row| row.rev)));
    Ok(())
}

/// The methods of a patch that brings several slots.
fn brings(job: &Job, source: &str) -> Vec<Brought> {
    if job.directive.is_none() {
        return Vec::new();
    }
    let slots = parse_slots(source).unwrap_or_default().into_iter();
    let methods = slots.filter(|slot| matches!(slot.kind, SlotNodeKind::Method(_)));
    let brought = |slot: SlotNode| Brought { digest: digest(print_slot(&slot).as_bytes()), selector: slot.name };
    methods.map(brought).collect()
}

impl Mind {
    /// Where the content of a slot came from.
    pub async fn why(&self, object: ObjectId, slot: &str) -> Result<Why, UniverseError> {
        let (holder, source) = self.universe.slot(object, slot).await?;
        let change = self.universe.history(holder, Some(slot), None).await?.changes.into_iter().next();
        let source_digest = digest(source.as_bytes());
        let (mut start, end) = self.universe.keys().provenance_range(holder);
        let mut provenance = None;
        loop {
            let rows = self.universe.store().scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
            for (_, row) in &rows {
                let (found, _): (Provenance, _) =
                    decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("provenance: {e}")))?;
                let brought = found.brings.iter().any(|part| part.selector == slot && part.digest == source_digest);
                if brought || (found.selector == slot && found.digest == source_digest) {
                    provenance = Some(found);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = last.successor(),
                _ => break,
            }
        }
        Ok(Why {
            holder: holder.to_string(),
            selector: slot.to_owned(),
            source,
            rev: change.as_ref().map(|change| change.rev),
            by: change.and_then(|change| change.by),
            provenance,
        })
    }
}
