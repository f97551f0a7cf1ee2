//! Recorded answers, for tests and for a tour without a model.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;

use crate::{Answer, Drafter, MindError, Prompt};

/// Answers by the digest of their request.
#[derive(Debug, Clone, Default)]
pub struct Recordings {
    answers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    recordings: Vec<Recording>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    request: String,
    answer: String,
}

impl Recordings {
    /// From pairs of a request's digest and its answer.
    pub fn new(answers: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { answers: answers.into_iter().collect() }
    }

    /// Reads `recordings: [{request: digest, answer: text}]`.
    pub fn parse(yaml: &str) -> Result<Self, MindError> {
        let file: File = serde_yaml::from_str(yaml).map_err(|e| MindError::BadRecordings(e.to_string()))?;
        Ok(Self::new(file.recordings.into_iter().map(|r| (r.request, r.answer))))
    }
}

#[async_trait]
impl Drafter for Recordings {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        let digest = prompt.digest();
        match self.answers.get(&digest) {
            Some(text) => Ok(Answer { text: text.clone(), mind: "recorded".to_owned() }),
            None if self.answers.is_empty() => Err(MindError::NoMind),
            None => Err(MindError::NotRecorded { digest, subject: prompt.selector.clone() }),
        }
    }
}
