//! A prototype that lacks one selector, and methods that are tried in its place.

use std::sync::Arc;

use batos_bench_store::{Failure, send};
use batos_covenant::{ApplyCommand, ErrorKind, Example, PrototypeDefinition, Wire};
use batos_graph::{ObjectId, Record, Slot, SlotKind};
use batos_mind::{Behaviour, Case, Crucible, Verdict};
use batos_uvm::{
    universe::{Patch, Universe, View, Work},
    vm::{Call, Exit, Limits, Turn},
};

/// Of one try beside the Crucible; wrong methods often do not end.
const LIMITS: Limits = Limits { fuel: 1_000_000, heap_bytes: 32 << 20, depth: 2_000, fan_out: 0, hops: 0 };

pub struct Trial {
    universe: Universe,
    object: ObjectId,
    holder: (ObjectId, Arc<Record>),
    selector: String,
    /// As the manifest holds them.
    examples: Vec<Example>,
}

impl Trial {
    /// Makes the prototype.
    pub async fn new(universe: &Universe, name: &str, selector: &str, examples: Vec<Example>) -> Result<Self, Failure> {
        let definition = PrototypeDefinition { examples, ..PrototypeDefinition::default() };
        let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
        let object = ObjectId::of_name(name);
        send(universe, object, Work::Apply { name: name.to_owned(), apply }, None).await?;
        Self::of(universe, object, selector).await
    }

    /// Of a prototype that is there.
    pub async fn of(universe: &Universe, object: ObjectId, selector: &str) -> Result<Self, Failure> {
        let (holder, _, record) = universe.holder(object).await?;
        let manifest = record.manifest.as_ref().ok_or("the holder has no manifest")?;
        let PrototypeDefinition { examples, .. } = serde_json::from_str(&manifest.definition)?;
        Ok(Self {
            universe: universe.clone(),
            object,
            holder: (holder, record),
            selector: selector.to_owned(),
            examples,
        })
    }

    /// What the Crucible sees the method do when it admits it; else its reason.
    pub async fn judge(&self, source: &str) -> Result<Result<Behaviour, String>, Failure> {
        let case = Case {
            view: View::new(&self.universe),
            receiver: self.object,
            holder: (self.holder.0, &self.holder.1),
            patch: Patch::Method(&self.selector),
            examples: &self.examples,
            kept: &[],
        contract: None,
            asked: None,
            defect: None,
            crucible: Crucible::default(),
            began: 0,
            seed: [0; 32],
        };
        Ok(match case.judge(source).await? {
            Verdict::Admitted { behaviour, .. } => Ok(behaviour),
            Verdict::Refused { reason, .. } => Err(reason),
        })
    }

    /// What the method answers, or how it fails.
    pub async fn answer(&self, source: &str, arguments: &[Wire]) -> Result<Result<Wire, ErrorKind>, Failure> {
        let mut with = (*self.holder.1).clone();
        with.slots.retain(|slot| slot.name != self.selector);
        with.slots.push(Slot { name: self.selector.clone(), kind: SlotKind::Method(source.to_owned()) });
        let mut view = View::new(&self.universe);
        view.overlay(self.holder.0, with);
        let call = Call { receiver: self.object, selector: self.selector.clone(), arguments: arguments.to_vec() };
        let mut turn = Turn::new(&call, LIMITS, [0; 32])?;
        Ok(match view.run(&mut turn).await? {
            Exit::Done => turn.effects().map(|effects| effects.answer).map_err(|error| error.kind),
            Exit::NotUnderstood(_) => Err(ErrorKind::NotUnderstood),
            Exit::Failed(error) => Err(error.kind),
            Exit::Paused | Exit::Fault(_) => return Err("an unfinished turn".into()),
        })
    }
}
