//! Whoever looks on as messages are carried out: what was asked, on what, and which method was at fault.

use std::sync::Arc;

use batos_covenant::SendCommand;
use batos_graph::{ObjectId, Rev};

use super::{Changes, Message, Universe, Work};
use crate::vm::Fault;

/// A message that was carried out, well or not, and what that rests on is durable.
#[derive(Debug, Clone)]
pub struct Seen {
    pub object: ObjectId,
    /// What a sender sent; absent for what an object sent.
    pub send: Option<SendCommand>,
    /// Objects that it read outside the image, with their revisions then.
    pub base: Vec<(ObjectId, Rev)>,
    pub fault: Option<Box<Fault>>,
}

/// Is told of every message; must not block.
pub trait Witness: Send + Sync + 'static {
    fn saw(&self, seen: Seen);
}

impl Seen {
    pub(super) fn of(message: &Message, changes: &Changes) -> Option<Self> {
        let send = match &message.work {
            Work::Send { send, .. } => Some(send.clone()),
            Work::Post { .. } => None,
            _ => return None,
        };
        let read = changes.reads.objects.iter().filter(|(id, _)| !id.is_well_known());
        let base = read.filter_map(|(id, rev)| Some((*id, (*rev)?))).collect();
        Some(Self { object: message.object, send, base, fault: changes.fault.clone() })
    }
}

impl Universe {
    /// Lets `witness` look on. Only the first one is.
    pub fn watched_by(&self, witness: Arc<dyn Witness>) {
        let _ = self.inner.witness.set(witness);
    }
}
