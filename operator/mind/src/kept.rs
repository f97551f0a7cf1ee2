//! What a draft that replaces something must not break, and what it must mend.

use batos_uvm::universe::UniverseError;

use crate::{
    Case,
    crucible::{Base, differs, message},
};

impl Case<'_> {
    /// What of the examples of other things holds without the source, and not with it; and whether minds may see it.
    pub(crate) async fn lost(&self, source: &str, base: &mut Base) -> Result<Option<(String, bool)>, UniverseError> {
        for (number, example) in self.kept.iter().enumerate() {
            let holds = self.sent(None, self.receiver, example, number).await?;
            if holds.is_ok_and(|trace| differs(&trace, example).is_none())
                && let Err(reason) = self.run(source, example, number, base).await?
            {
                let shown = serde_json::to_string(example).unwrap_or_default();
                let reason = format!("with it an example of something else ({shown}) holds no more: {reason}");
                return Ok(Some((reason, example.hidden)));
            }
        }
        Ok(None)
    }

    /// How the message on which a method failed still fails, in words without its values.
    pub(crate) async fn still_fails(&self, source: &str, base: &mut Base) -> Result<Option<String>, UniverseError> {
        let Some((object, send)) = self.defect.and_then(|defect| Some((defect.object, defect.send.as_ref()?))) else {
            return Ok(None);
        };
        let again = message(&send.selector, send.arguments.clone());
        let Ok(trace) = self.sent(Some(source), object, &again, 0).await? else { return Ok(None) };
        base.extend(&trace.base);
        Ok(trace.answer.err().map(|error| format!("the message that failed still fails ({:?})", error.kind)))
    }
}
