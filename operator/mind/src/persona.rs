//! Personae look at a method that has held. They can only object: then a person decides. What holds is for running to say.

use std::collections::BTreeMap;

use batos_covenant::{PersonaVerdict, Shape, ShapeType};

use crate::{
    BecomingError, ClientError, Forge, Job, Material, Mind, MindError, Prompt, budget, draft::usage_of, outcome::value,
};

/// Longest objection that is kept, in characters.
const MAX_OBJECTION: usize = 300;

/// From the universe's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    pub name: String,
    /// Who it is and what it looks for.
    pub prompt: String,
    /// The model or facet that plays it; the mind's own when absent.
    pub model: Option<String>,
}

impl Mind {
    /// Asks every persona, and counts that in the job. `seen`: what the Crucible saw the method do, for people.
    pub(crate) async fn personae(
        &self,
        job: &mut Job,
        forge: &Forge,
        material: &Material<'_>,
        source: &str,
        seen: &[String],
    ) -> Result<Vec<PersonaVerdict>, BecomingError> {
        let mut verdicts = Vec::new();
        for persona in &self.policy.personae {
            let prompt = Prompt::persona(forge, persona, material, source, seen);
            budget::allow(&self.universe, &self.policy.budget).await?;
            let asked = self.drafter.draft(&prompt).await;
            budget::pay(&self.universe, usage_of(&asked)).await?;
            job.usage.add(usage_of(&asked));
            job.model_calls += 1;
            let (mind, objection) = match asked {
                Ok(answer) => (answer.mind, objection(answer.texts.first().map(String::as_str).unwrap_or_default())),
                Err(MindError::Client(ClientError::Truncated { .. })) => {
                    (String::new(), Some("its verdict was cut off".to_owned()))
                }
                Err(error @ (MindError::NotRecorded { .. } | MindError::NoMind)) => {
                    (String::new(), Some(format!("it cannot be asked: {error}")))
                }
                Err(error) => return Err(error.into()),
            };
            let objection = objection.map(|text| text.chars().take(MAX_OBJECTION).collect());
            verdicts.push(PersonaVerdict { persona: persona.name.clone(), mind, objection });
        }
        Ok(verdicts)
    }
}

/// What a verdict looks like.
pub(crate) fn shape() -> Shape {
    let field = |kind| Shape { kind, allowed: Vec::new(), min: None, max: None, fields: BTreeMap::new() };
    let fields = [("objects", ShapeType::Boolean), ("why", ShapeType::String)];
    let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), field(kind))).collect();
    Shape { fields, ..field(ShapeType::Record) }
}

/// Who gives no verdict objects.
fn objection(text: &str) -> Option<String> {
    match value(text, &shape()) {
        Err(wrong) => Some(format!("it gave no verdict: {wrong}")),
        Ok(verdict) if verdict.get("objects").is_some_and(|objects| objects == false) => None,
        Ok(verdict) => Some(verdict.get("why").and_then(|why| why.as_str()).unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::objection;

    #[test]
    fn who_gives_no_verdict_objects() {
        for (text, wanted) in [
            (r#"{"objects": false, "why": ""}"#, None),
            (r#"I think: {"objects": false, "why": "fine"}."#, None),
            (r#"{"objects": true, "why": "it rounds"}"#, Some("it rounds")),
            (r#"{"objects": "no", "why": ""}"#, Some("no verdict")),
            (r#"{"objects": false}"#, Some("no verdict")),
            ("no objection", Some("no verdict")),
            ("", Some("no verdict")),
        ] {
            let found = objection(text);
            assert_eq!(found.is_some(), wanted.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(wanted.unwrap_or_default()), "{text}");
        }
    }
}
