//! What is wrong with a draft by its text alone, beside what the compiler says.

use std::collections::BTreeSet;

use batos_graph::SlotKind;
use batos_uvm::{
    syntax::{Own, SlotNode, SlotNodeKind, parse_method, parse_slots},
    universe::{Patch, UniverseError},
};

use crate::Case;

impl Case<'_> {
    /// Refuses what cannot be put in its place, what sends itself messages that nobody understands, and variables that
    /// hide the receiver's data: one then reads what it did not mean.
    pub(crate) async fn lint(&self, source: &str) -> Result<Result<(), String>, UniverseError> {
        let Some((_, own)) = self.view.object(self.receiver).await? else { return Ok(Ok(())) };
        if let Err(wrong) = self.patch.apply(source, (self.receiver, &own), self.holder) {
            return Ok(Err(wrong.to_string()));
        }
        let slots = match self.patch {
            Patch::Slots => parse_slots(source),
            _ => parse_method(source).map(|method| vec![method]),
        };
        let slots = slots.unwrap_or_default();
        let brought: BTreeSet<String> = slots.iter().flat_map(selectors).collect();
        for slot in &slots {
            let Own { sends, variables } = Own::of(slot);
            for (selector, at) in sends {
                if !brought.contains(&selector) && !self.is_understood(&selector).await? {
                    let place = format!("line {}, column {}", at.line, at.column);
                    return Ok(Err(format!("{place}: it sends {selector:?} to itself, which nobody understands")));
                }
            }
            for variable in variables {
                let slot = own.slot(&variable).map(|slot| &slot.kind);
                if matches!(slot, Some(SlotKind::Assignable(_) | SlotKind::Constant(_))) {
                    return Ok(Err(format!(
                        "its variable {variable:?} hides the slot of that name: call it otherwise"
                    )));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether the receiver understands a message, or is one that answers any.
    async fn is_understood(&self, selector: &str) -> Result<bool, UniverseError> {
        let assigned = selector.strip_suffix(':').unwrap_or_default();
        Ok(self.inherited(selector).await?.is_some()
            || matches!(self.inherited(assigned).await?, Some(SlotKind::Assignable(_)))
            || self.view.universe().lookup_name(selector).await?.is_some()
            || self.inherited("doesNotUnderstand:").await?.is_some())
    }
}

/// What an object with this slot understands.
fn selectors(slot: &SlotNode) -> Vec<String> {
    match slot.kind {
        SlotNodeKind::Assignable(_) => vec![slot.name.clone(), format!("{}:", slot.name)],
        _ => vec![slot.name.clone()],
    }
}
