//! Shadow runs: recent messages again, on the graph as they found it, with the method that is there and with the one that
//! would replace it.

use batos_covenant::{Example, SendCommand};
use batos_graph::ObjectId;
use batos_uvm::universe::{Seen, UniverseError, View};

use crate::{Case, Job, Mind, agreement::Outcome, crucible::message, judgement::Context};

/// Messages that one judgement runs again.
const MAX_RUNS: usize = 64;

impl Mind {
    /// On which recent messages a draft that replaces something does something else, for people. A message that failed
    /// may do what it likes now.
    pub(crate) async fn shadow(
        &self,
        job: &Job,
        context: &Context,
        source: &str,
    ) -> Result<Option<String>, UniverseError> {
        let Some(watch) = self.watch.as_ref().filter(|_| job.replaces(&context.holder, source).is_some()) else {
            return Ok(None);
        };
        let (mut ran, mut others) = (0, Vec::new());
        for seen in watch.recent(context.holder_id).into_iter().take(MAX_RUNS) {
            let Some((send, view)) = self.as_it_was(&seen).await? else { continue };
            let case = job.case(view, (context.holder_id, &context.holder), &context.known);
            if let Some(other) = case.another(seen.object, &send, source).await? {
                others.extend(other);
                ran += 1;
            }
        }
        let Some(first) = others.first() else { return Ok(None) };
        Ok(Some(format!("of {ran} recent messages it does something else on {}: {first}", others.len())))
    }

    /// What was sent, and the graph that it found; none if that is no longer kept.
    async fn as_it_was<'a>(&'a self, seen: &Seen) -> Result<Option<(SendCommand, View<'a>)>, UniverseError> {
        let Some(send) = &seen.send else { return Ok(None) };
        let mut view = View::new(&self.universe);
        for (id, rev) in &seen.base {
            let Some(record) = self.universe.object_at(*id, *rev).await? else { return Ok(None) };
            view.overlay(*id, record);
        }
        Ok(Some((send.clone(), view)))
    }
}

impl Case<'_> {
    /// How it answers otherwise with the draft; none where it cannot be told.
    async fn another(
        &self,
        object: ObjectId,
        send: &SendCommand,
        source: &str,
    ) -> Result<Option<Option<String>>, UniverseError> {
        let sent: Example = message(&send.selector, send.arguments.clone());
        let (Ok(before), Ok(after)) =
            (self.sent(None, object, &sent, 0).await?, self.sent(Some(source), object, &sent, 0).await?)
        else {
            return Ok(None);
        };
        let (before, after) = (Outcome::of(&before), Outcome::of(&after));
        let is_other = before != after && matches!(before, Outcome::Does { .. });
        Ok(Some(is_other.then(|| format!("{} {before}, with it {after}", send.selector))))
    }
}
