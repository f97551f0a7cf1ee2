//! The Architect's directives: in words, for an object; what is made may be several slots, in one swap.

use batos_covenant::Example;
use batos_graph::ObjectId;
use serde::{Deserialize, Serialize};

use crate::{Autonomy, BecomingError, Job, Mind, MindError, Outcome};

/// Stands where the selector does that other becomings make.
pub(crate) const ASK: &str = "ask";
/// Longest text, and most examples, of a directive.
const MAX_TEXT: usize = 4096;
const MAX_EXAMPLES: usize = 64;

/// What is wanted, and what it is judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directive {
    pub text: String,
    pub examples: Vec<Example>,
}

impl Mind {
    /// Makes what is asked for, or joins the becoming that does. Without examples a person decides, unless the universe is
    /// free.
    pub async fn ask(&self, object: ObjectId, directive: Directive, sender: &str) -> Result<Outcome, BecomingError> {
        if self.policy.autonomy == Autonomy::Strict {
            return Err(MindError::Strict.into());
        }
        let Directive { text, examples } = &directive;
        if text.trim().is_empty() || text.len() > MAX_TEXT || examples.len() > MAX_EXAMPLES {
            let text = format!(
                "a directive has 1 to {MAX_TEXT} bytes and at most {MAX_EXAMPLES} examples, not {} and {}",
                text.len(),
                examples.len()
            );
            return Ok(Outcome::Refused(text));
        }
        let (holder, ..) = self.universe.holder(object).await?;
        self.begun(&Job::directed(holder, object, directive), sender).await
    }
}
